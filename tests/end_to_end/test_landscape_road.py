"""From a trained run to a path with its maps and to a landscape whose states train again."""

import json

import numpy as np
import pytest
from scipy.stats import spearmanr

from cryorecon.cli.main import main
from cryorecon.data.mrc import read_volume

SMALL = ["--dec-dim", "16", "--dec-layers", "1", "--pe-dim", "4", "--device", "cpu"]


@pytest.fixture(scope="module")
def run(simulation, tmp_path_factory):
    folder = tmp_path_factory.mktemp("landscape_road") / "run"
    assert main(["train_vae", str(simulation / "particles.star"), "--zdim", "2", "-n", "0", "-o", str(folder), *SMALL]) == 0
    return folder


def test_a_path_of_density_orders_the_hinge(run, simulation, tmp_path):
    truth = np.load(simulation / "truth.npz")
    state = truth["state"]
    z = np.load(run / "z.0.npy")
    ends = [int(np.flatnonzero(state == s)[np.linalg.norm(z[state == s] - z[state == s].mean(0), axis=1).argmin()])
            for s in (0, 4)]
    out = ["-o", str(tmp_path / "z.txt"), "--outind", str(tmp_path / "ind.txt"), "--vol", str(tmp_path / "maps")]
    assert main(["graph_traversal", str(run), "--anchors", *map(str, ends), "--by", "density", "-n", "6", *out]) == 0
    passed = state[np.loadtxt(tmp_path / "ind.txt", dtype=int)]
    assert spearmanr(passed, np.arange(6)).statistic > 0.9, "through the states in their order"
    assert main(["eval_vol", str(run), "--zfile", str(tmp_path / "z.txt"), "-o", str(tmp_path / "again"),
                 "--device", "cpu"]) == 0
    for i in (1, 6):
        again = read_volume(tmp_path / f"again/vol_{i:03d}.mrc")[0]
        np.testing.assert_allclose(again, read_volume(tmp_path / f"maps/vol_{i:03d}.mrc")[0], atol=1e-5)


def test_a_landscapes_state_trains_again(run, simulation, tmp_path):
    assert main(["analyze_landscape", str(run), "-N", "40", "-M", "3", "--linkage", "ward", "--plot-dim", "0",
                 "-o", str(tmp_path / "l"), "--device", "cpu"]) == 0
    summary = json.loads((tmp_path / "l/summary.json").read_text())
    assert summary["regression_r2"] > 0.9
    state = np.load(simulation / "truth.npz")["state"]
    along = np.load(tmp_path / "l/particle_pca.npy")[:, 0]
    assert abs(spearmanr(along, state).statistic) > 0.8, "the first volume PC is the hinge"
    chosen = tmp_path / "l/clustering_L2_ward_3/state_1_particle_ind.pkl"
    assert main(["train_vae", str(simulation / "particles.star"), "--ind", str(chosen), "--zdim", "1", "-n", "0",
                 "-o", str(tmp_path / "again"), *SMALL]) == 0
    assert len(np.load(tmp_path / "again/z.0.npy")) == summary["states"][0]["particles"]
