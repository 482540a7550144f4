"""What ``graph_traversal``, ``direct_traversal`` and ``pc_traversal`` share: latents in, a path and its maps out."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryorecon.cli import texts
from cryorecon.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from cryorecon.training.trained import Trained


@dataclass(frozen=True)
class Latents:
    """z: ``(N, d)``. run: what decodes them, None for a file. files: what was read, not to be written over."""

    z: "np.ndarray"
    run: "Trained | None"
    files: list[Path]


def add_latents(parser: argparse.ArgumentParser) -> None:
    """Where latents come from, and where maps of the path go."""
    parser.add_argument("z", type=Path, help="latents: .npy, .pkl (cryoDRGN's too), or the folder of a training run")
    parser.add_argument("--epoch", type=int, metavar="N", help="of a run: which checkpoint (default: the last)")
    parser.add_argument("--vol", type=Path, metavar="DIR", help="of a run: decode the path's maps into this folder")
    parser.add_argument("--device", default="auto", metavar="NAME", help=texts.DEVICE)


def add_anchors(parser: argparse.ArgumentParser) -> None:
    """Which particles the path joins, and where it is written."""
    parser.add_argument("--anchors", nargs="+", required=True, metavar="N|FILE",
                        help="particles, from 0, or text files of them: analyze's kmeansK/centers_ind.txt, say")
    parser.add_argument("--loop", action="store_true", help="end at the first anchor again")
    parser.add_argument("-o", "--outtxt", type=Path, default=Path("z-path.txt"), metavar="TXT",
                        help="the path's latents, one point a line (default: z-path.txt)")
    parser.add_argument("--outind", type=Path, default=Path("z-path-indices.txt"), metavar="TXT",
                        help="particles on the path, from 0; of points that are none, the nearest (default: "
                        "z-path-indices.txt)")


def read_latents(args: argparse.Namespace) -> Latents:
    """Latents of a file or a run.

    Raises
    ------
    InputError: none there, another shape, not finite, or ``--vol`` without a run.
    """
    from cryorecon.analysis.latent import check_latents
    from cryorecon.data.arrays import read_numbers
    from cryorecon.data.cryodrgn_files import as_array
    from cryorecon.data.files import require_file
    from cryorecon.data.safe_pickle import load_pickles

    if args.z.is_dir():
        from cryorecon.training.trained import load_run

        run = load_run(args.z, args.epoch, args.device if args.vol else "cpu")
        if run.z.shape[1] == 0:
            raise InputError(f"{args.z}: expected a run with latents, found one structure")
        check_latents(run.z, f"{args.z}/z.{run.epoch}.npy")
        return Latents(run.z, run, [args.z / f"z.{run.epoch}.npy"])
    if args.vol is not None or args.epoch is not None:
        option = "--vol" if args.vol is not None else "--epoch"
        raise InputError(f"{option}: expected the folder of a run, found {args.z}; eval_vol decodes a path later")
    path = require_file(args.z, "latents (.npy, .pkl or a run's folder)")
    if path.suffix == ".pkl":
        z = as_array(load_pickles(path)[0], path)  # cryoDRGN's second pickle is the variance
    elif path.suffix == ".npy":
        z = read_numbers(path, "latents (particles, zdim)")
    else:
        raise InputError(f"{path}: expected latents (.npy, .pkl or a run's folder), found {path.suffix or 'no ending'}")
    if z.dtype.kind not in "fiu":
        raise InputError(f"{path}: expected numbers, found an array of {z.dtype}")
    check_latents(z, str(path))
    return Latents(z, None, [path])


def read_anchors(args: argparse.Namespace) -> list[int]:
    """The anchors that ``--anchors`` and ``--loop`` name. Raises :class:`InputError` for words that are no numbers."""
    from cryorecon.data.arrays import read_columns

    anchors: list[int] = []
    for word in args.anchors:
        if Path(word).is_file():
            anchors += read_columns(word, "whole numbers, particles from 0", dtype=int).ravel().tolist()
        elif word.lstrip("-").isdecimal():
            anchors.append(int(word))
        else:
            raise InputError(f"--anchors: expected particles, from 0, or files of them, found {word!r}")
    return anchors + anchors[:1] if args.loop else anchors


def write_path(args: argparse.Namespace, latents: Latents, path: "np.ndarray", text: Path, index_text: Path,
               vol: Path | None, index: "Sequence[int] | np.ndarray | None" = None) -> None:
    """Write points ``(n, d)``, their particles (default: the nearest) and maps, and print what was written.

    Raises
    ------
    InputError: an output that is an input.
    """
    import numpy as np

    from cryorecon.analysis.latent import nearest_particles
    from cryorecon.analysis.trajectories import write_latents, write_series
    from cryorecon.data.files import atomic_path, refuse_input

    inputs = [*latents.files, *(word for word in getattr(args, "anchors", []) if Path(word).is_file())]
    for out in (text, index_text):
        refuse_input(out, inputs)
    nearest = nearest_particles(latents.z, path) if index is None else np.asarray(index)
    write_latents(text, path)
    with atomic_path(index_text) as temporary:
        np.savetxt(temporary, nearest, fmt="%d")
    length = float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())
    print(f"{len(path)} points, {length:.4g} long: {text}; {'nearest ' if index is None else ''}particles: {index_text}")
    if vol is not None and latents.run is not None:
        from cryorecon.report.chimerax import write_series_script

        run = latents.run
        maps = write_series(vol, lambda point: run.density(point[None])[0], path.astype(np.float32), run.apix, "maps")
        print(f"{len(maps)} maps: {vol}; ChimeraX: {write_series_script(vol, maps, morph=True)}")
