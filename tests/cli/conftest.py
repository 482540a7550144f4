"""What tests of commands share: a small simulation on disk, and the one line of a command that must fail."""

import pytest

from cryorecon.cli.main import main
from cryorecon.simulation.experiment import Experiment, ctf_table
from cryorecon.simulation.motion import flexible
from cryorecon.simulation.write import write_simulation
from cryorecon.training import adversarial


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Makes a folder of ``n`` images of a hinge with some states, ``box`` px, 9 Å/px, SNR 1."""
    def make(states, n, box, max_shift):
        folder = tmp_path_factory.mktemp("data") / "sim"
        write_simulation(flexible("hinge", states), Experiment(n, box, 9.0, 1.0, max_shift, optics=ctf_table(None)), folder)
        return folder

    return make


@pytest.fixture
def error_of(capsys):
    """The one line of a command that must fail with code 2."""
    def said(*arguments):
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cryorecon: error: ")]
        assert len(lines) == 1, lines
        return lines[0].removeprefix("cryorecon: error: ")

    return said


@pytest.fixture
def cut_short(monkeypatch):
    """Runs a command of a game that is interrupted in its second pass; its exit code."""
    def run(*arguments):
        whole = adversarial.fit

        def fit(*parts):
            for record in whole(*parts):
                if record.epoch == 2 and record.particles >= 16:
                    raise KeyboardInterrupt
                yield record

        with monkeypatch.context() as patch:
            patch.setattr(adversarial, "fit", fit)
            return main([str(argument) for argument in arguments])

    return run
