"""The benchmarks' scripts: they start, account and score as they say."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    """A script finds its neighbours as it does when it is run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for path in BENCHMARKS.glob("*.py"):
        sys.modules.pop(path.stem, None)


def module(name):
    return importlib.import_module(name)


@pytest.mark.parametrize("name", [path.stem for path in sorted(BENCHMARKS.glob("*.py"))])
def test_scripts_can_be_imported(name):
    module(name)


@pytest.mark.parametrize("name", ["vs_cryodrgn", "throughput", "million", "score", "machine", "table"])
def test_help_imports_no_torch(name):
    asked = [sys.executable, "-X", "importtime", str(BENCHMARKS / f"{name}.py"), "--help"]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert "usage:" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "numpy", "cryorecon"}


def toy_truth(states=4, each=25, box=16):
    """A blob that moves along x."""
    axis = torch.arange(box) - box // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    maps = torch.stack([torch.exp(-((x - s).square() + y.square() + z.square()) / 8.0) for s in range(states)])
    state = np.repeat(np.arange(states), each)
    return module("score").Truth(state, np.arange(states)[:, None] / (states - 1), maps, 3.0)


def test_perfect_latents_and_maps_score_full_marks():
    truth = toy_truth()
    z = np.stack([truth.coordinate[truth.state, 0], np.zeros(len(truth.state))], 1)
    found = module("score").score(z, lambda z: truth.maps[(torch.from_numpy(z)[:, 0] * 3).round().long()], truth)
    assert found["spearman"] == pytest.approx(1)
    assert found["auc"] == pytest.approx((16 / 2 - 1) / 16)
    assert found["difference_maps"] == pytest.approx(1)


def test_maps_in_the_wrong_order_lose_the_differences_only():
    truth = toy_truth()
    z = np.stack([truth.coordinate[truth.state, 0], np.zeros(len(truth.state))], 1)
    found = module("score").score(z, lambda z: truth.maps.flip(0), truth)
    assert found["spearman"] == pytest.approx(1)
    assert found["difference_maps"] < 0


def test_measure_counts_the_child_alone(tmp_path):
    common = module("common")
    busy = "import time\nwhile time.process_time() < 0.4: pass\nheld = bytearray(80 << 20)\nprint('done')"
    found = common.measure([sys.executable, "-c", busy], tmp_path / "log")
    assert found.exit_code == 0
    assert 0.4 <= found.cpu_seconds < 2
    assert found.peak_rss_bytes > 80 << 20
    assert (tmp_path / "log").read_text() == "done\n"


def test_cpu_of_a_running_process():
    common = module("common")
    began = common.cpu_of(os.getpid())
    assert began >= 0
    sum(range(3_000_000))
    assert common.cpu_of(os.getpid()) >= began


GNU_TIME = """\tCommand being timed: "/envs/peer/bin/cryodrgn train_vae particles.mrcs --zdim 8"
\tUser time (seconds): 5000.50
\tSystem time (seconds): 10.25
\tElapsed (wall clock) time (h:mm:ss or m:ss): 1:30:05
\tMaximum resident set size (kbytes): 1000
\tExit status: 0
"""


def test_gnu_time_is_read_and_a_run_under_way_is_not(tmp_path):
    common = module("common")
    path = tmp_path / "peer.time"
    assert common.read_gnu_time(path) is None
    path.write_text("")
    assert common.read_gnu_time(path) is None
    path.write_text(GNU_TIME)
    found = common.read_gnu_time(path)
    assert found.cpu_seconds == pytest.approx(5010.75)
    assert found.wall_seconds == 5405
    assert found.peak_rss_bytes == 1_024_000
    assert found.command[:2] == ["/envs/peer/bin/cryodrgn", "train_vae"]
    path.write_text(GNU_TIME.replace("status: 0", "status: 1"))
    assert common.read_gnu_time(path) is None


@pytest.fixture
def bench(tmp_path):
    """A benchmark's folder whose peer was made elsewhere."""
    vs = module("vs_cryodrgn")
    folder = tmp_path / "seed0" / "peer"
    folder.mkdir(parents=True)
    return vs.Bench(tmp_path, vs.DATASETS["tiny"], tmp_path, 2, 2, 8, 1, (1,), tmp_path / "bin")


def test_a_finished_peer_run_is_taken_and_kept(bench):
    vs = module("vs_cryodrgn")
    folder = bench.work / "seed0" / "peer"
    for epoch in (1, 2):
        (folder / f"weights.{epoch}.pkl").touch()
    (folder / "weights.pkl").touch()
    folder.with_name("peer.time").write_text(GNU_TIME)
    where, measured = vs.train(bench, "peer", 0, "digest")
    assert where == folder
    assert measured["cpu_seconds"] == pytest.approx(5010.75)
    assert json.loads((folder / "done.json").read_text()) == measured
    assert vs.checkpoints("peer", folder, measured, (1,)) == {1: pytest.approx(2505.375), 2: pytest.approx(5010.75)}
    with pytest.raises(SystemExit):
        vs.train(bench, "peer", 0, "other data")


def test_a_peer_run_under_way_is_left_alone(bench, capsys):
    vs = module("vs_cryodrgn")
    folder = bench.work / "seed0" / "peer"
    folder.with_name("peer.time").touch()
    (folder / "weights.1.pkl").touch()
    with pytest.raises(SystemExit) as ended:
        vs.train(bench, "peer", 0, "digest")
    assert ended.value.code == 2
    assert "under way" in capsys.readouterr().err
    assert (folder / "weights.1.pkl").exists()


def test_time_to_equal_accuracy():
    vs = module("vs_cryodrgn")

    def point(cost, value):
        return {"cpu_seconds": cost, "spearman": value, "auc": value, "difference_maps": value}

    peer = {"seed": 0, "row": "peer", **point(100.0, 0.5)}
    ours = {"seed": 0, "row": "network", **point(20.0, 0.9), "curve": [point(5.0, 0.4), point(9.0, 0.6), point(20.0, 0.9)]}
    worse = {"seed": 0, "row": "plain", **point(40.0, 0.1), "curve": [point(40.0, 0.1)]}
    vs.compare([peer, ours, worse])
    assert ours["times_less_cpu"] == 5
    assert ours["equal_accuracy_cpu_seconds"] == 9
    assert worse["equal_accuracy_cpu_seconds"] is None


def test_cpu_until_a_checkpoint_of_ours(tmp_path):
    vs = module("vs_cryodrgn")
    for epoch in (0, 1, 2):
        (tmp_path / f"weights.{epoch}.pt").touch()
    lines = [{"epoch": 1, "cpu_seconds": 10.0}, {"epoch": 2, "cpu_seconds": 25.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert vs.checkpoints("network", tmp_path, {"cpu_seconds": 40.0}, (0, 1)) == {0: 15.0, 1: 25.0, 2: 40.0}


def test_growth_is_that_of_the_working_part():
    million = module("million")
    readings = [million.Reading(t, 50 if t < 10 else 100 + t, t >= 10) for t in range(110)]
    found = million.summary(readings, 1.0, 10)
    assert found["peak_GB"] == pytest.approx(209e-9)
    assert found["growth_GB"] == pytest.approx(94e-9)  # the first five of a hundred are left out


def test_flops_against_a_count_by_hand():
    step = module("step")
    features, width = 48, 8
    products = 2 * features * width + 3 * 3 * width * width + 3 * width * 2
    assert step.Grid(16, 1.0).n == pytest.approx(np.pi * 8**2 / 2, rel=0.05)
    assert step.flops_an_image(16, width, 3) == pytest.approx(2 * products * step.Grid(16, 1.0).n)
    assert step.images_per_second(16, width, 3, "cpu", False, 1, 0.01) > 0


def test_markdown():
    text = module("common").markdown([[1, "a", 0.12345, None], [10, "bc", 1234.5, 2.0]], ["n", "what", "x", "y"])
    assert text.splitlines() == [
        "|  n | what |     x | y |",
        "|---:|------|------:|--:|",
        "|  1 | a    | 0.123 |   |",
        "| 10 | bc   |  1234 | 2 |",
    ]


def test_the_page_shows_the_committed_results(tmp_path):
    table = module("table")
    assert table.filled(table.PAGE.read_text()) == table.PAGE.read_text(), "run python benchmarks/table.py"
    machine = {"cpu": "Z80", "cores": 1, "threads": 1, "memory_GB": 1, "torch": "2", "matmul_fp32_gflops": 1.0}
    step = {"peak_GB": 0.5, "peak_while_working_GB": 0.4, "growth_GB": 0.0, "cpu_seconds": 9.0, "images_per_cpu_second": 7.0}
    (tmp_path / "a.json").write_text(json.dumps({"benchmark": "million", "written": "2026-11-21", "machine": machine,
                                                 "images": 10, "steps": {"loader": step}}))
    page = table.filled("x\n<!-- results: million -->\nold\n<!-- end -->\ny", tmp_path)
    assert "Z80" in page
    assert "| loader |" in page
    assert "old" not in page


def test_results_name_no_folder_of_a_machine(tmp_path):
    common = module("common")
    table = {"command": ["/opt/env/bin/python", "-m", "x", "-o", "/var/a b"], "unit": "slices/s",
             "rows": [{"path": "/some/where/ctf.pkl", "share": 0.5, "relative": "scratch/igg/run"}, "/a/b/p.mrcs -n 1"]}
    common.write_results(tmp_path / "r.json", table)
    assert common.read_json(tmp_path / "r.json") == {
        "command": ["python", "-m", "x", "-o", "a b"], "unit": "slices/s",
        "rows": [{"path": "ctf.pkl", "share": 0.5, "relative": "scratch/igg/run"}, "p.mrcs -n 1"]}
    for path in (common.HERE / "results").glob("*.json"):
        assert common.read_json(path) == common.portable(common.read_json(path)), path.name
