"""``graph_traversal``, ``direct_traversal`` and ``pc_traversal``: what they read and write."""

import numpy as np
import pytest
import torch

from cryorecon.analysis.latent import fit_pca
from cryorecon.cli.main import main
from cryorecon.data.safe_pickle import dump_pickles
from cryorecon.errors import InputError
from cryorecon.training import trained


def arc() -> np.ndarray:
    """400 particles on a half circle, in order, and a few in its void."""
    rng = np.random.default_rng(0)
    angle = np.linspace(0, np.pi, 400)
    ring = np.stack([np.cos(angle), np.sin(angle)], 1) + 0.02 * rng.normal(size=(400, 2))
    return np.concatenate([ring, np.stack([np.linspace(-0.8, 0.8, 9), np.zeros(9)], 1)]).astype(np.float32)


class Run:
    """Decodes z to a map that holds it."""

    apix, epoch = 3.0, 7

    def __init__(self, zdim: int = 2):
        self.z = arc()[:, :zdim]

    def density(self, z: np.ndarray) -> torch.Tensor:
        maps = torch.rand(len(z), 8, 8, 8, generator=torch.Generator().manual_seed(0))
        maps[:, 3:5, 3:5, 3:5] += torch.from_numpy(np.asarray(z)).sum(1)[:, None, None, None] + 5
        return maps


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with latents of every kind, and ``run``, a run's folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "plain").mkdir()

    def load_run(path, epoch=None, device="auto"):
        if path.name not in ("run", "plain"):
            raise InputError(f"{path}: no run")
        return Run(0 if path.name == "plain" else 2)

    monkeypatch.setattr(trained, "load_run", load_run)
    np.save("z.npy", arc())
    dump_pickles("z.pkl", arc(), np.ones_like(arc()))
    return tmp_path


@pytest.mark.parametrize("source", ["z.npy", "z.pkl", "run"])
def test_the_graph_gives_particles_and_their_latents(here, source, capsys):
    assert main(["graph_traversal", source, "--anchors", "0", "399", "--max-neighbors", "4", "--avg-neighbors", "0"]) == 0
    index = np.loadtxt("z-path-indices.txt", dtype=int)
    assert (index[0], index[-1]) == (0, 399)
    np.testing.assert_allclose(np.loadtxt("z-path.txt"), arc()[index], rtol=1e-6)
    assert "z-path.txt" in capsys.readouterr().out


def test_by_density_it_goes_round_and_by_length_across(here):
    base = ["graph_traversal", "z.npy", "--anchors", "0", "399", "--max-neighbors", "12", "--avg-neighbors", "0", "-n", "15"]
    assert main([*base, "-o", "short.txt", "--outind", "short_ind.txt"]) == 0
    assert main([*base, "--by", "density", "-o", "dense.txt", "--outind", "dense_ind.txt"]) == 0
    short, dense = np.loadtxt("short.txt"), np.loadtxt("dense.txt")
    assert short.shape == dense.shape == (15, 2)
    assert np.linalg.norm(short, axis=1).min() < 0.3
    assert np.linalg.norm(dense, axis=1).min() > 0.9
    nearest = np.loadtxt("dense_ind.txt", dtype=int)
    assert np.linalg.norm(arc()[nearest] - dense, axis=1).max() < 0.1
    np.save("flat.npy", np.zeros(409))
    assert main([*base, "--by", "density", "--log-density", "flat.npy", "-o", "flat.txt"]) == 0
    np.testing.assert_allclose(np.loadtxt("flat.txt")[[0, -1]], short[[0, -1]], atol=1e-5)
    assert np.linalg.norm(np.loadtxt("flat.txt"), axis=1).min() < 0.3, "even density: the shortest"


def test_straight_from_anchor_to_anchor_as_cryodrgn_counts(here):
    (here / "ind.txt").write_text("0\n200\n")
    assert main(["direct_traversal", "z.npy", "--anchors", "ind.txt", "399", "-n", "4", "--loop"]) == 0
    path, z = np.loadtxt("z-path.txt"), arc()
    assert len(path) == 3 * 3 + 1
    np.testing.assert_allclose(path[[0, 3, 6, 9]], z[[0, 200, 399, 0]], atol=1e-6)
    np.testing.assert_allclose(path[1], (2 * z[0] + z[200]) / 3, atol=1e-6)


def test_along_the_components(here):
    assert main(["pc_traversal", "z.npy", "-n", "5", "--lim", "10", "90", "-o", "even"]) == 0
    assert main(["pc_traversal", "z.npy", "-n", "5", "--lim", "10", "90", "-o", "share", "--pc", "1",
                 "--use-percentile-spacing"]) == 0
    assert sorted(path.name for path in (here / "even").iterdir()) == ["pc1.txt", "pc1_ind.txt", "pc2.txt", "pc2_ind.txt"]
    pca = fit_pca(arc())
    along = pca.project(arc())[:, 0]
    for folder, stops in (("even", np.linspace(*np.percentile(along, [10, 90]), 5)),
                          ("share", np.percentile(along, [10, 30, 50, 70, 90]))):
        found = pca.project(np.loadtxt(here / folder / "pc1.txt"))
        np.testing.assert_allclose(found[:, 0], stops, atol=1e-5)
        np.testing.assert_allclose(found[:, 1], 0, atol=1e-5)
    assert not (here / "share" / "pc2.txt").exists()


def test_a_run_decodes_the_path(here, capsys):
    assert main(["direct_traversal", "run", "--anchors", "0", "399", "-n", "3", "--vol", "maps"]) == 0
    names = {path.name for path in (here / "maps").iterdir()}
    assert names == {"vol_001.mrc", "vol_002.mrc", "vol_003.mrc", "z_values.txt", "chimerax.cxc"}
    np.testing.assert_allclose(np.loadtxt("maps/z_values.txt"), np.loadtxt("z-path.txt"), atol=1e-6)
    assert "volume morph #1-3" in (here / "maps/chimerax.cxc").read_text()
    assert "3 maps: maps" in capsys.readouterr().out
    assert main(["pc_traversal", "run", "--pc", "2", "-n", "2", "--vol", "maps"]) == 0
    assert (here / "maps/pc2/vol_002.mrc").is_file()


@pytest.mark.parametrize(("arguments", "says"), [
    (["direct_traversal", "z.npy", "--anchors", "0"], "at least 2 particles"),
    (["direct_traversal", "z.npy", "--anchors", "0", "409"], "from 0 to 408, found 409"),
    (["direct_traversal", "z.npy", "--anchors", "0", "x"], "found 'x'"),
    (["direct_traversal", "z.npy", "--anchors", "words.txt"], "whole numbers"),
    (["direct_traversal", "z.npy", "--anchors", "0", "1", "--vol", "v"], "the folder of a run"),
    (["direct_traversal", "z.npy", "--anchors", "0", "1", "-o", "z.npy"], "isn't the input"),
    (["direct_traversal", "z.npy", "--anchors", "ind.txt", "--outind", "ind.txt"], "isn't the input"),
    (["direct_traversal", "absent", "--anchors", "0", "1"], "no such file"),
    (["direct_traversal", "plain", "--anchors", "0", "1"], "found one structure"),
    (["direct_traversal", "words.txt", "--anchors", "0", "1"], "found .txt"),
    (["direct_traversal", "flat.npy", "--anchors", "0", "1"], "(particles, zdim)"),
    (["direct_traversal", "objects.npy", "--anchors", "0", "1"], "array of numbers"),
    (["graph_traversal", "z.npy", "--anchors", "0", "1", "--log-density", "flat.npy"], "--by density"),
    (["graph_traversal", "z.npy", "--anchors", "0", "1", "--subsample", "1"], "at least 2"),
    (["graph_traversal", "z.npy", "--anchors", "0", "1", "--by", "density", "--log-density", "flat.npy"], "each of 409"),
    (["graph_traversal", "z.npy", "--anchors", "0", "1", "--by", "density", "--log-density", "words.txt"], "array of numbers"),
    (["graph_traversal", "z.npy", "--anchors", "0", "1", "--by", "density", "--log-density", "none.npy"], "error: none.npy:"),
    (["graph_traversal", "z.npy", "--anchors", "0", "1", "--by", "density", "-n", "1"], "at least 2 points"),
    (["direct_traversal", "text.pkl", "--anchors", "0", "1"], "expected numbers"),
    (["direct_traversal", "ragged.pkl", "--anchors", "0", "1"], "expected an array"),
    (["pc_traversal", "z.npy", "--pc", "3"], "1 to 2, found 3"),
    (["pc_traversal", "z.npy", "--pc", "0"], "1 to 2, found 0"),
    (["pc_traversal", "z.npy", "--lim", "90", "10"], "two that rise"),
    (["pc_traversal", "z.npy", "-n", "1"], "at least 2 points"),
])
def test_bad_input_is_one_line_and_nothing_is_written(here, arguments, says, capsys):
    (here / "words.txt").write_text("one two\n")
    (here / "ind.txt").write_text("0\n3\n")
    np.save("flat.npy", np.zeros(5))
    dump_pickles("text.pkl", ["a", "b"])
    dump_pickles("ragged.pkl", [[1.0], [1.0, 2.0]])
    np.save("objects.npy", np.array([{}], object), allow_pickle=True)
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert error.count("expected") == 1, "one thing wrong is said once"
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before
