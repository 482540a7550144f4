"""Half-set conformational resolution: do two runs find the same landscape?

From each run maps are decoded at particles drawn from its latents, in two draws; distances are those of maps in a mask, so that
the latents' own coordinates do not matter. Prints the Wasserstein distance between the two landscapes beside that of two draws
of one run (the floor) and that of a run to its mean map (the ceiling), where between them it lies (0: as one, 1: no better than
no motion), and the resolution to which mean maps and motion agree. Where both runs saw the same particles, how well the latents
of one foretell those of the other. Train the two on halves of the particles by --ind (train_vae --halves trains two and
compares them so). Runs that searched their poses are first laid on each other. Writes halves.json, halves_fsc.csv and
halves.png.

    cryorecon eval_halves run_a run_b --mask mask.mrc -o halves
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cryorecon.cli import texts

if TYPE_CHECKING:
    from cryorecon.analysis.halves import HalvesAgreement, ParticleAgreement
    from cryorecon.training.trained import Trained


def add_args(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``eval_halves``."""
    parser.add_argument("run_a", type=Path, help=texts.RUN)
    parser.add_argument("run_b", type=Path, help="another, of the same box and pixel size")
    parser.add_argument("-o", "--outdir", type=Path, metavar="DIR", help="where to write (default: RUN_A/halves)")
    parser.add_argument("-k", "--maps", type=int, default=100, metavar="K",
                        help="maps in a draw, 2 or more; four are drawn (default: 100)")
    parser.add_argument("--box", type=int, metavar="PX",
                        help="box to which maps are Fourier-cropped, even (default: 48, or the runs' if that is smaller)")
    parser.add_argument("--mask", type=Path, metavar="MRC",
                        help="soft mask on the runs' box, in A's frame (default: a soft sphere)")
    parser.add_argument("--align", action=argparse.BooleanOptionalAction, help="lay B on A: rotation, shift and hand "
                        "(default: where a run searched its poses)")
    parser.add_argument("--epoch", type=int, metavar="N", help="which checkpoint of both (default: the last)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the draws (default: 0)")
    parser.add_argument("--device", default="auto", metavar="NAME", help=texts.DEVICE)


def main(args: argparse.Namespace) -> None:
    """Compare, print and write.

    Raises
    ------
    InputError: no such runs; runs of other boxes, or without conformations; a mask of another box.
    """
    from cryorecon.analysis import halves
    from cryorecon.errors import InputError
    from cryorecon.geometry.fourier import resample
    from cryorecon.imaging.masks import soft_sphere
    from cryorecon.report.conformation_plots import halves as drawn
    from cryorecon.report.style import save
    from cryorecon.training.trained import load_run

    a, b = (load_run(path, args.epoch, args.device) for path in (args.run_a, args.run_b))
    _check(args, a, b)
    box = args.box or min(48, a.grid.box)
    apix = a.apix * a.grid.box / box
    if box % 2 or not 8 <= box <= a.grid.box or args.maps < 2:
        raise InputError(f"expected --box even, from 8 to {a.grid.box}, and --maps 2 or more, found {box} and {args.maps}")
    mask = soft_sphere(box, 0.42 * box, 0.06 * box)
    if args.mask is not None:
        mask = resample(a.mask(args.mask), box, 3).clamp(0, 1)
    first = halves.draw(a.z, a.density, args.maps, box, args.seed)
    second = halves.draw(b.z, b.density, args.maps, box, args.seed + 1)
    aligned = any(run.searched for run in (a, b)) if args.align is None else args.align
    rows_a, rows_b = halves.rows_in_common(a, b)
    facts: dict[str, object] = {"run_a": str(args.run_a), "run_b": str(args.run_b), "epochs": [a.epoch, b.epoch], "box": box,
                                "apix": apix, "maps": args.maps, "mask": str(args.mask or "soft sphere"), "seed": args.seed,
                                "particles_in_common": len(rows_a)}
    if aligned:
        second, found = halves.laid_on(second, first, apix)
        facts["alignment"] = {"rotation": found.rotation.tolist(), "shift_angstrom": found.shift.tolist(), "hand": found.hand,
                              "correlation": found.correlation}
        print(f"B laid on A: correlation {found.correlation:.3f}, {'mirrored' if found.hand < 0 else 'same hand'}")
    agreement = halves.compare_landscapes(first, second, mask, apix)
    particles = halves.compare_particles(a.z[rows_a], b.z[rows_b], args.seed) if len(rows_a) >= 50 else None
    _report(agreement, particles, len(rows_a))
    folder = args.run_a / "halves" if args.outdir is None else args.outdir
    halves.write(folder, agreement, particles, facts)
    save(drawn(agreement), folder / "halves.png")
    print(f"wrote {folder}/halves.json, halves_fsc.csv, halves.png")


def _check(args: argparse.Namespace, a: "Trained", b: "Trained") -> None:
    from cryorecon.errors import InputError

    for path, run in ((args.run_a, a), (args.run_b, b)):
        if run.config.zdim == 0:
            raise InputError(f"{path}: expected a run of train_vae, found one of a single map, which has no conformations")
    if a.grid.box != b.grid.box or abs(a.apix / b.apix - 1) > 1e-3:
        raise InputError(f"{args.run_b}: expected the box and pixel size of {args.run_a}, {a.grid.box} px of {a.apix:.4g} Å, "
                         f"found {b.grid.box} px of {b.apix:.4g} Å; train both on images of one size")


def _report(found: "HalvesAgreement", particles: "ParticleAgreement | None", common: int) -> None:
    """Print what was found; ``common``: particles of both runs."""
    if common:
        print(f"cryorecon: warning: {common:,} particles are in both runs: these are no independent halves, and maps agree on "
              "what the noise of these images made of them, too", file=sys.stderr)
    print("Wasserstein distance of landscapes (root mean square density in the mask):")
    print(f"  A and B {found.between:.4g}; two draws of A {found.self_a:.4g}, of B {found.self_b:.4g}; A and no motion "
          f"{found.spread_a:.4g}, B and no motion {found.spread_b:.4g}")
    if found.ratio == found.ratio:
        print(f"ratio: {found.ratio:.3f} (0: as two draws of one run; 1: no better than no motion)")
    else:
        print("no ratio: nothing moves, or more than this number of maps can tell; give more --maps")
    for name, levels in found.resolutions().items():
        print(f"agreement of {name}: " + "; ".join(f"{each.bound}{each.angstrom:.2f} Å at FSC {level}" for level, each in
                                                  levels.items()))
    if particles is None:
        print("no particles of one file in common (or fewer than 50): latents are not compared")
        return
    print(f"{particles.particles:,} particles in common: variance foretold, cross-validated: of z in B by A "
          f"{particles.a_to_b:.3f}, of z in A by B {particles.b_to_a:.3f}; information imbalance "
          f"{particles.imbalance[0]:.3f}, {particles.imbalance[1]:.3f}")
