"""The command ``cryorecon``: finds the subcommand, imports its module alone and turns failures into one line.

A subcommand is a module ``cryorecon/cli/<name>.py`` with a docstring (its help), ``add_args(parser)`` and
``main(args)``. It imports PyTorch and the like inside ``main``, so that help costs nothing.
"""

import argparse
import errno
import importlib
import io
import os
import re
import shutil
import signal
import sys
import textwrap
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from types import ModuleType
from typing import Any, NoReturn, TextIO

from cryorecon import __version__
from cryorecon.cli.memory import keep_freed_blocks
from cryorecon.data.files import FULL
from cryorecon.errors import InputError, Stopped, one_line
from cryorecon.launch import follows, launched

GROUPS: dict[str, dict[str, str]] = {
    "Prepare": {
        "inspect": "say what a file is and what looks wrong with it",
        "preprocess": "prepare images once: crop, normalise, make protein white",
        "simulate": "particle images of a molecule that moves, with their truth",
    },
    "Reconstruct": {
        "backproject": "one map and its half maps from images with known poses",
        "train_nn": "one map by a network; poses known or found",
        "train_gan": "a map without poses, by a generator and a critic (CryoGAN)",
        "train_vae": "conformations: a latent of each particle, maps of latents",
    },
    "Look": {
        "analyze": "clusters, states, free energies and paths, in a report",
        "serve": "the report with a map decoded at any particle you click",
        "select": "particles by cluster, latent or fit, for the next program",
        "eval_vol": "maps at given latent coordinates",
        "graph_traversal": "a path through particles, shortest or where most are",
        "direct_traversal": "a path straight from particle to particle",
        "pc_traversal": "paths along the principal components of the latents",
        "analyze_landscape": "many maps compared: components, states and free energy",
    },
    "Judge": {
        "eval_fsc": "Fourier shell correlation of two maps, with resolution",
        "eval_images": "how well each image fits its own prediction",
        "eval_poses": "rotation and shift errors of poses against reference ones",
        "eval_conformation": "a run's conformations against the truth of a simulation",
        "eval_halves": "whether two runs, on half the data each, find one landscape",
        "validate": "controls of a run: overfitting, and noise taken for signal",
        "rerun": "repeat a run and say whether it comes out the same",
    },
    "Convert": {
        "parse_pose_star": "poses from a RELION star file",
        "parse_ctf_star": "CTF parameters from a RELION star file",
        "parse_pose_csparc": "poses from a cryoSPARC cs file",
        "parse_ctf_csparc": "CTF parameters from a cryoSPARC cs file",
        "downsample": "Fourier-crop a stack or a map to a smaller box",
        "write_star": "a RELION star file from images, poses and CTF",
        "filter": "keep chosen particles of a star, cs, pickle or stack",
    },
}
SHARED = ("train_nn", "train_gan", "train_vae")  # what several processes may do together
COMMANDS: tuple[str, ...] = tuple(name for group in GROUPS.values() for name in group)

WIDEST = 100  # columns of a help text: longer lines are hard to read
USER_ERROR, INTERRUPTED, READER_GONE, TERMINATED = 2, 130, 141, 143  # the shell's 128 + SIGINT, SIGPIPE, SIGTERM
BROKEN = (errno.EIO, errno.ENXIO, errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO)  # the disk's doing, or the network's


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like every other error of the command, and to which -1e-3 is a number."""

    def __init__(self, *args: Any, **keywords: Any):
        super().__init__(*args, **keywords)
        self._negative_number_matcher = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")  # argparse's knows no exponent

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see `{self.prog} --help`")

    def format_help(self) -> str:
        """The help; its first line names what the command can't do without, since the lists below it name the rest."""
        needed = []
        for action in self._actions:
            if not action.option_strings:
                needed.append(f"[{action.dest}]" if action.nargs == "?" else action.dest)
            elif action.required:
                needed.append(f"{action.option_strings[0]} {action.metavar}")
        self.usage = " ".join(["%(prog)s", *needed, "[options]"])
        return super().format_help()


class _Help(argparse.HelpFormatter):
    """Paragraphs as wide as the terminal, up to 100 columns; lines that are indented, the examples, stay as they are."""

    def __init__(self, prog: str, **keywords: Any):
        super().__init__(prog, **keywords | {"width": min(shutil.get_terminal_size().columns, WIDEST) - 2})

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = re.split(r"\n(?=\n| )|(?<=\n)\n", text.strip())
        return "\n".join(part if part.startswith(" ") else "\n".join(self._split_lines(part, width)) for part in parts)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)  # an option's name stays whole


def overview() -> str:
    """What ``cryorecon --help`` prints."""
    about = "From noisy particle images to the shapes of a molecule and how it moves."
    lines = ["usage: cryorecon COMMAND [options]", "", about]
    for group, commands in GROUPS.items():
        lines += ["", f"{group}:", *(f"  {name:<18} {text}" for name, text in commands.items())]
    return "\n".join([*lines, "", "`cryorecon COMMAND --help` tells more; `cryorecon --version` says which this is.",
                      "Exit code: 0 done, 2 bad input, 130 Ctrl-C; `validate` and `rerun` have more."])


def command(name: str) -> ModuleType:
    """The module of subcommand ``name``.

    Raises
    ------
    InputError: there is no such command; the nearest one is named.
    """
    if name not in COMMANDS:
        from difflib import get_close_matches

        near = get_close_matches(name.lower().replace("-", "_"), COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else "`cryorecon --help` lists them"
        raise InputError(f"expected a command, found {name!r}; {hint}")
    return importlib.import_module(f"cryorecon.cli.{name}")


def parser_of(name: str) -> argparse.ArgumentParser:
    """What parses the arguments of subcommand ``name``; :class:`InputError` as :func:`command`."""
    module = command(name)
    parser = _Parser(prog=f"cryorecon {name}", description=module.__doc__, allow_abbrev=False, formatter_class=_Help)
    module.add_args(parser)
    return parser


def run(argv: Sequence[str]) -> int:
    """Do what ``argv`` says and return the exit code, above 0 where a command that judges found against; failures are raised.

    Raises
    ------
    InputError: no such command, or arguments that it doesn't take.
    """
    if argv[0] in ("-h", "--help"):
        print(overview())
    elif argv[0] == "--version":
        print(f"cryorecon {__version__}")
    else:
        module = command(argv[0])
        if launched() > 1 and argv[0] not in SHARED:
            raise InputError(f"{argv[0]}: expected one process, found {launched()} (WORLD_SIZE); torchrun is for "
                             f"{', '.join(SHARED)}")
        parser = parser_of(argv[0])
        if "" in argv:  # a path that is none is the working folder to pathlib
            raise InputError(f"{argv[0]}: expected a word for each argument, found an empty one; is a variable of the shell "
                             "not set?")
        args = parser.parse_args(argv[1:])
        keep_freed_blocks()
        return module.main(args) or 0
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's own) and return its exit code.

    0: done, or a training that SIGTERM stopped where it can go on. 1: ``rerun`` found other bits, or ``validate`` an offender.
    2: bad input, told in one line on stderr. 3: particles too few for ``validate``. 130: interrupted. 141: nobody reads what it
    prints. 143: SIGTERM. Anything else that goes wrong is a defect of cryorecon and shows its traceback.
    """
    argv = sys.argv[1:] if argv is None else argv
    _prepare_streams()
    if not argv:
        _tell(overview())
        return USER_ERROR
    try:
        with _one_line_warnings(), _one_speaker(), _sigterm():
            code = run(argv)
        sys.stdout.flush()
    except InputError as error:
        return _complain(failure(error))
    except Stopped as stopped:
        if not follows():
            _tell(f"cryorecon: {one_line(str(stopped))}")
        return 0
    except KeyboardInterrupt as error:  # a command that knows how to go on says so in the exception
        told, code = ("terminated", TERMINATED) if isinstance(error, Terminated) else ("interrupted", INTERRUPTED)
        _tell("\n" + ": ".join([f"cryorecon: {told}", *map(str, error.args)]))
        return code
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # PyTorch's, which is not imported here
            raise
        return _complain("expected GPU memory for this step, found too little left; end what else runs there, give a smaller "
                         "-b, or make the box smaller (cryorecon preprocess -D); what is saved goes on by --resume")
    except BrokenPipeError:
        _abandon(sys.stdout)
        return READER_GONE
    except OSError as error:
        return _complain(failure(error))
    return code


def _complain(line: str) -> int:
    _tell(f"cryorecon: error: {line}")
    return USER_ERROR


def _tell(line: str) -> None:
    """Print ``line`` to stderr; where nobody hears it the exit code speaks alone."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        _abandon(sys.stderr)


def _abandon(stream: TextIO) -> None:
    """Let what ``stream`` still holds go nowhere: Python would fail over it as it ends, and change the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _prepare_streams() -> None:
    """Open to nowhere what whoever started us has closed (``>&-``): the next file would get its number, and be printed into.
    What stdout's encoding lacks it prints as escapes, as stderr does: an Å must not end a run."""
    for name in ("stdin", "stdout", "stderr"):  # in the order of their numbers, which the system hands out ascending
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "r" if name == "stdin" else "w"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def failure(error: InputError | OSError) -> str:
    """The one line that a failure is told in; raises ``error`` again where it is none of the user's doing."""
    return one_line(_system_message(error) if isinstance(error, OSError) else str(error))


def _system_message(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename is not None else ""
    # numpy's tofile counts what it could not write and forgets why
    if error.errno in FULL or (error.errno is None and "requested and" in str(error)):
        found = f": {error.strerror}" if error.errno == errno.EFBIG else " no space left on the device"
        return f"{where}expected room to write, found{found}; free some and run the command again"
    if error.errno in BROKEN:
        return f"{where}expected to read and write, found: {error.strerror}; check the disk and run the command again"
    if error.filename is None:
        raise error
    return f"{where}expected a file that can be opened, found: {error.strerror}; check the path and its permissions"


@contextmanager
def _one_speaker() -> Iterator[None]:
    """Of several processes only the first prints what comes out and warns; errors are everyone's."""
    if not follows():
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _sigterm() -> Iterator[None]:
    """Within, SIGTERM raises :class:`Terminated`, so that what is half made is removed as after Ctrl-C."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def terminate(*_: object) -> NoReturn:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def _one_line_warnings() -> Iterator[None]:
    """Within, a warning prints as ``cryorecon: warning: ...`` without the source line that raised it."""
    before = warnings.formatwarning

    def formatted(message: Warning | str, *_: object, **__: object) -> str:
        return f"cryorecon: warning: {one_line(str(message))}\n"

    warnings.formatwarning = formatted
    try:
        yield
    finally:
        warnings.formatwarning = before


if __name__ == "__main__":
    sys.exit(main())
