"""Fourier shell correlation of two maps, with resolution.

Prints the resolution at FSC 0.5 and 0.143 (first crossing) and the area under the curve. Maps of different boxes and
pixel sizes are brought to the coarser pixel and the smaller extent first; --align searches rotation, shift and hand of
the first map before that. With -o it writes fsc.csv, fsc.json and fsc.png (and aligned.mrc).

    cryorecon eval_fsc half1.mrc half2.mrc --mask mask.mrc -o fsc
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from cryorecon.metrics.alignment import Alignment
    from cryorecon.metrics.fsc import FSCCurve, Resolution

THRESHOLDS = (0.5, 0.143)


def add_args(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``cryorecon eval_fsc``."""
    parser.add_argument("map_a", type=Path, help="the map (.mrc, .map, .gz)")
    parser.add_argument("map_b", type=Path, help="the map it is compared with")
    parser.add_argument("--mask", default="none", metavar="FILE|sphere|none",
                        help="multiplies both maps: a map file on the grid of B, or a soft sphere of radius 0.42 of the box "
                        "(default: none)")
    parser.add_argument("--align", action="store_true", help="search rotation, shift and hand of A first")
    parser.add_argument("--apix", "--Apix", type=float, metavar="Å", help="pixel size of A (default: its header's)")
    parser.add_argument("--apix-b", type=float, metavar="Å", help="pixel size of B (default: --apix, else its header's)")
    parser.add_argument("-o", "--outdir", type=Path, metavar="DIR", help="write the curve, numbers and picture here")


def main(args: argparse.Namespace) -> None:
    """Run ``cryorecon eval_fsc``.

    Raises
    ------
    InputError: files that can't be read; maps that are constant or 0 under the mask; an output over the input.
    """
    import warnings

    import torch

    from cryorecon.data.files import refuse_input
    from cryorecon.data.mrc import read_volume, write_volume
    from cryorecon.metrics import alignment, fsc
    from cryorecon.metrics.resample import common_grid, match

    if args.outdir is not None and args.align:
        refuse_input(args.outdir / "aligned.mrc", (args.map_a, args.map_b, args.mask))
    (a, apix_a), (b, apix_b) = read_volume(args.map_a), read_volume(args.map_b)
    _require_contents(args, a, b)
    header_b = apix_b
    apix_a, apix_b, known = _pixel_sizes(args, apix_a, apix_b)
    density_a, density_b = torch.from_numpy(a), torch.from_numpy(b)
    box, apix = common_grid(len(a), apix_a, len(b), apix_b)
    mask, mask_name = _mask(args.mask, box, apix, len(b), header_b, apix_b)
    for path, array, size in ((args.map_a, a, apix_a), (args.map_b, b, apix_b)):
        print(f"{path}: {len(array)} px, " + (f"{size:.4g} Å/px" if known else "pixel size unknown"))
    found = None
    if args.align:
        found = alignment.align(density_a, density_b, apix_a, apix_b)
        density_a = alignment.apply(found, density_a, apix_a)
        print(_describe(found, known))
    left, right, _ = match(density_a, apix_a, density_b, apix_b)
    _require_overlap(args, left, right, mask)
    if torch.equal(left, right):
        warnings.warn(f"{args.map_b}: expected another map than {args.map_a}, found the same voxels: their FSC is 1 whatever "
                      "they show; give the two half maps", stacklevel=2)
    if (len(a), len(b)) != (box, box):
        print(f"compared at {box} px" + (f" of {apix:.4g} Å" if known else ""))
    curves = [fsc.fsc_curve(left, right, mask, mask_name), fsc.cryobench_curve(left, right, mask, mask_name)]
    found_at = [fsc.resolution(curve, level, apix) for curve in curves for level in THRESHOLDS]
    _print_results(curves, found_at, known)
    if args.outdir is not None:
        _write(args, curves, found_at, apix if known else 0.0, found)
        if found is not None:
            write_volume(args.outdir / "aligned.mrc", density_a.numpy(), apix_a if known else 0.0)
        print(f"wrote {args.outdir}/fsc.csv, fsc.json, fsc.png" + (", aligned.mrc" if found is not None else ""))


def _require_contents(args: argparse.Namespace, *arrays: "np.ndarray") -> None:
    """Raise where a map is one value throughout: its FSC with anything is 0 by 0."""
    from cryorecon.errors import InputError

    for path, array in zip((args.map_a, args.map_b), arrays, strict=True):
        if array.min() == array.max():
            raise InputError(f"{path}: expected a map, found {array.flat[0]:g} in every voxel; check what wrote it")


def _require_overlap(args: argparse.Namespace, left: "Tensor", right: "Tensor", mask: "Tensor | None") -> None:
    """Raise where the mask leaves nothing of a map."""
    from cryorecon.errors import InputError

    for path, density in ((args.map_a, left), (args.map_b, right)):
        if mask is not None and not bool((density * mask != 0).any()):
            raise InputError(f"{path}: expected a map that shows something where the mask {args.mask} does, found 0 in "
                             "every voxel of it; are both on one grid?")


def _pixel_sizes(args: argparse.Namespace, header_a: float, header_b: float) -> tuple[float, float, bool]:
    """Pixel sizes of both maps and whether they are known: options first, then headers, then the other map's."""
    import warnings

    from cryorecon.errors import InputError

    given_b = args.apix_b if args.apix_b is not None else args.apix
    for given in (args.apix, given_b):
        if given is not None and given <= 0:
            raise InputError(f"--apix: expected a pixel size above 0 Å, found {given}")
    apix_a = args.apix if args.apix is not None else header_a
    apix_b = given_b if given_b is not None else header_b
    for path, mine, other in ((args.map_a, apix_a, apix_b), (args.map_b, apix_b, apix_a)):
        if mine <= 0:
            taken = f"taking the other map's {other:.4g} Å" if other > 0 else "resolution is in pixels only"
            warnings.warn(f"{path}: its header gives no pixel size; {taken}; give --apix", stacklevel=2)
    known = max(apix_a, apix_b) > 0
    return (apix_a if apix_a > 0 else apix_b) or 1.0, (apix_b if apix_b > 0 else apix_a) or 1.0, known


def _mask(name: str, box: int, apix: float, box_b: int, header_b: float, apix_b: float) -> "tuple[Tensor | None, str]":
    """The mask on the common grid, and its name. A mask file on B's grid has B's pixel size, as --apix may have it."""
    from cryorecon.errors import InputError
    from cryorecon.imaging.masks import soft_sphere
    from cryorecon.metrics.resample import resample
    from cryorecon.training.build import mask_values

    if name == "none":
        return None, "none"
    if name == "sphere":
        return soft_sphere(box, 0.42 * box, 0.06 * box), "soft sphere (radius 0.42 box, edge 0.06 box)"
    values, own = mask_values(name)
    if not bool(values.max() > 0):
        raise InputError(f"{name}: expected a mask that leaves something, found no voxel above 0; give another --mask")
    same = values.shape[-1] == box_b and (own <= 0 or header_b <= 0 or abs(own / header_b - 1) < 1e-3)
    return resample(values, apix_b if same or own <= 0 else own, box, apix), name


def _describe(found: "Alignment", known: bool) -> str:
    import torch

    angle = torch.rad2deg(torch.acos(((torch.trace(found.rotation) - 1) / 2).clamp(-1, 1)))
    shift = ", ".join(f"{float(value):.2f}" for value in found.shift)
    hand = "mirrored in z" if found.hand < 0 else "same hand"
    unit = "Å" if known else "px"
    return f"aligned: turned {float(angle):.1f}°, moved ({shift}) {unit}, {hand}; correlation {found.correlation:.3f}"


def _print_results(curves: "list[FSCCurve]", found_at: "list[Resolution]", known: bool) -> None:
    from cryorecon.metrics.fsc import auc

    print(f"mask: {curves[0].mask}")
    print(f"{'shells':<12}{'FSC':>6}{'Å':>10}{'px':>9}")
    for found in found_at:
        bound = found.bound or " "
        angstrom = f"{found.angstrom:.2f}" if known else "?"
        print(f"{found.convention:<12}{found.threshold:>6g}{bound + angstrom:>10}{bound + f'{found.pixels:.2f}':>9}")
    print("first crossing; ≤: never crossed up to the last shell; ≥: below it from the first shell on, nothing resolved")
    for curve in curves:
        print(f"area under the curve, {curve.convention} shells: {auc(curve):.4f} (clipped to [0, 1]: "
              f"{auc(curve.clipped()):.4f}; of at most {float(curve.frequency[-1]):.4f})")


def _write(args: argparse.Namespace, curves: "list[FSCCurve]", found_at: "list[Resolution]", apix: float,
           found: "Alignment | None") -> None:
    import json
    from dataclasses import asdict

    from cryorecon.data.files import atomic_path
    from cryorecon.metrics.fsc import auc
    from cryorecon.report import plots
    from cryorecon.report.style import save

    rounded, bench = curves
    with atomic_path(args.outdir / "fsc.csv") as temporary:
        lines = ["frequency_per_px,resolution_angstrom,fsc,fsc_cryobench"]
        for i, (frequency, value) in enumerate(zip(rounded.frequency.tolist(), rounded.value.tolist(), strict=True)):
            angstrom = f"{apix / frequency:.4f}" if apix > 0 and frequency > 0 else ""
            other = f"{float(bench.value[i]):.6f}" if i < len(bench.value) else ""
            lines.append(f"{frequency:.6f},{angstrom},{value:.6f},{other}")
        temporary.write_text("\n".join(lines) + "\n")
    report: dict[str, object] = {
        "map_a": str(args.map_a), "map_b": str(args.map_b), "mask": rounded.mask, "apix": apix or None,
        "box": round(1 / float(rounded.frequency[1])),
        "resolution": [{**asdict(each), "angstrom": each.angstrom if apix > 0 else None} for each in found_at],
        "auc": {curve.convention: auc(curve) for curve in curves},
        "auc_clipped": {curve.convention: auc(curve.clipped()) for curve in curves},
    }  # fmt: skip
    if found is not None:
        report["alignment"] = {"rotation": found.rotation.tolist(), "shift_angstrom": found.shift.tolist(),
                               "hand": found.hand, "correlation": found.correlation}
    with atomic_path(args.outdir / "fsc.json") as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n")
    drawn = {f"{curve.convention} shells": (curve.frequency.numpy(), curve.value.numpy()) for curve in curves}
    crossings = [(each.threshold, each.frequency) for each in found_at[: len(THRESHOLDS)] if not each.bound]
    title = f"{args.map_a.name} and {args.map_b.name}, mask: {Path(rounded.mask).name}"
    save(plots.fsc(drawn, apix, crossings, title), args.outdir / "fsc.png")
