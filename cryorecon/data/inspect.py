"""What a file is, and what looks wrong with it, in one screen."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryorecon.data import cryodrgn_files, mrc
from cryorecon.data.arrays import read_array
from cryorecon.data.cryodrgn_files import as_array
from cryorecon.data.files import require_file
from cryorecon.data.load import PREPARED, read_metadata
from cryorecon.data.metadata import Metadata, resolve
from cryorecon.data.pixel_size import APIX_TOLERANCE, MAX_SPREAD, by_headers, differ, nearest
from cryorecon.data.quality import CLEAR_CONTRAST, chunk_size, contrast
from cryorecon.data.safe_pickle import load_pickles
from cryorecon.data.source import FileSource
from cryorecon.errors import InputError, printable
from cryorecon.geometry import rotations

READ_BYTES = 1 << 30
UNUSUAL = 10.0  # times the median standard deviation: extracted images of one session differ by a few
_ORDERS = {"<": "little-endian", ">": "big-endian"}


class Report:
    """Lines that say what a file is, problems found in it, and what it lacks: not wrong by itself, but to be known."""

    def __init__(self, title: str):
        self.title = title
        self.lines: list[tuple[str, str]] = []
        self.problems: list[str] = []
        self.absent: list[str] = []

    def add(self, name: str, text: str) -> None:
        """A fact."""
        self.lines.append((name, text))

    def attempt(self, action: Callable[[], Any]) -> Any:
        """The action's result; None, with its complaint among the problems, where it raises :class:`InputError`."""
        try:
            return action()
        except InputError as error:
            self.problems.append(str(error))
            return None

    def __str__(self) -> str:
        facts = [f"  {name:<10} {text}" for name, text in self.lines]
        wrong = [f"  ! {text}" for text in self.problems]
        absent = ["not in it:", *(f"  - {text}" for text in self.absent)] if self.absent else []
        lines = [self.title, *facts, *absent, "looks wrong:" if wrong else "nothing looks wrong", *wrong]
        return "\n".join(map(printable, lines))


def inspect(path: str | Path, *, datadir: str | Path | None = None, tomograms: str | Path | None = None,
            everything: bool = False) -> Report:
    """Look at particles, a map, or cryoDRGN's pickles.

    Images up to 1 GB are all read, of more a sample unless ``everything``. Raises :class:`InputError` where there is no
    file or none of a known kind; other defects are the report's ``problems``.
    """
    path = Path(path)
    if path.is_dir():
        if (path / "config.yaml").is_file() and not (path / PREPARED).is_file():
            raise InputError(f"{path}: expected a file or a folder that preprocess made, found a training run; look at it by "
                             f"cryorecon analyze {path}")
        path /= PREPARED
    require_file(path, "a file to look at")
    name = path.name.removesuffix(".gz")
    if name.endswith((".pkl", ".ind", ".npy")):
        return _inspect_arrays(path)
    if name.endswith((".mrc", ".map")):
        header = mrc.read_header(path)
        if name.endswith(".map") or path.suffix == ".gz" or len(set(header.shape)) == 1:
            return _inspect_volume(path, header)
    report = Report(f"{path}: {_kind(path)}")
    meta = report.attempt(lambda: read_metadata(path, datadir=datadir, tomograms=tomograms))
    if meta is None:
        return report
    report.title = f"{path}: {_kind(path, meta)}"
    _describe_optics(report, meta)
    _describe_poses(report, meta)
    if (doubled := meta.repeats()) is not None:
        report.problems.append(doubled)
    if meta.stacks:
        source = report.attempt(lambda: _open(report, meta, datadir))
        if source is not None:
            _describe_images(report, meta, source, READ_BYTES if not everything else 1 << 62)
    else:
        report.problems.append("no column names the images (rlnImageName, blob/path)")
    return report


def _kind(path: Path, meta: Metadata | None = None) -> str:
    name = path.name.removesuffix(".gz")
    if name.endswith(".cs"):
        return "cryoSPARC particles"
    if name.endswith(".star"):
        if meta is None:
            return "star file"
        if meta.row_is_particle:
            return "star file of tilt series (RELION 5, WarpTools)"
        era = "3.1 or later" if meta.box is not None else "3.0 or earlier"
        marked = ", marked by cryorecon as white protein" if meta.white else ""
        return f"star file of RELION {era}{', a row for each tilt image' if meta.tilt is not None else ''}{marked}"
    return "list of image stacks" if name.endswith(".txt") else "image stack"


def _span(values: np.ndarray, form: str = "{:.4g}") -> str:
    low, high = form.format(values.min()), form.format(values.max())
    return low if low == high else f"{low} to {high}"


def _describe_optics(report: Report, meta: Metadata) -> None:
    if meta.optics is None:
        report.add("CTF", "none")
        if meta.lacking:
            report.problems.append(f"defocus without {', '.join(meta.lacking)}: the CTF can't be computed")
        else:
            report.absent.append("CTF: give it by --ctf, unless these images were taken without (some simulations)")
        return
    value = {n: meta.optics.column(n).double().numpy() for n in
             ("defocus_u", "voltage", "cs", "amplitude_contrast", "phase_shift", "b_factor")}
    text = (f"defocus {_span(value['defocus_u'] / 1e4, '{:.2f}')} µm, {_span(value['voltage'])} kV, "
            f"Cs {_span(value['cs'])} mm, amplitude contrast {_span(value['amplitude_contrast'])}")
    if (value["phase_shift"] != 0).any():
        text += f", phase shift {_span(np.rad2deg(value['phase_shift']))}°"
    if (value["b_factor"] != 0).any():
        text += f", B-factor {_span(value['b_factor'])} Å²"
    report.add("CTF", text + (", images premultiplied" if meta.premultiplied else ""))
    if (value["defocus_u"] <= 0).any() or (value["defocus_u"] > 1e5).any():
        report.problems.append(f"defocus {_span(value['defocus_u'])} Å: expected about 3,000 to 60,000")
    if (value["voltage"] < 50).any() or (value["voltage"] > 1500).any():
        report.problems.append(f"voltage {_span(value['voltage'])} kV: expected 60 to 300")


def _describe_poses(report: Report, meta: Metadata) -> None:
    pixel = 1.0 if meta.apix is None else float(np.median(meta.apix))
    poses = report.attempt(lambda: meta.poses(pixel))
    if poses is not None:
        unit = "px" if meta.shift_in_pixels and meta.apix is None else "Å"
        report.add("poses", f"yes, shifts up to {float(poses.shift.abs().max()):.3g} {unit}")
    elif meta.rotation is None:
        report.add("poses", "none")
        report.absent.append("poses: train_nn and train_vae find them, backproject needs them; --poses takes those of "
                             "another file")
    if meta.particle is not None:
        counts = np.unique(meta.particle, return_counts=True)[1]
        report.add("particles", f"{len(counts)} with {_span(counts, '{:.0f}')} tilts each")
    if meta.half is not None:
        report.add("half-sets", f"{int((meta.half == 1).sum())} and {int((meta.half == 2).sum())} images")


def _open(report: Report, meta: Metadata, datadir: str | Path | None) -> FileSource:
    """Open the stacks; where they are absent, say how many images the list has before complaining."""
    places = resolve(meta.stacks, meta.path.parent, datadir)
    if not all(place.is_file() for place in places):
        box = "" if meta.box is None else f" of {meta.box} px"
        report.add("images", f"{len(meta)}{box} in {len(places)} stacks")
    return meta.open(datadir)


def _describe_images(report: Report, meta: Metadata, source: FileSource, limit: int) -> None:
    header = source.headers[0]
    count = len(source.headers)
    report.add("images", f"{len(source)} of {source.box} px in {count} stack{'s' if count > 1 else ''}, mode "
                         f"{header.mode} ({header.dtype.name}), "
                         f"{_ORDERS[header.order]}{'' if header.has_map_id else ', no MAP id'}")
    stated = np.unique([round(h.apix, 4) for h in source.headers])
    listed = "" if meta.apix is None else f"{_span(meta.apix)} Å/px in the star or cs file, "
    report.add("pixel size", f"{listed}{_span(stated)} Å/px in the header{'s' if count > 1 else ''}")
    if meta.box is not None and meta.box != source.box:
        report.problems.append(f"box: {meta.box} px in the star or cs file, {source.box} px in the stack")
    if source.box % 2:
        report.problems.append(f"box {source.box} is odd: RELION centres such images one pixel away; use even boxes")
    if meta.apix is not None:
        spread = meta.apix.max() / meta.apix.min() - 1
        if spread > APIX_TOLERANCE:
            what = "too much for one map" if spread > MAX_SPREAD else f"a map has their mean, {meta.apix.mean():.4g}"
            report.problems.append(f"pixel sizes vary: {_span(meta.apix)} Å/px, {what}")
        headers = by_headers(source)
        if differ(nearest(meta.apix, headers, source), headers).any():
            report.problems.append(f"pixel size: {_span(meta.apix)} Å/px in the star or cs file, {_span(stated)} in "
                                   "the header")
    elif (stated == 0).all():
        report.problems.append("no pixel size anywhere: give --apix")
    elif ((stated == 0) | (stated == 1)).all():
        report.absent.append("pixel size: 1 Å/px in a header is what programs write that don't know; give --apix")
    _describe_values(report, source, limit)


def _describe_values(report: Report, source: FileSource, limit: int) -> None:
    """Statistics of the images, NaN and constant ones, and the contrast."""
    n = len(source)
    chosen = np.arange(n)
    if n * source.box**2 * 4 > limit:
        chosen = np.unique(np.linspace(0, n - 1, max(1, limit // (source.box**2 * 4))).astype(np.int64))
    mean, square, low, high = 0.0, 0.0, np.inf, -np.inf
    bad: list[int] = []
    constant: list[int] = []
    scores: list[tuple[float, int]] = []
    spread = np.zeros(len(chosen))
    step = chunk_size(source.box)
    for start in range(0, len(chosen), step):
        part = chosen[start : start + step]
        images = source.read(part)
        finite = np.isfinite(images).all((1, 2))
        flat = finite & (images.min((1, 2)) == images.max((1, 2)))
        bad += part[~finite].tolist()
        constant += part[flat].tolist()
        images = images[finite]
        spread[start : start + step][finite] = images.std((1, 2), dtype=np.float64)
        if len(images):
            mean += float(images.mean(dtype=np.float64)) * len(images)
            square += float(np.square(images, dtype=np.float64).mean()) * len(images)
            low, high = min(low, float(images.min())), max(high, float(images.max()))
            scores.append((contrast(images), len(images)))
    good = len(chosen) - len(bad)
    mean, square = mean / max(1, good), square / max(1, good)
    report.add("values", f"mean {mean:.4g}, standard deviation {max(0.0, square - mean**2) ** 0.5:.4g}, "
                         f"{low:.4g} to {high:.4g} ({'all' if len(chosen) == n else len(chosen)} images)")
    for which, what in ((bad, "NaN or infinite values"), (constant, "one constant value")):
        if which:
            report.problems.append(f"{len(which)} images with {what}, the first number {which[0] + 1}")
    usual = float(np.median(spread[spread > 0])) if spread.any() else 0.0
    odd = np.flatnonzero((spread > 0) & ((spread > UNUSUAL * usual) | (spread < usual / UNUSUAL)))
    if len(odd):
        report.problems.append(f"{len(odd)} images of which the standard deviation is more than {UNUSUAL:g} times the usual "
                               f"{usual:.4g} or less than its {UNUSUAL:g}th part, the first number {chosen[odd[0]] + 1}")
    _describe_contrast(report, scores)


def _describe_contrast(report: Report, scores: list[tuple[float, int]]) -> None:
    total = sum(count for _, count in scores)
    # standard scores of parts combine by the square root of their sizes
    score = sum(value * (count / total) ** 0.5 for value, count in scores)
    what = "white protein" if score > CLEAR_CONTRAST else "dark protein" if score < -CLEAR_CONTRAST else "unclear"
    report.add("contrast", f"{what} (middle against rim: {score:+.1f} standard errors)")
    if score < -CLEAR_CONTRAST:
        report.problems.append("protein is dark: maps will come out inverted unless the data are (train_*: "
                               "--uninvert-data with a CTF; preprocess: --contrast dark)")


def _inspect_volume(path: Path, header: mrc.Header) -> Report:
    report = Report(f"{path}: map")
    array, apix = mrc.read_density(path)
    shape = " x ".join(str(n) for n in array.shape)
    report.add("box", f"{shape} (z, y, x), mode {header.mode} ({header.dtype.name}), {_ORDERS[header.order]}"
                      f"{'' if header.has_map_id else ', no MAP id'}"
                      f"{'' if header.offset == mrc.HEADER_BYTES else ', extended header'}")
    report.add("pixel size", f"{header.apix:.4f} Å/px" if header.apix else "not stated")
    finite = np.isfinite(array)
    report.add("values", f"mean {array[finite].mean():.4g}, standard deviation {array[finite].std():.4g}, "
                         f"{array[finite].min():.4g} to {array[finite].max():.4g}")
    if len(set(array.shape)) > 1:
        report.problems.append("not cubic: pad or crop it to a cube")
    if array.shape[0] % 2:
        report.problems.append("odd box: the origin is at index D // 2, RELION's is one pixel away")
    if not apix:
        report.problems.append("no pixel size: give --apix where a command asks for it")
    if not finite.all():
        report.problems.append(f"{int((~finite).sum())} NaN or infinite voxels")
    return report


def _inspect_arrays(path: Path) -> Report:
    """A pickle or .npy: what cryoDRGN would take it for."""
    held = [read_array(path, "an array")] if path.suffix == ".npy" else load_pickles(path)
    parts = held[0] if isinstance(held[0], tuple) and held[0] else (held[0],)
    array = as_array(parts[0], path)
    numeric = array.size > 0 and array.dtype.kind in "biuf"
    if numeric and array.ndim == 3 and array.shape[1:] == (3, 3):
        report = Report(f"{path}: poses (cryoDRGN)")
        report.attempt(lambda: cryodrgn_files.read_poses(path, 1, 1.0))
        defect = rotations.defect(torch.from_numpy(array.astype(np.float64)))
        report.add("rotations", f"{len(array)}, largest deviation from a rotation {float(defect.max()):.2g}")
        shift = as_array(parts[1], path) if len(parts) == 2 else np.zeros(0)
        if shift.size and shift.dtype.kind in "biuf":
            report.add("shifts", f"up to {np.abs(shift).max():.3g} of the box")
    elif numeric and array.ndim == 2 and array.shape[1] in (8, 9) and (array[:, 0] > 1).all() and (array[:, 5] > 50).all():
        report = Report(f"{path}: CTF (cryoDRGN)")
        table = report.attempt(lambda: cryodrgn_files.read_ctf(path))
        if table is not None:
            report.add("written for", f"{_span(table.box.numpy())} px at {_span(table.apix.numpy())} Å/px")
            no_images = np.zeros(len(table), np.int64)
            _describe_optics(report, Metadata(path, [], no_images, no_images, optics=table.optics))
    elif numeric and array.ndim == 1 and array.dtype.kind in "iub":
        report = Report(f"{path}: indices or labels")
        report.add("values", f"{len(array)}, {array.min()} to {array.max()}, {len(np.unique(array))} different")
    else:
        report = Report(f"{path}: {len(held)} array{'s' if len(held) > 1 else ''}")
        for value in (as_array(one, path) for one in held):
            report.add("array", f"{value.dtype} of shape {value.shape}")
    return report
