"""Simulation from density maps: exact sums, atoms by both roads, odd boxes, other boxes and pixel sizes, refusals."""

import math

import numpy as np
import pytest
import torch

from cryorecon.cli.main import main
from cryorecon.data.load import load_particles
from cryorecon.data.mrc import read_volume, write_volume
from cryorecon.errors import InputError
from cryorecon.geometry import rotations
from cryorecon.geometry.grid import Grid
from cryorecon.simulation.experiment import simulate_stack
from cryorecon.simulation.map_molecule import MapMolecule, MapRenderer, load_maps, oversampling
from cryorecon.simulation.motion import flexible
from cryorecon.simulation.render import volume


def molecule_of(*densities: torch.Tensor, apix: float = 5.0) -> MapMolecule:
    return MapMolecule(torch.stack(densities), apix, torch.linspace(0, 1, len(densities))[:, None])


def blob(box: int, apix: float, at: tuple[float, float, float] = (0.0, 0.0, 0.0), width: float = 8.0) -> torch.Tensor:
    """A Gaussian of ``width`` Å at ``at`` (x, y, z) in Å from the origin, index ``box // 2``."""
    axis = (torch.arange(box) - box // 2) * apix
    x, y, z = (torch.exp(-0.5 * ((axis - place) / width) ** 2) for place in at)
    return z[:, None, None] * y[:, None] * x


def centre(images: torch.Tensor, apix: float) -> torch.Tensor:
    """Centre of mass ``(N, 2)``, (x, y) in Å from pixel ``D // 2``; the images' missing zero frequency is put back."""
    box = images.shape[-1]
    mass = images - images.flatten(1).median(1).values[:, None, None]
    axis = (torch.arange(box) - box // 2) * apix
    return torch.stack([mass.sum(1) @ axis, mass.sum(2) @ axis], 1) / mass.sum((1, 2))[:, None]


def run(folder, *options) -> int:
    return main(["simulate", "-o", str(folder), "-n", "12", "--max-shift", "1", *map(str, options)])


@pytest.fixture(scope="module")
def atomic():
    """Two states of atoms, and their maps on 48 px of 4 Å."""
    atoms = flexible("hinge", 2)
    return atoms, molecule_of(*(volume(atoms, state, 48, 4.0, 200.0) for state in range(2)), apix=4.0)


@pytest.mark.parametrize("box", [31, 32])
def test_slices_against_the_sum_over_all_voxels(box):
    """The error of interpolation, for a molecule that fills 0.44 of the box from its centre."""
    density, grid = volume(flexible("rigid"), 0, box, 5.0, 100.0), Grid(box, 5.0)
    turned = rotations.random(3, torch.Generator().manual_seed(1))
    chosen = torch.randperm(grid.n, generator=torch.Generator().manual_seed(2))[:200]
    k3 = torch.einsum("pi,nij->npj", grid.points[chosen].double(), turned[:, :2].double())
    axis = (torch.arange(box) - box // 2).double()
    x, y, z = (torch.polar(torch.ones_like(a), a) for a in (-2 * math.pi / box * k3[..., None] * axis).unbind(2))
    exact = torch.einsum("zyx,npx,npy,npz->np", density.to(torch.complex128), x, y, z) / box
    for pad, tolerance in ((2, 0.04), (3, 0.017), (4, 0.009)):
        found = MapRenderer(molecule_of(density), grid, pad=pad)(torch.zeros(3, dtype=torch.long), turned)[:, chosen]
        assert float((found - exact).abs().norm() / exact.abs().norm()) < tolerance
    assert oversampling(1, box) == 4


def test_atoms_and_their_maps_make_the_same_images(atomic):
    atoms, maps = atomic
    options = {"seed": 3, "weights": (1.0, 2.0), "max_shift": 2.0}
    by_atoms, truth = simulate_stack(atoms, 40, 48, 4.0, 0, b_factor=200.0, **options)
    by_maps, same = simulate_stack(maps, 40, 48, 4.0, 0, **options)
    assert sorted(truth.state.unique().tolist()) == [0, 1]
    for name in ("state", "rotation", "shift"):
        assert torch.equal(getattr(same, name), getattr(truth, name))
    first, second = (stack.images().flatten(1).double() for stack in (by_atoms, by_maps))
    assert float(torch.nn.functional.cosine_similarity(first, second).min()) > 0.999
    # the same scale too; most of the rest is in the last shells, where these maps end and atoms do not
    assert float((first - second).norm() / first.norm()) < 0.02


def test_tilted_images_of_maps(atomic):
    atoms, maps = atomic
    by_atoms, _ = simulate_stack(atoms, 6, 48, 4.0, 0, b_factor=200.0, tilt=0.7)
    by_maps, _ = simulate_stack(maps, 6, 48, 4.0, 0, tilt=0.7)
    first, second = (stack.images().flatten(1) for stack in (by_atoms, by_maps))
    assert float(torch.nn.functional.cosine_similarity(first, second).min()) > 0.999


@pytest.mark.parametrize("voxels", [24, 25])
@pytest.mark.parametrize("pixels", [24, 25, 40])
def test_what_sits_at_the_origin_stays_there(voxels, pixels):
    stack, _ = simulate_stack(molecule_of(blob(voxels, 5.0)), 8, pixels, 120 / pixels, 0, optics=None, max_shift=0)
    assert float(centre(stack.images(), 120 / pixels).abs().max()) < 0.02


@pytest.mark.parametrize(("box", "apix"), [(25, 5.0), (32, 4.2), (64, 2.5), (20, 5.0), (40, 6.0)])
def test_places_in_angstrom_outlast_another_box_and_pixel(box, apix):
    """Padded, cropped, finer and coarser: the blob stays at its place."""
    maps, place = molecule_of(blob(25, 5.0, (12.0, -7.0, 4.0))), torch.tensor([12.0, -7.0])
    image = Grid(box, apix).images(MapRenderer(maps, Grid(box, apix))(torch.zeros(1, dtype=torch.long), torch.eye(3)[None]))
    torch.testing.assert_close(centre(image, apix)[0], place, rtol=0, atol=0.05)
    density = maps.density(0, box, apix)
    assert float(density.sum()) * apix**3 == pytest.approx(float(maps.densities.sum()) * 125, rel=1e-3)
    assert float(density.max()) <= 1.01


def test_box_and_pixel_size_where_none_or_one_is_named():
    odd, even = molecule_of(blob(65, 5.0)), molecule_of(blob(64, 5.0))
    assert odd.sampling(None, None) == (66, 5.0)
    assert even.sampling(None, None) == (64, 5.0)
    assert odd.sampling(128, None) == (128, pytest.approx(325 / 128))
    assert odd.sampling(None, 2.5390625) == (128, 2.5390625)
    assert odd.sampling(None, 3.0) == (110, 3.0)  # 330 Å: the next even box
    assert odd.sampling(100, 4.0) == (100, 4.0)


def test_a_b_factor_is_beside_the_maps_own():
    maps, grid = molecule_of(blob(32, 4.0)), Grid(32, 4.0)
    plain, blurred = (MapRenderer(maps, grid, b)(torch.zeros(1, dtype=torch.long), torch.eye(3)[None]) for b in (0.0, 300.0))
    expected = plain * torch.exp(-75 * grid.frequency.square().sum(1))
    torch.testing.assert_close(blurred, expected, rtol=0, atol=1e-3 * float(plain.abs().max()))


def test_the_molecule_is_what_stands_out():
    density = blob(40, 5.0, (50.0, 0.0, 0.0)) + 0.1 * torch.rand(40, 40, 40, generator=torch.Generator().manual_seed(0))
    assert 55 < molecule_of(density).radius() < 70
    assert 55 < molecule_of(0.1 * blob(40, 5.0), -density).radius() < 70
    with pytest.raises(InputError, match="box of at least"):
        simulate_stack(molecule_of(density), 2, 40, 5.0, max_shift=12)


def test_many_or_large_maps_are_sampled_less_finely():
    assert [oversampling(1, box) for box in (64, 96, 97, 128, 129, 256)] == [4, 4, 3, 3, 2, 2]
    assert [oversampling(n, 64) for n in (32, 33, 75, 76)] == [4, 3, 3, 2]


def test_maps_on_the_command_line(tmp_path, capsys):
    for number, at in enumerate([(10.0, 0.0, 0.0), (0.0, 14.0, 0.0)]):
        write_volume(tmp_path / f"{number}.mrc", blob(25, 5.0, at).numpy(), 0)
    inputs = ["--map", tmp_path / "0.mrc", tmp_path / "1.mrc", "--map-apix", "5", "--snr", "0", "--no-ctf"]
    assert run(tmp_path / "out", *inputs, "--weights", "0,1") == 0
    assert "25 voxels of 5 Å (125 Å), images: 26 px of 5 Å (130 Å)" in capsys.readouterr().out
    stack, truth = load_particles(tmp_path / "out" / "particles.star"), np.load(tmp_path / "out" / "truth.npz")
    assert (stack.box, stack.apix, truth["state"].tolist(), truth["coordinate"].tolist()) == (26, 5.0, [1] * 12, [[0], [1]])
    place = stack.poses.rotation @ torch.tensor([0.0, 14.0, 0.0])
    torch.testing.assert_close(centre(stack.images(), 5.0), place[:, :2] - stack.poses.shift, rtol=0, atol=0.1)
    assert {path.name for path in (tmp_path / "out" / "maps").iterdir()} == {"state_00.mrc", "state_01.mrc"}
    assert run(tmp_path / "same", *inputs, "-D", "25", "--apix", "5") == 0
    np.testing.assert_array_equal(read_volume(tmp_path / "same" / "maps" / "state_01.mrc")[0],
                                  read_volume(tmp_path / "1.mrc")[0])


def test_maps_of_an_earlier_simulation_are_not_overwritten_by_their_own_images(tmp_path, capsys):
    write_volume(tmp_path / "out" / "maps" / "state_00.mrc", blob(24, 5.0).numpy(), 5.0)
    assert run(tmp_path / "out", "--map", tmp_path / "out" / "maps" / "state_00.mrc", "--overwrite") == 2
    assert "isn't the input" in capsys.readouterr().err
    assert (tmp_path / "out" / "maps" / "state_00.mrc").exists()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, good = tmp_path_factory.mktemp("maps"), blob(24, 5.0).numpy()
    holes = good.copy()
    holes[3, 4, 5] = np.nan
    for name, array, apix in (("good", good, 5.0), ("unsized", good, 0), ("fine", good, 2.5), ("holes", holes, 5.0),
                              ("larger", blob(26, 5.0).numpy(), 5.0), ("flat", good[:20], 5.0), ("blank", 0 * good, 5.0)):
        write_volume(folder / f"{name}.mrc", array, apix)
    return folder


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        (["unsized"], [], "--map-apix"),
        (["good", "fine"], [], "24 of 2.5 Å"),
        (["good", "larger"], [], "26 of 5 Å"),
        (["flat"], [], "cubic"),
        (["holes"], [], "NaN"),
        (["blank"], [], "in every voxel"),
        (["absent"], [], "no such file"),
        (["good"], ["--map-apix", "-1"], "--map-apix"),
        (["good"], ["--map-apix", "nan"], "--map-apix"),
        (["good"], ["--apix", "0"], "pixel size"),
        (["good"], ["--apix", "nan"], "pixel size"),
        (["good"], ["-D", "0"], "box of at least 4"),
        (["good"], ["-D", "6", "--apix", "5"], "box of at least"),
        (["good"], ["--states", "3"], "--states"),
        (["good"], ["--weights", "1,2"], "weights"),
        (["good"], ["--motion", "hinge"], "--motion"),
        (["good"], ["--atoms", "a.pdb"], "--atoms"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(files, tmp_path, capsys, names, options, words):
    assert run(tmp_path / "out", "--map", *(files / f"{name}.mrc" for name in names), *options) == 2
    message = capsys.readouterr().err
    assert message.startswith("cryorecon: error: ")
    assert words in message
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_voxel_size_without_maps_is_refused(tmp_path, capsys):
    assert run(tmp_path / "out", "--map-apix", "2") == 2
    assert "no --map" in capsys.readouterr().err


def test_the_option_overrides_headers(files):
    assert load_maps([files / "good.mrc", files / "fine.mrc"], 3.0).apix == 3.0
    assert load_maps([files / "good.mrc"]).coordinate.tolist() == [[0.0]]


def test_an_odd_ribosome(shared_data):
    """65 voxels of 5 Å, no voxel size in the header, seen along its axes: images are the sums along them."""
    maps = load_maps([shared_data / "maps" / "clean70SRibosome_vol_65p.mrc"], 5.0)
    assert 120 < maps.radius() < 130
    grid = Grid(65, 5.0)
    along_x = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    found = grid.images(MapRenderer(maps, grid)(torch.zeros(2, dtype=torch.long), torch.stack([torch.eye(3), along_x])))
    density = maps.densities[0]
    expected = grid.images(grid.spectra(torch.stack([density.sum(0), density.sum(2)])))
    assert float((found - expected).norm() / expected.norm()) < 0.02  # along axes the interpolation is at its worst
