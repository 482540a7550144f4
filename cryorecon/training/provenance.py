"""Where a run comes from: ``provenance.json`` says the command, versions, threads, seeds, and what the data were.

A file's fingerprint is its size and a SHA-256. Up to :data:`WHOLE` bytes, and of every file that is not a stack of images
(stars, poses, CTF, masks), all of it is hashed. Of a larger stack the hash covers its size and blocks of 16 kB spread evenly
over it, the header and the last one among them: 4,096 blocks shared out among all stacks, 4 of each at the least. That reads
64 MB of a stack of 500 GB, whatever its size. Other files of the same names, stacks that were cut, prepared anew or put into
another order are told; a few pixels that were changed between the blocks are not.
"""

import hashlib
import json
import platform
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cryorecon
from cryorecon import ranks
from cryorecon.data.files import atomic_path
from cryorecon.data.load import load_particles
from cryorecon.data.source import FileSource
from cryorecon.data.stack import ParticleStack
from cryorecon.errors import InputError
from cryorecon.training.config import PATHS, RunConfig, read_yaml
from cryorecon.training.run_directory import PROVENANCE, RunDirectory

WHOLE = 1 << 22  # bytes up to which a stack is hashed whole
BLOCK = 1 << 14  # bytes of a sample
BLOCKS, FEWEST = 4096, 4  # samples of all stacks together, and of each


@dataclass(frozen=True)
class Fingerprint:
    """Of one file. size: bytes. sha256: of the whole file, or (``blocks`` > 0) of so many blocks spread over it."""

    path: str
    size: int
    sha256: str
    blocks: int = 0


def fingerprint(path: str | Path, blocks: int = 0) -> Fingerprint:
    """Size and hash of a file, whole or (``blocks`` of 16 kB) sampled. Raises :class:`InputError` for a file that is gone."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: expected a file of the run's data, found none; was it moved?")
    size, digest = path.stat().st_size, hashlib.sha256()
    if size <= max(WHOLE, blocks * BLOCK):
        blocks = 0
    with path.open("rb") as file:
        if not blocks:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        for start in np.linspace(0, size - BLOCK, blocks).astype(np.int64) if blocks else ():
            file.seek(int(start))
            digest.update(file.read(BLOCK))
    return Fingerprint(str(path), size, digest.hexdigest(), blocks)


def versions() -> dict[str, Any]:
    """What a run's bits depend on beside its data and configuration."""
    return {"cryorecon": cryorecon.__version__, "torch": str(torch.__version__), "numpy": np.__version__,
            "python": platform.python_version(), "platform": platform.platform(), "processor": _processor(),
            "threads": torch.get_num_threads(), "processes": ranks.count()}


def _processor() -> str:
    """The CPU's vector instructions, and the GPU where there is one: other ones sum in another order."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}{gpu}"


def inputs(config: RunConfig, stack: ParticleStack) -> Iterator[Fingerprint]:
    """Fingerprints of all files that a run reads: the images' last."""
    sources = [stack] if config.background is None else [stack, load_particles(config.background)]
    stacks = {str(header.path) for each in sources if isinstance(each.source, FileSource) for header in each.source.headers}
    named = [str(getattr(config, name)) for name in PATHS if getattr(config, name) is not None]
    others = {str(path) for path in [*named, *(path for each in sources for path in each.files)]} - stacks
    for path in sorted(others):
        if Path(path).is_file():
            yield fingerprint(path)
    if config.init is not None and Path(config.init).is_dir():
        begun = RunDirectory(config.init)
        last = begun.epochs()[-1:]  # none: whoever opens the run says so
        yield from (fingerprint(begun.path / name) for epoch in last for name in ("config.yaml", f"weights.{epoch}.pt"))
    for path in sorted(stacks):
        yield fingerprint(path, max(FEWEST, BLOCKS // len(stacks)))


def record(directory: RunDirectory, config: RunConfig, stack: ParticleStack, resumed: bool = False) -> None:
    """Write ``provenance.json`` as a run begins, or add a session to it as it goes on; warns where the data have changed."""
    if not ranks.leads():
        return
    before = read(directory) if resumed else None
    if before is not None and (told := changed(before["inputs"])) is not None:
        warnings.warn(f"{told}; what follows is a run on other data than it began with", stacklevel=2)
    found = before or {"seed": config.seed, "inputs": [asdict(each) for each in inputs(config, stack)], "sessions": []}
    session = {"began": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "command": _command(directory), "epochs": config.epochs,
               "device": config.device, **versions()}
    with atomic_path(directory.path / PROVENANCE) as temporary:
        temporary.write_text(json.dumps(found | {"sessions": [*found["sessions"], session]}, indent=1) + "\n")


def _command(directory: RunDirectory) -> list[str]:
    """What the run was begun or last changed by, as ``config.yaml`` has it."""
    path = directory.path / "config.yaml"
    head = read_yaml(path).get("command") if path.is_file() else None
    return [str(word) for word in head] if isinstance(head, list) else []


def read(directory: RunDirectory) -> dict[str, Any] | None:
    """What ``provenance.json`` holds; None where a run has none. Raises :class:`InputError` for a damaged file."""
    path = directory.path / PROVENANCE
    if not path.is_file():
        return None
    found = directory.provenance()
    try:
        if not isinstance(found["sessions"], list) or not isinstance(found["inputs"], list):
            raise TypeError("no lists of sessions and inputs")
        prints = [Fingerprint(**each) for each in found["inputs"]]
        if not all(isinstance(one.path, str) and type(one.size) is type(one.blocks) is int and isinstance(one.sha256, str)
                   and 0 <= one.blocks <= BLOCKS for one in prints):
            raise TypeError("fingerprints of another form")
        threads = [session.get("threads") for session in found["sessions"] if isinstance(session, dict)]
        if not 0 < len(threads) == len(found["sessions"]) or not all(type(n) is int and 0 < n < 1 << 16 for n in threads):
            raise TypeError("sessions of another form")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: expected where a run comes from, found {error}; is the file damaged?") from None
    return found


def changed(found: Iterable[dict[str, Any]]) -> str | None:
    """The first of the files fingerprinted that is not as it was, in a line; None where all are."""
    for entry in found:
        before = Fingerprint(**entry)
        path = Path(before.path)
        if not path.is_file():
            return f"{path}: expected the file that the run read, found none; put it back"
        now = fingerprint(path, before.blocks)
        if now.size != before.size:
            return f"{path}: expected the {before.size:,} bytes that the run read, found {now.size:,}; the data are others"
        if now.sha256 != before.sha256:
            return f"{path}: expected the contents that the run read, found others of the same size; the data are others"
    return None


def altered(directory: RunDirectory) -> str | None:
    """The first file that a run read which is there with other contents, in a line; one that was moved is no reason to doubt.
    Raises :class:`InputError` for a damaged ``provenance.json``."""
    found = read(directory)
    return None if found is None else changed(entry for entry in found["inputs"] if Path(entry["path"]).is_file())


def differences(sessions: list[dict[str, Any]]) -> list[str]:
    """What is another here and now than in the sessions of a run, a line each; and what of these can't be repeated."""
    lines = []
    now, first = versions(), sessions[0]
    for name, value in now.items():
        before = {str(session.get(name)) for session in sessions}
        if before != {str(value)}:
            lines.append(f"{name}: {', '.join(sorted(before))} then, {value} now")
    if len({session.get("epochs") for session in sessions}) > 1:
        counts = ", ".join(str(session.get("epochs")) for session in sessions)
        lines.append(f"epochs: asked for anew when it was resumed ({counts}); step sizes follow that number")
    if any(session.get("device") != first.get("device") for session in sessions):
        lines.append("device: another one when it was resumed")
    return lines
