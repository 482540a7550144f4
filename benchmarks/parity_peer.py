"""CryoBench's and the Flatiron challenge's own code on given inputs; run by an environment of theirs, never imported.

    PYTHON benchmarks/parity_peer.py cryobench CHECKOUT WORK
    PYTHON benchmarks/parity_peer.py challenge CHECKOUT WORK

parity_conformation.py starts it. It reads WORK/inputs.npz and writes WORK/cryobench.npz or WORK/challenge.npz.
"""

import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock


def cryobench(checkout: Path, work: Path) -> None:
    """FSC curves and their areas, neighbourhood similarity and information imbalance."""
    import numpy as np
    import torch

    os.environ.setdefault("CHIMERAX_PATH", "unused")
    sys.path[:0] = [str(checkout / "metrics/fsc"), str(checkout / "metrics/information_imbalance")]
    import cryodrgn
    from cryodrgn import mrcfile

    cryodrgn.mrc = mrcfile  # as it was called in the cryodrgn that CryoBench was written for
    from compute_information_imbalance import compute_information_imbalance
    from sklearn.metrics import auc
    from utils import volumes

    held = np.load(work / "inputs.npz")
    a, b = (torch.from_numpy(held[name]) for name in ("map_a", "map_b"))
    found = {}
    for name, mask in (("bare", None), ("masked", str(work / "mask.mrc"))):
        curve = volumes.get_fsc_curve(a, b, mask)
        found |= {f"fsc_{name}": curve.fsc, f"auc_{name}": auc(curve.pixres, curve.fsc),
                  f"auc_abs_{name}": auc(curve.pixres, curve.fsc.abs())}
    for k in (1, 3):
        both, _ = compute_information_imbalance(held["truth"][:500], held["z"][:500], k=k, subset_size=2000)
        found[f"imbalance_{k}"] = both[:, 0]
    folder = work / "neighbours"
    folder.mkdir(exist_ok=True)
    np.savez(folder / "conf-het-1_wrangled_latents.npz", gt_s1_embeddings=held["truth"], z=held["z"])
    subprocess.run([sys.executable, str(checkout / "metrics/neighborhood_similarity/cal_neighb_hit_werror.py")], cwd=folder,
                   env=os.environ | {"JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"}, check=True)
    found["hits"] = np.loadtxt(folder / "z_output.txt")
    np.savez(work / "cryobench.npz", **found)


def challenge(checkout: Path, work: Path) -> None:
    """Distances of the test maps that come with the code; of distributions by its test matrix and by a larger one."""
    import numpy as np
    import torch

    sys.path.insert(0, str(checkout / "src"))
    for name in ("aspire", "aspire.volume", "aspire.utils", "aspire.utils.rotation", "aspire.utils.bot_align"):
        sys.modules[name] = MagicMock()  # of its preprocessing, which isn't asked
    os.chdir(checkout)
    torch.set_default_dtype(torch.float64)
    from cryo_challenge._map_to_map import map_to_map_distance as distances

    data = checkout / "tests/data"
    truths = torch.load(data / "Ground_truth/test_maps_gt_flat_10.pt", weights_only=False).double()
    submission = torch.load(data / "dataset_2_submissions/submission_1000.pt", weights_only=False)
    maps = submission["volumes"].reshape(len(submission["volumes"]), -1).double()
    mask = {"do": True, "volume": str(data / "Ground_truth/test_mask_bool.mrc")}
    config = {"data": {"n_pix": 16, "psize": 30.044, "mask": mask},
              "analysis": {"chunk_size_gt": 5, "chunk_size_submission": 4,
                           "low_memory": {"do": True, "chunk_size_low_memory": 5},
                           "normalize": {"do": True, "method": "median_zscore"}}}
    found = {"truths": truths.reshape(-1, 16, 16, 16), "maps": maps.reshape(-1, 16, 16, 16)}
    for name, kind in (("l2", distances.L2DistanceNorm), ("corr", distances.Correlation), ("bioem", distances.BioEM3dDistance),
                       ("fsc", distances.FSCDistance)):
        one = kind(config)
        found["mask"] = one.mask
        if name == "fsc":
            one.distance_matrix_precomputation(truths, maps)
        found[name] = one.get_distance_matrix(truths.clone(), maps.clone(), {})
    found = {name: np.asarray(value) for name, value in found.items()}
    found |= _distributions(work / "test_matrix", *_test_matrix(data), pool=2, replicates=3)
    held = np.load(work / "inputs.npz")
    large = (held[name] for name in ("distance", "population", "submitted"))
    found |= _distributions(work / "large_matrix", *large, pool=5, replicates=30)
    np.savez(work / "challenge.npz", **found)


def _test_matrix(data: Path):
    """Distances in the order of the motion and both populations of the challenge's own test."""
    import pickle

    import pandas as pd

    metadata = pd.read_csv(data / "Ground_truth/test_metadata_10.csv").sort_values("pc1")
    with (data / "data_for_dist_to_dist/test_map_to_map_distance_matrix_submission_0.pkl").open("rb") as file:
        held = pickle.load(file)  # noqa: S301  (theirs, in their process)
    return (held["l2"]["cost_matrix"].iloc[metadata.index.tolist()].values, metadata.populations.values,
            held["user_submitted_populations"])


def _distributions(folder: Path, distance, population, submitted, pool: int, replicates: int) -> dict:
    """Their pipeline on a matrix whose rows are in the order of the motion."""
    import pickle

    import numpy as np
    import pandas as pd
    import torch
    from cryo_challenge._distribution_to_distribution.distribution_to_distribution import run

    folder.mkdir(exist_ok=True)
    submitted = torch.as_tensor(np.asarray(submitted, np.float64))
    pd.DataFrame({"pc1": np.arange(len(population), dtype=float), "populations": population}).to_csv(folder / "metadata.csv")
    torch.save({"id": "parity"}, folder / "submission.pt")
    with (folder / "distances.pkl").open("wb") as file:
        pickle.dump({"l2": {"cost_matrix": pd.DataFrame(np.array(distance, np.float64))},
                     "user_submitted_populations": submitted,
                     "config": {"data": {"submission": {"fname": str(folder / "submission.pt")}}}}, file)
    config = {"input_fname": str(folder / "distances.pkl"), "metrics": ["l2"],
              "gt_metadata_fname": str(folder / "metadata.csv"), "n_replicates": replicates,
              "n_pool_microstate": pool, "replicate_fraction": 0.9, "cvxpy_solver": "ECOS",
              "optimal_q_kl": {"n_iter": 100000, "break_atol": 0.0001}, "output_fname": str(folder / "out.pkl")}
    each = run(config)["l2"]["replicates"]
    name = folder.name
    keys = {"emd": ("EMD", "EMD_submitted"), "emd_best": ("EMD", "EMD_opt"), "kl": ("KL", "klpq_submitted"),
            "kl_back": ("KL", "klqp_submitted"), "kl_best": ("KL", "klpq_opt"), "kl_back_best": ("KL", "klqp_opt")}
    found = {f"{name}_{key}": np.array([float(each[i][part][entry]) for i in range(replicates)])
             for key, (part, entry) in keys.items()}
    return found | {f"{name}_distance": np.asarray(distance, np.float64), f"{name}_population": np.asarray(population),
                    f"{name}_submitted": submitted.numpy()}


if __name__ == "__main__":
    {"cryobench": cryobench, "challenge": challenge}[sys.argv[1]](Path(sys.argv[2]).absolute(), Path(sys.argv[3]).absolute())
