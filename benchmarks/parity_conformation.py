"""The figures of eval_conformation beside those of CryoBench's and the Flatiron challenge's own code, on the same inputs.

Theirs run in a process and an environment of their own (parity_peer.py); nothing of them is imported here. Inputs are
synthetic, but for the challenge's test maps and matrix, which come with its code.

    git clone https://github.com/ml-struct-bio/CryoBench && git -C CryoBench checkout 20931c2
    git clone https://github.com/flatironinstitute/Cryo-EM-Heterogeneity-Challenge-1 challenge
    git -C challenge checkout 11a0eb1
    python -m venv peer && peer/bin/pip install torch scikit-learn pandas jax dadapy POT cvxpy ecos omegaconf pydantic mrcfile \
        dask distributed dask-jobqueue dataclasses-json && peer/bin/pip install --no-deps cryodrgn==3.4.1
    python benchmarks/parity_conformation.py --peer peer/bin/python --cryobench CryoBench --challenge challenge --work scratch
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import common

if TYPE_CHECKING:
    import numpy as np

HEAD = ("figure", "theirs", "values", "largest difference", "relative to the largest value")
CRYOBENCH, CHALLENGE = "CryoBench 20931c2", "challenge 11a0eb1"


def make_inputs(work: Path) -> None:
    """Two maps and a mask of 32 px, 5,000 true places and latents, and a matrix of 100 states and 80 maps."""
    import numpy as np

    from cryorecon.data.mrc import write_volume
    from cryorecon.imaging.masks import soft_sphere

    rng = np.random.default_rng(0)
    base, noise = rng.normal(size=(2, 32, 32, 32))
    smooth = np.fft.ifftn(np.fft.fftn(base) * np.exp(-0.02 * _squared(32))).real
    truth = rng.normal(size=(5000, 2))
    z = np.concatenate([np.sin(truth), 0.3 * rng.normal(size=(5000, 2))], 1)
    population, submitted = rng.dirichlet(np.full(100, 3.0)), rng.dirichlet(np.full(80, 3.0))
    distance = np.abs(np.linspace(0, 1, 100)[:, None] - rng.random(80)) + 0.05 * rng.random((100, 80))
    np.savez(work / "inputs.npz", map_a=smooth.astype(np.float32), map_b=(smooth + 0.2 * noise).astype(np.float32), truth=truth,
             z=z, distance=distance, population=population, submitted=submitted)
    write_volume(work / "mask.mrc", soft_sphere(32, 10, 3).numpy().astype(np.float32), 3.0)


def _squared(box: int) -> "np.ndarray":
    import numpy as np

    axis = np.fft.fftfreq(box, 1 / box)
    return axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2


def ask(python: str, which: str, checkout: Path, work: Path) -> "dict[str, np.ndarray]":
    """What the peer's process says."""
    import numpy as np

    with (work / f"{which}.log").open("wb") as log:
        done = subprocess.run([python, str(common.HERE / "parity_peer.py"), which, str(checkout), str(work)], stdout=log,
                              stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        common.fail(f"{which}: expected its code to run, found exit code {done.returncode}; see {work / which}.log")
    with np.load(work / f"{which}.npz", allow_pickle=False) as held:
        return dict(held)


def row(figure: str, source: str, ours: Any, theirs: Any) -> common.Table:
    """A line of the table: the largest absolute difference, and that over the largest absolute value of theirs."""
    import numpy as np

    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    gap = float(np.abs(ours - theirs).max())
    return {"figure": figure, "source": source, "values": int(theirs.size), "difference": gap,
            "relative": gap / max(float(np.abs(theirs).max()), 1e-300)}


def cryobench_rows(theirs: "dict[str, np.ndarray]", work: Path) -> list[common.Table]:
    """FSC, areas, neighbours."""
    import numpy as np
    import torch

    from cryorecon.data.mrc import read_volume
    from cryorecon.metrics.fsc import FSCCurve, auc, cryobench_curve
    from cryorecon.metrics.neighbours import information_imbalance, neighbourhood_similarity

    with np.load(work / "inputs.npz", allow_pickle=False) as held:
        a, b = (torch.from_numpy(held[name]) for name in ("map_a", "map_b"))
        truth, z = held["truth"], held["z"]
    rows = []
    for name, mask in (("bare", None), ("masked", torch.from_numpy(read_volume(work / "mask.mrc")[0]))):
        curve = cryobench_curve(a, b, mask)
        absolute = FSCCurve(curve.frequency, curve.value.abs(), curve.convention, curve.mask)
        rows += [row(f"FSC curve, {name}", CRYOBENCH, curve.value, theirs[f"fsc_{name}"]),
                 row(f"area per conformation, {name}", CRYOBENCH, auc(curve), theirs[f"auc_{name}"]),
                 row(f"area per image, {name}", CRYOBENCH, auc(absolute), theirs[f"auc_abs_{name}"])]
    for k in (1, 3):
        both = information_imbalance(truth[:500], z[:500], k), information_imbalance(z[:500], truth[:500], k)
        rows.append(row(f"information imbalance, k = {k}", f"{CRYOBENCH}, DADApy", both, theirs[f"imbalance_{k}"]))
    hits = theirs["hits"][theirs["hits"][:, 0] < len(z) // 5]
    ks = hits[:, 0].astype(int).tolist()
    each = np.stack([neighbourhood_similarity(truth[start::5], z[start::5], ks) for start in range(5)])
    each += 100 / np.array(ks)  # their script counts the particle itself
    rows.append(row("neighbourhood similarity, % (mean)", CRYOBENCH, each.mean(0), 100 * hits[:, 1] / hits[:, 0]))
    rows.append(row("neighbourhood similarity, % (deviation)", CRYOBENCH, each.std(0), 100 * hits[:, 2] / hits[:, 0]))
    return rows


def challenge_rows(theirs: "dict[str, np.ndarray]") -> list[common.Table]:
    """Distances of maps and of distributions."""
    import torch

    from cryorecon.metrics.challenge import distribution_distance, map_distances

    truths, maps = (torch.from_numpy(theirs[name]) for name in ("truths", "maps"))
    mask = torch.from_numpy(theirs["mask"]).reshape(truths.shape[1:]).float()
    rows = []
    for name, found in map_distances(truths, maps, mask).items():
        rows.append(row(f"map distance {name}", CHALLENGE, -found if name == "corr" else found, theirs[name]))
    for name, pool, replicates in (("test_matrix", 2, 3), ("large_matrix", 5, 30)):
        inputs = (theirs[f"{name}_{key}"] for key in ("distance", "population", "submitted"))
        found = distribution_distance(*inputs, pool=pool, replicates=replicates)
        rows += [row(f"{key}, {name.replace('_', ' ')}", CHALLENGE, getattr(found, key), theirs[f"{name}_{key}"])
                 for key in ("emd", "emd_best", "kl", "kl_back", "kl_best", "kl_back_best")]
    return rows


def tables(results: common.Table) -> str:
    """The results in Markdown."""
    lines = [[each["figure"], each["source"], each["values"], f"{each['difference']:.1e}", f"{each['relative']:.1e}"]
             for each in results["rows"]]
    return common.markdown(lines, HEAD)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, metavar="PYTHON", help="of an environment with what both need")
    parser.add_argument("--cryobench", type=Path, metavar="DIR", help="a checkout of ml-struct-bio/CryoBench")
    parser.add_argument("--challenge", type=Path, metavar="DIR", help="of flatironinstitute/Cryo-EM-Heterogeneity-Challenge-1")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where inputs and their results are kept")
    parser.add_argument("-o", "--out", type=Path, metavar="JSON", help="results (default: WORK/parity_conformation.json)")
    args = parser.parse_args()
    with common.locked(args.work.absolute()):
        make_inputs(args.work)
        results: common.Table = {"benchmark": "parity_conformation", "code": common.code_version(), "written": common.now(),
                                 "arguments": sys.argv[1:], "machine": common.machine(1), "rows": []}
        if args.cryobench:
            results["rows"] += cryobench_rows(ask(args.peer, "cryobench", args.cryobench, args.work), args.work)
        if args.challenge:
            results["rows"] += challenge_rows(ask(args.peer, "challenge", args.challenge, args.work))
    common.write_results(args.out or args.work / "parity_conformation.json", results)
    print(tables(results))


if __name__ == "__main__":
    main()
