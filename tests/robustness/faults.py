"""Faults of the machine: kills, full disks, broken reads, two runs at once, schedulers. What is promised stands in
docs/robustness.md; ``python tests/robustness/faults.py`` tries it and writes benchmarks/results/robustness_faults.json.

Commands run in forked children, so that PyTorch is imported once and a kill is a real one. After a fault the same command (with
``--resume`` where there is a run) must come to the very files of an undisturbed run: the same names, the same bits.
"""

import argparse
import errno
import hashlib
import importlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from cryorecon.cli.main import main
from cryorecon.data import files, preprocess, source
from cryorecon.data.mrc import read_header
from cryorecon.simulation.experiment import Experiment, ctf_table
from cryorecon.simulation.motion import flexible
from cryorecon.simulation.write import write_simulation

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "robustness_faults.json"
LONGEST = 300.0  # seconds that a command may take here
WITHIN = 30.0  # seconds in which a run has stopped for a scheduler
TIMES = ("cpu_seconds", "images_per_s")  # of metrics.jsonl: no two runs have the same
TINY = ["--dec-dim", "16", "--dec-layers", "1", "--device", "cpu"]
ENDS = {".png": b"IEND\xaeB`\x82", ".html": b"</html>", ".star": b"", ".yaml": b"", ".csv": b"", ".txt": b"", ".cxc": b""}
Patch = Callable[[], None]


def nothing() -> None:
    """No patch."""


@dataclass(frozen=True)
class Ended:
    """How a child ended: exit code (negative: a signal), what it said, seconds."""

    code: int
    said: str
    seconds: float

    @property
    def traceback(self) -> bool:
        """Whether it died of a defect."""
        return "Traceback" in self.said


class Child:
    """``action`` in a forked process, which ends with the code that it returns; what it says goes to ``log``."""

    def __init__(self, action: Callable[[], int], log: Path):
        self.log, self.began = log, time.monotonic()
        log.touch()  # it may be killed before it says a word
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads and forks: ours are asleep
            self.pid = os.fork()
        if not self.pid:
            self._live(action)

    def _live(self, action: Callable[[], int]) -> None:
        code = 1
        try:
            out = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            os.dup2(out, 1)
            os.dup2(out, 2)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            torch.set_num_threads(1)
            tqdm.set_lock(threading.RLock())  # its own is shared with all children: one that is killed would keep it
            warnings.resetwarnings()
            code = action()
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def wait(self, seconds: float = LONGEST) -> Ended:
        """How it ends; it is killed after so many ``seconds``."""
        until = time.monotonic() + seconds
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                said = self.log.read_text(errors="replace")
                self.log.unlink()
                return Ended(os.waitstatus_to_exitcode(status), said, time.monotonic() - self.began)
            if time.monotonic() > until:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.005)

    def lives(self, seconds: float) -> bool:
        """Whether it still runs after so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return False
            time.sleep(0.003)
        return True


@dataclass(frozen=True)
class Case:
    """A command: ``argv`` without its output, whether it trains, and what its child must patch to have many places to die."""

    name: str
    argv: list[str]
    trains: bool = True
    patch: Patch = nothing

    def command(self, out: Path) -> list[str]:
        """What is typed now: the same, with --resume where a run has begun."""
        resume = ["--resume"] if self.trains and (out / "config.yaml").exists() else []
        return [*self.argv, "-o", str(out), *resume]

    def run(self, out: Path, patch: Patch = nothing) -> Ended:
        """To its end."""
        return self.start(out, patch).wait()

    def start(self, out: Path, patch: Patch = nothing) -> Child:
        """In a child."""
        argv = self.command(out)

        def action() -> int:
            sys.argv = ["cryorecon", *argv]
            self.patch()
            patch()
            return main(argv)

        return Child(action, Path(tempfile.gettempdir()) / f"fault-{os.getpid()}-{time.monotonic_ns()}.log")


@dataclass
class Count:
    """What was tried by (kind, case): faults, and of them tracebacks, lost (other results, half files), litter."""

    tried: Counter = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)

    def add(self, kind: str, case: str, *complaints: str) -> None:
        """One fault more."""
        self.tried[kind, case] += 1
        self.bad += [f"{kind}, {case}: {complaint}" for complaint in complaints]
        for complaint in complaints:
            print(f"BAD {kind}, {case}: {complaint}", file=sys.stderr)


# --- what is on the disk -------------------------------------------------------------------------------------------------


def contents(path: Path) -> str:
    """A digest of what a file says, without the times in it."""
    digest = hashlib.sha256()
    if path.suffix == ".pt":
        _digest(torch.load(path, weights_only=True), digest)
    elif path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as held:
            for name in sorted(held):
                digest.update(name.encode() + held[name].tobytes())
    elif path.name == "metrics.jsonl":
        for line in path.read_text().splitlines():
            record = json.loads(line)
            digest.update(repr({name: value for name, value in record.items() if name not in TIMES}).encode())
    else:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _digest(value: object, digest: "hashlib._Hash") -> None:
    if isinstance(value, torch.Tensor):
        digest.update(str(value.dtype).encode() + value.contiguous().numpy().tobytes())
    elif isinstance(value, dict):
        for name, one in value.items():
            digest.update(repr(name).encode())
            _digest(one, digest)
    elif isinstance(value, list | tuple):
        for one in value:
            _digest(one, digest)
    else:
        digest.update(repr(value).encode())


def results(folder: Path) -> dict[str, str]:
    """Name and digest of every file below a folder; of what names places or times (logs, configurations, pages), the name
    alone."""
    named = {"run.log", "config.yaml", "provenance.json", "report.html", "summary.json"}
    return {str(path.relative_to(folder)): "" if path.name in named else contents(path)
            for path in sorted(folder.rglob("*")) if path.is_file()}


def differing(found: dict[str, str], wanted: dict[str, str]) -> list[str]:
    """Complaints where two results differ."""
    wrong = [f"lost {name}" for name in sorted(wanted.keys() - found.keys())]
    wrong += [f"litter {name}" for name in sorted(found.keys() - wanted.keys())]
    return wrong + [f"other contents of {name}" for name in sorted(wanted.keys() & found.keys()) if wanted[name] != found[name]]


def half_files(folder: Path) -> list[str]:
    """Complaints about files that bear their name and can't be read: half written ones."""
    wrong = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name.startswith(".") or path.suffix == ".part" or path.name == "run.log":
            continue
        try:
            _read(path)
        except Exception as error:  # noqa: BLE001
            wrong.append(f"half {path.name}: {error}")
    return wrong


def _read(path: Path) -> None:
    data = path.read_bytes()
    if path.suffix in (".mrc", ".mrcs"):
        read_header(path)
    elif path.suffix == ".pt":
        torch.load(path, weights_only=True)
    elif path.suffix == ".npy":
        np.load(path, allow_pickle=False)
    elif path.suffix == ".json":
        json.loads(data)
    elif path.suffix in ENDS:
        if not data.rstrip(b"\n").endswith(ENDS[path.suffix]) or not data.strip():
            raise ValueError("no end")
    elif path.name == "metrics.jsonl":
        for line in data.decode().splitlines()[:-1]:  # the last may be torn
            json.loads(line)


# --- faults --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Whole:
    """What an undisturbed run gives: the results, how long it took, and bytes on the disk."""

    results: dict[str, str]
    seconds: float
    size: int


_known: dict[tuple[str, ...], Whole] = {}


def undisturbed(case: Case, work: Path) -> Whole:
    """An undisturbed run of a case, the first time that it is asked for."""
    work.mkdir(parents=True, exist_ok=True)
    key = (case.name, *case.argv)
    if key not in _known:
        out = work / "whole" / "out"
        out.parent.mkdir()
        ended = case.run(out)
        if ended.code:
            raise RuntimeError(f"{case.name}: an undisturbed run failed: {ended.said}")
        _known[key] = Whole(results(out), ended.seconds, sum(path.stat().st_size + 4096 for path in out.rglob("*")))
        shutil.rmtree(out.parent)
    return _known[key]


def finish(case: Case, out: Path, wanted: dict[str, str]) -> list[str]:
    """Run to the end; complaints where that fails or gives something else."""
    ended = case.run(out)
    if ended.code:
        return [f"went on with code {ended.code}: {ended.said[-1500:]}"]
    return differing(results(out), wanted)


def kills(case: Case, work: Path, number: int, count: Count, seed: int = 0) -> None:
    """``kill -9`` so many times at random moments, one to three before the command may run to its end."""
    whole = undisturbed(case, work)
    wanted, lasts = whole.results, whole.seconds
    chance = random.Random(f"{seed} {case.name}")
    done = attempt = 0
    while done < number:
        attempt += 1
        out = work / f"killed{attempt}" / "out"
        out.parent.mkdir()
        complaints: list[str] = []
        for _ in range(chance.choice((1, 1, 2, 3))):
            child = case.start(out)
            alive = child.lives(chance.uniform(0.02, 1.0) * lasts)
            if alive:
                os.kill(child.pid, signal.SIGKILL)
            ended = child.wait()
            complaints += half_files(out)
            if ended.code == 0:
                break
            if ended.code != -signal.SIGKILL:
                complaints.append(f"ended with {ended.code}: {ended.said[-1500:]}")
            done += 1
            count.add("kill -9", case.name, *complaints)
            complaints = []
        complaints += finish(case, out, wanted)
        count.bad += [f"kill -9, {case.name}: {one}" for one in complaints]
        for one in complaints:
            print(f"BAD kill -9, {case.name}: {one}", file=sys.stderr)
        shutil.rmtree(out.parent)


def terminations(case: Case, work: Path, number: int, count: Count, patch: Patch = nothing) -> None:
    """SIGTERM at random moments after the run has begun: code 0 in time, and the same results afterwards."""
    whole = undisturbed(case, work)
    wanted, lasts = whole.results, whole.seconds
    chance = random.Random(case.name)
    done = attempt = 0
    while done < number:
        attempt += 1
        out = work / f"stopped{attempt}" / "out"
        out.parent.mkdir()
        child = case.start(out)
        while child.lives(0.002) and not (out / "config.yaml").exists():
            pass
        child.lives(0.05 + chance.uniform(0, 0.9) * lasts)  # 0.05: the handler comes with the configuration
        asked = time.monotonic()
        os.kill(child.pid, signal.SIGTERM)
        ended = child.wait()
        complaints = half_files(out)
        if ended.code or time.monotonic() - asked > WITHIN:
            complaints.append(f"ended with {ended.code} after {time.monotonic() - asked:.1f} s: {ended.said[-1500:]}")
        if "--resume" in ended.said:
            done += 1
            count.add("SIGTERM", case.name, *complaints)
            again = case.start(out, patch).wait()
            wrong = [f"went on with {again.code}: {again.said[-1500:]}"] if again.code else differing(results(out), wanted)
            count.bad += [f"SIGTERM, {case.name}: {one}" for one in wrong]
            for one in wrong:
                print(f"BAD SIGTERM, {case.name}: {one}", file=sys.stderr)
        shutil.rmtree(out.parent)


def no_check_of_space() -> None:
    """The disk is to fill up while it is written to, not before."""
    for module in [one for name, one in sys.modules.items() if name.startswith("cryorecon") and hasattr(one, "free_space")]:
        module.free_space = lambda path, needed: None  # type: ignore[attr-defined]


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[None]:
    """A file system of ``size`` bytes at ``place``."""
    place.mkdir(parents=True, exist_ok=True)
    _call("mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place))
    try:
        yield
    finally:
        _call("umount", str(place))


def _call(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def preload() -> None:
    """Import what commands import, so that a child begins at once."""
    for name in ("analysis.explore", "analysis.vouch", "analysis.distribution", "analysis.walks", "report.analysis_page",
                 "report.pose_plots", "report.projection_plots", "training.train", "training.trained", "simulation.write"):
        importlib.import_module(f"cryorecon.{name}")


def may_mount(work: Path) -> bool:
    """Whether a file system can be mounted here (by root, mostly)."""
    try:
        with small_disk(work / "trial", 1 << 20):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def full_disks(case: Case, work: Path, number: int, count: Count) -> None:
    """The command on disks too small for it; then there is room, and it must come to the same results."""
    whole = undisturbed(case, work)
    wanted, size = whole.results, whole.size
    for i in range(number):
        place = work / f"small{i}"
        with small_disk(place, max(8192, int(size * (i + 0.5) / number))):
            theirs = place / "theirs.log"
            theirs.touch()
            ended = case.run(place / "out", no_check_of_space)
            complaints = half_files(place / "out")
            if not theirs.is_file():
                complaints.append("lost a file beside the folder")
            if ended.code != 2 and ended.code != 0:
                complaints.append(f"ended with {ended.code}: {ended.said[-1500:]}")
            elif ended.code == 2 and sum("error: " in line for line in ended.said.splitlines()) != 1:
                complaints.append(f"not one line: {ended.said[-1500:]}")
            _call("mount", "-o", f"remount,size={4 * size}", str(place))
            complaints += finish(case, place / "out", wanted)
            count.add("disk full", case.name, *complaints)


@dataclass(frozen=True)
class Broken:
    """The ``after``-th read of images from now on finds a broken disk or a file that has shrunk."""

    after: int
    shrinks: bool

    def __call__(self) -> None:
        """Patch this process."""
        real, reads = os.preadv, iter(range(1 << 30))

        def preadv(descriptor: int, buffers: list, offset: int) -> int:
            if next(reads) < self.after:
                return real(descriptor, buffers, offset)
            if self.shrinks:
                os.truncate(descriptor_name(descriptor), min(os.fstat(descriptor).st_size, offset + 100))  # never longer
                return real(descriptor, buffers, offset) if os.fstat(descriptor).st_size > offset else 0
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        source.os = type("os", (), {**vars(os), "preadv": staticmethod(preadv)})  # type: ignore[assignment]


def descriptor_name(descriptor: int) -> str:
    """The file that is open there."""
    return os.readlink(f"/proc/self/fd/{descriptor}")


def broken_reads(stack: Path, case: Case, work: Path, number: int, count: Count) -> None:
    """Images that can't be read any more, at several points of a run; afterwards the disk is well again."""
    wanted = undisturbed(case, work).results
    kept = stack.read_bytes()
    for i in range(number):
        for shrinks in (False, True):
            out = work / f"broken{i}{shrinks}" / "out"
            out.parent.mkdir()
            ended = case.run(out, Broken(i * i, shrinks))
            complaints = half_files(out) if out.exists() else []
            if ended.code == -signal.SIGBUS or (ended.code != 2 and ended.code != 0):
                complaints.append(f"ended with {ended.code}: {ended.said[-1500:]}")
            if ended.code == 2 and str(stack) not in ended.said:
                complaints.append(f"does not name the stack: {ended.said[-500:]}")
            stat = stack.stat()
            with stack.open("r+b") as file:
                file.write(kept)
            os.utime(stack, ns=(stat.st_atime_ns, stat.st_mtime_ns))
            complaints += finish(case, out, wanted)
            count.add("stack shrinks" if shrinks else "read error", case.name, *complaints)


def two_at_once(case: Case, work: Path, number: int, count: Count) -> None:
    """A second run of the command into the same folder while the first is at work: refused in a line, the first unharmed."""
    whole = undisturbed(case, work)
    wanted, lasts = whole.results, whole.seconds
    for i in range(number):
        out = work / f"two{i}" / "out"
        out.parent.mkdir()
        first = case.start(out)
        until = time.monotonic() + LONGEST
        while not _lock(out) and first.lives(0.002) and time.monotonic() < until:
            pass
        first.lives(0.6 * lasts * i / number)
        os.kill(first.pid, signal.SIGSTOP)  # however slow this machine is, they are at it together
        stopped = os.waitid(os.P_PID, first.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        complaints: list[str] = []
        if stopped is not None and stopped.si_code == os.CLD_STOPPED and _lock(out):
            second = case.run(out)
            if second.code != 2 or "another process" not in second.said:
                complaints.append(f"the second ended with {second.code}: {second.said[-1500:]}")
        os.kill(first.pid, signal.SIGCONT)
        ended = first.wait()
        if ended.code:
            complaints.append(f"the first ended with {ended.code}: {ended.said[-1500:]}")
        else:
            complaints += differing(results(out), wanted)
        count.add("two at once", case.name, *complaints)


def _lock(out: Path) -> bool:
    """Whether somebody holds a lock there, by the kernel's own word: to try one would be in his way."""
    held = {line.split()[5].rpartition(":")[2] for line in Path("/proc/locks").read_text().splitlines() if " FLOCK " in line}
    return any(str(path.stat().st_ino) in held for path in (out / files.LOCK, *out.glob("*.part")) if path.exists())


# --- writers one by one --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Writer:
    """What writes one file into a folder."""

    file: str
    write: Callable[[Path], object]


def writers() -> dict[str, Writer]:
    """Every kind of writer there is."""
    import pandas as pd

    from cryorecon.analysis.trajectories import write_latents
    from cryorecon.data.arrays import write_array, write_csv
    from cryorecon.data.cryodrgn_files import write_indices
    from cryorecon.data.mrc import write_stack, write_volume
    from cryorecon.data.safe_pickle import dump_pickles
    from cryorecon.data.star_write import write_blocks
    from cryorecon.report import style
    from cryorecon.report.page import write_page
    from cryorecon.training.config import RunConfig
    from cryorecon.training.run_directory import RunDirectory

    values = np.random.default_rng(0).normal(size=(40, 32, 32)).astype(np.float32)
    table = values.reshape(-1, 4)
    state = {"model": {"w": torch.from_numpy(values)}, "epoch": 1}
    config = RunConfig("/data/p.star", zdim=1)

    def picture(path: Path) -> None:
        figure = style.figure(6, 6)
        figure.subplots().imshow(values[0])
        style.save(figure, path, 300)

    return {
        "map": Writer("map.mrc", lambda path: write_volume(path, values[:32], 1.0)),
        "stack": Writer("stack.mrcs", lambda path: write_stack(path, values, 1.0)),
        "star": Writer("p.star", lambda path: write_blocks(path, {"particles": pd.DataFrame(table, columns=list("abcd"))})),
        "array": Writer("a.npy", lambda path: write_array(path, values)),
        "table": Writer("t.csv", lambda path: write_csv(path, "abcd", table)),
        "pickle": Writer("p.pkl", lambda path: dump_pickles(path, values)),
        "positions": Writer("i.txt", lambda path: write_indices(path, np.arange(20_000))),
        "latents": Writer("z.txt", lambda path: write_latents(path, table)),
        "checkpoint": Writer("weights.1.pt", lambda path: RunDirectory(path.parent).save(1, state, None)),
        "configuration": Writer("config.yaml", lambda path: RunDirectory(path.parent).write_config(config, ["x" * 20_000])),
        "metrics": Writer("metrics.jsonl", lambda path: RunDirectory(path.parent).drop_after(9)),
        "picture": Writer("p.png", picture),
        "page": Writer("report.html", lambda path: write_page(path, "title " * 4000, "subtitle", [], "")),
        "note": Writer("p.json", lambda path: preprocess._write_note(path, "key" * 9000, 1)),
    }


@contextmanager
def at_most(size: int, deadly: bool) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes: who tries is killed at that byte (``deadly``), or told that it is too large."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if deadly else signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def filled(folder: Path, room: int) -> Iterator[None]:
    """The disk of ``folder`` with no more than ``room`` bytes left."""
    free = os.statvfs(folder)
    with (folder.parent / "ballast").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free.f_bavail * free.f_frsize - room))
    try:
        yield
    finally:
        (folder.parent / "ballast").unlink()


def tried(writer: Writer, place: Path, room: int, deadly: bool, mounted: bool) -> list[str]:
    """One fault of a writer that replaces a file, with ``room`` bytes for the new one; complaints. ``mounted``: ``place`` is a
    small disk of its own, which fills up; else the limit is one on the sizes of files."""
    folder = place / "folder"
    folder.mkdir()
    path = folder / writer.file
    before = b'{"epoch": 1}\n' * 9000 if writer.file == "metrics.jsonl" else b"what was there before"
    path.write_bytes(before)

    def action() -> int:
        no_check_of_space()
        limit = filled(folder, room) if mounted and not deadly else at_most(room, deadly)
        try:
            with limit:
                writer.write(path)
        except OSError as error:
            return 2 if error.filename == str(path) and error.errno in files.FULL else 1
        return 0

    ended = Child(action, place / "log").wait()
    wanted = -signal.SIGXFSZ if deadly else 2
    complaints = [] if ended.code == wanted else [f"ended with {ended.code} where {wanted} was due: {ended.said[-800:]}"]
    if path.read_bytes() != before:
        complaints.append("lost the file that was there before")
    if not deadly:
        complaints += [f"litter {left.name}" for left in folder.iterdir() if left != path]
    with files.exclusive(folder):
        writer.write(path)
    complaints += [f"litter {left.name}" for left in folder.iterdir() if left != path]
    complaints += half_files(folder)
    shutil.rmtree(folder)
    return complaints


def break_writers(chosen: dict[str, Writer], work: Path, points: int, count: Count, mounted: bool) -> None:
    """Every writer killed at some bytes of its file, and out of room at others."""
    for name, writer in chosen.items():
        sample = work / name / writer.file
        sample.parent.mkdir(parents=True)
        if writer.file == "metrics.jsonl":
            sample.write_bytes(b'{"epoch": 1}\n' * 9000)
        writer.write(sample)
        size = sample.stat().st_size
        for i in range(points):
            room = size * (2 * i + 1) // (2 * points)
            count.add("killed in a write", name, *tried(writer, work, room, True, mounted))
            if room // 4096 < size // 4096 or not mounted:  # a disk counts in pages
                count.add("disk full", f"writer: {name}", *tried(writer, work, room, False, mounted))


# --- all of it -----------------------------------------------------------------------------------------------------------


def by_chunks() -> None:
    """Few images at a time, as if they were large."""
    preprocess.chunk_size = lambda box: 8


def no_cache() -> None:
    """Images are read as they are needed, as if they were many."""
    from cryorecon.data import loader

    loader.CACHE_BYTES = 0


def simulated(folder: Path, images: int = 48, box: int = 20) -> Path:
    """Particles of a hinge."""
    write_simulation(flexible("hinge", 2), Experiment(images, box, 9.0, 1.0, max_shift=1, optics=ctf_table(None)), folder)
    return folder


def cases(data: Path, run: Path | None = None) -> dict[str, Case]:
    """The commands, of particles in ``data`` (``particles.star``; ``ctf.pkl``), and of a trained ``run``."""
    star, stack, ctf = (str(data / name) for name in ("particles.star", "particles.mrcs", "ctf.pkl"))
    batch = ["-b", "8", *TINY]
    search = [stack, "--ctf", ctf, "--searches", "2", "--polishes", "1", "--base-healpy", "1", "--niter",
              "1", "--t-ngrid", "3", "-n", "1", *batch]
    plain = ["--road", "plain", "--conformation", "encoder", "--enc-dim", "16", "--enc-layers", "1", "--points", "0.6"]
    found = [
        Case("preprocess", ["preprocess", star, "-D", "16"], trains=False, patch=by_chunks),
        Case("train_nn", ["train_nn", star, "-n", "3", *batch], patch=no_cache),
        Case("train_vae", ["train_vae", star, "--zdim", "2", "-n", "4", "--atoms", "10", *batch]),
        Case("train_vae, encoder", ["train_vae", star, "--zdim", "2", "-n", "5", "--checkpoint", "2", *batch, *plain],
             patch=no_cache),
        Case("pose search", ["train_nn", *search, "--init", str(data / "maps" / "state_00.mrc")]),
        Case("pose search by network", ["train_vae", *search, "--zdim", "1", "--schedule", "network", "--search-epochs", "4",
                                        "--ps-freq", "2", "--pretrain", "40", "--atoms", "10"]),
        Case("train_gan", ["train_gan", star, "-n", "3", "-b", "8", "--critic-dim", "8", "--device", "cpu"], patch=no_cache),
        Case("train_gan, archetypes", ["train_gan", star, "--volume", "archetypes", "-n", "3", "-b", "8", "--critic-dim", "8",
                                       "--device", "cpu"]),
        Case("simulate", ["simulate", "-n", "200", "-D", "24", "--apix", "9", "--states", "3", "--overwrite", "--device",
                          "cpu"], trains=False),
        Case("backproject", ["backproject", star, "--device", "cpu"], trains=False),
    ]
    if run is not None:
        found.append(Case("analyze", ["analyze", str(run), "--ksample", "3", "--states", "2", "--device", "cpu"], False))
        line = ["--z-start", "-1", "0", "--z-end", "1", "0", "-n", "20"]
        found.append(Case("eval_vol", ["eval_vol", str(run), *line, "--device", "cpu"], False))
    return {case.name: case for case in found}


KILLS = {"preprocess": 8, "train_vae": 8, "train_vae, encoder": 8, "train_gan": 6, "analyze": 6, "pose search": 6,
         "train_nn": 4, "eval_vol": 4, "backproject": 4, "simulate": 4, "pose search by network": 4,
         "train_gan, archetypes": 4}  # fmt: skip
STOPS = {"train_nn": 2, "train_vae": 3, "train_vae, encoder": 4, "pose search": 2, "pose search by network": 2, "train_gan": 4,
         "train_gan, archetypes": 2}  # fmt: skip
FULL_DISKS = {"preprocess": 5, "train_vae": 4, "train_vae, encoder": 3, "pose search": 2, "train_gan": 3, "simulate": 4,
              "backproject": 3, "analyze": 4, "eval_vol": 3}  # fmt: skip
BROKEN = ("preprocess", "train_nn", "train_vae, encoder", "train_gan")
AT_ONCE = {"preprocess": 2, "train_vae": 2, "train_gan": 1, "simulate": 1, "analyze": 1}


def everything(work: Path, count: Count, only: str) -> None:
    """All faults of all kinds, or those whose name has ``only`` in it; what is known is written as it goes."""
    began = time.monotonic()
    preload()
    data = simulated(work / "data")
    small = simulated(work / "few", 48)
    trained = work / "trained" / "run"
    trained.parent.mkdir()
    known = cases(data)
    if known["train_vae"].run(trained).code:
        raise RuntimeError("a plain run failed")
    known = cases(small, trained)
    mounted = may_mount(work)

    def writing(place: Path) -> None:
        place.mkdir(parents=True)
        with small_disk(place, 1 << 23) if mounted else _as_it_is():
            break_writers(writers(), place, 3, count, mounted)

    stack = small / "particles.mrcs"
    tasks: dict[str, Callable[[Path], None]] = {}
    tasks |= {f"kills {name}": partial(_do, kills, known[name], number, count) for name, number in KILLS.items()}
    tasks["writers"] = writing
    tasks |= {f"stops {name}": partial(_do, terminations, known[name], number, count) for name, number in STOPS.items()}
    tasks |= {f"two {name}": partial(_do, two_at_once, known[name], number, count) for name, number in AT_ONCE.items()}
    tasks |= {f"broken {name}": partial(_do, partial(broken_reads, stack), known[name], 2, count) for name in BROKEN}
    if mounted:
        tasks |= {f"disks {name}": partial(_do, full_disks, known[name], number, count) for name, number in FULL_DISKS.items()}
    else:
        print("NOT TRIED: commands on full disks; this machine lets nobody mount one here", file=sys.stderr)
    for name, task in tasks.items():
        if only in name:
            print(f"{time.strftime('%H:%M:%S')} {name}", file=sys.stderr, flush=True)
            task(work / name.replace(" ", "_"))
            if not only:
                write(count, began)


def _do(fault: Callable[[Case, Path, int, Count], None], case: Case, number: int, count: Count, place: Path) -> None:
    fault(case, place, number, count)


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


def table(count: Count) -> str:
    """Faults tried, by kind and case."""
    rows = [f"{kind:<20} {case:<28} {number:>5}" for (kind, case), number in sorted(count.tried.items())]
    total = sum(count.tried.values())
    bad = {word: sum(word in one for one in count.bad) for word in ("Traceback", "lost", "half", "litter", "other contents")}
    return "\n".join([*rows, f"{'in all':<49} {total:>5}", *(f"{name:<49} {number:>5}" for name, number in bad.items())])


def write(count: Count, began: float) -> None:
    """The results' file."""
    rows = [{"kind": kind, "case": case, "faults": number} for (kind, case), number in sorted(count.tried.items())]
    RESULTS.write_text(json.dumps({
        "tried": rows, "faults": sum(count.tried.values()), "complaints": count.bad, "seconds": round(time.monotonic() - began),
        "torch": torch.__version__, "python": sys.version.split()[0]}, indent=1) + "\n")


def run_all() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="faults whose 'kind command' has this in it; writes no results")
    args = parser.parse_args()
    count, began = Count(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults") as work:
        everything(Path(work), count, args.only)
    print(table(count))
    if not args.only:
        write(count, began)
    return 1 if count.bad else 0


if __name__ == "__main__":
    sys.exit(run_all())
