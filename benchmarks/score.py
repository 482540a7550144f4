"""One run's latents and maps against a simulation's truth, by one function for us and for cryoDRGN.

    python benchmarks/score.py simulation --run out --epoch 5 -o score.json
    python benchmarks/score.py simulation --peer-run peer --epoch 20 --peer ENVIRONMENT -o score.json

Per conformation as CryoBench does: the mean latent of the state's particles, the particle nearest to it, that
particle's map, its FSC with the true map; the mean over states of the areas under the curves. No mask, no alignment,
nothing fitted.
"""

import argparse
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import common

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Decode = Callable[["np.ndarray"], "Tensor"]


@dataclass(frozen=True)
class Truth:
    """state ``(N,)``; coordinate ``(S, q)`` of the states; maps ``(S, D, D, D)``; apix in Å/px."""

    state: "np.ndarray"
    coordinate: "np.ndarray"
    maps: "Tensor"
    apix: float


def read_truth(folder: Path) -> Truth:
    """The truth of a folder that ``cryorecon simulate`` made."""
    import numpy as np
    import torch

    from cryorecon.data.mrc import read_volume

    with np.load(folder / "truth.npz", allow_pickle=False) as held:
        state, coordinate = held["state"], held["coordinate"]
    volumes = [read_volume(folder / "maps" / f"state_{number:02d}.mrc") for number in range(len(coordinate))]
    return Truth(state, coordinate, torch.stack([torch.from_numpy(v.copy()) for v, _ in volumes]), volumes[0][1])


def score(z: "np.ndarray", decode: Decode, truth: Truth) -> common.Table:
    """spearman: |rank correlation| of z's first principal component with the first coordinate. auc, auc_std: over
    states. difference_maps: mean correlation of each state's difference from the mean state with the truth's.

    ``z (N, d)``; ``decode(z (S, d))`` gives maps ``(S, D, D, D)`` and is called once: a peer starts a process for it.
    """
    import torch

    from cryorecon.analysis.states import representatives, score_states, state_maps

    chosen = z[representatives(z, truth.state)[2]]
    maps = {row.tobytes(): density for row, density in zip(chosen, decode(chosen), strict=True)}
    held = state_maps(z, truth.state, lambda rows: torch.stack([maps[row.tobytes()] for row in rows]),
                      lambda number: truth.maps[number])
    found = score_states(z, truth.state, truth.coordinate, held)
    return {"spearman": float(found.spearman[0, 0]), "auc": float(found.auc.mean()), "auc_std": float(found.auc.std()),
            "difference_maps": found.difference}


def open_ours(run: Path, epoch: int) -> tuple["np.ndarray", Decode]:
    """Latents and decoder of a cryorecon run."""
    from cryorecon.training.trained import load_run

    trained = load_run(run, epoch)
    return trained.z, trained.density


def open_peer(run: Path, epoch: int, binaries: Path, apix: float) -> tuple["np.ndarray", Decode]:
    """Latents and decoder of a cryoDRGN run; its maps are those of ``cryodrgn eval_vol``."""
    import numpy as np
    import torch

    from cryorecon.data.cryodrgn_files import read_latents
    from cryorecon.data.mrc import read_volume

    def decode(z: np.ndarray) -> torch.Tensor:
        with tempfile.TemporaryDirectory() as folder:
            zfile = Path(folder) / "z.txt"
            np.savetxt(zfile, z)
            subprocess.run([str(binaries / "cryodrgn"), "eval_vol", str(run / f"weights.{epoch}.pkl"), "-c",
                            str(run / "config.yaml"), "--zfile", str(zfile), "--Apix", str(apix), "-o", folder],
                           check=True, capture_output=True)
            files = sorted(Path(folder).glob("vol_*.mrc"))
            return torch.stack([torch.from_numpy(read_volume(file)[0].copy()) for file in files])

    return read_latents(run / f"z.{epoch}.pkl")[0], decode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("truth", type=Path, help="folder that cryorecon simulate made")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--run", type=Path, metavar="DIR", help="a run of cryorecon train_vae")
    which.add_argument("--peer-run", type=Path, metavar="DIR", help="a run of cryodrgn train_vae")
    parser.add_argument("--epoch", type=int, required=True, metavar="N", help="which checkpoint")
    parser.add_argument("--peer", metavar="PATH", help="the peer's environment, for --peer-run")
    parser.add_argument("-o", "--out", type=Path, metavar="JSON", help="write the scores here too")
    args = parser.parse_args()
    truth = read_truth(args.truth)
    if args.run:
        z, decode = open_ours(args.run, args.epoch)
    else:
        binaries = common.peer_environment(args.truth, args.peer)
        z, decode = open_peer(args.peer_run, args.epoch, binaries, truth.apix)
    found = score(z, decode, truth)
    print(", ".join(f"{name} {value:.4f}" for name, value in found.items()))
    if args.out:
        common.write_json(args.out, found)


if __name__ == "__main__":
    main()
