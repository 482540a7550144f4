"""The run directory: what is in it, and how it is written so that a kill leaves the last good file."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

import cryorecon
from cryorecon.data.arrays import read_numbers, write_array
from cryorecon.data.files import append_text, atomic_path, exclusive, read_json, read_records
from cryorecon.errors import InputError, Stopped
from cryorecon.training.checkpoint_file import load_state, save_state
from cryorecon.training.config import PATHS, RunConfig

PROVENANCE, PROVENANCE_BYTES = "provenance.json", 1 << 25  # and how long it may be
# what a run writes before weights vouch for it
BEFORE_CHECKPOINT = ("config.yaml", "run.log", "metrics.jsonl", "consensus.mrc", "half_map_a.mrc", "half_map_b.mrc", "z.0.npy",
                     "z_likelihood.0.npy", "poses.0.star", "poses.0.pkl", PROVENANCE)

MAX_BOX = 1024  # px of a run

MAY_CHANGE = ("epochs", "device")  # of a run that is resumed


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` on a temporary name beside ``path``, then rename; nothing half written is ever seen."""
    with atomic_path(path) as temporary:
        write(temporary)


def _number(least: float, most: float, value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _vector(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim == 1 and value.is_floating_point()


def _settings(config: RunConfig) -> dict[str, Any]:
    """What makes a run this one: all but where its files lie and what may change when it is resumed."""
    return {name: value for name, value in asdict(config).items() if name not in (*PATHS, *MAY_CHANGE)}


def _differing(ours: dict[str, Any], theirs: dict[str, Any]) -> str | None:
    """The first setting that both have, with other values."""
    return next((name for name, value in ours.items() if theirs.get(name, value) != value), None)


def digest(array: np.ndarray) -> str:
    """A hash of an array's numbers and shape, as float32."""
    found = hashlib.sha256(repr(array.shape).encode())
    found.update(np.ascontiguousarray(array, dtype="<f4").data)
    return found.hexdigest()


HELD: dict[str, Callable[[Any], bool]] = {  # what every checkpoint holds
    "version": lambda value: isinstance(value, str),
    "epoch": lambda value: isinstance(value, int) and _number(0, 1 << 31, value),
    "model": lambda value: isinstance(value, dict) and all(isinstance(part, torch.Tensor) for part in value.values()),
    "shape": lambda value: (isinstance(value, dict) and _number(0, MAX_BOX, value.get("base_limit"))
                            and _number(0, 1 << 20, value.get("atoms"))),
    "noise": _vector,
    "scale": _vector,
    "half": lambda value: isinstance(value, torch.Tensor) and value.ndim == 1,
    "box": lambda value: isinstance(value, int) and _number(4, MAX_BOX, value),
    "apix": partial(_number, 1e-3, 1e6),
    "optimisers": lambda value: isinstance(value, list | dict),
}


class RunDirectory:
    """A run's files: ``config.yaml``, ``weights.N.pt``, ``z.N.npy``, ``z_likelihood.N.npy``, ``metrics.jsonl``, ``run.log``
    and maps."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def start(self, config: RunConfig, command: list[str]) -> None:
        """Make the folder and write the configuration.

        Raises
        ------
        InputError: the folder already holds a run, or is a file, or its name holds bytes that are no text.
        """
        try:
            str(self.path.absolute()).encode()
        except UnicodeEncodeError:  # torch could not open its weights again
            raise InputError(f"{self.path}: expected a folder for the run whose whole name is UTF-8, found other bytes in it; "
                             "give another name, or LC_ALL=C.UTF-8 where it only seems so") from None
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path}: expected a folder for the run, found a file; give another name")
        if (self.path / "config.yaml").exists() or self.epochs() or self.passes() or self.has_stages():
            raise InputError(f"{self.path}: expected an empty or new folder, found another run; give another "
                             "-o, or --resume")
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_config(config, command)

    def write_config(self, config: RunConfig, command: list[str]) -> None:
        """Write (or replace) the configuration, with the ``command`` that it comes from."""
        head = yaml.safe_dump({"version": cryorecon.__version__, "torch": str(torch.__version__), "command": command})
        text = head + "run:\n" + "".join(f"  {line}\n" for line in config.to_yaml().splitlines())
        write_atomically(self.path / "config.yaml", lambda p: p.write_text(text))

    @contextmanager
    def begun(self, config: RunConfig, command: list[str], resume: bool = False) -> Iterator[None]:
        """:meth:`start`, with the folder locked; where the block fails before there is a checkpoint, what it wrote is removed
        again, unless it was told to stop (:class:`Stopped`).

        With ``resume`` the run that is there goes on under ``config`` (of :meth:`resumed`) and nothing is removed.
        Raises :class:`InputError` where another process runs in the folder, or another run than ``config``'s is there.
        """
        with exclusive(self.path):
            if resume:
                if config != self.config():
                    if (name := _differing(_settings(config), _settings(held := self.config()))) is not None:
                        raise InputError(f"{self.path}: expected the run that goes on, with {name} {getattr(config, name)}, "
                                         f"found one with {getattr(held, name)!r:.60}; put back the folder that is this run's")
                    self.write_config(config, command)
                yield
                return
            self.start(config, command)
            try:
                yield
            except Stopped:
                raise
            except BaseException:
                if not self.epochs() and not self.has_stages():
                    for name in BEFORE_CHECKPOINT:
                        (self.path / name).unlink(missing_ok=True)
                raise

    def resumed(self, given: dict[str, Any], spelled: Callable[[str], str] = str) -> RunConfig:
        """The run's configuration with the end (``epochs``) and the ``device`` that ``given`` names.

        ``spelled``: how the user knows a field, for errors.

        Raises
        ------
        InputError: no run is there; another field of ``given`` is not as the run began; its end is already past.
        """
        saved = self.config()
        for name, value in given.items():
            before = getattr(saved, name)
            if name not in MAY_CHANGE and value != before:
                do = ("leave it out to resume" if name not in PATHS else
                      f"if the file has moved, write its new place into {self.path}/config.yaml")
                raise InputError(f"{spelled(name)}: expected {before} as the run in {self.path} began, found {value}; {do}, or "
                                 "begin a new run in another folder")
        done = max((*self.epochs(), *self.passes()), default=0)
        if given.get("epochs", done) < done:
            raise InputError(f"{spelled('epochs')}: expected at least {done}, the epochs that the run in {self.path} has "
                             f"done, found {given['epochs']}; give more to continue")
        return replace(saved, **{name: given[name] for name in MAY_CHANGE if name in given})

    def config(self) -> RunConfig:
        """The configuration."""
        return RunConfig.from_yaml(self.path / "config.yaml")

    def epochs(self) -> list[int]:
        """Numbers of the checkpoints that exist, ascending."""
        return self._numbers("weights")

    def _numbers(self, name: str) -> list[int]:
        found = (re.fullmatch(rf"{name}\.(\d+)\.pt", path.name) for path in self.path.glob(f"{name}.*.pt"))
        return sorted(int(match[1]) for match in found if match)

    def save(self, epoch: int, state: dict[str, Any], z: np.ndarray | None, likelihood: np.ndarray | None = None) -> None:
        """A checkpoint: latents and what images say of them first, weights last, so that weights vouch for the rest: they hold
        the hashes of these arrays, and of which run they are."""
        beside = {name: array for name, array in ((f"z.{epoch}.npy", z), (f"z_likelihood.{epoch}.npy", likelihood))
                  if array is not None}
        for name, array in beside.items():
            write_array(self.path / name, array)
        state = state | {"of": self._identity(), "beside": {name: digest(array) for name, array in beside.items()}}
        write_atomically(self.path / f"weights.{epoch}.pt", lambda p: save_state(p, state))
        for number in self._numbers("pass"):
            if number <= epoch:
                (self.path / f"pass.{number}.pt").unlink(missing_ok=True)

    def save_pass(self, epoch: int, state: dict[str, Any]) -> None:
        """What a run that is told to stop has reached in pass ``epoch``, ``pass.N.pt``: a checkpoint's contents, their
        ``epoch`` that of the last whole pass, and ``within`` where the pass has begun. It has no latents, and goes with the
        next checkpoint."""
        write_atomically(self.path / f"pass.{epoch}.pt", lambda p: save_state(p, state | {"of": self._identity()}))

    def passes(self) -> list[int]:
        """Numbers of the passes in which the run was stopped since its last checkpoint, ascending."""
        last = max(self.epochs(), default=0)
        return [number for number in self._numbers("pass") if number > last]

    def load_last(self) -> dict[str, Any] | None:
        """Contents of the last checkpoint, or of :meth:`save_pass` since; None where there are none. Raises as :meth:`load`."""
        if self.passes():
            path = self.path / f"pass.{self.passes()[-1]}.pt"
            state = load_state(path)
            self._require_own(path, state)
            return state
        return self.load() if self.epochs() else None

    def load(self, epoch: int | None = None) -> dict[str, Any]:
        """A checkpoint's contents (default: the last), read without running code.

        Raises
        ------
        InputError: there is none, or the file is damaged, not ours, or of a run of other settings or data.
        """
        epochs = self.epochs()
        if not epochs:
            raise InputError(f"{self.path}: expected weights.N.pt, found none; is this a run directory, and did "
                             "it train?")
        if epoch is not None and epoch not in epochs:
            raise InputError(f"{self.path}: expected one of the epochs {', '.join(map(str, epochs))}, found {epoch}")
        name = self.path / f"weights.{epochs[-1] if epoch is None else epoch}.pt"
        state = load_state(name)
        for part, fits in HELD.items():
            if part not in state or not fits(state[part]):
                value = state.get(part)
                found = f"{value!r:.60}" if isinstance(value, str | int | float | None) else type(value).__name__
                raise InputError(f"{name}: expected a cryorecon checkpoint with its {part}, found {found}")
        self._require_own(name, state)
        return state

    def _identity(self) -> dict[str, Any]:
        """Of which run a checkpoint is: its settings, and a hash of the fingerprints of all files that it reads."""
        settings = _settings(self.config()) if (self.path / "config.yaml").is_file() else {}
        return {"settings": settings, "data": self._data()}

    def provenance(self) -> Any:
        """What ``provenance.json`` says, as JSON; None without one. It names each of a run's files, perhaps a stack for each of
        20,000 micrographs. Raises :class:`InputError` for what is no JSON."""
        path = self.path / PROVENANCE
        return read_json(path, "where a run comes from", PROVENANCE_BYTES) if path.is_file() else None

    def _data(self) -> str:
        """A hash of the fingerprints in ``provenance.json``; empty without it, or without files."""
        found = self.provenance()
        inputs = found.get("inputs") if isinstance(found, dict) else None
        inputs = [each for each in inputs if isinstance(each, dict)] if isinstance(inputs, list) else []
        prints = sorted(str(each.get("sha256")) for each in inputs)
        return hashlib.sha256("\n".join(prints).encode()).hexdigest() if prints else ""

    def _require_own(self, path: Path, state: dict[str, Any]) -> None:
        """Raise :class:`InputError` for a checkpoint of a run of other settings or data than this folder's; one of an older
        version, or a setting that either version doesn't know, says nothing."""
        held = state.get("of")
        if not isinstance(held, dict):
            return
        ours, settings = self._identity(), held.get("settings")
        if isinstance(settings, dict) and (name := _differing(settings, ours["settings"])) is not None:
            raise InputError(f"{path}: expected a checkpoint of this run, with {name} {ours['settings'][name]} as in "
                             f"config.yaml, found one of a run with {settings[name]!r:.60}; put back the file that is this "
                             "run's")
        data = held.get("data")
        if data and ours["data"] and data != ours["data"]:
            raise InputError(f"{path}: expected a checkpoint of this run's data, as in {PROVENANCE}, found one of a run on "
                             "others; put back the file that is this run's")

    def save_samples(self, epoch: int, images: np.ndarray) -> None:
        """Real and simulated images of a checkpoint, ``samples.<epoch>.npy``; before its weights."""
        write_array(self.path / f"samples.{epoch}.npy", images)

    def write(self, name: str, write: Callable[[Path], object]) -> None:
        """A file of another kind: ``write`` makes it at the path that it is given."""
        write(self.path / name)

    def has_stages(self) -> bool:
        """Whether a stage before the first checkpoint has saved what it reached."""
        return any(self.path.glob("stage.*.pt"))

    def save_stage(self, name: str, state: dict[str, Any]) -> None:
        """What a stage before the first checkpoint has reached: ``stage.<name>.pt``."""
        write_atomically(self.path / f"stage.{name}.pt", lambda p: save_state(p, state | {"of": self._identity()}))

    def drop_stage(self, name: str) -> None:
        """Forget a stage that led nowhere."""
        (self.path / f"stage.{name}.pt").unlink(missing_ok=True)

    def load_stage(self, name: str) -> dict[str, Any] | None:
        """What a stage had reached, None where it never began. Raises :class:`InputError` for a damaged file, or one of another
        run."""
        path = self.path / f"stage.{name}.pt"
        if not path.is_file():
            return None
        state = load_state(path)
        self._require_own(path, state)
        return {part: value for part, value in state.items() if part != "of"}

    def z(self, epoch: int | None = None) -> np.ndarray:
        """Latents ``(particles, d)`` of a checkpoint (default: the last)."""
        number = self.epochs()[-1] if epoch is None and self.epochs() else epoch
        path = self.path / f"z.{number}.npy"
        if not path.is_file():
            raise InputError(f"{path}: expected latents, found no file; a homogeneous run has none")
        return self._latents(path, number)

    def likelihood(self, epoch: int) -> np.ndarray | None:
        """What images say of z, ``(particles, d + d (d + 1) / 2)`` as :meth:`cryorecon.training.inferred.Latents.packed` has
        it; None where the run tells no uncertainty."""
        path = self.path / f"z_likelihood.{epoch}.npy"
        return self._latents(path, epoch) if path.is_file() else None

    def _latents(self, path: Path, epoch: int | None) -> np.ndarray:
        found = read_numbers(path, "latents, a row for each particle")
        if found.ndim != 2 or 0 in found.shape:
            raise InputError(f"{path}: expected latents, a row for each particle, found an array of shape {found.shape}")
        beside = self.load(epoch).get("beside") if epoch in self.epochs() else None
        expected = beside.get(path.name) if isinstance(beside, dict) else None
        if expected is not None and expected != digest(found):
            raise InputError(f"{path}: expected the latents that weights.{epoch}.pt was saved with, found others; put back the "
                             "file that is this run's")
        return found

    def log(self, record: dict[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``."""
        append_text(self.path / "metrics.jsonl", json.dumps(record) + "\n")

    def last_logged(self, name: str) -> float:
        """The number ``name`` of the last line of ``metrics.jsonl``; 0 where there is none."""
        records = read_records(self.path / "metrics.jsonl")
        value = records[-1].get(name, 0) if records else 0
        return float(value) if isinstance(value, int | float) else 0.0

    def drop_after(self, epoch: int) -> None:
        """Forget metrics of passes after ``epoch``: a resumed run makes them anew. Lines that a kill cut short go too."""
        path = self.path / "metrics.jsonl"
        if path.is_file():
            kept = [record for record in read_records(path) if _number(0, epoch, record.get("epoch"))]
            write_atomically(path, lambda p: p.write_text("".join(f"{json.dumps(record)}\n" for record in kept)))
