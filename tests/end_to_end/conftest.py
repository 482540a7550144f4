"""A simulation on disk, as a user would make it."""

from pathlib import Path

import pytest

from cryorecon.cli.main import main


@pytest.fixture(scope="session")
def simulation(tmp_path_factory) -> Path:
    """300 images of 32 px of a hinge in five states, SNR 1: easy."""
    folder = tmp_path_factory.mktemp("simulation") / "hinge"
    assert main(["simulate", "--states", "5", "-n", "300", "-D", "32", "--apix", "6", "--snr", "1", "--max-shift", "1",
                 "-o", str(folder), "--device", "cpu"]) == 0
    return folder
