"""The report of a run with maps decoded on demand: click any particle and see its own map.

Serves RUN/analyze.N/report.html, which `cryorecon analyze` made, on this machine alone (127.0.0.1) until Ctrl-C. The address
holds a token; nobody without it gets an answer, and nothing outside the report's folder can be read. From another machine:
ssh -L 8000:127.0.0.1:8000 HOST, then `cryorecon serve RUN --port 8000` there.

    cryorecon serve out 25
"""

import argparse
from pathlib import Path

from cryorecon.cli import texts


def add_args(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``cryorecon serve``."""
    parser.add_argument("run", type=Path, help=texts.RUN)
    parser.add_argument("epoch", type=int, nargs="?", help=texts.CHECKPOINT)
    parser.add_argument("--analysis", type=Path, metavar="DIR", help="folder that analyze wrote (default: RUN/analyze.EPOCH)")
    parser.add_argument("--datadir", metavar="DIR", help=texts.DATADIR_NOW)
    parser.add_argument("--port", type=int, default=0, metavar="PORT",
                        help="port of this machine, up to 65535 (default: any that is free)")
    parser.add_argument("--device", default="auto", metavar="NAME", help=texts.DEVICE)


def main(args: argparse.Namespace) -> None:
    """Serve until interrupted.

    Raises
    ------
    InputError: no such run, none of its reports, a port that is taken.
    """
    import warnings
    from dataclasses import replace

    import numpy as np
    from torch import Tensor

    from cryorecon.analysis.selection import analysed, require_own
    from cryorecon.errors import InputError
    from cryorecon.report.server import ReportServer
    from cryorecon.report.thumbnails import images_of
    from cryorecon.training.build import load_stack
    from cryorecon.training.provenance import altered
    from cryorecon.training.trained import load_run

    if not 0 <= args.port < 65536:
        raise InputError(f"--port: expected a number from 0 to 65535, found {args.port}")
    run = load_run(args.run, args.epoch, args.device)
    if run.z.shape[1] == 0:
        raise InputError(f"{args.run}: expected a run with latents, found one structure; eval_vol writes its map")
    try:
        stack = load_stack(run.config if args.datadir is None else replace(run.config, datadir=args.datadir))
    except InputError as error:  # maps need no images
        stack = None
        warnings.warn(f"particle images are not shown: {error}", stacklevel=1)
    if stack is not None and (told := altered(run.directory)) is not None:
        warnings.warn(f"{told}, and the images shown are not those of the run", stacklevel=1)

    def decode(z: np.ndarray) -> Tensor:
        return run.density(z[None])[0]

    folder = args.analysis if args.analysis is not None else args.run / f"analyze.{run.epoch}"
    require_own(folder, run.z)
    rows = analysed(folder, len(run.z))
    stack = None if stack is None else stack.of_particles(rows)
    images = None if stack is None else lambda particle: images_of(stack, particle)
    server = ReportServer(folder, decode, run.z.shape[1], images, len(rows), args.port)
    print(f"{server.address}\nOpen it in a browser on this machine; Ctrl-C ends it.", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()
