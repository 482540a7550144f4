"""Can a critic tell our simulated backgrounds from real ice? 101 particles and 101 background patches of EMPIAR-10061.

A critic (CryoGAN's, as a classifier: cross-entropy, flips and transposes, trained afresh each time) sees what train_gan's
critic sees: phases flipped, whitened, windowed. The protocol is one for all rows. The patches were cut where they overlap, so
patches and particles that share pixels are first found by cross-correlation and kept together. For every seed these groups are
dealt into two halves: the real images come from the first, whatever the generator is made of (patches, spectra, corners of
particles) from the second; each half is dealt into folds, and the critic is tested on images of a fold of either half that it
was not trained on, each patch once. Knowing patches by heart is thus of no use to it. 0.5 is chance.

The error is the larger of two: between the groups of images, and between the seeds.

    python benchmarks/background.py --work scratch/background
    python benchmarks/background.py --work scratch/background --maps -o maps.json

``--maps`` instead: train_gan on the 101 particles, with the patches and with Gaussian noise, laid on the independent map;
beside it what the same images give with the star's poses, and what laying a mere ball on the map gives. FSC at 40 Å.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import common
import numpy as np
import torch
from common import Table, write_results
from scipy.ndimage import gaussian_filter
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

import cryorecon
from cryorecon.data.background import load_background, write_background
from cryorecon.data.corners import corner_patches
from cryorecon.data.load import load_particles
from cryorecon.data.loader import Batch, Loader, estimate_noise
from cryorecon.data.mrc import read_volume, write_volume
from cryorecon.data.preprocess import Preparation, prepare, prepare_images
from cryorecon.data.stack import ArraySource, ParticleStack
from cryorecon.geometry.grid import Grid
from cryorecon.imaging.masks import soft_sphere
from cryorecon.inference.conformation import CONFORMATIONS
from cryorecon.inference.pose import POSES
from cryorecon.metrics.alignment import align, apply
from cryorecon.metrics.fsc import fsc_curve
from cryorecon.metrics.resample import resample
from cryorecon.model import Model
from cryorecon.objectives.critic import ConvCritic
from cryorecon.objectives.noise_source import NoiseSource, Patches, gaussian
from cryorecon.objectives.simulator import Simulator
from cryorecon.training.config import GAN
from cryorecon.volumes.voxel_grid import VoxelGrid

DATA = "real_particles/betagal_empiar10061/betagal_"
MAP = "maps/betaGal_relion_tutorial_100.mrc.gz"
CHANCE = 0.08  # peak of the normalised cross-correlation; of images of different micrographs it is at most 0.07
SHARED = 0.15  # about the share of the pixels that two images have in common
AT_ONCE, VIEWS = 24, 32  # images of a kind in a step; of an image in a test
ASKED = 40.0  # Å of the FSC
MAPS_HEAD = ("map", f"FSC at {ASKED:g} Å", "s")
HEAD = ("real images", "against", "accuracy", "± 1 s.e.", "tested", "within 2 s.e. of 0.5")


@dataclass
class Data:
    """Particles and patches, prepared, the patches with their particles' CTFs. apart: groups ``(101,)`` of patches that share
    pixels. far: groups of particles and patches that share a good part of them."""

    grid: Grid
    particles: ParticleStack
    patches: ParticleStack
    noise: Tensor
    apart: np.ndarray
    far: np.ndarray
    raw: ParticleStack
    how: Preparation


def load(shared: Path, box: int) -> Data:
    """Patch i is of particle i's micrograph: the repository lists them so, and those that overlap bear it out."""
    raw = load_particles(f"{shared / DATA}101_b96.star").uninverted()
    ice = load_background(f"{shared / DATA}background_101_b96_f16.mrcs", raw)
    how = Preparation(box)

    def prepared(stack: ParticleStack) -> ParticleStack:
        images = prepare_images(stack.images(), box, how).numpy()
        return replace(raw, source=ArraySource(images), apix=raw.apix * raw.box / box, sign=1, white=True, files=())

    particles, patches = prepared(raw), prepared(ice)
    grid = Grid(box, particles.apix)
    return Data(grid, particles, patches, estimate_noise(particles, grid), groups(ice.images()[None], CHANCE),
                groups(torch.stack([raw.images(), ice.images()]), SHARED), raw, how)


def groups(images: Tensor, limit: float) -> np.ndarray:
    """Of images of k kinds ``(k, n, D, D)`` a number for each row ``(n,)``: rows with an image whose cross-correlation with one
    of the other's exceeds ``limit`` have the same."""
    kinds, n, box, _ = images.shape
    frequency = torch.fft.fftfreq(box) * box
    fine = (frequency[:, None].square() + frequency.square() > 16).float()  # what is coarse, protein too, is alike everywhere
    spectra = torch.fft.fft2(images.flatten(0, 1)) * fine
    spectra = spectra / spectra.abs().square().sum((1, 2), keepdim=True).sqrt() * box
    peak = torch.stack([torch.fft.ifft2(spectra * one.conj()).real.amax((1, 2)) for one in spectra])
    near = (peak > limit).view(kinds, n, kinds, n).any(2).any(0)
    return connected_components(near.numpy(), directed=False)[1]


def deal(group: np.ndarray, bins: int, seed: int) -> np.ndarray:
    """A bin ``(n,)`` for each row: whole groups, large ones first, each to the emptiest bin."""
    order = np.random.default_rng(seed)
    size = np.bincount(group)
    chosen, filled = np.zeros(len(size), int), order.random(bins)
    for one in np.argsort(-size + order.random(len(size))):
        chosen[one] = filled.argmin()
        filled[chosen[one]] += size[one]
    return chosen[group]


class EachOnce(Patches):
    """Patches in their order instead of at random."""

    def draw(self, image: Tensor) -> Tensor:
        """The first, the second, ..."""
        return torch.arange(len(image))


Maker = Callable[["Data", np.ndarray, np.ndarray, bool], Callable[[], Batch]]
"""(data, rows of the real images, rows that the generator is made of, whether each of these is to be used once, in order) to
what makes images: as many as either rows."""


def loaded(data: Data, stack: ParticleStack, rows: np.ndarray) -> Batch:
    """The rows' images, whitened by the particles' noise."""
    return Loader(stack, data.grid, data.noise, windowed=False).read(torch.from_numpy(rows))


def simulated(data: Data, batch: Batch, noise: NoiseSource, signal: Callable[[Batch], Tensor] | None = None) -> Batch:
    """A batch's simulated twin of this noise, with a signal or none."""
    with torch.no_grad():
        clean = torch.zeros_like(batch.data) if signal is None else signal(batch)
        return Simulator(data.grid, noise=noise).noisy(replace(batch, data=clean))


def source(data: Data, patches: ParticleStack, rows: np.ndarray, once: bool) -> Patches:
    """Our noise source, of some patches, brought to the particles' noise as train_gan does it."""
    chosen = replace(patches[rows], optics=None)
    level = float((estimate_noise(chosen, data.grid) / data.noise)[data.grid.shell].mean())
    return (EachOnce if once else Patches)(data.particles, Loader(chosen, data.grid, data.noise, windowed=False), level**-0.5)


def of_patches(data: Data, rows: np.ndarray, made_of: np.ndarray, once: bool) -> Callable[[], Batch]:
    """The patches of other ice, through the simulator."""
    batch, noise = loaded(data, data.patches, made_of if once else rows), source(data, data.patches, made_of, once)
    return lambda: simulated(data, batch, noise)


def of_corners(data: Data, rows: np.ndarray, made_of: np.ndarray, once: bool) -> Callable[[], Batch]:
    """Patches laid together of particles' corners, through the simulator; to learn from, eight times as many as corners."""
    chosen = data.raw[np.tile(made_of, 1 if once else 8)]
    laid = torch.cat([part for _, part in corner_patches(chosen, data.how.radius, seed=int(torch.randint(1 << 30, ())))])
    images = prepare_images(laid, data.grid.box, data.how).numpy()
    quilts = ParticleStack.from_images(images, data.grid.apix)
    batch, noise = loaded(data, data.patches, made_of if once else rows), source(data, quilts, np.arange(len(images)), once)
    return lambda: simulated(data, batch, noise)


def of_gauss(spectrum: str) -> Maker:
    """Gaussian noise: white, of the spectrum in the particles' corners (train_gan's own), or of that of other patches."""
    def make(data: Data, rows: np.ndarray, made_of: np.ndarray, once: bool) -> Callable[[], Batch]:
        batch = loaded(data, data.patches, made_of if once else rows)
        if spectrum == "corners":
            return lambda: simulated(data, batch, gaussian)
        shell = data.grid.shell
        power = data.grid.shell_mean(data.grid.spectra(data.patches.images(made_of)).abs().square().mean(0))[shell]
        scale = ((power.mean() if spectrum == "white" else power) / data.noise[shell]).sqrt()
        return lambda: simulated(data, batch, lambda batch: scale * gaussian(batch))

    return make


def of_map(density: Tensor, poses: str) -> Maker:
    """Images of a map in the patches' ice, at the particles' poses or at random ones."""
    def make(data: Data, rows: np.ndarray, made_of: np.ndarray, once: bool) -> Callable[[], Batch]:
        model = at_poses(data, density, poses)
        batch, noise = loaded(data, data.particles, made_of if once else rows), source(data, data.patches, made_of, once)
        return lambda: simulated(data, batch, noise, lambda batch: batch.power * model.predict(model.infer(batch))[:, 0])

    return make


def at_poses(data: Data, density: Tensor, poses: str) -> Model:
    """The map with the particles' poses, or a prior of random ones."""
    given = data.particles.poses
    assert given is not None
    pose = POSES["given"](given.rotation, given.shift) if poses == "given" else POSES["prior"](float(given.shift.abs().max()))
    return Model(data.grid, VoxelGrid.from_density(density[None], data.grid), pose, CONFORMATIONS["fixed"]())


def scaled_map(data: Data, shared: Path) -> Tensor:
    """The independent map on the particles' grid, as bright as the images say at the star's poses, below 20 Å."""
    values, voxel = read_volume(shared / MAP)
    density = resample(torch.from_numpy(values), voxel, data.grid.box, data.grid.apix)
    density = (density - density[soft_sphere(data.grid.box, 0.45 * data.grid.box, 1) == 0].mean()) * soft_sphere(
        data.grid.box, 0.42 * data.grid.box, 2)
    model = at_poses(data, density, "given")
    batch = loaded(data, data.particles, np.arange(len(data.particles)))
    band = data.grid.band(data.grid.box * data.grid.apix / 20)
    with torch.no_grad():
        predicted = model.predict(model.infer(batch), band)[:, 0]
    brightness = (batch.data[:, band].conj() * predicted).real.sum() / (batch.power[:, band] * predicted.abs().square()).sum()
    return float(brightness) * density


def varied(data: Data, batch: Batch, extent: float) -> Tensor:
    """What a critic sees of the batch's images, each moved round by at most ``extent`` Å, in one of its 8 flips and
    transposes."""
    shift = extent * (2 * torch.rand(len(batch), 2) - 1)
    images = Simulator(data.grid).images(replace(batch, data=batch.data * data.grid.phase_ramp(shift)))
    for dims in ((1,), (2,)):
        images = torch.where(torch.rand(len(images), 1, 1) < 0.5, images.flip(dims), images)
    return torch.where(torch.rand(len(images), 1, 1) < 0.5, images.mT, images)


def trained(data: Data, real: Batch, fake: Callable[[], Batch], extent: float, args: argparse.Namespace) -> ConvCritic:
    """A critic of real images and of fakes, made anew in every step; either are moved round by at most ``extent`` Å."""
    critic = ConvCritic(data.grid.box, args.critic_dim, 3)
    optimiser = torch.optim.AdamW(critic.parameters(), args.lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, args.lr, total_steps=args.steps)
    for _ in range(args.steps):
        one, other = (varied(data, batch.at(torch.randperm(len(batch))[:AT_ONCE]), extent) for batch in (real, fake()))
        target = torch.cat([torch.full((len(one),), 1.0), torch.full((len(other),), 0.0)])
        optimiser.zero_grad()
        weight = torch.cat([torch.full((len(x),), 0.5 / len(x)) for x in (one, other)])
        (weight * binary_cross_entropy_with_logits(critic(torch.cat([one, other])), target, reduction="none")).sum().backward()
        optimiser.step()
        schedule.step()
    return critic


def scores(data: Data, critic: ConvCritic, batch: Batch, extent: float) -> Tensor:
    """Mean logit ``(n,)`` over VIEWS of each image, moved and turned as in training."""
    with torch.no_grad():
        return torch.stack([critic(varied(data, batch, extent)) for _ in range(VIEWS)]).mean(0)


def judge(data: Data, stack: ParticleStack, make: Maker, args: argparse.Namespace) -> tuple[float, float, int]:
    """Mean accuracy over seeds and folds, its standard error, and how many images were judged in all."""
    extent = (0.5 * data.grid.box if stack is data.patches else 1.0) * data.grid.apix  # ice is alike everywhere
    group = data.apart if stack is data.patches and make is not of_corners else data.far
    right: list[tuple[int, int, float]] = []  # seed, group, whether an image was judged rightly
    for seed in range(args.seeds):
        torch.manual_seed(seed)
        dealt = deal(group, 2 * args.folds, seed)
        half, fold = dealt % 2, dealt // 2
        for k in range(args.folds):
            rows = {(h, t): np.flatnonzero((half == h) & ((fold == k) == t)) for h in (0, 1) for t in (False, True)}
            critic = trained(data, loaded(data, stack, rows[0, False]), make(data, rows[0, False], rows[1, False], False),
                             extent, args)
            real, fake = loaded(data, stack, rows[0, True]), make(data, rows[1, True], rows[1, True], True)()
            for h, found in ((0, scores(data, critic, real, extent) > 0), (1, scores(data, critic, fake, extent) < 0)):
                right += [(seed, int(group[row]), float(value)) for row, value in zip(rows[h, True], found, strict=True)]
    table = np.array(right)
    errors = []
    for column in (0, 1):
        means = [(table[table[:, column] == i, 2].sum(), (table[:, column] == i).sum()) for i in np.unique(table[:, column])]
        total, count = np.array(means).T
        spread = total - table[:, 2].mean() * count
        errors.append(float(np.sqrt(len(count) / max(len(count) - 1, 1) * np.square(spread).sum()) / count.sum()))
    return float(table[:, 2].mean()), max(errors), len(table)


def classes(args: argparse.Namespace) -> list[Table]:
    """A row for each pair of kinds of images."""
    data = load(args.shared, args.box)
    density = scaled_map(data, args.shared)
    kinds: list[tuple[str, str, ParticleStack, Maker]] = [
        ("patches", "patches of other ice, by our simulator", data.patches, of_patches),
        ("patches", "white Gaussian noise", data.patches, of_gauss("white")),
        ("patches", "Gaussian, spectrum of the particles' corners", data.patches, of_gauss("corners")),
        ("patches", "Gaussian, spectrum of other patches", data.patches, of_gauss("patches")),
        ("patches", "patches made of particles' corners", data.patches, of_corners),
        ("particles", "the map at the particles' poses, in patches", data.particles, of_map(density, "given")),
        ("particles", "the map at random poses, in patches", data.particles, of_map(density, "prior")),
        ("particles", "patches of other ice alone", data.particles, of_map(0 * density, "given")),
    ]
    rows = []
    for real, against, stack, make in kinds:
        began = time.monotonic()
        accuracy, error, tested = judge(data, stack, make, args)
        rows.append({"real": real, "against": against, "accuracy": accuracy, "error": error, "tested": tested,
                     "chance": "yes" if abs(accuracy - 0.5) <= 2 * error else "no", "seconds": time.monotonic() - began})
        print(f"{real} against {against}: {accuracy:.3f} +- {error:.3f}, {rows[-1]['seconds']:.0f} s", file=sys.stderr)
    print(f"groups of 101: {data.apart.max() + 1} of patches, {data.far.max() + 1} of all images", file=sys.stderr)
    return rows


def maps(args: argparse.Namespace) -> list[Table]:
    """A row for each way to a map."""
    raw = load_particles(f"{args.shared / DATA}101_b96.star").uninverted()
    ice = load_background(f"{args.shared / DATA}background_101_b96_f16.mrcs", raw)
    folder, how = args.work / "prepared", Preparation(args.box)
    prepare(raw, folder, how)
    assert raw.micrograph is not None
    patches = zip(raw.micrograph, ice.images()[:, None], strict=True)
    write_background(raw, patches, folder / "background.star", how)
    stack = load_particles(folder)
    values, voxel = read_volume(args.shared / MAP)
    truth, apix = resample(torch.from_numpy(values), voxel, args.box, stack.apix), stack.apix
    mask = soft_sphere(args.box, 0.42 * args.box, 2)
    rows = []

    def row(way: str, density: Tensor, laid: bool, began: float) -> None:
        placed = apply(align(density, truth, apix), density, apix).float() if laid else density
        curve = fsc_curve(placed, truth, mask)
        rows.append({"way": way, "fsc": float(np.interp(args.box * apix / ASKED, np.arange(len(curve.value)), curve.value)),
                     "seconds": time.monotonic() - began})
        write_volume(args.work / f"{len(rows)}.mrc", placed.numpy(), apix)
        print(rows[-1], file=sys.stderr)

    for group in ("C1", "D2"):
        row(f"the star's poses, {group}", cryorecon.backproject(stack, symmetry=group).density, False, time.monotonic())
    row("a ball, laid on the map", soft_sphere(args.box, 0.2 * args.box, 2), True, time.monotonic())
    generator = torch.Generator().manual_seed(0)
    blob = smooth_noise(args.box, generator) * soft_sphere(args.box, 0.25 * args.box, 4)
    row("smooth noise in a ball, laid on the map", blob, True, time.monotonic())
    for name, background in (("real ice", str(folder / "background.star")), ("Gaussian noise", None)):
        for seed in range(args.seeds):
            began, out = time.monotonic(), args.work / f"gan-{'ice' if background else 'gauss'}-{seed}"
            shutil.rmtree(out, ignore_errors=True)
            options = GAN | {"epochs": args.epochs, "batch": 26, "checkpoint": args.epochs, "background": background,
                             "seed": seed, "critic_width": args.critic_dim, "t_extent": 3.0, "device": "cpu"}
            run = cryorecon.train(folder, out, 0, **options)
            row(f"train_gan, {name}, seed {seed}", run.density(torch.zeros(1, 0))[0], True, began)
    return rows


def smooth_noise(box: int, generator: torch.Generator) -> Tensor:
    """A random density ``(D, D, D)``, smooth to about a tenth of the box."""
    white = torch.randn(box, box, box, generator=generator)
    return torch.from_numpy(gaussian_filter(white.numpy(), box / 20)).clamp(min=0)


def tables(results: Table) -> str:
    """The results in Markdown."""
    rows = results["rows"]
    if "way" in rows[0]:
        return common.markdown([[row[key] for key in ("way", "fsc", "seconds")] for row in rows], MAPS_HEAD)
    return common.markdown([[row[key] for key in ("real", "against", "accuracy", "error", "tested", "chance")] for row in rows],
                           HEAD)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--box", type=int, default=48, metavar="PX", help="to which images are cropped (default: 48)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="(default: 3)")
    parser.add_argument("--folds", type=int, default=4, metavar="N", help="(default: 4)")
    parser.add_argument("--steps", type=int, default=240, metavar="N", help="of a critic (default: 240)")
    parser.add_argument("--lr", type=float, default=0.01, metavar="R", help="(default: 0.01)")
    parser.add_argument("--critic-dim", type=int, default=4, metavar="N", help="(default: 4)")
    parser.add_argument("--maps", action="store_true", help="compare maps instead of images")
    parser.add_argument("--epochs", type=int, default=400, metavar="N", help="of train_gan (default: 400)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="(default: 1)")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where runs are kept")
    parser.add_argument("--shared", type=Path, default=common.SHARED, metavar="DIR", help="the shared data")
    parser.add_argument("-o", "--out", type=Path, metavar="JSON", help="results (default: WORK/background.json)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    results: Table = {"benchmark": "background", "code": common.code_version(), "written": common.now(),
                      "arguments": sys.argv[1:], "machine": common.machine(args.threads)}
    results["rows"] = (maps if args.maps else classes)(args)
    write_results(args.out or args.work / "background.json", results)
    print(tables(results))


if __name__ == "__main__":
    main()
