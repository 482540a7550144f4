"""Make the pictures of README and docs by running the commands that the docs show.

    python docs/make_pictures.py [--data ../shared/data] [--work pictures_work] [--demo demo] [-o docs/pictures]

Runs that are already in --work are used again; --demo is what ``make demo`` made, and is made where absent (some minutes).
Pictures of real data are made where --data is.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from cryorecon.analysis.clusters import kmeans
from cryorecon.analysis.latent import fit_pca
from cryorecon.data.load import load_particles, read_metadata
from cryorecon.data.mrc import read_volume
from cryorecon.geometry.fourier import centred_fft, centred_ifft
from cryorecon.geometry.grid import Grid
from cryorecon.geometry.rotations import from_rotation_vector, random
from cryorecon.imaging.ctf import ctf
from cryorecon.imaging.masks import radius_map
from cryorecon.metrics.fsc import FSCCurve, fsc_curve
from cryorecon.metrics.pose_error import pose_error
from cryorecon.metrics.resample import match
from cryorecon.report import maps, plots
from cryorecon.report.pose_plots import pose_errors
from cryorecon.report.style import ALONG, GREY, INK, LINES, figure, save, style
from cryorecon.report.surface import Colour, default_level, principal_view, render, turned
from cryorecon.training.trained import Trained, load_run
from cryorecon.volumes.voxel_grid import VoxelGrid

DPI, LIMIT = 110, 200_000  # bytes of a picture
BLUE, SAND = (0.45, 0.62, 0.82), (0.85, 0.72, 0.52)
RIBOSOME = "warptools_test_4-tomos_10-ptcls_box-32_angpix-12"


def command(*arguments: str | Path) -> None:
    """Run ``cryorecon`` with these arguments unless what follows -o is there."""
    if not Path(arguments[arguments.index("-o") + 1]).exists():
        print("$ cryorecon", *arguments, flush=True)
        subprocess.run([sys.executable, "-m", "cryorecon", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def density_of(path: Path) -> tuple[Tensor, float]:
    """A map and its pixel size."""
    array, apix = read_volume(path)
    return torch.from_numpy(array), apix


def written(drawn: Figure, path: Path, grey: bool = False) -> None:
    """Save a picture in 128 colours, or 32 greys, and say so if it is too large for the repository."""
    save(drawn, path, DPI)
    picture = Image.open(path).convert("L" if grey else "RGB")
    picture = picture.point([8 * (i // 8) + i // 32 for i in range(256)]) if grey else picture.quantize(128)
    picture.save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path}: {size / 1e3:.0f} kB" + (" TOO LARGE" if size > LIMIT else ""))


def planted_poses(out: Path) -> None:
    """pose_errors.png: 2,000 poses with errors that grow with the defocus, one in eight lost."""
    generator = torch.Generator().manual_seed(0)
    truth, defocus = random(2000, generator), 8000 + 17000 * torch.rand(2000, generator=generator)
    spread = torch.deg2rad(1 + 3 * (defocus - 8000) / 17000)
    estimated = from_rotation_vector(spread[:, None] * torch.randn(2000, 3, generator=generator)) @ truth
    estimated[::8] = random(250, generator)
    shift = 1.5 * torch.randn(2000, 2, generator=generator)
    found = pose_error(estimated, truth, shift, torch.zeros(2000, 2))
    drawn = pose_errors(found.angle.numpy(), truth.numpy(), found.frame.into_truth(estimated).numpy(), found.shift.numpy(),
                        "Å", defocus.numpy())
    written(drawn, out / "pose_errors.png")


# --- the demo: a simulated molecule whose arm swings ---


def demo(folder: Path) -> None:
    """What examples/demo.sh runs of it."""
    data, run = folder / "data", folder / "run"
    command("simulate", "--motion", "hinge", "--states", "20", "-n", "4000", "-D", "64", "--apix", "3", "--snr", "0.1", "-o",
            data)
    command("train_vae", data / "particles.mrcs", "--poses", data / "poses.pkl", "--ctf", data / "ctf.pkl", "--zdim", "4",
            "-n", "2", "-o", run)


def predictions(run: Trained, folder: Path, chosen: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Images ``(n, D, D)`` of these particles, and what the run expects of each at its own z, pose and CTF."""
    data = folder / "data"
    stack = load_particles(data / "particles.mrcs", poses=data / "poses.pkl", ctf=data / "ctf.pkl")[np.array(chosen)]
    grid = Grid(stack.box, stack.apix)
    transfer = ctf(stack.optics, grid.frequency) * grid.phase_ramp(-stack.poses.shift)
    expected = []
    for i, density in enumerate(run.density(run.z[list(chosen)])):
        volume = VoxelGrid.from_density(density[None], grid)
        with torch.no_grad():
            slices = volume.slices(stack.poses.rotation[i : i + 1, None], torch.zeros(1, 1, 0), slice(0, grid.n))
        expected.append(grid.images(slices[0, 0] * transfer[i]))
    return stack.images().numpy(), torch.stack(expected).numpy()


@style()
def latents_and_truth(z: np.ndarray, coordinate: np.ndarray) -> Figure:
    """Left: the latents' plane. Right: the first component against the true coordinate."""
    pca = fit_pca(z)
    plane = pca.project(z)[:, :2]
    if np.corrcoef(plane[:, 0], coordinate)[0, 1] < 0:
        plane[:, 0] *= -1  # a component's sign is arbitrary
    drawn = figure(7.4, 3.1)
    left, right = drawn.add_subplot(1, 2, 1), drawn.add_subplot(1, 2, 2)
    dots = left.scatter(*plane.T, c=coordinate, cmap=ALONG, s=5, alpha=0.7, linewidths=0, rasterized=True)
    names = plots.component_names(pca.explained)
    left.set(xlabel=names[0], ylabel=names[1], title=f"{len(z):,} particles")
    states, rng = np.unique(coordinate), np.random.default_rng(0)
    jitter = rng.uniform(-0.3, 0.3, len(z)) * float(np.diff(states).min())
    right.scatter(coordinate + jitter, plane[:, 0], c=coordinate, cmap=ALONG, s=4, alpha=0.45, linewidths=0,
                  rasterized=True)
    right.plot(states, [np.median(plane[coordinate == each, 0]) for each in states], color=INK, linewidth=1.2)
    ranks = [np.argsort(np.argsort(values)) for values in (plane[:, 0], coordinate + 1e-9 * jitter)]
    right.set(xlabel="true position of the arm", ylabel="first component of z",
              title=f"Spearman {abs(np.corrcoef(*ranks)[0, 1]):.2f}")
    bar = drawn.colorbar(dots, ax=[left, right], shrink=0.8, aspect=28, pad=0.02)
    bar.set_label("true position of the arm", fontsize=8)
    bar.solids.set_alpha(1)
    bar.outline.set_visible(False)
    return drawn


def along(z: np.ndarray, state: np.ndarray, percentiles: Sequence[int]) -> tuple[np.ndarray, list[int]]:
    """Mean latents ``(n, d)`` of the particles about each percentile of the first component, and their median states."""
    order = np.argsort(fit_pca(z).project(z)[:, 0])
    reach = len(z) // 50
    about = [order[max(0, i - reach) : i + reach] for i in (len(z) * p // 100 for p in percentiles)]
    return np.stack([z[each].mean(0) for each in about]), [int(np.median(state[each])) for each in about]


@style()
def found_and_true(found: Sequence[Tensor], true: Sequence[Tensor], labels: Sequence[str]) -> Figure:
    """The run's maps above, the true ones of the same particles below, from one side and at one level a row."""
    drawn = figure(1.5 * len(found), 3.5)
    mean = torch.stack(list(true)).mean(0)
    view = principal_view(mean, default_level(mean))
    for row, volumes in enumerate((found, true)):
        level = default_level(torch.stack(list(volumes)).mean(0))
        for i, (density, label) in enumerate(zip(volumes, labels, strict=True)):
            shade = ALONG(i / (len(labels) - 1))
            axes = drawn.add_subplot(2, len(found), row * len(found) + i + 1)
            colour = (0.3 + 0.7 * shade[0], 0.3 + 0.7 * shade[1], 0.3 + 0.7 * shade[2])
            _surface(axes, density, view, colour, label if row == 0 else "truth", 1.25, level)
    return drawn


def demo_pictures(folder: Path, out: Path) -> None:
    """particles.png, latents.png, motion.png."""
    demo(folder)
    run = load_run(folder / "run", device="cpu")
    with np.load(folder / "data" / "truth.npz") as truth:
        state, coordinate = truth["state"], truth["coordinate"][truth["state"]].reshape(len(run.z), -1)[:, 0]
    chosen = [int(np.argmin(np.abs(coordinate - at))) for at in np.quantile(coordinate, np.linspace(0.02, 0.98, 5))]
    images, expected = predictions(run, folder, chosen)
    written(maps.data_and_prediction(images, expected), out / "particles.png", grey=True)
    written(latents_and_truth(run.z, coordinate), out / "latents.png")
    percentiles = (5, 23, 41, 59, 77, 95)
    z, states = along(run.z, state, percentiles)
    true = [density_of(folder / "data" / "maps" / f"state_{each:02d}.mrc")[0] for each in states]
    drawn = found_and_true(list(run.density(z)), true, [f"PC 1, {p} %" for p in percentiles])
    written(drawn, out / "motion.png")


# --- real particles ---


def _surface(axes: Axes, density: Tensor, view: np.ndarray, colour: Colour, title: str, zoom: float,
             level: float | None = None) -> None:
    at = default_level(density) if level is None else level
    axes.imshow(render(density, at, view, colour, size=360, zoom=zoom), interpolation="antialiased")
    axes.axis("off")
    axes.set_title(title, fontsize=8.5, weight="normal", loc="center", color=INK)


def _curve(axes: Axes, curve: FSCCurve, apix: float, marks: Sequence[tuple[float, float]], label: str) -> None:
    """An FSC curve with what an issue asks of it as open circles ``(Å, FSC)``."""
    frequency, value = curve.frequency.numpy() / apix, curve.value.numpy()
    axes.plot(frequency, value, color=LINES[0], label=label)
    axes.plot([1 / angstrom for angstrom, _ in marks], [least for _, least in marks], "o", markerfacecolor="none",
              color=LINES[1], markersize=6, label="asked for by the tests")
    for level in (0.5, 0.143):
        axes.axhline(level, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    ticks = np.linspace(0, frequency[-1], 6)[1:]
    axes.set_xticks(ticks, [f"{1 / tick:.3g}" for tick in ticks])
    axes.set(xlim=(0, frequency[-1]), ylim=(-0.05, 1.04), xlabel="resolution (Å)", ylabel="Fourier shell correlation")
    axes.legend(loc="upper right")


def alike(density: Tensor, reference: Tensor, apix: float, angstrom: float) -> tuple[Tensor, Tensor]:
    """Both maps up to a resolution, the first with the amplitudes by shell of the second: what is left are the phases."""
    radius = radius_map(len(density), 3)
    shell = radius.round().long()
    soft = torch.sigmoid(2 * (len(density) * apix / angstrom - radius))
    spectra = [centred_fft(each, 3) for each in (density, reference)]
    power = [torch.zeros(int(shell.max()) + 1).index_add_(0, shell.flatten(), each.abs().square().flatten())
             for each in spectra]
    ratio = (power[1] / power[0].clamp(min=1e-30)).sqrt()[shell]
    return centred_ifft(spectra[0] * ratio * soft, 3).real, centred_ifft(spectra[1] * soft, 3).real


@style()
def against_a_reference(ours: Tensor, reference: Tensor, apix: float, angstrom: float,
                        marks: Sequence[tuple[float, float]], titles: tuple[str, str], zoom: float) -> Figure:
    """Two maps on one grid, up to ``angstrom``, from the same side, and their FSC as they are."""
    drawn = figure(8.4, 2.9)
    cells = drawn.add_gridspec(1, 3, width_ratios=(1, 1, 1.15))
    shown = alike(ours, reference, apix, angstrom)
    view = turned(principal_view(shown[1], default_level(shown[1])), "y", 25)
    for i, (density, colour) in enumerate(zip(shown, (BLUE, SAND), strict=True)):
        _surface(drawn.add_subplot(cells[i]), density, view, colour, titles[i], zoom)
    _curve(drawn.add_subplot(cells[2]), fsc_curve(ours, reference), apix, marks, "between the two")
    return drawn


def betagal(data: Path, work: Path, out: Path) -> None:
    """betagal.png."""
    particles = data / "real_particles" / "betagal_empiar10061" / "betagal_101_b96.star"
    command("backproject", particles, "--symmetry", "D2", "--uninvert-data", "-o", work / "betagal")
    ours, apix = density_of(work / "betagal" / "backproject.mrc")
    reference, other = density_of(data / "maps" / "betaGal_relion_tutorial_100.mrc.gz")
    first, second, apix = match(ours, apix, reference, other)
    drawn = against_a_reference(first, second, apix, 12, [(24, 0.80), (15, 0.40)],
                                ("101 particles, backproject", "independent map"), 1.15)
    written(drawn, out / "betagal.png")


def ribosome(data: Path, work: Path, out: Path) -> None:
    """ribosome70S.png."""
    folder = data / "real_particles" / "ribosome70S_tilt_tomodrgn"
    command("backproject", folder / f"{RIBOSOME}.star", "--tomograms", folder / f"{RIBOSOME}_tomograms.star", "-o",
            work / "ribosome70S")
    ours, apix = density_of(work / "ribosome70S" / "backproject.mrc")
    shipped, _ = density_of(folder / "warptools_test_box-32_angpix-12_reconstruct.mrc")
    box = len(shipped)
    marks = [(box * apix / shell, least) for shell, least in enumerate((0.95, 0.90, 0.80, 0.75), 1)]
    drawn = against_a_reference(ours, shipped[(-torch.arange(box)) % box], apix, 38, marks,
                                ("40 ribosomes in situ, 1430 tilts", "map shipped with them, mirrored"), 1.35)
    written(drawn, out / "ribosome70S.png")


@style()
def two_states(z: np.ndarray, labels: np.ndarray, found: Tensor, true: Tensor, apix: float) -> Figure:
    """Latents by label; the maps at the means of z, and the maps that the images were made from."""
    drawn = figure(8.0, 3.9)
    cells = drawn.add_gridspec(2, 3, width_ratios=(1.35, 1, 1))
    axes = drawn.add_subplot(cells[:, 0])
    first = fit_pca(z).project(z)[:, 0]
    right = float((kmeans(z, 2).labels == labels).mean())
    edges = np.linspace(first.min(), first.max(), 49)
    for label, (name, colour) in enumerate((("D", LINES[0]), ("E", LINES[1]))):
        axes.hist(first[labels == label], edges, color=colour, alpha=0.85, label=f"class {name}")
    axes.set(xlabel="first component of z", ylabel="particles",
             title=f"{len(z)} particles, {100 * max(right, 1 - right):.0f} % split right")
    axes.legend(loc="upper center")
    for column, (name, colour) in enumerate((("D", BLUE), ("E", SAND))):
        shown = alike(found[column], true[column], apix, 38)
        view = principal_view(true[0], default_level(true[0]))
        for row, what in enumerate(("at the mean z of", "truth,")):
            _surface(drawn.add_subplot(cells[row, column + 1]), shown[row], view, colour, f"{what} {name}", 1.5)
    return drawn


def ribosome_states(data: Path, work: Path, out: Path) -> None:
    """10076.png."""
    folder = data / "sim_truth" / "ribosome50S_10076_DE"
    star = folder / "10076_both_32_sim.star"
    command("train_vae", star, "--datadir", folder, "--uninvert-data", "--zdim", "4", "-o", work / "10076")
    run = load_run(work / "10076", device="cpu")
    meta = read_metadata(star, datadir=folder)
    first = np.unique(meta.particle, return_index=True)[1]
    labels = np.array(["classE" in stack for stack in meta.stacks])[meta.file_index[first]].astype(int)
    found = run.density(np.stack([run.z[labels == k].mean(0) for k in (0, 1)]))
    true = torch.stack([density_of(folder / f"10076_class{name}_32.mrc")[0] for name in "DE"])
    written(two_states(run.z, labels, found, true, run.apix), out / "10076.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--work", type=Path, default=Path("pictures_work"))
    parser.add_argument("--demo", type=Path, default=Path("demo"))
    parser.add_argument("-o", "--outdir", type=Path, default=Path(__file__).parent / "pictures")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if (args.data / "MANIFEST.md").is_file():
        for picture in (betagal, ribosome, ribosome_states):
            picture(args.data, args.work, args.outdir)
    else:
        print(f"no pictures of real data: {args.data} is absent")
    planted_poses(args.outdir)
    demo_pictures(args.demo, args.outdir)


if __name__ == "__main__":
    main()
