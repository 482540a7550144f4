"""MRC files: modes, byte orders, extended headers, statistics, pixel sizes; mrcfile is the judge."""

import gzip
import struct
import warnings

import mrcfile
import numpy as np
import pytest

from cryorecon.data.mrc import (
    HEADER_BYTES,
    StackWriter,
    part_name,
    read_density,
    read_header,
    read_volume,
    write_stack,
    write_volume,
)
from cryorecon.data.source import FileSource
from cryorecon.errors import InputError

DTYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}


def hand_made(path, array, mode, order, *, extended=0, map_id=True, stamp=None, apix=2.0):
    """An MRC file written byte by byte, independently of the package's writer."""
    nz, ny, nx = array.shape
    head = bytearray(HEADER_BYTES)
    struct.pack_into(order + "4i", head, 0, nx, ny, nz, mode)
    struct.pack_into(order + "3i", head, 28, nx, ny, nz)
    struct.pack_into(order + "6f", head, 40, nx * apix, ny * apix, nz * apix, 90, 90, 90)
    struct.pack_into(order + "3i", head, 64, 1, 2, 3)
    struct.pack_into(order + "i", head, 92, extended)
    if map_id:
        head[208:212] = b"MAP "
    head[212:216] = stamp if stamp is not None else (b"\x44\x44\0\0" if order == "<" else b"\x11\x11\0\0")
    path.write_bytes(bytes(head) + b"\xab" * extended + array.astype(order + DTYPES[mode]).tobytes())


@pytest.mark.parametrize("extended", [0, 160])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("mode", DTYPES)
def test_every_real_mode_in_both_byte_orders(tmp_path, mode, order, extended):
    array = np.random.default_rng(0).integers(0, 100, (3, 4, 4))
    hand_made(tmp_path / "a.mrcs", array, mode, order, extended=extended)
    header = read_header(tmp_path / "a.mrcs")
    assert (header.shape, header.order, header.offset) == ((3, 4, 4), order, HEADER_BYTES + extended)
    assert header.apix == pytest.approx(2.0)
    images = FileSource.open([tmp_path / "a.mrcs"]).read(np.array([2, 0]))
    np.testing.assert_array_equal(images, array[[2, 0]])
    assert images.dtype == np.float32
    np.testing.assert_array_equal(read_density(tmp_path / "a.mrcs")[0], array)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("stamp", [b"\0\0\0\0", b"DA\0\0", b"zz\xff\xff", b"\x11\x11\0\0", b"\x44\x44\0\0"])
def test_a_missing_map_id_or_a_broken_machine_stamp_do_not_matter(tmp_path, order, stamp):
    array = np.arange(2 * 6 * 6).reshape(2, 6, 6)
    hand_made(tmp_path / "a.mrcs", array, 2, order, map_id=False, stamp=stamp)
    header = read_header(tmp_path / "a.mrcs")
    assert (header.order, header.has_map_id) == (order, False)
    np.testing.assert_array_equal(FileSource.open([tmp_path / "a.mrcs"]).read(np.arange(2)), array)


def test_mrcfile_reads_what_we_write_and_the_pixel_size_is_kept(tmp_path):
    rng = np.random.default_rng(1)
    images, volume = rng.normal(size=(5, 8, 8)).astype("f4"), rng.normal(size=(8, 8, 8)).astype("f4")
    write_stack(tmp_path / "s.mrcs", images, 1.37)
    write_volume(tmp_path / "v.mrc", volume, 1.37)
    for name, array, is_stack in (("s.mrcs", images, True), ("v.mrc", volume, False)):
        assert mrcfile.validate(tmp_path / name)
        with mrcfile.open(tmp_path / name) as file:
            np.testing.assert_array_equal(file.data, array)
            assert file.is_image_stack() == is_stack
            assert file.voxel_size.x == pytest.approx(1.37)
            assert file.header.dmax == pytest.approx(array.max())
            assert file.header.rms == pytest.approx(array.std(), rel=1e-4)
        assert read_header(tmp_path / name).apix == pytest.approx(1.37)
    np.testing.assert_array_equal(read_volume(tmp_path / "v.mrc")[0], volume)


def test_we_read_what_mrcfile_writes(tmp_path):
    volume = np.random.default_rng(2).normal(size=(6, 6, 6)).astype(np.float16)
    with mrcfile.new(tmp_path / "v.mrc") as file:
        file.set_data(volume)
        file.voxel_size = 3.5
    array, apix = read_volume(tmp_path / "v.mrc")
    np.testing.assert_array_equal(array, volume.astype("f4"))
    assert apix == pytest.approx(3.5)


def test_float16_stacks_round_trip_and_refuse_what_they_cannot_hold(tmp_path):
    images = np.random.default_rng(3).normal(size=(4, 8, 8)).astype("f4")
    with StackWriter(tmp_path / "h.mrcs", 8, 2.0, half=True) as out:
        out.append(images[:3])
        out.append(images[3:])
    assert mrcfile.validate(tmp_path / "h.mrcs")
    np.testing.assert_array_equal(
        FileSource.open([tmp_path / "h.mrcs"]).read(np.arange(4)), images.astype("f2").astype("f4")
    )
    with pytest.raises(InputError, match="65504"), StackWriter(tmp_path / "big.mrcs", 8, 2.0, half=True) as out:
        out.append(images * 1e6)
    assert not list(tmp_path.glob("big*"))


def test_an_unfinished_stack_never_bears_its_name(tmp_path):
    images = np.random.default_rng(4).normal(size=(3, 8, 8)).astype("f4")
    path = tmp_path / "s.mrcs"
    with pytest.raises(ZeroDivisionError), StackWriter(path, 8, 1.0) as out:
        out.append(images)
        assert not path.exists()
        _ = 1 / 0
    assert not list(tmp_path.iterdir())
    writer = StackWriter(path, 8, 1.5)
    writer.append(images)
    writer.suspend()
    assert part_name(path).exists()
    with StackWriter(path, 8, 1.5, keep=2) as out:
        out.append(images[2:])
    write_stack(tmp_path / "whole.mrcs", images, 1.5)
    assert path.read_bytes()[HEADER_BYTES:] == (tmp_path / "whole.mrcs").read_bytes()[HEADER_BYTES:]
    assert mrcfile.validate(path)


def test_gzipped_volumes_are_read_and_permuted_axes_put_right(tmp_path):
    volume = np.random.default_rng(5).normal(size=(4, 4, 4)).astype("f4")
    write_volume(tmp_path / "v.mrc", volume, 2.0)
    (tmp_path / "v.mrc.gz").write_bytes(gzip.compress((tmp_path / "v.mrc").read_bytes()))
    np.testing.assert_array_equal(read_volume(tmp_path / "v.mrc.gz")[0], volume)
    raw = bytearray((tmp_path / "v.mrc").read_bytes())
    struct.pack_into("<3i", raw, 64, 3, 1, 2)  # columns along z, rows along x, sections along y
    raw[HEADER_BYTES:] = volume.transpose(1, 2, 0).tobytes()
    (tmp_path / "p.mrc").write_bytes(raw)
    np.testing.assert_array_equal(read_volume(tmp_path / "p.mrc")[0], volume)


def test_real_files(shared_data):
    header = read_header(shared_data / "maps/EMD-3001.map.gz")
    assert header.offset > HEADER_BYTES
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with mrcfile.open(shared_data / "maps/EMD-3001.map.gz") as file:
            raw, axes = np.array(file.data), [int(file.header[name]) for name in ("mapc", "mapr", "maps")]
    array, _ = read_density(shared_data / "maps/EMD-3001.map.gz")
    np.testing.assert_array_equal(array, raw.transpose([axes[::-1].index(i) for i in (3, 2, 1)]))
    assert read_header(shared_data / "sim_truth/ribosome50S_10076_DE/10076_classD_32_sim.mrcs").has_map_id is False
    noise = FileSource.open([shared_data / "real_particles/betagal_empiar10061/betagal_background_101_b96_f16.mrcs"])
    assert noise.headers[0].mode == 12
    assert np.isfinite(noise.read(np.arange(101))).all()
