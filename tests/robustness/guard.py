"""One reader on one file, watched: does it answer, in time, within its memory, in one line, and do nothing else?

Verdicts: ``read`` (the mutation did no harm) and ``refused`` (one line that says what was expected and found) are good; the
others are failures: ``traceback``, ``hang``, ``memory``, ``escape`` (code that a file brought along, or a file written
outside the case's folder), ``line`` (a message that is no line, names no file, or does not say what was expected and found).
"""

import collections
import dataclasses
import os
import re
import signal
import sys
import threading
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryorecon.cli.main import failure
from cryorecon.errors import InputError

ALLOWANCE = 128 << 20  # bytes that any reader may take, whatever the file
FACTOR = 4  # times the size of the files, above it
SECONDS = 10.0  # of the processor's time
WAITING = 6  # times as long by the clock, for what waits and computes nothing
GOOD = ("read", "refused")
BAD = ("traceback", "hang", "memory", "escape", "line")

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
RUNS_CODE = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.forkpty",
    "subprocess.Popen",
    "pty.spawn",
    "pickle.find_class",  # a real unpickler at work: ours looks no name up
    "socket.connect",
    "socket.bind",
    "urllib.Request",
    "ctypes.dlopen",
    "shutil.unpack_archive",
    "webbrowser.open",
)
CHANGES = {
    "os.remove": (0,),
    "os.rmdir": (0,),
    "os.mkdir": (0,),
    "os.rename": (0, 1),
    "os.link": (0, 1),
    "os.symlink": (1,),
    "os.chmod": (0,),
    "os.chown": (0,),
    "os.truncate": (0,),
    "os.utime": (0,),
    "shutil.rmtree": (0,),
}
ITSELF = ("os.remove", "os.rmdir", "os.mkdir", "os.rename", "os.link", "os.symlink")  # do not follow a link at the end
MAKERS = (collections.__file__, dataclasses.__file__)  # of classes, by exec; they take no words of files


class Hang(BaseException):
    """The time is up; no reader's ``except Exception`` may swallow it."""


@dataclass(frozen=True)
class Outcome:
    """verdict: see above. said: the line, or what went wrong. peak: bytes taken at most, above what was there before."""

    verdict: str
    said: str
    peak: int = 0


class _Watch:
    """What the audit hook knows: hooks can't be removed, so there is one and it sleeps between cases."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.seen: list[str] = []
        self.trusted = tuple({os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, *sys.path) if path})

    def __call__(self, event: str, arguments: tuple) -> None:
        if self.folder is None:
            return
        if event == "open":
            path, mode, flags = arguments
            if (isinstance(mode, str) and set(mode) & set("wax+")) or (flags or 0) & WRITING:
                self._outside(event, path)
        elif event in CHANGES:
            for index in CHANGES[event]:
                self._outside(event, arguments[index], follow=event not in ITSELF)
        elif event in RUNS_CODE:
            self.seen.append(f"{event} {arguments!r:.200}")
        elif event == "exec":
            origin = getattr(arguments[0], "co_filename", "")
            if sys._getframe(1).f_code.co_filename in MAKERS:  # a module that is imported late makes its classes
                return
            if not (os.path.isfile(origin) and os.path.realpath(origin).startswith(self.trusted)):
                self.seen.append(f"exec of {origin!r}")

    def _outside(self, event: str, path: object, follow: bool = True) -> None:
        if isinstance(path, str | bytes | os.PathLike):
            name = os.path.abspath(os.fsdecode(path))
            place = (
                os.path.realpath(name)
                if follow
                else os.path.join(os.path.realpath(os.path.dirname(name)), os.path.basename(name))
            )
            if place != os.devnull and not f"{place}/".startswith(f"{self.folder}/"):
                self.seen.append(f"{event} {place!r}, outside")


_watch = _Watch()
_hooked = threading.Event()


@contextmanager
def _sandbox(folder: Path) -> Iterator[list[str]]:
    """What is done within that no reader may do; ``folder``: where it may write."""
    if not _hooked.is_set():
        sys.addaudithook(_watch)
        _hooked.set()
    _watch.seen, _watch.folder = [], os.path.realpath(folder)
    try:
        yield _watch.seen
    finally:
        _watch.folder = None


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def up(*_: object) -> None:
        raise Hang

    clocks = ((signal.ITIMER_PROF, signal.SIGPROF, seconds), (signal.ITIMER_REAL, signal.SIGALRM, WAITING * seconds))
    before = [signal.signal(number, up) for _, number, _ in clocks]
    for clock, _, limit in clocks:
        signal.setitimer(clock, limit, 0.5)  # again, should something swallow it
    try:
        yield
    finally:
        for (clock, number, _), handler in zip(clocks, before, strict=True):
            signal.setitimer(clock, 0)
            signal.signal(number, handler)


class _Memory:
    """Bytes taken at most since the start: by Python and numpy (tracemalloc, touched or not), and by all (pages of RAM)."""

    def __init__(self) -> None:
        if not tracemalloc.is_tracing():
            tracemalloc.start(1)
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
        tracemalloc.reset_peak()
        self.traced, self.resident = tracemalloc.get_traced_memory()[0], _resident("VmRSS")

    def peak(self) -> int:
        return max(tracemalloc.get_traced_memory()[1] - self.traced, _resident("VmHWM") - self.resident)


def _resident(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) << 10
    return 0


def watch(read: Callable[[], object], folder: Path, size: int, seconds: float = SECONDS) -> Outcome:
    """Call ``read``, which may write in ``folder`` alone; ``size``: bytes of the files that it is to read."""
    memory = _Memory()
    failed: BaseException | None = None
    with _sandbox(folder) as escapes, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with _time_limit(seconds):
                read()
        except Hang as error:
            failed = error
        except BaseException as error:  # noqa: BLE001 (what it was is the question)
            failed = error
    peak = memory.peak()
    limit = ALLOWANCE + FACTOR * size
    if escapes:
        return Outcome("escape", "; ".join(escapes[:3]), peak)
    if isinstance(failed, Hang):
        return Outcome("hang", f"more than {seconds:g} s", peak)
    if peak > limit:
        return Outcome("memory", f"{peak / 1e6:.0f} MB for files of {size / 1e6:.3f} MB", peak)
    if failed is None:
        return Outcome("read", "", peak)
    try:
        if isinstance(failed, InputError | OSError):
            line = failure(failed)
            return Outcome(_judged(line, folder), line, peak)
    except OSError:  # one that names no file: a defect, as the command line sees it
        pass
    return Outcome("traceback", f"{type(failed).__name__}: {failed!s:.300}", peak)


def _judged(line: str, folder: Path) -> str:
    """``refused`` for one printable line that names a file of the case and says what was expected and found."""
    good = line.isprintable() and len(line) <= 2100 and "expected" in line and "found" in line
    good = good and (folder.name in line or re.match(r"/\S*: expected", line) is not None)  # or a file that the case named
    return "refused" if good else "line"
