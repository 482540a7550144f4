"""Maps of many conformations compared: their components, clusters and free energy.

Decodes maps at real particles that stand for the latents, smaller than the run's, and compares the maps themselves within a
mask: distances, principal components (volume PCs), agglomerative clusters (states). Every particle is placed among them.
Writes RUN/landscape.N: arrays, maps, pictures, ChimeraX scripts, summary.json and a page, index.html.

    cryorecon analyze_landscape out 25 -N 300 -M 6 --linkage ward
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from cryorecon.cli import texts

if TYPE_CHECKING:
    from torch import Tensor

    from cryorecon.analysis.landscape import Settings
    from cryorecon.training.trained import Trained

BOX = 64


def add_args(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``cryorecon analyze_landscape``."""
    parser.add_argument("run", type=Path, help=texts.RUN)
    parser.add_argument("epoch", type=int, nargs="?", help=texts.CHECKPOINT)
    parser.add_argument("-o", "--outdir", type=Path, metavar="DIR", help="where to write (default: RUN/landscape.EPOCH)")
    parser.add_argument("--device", default="auto", metavar="NAME", help=texts.DEVICE)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the choice of particles (default: 0)")
    maps = parser.add_argument_group("maps")
    maps.add_argument("-N", "--sketch-size", type=int, default=500, metavar="N", help="number of maps (default: 500)")
    maps.add_argument("-d", "--downsample", type=int, metavar="PX",
                      help=f"Fourier-crop the maps to this box (default: {BOX}, or the run's if that is smaller)")
    maps.add_argument("--mask", type=Path, metavar="MRC",
                      help="soft mask where maps are compared, of the maps' box or the run's (default: by --thresh)")
    maps.add_argument("--thresh", type=float, metavar="X",
                      help="density above which a voxel of the maps' maximum is within the mask (default: from its rim)")
    maps.add_argument("--dilate", type=float, default=6, metavar="Å", help="how far the mask is grown from there (default: 6)")
    states = parser.add_argument_group("states and components")
    states.add_argument("-M", type=int, default=10, metavar="M", help="number of states (default: 10)")
    states.add_argument("--linkage", default="average", choices=("average", "ward", "complete", "single"),
                        help="distance between clusters that are joined (default: average)")
    states.add_argument("--pc-dim", type=int, default=20, metavar="N", help="volume PCs to keep (default: 20)")
    states.add_argument("--plot-dim", type=int, default=3, metavar="N", help="volume PCs to walk with maps (default: 3)")


def main(args: argparse.Namespace) -> None:
    """Run ``cryorecon analyze_landscape``.

    Raises
    ------
    InputError: no such run or epoch, one without latents, a mask of another box, or options out of range.
    """
    from cryorecon.analysis.landscape import Settings
    from cryorecon.analysis.latent import check_latents
    from cryorecon.analysis.selection import claim
    from cryorecon.data.files import below
    from cryorecon.errors import InputError
    from cryorecon.training.trained import load_run

    run = load_run(args.run, args.epoch, args.device)
    if run.z.shape[1] == 0:
        raise InputError(f"{args.run}: expected a run with latents, found one structure; eval_vol writes its map")
    check_latents(run.z, f"{args.run}/z.{run.epoch}.npy")
    box = min(BOX, run.grid.box) if args.downsample is None else args.downsample
    if args.downsample is not None and (box % 2 or not 4 <= box <= run.grid.box):
        raise InputError(f"--downsample: expected an even box of at most {run.grid.box} px, the run's, found {box}")
    settings = Settings(args.sketch_size, _mask(args.mask, run, box), args.thresh, args.dilate, args.M, args.linkage,
                        args.pc_dim, args.plot_dim, args.seed)
    folder = args.outdir if args.outdir is not None else below(args.run, f"landscape.{run.epoch}")
    with claim(folder):
        _analyze(args, run, folder, box, settings)


def _analyze(args: argparse.Namespace, run: "Trained", folder: Path, box: int, settings: "Settings") -> None:
    """Compare the maps and write all."""
    import sys

    import numpy as np
    import torch

    from cryorecon import __version__
    from cryorecon.analysis.landscape import explore_landscape, write_landscape_summary
    from cryorecon.data.cryodrgn_files import read_indices
    from cryorecon.geometry.fourier import resample
    from cryorecon.report.chimerax import write_series_script
    from cryorecon.report.landscape_page import write_landscape

    apix = run.apix * run.grid.box / box

    def decode(point: np.ndarray) -> torch.Tensor:
        return resample(run.density(point[None])[0], box, 3)

    positions = None if run.config.ind is None else read_indices(run.config.ind)
    found = explore_landscape(run.z, folder, decode, apix, settings, positions)
    for maps in found.walk_maps:
        found.files[f"{write_series_script(maps[0].parent, maps, morph=True).relative_to(folder)}"] = "opens these in ChimeraX"
    script = write_series_script(found.state_maps[0].parent, found.state_maps, morph=False)
    found.files[f"{script.relative_to(folder)}"] = "opens the states' mean maps in ChimeraX"
    facts = {"command": " ".join(["cryorecon", *sys.argv[1:]]), "run": str(args.run.resolve()), "epoch": str(run.epoch),
             "pixel size": f"{apix:g} Å", "seed": str(args.seed), "cryorecon": __version__,
             "torch": torch.__version__, "numpy": np.__version__}
    page = write_landscape(found, f"{args.run.resolve().name}, epoch {run.epoch}: landscape", facts)
    write_landscape_summary(found, {"run": str(args.run), "epoch": run.epoch, "apix": apix, "version": __version__})
    shares = ", ".join(f"{100 * share:.1f} %" for share in found.space.explained[:3])
    print(f"{len(found.sketch)} maps of {box} px; variance along the volume PCs: {shares}; regression R² {found.score:.3f}")
    print("particles by state: " + ", ".join(f"{count:,}" for count in found.counts))
    print(f"maps, arrays and pictures: {folder}\npage: {page}")


def _mask(path: Path | None, run: "Trained", box: int) -> "Tensor | None":
    """The mask in [0, 1], interpolated to the maps' box where it has the run's: a sharp one would ring if Fourier-cropped."""
    import numpy as np
    import torch
    from scipy.ndimage import map_coordinates

    from cryorecon.errors import InputError
    from cryorecon.training.build import mask_values

    if path is None:
        return None
    mask = mask_values(str(path))[0].numpy()
    if len(mask) not in (box, run.grid.box):
        raise InputError(f"{path}: expected a mask of {box} px, the maps' box, or {run.grid.box} px, the run's, found "
                         f"{len(mask)}")
    axis = (np.arange(box) - box // 2) * len(mask) / box + len(mask) // 2  # the origin stays
    smaller = map_coordinates(mask, np.meshgrid(axis, axis, axis, indexing="ij"), order=1, mode="nearest")
    return torch.from_numpy(smaller).clamp(0, 1)
