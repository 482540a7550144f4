"""The run directory as processes see it that don't lead: read, never written."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cryorecon import ranks
from cryorecon.training.config import RunConfig
from cryorecon.training.run_directory import RunDirectory


class Follower(RunDirectory):
    """A run directory whose every writer leaves it as it is: another process of the team writes the same."""

    @contextmanager
    def begun(self, config: RunConfig, command: list[str], resume: bool = False) -> Iterator[None]:
        """Nothing to begin, nothing to clean up."""
        yield

    def save(self, epoch: int, state: dict[str, Any], z: np.ndarray | None, likelihood: np.ndarray | None = None) -> None:
        """Left to the leader."""

    def save_pass(self, epoch: int, state: dict[str, Any]) -> None:
        """Left to the leader."""

    def save_samples(self, epoch: int, images: np.ndarray) -> None:
        """Left to the leader."""

    def save_stage(self, name: str, state: dict[str, Any]) -> None:
        """Left to the leader."""

    def drop_stage(self, name: str) -> None:
        """Left to the leader."""

    def log(self, record: dict[str, Any]) -> None:
        """Left to the leader."""

    def drop_after(self, epoch: int) -> None:
        """Left to the leader."""

    def write(self, name: str, write: Callable[[Path], object]) -> None:
        """Left to the leader."""


def run_directory(path: str | Path) -> RunDirectory:
    """The folder of a run, writable for the process that leads."""
    return RunDirectory(path) if ranks.leads() else Follower(path)
