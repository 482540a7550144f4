"""Star files of every age, read and written."""

import gzip
from dataclasses import replace

import numpy as np
import pytest
import starfile
import torch

from cryorecon.data.load import load_particles, read_metadata
from cryorecon.data.mrc import write_stack
from cryorecon.data.star import read_star
from cryorecon.data.star_write import write_star
from cryorecon.errors import InputError
from cryorecon.geometry import rotations


def star_text(columns, rows, block="", optics=None):
    text = ""
    if optics:
        text += (
            "data_optics\n\nloop_\n" + "".join(f"_{c}\n" for c in optics) + " ".join(map(str, optics.values())) + "\n\n"
        )
    return text + f"data_{block}\n\nloop_\n" + "".join(f"_{c}\n" for c in columns) + "\n".join(rows) + "\n"


def same(a, b, rotation=1e-5):
    assert len(a) == len(b)
    assert a.apix == pytest.approx(b.apix)
    assert (a.sign, a.premultiplied, a.n_particles) == (b.sign, b.premultiplied, b.n_particles)
    torch.testing.assert_close(a.poses.rotation, b.poses.rotation, atol=rotation, rtol=0)
    torch.testing.assert_close(a.poses.shift, b.poses.shift, atol=1e-5, rtol=0)
    if a.optics is not None:
        torch.testing.assert_close(a.optics.parameters, b.optics.parameters, atol=1e-3, rtol=1e-6)
    assert torch.equal(a.images([0, len(a) - 1]), b.images([0, len(b) - 1]))


def test_what_we_write_we_read_and_starfile_reads(make_data, tmp_path):
    data = make_data(9)
    loaded = load_particles(data.star)
    same(loaded, data.stack)
    assert torch.equal(loaded.half, data.stack.half)
    blocks = starfile.read(data.star, always_dict=True)
    assert list(blocks) == ["optics", "particles"]
    assert blocks["optics"]["rlnImageSize"].tolist() == [16]
    assert blocks["particles"]["rlnImageName"][8] == "000009@images.mrcs"
    packed = data.folder / "packed.star.gz"
    packed.write_bytes(gzip.compress(data.star.read_bytes()))
    same(load_particles(packed), data.stack)


def test_optics_groups_are_made_where_voltages_differ(make_data, tmp_path):
    data = make_data(6)
    data.stack.optics.parameters[::2, 3] = 200.0
    write_star(data.star, data.stack)
    assert len(starfile.read(data.star, always_dict=True)["optics"]) == 2
    torch.testing.assert_close(
        load_particles(data.star).optics.parameters, data.stack.optics.parameters, atol=1e-3, rtol=1e-6
    )


def test_old_stars_have_shifts_in_pixels_and_a_magnification(make_data):
    data = make_data(3, apix=2.5)
    columns = [
        "rlnImageName",
        "rlnDetectorPixelSize",
        "rlnMagnification",
        "rlnAngleRot",
        "rlnAngleTilt",
        "rlnAnglePsi",
        "rlnOriginX",
        "rlnOriginY",
    ]
    rows = [f"{i}@images.mrcs 5.0 20000 10 20 30 {i} -{i}" for i in (2, 3, 1)]
    for block in ("", "images", "particles"):
        (data.folder / "old.star").write_text(star_text(columns, rows, block))
        stack = load_particles(data.folder / "old.star")
        assert stack.apix == 2.5
        assert stack.poses.shift.tolist() == [[5.0, -5.0], [7.5, -7.5], [2.5, -2.5]]
        np.testing.assert_array_equal(stack.source.read(np.arange(3)), data.images[[1, 2, 0]])
        angles = torch.deg2rad(torch.tensor([10.0, 20.0, 30.0]))
        torch.testing.assert_close(stack.poses.rotation[0], rotations.from_euler(angles))
        assert stack.optics is None


def test_a_subset_of_many_stacks_keeps_its_order(make_data, tmp_path):
    sets = [make_data(n, name=f"s{n}") for n in (4, 5)]
    names = [(1, 3), (0, 0), (1, 0), (0, 3), (1, 3)]
    rows = [f"{frame + 1:06d}@s{len(sets[k].images)}/images.mrcs" for k, frame in names]
    (tmp_path / "many.star").write_text(star_text(["rlnImageName"], rows))
    with pytest.warns(UserWarning, match="found 1 of 5 rows that name one again"):
        stack = load_particles(tmp_path / "many.star")
    np.testing.assert_array_equal(stack.source.read(np.arange(5)), [sets[k].images[frame] for k, frame in names])


def test_datadir_and_paths_from_the_projects_folder(make_data, tmp_path):
    data = make_data(3, name="Extract")
    job = tmp_path / "Refine" / "job1"
    job.mkdir(parents=True)
    for name in ("Extract/images.mrcs", "else/where/images.mrcs"):
        (job / "run.star").write_text(star_text(["rlnImageName"], [f"1@{name}"]))
        if name.startswith("Extract"):
            np.testing.assert_array_equal(load_particles(job / "run.star").source.read([0])[0], data.images[0])
        stack = load_particles(job / "run.star", datadir=data.folder)
        np.testing.assert_array_equal(stack.source.read([0])[0], data.images[0])


def test_names_with_blanks(make_data, tmp_path):
    data = make_data(3, name="with a blank")
    write_star(tmp_path / "out.star", data.stack)
    same(load_particles(tmp_path / "out.star"), data.stack)


def test_negative_b_factors_of_warp_are_turned(make_data):
    data = make_data(2)
    head = [
        "rlnImageName",
        "rlnDefocusU",
        "rlnVoltage",
        "rlnSphericalAberration",
        "rlnAmplitudeContrast",
        "rlnCtfBfactor",
    ]
    for values, expected in (((-8, -4), [8, 4]), ((-1, 3), [-1, 3]), ((0, 0), [0, 0])):
        rows = [f"{i + 1}@images.mrcs 9000 300 2.7 0.1 {b}" for i, b in enumerate(values)]
        (data.folder / "b.star").write_text(star_text(head, rows))
        assert read_star(data.folder / "b.star").optics.column("b_factor").tolist() == expected


def test_tilt_images_of_a_particle_share_its_id_and_pose(make_data):
    data = make_data(6)
    rows = [f"{i + 1}@images.mrcs 000_00000{i // 2} {10 * i} {20 + i} 5" for i in range(6)]
    columns = ["rlnImageName", "rlnGroupName", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
    (data.folder / "m.star").write_text(star_text(columns, rows))
    stack = load_particles(data.folder / "m.star")
    assert stack.particle.tolist() == [0, 0, 1, 1, 2, 2]
    first = stack.poses.rotation[::2].repeat_interleave(2, 0)
    torch.testing.assert_close(stack.tilt @ first, stack.poses.rotation, atol=1e-6, rtol=0)
    write_star(data.folder / "back.star", stack)
    again = load_particles(data.folder / "back.star")
    same(again, stack)
    torch.testing.assert_close(again.tilt, stack.tilt, atol=1e-5, rtol=0)
    ordinary = [row.replace("000_0000", "group_") for row in rows]  # a micrograph's group is no particle
    (data.folder / "g.star").write_text(star_text(columns, ordinary))
    assert load_particles(data.folder / "g.star").n_particles == 6


def test_our_mark_of_white_protein_keeps_images_from_being_inverted(make_data):
    data = make_data(3)
    bare = data.stack.__class__(data.stack.source, 2.5, None, None, torch.arange(3))
    for white, sign in ((False, -1), (True, 1)):
        write_star(data.star, replace(bare, white=white))
        assert load_particles(data.star).sign == sign
    assert load_particles(data.star, invert=True).sign == -1


TILT_HEAD = [
    "rlnTomoName",
    "rlnImageName",
    "rlnAngleRot",
    "rlnAngleTilt",
    "rlnAnglePsi",
    "rlnOriginXAngst",
    "rlnOriginYAngst",
    "rlnOriginZAngst",
    "rlnTomoVisibleFrames",
    "rlnOpticsGroup",
    "rlnRandomSubset",
]
TILT_OPTICS = {
    "rlnOpticsGroup": 1,
    "rlnVoltage": 300,
    "rlnSphericalAberration": 2.7,
    "rlnAmplitudeContrast": 0.07,
    "rlnImagePixelSize": 2.5,
    "rlnImageSize": 8,
    "rlnCtfDataAreCtfPremultiplied": 1,
}


def tilt_series(folder, *, all_tilts_stored):
    """Two particles of three tilts (-60, 0, 60 about y), of which one sees all and one the last two."""
    rng = np.random.default_rng(0)
    flags = ["[1,1,1]", "[0,1,1]"]
    rows = []
    for i, flag in enumerate(flags):
        write_stack(folder / f"p{i}.mrcs", rng.normal(size=(3 if all_tilts_stored else flag.count("1"), 8, 8)), 2.5)
        rows.append(f"TS_1 p{i}.mrcs 10 20 30 4 5 6 {flag} 1 {i + 1}")
    (folder / "run.star").write_text(star_text(TILT_HEAD, rows, "particles", TILT_OPTICS))
    angles = np.deg2rad([-60, 0, 60])
    lines = [
        f"[{np.cos(a):.9f},0,{np.sin(a):.9f},0] [0,1,0,0] [{-np.sin(a):.9f},0,{np.cos(a):.9f},0] "
        f"{9000 + 1000 * i} 8000 30 0.5"
        for i, a in enumerate(angles)
    ]
    head = [
        "rlnTomoProjX",
        "rlnTomoProjY",
        "rlnTomoProjZ",
        "rlnDefocusU",
        "rlnDefocusV",
        "rlnDefocusAngle",
        "rlnCtfScalefactor",
    ]
    (folder / "run_tomograms.star").write_text(star_text(head, lines, "TS_1"))
    cos, sin = np.cos(angles), np.sin(angles)
    return torch.tensor(
        np.stack([np.stack([cos, 0 * cos, sin], 1), [[0, 1, 0]] * 3, np.stack([-sin, 0 * cos, cos], 1)], 1)
    )


@pytest.mark.parametrize("all_tilts_stored", [True, False])
def test_relion5_tilt_series(tmp_path, all_tilts_stored):
    projections = tilt_series(tmp_path, all_tilts_stored=all_tilts_stored)
    stack = load_particles(tmp_path / "run.star")
    assert stack.particle.tolist() == [0, 0, 0, 1, 1]
    assert stack.half.tolist() == [1, 1, 1, 2, 2]
    assert stack.premultiplied
    assert stack.optics.column("defocus_u").tolist() == [9000, 10000, 11000, 10000, 11000]
    assert stack.optics.column("scale").tolist() == [0.5] * 5
    tilt = projections[[0, 1, 2, 1, 2]].float()
    torch.testing.assert_close(stack.tilt, tilt)
    particle = rotations.from_euler(torch.deg2rad(torch.tensor([10.0, 20.0, 30.0])))
    torch.testing.assert_close(stack.poses.rotation, tilt @ particle)
    torch.testing.assert_close(stack.poses.shift, (tilt @ torch.tensor([4.0, 5.0, 6.0]))[:, :2])
    section = [0, 1, 2, 1, 2] if all_tilts_stored else [0, 1, 2, 0, 1]
    assert stack.source.frame.tolist() == section
    one = load_particles(tmp_path / "run.star", ind=np.array([1]))  # rows are particles
    assert one.particle.tolist() == [1, 1]
    write_star(tmp_path / "flat.star", stack)
    flat = load_particles(tmp_path / "flat.star")
    same(flat, stack)
    torch.testing.assert_close(flat.tilt, stack.tilt, atol=1e-5, rtol=0)


def test_subtomogram_angles_come_between_tilt_and_particle(tmp_path):
    projections = tilt_series(tmp_path, all_tilts_stored=True)
    text = (tmp_path / "run.star").read_text().replace("_rlnRandomSubset", "_rlnTomoSubtomogramRot")
    text = text.replace(
        "rlnTomoSubtomogramRot\n", "rlnTomoSubtomogramRot\n_rlnTomoSubtomogramTilt\n_rlnTomoSubtomogramPsi\n"
    )
    (tmp_path / "run.star").write_text(text.replace("] 1 1\n", "] 1 40 50 60\n").replace("] 1 2\n", "] 1 40 50 60\n"))
    stack = load_particles(tmp_path / "run.star")
    sub, particle = (
        rotations.from_euler(torch.deg2rad(torch.tensor(a))) for a in ([40.0, 50.0, 60.0], [10.0, 20.0, 30.0])
    )
    tilt = projections[[0, 1, 2, 1, 2]].float()
    torch.testing.assert_close(stack.poses.rotation, tilt @ sub @ particle)
    torch.testing.assert_close(stack.poses.shift, (tilt @ sub @ torch.tensor([4.0, 5.0, 6.0]))[:, :2])


def test_real_tilt_series(shared_data):
    folder = shared_data / "real_particles/ribosome70S_tilt_tomodrgn"
    base = folder / "warptools_test_4-tomos_10-ptcls_box-32_angpix-12"
    stack = load_particles(f"{base}.star")
    assert (stack.n_particles, stack.box, stack.apix, stack.premultiplied, stack.sign) == (40, 32, 12.0, True, 1)
    assert len(stack) == 1430  # of 1480: those visible
    assert float(rotations.defect(stack.poses.rotation).max()) < 1e-5
    assert len(load_particles(f"{base}_optimisation_set.star")) == 1430


@pytest.mark.parametrize(
    ("name", "n", "box", "apix", "ctf", "poses", "half"),
    [
        ("relion13_ap_s_c2d.star.gz", 8915, None, 3.54, True, True, False),
        ("relion2_helical_data_test.star", 274, None, 1.52, True, True, True),
        ("relion30_PfCRT_data_images.star", 5, None, 1.035, False, True, True),
        ("relion31_betagal10204_particles.star.gz", 4501, 256, 1.244531, True, True, False),
        ("relion31_inter_noOpticsGroupName.star", 1, 400, 1.04, True, True, True),
        ("relion31_isecc_zernike_magmat_cs0.star", 1, 300, 1.1, True, True, True),
        ("relion31_refine3d_run_it016_data.star.gz", 4748, 256, 1.244835, True, True, True),
        ("relion31_scipion_input_particles.star", 10, 128, 3.0, True, False, False),
        ("sphire_TcdA1-0187.star", 22, None, 1.14, True, False, False),
    ],
)
def test_real_stars_of_every_age(shared_data, name, n, box, apix, ctf, poses, half):
    meta = read_metadata(shared_data / "metadata" / name)
    assert (len(meta), meta.box) == (n, box)
    np.testing.assert_allclose(meta.apix, apix, rtol=1e-5)
    assert [x is not None for x in (meta.optics, meta.rotation, meta.half)] == [ctf, poses, half]


def test_real_images_load_with_their_own_pickles_or_star_alike(shared_data):
    folder = shared_data / "sim_truth/ribosome50S_10076_DE"
    a = load_particles(folder / "10076_classD_32_sim.star")
    b = load_particles(
        folder / "10076_classD_32_sim.mrcs", poses=folder / "pose_classD.pkl", ctf=folder / "ctf_classD.pkl"
    )
    torch.testing.assert_close(a.poses.rotation, b.poses.rotation, atol=1e-5, rtol=0)
    torch.testing.assert_close(a.poses.shift, b.poses.shift, atol=1e-4, rtol=0)
    torch.testing.assert_close(a.optics.parameters[:, :7], b.optics.parameters[:, :7])
    assert a.n_particles == 72
    assert load_particles(folder / "10076_both_32_sim.star").n_particles == 144


def test_a_table_is_taken_in_parts_and_comes_out_whole(tmp_path, monkeypatch):
    """Names, poses and their complaints know the row, whichever part it is in."""
    rng, n = np.random.default_rng(0), 50
    angles, stack, number = rng.uniform(0, 90, (n, 3)).round(3), rng.integers(0, 7, n), rng.integers(1, 99, n)
    rows = [f"{number[i]:06d}@s{stack[i]}.mrcs {' '.join(map(str, angles[i]))}" for i in range(n)]
    columns = ("rlnImageName", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
    path = tmp_path / "p.star"
    path.write_text(star_text(columns, rows))
    whole = read_star(path)
    for module in ("metadata", "star_columns", "poses"):
        monkeypatch.setattr(f"cryorecon.data.{module}.ROWS", 8)
    parts = read_star(path)
    assert parts.stacks == whole.stacks == [f"s{i}.mrcs" for i in dict.fromkeys(stack.tolist())]
    np.testing.assert_array_equal(parts.file_index, whole.file_index)
    np.testing.assert_array_equal([parts.stacks[i] for i in parts.file_index], [f"s{i}.mrcs" for i in stack])
    np.testing.assert_array_equal(parts.frame, number - 1)
    assert torch.equal(parts.rotation, whole.rotation)
    assert len(parts.poses(1.0)) == n
    rows[43] = "nonsense@s1.mrcs 0 0 0"
    path.write_text(star_text(columns, rows))
    with pytest.raises(InputError, match=r"found 'nonsense@s1\.mrcs' in row 44"):
        read_star(path)
