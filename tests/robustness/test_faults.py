"""A sample of the faults of :mod:`faults`, and defects planted so that its machinery must find them."""

import ast
import os
import signal
import sys
import warnings
from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # whatever pytest's way to import

import faults
from faults import Case, Child, Count, Writer

import cryorecon
from cryorecon.cli.main import main
from cryorecon.data import files
from cryorecon.data.loader import Batch
from cryorecon.data.mrc import StackWriter, write_volume
from cryorecon.data.parts import Room
from cryorecon.data.source import FileSource
from cryorecon.errors import InputError
from cryorecon.imaging.masks import soft_sphere
from cryorecon.inference.hypotheses import Hypotheses
from cryorecon.inference.pose.search import Plan, Search
from cryorecon.inference.pose.table import PoseTable
from cryorecon.objectives.likelihood import Likelihood
from cryorecon.training import build, fit, partial_pass
from cryorecon.training.config import RunConfig
from cryorecon.training.run_directory import RunDirectory
from cryorecon.volumes.raster import Raster

PACKAGE = Path(cryorecon.__file__).parent


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """The commands, of 48 images of 20 px."""
    faults.preload()
    return faults.cases(faults.simulated(tmp_path_factory.mktemp("data") / "few"))


@pytest.fixture
def count():
    """Must have nothing to complain of in the end."""
    made = Count()
    yield made
    assert made.bad == []
    assert sum(made.tried.values()) > 0


# --- a sample ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["preprocess", "train_vae, encoder", "train_gan"])
def test_killed_at_random(known, tmp_path, count, name):
    faults.kills(known[name], tmp_path, 2, count, seed=1)


def stopped(case: Case, out: Path, at: int) -> faults.Ended:
    """A run that gets SIGTERM before its ``at``-th batch of all."""
    def patch() -> None:
        real, numbers = fit.check, iter(range(1 << 30))

        def check() -> None:
            if next(numbers) == at:
                os.kill(os.getpid(), signal.SIGTERM)
            real()

        fit.check = check

    out.parent.mkdir(parents=True)
    return case.run(out, patch)


@pytest.mark.parametrize(("name", "at", "says"), [
    ("train_vae, encoder", 12, "stopped in epoch 2"), ("train_gan", 8, "stopped in epoch 2"),
    ("pose search", 3, "stopped after epoch 0"),
])
def test_sigterm_stops_between_batches_and_costs_no_bit(known, tmp_path, name, at, says):
    case = known[name]
    wanted = faults.undisturbed(case, tmp_path).results
    ended = stopped(case, tmp_path / "stopped" / "out", at)
    assert ended.code == 0, ended.said
    assert says in ended.said
    assert "--resume" in ended.said
    assert faults.half_files(tmp_path / "stopped" / "out") == []
    assert faults.finish(case, tmp_path / "stopped" / "out", wanted) == []


def test_no_batch_ends_in_time(known, tmp_path):
    """The process exits all the same, and its run goes on."""
    def hang() -> None:
        from cryorecon.training import stopping

        stopping.GRACE = 0.2
        fit.check = lambda: (os.kill(os.getpid(), signal.SIGTERM), signal.sigtimedwait([signal.SIGUSR2], 60))

    out = tmp_path / "one" / "out"
    out.parent.mkdir()
    ended = known["train_vae"].run(out, hang)
    assert ended.code == 0, ended.said
    assert ended.seconds < faults.WITHIN
    assert "--resume" in ended.said
    assert known["train_vae"].run(out).code == 0
    assert not (out / files.LOCK).exists()


def test_sigterm_ends_other_commands_as_ctrl_c_does(known, tmp_path):
    def die() -> None:
        faults.preprocess._write_note = lambda *_: os.kill(os.getpid(), signal.SIGTERM)

    ended = known["preprocess"].run(tmp_path / "out", die)
    assert ended.code == 143
    assert "cryorecon: terminated: the same command goes on" in ended.said


@pytest.mark.parametrize("name", ["preprocess", "train_vae"])
def test_two_at_once(known, tmp_path, count, name):
    faults.two_at_once(known[name], tmp_path, 1, count)


def test_stacks_that_break_while_they_are_read(known, tmp_path, count):
    case = known["preprocess"]
    faults.broken_reads(Path(case.argv[1]).with_suffix(".mrcs"), case, tmp_path, 2, count)


def test_writers_out_of_room_or_killed(tmp_path, count):
    faults.break_writers(faults.writers(), tmp_path, 1, count, mounted=False)


# --- planted defects -----------------------------------------------------------------------------------------------------


def in_place(path: Path) -> None:
    """A writer without a rename."""
    try:
        path.write_bytes(b"x" * 100_000)
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from None


def half(path: Path) -> None:
    """A writer that gives what it has its name, come what may."""
    temporary = path.with_name("t")
    try:
        write_volume(temporary, np.zeros((32, 32, 32)), 1.0)
    except OSError as error:
        path.write_bytes(b"short")
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from None
    temporary.replace(path)


def litterer(path: Path) -> None:
    """A writer that never removes its temporary file."""
    with files.atomic_path(path) as temporary:
        temporary.with_name(".litter").write_bytes(b"")
        temporary.write_bytes(b"x" * 100_000)


@pytest.mark.parametrize(("write", "deadly", "says"), [
    (in_place, False, "lost the file"), (in_place, True, "lost the file"), (half, False, "lost the file"),
    (litterer, False, "litter .litter"),
])
def test_a_planted_writer_is_found(tmp_path, write, deadly, says):
    complaints = faults.tried(Writer("map.mrc", write), tmp_path, 50_000, deadly, False)
    assert any(says in one for one in complaints), complaints


def test_a_planted_command_that_leaves_half_checkpoints_is_found(known, tmp_path):
    def patch() -> None:
        def save(directory: RunDirectory, epoch: int, state: dict, *_: object) -> None:
            with (directory.path / f"weights.{epoch}.pt").open("wb") as file:
                torch.save(state, file)
                file.truncate(file.tell() // 2)
                os.kill(os.getpid(), signal.SIGKILL)

        RunDirectory.save = save

    out = tmp_path / "one" / "out"
    out.parent.mkdir()
    assert known["train_vae"].run(out, patch).code == -signal.SIGKILL
    assert any("half weights.0.pt" in one for one in faults.half_files(out))


def test_a_planted_resume_that_forgets_the_random_state_is_found(known, tmp_path):
    case = known["train_vae, encoder"]
    wanted = faults.undisturbed(case, tmp_path).results
    out = tmp_path / "stopped" / "out"
    assert stopped(case, out, 12).code == 0

    def forget() -> None:
        partial_pass.set_random_state = lambda state, *generators: None

    assert case.run(out, forget).code == 0
    complaints = faults.differing(faults.results(out), wanted)
    assert any("other contents of weights" in one for one in complaints)


WRITES = ("write_text", "write_bytes", "np.savetxt", "np.save", "np.savez", "torch.save", "drawn.savefig")
OURS = ("temporary", "file", "p", "SimpleNamespace(write=file.write)", "SimpleNamespace(write=write, flush=file.flush)")


def unguarded(text: str) -> list[str]:
    """Calls that write a file under another name than that which atomic_path gave."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner, name = ast.unparse(node.func.value), node.func.attr
        words = [ast.unparse(argument) for argument in node.args]
        if name == "open":
            writes, target = bool(words) and words[0][:2] in ("'w", "'x", "'a"), owner
        elif name in WRITES:
            writes, target = True, owner
        else:
            writes, target = f"{owner}.{name}" in WRITES, words[owner == "torch"] if len(words) > 1 else "".join(words)
        if writes and target not in OURS:
            found.append(ast.unparse(node))
    return found


ALLOWED = {"training/checkpoint_file.py": Counter({"checkpoint": 1})}


def test_every_writer_goes_through_a_temporary_name():
    """But for two logs, whose lines :func:`append_text` appends, and the function that is called with a temporary name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        calls = Counter("checkpoint" if one == "path.open('wb')" else one for one in unguarded(path.read_text()))
        if calls:
            found[str(path.relative_to(PACKAGE))] = calls
    assert found == ALLOWED
    for planted in ("path.write_text('x')", "np.savetxt(out, x)", "np.save(path, x)", "name.open('w')", "drawn.savefig(out)",
                    "torch.save(x, out)"):
        assert unguarded(planted)


# --- the mechanism -------------------------------------------------------------------------------------------------------


def test_litter_of_the_dead_is_removed_and_that_of_the_living_stays(tmp_path):
    (tmp_path / "a").mkdir()
    dead = tmp_path / "a" / f".x.npy{files.TEMPORARY}"
    dead.write_bytes(b"half")
    (tmp_path / ".other.tmp").write_bytes(b"not ours")
    with files.atomic_path(tmp_path / "a" / "y.npy") as temporary, files.exclusive(tmp_path):
        assert not dead.exists()
        temporary.write_bytes(b"whole")
    assert (tmp_path / "a" / "y.npy").read_bytes() == b"whole"
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".other.tmp", "a", "y.npy"]


def test_one_writer_at_a_time(tmp_path):
    with files.atomic_path(tmp_path / "x") as temporary, pytest.raises(InputError, match="found another process"):
        temporary.write_bytes(b"1")
        with files.atomic_path(tmp_path / "x"):
            raise AssertionError
    assert (tmp_path / "x").read_bytes() == b"1"
    with StackWriter(tmp_path / "s.mrcs", 4, 1.0), pytest.raises(InputError, match=r"s\.mrcs: expected to be the only one"):
        StackWriter(tmp_path / "s.mrcs", 4, 1.0)


def test_a_new_stack_is_never_beside_an_old_star(tmp_path):
    star = tmp_path / "s.star"
    star.write_text("old")
    with StackWriter(tmp_path / "s.mrcs", 4, 1.0, star=star) as out:
        out.append(np.zeros((1, 4, 4), np.float32))
        assert star.exists()
    assert not star.exists()


def test_a_torn_line_of_metrics_is_passed_over(tmp_path):
    run = RunDirectory(tmp_path)
    run.log({"epoch": 1, "cpu_seconds": 3.0})
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"epoch": 2, "cpu_\xff\0')
    assert run.last_logged("cpu_seconds") == 3.0


def test_a_file_that_shrinks_is_one_line(tmp_path):
    with StackWriter(tmp_path / "s.mrcs", 64, 1.0) as out:
        out.append(np.zeros((20, 64, 64), np.float32))
    source = FileSource.open([tmp_path / "s.mrcs"])
    os.truncate(tmp_path / "s.mrcs", 5000)
    with pytest.raises(InputError, match=r"s\.mrcs: expected .* bytes, found 5000; the file has shrunk"):
        source.read(np.arange(20))


# --- memory of a GPU -----------------------------------------------------------------------------------------------------


def batch_of(images: int) -> Batch:
    number = torch.arange(images)
    return Batch(torch.zeros(images, 3, dtype=torch.complex64), torch.ones(images, 3), torch.zeros(images), number, number // 2)


def test_work_goes_on_in_halves():
    room, seen = Room(), []

    def work(part: Batch) -> list[int]:
        if len(part) > 6:
            raise torch.cuda.OutOfMemoryError
        seen.append(len(part))
        return part.image.tolist()

    with pytest.warns(UserWarning, match=r"memory did not hold (8|4) particles at once; going on with [42]") as said:
        results = list(chain.from_iterable(room.parts(batch_of(30), 8, work)))
    assert len(said) == 2
    assert results == list(range(30))
    assert max(seen) == 4  # images
    assert room.most == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(chain.from_iterable(room.parts(batch_of(30), 8, work))) == list(range(30))  # it is known by now
    with pytest.raises(InputError, match="memory for one particle"), pytest.warns(UserWarning, match="memory did not hold 2"):
        list(Room().parts(batch_of(4), 2, lambda part: (_ for _ in ()).throw(torch.cuda.OutOfMemoryError())))


def limited(monkeypatch, owner, name, most, argument):
    """``owner.name`` runs out of memory where its ``argument``-th argument holds more than ``most`` images."""
    real = getattr(owner, name)

    def work(self, *arguments):
        if len(arguments[argument]) > most:
            raise torch.cuda.OutOfMemoryError
        return real(self, *arguments)

    monkeypatch.setattr(owner, name, work)


def test_training_goes_on_with_smaller_chunks(known, tmp_path, monkeypatch, capsys):
    """Gradients of chunks add up to the same, whatever their size, but for rounding; the random numbers are the same."""
    argv = [*known["train_vae, encoder"].argv[:-1], "0.6", "-o"]
    assert main([*argv, str(tmp_path / "whole")]) == 0
    capsys.readouterr()
    limited(monkeypatch, Likelihood, "loss", 3, 2)
    with pytest.warns(UserWarning, match="the GPU's memory did not hold"):
        assert main([*argv, str(tmp_path / "halves")]) == 0
    whole, halves = (RunDirectory(tmp_path / name).load()["model"] for name in ("whole", "halves"))
    for key, values in whole.items():
        torch.testing.assert_close(halves[key], values, rtol=2e-3, atol=2e-4)


def test_a_search_goes_on_with_fewer_particles(known, monkeypatch):
    problem = build.open_data(RunConfig(known["train_nn"].argv[1], zdim=0, conformation="fixed"))
    grid = problem.grid
    density = soft_sphere(grid.box, 6, 2)[None] * torch.rand(1, 20, 20, 20, generator=torch.Generator().manual_seed(0))
    batch = problem.loader(torch.ones(grid.n_shells), True).of(torch.arange(48))
    found = []
    for most in (48, 10):
        table = PoseTable.unknown(48, None, grid.device)
        search = Search(grid, table, Plan(10.0, 1, 3, 1, 5.0, 7.0, keep=2))
        search.look_at(Raster(density, grid, 7.0))
        with monkeypatch.context() as patch:
            limited(patch, Search, "_search", most, 0)
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                found.append((search(Hypotheses.empty(48, grid.device), batch), search.survivors))
        assert bool(said) == (most == 10)
    (whole, survivors), (halves, others) = found
    assert torch.equal(whole.rotation, halves.rotation)
    assert torch.equal(whole.shift, halves.shift)
    assert survivors == others


def test_what_cannot_be_halved_is_one_line(known, tmp_path, monkeypatch, capsys):
    from cryorecon.objectives.adversarial import Adversarial

    limited(monkeypatch, Adversarial, "_critic", 1, 1)
    assert main([*known["train_gan"].argv, "-o", str(tmp_path / "out")]) == 2
    assert "expected GPU memory for this step" in capsys.readouterr().err


def test_a_child_that_dies_of_a_defect_is_seen(tmp_path):
    ended = Child(lambda: 1 // 0, tmp_path / "log").wait()
    assert ended.code == 1
    assert ended.traceback
