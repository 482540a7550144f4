"""What the benchmarks share: child processes measured from outside, the machine, tables, JSON and the peer's
environment.

Imports the standard library alone. Linux lets a process inherit its parent's peak memory when it is started, so what
measures must be smaller than what is measured.
"""

import datetime as dt
import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
SHARED = Path(os.environ.get("CRYORECON_DATA", REPOSITORY.parent / "shared" / "data"))
PEER_VERSION = "4.3.1"
PEER_PACKAGES = ("torch==2.13.0", f"cryodrgn=={PEER_VERSION}")
OURS = [sys.executable, "-m", "cryorecon"]

Table = dict[str, Any]

sys.path.insert(1, str(REPOSITORY))  # the checkout's package, installed or not; environment() does so for children


@dataclass(frozen=True)
class Measured:
    """A finished process: command, when it began (ISO), wall and CPU seconds (its children's too), peak resident bytes,
    exit code (negative: the signal that ended it)."""

    command: list[str]
    started: str
    wall_seconds: float
    cpu_seconds: float
    peak_rss_bytes: int
    exit_code: int

    def table(self) -> Table:
        """As JSON takes it; names are those of the fields."""
        return asdict(self)


def environment(threads: int) -> dict[str, str]:
    """The environment with ``threads`` threads for every maths library, and this checkout's package
    first."""
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    count = str(threads)
    return os.environ | {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count,
                         "PYTHONPATH": os.pathsep.join(paths)}


def measure(command: Sequence[str], log: Path, threads: int = 1) -> Measured:
    """Run ``command`` to its end, its output to ``log``; its own and its children's CPU time, and its peak memory."""
    began, started = time.monotonic(), now()
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment(threads))
        with stopped(process):
            _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return Measured(list(command), started, time.monotonic() - began, used.ru_utime + used.ru_stime,
                    used.ru_maxrss * 1024, process.returncode)


@contextmanager
def stopped(process: subprocess.Popen) -> Iterator[None]:
    """Whatever interrupts the block ends the process too."""
    try:
        yield
    except BaseException:
        process.terminate()
        process.wait()
        raise


def read_gnu_time(path: Path) -> Measured | None:
    """What ``/usr/bin/time -v -o path`` wrote of a process that ended well; None where there is no such thing."""
    if not path.is_file():
        return None
    text = path.read_text()

    def value(name: str) -> str:
        found = re.search(rf"^\s*{re.escape(name)}: (.*)$", text, re.MULTILINE)
        return found[1] if found else ""

    if value("Exit status") != "0":
        return None
    wall = 0.0
    for part in value("Elapsed (wall clock) time (h:mm:ss or m:ss)").split(":"):
        wall = 60 * wall + float(part)
    began = dt.datetime.fromtimestamp(path.stat().st_mtime - wall, dt.UTC)
    return Measured(value("Command being timed").strip('"').split(), began.isoformat(timespec="seconds"), wall,
                    float(value("User time (seconds)")) + float(value("System time (seconds)")),
                    1024 * int(value("Maximum resident set size (kbytes)")), 0)


def cpu_of(pid: int) -> float:
    """CPU seconds that a running process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def now() -> str:
    """The time, ISO with its zone."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def sha256(paths: Sequence[Path]) -> str:
    """Digest of the files' contents, in this order."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    return digest.hexdigest()


def code_version() -> str:
    """The package's version and, in a checkout, its commit (``-dirty``: with changes)."""
    version = re.search(r'__version__ = "(.*)"', (REPOSITORY / "cryorecon" / "__init__.py").read_text())
    git = subprocess.run(["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"], capture_output=True,
                         text=True, check=False)
    return " ".join([version[1] if version else "unknown", git.stdout.strip()]).strip()


def machine(threads: int, python: str = sys.executable) -> Table:
    """The machine as ``machine.py`` describes it, in a process of its own: measured matrix products included."""
    done = subprocess.run([python, str(HERE / "machine.py"), "--threads", str(threads)], capture_output=True, text=True,
                          check=True, env=environment(threads))
    return json.loads(done.stdout)


def portable(value: Any) -> Any:
    """The same without the folders of absolute paths in its strings: where a machine keeps its files is no result."""
    if isinstance(value, dict):
        return {key: portable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [portable(item) for item in value]
    return re.sub(r"(?<![\w.])/(?:[^\s/]+/)+", "", value) if isinstance(value, str) else value


def write_json(path: Path, table: Table) -> None:
    """Write atomically: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n")
    temporary.replace(path)


def write_results(path: Path, results: Table) -> None:
    """Write what is to be shown, without the machine's folders (:func:`portable`)."""
    write_json(path, portable(results))


def read_json(path: Path) -> Table | None:
    """The table of a file; None where there is no file."""
    return json.loads(path.read_text()) if path.is_file() else None


def markdown(rows: Sequence[Sequence[Any]], head: Sequence[str]) -> str:
    """A table for Markdown that reads well in a terminal too; numbers to the right. None and NaN are left empty."""
    cells = [list(head), *[[_cell(value) for value in row] for row in rows]]
    width = [max(len(row[i]) for row in cells) for i in range(len(head))]
    right = [all(isinstance(row[i], int | float | None) for row in rows) for i in range(len(head))]
    lines = ["| " + " | ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, width, right, strict=True)) + " |"
             for row in cells]
    rule = "|" + "|".join("-" * (w + 1) + (":" if r else "-") for w, r in zip(width, right, strict=True)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _cell(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 1 else f"{value:.3f}"
    return str(value)


def fail(message: str) -> NoReturn:
    """End with one line on stderr and exit code 2."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one benchmark at a time works in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fail(f"{folder}: expected a folder that no other benchmark works in, found one at work; wait for it")
        yield


def peer_environment(folder: Path, given: str | None) -> Path:
    """The folder ``bin`` of the peer's Python: that of ``given`` (an environment or its python), else one that is made
    in ``folder`` from the package registry. Ends the program where the peer is another version."""
    if given is not None:
        path = Path(given).absolute()
        binaries = path.parent if path.is_file() else path / "bin"
    else:
        binaries = folder.absolute() / "peer_env" / "bin"
        if not (binaries / "cryodrgn").is_file():
            print(f"Setting up {' and '.join(PEER_PACKAGES)} in {binaries.parent}; it takes some minutes.", flush=True)
            subprocess.run([sys.executable, "-m", "venv", str(binaries.parent)], check=True)
            subprocess.run([str(binaries / "python"), "-m", "pip", "install", "--quiet", "--progress-bar", "off",
                            *PEER_PACKAGES], check=True)
    if not (binaries / "cryodrgn").is_file():
        fail(f"{given}: expected an environment with cryodrgn {PEER_VERSION}, found no {binaries / 'cryodrgn'}")
    asked = "from importlib.metadata import version; print(version('cryodrgn'))"
    found = subprocess.run([str(binaries / "python"), "-c", asked], capture_output=True, text=True, check=True)
    if found.stdout.strip() != PEER_VERSION:
        fail(f"{given}: expected cryodrgn {PEER_VERSION}, found {found.stdout.strip()}")
    return binaries
