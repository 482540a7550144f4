"""The converters, preprocess and inspect as a user calls them: files in, files out, one line on bad input."""

import pickle

import numpy as np
import pytest
import starfile
import torch

from cryorecon.cli.main import main
from cryorecon.data.cryodrgn_files import read_ctf, read_poses, write_ctf, write_poses
from cryorecon.data.load import load_particles
from cryorecon.data.mrc import read_header, read_volume, write_stack, write_volume
from cryorecon.data.poses import Poses
from cryorecon.geometry import rotations
from cryorecon.geometry.fourier import resample
from cryorecon.imaging.ctf import Optics


@pytest.fixture
def data(tmp_path):
    """A folder with images.mrcs (6 of 16 px, 2.5 Å), poses.pkl and ctf.pkl."""
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    write_stack(tmp_path / "images.mrcs", rng.normal(size=(6, 16, 16)), 2.5)
    write_poses(
        tmp_path / "poses.pkl", Poses(rotations.random(6, generator), torch.randn(6, 2, generator=generator)), 16, 2.5
    )
    optics = Optics.from_columns(6, defocus_u=9000.0, defocus_v=8800.0, voltage=300, cs=2.7, amplitude_contrast=0.1)
    write_ctf(tmp_path / "ctf.pkl", optics, 16, 2.5)
    np.save(tmp_path / "ind.npy", np.array([4, 1]))
    return tmp_path


def run(*argv):
    return main([str(arg) for arg in argv])


def make_star(data):
    assert (
        run(
            "write_star",
            data / "images.mrcs",
            "--ctf",
            data / "ctf.pkl",
            "--poses",
            data / "poses.pkl",
            "-o",
            data / "p.star",
        )
        == 0
    )
    return data / "p.star"


def test_write_star_and_back_to_the_pickles(data):
    star = make_star(data)
    assert run("parse_pose_star", star, "-o", data / "p.pkl") == 0
    assert run("parse_ctf_star", star, "-o", data / "c.pkl") == 0
    a, b = read_poses(data / "poses.pkl", 16, 2.5), read_poses(data / "p.pkl", 16, 2.5)
    torch.testing.assert_close(a.rotation, b.rotation, atol=1e-6, rtol=0)
    torch.testing.assert_close(a.shift, b.shift, atol=1e-5, rtol=0)
    np.testing.assert_allclose(
        pickle.loads((data / "c.pkl").read_bytes()), pickle.loads((data / "ctf.pkl").read_bytes()), rtol=1e-6, atol=1e-5
    )


def test_parse_pose_star_at_another_box_scales_fractions(data):
    star = make_star(data)
    assert run("parse_pose_star", star, "-D", "32", "-o", data / "p.pkl") == 0
    np.testing.assert_allclose(
        2 * pickle.loads((data / "p.pkl").read_bytes())[1],
        pickle.loads((data / "poses.pkl").read_bytes())[1],
        atol=1e-6,
    )


def test_old_stars_need_a_box_and_take_missing_values(shared_data, tmp_path, capsys):
    star = shared_data / "metadata/relion30_PfCRT_data_images.star"
    assert run("parse_pose_star", star, "-o", tmp_path / "p.pkl") == 2
    assert "give -D" in capsys.readouterr().err
    assert run("parse_pose_star", star, "-D", "300", "-o", tmp_path / "p.pkl") == 0
    blocks = starfile.read(star, always_dict=True)
    np.testing.assert_allclose(
        pickle.loads((tmp_path / "p.pkl").read_bytes())[1][:, 0], blocks["images"]["rlnOriginX"] / 300, rtol=1e-5
    )
    assert run("parse_ctf_star", star, "-D", "300", "-o", tmp_path / "c.pkl") == 2
    assert "rlnAmplitudeContrast missing" in capsys.readouterr().err
    assert run("parse_ctf_star", star, "-D", "300", "-w", "0.07", "--ps", "90", "-o", tmp_path / "c.pkl") == 0
    table = pickle.loads((tmp_path / "c.pkl").read_bytes())
    np.testing.assert_allclose(table[0, [0, 1, 5, 7, 8]], [300, 1.035, 300, 0.07, 90], rtol=1e-5)


def test_cryosparc_converters_agree_with_cryodrgns(shared_data, tmp_path):
    folder = shared_data / "metadata"
    cs = folder / "cryosparc_P12_J24_001_particles.cs"
    assert run("parse_pose_csparc", cs, "-D", "180", "-o", tmp_path / "p.pkl") == 0
    assert run("parse_ctf_csparc", cs, "-o", tmp_path / "c.pkl") == 0
    ours, theirs = read_poses(tmp_path / "p.pkl", 180, 1.0), read_poses(folder / "cryosparc_P12_J24_pose.pkl", 180, 1.0)
    torch.testing.assert_close(ours.rotation, theirs.rotation, atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.shift, theirs.shift, atol=1e-5, rtol=0)
    np.testing.assert_allclose(
        pickle.loads((tmp_path / "c.pkl").read_bytes()),
        pickle.loads((folder / "cryosparc_P12_J24_ctf.pkl").read_bytes()),
        rtol=1e-6,
        atol=1e-6,
    )


def test_npy_is_written_where_asked_for(data):
    star = make_star(data)
    assert run("parse_pose_star", star, "-o", data / "p.npy") == 0
    assert run("parse_ctf_star", star, "-o", data / "c.npy") == 0
    assert np.load(data / "p.npy").shape == (6, 11)
    assert len(read_ctf(data / "c.npy")) == 6
    assert run("parse_ctf_star", star, "-o", data / "c.mrc") == 2


def test_downsample_keeps_values_and_writes_the_pixel_size(data):
    assert run("downsample", data / "images.mrcs", "-D", "8", "-o", data / "small.mrcs") == 0
    header = read_header(data / "small.mrcs")
    assert header.shape == (6, 8, 8)
    assert header.apix == pytest.approx(5.0)
    images = load_particles(data / "images.mrcs", invert=False).images()
    torch.testing.assert_close(
        load_particles(data / "small.mrcs", invert=False).images(), resample(images, 8, 2), atol=1e-5, rtol=1e-4
    )
    assert run("downsample", data / "images.mrcs", "-D", "8", "--chunk", "4", "-o", data / "part.mrcs") == 0
    torch.testing.assert_close(
        load_particles(data / "part.txt", invert=False).images(), resample(images, 8, 2), atol=1e-5, rtol=1e-4
    )


def test_downsampled_maps_keep_their_pixel_size(data):
    volume = np.random.default_rng(0).normal(size=(16, 16, 16))
    write_volume(data / "v.mrc", volume, 1.5)
    assert run("downsample", data / "v.mrc", "--is-vol", "-D", "8", "-o", data / "w.mrc") == 0
    small, apix = read_volume(data / "w.mrc")
    assert small.shape == (8, 8, 8)
    assert apix == pytest.approx(3.0)


def test_a_map_takes_no_options_of_stacks(data, error_of):
    for option in (["--chunk", "4"], ["--datadir", data], ["--Apix", "2"]):
        said = error_of("downsample", data / "images.mrcs", "--is-vol", "-D", "8", *option, "-o", data / "w.mrc")
        assert said.startswith(f"{option[0].lower()}: expected with a stack only")


@pytest.mark.parametrize(("box", "match"), [("7", "even box"), ("32", "from 4 to 16"), ("0", "even box")])
def test_downsample_refuses_odd_and_larger_boxes(data, capsys, box, match):
    assert run("downsample", data / "images.mrcs", "-D", box, "-o", data / "small.mrcs") == 2
    assert match in capsys.readouterr().err
    assert not list(data.glob("small*"))


def test_filter_keeps_the_chosen_rows_of_everything(data):
    star = make_star(data)
    images = load_particles(data / "images.mrcs", invert=False).images([4, 1])
    for name in ("p.star", "images.mrcs", "poses.pkl", "ctf.pkl"):
        out = f"chosen.{name.rpartition('.')[2]}" if name != "ctf.pkl" else "chosen_ctf.pkl"
        assert run("filter", data / name, "--ind", data / "ind.npy", "-o", data / out) == 0
    torch.testing.assert_close(load_particles(data / "chosen.mrcs", invert=False).images(), images)
    stack = load_particles(data / "chosen.star")
    torch.testing.assert_close(stack.images(), images)
    full = starfile.read(star, always_dict=True)
    kept = starfile.read(data / "chosen.star", always_dict=True)
    assert list(kept["particles"].columns) == list(full["particles"].columns)
    assert kept["optics"].equals(full["optics"])
    np.testing.assert_array_equal(kept["particles"]["rlnAngleRot"], full["particles"]["rlnAngleRot"][[4, 1]])
    torch.testing.assert_close(
        read_poses(data / "chosen.pkl", 16, 2.5).rotation, read_poses(data / "poses.pkl", 16, 2.5).rotation[[4, 1]]
    )
    assert len(read_ctf(data / "chosen_ctf.pkl")) == 2


def test_a_star_that_moves_finds_its_stacks(data, tmp_path):
    """Names are kept where they lead to the images, and else lead there from the new folder."""
    make_star(data)
    far = tmp_path.parent / f"{tmp_path.name} elsewhere"
    far.mkdir()
    assert run("filter", data / "p.star", "--ind", data / "ind.npy", "-o", far / "kept.star") == 0
    assert run("filter", data / "p.star", "--ind", data / "ind.npy", "-o", data / "kept_here.star") == 0
    moved, here = (load_particles(path) for path in (far / "kept.star", data / "kept_here.star"))
    np.testing.assert_array_equal(moved.images().numpy(), here.images().numpy())
    assert ".." not in (data / "kept_here.star").read_text()


def test_filter_real_metadata(shared_data, tmp_path):
    np.save(tmp_path / "i.npy", np.array([7, 3, 2000]))
    cs = shared_data / "metadata/cryosparc_P12_J24_001_particles.cs"
    assert run("filter", cs, "--ind", tmp_path / "i.npy", "-o", tmp_path / "f.cs") == 0
    np.testing.assert_array_equal(np.load(tmp_path / "f.cs"), np.load(cs)[[7, 3, 2000]])
    gz = shared_data / "metadata/relion31_refine3d_run_it016_data.star.gz"
    assert run("filter", gz, "--ind", tmp_path / "i.npy", "-o", tmp_path / "f.star") == 0
    kept = starfile.read(tmp_path / "f.star", always_dict=True)
    assert len(kept["particles"]) == 3
    assert "rlnMagMat00" in kept["optics"]


@pytest.mark.parametrize(
    ("name", "out", "match"),
    [
        ("p.star", "x.mrcs", "ends in .star"),
        ("images.mrcs", "x.star", "ends in .mrcs"),
        ("short.pkl", "x.pkl", "indices from 0 to 1"),
    ],
)
def test_filter_refuses_what_does_not_fit(data, capsys, name, out, match):
    make_star(data)
    (data / "short.pkl").write_bytes(pickle.dumps(np.zeros((2, 3))))
    assert run("filter", data / name, "--ind", data / "ind.npy", "-o", data / out) == 2
    assert match in capsys.readouterr().err
    assert not (data / out).exists()


def test_preprocess_makes_a_folder_that_loads_alone(data, capsys):
    star = make_star(data)
    assert run("preprocess", star, "-D", "8", "-o", data / "ready", "--float16") == 0
    assert "6 images of 8 px" in capsys.readouterr().out
    stack = load_particles(data / "ready")
    assert (stack.box, stack.apix, stack.sign) == (8, 5.0, 1)
    assert stack.poses is not None
    assert stack.optics is not None
    assert run("inspect", data / "ready") == 0
    assert "marked by cryorecon as white protein" in capsys.readouterr().out


def test_preprocess_from_pickles_by_the_rule_of_training(data):
    for ctf, sign in (
        (["--ctf", data / "ctf.pkl"], 1),
        ([], -1),
        (["--uninvert-data"], 1),
        (["--contrast", "dark"], -1),
    ):
        assert run("preprocess", data / "images.mrcs", *ctf, "--normalise", "none", "-o", data / "o") == 0
        raw = load_particles(data / "images.mrcs", invert=False).images()
        torch.testing.assert_close(load_particles(data / "o").images(), sign * raw)


def over_the_input(data, what):
    """A command line whose output is one of its inputs, and that input."""
    images, star = data / "images.mrcs", data / "p.star"
    link = data / "link.mrcs"
    link.symlink_to(images)
    return {
        "downsample": (["downsample", images, "-D", "8", "-o", images], images),
        "downsample of a star": (["downsample", star, "-D", "8", "-o", images], images),
        "downsample by a link": (["downsample", star, "-D", "8", "-o", link], images),
        "downsample of a map": (["downsample", data / "v.mrc", "--is-vol", "-D", "8", "-o", data / "v.mrc"], data / "v.mrc"),
        "downsample's list": (["downsample", data / "l.txt", "-D", "8", "--chunk", "4", "-o", data / "l.mrcs"], data / "l.txt"),
        "downsample's piece": (["downsample", data / "x.0.mrcs", "-D", "8", "--chunk", "4", "-o", data / "x.mrcs"],
                               data / "x.0.mrcs"),
        "filter": (["filter", images, "--ind", data / "ind.npy", "-o", images], images),
        "filter of a star": (["filter", star, "--ind", data / "ind.npy", "-o", data / "." / "p.star"], star),
        "filter's rows": (["filter", data / "p.npy", "--ind", data / "ind.npy", "-o", data / "ind.npy"], data / "ind.npy"),
        "write_star": (["write_star", star, "-o", star], star),
        "write_star's stack": (["write_star", images, "--poses", data / "poses.pkl", "-o", images], images),
        "write_star's poses": (["write_star", images, "--poses", star, "-o", star], star),
        "write_star's images": (["write_star", data / "n.star", "-o", data / "images.star"], data / "images.star"),
        "write_star of a folder": (["write_star", data / "ready", "-o", data / "ready/particles.star"],
                                   data / "ready/particles.star"),
        "parse_pose_star": (["parse_pose_star", data / "star.pkl", "-o", data / "star.pkl"], data / "star.pkl"),
        "parse_ctf_star": (["parse_ctf_star", data / "star.pkl", "-o", data / "star.pkl"], data / "star.pkl"),
        "parse_pose_csparc": (["parse_pose_csparc", data / "cs.npy", "-D", "16", "-o", data / "cs.npy"], data / "cs.npy"),
        "parse_ctf_csparc": (["parse_ctf_csparc", data / "cs.npy", "-D", "16", "-o", data / "cs.npy"], data / "cs.npy"),
        "preprocess": (["preprocess", star, "-o", star], star),
        "simulate": (["simulate", "--ctf-table", data / "truth.npz", "-o", data, "--overwrite"], data / "truth.npz"),
    }[what]


@pytest.mark.parametrize("what", [
    "downsample", "downsample of a star", "downsample by a link", "downsample of a map", "downsample's list",
    "downsample's piece", "filter", "filter of a star", "filter's rows", "write_star", "write_star's stack",
    "write_star's poses", "write_star's images", "write_star of a folder", "parse_pose_star", "parse_ctf_star",
    "parse_pose_csparc", "parse_ctf_csparc", "preprocess", "simulate",
])
def test_no_command_replaces_its_own_input(data, capsys, what):
    star = make_star(data)
    write_volume(data / "v.mrc", np.random.default_rng(0).normal(size=(16, 16, 16)), 1.5)
    (data / "l.txt").write_text("images.mrcs\n")
    for copy in ("x.0.mrcs", "images.star"):  # the latter a stack of a misleading name, which n.star names
        (data / copy).write_bytes((data / "images.mrcs").read_bytes())
    (data / "n.star").write_text(star.read_text().replace("images.mrcs", "images.star"))
    (data / "star.pkl").write_text(star.read_text())
    np.save(data / "p.npy", np.zeros((6, 11)))
    np.savez(data / "truth.npz", table=np.ones((2, 9)))
    fields = [("alignments3D/pose", "f4", 3), ("alignments3D/shift", "f4", 2), ("blob/psize_A", "f4"), ("ctf/df1_A", "f4"),
              ("ctf/df2_A", "f4"), ("ctf/df_angle_rad", "f4"), ("ctf/accel_kv", "f4"), ("ctf/cs_mm", "f4"),
              ("ctf/amp_contrast", "f4")]
    np.save(data / "cs.npy", np.ones(3, fields))
    if what == "write_star of a folder":
        assert run("preprocess", star, "-o", data / "ready") == 0
    argv, kept = over_the_input(data, what)
    before, names = kept.read_bytes(), sorted(data.iterdir())
    capsys.readouterr()
    assert run(*argv) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert ("isn't the input" in error) or (what == "write_star's stack" and "ends in .star" in error)
    assert kept.read_bytes() == before
    assert sorted(data.iterdir()) == names


def test_write_star_wants_a_star(data, capsys):
    for out in ("p.mrcs", "p", "p.star.gz"):
        assert run("write_star", data / "images.mrcs", "-o", data / out) == 2
        assert "ends in .star" in capsys.readouterr().err
        assert not (data / out).exists()


def test_filter_refuses_rows_that_repeat(data, capsys):
    np.save(data / "ind.npy", np.array([1, 1, 2, 2]))
    assert run("filter", data / "images.mrcs", "--ind", data / "ind.npy", "-o", data / "x.mrcs") == 2
    assert "each index once, found 2 of 4 repeated" in capsys.readouterr().err
    assert not (data / "x.mrcs").exists()


@pytest.mark.parametrize(
    "command",
    [
        "inspect",
        "preprocess",
        "parse_pose_star",
        "parse_ctf_star",
        "parse_pose_csparc",
        "parse_ctf_csparc",
        "downsample",
        "write_star",
        "filter",
    ],
)
def test_an_absent_file_is_one_line_and_exit_code_2(tmp_path, capsys, command):
    extra = {"inspect": [], "downsample": ["-D", "8"], "filter": ["--ind", tmp_path / "i.npy"]}.get(command, [])
    np.save(tmp_path / "i.npy", np.array([0]))
    out = [] if command == "inspect" else ["-o", tmp_path / "out.star"]
    assert run(command, tmp_path / "none.star", *extra, *out) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("cryorecon: error: ")
    assert captured.err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["i.npy"]


def test_converters_of_cs_advise_what_they_take(tmp_path, error_of, capsys):
    fields = [("blob/shape", "u4", 2), ("alignments3D/pose", "f4", 3), ("alignments3D/shift", "f4", 2),
              ("alignments3D/psize_A", "f4")]
    table = np.zeros(3, fields)
    table["blob/shape"], table["alignments3D/shift"], table["alignments3D/psize_A"] = 64, [3, -4], 1.5
    with (tmp_path / "p.cs").open("wb") as file:
        np.save(file, table)
    said = error_of("parse_ctf_csparc", tmp_path / "p.cs", "--Apix", "3", "-o", tmp_path / "c.pkl")
    assert said.endswith("is it in the job's passthrough file?")
    assert error_of("parse_pose_csparc", tmp_path / "p.cs", "-o", tmp_path / "p.pkl").endswith("found none; give --Apix")
    assert run("parse_pose_csparc", tmp_path / "p.cs", "--Apix", "3", "-o", tmp_path / "p.npy") == 0
    np.testing.assert_allclose(np.abs(np.load(tmp_path / "p.npy")[:, 9:]), [[4.5, 6]] * 3, rtol=1e-6)
