"""The run directory: what is in it, and how it is written so that a kill leaves the last good file."""

import json
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml

import cryorecon
from cryorecon.data.arrays import write_array
from cryorecon.data.files import atomic_path, exclusive
from cryorecon.errors import InputError, Stopped
from cryorecon.training.config import RunConfig

# what a run writes before weights vouch for it
NOT_A_CHECKPOINT = (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError,
                    pickle.UnpicklingError)  # what torch.load raises for other files, cut ones and ones that hold code
BEFORE_CHECKPOINT = ("config.yaml", "run.log", "metrics.jsonl", "consensus.mrc", "half_map_a.mrc", "half_map_b.mrc", "z.0.npy",
                     "z_likelihood.0.npy", "poses.0.star", "poses.0.pkl", "provenance.json")

MAY_CHANGE = ("epochs", "device")  # of a run that is resumed


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` on a temporary name beside ``path``, then rename; nothing half written is ever seen."""
    with atomic_path(path) as temporary:
        write(temporary)


def _save_state(path: Path, state: dict[str, Any]) -> None:
    failed: list[OSError] = []
    with path.open("wb") as file:
        def write(data: bytes) -> int:
            try:
                return file.write(data)
            except OSError as error:
                failed.append(error)
                raise

        try:
            torch.save(state, SimpleNamespace(write=write, flush=file.flush))
        except (RuntimeError, OSError):
            if failed:  # torch's own error does not say why
                raise failed[0] from None
            raise


def _load_state(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except NOT_A_CHECKPOINT as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]  # an EOFError says nothing
        raise InputError(f"{path}: expected a checkpoint of plain tensors, found {said}") from None


class RunDirectory:
    """A run's files: ``config.yaml``, ``weights.N.pt``, ``z.N.npy``, ``z_likelihood.N.npy``, ``metrics.jsonl``, ``run.log``
    and maps."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def start(self, config: RunConfig, command: list[str]) -> None:
        """Make the folder and write the configuration.

        Raises
        ------
        InputError: the folder already holds a run, or is a file.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path}: expected a folder for the run, found a file; give another name")
        if (self.path / "config.yaml").exists():
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
        Raises :class:`InputError` where another process runs in the folder.
        """
        with exclusive(self.path):
            if resume:
                if config != self.config():
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
                raise InputError(f"{spelled(name)}: expected {before} as the run in {self.path} began, found {value}; leave "
                                 "it out to resume, or begin a new run in another folder")
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
        """A checkpoint: latents and what images say of them first, weights last, so that weights vouch for the rest."""
        for name, array in ((f"z.{epoch}.npy", z), (f"z_likelihood.{epoch}.npy", likelihood)):
            if array is not None:
                write_array(self.path / name, array)
        write_atomically(self.path / f"weights.{epoch}.pt", lambda p: _save_state(p, state))
        for number in self._numbers("pass"):
            if number <= epoch:
                (self.path / f"pass.{number}.pt").unlink(missing_ok=True)

    def save_pass(self, epoch: int, state: dict[str, Any]) -> None:
        """What a run that is told to stop has reached in pass ``epoch``, ``pass.N.pt``: a checkpoint's contents, their
        ``epoch`` that of the last whole pass, and ``within`` where the pass has begun. It has no latents, and goes with the
        next checkpoint."""
        write_atomically(self.path / f"pass.{epoch}.pt", lambda p: _save_state(p, state))

    def passes(self) -> list[int]:
        """Numbers of the passes in which the run was stopped since its last checkpoint, ascending."""
        last = max(self.epochs(), default=0)
        return [number for number in self._numbers("pass") if number > last]

    def load_last(self) -> dict[str, Any] | None:
        """Contents of the last checkpoint, or of :meth:`save_pass` since; None where there are none. Raises as :meth:`load`."""
        if self.passes():
            return _load_state(self.path / f"pass.{self.passes()[-1]}.pt")
        return self.load() if self.epochs() else None

    def load(self, epoch: int | None = None) -> dict[str, Any]:
        """A checkpoint's contents (default: the last), read without running code.

        Raises
        ------
        InputError: there is none, or the file is damaged or not ours.
        """
        epochs = self.epochs()
        if not epochs:
            raise InputError(f"{self.path}: expected weights.N.pt, found none; is this a run directory, and did "
                             "it train?")
        if epoch is not None and epoch not in epochs:
            raise InputError(f"{self.path}: expected one of the epochs {', '.join(map(str, epochs))}, found {epoch}")
        name = self.path / f"weights.{epochs[-1] if epoch is None else epoch}.pt"
        state = _load_state(name)
        if not isinstance(state, dict) or "model" not in state:
            raise InputError(f"{name}: expected a cryorecon checkpoint, found something else")
        return state

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
        write_atomically(self.path / f"stage.{name}.pt", lambda p: _save_state(p, state))

    def drop_stage(self, name: str) -> None:
        """Forget a stage that led nowhere."""
        (self.path / f"stage.{name}.pt").unlink(missing_ok=True)

    def load_stage(self, name: str) -> dict[str, Any] | None:
        """What a stage had reached, None where it never began. Raises :class:`InputError` for a damaged file."""
        path = self.path / f"stage.{name}.pt"
        return _load_state(path) if path.is_file() else None

    def z(self, epoch: int | None = None) -> np.ndarray:
        """Latents ``(particles, d)`` of a checkpoint (default: the last)."""
        number = self.epochs()[-1] if epoch is None and self.epochs() else epoch
        path = self.path / f"z.{number}.npy"
        if not path.is_file():
            raise InputError(f"{path}: expected latents, found no file; a homogeneous run has none")
        return np.load(path, allow_pickle=False)

    def likelihood(self, epoch: int) -> np.ndarray | None:
        """What images say of z, ``(particles, d + d (d + 1) / 2)`` as :meth:`cryorecon.training.inferred.Latents.packed` has
        it; None where the run tells no uncertainty."""
        path = self.path / f"z_likelihood.{epoch}.npy"
        return np.load(path, allow_pickle=False) if path.is_file() else None

    def log(self, record: dict[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")

    def last_logged(self, name: str) -> float:
        """The number ``name`` of the last line of ``metrics.jsonl``; 0 where there is none."""
        lines = self._metrics()
        return float(json.loads(lines[-1]).get(name, 0)) if lines else 0.0

    def _metrics(self, last: float = float("inf")) -> list[str]:
        """The lines of ``metrics.jsonl`` about passes up to ``last``; what a kill has cut short is none."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
        return [line for line in lines if (epoch := _epoch_of(line)) is not None and epoch <= last]

    def drop_after(self, epoch: int) -> None:
        """Forget metrics of passes after ``epoch``: a resumed run makes them anew."""
        path = self.path / "metrics.jsonl"
        if path.is_file():
            lines = self._metrics(epoch)
            write_atomically(path, lambda p: p.write_text("".join(f"{line}\n" for line in lines)))


def _epoch_of(line: str) -> float | None:
    """The pass that a line of the metrics is about; None where a kill cut the line short."""
    try:
        return float(json.loads(line)["epoch"])
    except (json.JSONDecodeError, KeyError, TypeError, ValueError):
        return None
