"""The example of docs/methods/python.md runs as it stands there."""

import re
from pathlib import Path

import numpy as np
import pytest

import cryorecon
from cryorecon import api
from cryorecon.cli.main import COMMANDS
from cryorecon.data.mrc import read_volume

PAGE = Path(__file__).resolve().parents[2] / "docs" / "methods" / "python.md"
README = PAGE.parents[2] / "README.md"


def blocks(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = blocks(PAGE)[0]
    assert len([line for line in code.splitlines() if line and not line.startswith("#")]) <= 11
    seen = {}
    exec(compile(code, str(PAGE), "exec"), seen)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2
    assert all("first crossing" in line for line in printed)
    assert seen["maps"].shape == (2, 24, 24, 24)
    assert read_volume("first.mrc")[1] == pytest.approx(8.0)
    truth = seen["truth"].state.numpy()[seen["order"]]
    assert abs(truth[:100].mean() - truth[-100:].mean()) > 1, "z follows the hinge"
    assert cryorecon.load_run("run").epoch == 2


def test_the_second_example_names_what_there_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(cryorecon.InputError, match=r"particles\.star"):
        exec(compile(blocks(PAGE)[1], str(PAGE), "exec"), {})
    assert list(tmp_path.iterdir()) == []


def test_every_call_of_the_table_exists():
    from importlib import import_module

    for dotted in re.findall(r"`(cryorecon(?:\.\w+)+)", PAGE.read_text()):
        parts = dotted.split(".")
        if len(parts) == 2:
            assert hasattr(cryorecon, parts[1]), dotted
            continue
        try:
            import_module(dotted)
        except ModuleNotFoundError:
            assert hasattr(import_module(".".join(parts[:-1])), parts[-1]), dotted


def test_every_command_is_in_the_table():
    rows = [line.split("|")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert set(COMMANDS) <= listed


def test_readme_shows_the_same_example():
    if "import cryorecon" in README.read_text():
        assert blocks(PAGE)[0] in README.read_text()


def test_names_of_the_package():
    assert sorted(cryorecon.__all__) == sorted(api.__all__)
    assert all(hasattr(cryorecon, name) for name in cryorecon.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = cryorecon.nonsense


def test_a_run_in_memory_goes_on_and_is_guarded(tmp_path):
    stack, _ = cryorecon.simulate_stack(cryorecon.flexible("hinge", 2), n=40, box=20, apix=9.0, snr=1.0, max_shift=1)
    small = {"width": 16, "layers": 1, "device": "cpu"}
    first = cryorecon.train(stack, tmp_path / "run", 0, epochs=1, symmetry="C2", **small)
    assert (first.epoch, first.z.shape) == (1, (40, 0))
    assert first.density(first.z[:1]).shape == (1, 20, 20, 20)
    with pytest.raises(cryorecon.InputError, match="another run"):
        cryorecon.train(stack, tmp_path / "run", 0)
    with pytest.raises(cryorecon.InputError, match="width"):
        cryorecon.train(stack, tmp_path / "run", 0, resume=True, width=17)
    heard = []
    again = cryorecon.train(stack, tmp_path / "run", 0, resume=True, epochs=2, report=lambda *said: heard.append(said[0]))
    assert again.epoch == 2
    assert "epoch 2" in heard
    symmetric, _ = read_volume(tmp_path / "run/reconstruct.2.mrc")
    inside = symmetric[:, 1:, 1:]
    np.testing.assert_allclose(inside, inside[:, ::-1, ::-1], atol=2e-3 * np.abs(inside).max())
    part = cryorecon.train(stack[::2], tmp_path / "part", 1, epochs=1, conformation="table", atoms=5, **small)
    assert part.z.shape == (20, 1), "a selection's particles are numbered anew"
    with pytest.raises(cryorecon.InputError, match="in memory"):
        cryorecon.image_fits(again.directory)
    assert np.isfinite(cryorecon.image_fits(again.directory, stack=stack).energy).all()
