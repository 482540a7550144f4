"""From any particle file to a checked :class:`ParticleStack`."""

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryorecon.data import cs, star
from cryorecon.data.cryodrgn_files import read_ctf, read_indices, read_poses
from cryorecon.data.files import require_file
from cryorecon.data.metadata import Metadata, resolve
from cryorecon.data.mrc import Header, read_header
from cryorecon.data.poses import Poses
from cryorecon.data.quality import check_sample
from cryorecon.data.stack import ParticleStack, contrast_sign
from cryorecon.errors import InputError
from cryorecon.imaging.ctf import Optics

APIX_TOLERANCE = 0.01
PREPARED = "particles.star"

PathLike = str | Path


def load_particles(path: PathLike, *, poses: PathLike | None = None, ctf: PathLike | None = None,
                   ind: PathLike | np.ndarray | None = None, datadir: PathLike | None = None, apix: float | None = None,
                   invert: bool | None = None, tomograms: PathLike | None = None) -> ParticleStack:
    """Load particles of any format, checked.

    Parameters
    ----------
    path: ``.star`` (RELION 1.3 to 5; ``.star.gz``), ``.cs``, ``.mrcs``/``.mrc``, ``.txt`` (a stack on each line), or
        a folder that ``preprocess`` made.
    poses: poses instead of the file's: ``.pkl`` (cryoDRGN), ``.npy``, ``.star``, ``.cs``.
    ctf: CTF instead of the file's: ``.pkl`` (cryoDRGN), ``.npy``, ``.star``, ``.cs``.
    ind: positions of rows to keep (a file or an array); of particles where a row is a tilt series.
    datadir: where the stacks lie.
    apix: Å/px where neither CTF nor star has it; it also settles a header that disagrees with them.
    invert: multiply images by -1 (True) or +1 (False); None: :func:`contrast_sign`, or +1 for prepared data.
    tomograms: the tomograms' star of a RELION 5 or WarpTools tilt series.

    Raises :class:`InputError` for absent or truncated files, counts, boxes or pixel sizes that differ, pixel sizes that
    vary by more than 1 % among images, rotations that are none, indices out of range, NaN or constant images (a sample
    is read). Warns and takes 1 Å/px where no pixel size is known.
    """
    everything = read_metadata(path, datadir=datadir, tomograms=tomograms)
    images = _chosen(everything, ind)
    meta = everything if images is None else everything.select(images)
    source = meta.open(datadir)
    if meta.box is not None and meta.box != source.box:
        raise InputError(f"{meta.path}: expected images of {meta.box} px, found {source.box} px in "
                         f"{source.headers[0].path}; the star or cs file belongs to another extraction")
    optics, ctf_apix = meta.optics, meta.apix
    if ctf is not None:
        optics, ctf_apix = _ctf_of_file(ctf, everything, images, source.box, tomograms)
    elif meta.lacking:
        raise InputError(f"{meta.path}: expected the whole CTF beside the defocus, found {', '.join(meta.lacking)} "
                         "missing; give a CTF by --ctf (cryorecon parse_ctf_star fills in what is missing)")
    pixel = _pixel_size(meta, ctf_apix, source.headers, apix)
    given = meta.poses(pixel)
    if poses is not None:
        given = _poses_of_file(poses, everything, images, (source.box, pixel), tomograms)
    n = len(source)
    stack = ParticleStack(
        source, pixel, optics, given,
        particle=torch.arange(n) if meta.particle is None else torch.from_numpy(np.asarray(meta.particle, np.int64)),
        half=None if meta.half is None else torch.from_numpy(meta.half), tilt=meta.tilt,
        premultiplied=meta.premultiplied and optics is not None,
        sign=_sign(invert, has_ctf=optics is not None, white=meta.white),
    )
    check_sample(stack)
    return stack


def read_metadata(path: PathLike, *, datadir: PathLike | None = None, tomograms: PathLike | None = None,
                  alignment: str = "alignments3D") -> Metadata:
    """Metadata of a particle file of any kind; no image is read. Raises :class:`InputError`."""
    path = Path(path)
    if path.is_dir():
        if not (path / PREPARED).is_file():
            raise InputError(f"{path}: expected a file, or a folder with {PREPARED} as preprocess makes it, found "
                             "neither")
        path = path / PREPARED
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if kind == ".star":
        return star.read_star(path, tomograms, datadir)
    if kind == ".cs":
        return cs.read_cs(path, alignment)
    if kind in (".mrcs", ".mrc", ".map"):
        return _whole_stacks(require_file(path, "an image stack"), [path.name])
    if kind == ".txt":
        lines = require_file(path, "a list of image stacks").read_text().splitlines()
        return _whole_stacks(path, [line.strip() for line in lines if line.strip()], datadir)
    raise InputError(f"{path}: expected particles as .star, .cs, .mrcs, .mrc or .txt, found {kind or 'no ending'}")


def _whole_stacks(path: Path, names: list[str], datadir: PathLike | None = None) -> Metadata:
    if not names:
        raise InputError(f"{path}: expected the name of an image stack on each line, found none")
    places = resolve(names, path.parent, datadir)
    absent = [place for place in places if not place.is_file()]
    if absent:
        raise InputError(f"{absent[0]}: expected an image stack, found no such file ({len(absent)} of {len(places)} "
                         "stacks are absent); check the paths or give --datadir")
    counts = [read_header(place).shape[0] for place in places]
    return Metadata(path, names, np.repeat(np.arange(len(names), dtype=np.int32), counts),
                    np.concatenate([np.arange(count) for count in counts]))


def _chosen(meta: Metadata, ind: PathLike | np.ndarray | None) -> np.ndarray | None:
    """Positions of the images that ``ind`` keeps; None for all."""
    if ind is None:
        return None
    n = meta.n_rows
    if isinstance(ind, str | Path):
        rows = read_indices(ind, n)
    else:
        rows = np.asarray(ind, dtype=np.int64).reshape(-1)
        if not len(rows) or rows.min() < 0 or rows.max() >= n:
            raise InputError(f"expected indices from 0 to {n - 1}, found {len(rows)} indices" +
                             (f" from {rows.min()} to {rows.max()}" if len(rows) else ""))
    return meta.images_of_rows(rows)


def _ctf_of_file(path: PathLike, meta: Metadata, images: np.ndarray | None, box: int,
                 tomograms: PathLike | None) -> tuple[Optics, np.ndarray | None]:
    """CTF and Å/px ``(n,)`` at ``box`` from a CTF file with a row for each image of ``meta``."""
    if Path(path).suffix in (".pkl", ".npy"):
        table = read_ctf(path)
        optics = table.optics
        pixel: np.ndarray | None = table.apix_at(box).numpy()
    else:
        other = read_metadata(path, tomograms=tomograms)
        if other.optics is None:
            raise InputError(f"{path}: expected a CTF, found {', '.join(other.lacking) or 'rlnDefocusU'} missing")
        optics, pixel = other.optics, other.apix
        if pixel is not None and other.box is not None:
            pixel = pixel * other.box / box
    _same_count(path, "CTF", len(optics), meta)
    if images is None:
        return optics, pixel
    return optics[torch.from_numpy(images)], None if pixel is None else pixel[images]


def _poses_of_file(path: PathLike, meta: Metadata, images: np.ndarray | None, frame: tuple[int, float],
                   tomograms: PathLike | None) -> Poses:
    """Poses from a file with a row for each image of ``meta``; ``frame`` is the images' (box, Å/px)."""
    box, pixel = frame
    if Path(path).suffix in (".pkl", ".npy"):
        poses: Poses | None = read_poses(path, box, pixel)
    else:
        other = read_metadata(path, tomograms=tomograms)
        if other.shift_in_pixels and other.apix is not None:
            pixel = float(np.median(other.apix))
        elif other.box is not None:
            pixel = pixel * box / other.box
        poses = other.poses(pixel)
    if poses is None:
        raise InputError(f"{path}: expected poses, found no rotations in it (rlnAngleRot, Tilt, Psi or "
                         "alignments3D/pose)")
    _same_count(path, "poses", len(poses), meta)
    return poses if images is None else poses[torch.from_numpy(images)]


def _same_count(path: PathLike, what: str, found: int, meta: Metadata) -> None:
    if found != len(meta):
        raise InputError(f"{path}: expected {what} for the {len(meta)} images of {meta.path}, found {found}; the files "
                         "belong to different sets (--ind selects from both alike)")


def _pixel_size(meta: Metadata, ctf_apix: np.ndarray | None, headers: list[Header], apix: float | None) -> float:
    """One Å/px for the stack from the CTF, the star, ``--apix`` or the headers, in this order, after they were
    compared."""
    if apix is not None and apix <= 0:
        raise InputError(f"--apix: expected a positive pixel size, found {apix}")
    listed = [_uniform(values, meta.path) for values in (ctf_apix, meta.apix) if values is not None]
    # 0 and 1 are what programs write that don't know
    stated = [header for header in headers if header.apix > 0 and abs(header.apix - 1) > 1e-6]
    if not listed and apix is None:
        if not stated:
            if headers[0].apix == 0:
                warnings.warn(f"{meta.path}: no pixel size in the CTF, star or header; taking 1 Å/px, give --apix",
                              stacklevel=3)
            return 1.0
        return _uniform(np.array([header.apix for header in stated]), meta.path)
    if not listed:
        return float(apix) if apix is not None else 1.0
    best = listed[0]
    for other, where in ((listed[-1], "the star or cs file"), (apix, "--apix")):
        if other is not None and _differ(best, other):
            raise InputError(f"{meta.path}: expected {best:.4g} Å/px as in the CTF or star, found {other:.4g} in "
                             f"{where}; correct the one that is wrong")
    wrong = [header for header in stated if _differ(best, header.apix)]
    if wrong and apix is None:
        raise InputError(f"{wrong[0].path}: expected {best:.4g} Å/px as in the CTF or star, found {wrong[0].apix:.4g} "
                         f"in the header; give --apix {best:.4g} if the header is wrong, else use the CTF of this "
                         "extraction")
    return best


def _uniform(values: np.ndarray | Tensor, path: Path) -> float:
    """The common value of pixel sizes that agree to 1 %."""
    values = np.asarray(values, dtype=np.float64)
    if not (values > 0).all():
        raise InputError(f"{path}: expected positive pixel sizes, found {values.min():g}")
    if _differ(values.min(), values.max()):
        raise InputError(f"{path}: expected one pixel size, found {values.min():.4g} to {values.max():.4g} Å/px among "
                         "the images; bring them to one by cryorecon preprocess on each group first")
    return float(np.median(values))


def _differ(a: float, b: float) -> bool:
    return abs(a - b) > APIX_TOLERANCE * min(a, b)


def _sign(invert: bool | None, *, has_ctf: bool, white: bool) -> int:
    if invert is not None:
        return -1 if invert else 1
    return 1 if white else contrast_sign(has_ctf)
