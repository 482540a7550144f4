"""What analyze writes, and the learning curve's reader."""

import json

import numpy as np
import pytest
import torch

from cryorecon.analysis.explore import embed_umap, explore, write_summary
from cryorecon.analysis.history import read_history
from cryorecon.errors import InputError


def latents(n: int = 300, d: int = 3) -> np.ndarray:
    return (np.random.default_rng(0).normal(size=(n, d)) * np.arange(d, 0, -1)).astype(np.float32)


def decode(point: np.ndarray) -> torch.Tensor:
    return torch.full((6, 6, 6), float(point.sum()))


def test_files_have_predictable_names(tmp_path) -> None:
    z = latents()
    found = explore(z, tmp_path, decode, 2.0, k=4, n_components=2, n_points=3)
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    volumes = [f"kmeans4/vol_{i:03d}.mrc" for i in range(1, 5)] + [f"pc{c}/vol_{i:03d}.mrc" for c in (1, 2)
                                                                  for i in (1, 2, 3)]
    arrays = ["z_pca.npy", "kmeans4/labels.npy", "kmeans4/centers.txt", "kmeans4/centers_ind.txt",
              "kmeans4/z_values.txt", "pc1/z_values.txt", "pc2/z_values.txt"]
    assert names == {*volumes, *arrays}
    index = np.loadtxt(tmp_path / "kmeans4/centers_ind.txt", dtype=int)
    np.testing.assert_allclose(np.loadtxt(tmp_path / "kmeans4/centers.txt"), z[index], rtol=1e-6)
    np.testing.assert_array_equal(np.load(tmp_path / "kmeans4/labels.npy"), found.clusters.labels)
    summary = write_summary(found, {"epoch": 7})
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert summary["epoch"] == 7
    assert sum(summary["cluster_sizes"]) == 300


def test_without_maps_and_in_one_dimension(tmp_path) -> None:
    found = explore(latents(40, 1), tmp_path, None, 1.0, k=3, n_components=2)
    assert len(found.paths) == 1
    assert not list(tmp_path.rglob("*.mrc"))
    with pytest.raises(InputError, match="0 or more"):
        explore(latents(), tmp_path, None, 1.0, n_components=-1)


def test_umap_absent_is_one_line(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    with pytest.raises(InputError, match=r"cryorecon\[umap\]"):
        embed_umap(latents(), tmp_path)


def test_history_means_epochs_and_survives_a_cut_line(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert list(read_history(path)) == ["epoch"]
    lines = [{"epoch": 1, "loss": 2.0, "step": 1}, {"epoch": 1, "loss": 4.0}, {"epoch": 2, "loss": 1.0, "kl": 0.5},
             {"epoch": 3, "note": "x", "flag": True}]
    path.write_text("\n".join(map(json.dumps, lines)) + '\n[1]\n{"epoch": 4, "lo')
    found = read_history(path)
    assert list(found) == ["epoch", "loss", "kl"]
    np.testing.assert_array_equal(found["epoch"], [1, 2, 3])
    np.testing.assert_array_equal(found["loss"], [3, 1, np.nan])
    np.testing.assert_array_equal(found["kl"], [np.nan, 0.5, np.nan])
