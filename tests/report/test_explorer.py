"""What the explorer is given: within its budget, true to the maps, with the particles that it says."""

import base64
import gzip

import numpy as np
import pytest
import torch

from cryorecon.analysis.clusters import kmeans
from cryorecon.analysis.latent import fit_pca
from cryorecon.data.mrc import read_volume, write_volume
from cryorecon.data.stack import ParticleStack
from cryorecon.imaging.ctf import Optics
from cryorecon.report import explorer
from cryorecon.report.explorer import Explorer, Series, explorer_data, pack_series, shown_particles
from cryorecon.report.packed import pack, pack_density
from cryorecon.report.thumbnails import columns, images_of, thumbnails


def unpacked(text: str, kind: type) -> np.ndarray:
    return np.frombuffer(gzip.decompress(base64.b64decode(text)), kind)


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    axis = torch.arange(80.0) - 40
    radius = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + (axis / 1.5) ** 2).sqrt()
    paths = [folder / f"vol_{i + 1:03d}.mrc" for i in range(3)]
    for i, path in enumerate(paths):
        write_volume(path, (5 * torch.sigmoid(15 + i - radius) + 1).numpy(), 2.0)
    return paths


def made(z, **more) -> Explorer:
    return Explorer(more.pop("folder", None), z, fit_pca(z), kmeans(z, 3), more.pop("series", []), "select", **more)


def test_numbers_and_densities_come_back():
    numbers = np.arange(6, dtype=">f4").reshape(2, 3)
    assert unpacked(pack(numbers), "<f4").tolist() == list(range(6))
    assert pack(numbers) == pack(numbers)
    density = torch.linspace(-1, 3, 8**3).reshape(8, 8, 8)
    steps = unpacked(pack_density(density, 8, 0.0, 2.0), np.uint8)
    np.testing.assert_allclose(steps / 255 * 2, density.ravel().clamp(0, 2), atol=1 / 255 + 1e-6)


def test_a_series_is_true_to_its_maps(maps):
    z = np.array([[0.0], [1.0], [2.0]])
    (packed,) = pack_series([Series("a", "A", "path", maps, z, ["x", "y", "z"])], maps[0].parent, 10**7)
    assert (packed["box"], len(packed["volumes"])) == (64, 3)
    assert [one["file"] for one in packed["volumes"]] == [path.name for path in maps]
    shown = unpacked(packed["volumes"][2]["data"], np.uint8).reshape(64, 64, 64)
    density = packed["low"] + shown * (packed["high"] - packed["low"]) / 255.0
    whole = read_volume(maps[2])[0]
    assert abs(density[32, 32, 32] - whole[40, 40, 40]) < 0.05
    assert abs((density > packed["level"]).mean() - (whole > packed["level"]).mean()) < 0.003
    assert packed["range"][0] < packed["level"] < packed["range"][1]
    assert abs(np.array(packed["view"]).reshape(3, 3)[1]).argmax() == 0  # longest along x: upright


def test_maps_shrink_to_the_budget(maps):
    series = [Series("a", "A", "path", maps * 4, np.zeros((12, 1)), ["x"] * 12)]
    wide = pack_series(series, maps[0].parent, 10**7)[0]
    size = sum(len(one["data"]) for one in wide["volumes"])
    few = pack_series(series, maps[0].parent, size // 3)[0]
    assert few["box"] < wide["box"]
    assert sum(len(one["data"]) for one in few["volumes"]) < 1.1 * size / 3
    assert pack_series([Series("none", "", "path", [], np.zeros((0, 1)), [])], maps[0].parent, 10**6) == []


def test_points_are_a_stated_share(monkeypatch):
    monkeypatch.setattr(explorer, "SHOWN", 50)
    z = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    held = made(z, columns={"a": np.arange(200)})
    shown = shown_particles(held)
    assert len(set(shown.tolist())) == 50
    assert (np.diff(shown) > 0).all()
    data = explorer_data(held)
    assert (data["shown"], data["total"]) == (50, 200)
    assert unpacked(data["index"], np.uint32).tolist() == shown.tolist()
    np.testing.assert_array_equal(unpacked(data["z"], np.float32).reshape(50, 2), z[shown])
    np.testing.assert_array_equal(unpacked(data["columns"][0]["values"], np.float32), shown)


def test_with_umap_only_what_it_placed_is_shown():
    z = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    index, positions = np.arange(10, 40), np.arange(60.0).reshape(30, 2)
    data = explorer_data(made(z, umap=(index, positions)))
    assert unpacked(data["index"], np.uint32).tolist() == index.tolist()
    assert unpacked(data["umap"], np.float32).tolist() == list(range(60))


def test_thumbnails_and_columns_go_by_particle():
    images = torch.zeros(6, 96, 96)
    for i in range(6):
        images[i, 10 * i : 10 * i + 20, 40:60] = 1
    optics = Optics.from_columns(6, defocus_u=torch.arange(6) * 1e4, defocus_v=torch.arange(6) * 1e4, voltage=300.0)
    stack = ParticleStack.from_images(images.numpy(), 2.0, optics)
    series = ParticleStack(stack.source, 2.0, optics, None, torch.tensor([7, 7, 3, 3, 5, 5]))
    found = thumbnails(series, np.array([2, 0]))
    assert found.tiles.shape == (2, 64, 64)
    centre = (found.tiles * np.arange(64.0)[:, None]).sum((1, 2)) / found.tiles.sum((1, 2), dtype=float)
    assert centre[0] < centre[1] - 3  # id 7 is row 2, its first image is image 0; id 3 is row 0, image 2
    assert len(images_of(series, 1).tiles) == 2
    assert columns(series) == {"defocus (µm)": pytest.approx([2.5, 4.5, 0.5])}
    assert columns(ParticleStack.from_images(images.numpy(), 2.0)) == {}
