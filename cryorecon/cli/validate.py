"""Controls of a run: does it show what its images hold, or noise that was aligned?

Detail: the run's images with their fine detail replaced by noise are reconstructed in the same way; what half maps still share
there is overfitting. Noise: images of noise and the run's own choose their poses by one search of the other half's map; images
that hold the molecule fit it better. Poses: the run's fit better than those of other particles do. Of train_vae: what seems to
move in images of a molecule that does not.
Prints a verdict each. Exit code 0: all passed; 1: one is flagged; 3: none is, but particles are too few for one to be told.
Writes validate.json, fsc.csv, fits.csv, fsc.png, fits.png and a page.

    cryorecon validate out
    cryorecon validate out --most 2000 -o controls
"""

import argparse
import sys
from pathlib import Path

from cryorecon.cli import texts

FLAGGED, TOO_FEW = 1, 3  # exit codes


def add_args(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``validate``."""
    parser.add_argument("run", type=Path, help="output folder of train_nn or train_vae, or of one of their halves")
    parser.add_argument("-o", "--outdir", type=Path, metavar="DIR", help="where to write (default: RUN/validate)")
    parser.add_argument("--most", type=int, default=5000, metavar="N", help="particles that are used at most, drawn at random, "
                        "100 or more (default: 5000)")
    parser.add_argument("--epoch", type=int, metavar="N", help=texts.CHECKPOINT)
    parser.add_argument("--datadir", metavar="DIR", help=texts.DATADIR_NOW)
    parser.add_argument("--device", metavar="NAME", help=texts.DEVICE_OF_RUN)


def main(args: argparse.Namespace) -> int:
    """Run the controls, print and write.

    Raises
    ------
    InputError: no such run or epoch, a run of train_gan, particles that are not where they were; too few asked for.
    """
    import time

    from cryorecon.analysis.controls import Subject
    from cryorecon.analysis.validation import validate, write
    from cryorecon.data.files import below, exclusive, require_writable
    from cryorecon.errors import InputError
    from cryorecon.objectives.cores import one_core_a_task
    from cryorecon.report.validation_page import write_validation
    from cryorecon.training.evaluate import reopened
    from cryorecon.training.run_directory import RunDirectory

    if args.most < 100:
        raise InputError(f"--most: expected at least 100 particles, found {args.most}; fewer tell nothing")
    folder = below(args.run, "validate") if args.outdir is None else args.outdir
    require_writable(folder)
    directory, began = RunDirectory(args.run), time.monotonic()
    problem, state = reopened(directory, args.epoch, args.device, datadir=args.datadir)
    subject = Subject.of(directory.config(), problem, state, args.most)
    print(f"{subject.stack.n_particles:,} of {problem.stack.n_particles:,} particles", file=sys.stderr)
    with one_core_a_task(problem.grid):
        found = validate(subject, print)
    facts = {"run": str(args.run), "epoch": state.epoch, "seconds": round(time.monotonic() - began, 1)}
    with exclusive(folder, ["validate.json"]):
        page = write_validation(folder, found, facts)
        write(folder, found, facts)  # validate.json last: where it is, all is
    print(f"{found.verdict} Wrote {page}, validate.json, fsc.csv, fits.csv")
    return FLAGGED if found.flagged else 0 if found.passed else TOO_FEW
