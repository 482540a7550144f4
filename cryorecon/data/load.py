"""From any particle file to a checked :class:`ParticleStack`."""

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryorecon.data import cs, star
from cryorecon.data.cryodrgn_files import checked_indices, read_ctf, read_indices, read_poses
from cryorecon.data.files import read_text, require_file
from cryorecon.data.metadata import Metadata, resolve
from cryorecon.data.mrc import read_header
from cryorecon.data.pixel_size import Stated, settle
from cryorecon.data.poses import Poses
from cryorecon.data.quality import check_sample
from cryorecon.data.stack import ParticleStack, contrast_sign
from cryorecon.errors import InputError
from cryorecon.imaging.ctf import Optics

PREPARED = "particles.star"
MAX_STACKS = 100_000  # lines of a list

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
    vary by more than 5 % among images, rotations that are none, indices out of range or repeated, NaN or constant images
    (a sample is read). Warns where pixel sizes vary by more than 1 % (:mod:`cryorecon.data.pixel_size`) and where
    rows name one image again, and takes 1 Å/px where none is known.
    """
    everything = read_metadata(path, datadir=datadir, tomograms=tomograms)
    images = _chosen(everything, ind)
    meta = everything if images is None else everything.select(images)
    source = meta.open(datadir)
    if (doubled := meta.repeats()) is not None:
        warnings.warn(doubled, stacklevel=2)
    if meta.box is not None and meta.box != source.box:
        raise InputError(f"{meta.path}: expected images of {meta.box} px, found {source.box} px in "
                         f"{source.headers[0].path}; the star or cs file belongs to another extraction")
    optics, stated = meta.optics, [] if meta.apix is None else [Stated(meta.apix, "the star or cs file")]
    if ctf is not None:
        optics, by_ctf = _ctf_of_file(ctf, everything, images, source.box, tomograms)
        stated = by_ctf + stated
    elif meta.lacking:
        raise InputError(f"{meta.path}: expected the whole CTF beside the defocus, found {', '.join(meta.lacking)} "
                         "missing; give a CTF by --ctf (cryorecon parse_ctf_star fills in what is missing)")
    common, own = settle(meta.path, stated, source, apix)
    given = meta.poses(common if own is None else own)
    if poses is not None:
        given = _poses_of_file(poses, everything, images, (source.box, common, own), tomograms)
    elif given is not None:
        given = _at_grid(given, common, own)
    n = len(source)
    stack = ParticleStack(
        source, common, optics, given,
        particle=torch.arange(n) if meta.particle is None else torch.from_numpy(np.asarray(meta.particle, np.int64)),
        half=None if meta.half is None else torch.from_numpy(meta.half), tilt=meta.tilt,
        premultiplied=meta.premultiplied and optics is not None,
        sign=_sign(invert, has_ctf=optics is not None, white=meta.white), white=meta.white, pixel=own,
        micrograph=meta.micrograph,
        files=tuple(Path(file) for file in (path, meta.path, *meta.files, poses, ctf, ind, tomograms)
                    if isinstance(file, str | Path)),
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
        lines = read_text(path, "a list of image stacks, one a line").split("\n", MAX_STACKS)
        if len(lines) > MAX_STACKS:
            raise InputError(f"{path}: expected a list of at most {MAX_STACKS:,} image stacks, found more; is it a list?")
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
    rows = read_indices(ind, n) if isinstance(ind, str | Path) else checked_indices(np.asarray(ind).reshape(-1), n)
    return meta.images_of_rows(rows)


def _ctf_of_file(path: PathLike, meta: Metadata, images: np.ndarray | None, box: int,
                 tomograms: PathLike | None) -> tuple[Optics, list[Stated]]:
    """CTF, and what is said of Å/px at ``box``, by a CTF file with a row for each image of ``meta``."""
    written_for: int | None = box
    if Path(path).suffix in (".pkl", ".npy"):
        table = read_ctf(path)
        optics, written_for = table.optics, round(float(table.box.median()))
        pixel: np.ndarray | None = table.apix_at(box).numpy()
    else:
        other = read_metadata(path, tomograms=tomograms)
        if other.optics is None:
            raise InputError(f"{path}: expected a CTF, found {', '.join(other.lacking) or 'rlnDefocusU'} missing")
        optics, pixel, written_for = other.optics, other.apix, other.box
        if pixel is not None and other.box is not None:
            pixel = pixel * other.box / box
    _same_count(path, "CTF", len(optics), meta)
    if images is not None:
        optics, pixel = optics[torch.from_numpy(images)], None if pixel is None else pixel[images]
    return optics, [] if pixel is None else [Stated(pixel, str(path), None if written_for == box else written_for)]


def read_pose_file(path: PathLike, box: int, apix: float, tomograms: PathLike | None = None) -> tuple[Poses, bool]:
    """Poses of ``.pkl``, ``.npy``, ``.star`` or ``.cs``, of whatever images, with shifts in Å; and whether these are by pixel
    sizes of the file's own, not by the ``apix`` of a grid of ``box`` pixels. Raises :class:`InputError`."""
    if Path(path).suffix in (".pkl", ".npy"):
        return read_poses(path, box, apix), Path(path).suffix == ".npy"  # in Å; fractions of the box become those of the grid
    other = read_metadata(path, tomograms=tomograms)
    unit = apix if other.box is None else apix * box / other.box
    poses = other.poses(unit if other.apix is None else torch.from_numpy(other.apix))
    if poses is None:
        raise InputError(f"{path}: expected poses, found no rotations in it (rlnAngleRot, Tilt, Psi or "
                         "alignments3D/pose)")
    return poses, not other.shift_in_pixels or other.apix is not None


def _poses_of_file(path: PathLike, meta: Metadata, images: np.ndarray | None, frame: tuple[int, float, Tensor | None],
                   tomograms: PathLike | None) -> Poses:
    """Poses from a file with a row for each image of ``meta``; ``frame`` is the images' (box, grid's Å/px, own Å/px)."""
    box, common, own = frame
    poses, in_own = read_pose_file(path, box, common, tomograms)
    _same_count(path, "poses", len(poses), meta)
    poses = poses if images is None else poses[torch.from_numpy(images)]
    return _at_grid(poses, common, own) if in_own else poses


def _at_grid(poses: Poses, common: float, own: Tensor | None) -> Poses:
    """Shifts in Å by the images' ``own`` pixel sizes ``(n,)`` as Å of the grid: as many pixels of it."""
    return poses if own is None else Poses(poses.rotation, (poses.shift * (common / own)[:, None]).float())


def _same_count(path: PathLike, what: str, found: int, meta: Metadata) -> None:
    if found != len(meta):
        raise InputError(f"{path}: expected {what} for the {len(meta)} images of {meta.path}, found {found}; the files "
                         "belong to different sets (--ind selects from both alike)")


def _sign(invert: bool | None, *, has_ctf: bool, white: bool) -> int:
    if invert is not None:
        return -1 if invert else 1
    return 1 if white else contrast_sign(has_ctf)
