"""``cryorecon select``: lists that training and other programs take."""

import json
import shutil

import numpy as np
import pytest

from cryorecon.cli.main import main
from cryorecon.data.cryodrgn_files import read_indices
from cryorecon.data.load import load_particles
from cryorecon.data.safe_pickle import dump_pickles
from cryorecon.training.run_directory import RunDirectory, digest

N = 60
TINY = ["--dec-dim", "16", "--dec-layers", "1", "--device", "cpu", "--pe-dim", "4"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on every second of 60 particles."""
    folder = tmp_path_factory.mktemp("select")
    simulated = ["-n", str(N), "-D", "32", "--apix", "8", "--states", "4", "--snr", "10", "-o", str(folder / "data")]
    assert main(["simulate", *simulated]) == 0
    dump_pickles(folder / "half.pkl", np.arange(0, N, 2))
    star, half = folder / "data" / "particles.star", folder / "half.pkl"
    assert main(["train_vae", str(star), "--ind", str(half), "--zdim", "2", "-n", "0", "-o", str(folder / "run"), *TINY]) == 0
    assert main(["analyze", str(folder / "run"), "--ksample", "3", "--skip-vol"]) == 0
    return folder / "run"


def selected(run, tmp_path, *criteria):
    out = tmp_path / "chosen"
    assert main(["select", str(run), *criteria, "-o", str(out)]) == 0
    return read_indices(f"{out}.pkl", N)


def test_clusters_are_positions_in_the_file_that_the_run_was_given(run, tmp_path):
    labels = np.load(run / "analyze.0" / "kmeans3" / "labels.npy")
    wanted = 2 * np.flatnonzero(labels != 1)
    assert selected(run, tmp_path, "--cluster", "1,3").tolist() == wanted.tolist()
    assert len(load_particles(tmp_path / "chosen.star", datadir=run.parent / "data")) == len(wanted)
    assert selected(run, tmp_path, "--cluster", "2", "--invert").tolist() == wanted.tolist()


def test_states_are_chosen_like_clusters(run, tmp_path):
    labels = np.load(next((run / "analyze.0").glob("gmm*/labels.npy")))
    assert selected(run, tmp_path, "--state", "1").tolist() == (2 * np.flatnonzero(labels == 0)).tolist()


def test_an_analysis_of_some_particles_selects_among_them(run, tmp_path):
    """Clusters, axes and outlines are those of the particles that were analysed; what is written are positions in the file."""
    some = np.arange(0, 30, 3)
    dump_pickles(tmp_path / "some.pkl", 2 * some)  # as select writes them
    folder = tmp_path / "part"
    assert main(["analyze", str(run), "--ksample", "2", "--ind", str(tmp_path / "some.pkl"), "-o", str(folder)]) == 0
    labels = np.load(folder / "kmeans2" / "labels.npy")
    assert len(labels) == 10
    chosen = selected(run, tmp_path, "--analysis", str(folder), "--cluster", "2")
    assert chosen.tolist() == (2 * some[labels == 1]).tolist()
    others = selected(run, tmp_path, "--analysis", str(folder), "--cluster", "2", "--invert")
    assert sorted([*chosen, *others]) == (2 * some).tolist()
    assert (folder / "kmeans2" / "half_maps.csv").is_file()
    assert main(["analyze", str(run), "--ksample", "2", "--skip-vol", "--skip-half-maps", "-o", str(folder)]) == 0
    assert not (folder / "ind.npy").exists()


def test_positions_that_are_no_particles_of_the_run_are_told(run, tmp_path, capsys):
    dump_pickles(tmp_path / "odd.pkl", np.arange(1, 41, 2))  # the run has the even ones
    assert main(["analyze", str(run), "--ind", str(tmp_path / "odd.pkl"), "-o", str(tmp_path / "out")]) == 2
    assert "found 20 that are none of them (1, say)" in capsys.readouterr().err
    dump_pickles(tmp_path / "few.pkl", np.arange(0, 10, 2))
    assert main(["analyze", str(run), "--ind", str(tmp_path / "few.pkl"), "-o", str(tmp_path / "out")]) == 2
    assert "at least 10 particles to analyse, found 5" in capsys.readouterr().err
    assert main(["analyze", str(run), "-o", str(run)]) == 2
    assert "expected a folder for the analysis, found a run" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_analysis_that_was_cut_off_is_none(run, tmp_path, capsys):
    """The clusters of the last finished one are gone with it: what a later one left half-way vouches for nothing."""
    folder = tmp_path / "again"
    assert main(["analyze", str(run), "--ksample", "2", "--skip-vol", "--skip-half-maps", "-o", str(folder)]) == 0
    (folder / "summary.json").unlink()
    assert main(["select", str(run), "--analysis", str(folder), "--cluster", "1", "-o", str(tmp_path / "x")]) == 2
    assert "expected a finished analysis" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["select", "serve"])
def test_an_analysis_of_other_latents_is_refused(command, run, tmp_path, capsys):
    other = tmp_path / "analysis"
    shutil.copytree(run / "analyze.0", other)
    summary = json.loads((other / "summary.json").read_text())
    (other / "summary.json").write_text(json.dumps(summary | {"latents": digest(np.ones((N // 2, 2)))}))
    more = ["--cluster", "1", "-o", str(tmp_path / "chosen")] if command == "select" else []
    assert main([command, str(run), "--analysis", str(other), *more]) == 2
    assert "expected an analysis of this run's latents, found one of others" in capsys.readouterr().err
    assert not (tmp_path / "chosen.pkl").exists()


def test_criteria_meet(run, tmp_path):
    z = RunDirectory(run).z(0)
    low, middle, high = np.quantile(z[:, 0], [0, 0.5, 0.8]).tolist()
    first = selected(run, tmp_path, "--z-range", f"z1={middle}:")
    assert first.tolist() == (2 * np.flatnonzero(z[:, 0] >= middle)).tolist()
    lasso = tmp_path / "lasso.json"
    corners = [[low, -99.0], [high, -99.0], [high, 99.0], [low, 99.0]]
    lasso.write_text(json.dumps({"x": "z1", "y": "z2", "polygon": corners}))
    both = selected(run, tmp_path, "--z-range", f"z1={middle}:", "--lasso", str(lasso))
    assert set(both) < set(first)
    assert (z[both // 2, 0] < high).all()


def test_the_worst_fitting_are_left_out_and_the_list_trains(run, tmp_path):
    rows = selected(run, tmp_path, "--loss-percentile", "0:80")
    assert len(rows) == 24
    data = run.parent / "data" / "particles.star"
    assert main(["train_vae", str(data), "--ind", str(tmp_path / "chosen.pkl"), "--zdim", "1", "-n", "0", "-o",
                 str(tmp_path / "again"), *TINY]) == 0


@pytest.mark.parametrize(("criteria", "said"), [
    ([], "expected a criterion, found none"), (["--cluster", "9"], "expected numbers from 1 to 3"),
    (["--z-range", "pc7=0:1"], "expected pc1 to pc2"), (["--z-range", "pc1=1000:"], "found none of 30"),
    (["--z-range", "nonsense"], "expected AXIS=LOW:HIGH"), (["--loss-percentile", "90:10"], "expected two percentiles"),
    (["--cluster", "one"], "expected whole numbers"), (["--lasso", "absent.json"], "absent.json"),
    (["--cluster", "1", "--analysis", "nowhere"], "run `cryorecon analyze` first"),
])  # fmt: skip
def test_what_selects_nothing_is_told(run, tmp_path, capsys, criteria, said):
    assert main(["select", str(run), *criteria, "-o", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_no_input_is_replaced(run, capsys):
    data = run.parent / "data" / "particles"
    before = data.with_suffix(".star").read_bytes()
    assert main(["select", str(run), "--cluster", "1", "-o", str(data)]) == 2
    assert "particles.star" in capsys.readouterr().err
    assert data.with_suffix(".star").read_bytes() == before


def test_images_that_moved_are_found_again(run, tmp_path, capsys):
    images = run.parent / "data" / "particles.mrcs"
    images.rename(tmp_path / "particles.mrcs")
    try:
        assert main(["select", str(run), "--loss-percentile", "0:50", "-o", str(tmp_path / "x")]) == 2
        assert "--datadir" in capsys.readouterr().err
        found = selected(run, tmp_path, "--loss-percentile", "0:50", "--datadir", str(tmp_path))
        assert 10 < len(found) < 20
    finally:
        (tmp_path / "particles.mrcs").rename(images)
