"""Two states made from real maps (EMPIAR-10076, classes D and E of the 50S ribosome): ``train_vae`` tells them apart.

72 particles of D with 8 tilts and 72 of E with 10: 1296 images of 32 px. Poses and CTF are given, labels are not.
"""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from cryorecon.cli.main import main
from cryorecon.data.load import read_metadata
from cryorecon.data.mrc import read_volume
from cryorecon.data.safe_pickle import load_pickles
from cryorecon.training.trained import load_run


@pytest.fixture
def folder(shared_data):
    return shared_data / "sim_truth" / "ribosome50S_10076_DE"


@pytest.fixture
def labels(folder) -> np.ndarray:
    """0 for D and 1 for E, (144,)."""
    return np.asarray(load_pickles(folder / "ptcl_labels_D0_E1.pkl")[0])


def test_three_files_agree_on_the_labels(folder, labels):
    meta = read_metadata(folder / "10076_both_32_sim.star", datadir=folder)
    state = np.array(["classE" in stack for stack in meta.stacks])[meta.file_index]
    _, first, tilts = np.unique(meta.particle, return_index=True, return_counts=True)
    np.testing.assert_array_equal(labels, np.asarray(load_pickles(folder / "labels_D-0_E-1.pkl")[0]))
    np.testing.assert_array_equal(labels, state[first])
    assert [(int((labels == k).sum()), set(tilts[labels == k])) for k in (0, 1)] == [(72, {8}), (72, {10})]


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


@pytest.mark.slow
def test_train_vae_separates_the_two_states(folder, labels, tmp_path):
    # protein is dark in these images
    argv = ["train_vae", f"{folder}/10076_both_32_sim.star", "--datadir", str(folder), "--uninvert-data", "--zdim", "4", "-n",
            "1", "--dim", "32", "-o", str(tmp_path / "run")]
    assert main(argv) == 0
    run = load_run(tmp_path / "run")
    split = KMeans(2, n_init=10, random_state=0).fit(run.z)
    right = float((split.labels_ == labels).mean())
    assert max(right, 1 - right) >= 0.95  # measured 1.00
    d, e = run.density(split.cluster_centers_ if right > 0.5 else split.cluster_centers_[::-1].copy())
    true_d, true_e = (torch.from_numpy(read_volume(folder / f"10076_class{x}_32.mrc")[0]) for x in "DE")
    # what differs between the maps is what differs in truth, not contrast or the number of tilts
    assert correlation(e - d, true_e - true_d) > 0.5  # measured .58
    assert correlation(d, true_d) > correlation(d, true_e)
    assert correlation(e, true_e) > correlation(e, true_d)
