"""Prepare a data set once: images cropped, normalised and of one contrast in one stack, poses and CTF in one star.

Images pass through in chunks, so that memory is bounded. What is done so far lies in ``<stack>.part`` with a note of
how far it goes; the same command takes it up again after a kill. The names appear only when all is done.
"""

import hashlib
import json
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cryorecon.data.files import atomic_path, free_space, read_records, refuse_input
from cryorecon.data.load import PREPARED
from cryorecon.data.mrc import HEADER_BYTES, StackWriter, part_name
from cryorecon.data.quality import CLEAR_CONTRAST, check_images, chunk_size, sample_contrast
from cryorecon.data.source import FileSource
from cryorecon.data.stack import ParticleStack
from cryorecon.data.star_write import write_star
from cryorecon.errors import InputError
from cryorecon.geometry.fourier import resample
from cryorecon.imaging.masks import radius_map, window

NORMALISATIONS = ("background", "whole", "none")
_STAR_ROW_BYTES = 220


@dataclass(frozen=True)
class Preparation:
    """How images are prepared.

    box: side after Fourier cropping, even; None: as they are. normalise: mean 0 and standard deviation 1 of what lies
    outside ``radius`` ("background"), of the whole image ("whole"), or not at all ("none"). radius: fraction of
    ``D/2``. windowed: multiply by cryoDRGN's soft window afterwards (the noise can then no longer be estimated from the
    images' corners). half: store float16.
    """

    box: int | None = None
    normalise: str = "background"
    radius: float = 0.92
    windowed: bool = False
    half: bool = False


def prepare(stack: ParticleStack, out: str | Path, how: Preparation, *, progress: bool = False) -> Path:
    """Write a prepared copy of ``stack`` and return its star.

    ``out`` is a ``.star`` (its stack lies beside it) or a folder for ``particles.star`` and ``particles.mrcs``. The
    stack's contrast factor is applied, so that protein is white, and the star is marked so that nobody inverts it
    again.

    Raises :class:`InputError` for odd or larger boxes, NaN or constant images, too little space, output over the input.
    """
    star = Path(out) if Path(out).suffix == ".star" else Path(out) / PREPARED
    mrcs = star.with_suffix(".mrcs")
    for name in (mrcs, star):
        refuse_input(name, stack.inputs)
    box = checked_box(stack, how)
    apix = stack.apix * stack.box / box
    note = mrcs.with_name(mrcs.name + ".progress.json")
    key = _fingerprint(stack, how)
    image_bytes = box * box * (2 if how.half else 4)
    done = _finished_images(note, key, mrcs, len(stack), image_bytes)
    free_space(mrcs, HEADER_BYTES + (len(stack) - done) * image_bytes + len(stack) * _STAR_ROW_BYTES)
    if done < len(stack) or part_name(mrcs).exists():  # else a kill came between the stack and its star
        _write_images(stack, StackWriter(mrcs, box, apix, half=how.half, keep=done, star=star), how, note, key, progress)
    write_star(star, _described(stack, mrcs, apix), mrcs.name)
    note.unlink()
    return star


def _write_images(stack: ParticleStack, writer: StackWriter, how: Preparation, note: Path, key: str, progress: bool) -> None:
    """Prepare the images that the writer has not got yet."""
    step, done, box = chunk_size(stack.box), writer.count, writer.box
    try:
        with tqdm(total=len(stack), initial=done, unit="img", disable=None if progress else True) as bar:
            for start in range(done, len(stack), step):
                where = np.arange(start, min(start + step, len(stack)))
                images = stack.images(where)
                check_images(images.numpy(), where, stack.source)
                writer.append(prepare_images(images, box, how).numpy())
                writer.flush()
                _write_note(note, key, int(where[-1]) + 1)
                bar.update(len(where))
        writer.close()
    except InputError:
        writer.suspend()
        _forget(writer.path, note)
        raise
    except BaseException:  # a signal or a full disk: what is done stays, to be taken up again
        writer.suspend()
        raise


def with_contrast(stack: ParticleStack, contrast: str, *, uninvert: bool = False) -> ParticleStack:
    """The stack with the factor that makes protein white.

    ``contrast`` of the raw images: "white", "dark", "guess" (from a sample of images), or "rule": the stack's own
    factor, turned round by ``uninvert``. Raises :class:`InputError` where the images don't say.
    """
    if contrast == "rule":
        return stack.uninverted() if uninvert else stack
    if contrast == "guess":
        score = sample_contrast(stack)
        if abs(score) < CLEAR_CONTRAST:
            raise InputError(f"expected images that show whether protein is white or dark, found no clear contrast "
                             f"({score:+.1f} standard errors); give --contrast white or dark")
        contrast = "white" if score > 0 else "dark"
    return replace(stack, sign=-1 if contrast == "dark" else 1)


def warn_of_contrast(stack: ParticleStack) -> None:
    """Warn where the images, factor applied, clearly show dark protein."""
    score = stack.sign * sample_contrast(stack)
    if score < -CLEAR_CONTRAST:
        warnings.warn(f"protein looks dark in the prepared images ({score:+.1f} standard errors): maps will come out "
                      "inverted; give --contrast guess, white or dark", stacklevel=2)


def prepare_images(images: Tensor, box: int, how: Preparation) -> Tensor:
    """Images ``(n, D, D)`` Fourier-cropped to ``box``, normalised and windowed, ``(n, box, box)`` float32."""
    images = fourier_crop(images, box)
    if how.normalise != "none":
        outside = torch.ones(box, box, dtype=torch.bool)
        if how.normalise == "background":
            outside = radius_map(box, 2) > how.radius * box / 2
        rim = images[:, outside]
        spread, whole = rim.std(1), images.std((1, 2))
        # noise-free images have nothing outside: their whole spread serves
        spread = torch.where(spread > 1e-4 * whole, spread, whole)
        images = (images - rim.mean(1)[:, None, None]) / spread[:, None, None]
    return images * window(box) if how.windowed else images


def fourier_crop(images: Tensor, box: int) -> Tensor:
    """:func:`cryorecon.geometry.fourier.resample` of images ``(n, D, D)`` to a smaller even ``box``, by half-plane
    FFTs.

    Between even boxes the origin's phase is ``(-1)^k`` before and after, so that nothing need be shifted: a quarter of
    the time.
    """
    old = images.shape[-1]
    if box == old:
        return images
    if old % 2:
        return resample(images, box, 2)
    spectrum = torch.fft.rfft2(images)[..., : box // 2 + 1]
    kept = torch.cat([spectrum[:, : box // 2], spectrum[:, -(box // 2) :]], 1)
    kept[:, box // 2] = 0  # the Nyquist row and column have lost their partners
    kept[..., box // 2] = 0
    return torch.fft.irfft2(kept, s=(box, box)) * (box / old) ** 2


def checked_box(stack: ParticleStack, how: Preparation) -> int:
    """The prepared images' box. Raises :class:`InputError` for a preparation that can't be."""
    box = stack.box if how.box is None else how.box
    if box % 2 or box < 4:
        raise InputError(f"expected an even box of at least 4 px, found {box}; give -D {max(4, box // 2 * 2)}")
    if box > stack.box:
        raise InputError(f"expected a box of at most the images' {stack.box} px, found -D {box}")
    if how.normalise not in NORMALISATIONS:
        raise InputError(f"expected a normalisation of {', '.join(NORMALISATIONS)}, found {how.normalise}")
    if how.normalise == "background" and not 0 < how.radius < 1.3:
        raise InputError(f"expected a background radius of 0 to 1.3 of half the box, found {how.radius}")
    return box


def _described(stack: ParticleStack, mrcs: Path, apix: float) -> ParticleStack:
    """What was known of ``stack``, with the prepared images."""
    pixel = None if stack.pixel is None else stack.pixel * (apix / stack.apix)
    return replace(stack, source=FileSource.open([mrcs]), apix=apix, pixel=pixel, sign=1, white=True, files=())


def _fingerprint(stack: ParticleStack, how: Preparation) -> str:
    """Of everything that the prepared images depend on."""
    digest = hashlib.sha256(json.dumps([asdict(how), stack.sign, stack.apix, stack.box, len(stack)]).encode())
    if isinstance(stack.source, FileSource):
        for header in stack.source.headers:
            state = header.path.stat()
            digest.update(f"{header.path.absolute()} {state.st_size} {state.st_mtime_ns}\n".encode(errors="surrogateescape"))
        digest.update(stack.source.file_index.tobytes())
        digest.update(stack.source.frame.tobytes())
    return digest.hexdigest()


def _finished_images(note: Path, key: str, mrcs: Path, number: int, image_bytes: int) -> int:
    """How many of ``number`` images an earlier, interrupted run of the same task has written, to ``<stack>.part`` or, all, to
    the stack."""
    part = part_name(mrcs)
    if not note.is_file():
        return 0
    if not part.is_file():
        part = mrcs  # where a kill came before its star was written, it has its name already, since the last note
        if not part.is_file() or part.stat().st_mtime_ns < note.stat().st_mtime_ns:
            return 0
    state: dict[str, Any] = next(iter(read_records(note)), {})
    done = state.get("done")
    if state.get("key") != key or type(done) is not int or done < 0 or (part == mrcs and done < number):
        return 0
    return min(done, (part.stat().st_size - HEADER_BYTES) // image_bytes)


def _forget(mrcs: Path, note: Path) -> None:
    """Remove what bad input has left unfinished, the folder too where nothing else is in it."""
    part_name(mrcs).unlink(missing_ok=True)
    note.unlink(missing_ok=True)
    if not any(mrcs.parent.iterdir()):
        mrcs.parent.rmdir()


def _write_note(note: Path, key: str, done: int) -> None:
    with atomic_path(note) as temporary:
        temporary.write_text(json.dumps({"key": key, "done": done}))
