"""Estimated poses against reference ones.

What ab initio can't know is taken out first: one rotation of the whole map, its hand, and one 3-D offset (searched and
fitted robustly; nothing else is). Then prints median and mean of the rotation error in degrees and as |R - R'|_F^2, of
the shift error in px and Å, and the share of images within 5, 10 and 30 degrees. With --symmetry an image's error is the
least over the group's operators, whose axes are those of the reference. Both files have a row for each image, in the same
order. With -o it writes eval_poses.json, pose_error.csv (each image) and eval_poses.png.

    cryorecon train_nn hinge/particles.mrcs --ctf hinge/ctf.pkl -o found
    cryorecon eval_poses found hinge/truth.npz --ctf hinge/ctf.pkl -o poses
    cryorecon eval_poses poses.pkl run_data.star --symmetry D2
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from cryorecon.analysis.pose_agreement import PoseAgreement
    from cryorecon.analysis.pose_files import PoseTable

DEGREES = (5, 10, 30)
NAMES = {"Å": "angstrom", "px": "px", "box": "box_fraction"}  # of units, in files
LABELS = {"box": "box widths"}


def add_args(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``eval_poses``."""
    kinds = "a run's folder (its newest poses.N.star), .star, .cs, .pkl (cryoDRGN), .npy or truth.npz"
    parser.add_argument("estimated", type=Path, help=kinds)
    parser.add_argument("truth", type=Path, help="the reference, any of the same")
    parser.add_argument("--ctf", type=Path, metavar="FILE", help="CTF of the reference, for error against defocus, box and "
                        "pixel size (.pkl, .npy, .star, .cs; default: the star or cs file's own)")
    parser.add_argument("-D", "--box", type=int, metavar="PX", help="box of the images where no file says it")
    parser.add_argument("--apix", "--Apix", type=float, metavar="Å", help="pixel size where no file says it")
    parser.add_argument("--ind", type=Path, metavar="FILE",
                        help="positions, from 0, in the reference and the CTF, of the images "
                        "that were used (default: the run's own --ind)")
    parser.add_argument("--symmetry", "--sym", default="C1", metavar="GROUP", help="point group C<n> or D<n> of the reference, "
                        "oriented as RELION does (default: C1)")
    parser.add_argument("-o", "--outdir", type=Path, metavar="DIR", help="write numbers and pictures here")


def main(args: argparse.Namespace) -> None:
    """Compare, print and write.

    Raises
    ------
    InputError: files that are absent or hold no poses, numbers of images that differ, no such group.
    """
    from dataclasses import replace

    from cryorecon.analysis.pose_agreement import pose_agreement
    from cryorecon.analysis.pose_files import common_size, read_defocus, read_pose_table
    from cryorecon.errors import InputError
    from cryorecon.geometry.rotations import symmetry_group

    group = symmetry_group(args.symmetry)
    estimated, truth = read_pose_table(args.estimated), read_pose_table(args.truth)
    sizes = [estimated.size, truth.size]
    if args.ctf is not None:
        size, defocus = read_defocus(args.ctf)
        if len(defocus) != len(truth):
            raise InputError(f"{args.ctf}: expected a CTF of the {len(truth)} images of {truth.path}, found {len(defocus)}; "
                             "--ind selects from both alike")
        truth = replace(truth, defocus=defocus)
        sizes.append(size)
    size = common_size(sizes, args.box, args.apix)
    estimated, truth = _matched(args, estimated, truth)
    found = pose_agreement(estimated, truth, size, group)
    print(f"{estimated.path} against {truth.path}: {len(truth):,} images, symmetry {args.symmetry.upper()}")
    _print(found)
    if args.outdir is not None:
        facts = {"estimated": str(estimated.path), "truth": str(truth.path), "images": len(truth),
                 "symmetry": args.symmetry.upper(), "box": size.box, "apix": size.apix}
        _write(args.outdir, found, truth, facts)
        print(f"wrote {args.outdir}/eval_poses.json, pose_error.csv, eval_poses.png")


def _matched(args: argparse.Namespace, estimated: "PoseTable", truth: "PoseTable") -> "tuple[PoseTable, PoseTable]":
    """Both tables of the same images: --ind, or the run's own, selects from the truth, and from what has as many rows."""
    from cryorecon.data.cryodrgn_files import read_indices
    from cryorecon.training.run_directory import RunDirectory

    chosen = args.ind
    if chosen is None and len(estimated) != len(truth) and (args.estimated / "config.yaml").is_file():
        chosen = RunDirectory(args.estimated).config().ind
    if chosen is None:
        return estimated, truth
    rows = read_indices(chosen, truth.n_rows)
    return estimated.select(rows) if estimated.n_rows == truth.n_rows else estimated, truth.select(rows)


def _columns(found: "PoseAgreement") -> "dict[str, Tensor]":
    """Errors ``(N,)`` by what they are, with the unit, as files name them."""
    shifts = {f"shift_{NAMES[unit]}": values for unit, values in found.shift.items()}
    return {"angle_degrees": found.error.angle, "squared_frobenius": found.error.squared, **shifts}


def _print(found: "PoseAgreement") -> None:
    hand = "the reference's" if found.error.frame.hand == 1 else "mirrored"
    print(f"hand: {hand} (median {float(found.error.angle.median()):.3g}°; with the other hand {found.other:.3g}°)")
    print(f"{'':<16}{'median':>10}{'mean':>10}")
    rows = {"rotation (°)": found.error.angle, "|R - R'|_F^2": found.error.squared}
    units = ("box",) if found.unit == "box" else tuple(unit for unit in ("px", "Å") if unit in found.shift)
    rows |= {f"shift ({LABELS.get(unit, unit)})": found.shift[unit] for unit in units}
    for name, values in rows.items():
        print(f"{name:<16}{float(values.median()):>10.4g}{float(values.mean()):>10.4g}")
    print("rotations within " + ", ".join(f"{each}°: {100 * found.error.within(each):.1f} %" for each in DEGREES))
    if found.missing is not None:
        print(found.missing)


def _write(outdir: Path, found: "PoseAgreement", truth: "PoseTable", facts: dict[str, object]) -> None:
    import json

    import numpy as np

    from cryorecon.data.files import atomic_path
    from cryorecon.report.pose_plots import pose_errors
    from cryorecon.report.style import save

    error, unit, columns = found.error, found.unit, _columns(found)
    report = {
        **facts, "hand": error.frame.hand, "angle_median_other_hand": found.other, "rotation": error.frame.rotation.tolist(),
        "offset": None if error.offset is None or unit is None else {NAMES[unit]: error.offset.tolist()},
        **{name: {"median": float(values.median()), "mean": float(values.mean())} for name, values in columns.items()},
        "share_within_degrees": {str(degrees): error.within(degrees) for degrees in DEGREES}, "missing": found.missing,
    }  # fmt: skip
    with atomic_path(outdir / "eval_poses.json") as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n")
    table = {"image": np.arange(len(truth)), **{name: values.numpy() for name, values in columns.items()}}
    if found.defocus is not None:
        table["defocus_angstrom"] = found.defocus
    with atomic_path(outdir / "pose_error.csv") as temporary:
        np.savetxt(temporary, np.stack([*table.values()], 1), delimiter=",", header=",".join(table), comments="",
                   fmt=["%d"] + ["%.6g"] * (len(table) - 1))
    drawn = pose_errors(error.angle.numpy(), truth.rotation.numpy(), found.rotation.numpy(),
                        None if unit is None else found.shift[unit].numpy(), LABELS.get(str(unit), str(unit)), found.defocus)
    save(drawn, outdir / "eval_poses.png")
