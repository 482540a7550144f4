"""Patches of empty ice for the simulator's noise: written beside the prepared particles, and read again."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryorecon.data.files import free_space, refuse_input
from cryorecon.data.load import PREPARED, load_particles
from cryorecon.data.mrc import HEADER_BYTES, StackWriter
from cryorecon.data.pixel_size import APIX_TOLERANCE
from cryorecon.data.preprocess import Preparation, checked_box, prepare_images
from cryorecon.data.quality import check_images
from cryorecon.data.source import ArraySource, FileSource
from cryorecon.data.stack import ParticleStack
from cryorecon.data.star_write import write_star
from cryorecon.errors import InputError


def background_name(out: str | Path) -> Path:
    """The star of the patches beside that of the particles, which :func:`cryorecon.data.preprocess.prepare` calls ``out``."""
    star = Path(out) if Path(out).suffix == ".star" else Path(out) / PREPARED
    return star.with_name("background.star" if star.name == PREPARED else f"{star.stem}_background.star")


def write_background(stack: ParticleStack, patches: Iterable[tuple[str, Tensor]], star: str | Path, how: Preparation,
                     inputs: Sequence[Path] = ()) -> int:
    """Write patches as the particles of ``stack`` are prepared, in one stack beside ``star``; how many they are.

    patches: name of a micrograph ("": unknown) and patches ``(m, S, S)`` of it, of the extent of the stack's images. inputs:
    files that they come from.

    Raises
    ------
    InputError: no patch at all, constant or not finite ones; output over an input. Nothing is left then. Warns where they are
    fewer than the particles.
    """
    star = Path(star)
    mrcs = star.with_suffix(".mrcs")
    for path in (mrcs, star):
        refuse_input(path, (*stack.inputs, *inputs))
    box = checked_box(stack, how)
    free_space(mrcs, HEADER_BYTES + len(stack) * box * box * (2 if how.half else 4))
    apix = stack.apix * stack.box / box
    names: list[str] = []
    with StackWriter(mrcs, box, apix, half=how.half, star=star) as out:
        for name, raw in patches:
            if len(raw):
                made = prepare_images(raw, box, how).numpy()
                check_images(made, len(names) + np.arange(len(made)), ArraySource(made))
                out.append(made)
                names += [name] * len(raw)
        if not names:
            raise InputError(f"{star}: expected room for a patch beside the particles, found none in any micrograph; take "
                             "--background corners")
    if len(names) < len(stack):
        warnings.warn(f"{star}: found room for {len(names)} patches beside {len(stack)} particles", stacklevel=2)
    micrograph = np.array(names, dtype=object) if any(names) else None
    found = ParticleStack(FileSource.open([mrcs]), apix, None, None, torch.arange(len(names)), white=True,
                          micrograph=micrograph)
    write_star(star, found, mrcs.name)
    return len(names)


def load_background(path: str | Path, stack: ParticleStack) -> ParticleStack:
    """Patches for the particles of ``stack``, from any particle file; they have no CTF, whatever the file says.

    Their contrast is marked as the particles' is; where it isn't, it is taken to be the particles'. Raises
    :class:`InputError` for another box or pixel size.
    """
    found = load_particles(path)
    if found.box != stack.box or abs(found.apix / stack.apix - 1) > APIX_TOLERANCE:
        raise InputError(f"{path}: expected patches of {stack.box} px of {stack.apix:.4g} Å as the particles, found "
                         f"{found.box} px of {found.apix:.4g} Å; prepare both at once by cryorecon preprocess --background")
    sign = 1 if found.white and not stack.white else stack.sign
    return replace(found, apix=stack.apix, optics=None, poses=None, pixel=None, premultiplied=False, sign=sign)
