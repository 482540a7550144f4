"""A training run as the terminal sees it: bar, lines, log, and how it ends. ``train_nn``, ``train_vae`` and
``train_gan`` share this."""

import argparse
import re
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from cryorecon import ranks
from cryorecon.cli.idle import idle
from cryorecon.cli.options import configuration, given, spelled
from cryorecon.data.files import FULL, append_text
from cryorecon.errors import InputError, Stopped

if TYPE_CHECKING:
    from cryorecon.training.config import RunConfig
    from cryorecon.training.fit import Record
    from cryorecon.training.run_directory import RunDirectory

UNITS = {"apix": " Å/px", "box": " px", "images": " images", "particles": " particles"}  # numbers that need no name


class Console:
    """Lines on stderr and, with the time, in ``run.log``; a bar below them where stderr is a terminal.

    log: path of ``run.log``; None: says nothing, another process does. epochs: of the whole run. done: those behind it.
    """

    def __init__(self, log: Path | None, epochs: int, done: int = 0):
        self.log, self.epochs, self.done = log, epochs, done
        self.images = self.per_particle = 0.0
        self.seen = 0
        self.bar: tqdm | None = None
        self.began = time.monotonic()

    def line(self, text: str) -> None:
        """One line, here and in the log."""
        if self.log is not None:
            tqdm.write(text, file=sys.stderr)
        self.note(text)

    def note(self, text: str) -> None:
        """One line of the log."""
        if self.log is None:
            return
        append_text(self.log, f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")

    def stage(self, name: str, values: dict[str, float]) -> None:
        """A stage before the network."""
        if name == "particles":
            self.images, self.per_particle = values["images"], values["images"] / values["particles"]
        self.line(described(name, values))

    def record(self, record: "Record") -> None:
        """Progress of the network."""
        if self.bar is None:
            self.began = time.monotonic()
            self.bar = tqdm(total=int(self.images) * (self.epochs - self.done), unit="img", disable=None if self.log else True,
                            dynamic_ncols=True, smoothing=0.05)
        now = (record.epoch - 1 - self.done) * int(self.images) + round(record.particles * self.per_particle)
        now = min(now, (record.epoch - self.done) * int(self.images))
        means = record.means()
        self.bar.set_description(f"epoch {record.epoch}/{self.epochs}", refresh=False)
        self.bar.set_postfix_str(_progress(means), refresh=False)
        self.bar.update(now - self.seen)
        self.seen = now
        if record.done:
            rate = now / max(time.monotonic() - self.began, 1e-9)
            left = (self.epochs - record.epoch) * self.images / rate
            self.line(f"epoch {record.epoch}/{self.epochs}: {_result(means)}, {rate:.0f} images/s, "
                      f"{tqdm.format_interval(left)} left")

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self.bar is not None:
            self.bar.close()


def _progress(means: dict[str, float]) -> str:
    """What the bar shows: of a likelihood its loss, of a game the critic's distance, or real images' likelihood beside
    simulated ones'."""
    if "energy" in means:
        return f"loss {means['energy']:.4f}"
    return f"contrast {means['contrast']:.3f}" if "contrast" in means else f"distance {means['distance']:.3f}"


def _result(means: dict[str, float]) -> str:
    """What the line of an epoch shows."""
    if "energy" in means:
        return f"loss {means['energy']:.5f} nats a point, kl {means['kl']:.4g}"
    if "contrast" in means:
        return f"contrast {means['contrast']:.3f} nats, generator gradient {means.get('generator_gradient', 0):.3g}"
    return (f"critic distance {means['distance']:.3f}, slope {means['critic_slope']:.3f}, generator gradient "
            f"{means.get('generator_gradient', 0):.3g}")


def described(stage: str, values: dict[str, float]) -> str:
    """What a stage reports, as a line."""
    parts = []
    for key, value in values.items():
        number = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
        name, unit = (key[:-2], " Å") if key.endswith("_A") else (key, "")
        parts.append(number + UNITS[key] if key in UNITS else f"{name.replace('_', ' ')} {number}{unit}")
    return f"{stage}: " + ", ".join(parts)


def run(args: argparse.Namespace, name: str, preset: dict[str, Any]) -> "RunDirectory":
    """Train as ``args`` say, afresh or from the last checkpoint; ``preset``: fields that subcommand ``name`` settles.

    Raises
    ------
    InputError: bad input of any kind, a full disk. KeyboardInterrupt: with a message that says how to continue.
    """
    with ranks.joined():
        return _run(args, name, preset)


def _run(args: argparse.Namespace, name: str, preset: dict[str, Any]) -> "RunDirectory":
    from cryorecon.training.follower import run_directory

    directory = run_directory(args.outdir)
    command = ["cryorecon", *sys.argv[1:]]
    resume = args.resume or args.load is not None
    table = given(args)
    done = max(directory.epochs(), default=0) if resume else 0
    if resume:
        other = command_of(directory.config())
        if name != other:
            raise InputError(f"{args.outdir}: expected a run of {name}, found one of {other}; resume it with that command")
        config = directory.resumed(table, spelled)
    else:
        config = configuration(preset | table)
    short = f"cryorecon {name} {shlex.quote(args.particles)} -o {shlex.quote(args.outdir)}"
    carry_out(config, directory, (command, short), done if resume else None, table)
    return directory


def carry_out(config: "RunConfig", directory: "RunDirectory", commands: tuple[list[str], str], done: int | None = None,
              table: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Train ``config`` into ``directory`` with a bar, lines, a log and pictures.

    commands: the one that is kept, and the one that goes on after an interrupt. done: epochs of a run that goes on; None: it
    begins. table: fields that were named, to be told which of them change nothing.
    """
    from cryorecon.training.stopping import on_sigterm
    from cryorecon.training.train import train

    command, short = commands
    resume = done is not None
    console = Console(directory.path / "run.log" if ranks.leads() else None, config.epochs, done or 0)

    def report(stage: str, values: dict[str, float]) -> None:
        console.stage(stage, values)
        if stage == "particles":  # only now it is known whether they have poses
            for line in idle(config, table, searched=not values["given_poses"]):
                console.line(f"cryorecon: warning: {line}")

    def last_words() -> None:
        console.line("cryorecon: stopped in the middle of a batch; " + _how(directory, short, begun=True))

    with directory.begun(config, command, resume), _ending(directory, console, short), on_sigterm(last_words):
        console.note(" ".join(map(shlex.quote, command)))
        if resume:
            console.line(f"resumed after epoch {done}")
        for record in train(config, directory, resume, report):
            console.record(record)
            if ranks.leads():
                _draw_samples(directory)
        if ranks.leads():
            _draw_samples(directory)
            _draw_poses(directory)


def command_of(config: "RunConfig") -> str:
    """The command that makes such runs."""
    if config.objective == "adversarial":
        return "train_gan"
    return "train_nn" if config.zdim == 0 else "train_vae"


def _draw_samples(directory: "RunDirectory") -> None:
    """``samples.N.png``: real and simulated images of the last checkpoint, where a run keeps them."""
    path = directory.path / f"samples.{max(directory.epochs(), default=0)}.npy"
    drawn = path.with_suffix(".png")
    if path.is_file() and not drawn.is_file():
        from cryorecon.data.arrays import read_numbers
        from cryorecon.report.projection_plots import projection_plot
        from cryorecon.report.style import save

        save(projection_plot(read_numbers(path, "images of the run")), drawn)


def _draw_poses(directory: "RunDirectory") -> None:
    """``poses.N.png``: the orientation distribution, where the run found or refined poses."""
    found = (re.fullmatch(r"poses\.(\d+)\.pkl", path.name) for path in directory.path.glob("poses.*.pkl"))
    numbers = [int(match[1]) for match in found if match]
    if not numbers:
        return
    from cryorecon.data.cryodrgn_files import read_poses
    from cryorecon.report.pose_plots import orientation_plot

    state, path = directory.load(), directory.path / f"poses.{max(numbers)}.pkl"
    orientation_plot(read_poses(path, state["box"], state["apix"]).rotation, path.with_suffix(".png"))


def _how(directory: "RunDirectory", command: str, begun: bool = False) -> str:
    """Where a run stops and how it goes on; ``begun``: its folder stays, whatever is in it."""
    epochs, passes = directory.epochs(), directory.passes()
    where = f"in epoch {passes[-1]}" if passes else f"after epoch {max(epochs, default=0)}"
    if epochs or directory.has_stages():
        return f"stopped {where}; continue with: {command} --resume"
    again = f"go on with: {command} --resume" if begun else "begin again with the same command"
    return f"stopped before the first checkpoint; {again}"


@contextmanager
def _ending(directory: "RunDirectory", console: Console, command: str) -> Iterator[None]:
    """Turns an interrupt, a SIGTERM and a full disk into a line that says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_how(directory, command)) from None
    except Stopped:
        how = _how(directory, command, begun=True)
        console.note(how)
        raise Stopped(how) from None
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise InputError(f"{error.filename or directory.path}: expected room to write, found no space left on the device; "
                         f"{_how(directory, command)} when there is room") from error
    finally:
        console.close()
