r"""Tilt pairs: two stacks of the same particles, the second taken after the stage has turned, as one stack of 2N images.

The particle's pose is that of its untilted image. Both images are projections of one particle, ``R_image = T R`` with
``T = 1`` and ``T = Rx(angle)``: the molecule is turned by its own pose first and by the stage in the laboratory's frame
second. The shift ``t`` is the same for both (Zhong et al. 2020, appendix D.2, in the order of rotations of its code; the text
has it the other way round).

What is said of particles here holds for whole tilt series too: :func:`poses_of_images`, :func:`poses_of_particles`.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryorecon.data.load import load_particles, read_metadata
from cryorecon.data.pixel_size import APIX_TOLERANCE, EQUAL
from cryorecon.data.poses import Poses
from cryorecon.data.source import FileSource, joined
from cryorecon.data.stack import ParticleStack
from cryorecon.errors import InputError
from cryorecon.geometry.rotations import about_x
from cryorecon.imaging.ctf import Optics

PathLike = str | Path


def load_tilt_pair(untilted: ParticleStack, path: PathLike, angle: float, *, ctf: PathLike | None = None,
                   ind: PathLike | np.ndarray | None = None, datadir: PathLike | None = None,
                   apix: float | None = None) -> ParticleStack:
    """Join the tilted images of a file to an untilted stack (:func:`tilt_pair`).

    Parameters
    ----------
    untilted: as :func:`load_particles` gave it. path: the tilted images, of any format that it reads, in the same order.
    angle: of the stage, in radians. ctf: of the tilted images (default: their file's, or else the untilted images').
    ind, datadir, apix: as for :func:`load_particles`; ``ind`` must be the untilted stack's.

    The contrast is taken to be the untilted images'. Where the tilted file does not know its pixel size it has theirs.
    Raises :class:`InputError` as :func:`load_particles` and :func:`tilt_pair` do.
    """
    silent = apix is None and ctf is None and read_metadata(path, datadir=datadir).apix is None
    tilted = load_particles(path, ctf=ctf, ind=ind, datadir=datadir, apix=untilted.apix if silent else apix,
                            invert=untilted.sign < 0)
    if silent and isinstance(tilted.source, FileSource):  # only its headers can speak; 0 and 1 are from those that don't know
        stated = [header.apix for header in tilted.source.headers if header.apix > 0 and abs(header.apix - 1) > 1e-6]
        tilted = replace(tilted, apix=stated[0] if stated else untilted.apix)
    return tilt_pair(untilted, tilted, angle)


def tilt_pair(untilted: ParticleStack, tilted: ParticleStack, angle: float) -> ParticleStack:
    """One stack of 2N images: untilted and tilted image of the first particle, of the second, and so on.

    Particle ids, half-sets, poses, contrast and pixel size are the untilted stack's (poses and half-sets where it has
    any; the tilted images' rotation is ``T R``, their shift the same); so is the CTF where the tilted images have none
    of their own. ``angle``: of the stage about x, in radians.

    Raises
    ------
    InputError: numbers of images, boxes, pixel sizes, contrasts or treatment by the CTF that differ; a CTF of the tilted
    images alone; an untilted stack that is a tilt series itself.
    """
    _check(untilted, tilted)
    n = len(untilted)
    tilt = torch.stack([torch.eye(3), about_x(angle)]).repeat(n, 1, 1)
    source = joined(untilted.source, tilted.source).select(np.arange(2 * n).reshape(2, n).T.ravel())
    pair = replace(
        untilted, source=source, optics=_optics(untilted, tilted), particle=untilted.particle.repeat_interleave(2), tilt=tilt,
        poses=None, half=None if untilted.half is None else untilted.half.repeat_interleave(2),
        pixel=_pixel(untilted, tilted), micrograph=None, files=untilted.files + tilted.files,
    )
    if untilted.poses is None:
        return pair
    rotation, shift = untilted.poses.rotation.repeat_interleave(2, 0), untilted.poses.shift.repeat_interleave(2, 0)
    return pair.with_poses(Poses(tilt @ rotation, shift))


def poses_of_images(poses: Poses, stack: ParticleStack) -> Poses:
    """Poses of all N images from those of the particles, in the order of their ids: rotation ``T R``, the same shift."""
    rotation, shift = poses.rotation[owner(stack)], poses.shift[owner(stack)]
    return Poses(rotation if stack.tilt is None else stack.tilt @ rotation, shift)


def poses_of_particles(poses: Poses, stack: ParticleStack) -> Poses:
    """Poses of the particles, in the order of their ids, from those of all N images: that of each particle's first image in
    the stack, ``R = T^T R_image``, and its shift."""
    row = first_image(stack)
    rotation = poses.rotation[row]
    return Poses(rotation if stack.tilt is None else stack.tilt[row].mT @ rotation, poses.shift[row])


def owner(stack: ParticleStack) -> Tensor:
    """Place of each image's particle in the order of particle ids, ``(N,)``."""
    return torch.unique(stack.particle, return_inverse=True)[1]


def first_image(stack: ParticleStack) -> Tensor:
    """Position of each particle's first image in the stack, ``(n_particles,)``, in the order of particle ids."""
    return torch.from_numpy(np.unique(stack.particle.numpy(), return_index=True)[1])


def _check(untilted: ParticleStack, tilted: ParticleStack) -> None:
    where = _named(tilted)
    if untilted.n_particles < len(untilted) or untilted.tilt is not None:
        raise InputError(f"{_named(untilted)}: expected one untilted image of each particle, found a tilt series; leave "
                         "--tilt out, a series is used as it is")
    if len(tilted) != len(untilted):
        raise InputError(f"{where}: expected a tilted image for each of {len(untilted)} untilted ones, found {len(tilted)}; "
                         "both stacks must hold the same particles in the same order")
    if tilted.box != untilted.box:
        raise InputError(f"{where}: expected images of {untilted.box} px as the untilted ones, found {tilted.box} px; bring "
                         "both to one box by cryorecon preprocess")
    if abs(tilted.apix / untilted.apix - 1) > APIX_TOLERANCE:
        raise InputError(f"{where}: expected {untilted.apix:.4g} Å/px as the untilted images, found {tilted.apix:.4g}; bring "
                         f"both to one pixel size, or give --apix {untilted.apix:.4g} if the header is wrong")
    if tilted.optics is None:
        return  # contrast and CTF are the untilted images'
    if untilted.optics is None:
        raise InputError(f"{where}: expected no CTF, since the untilted images have none, found one; give theirs by --ctf")
    if tilted.sign != untilted.sign:
        raise InputError(f"{where}: expected the contrast of the untilted images, found the other; load both alike")
    if tilted.premultiplied != untilted.premultiplied:
        raise InputError(f"{where}: expected images {'' if untilted.premultiplied else 'not '}multiplied by their CTF as the "
                         "untilted ones, found the other; extract both alike")


def _optics(untilted: ParticleStack, tilted: ParticleStack) -> Optics | None:
    """CTF of the 2N images."""
    if untilted.optics is None:
        return None
    second = untilted.optics if tilted.optics is None else tilted.optics
    return Optics(torch.stack([untilted.optics.parameters, second.parameters], 1).flatten(0, 1))


def _pixel(untilted: ParticleStack, tilted: ParticleStack) -> Tensor | None:
    """Each of the 2N images' own pixel size, None where all have the untilted stack's."""
    own = [torch.full((len(part),), part.apix, dtype=torch.float64) if part.pixel is None else part.pixel
           for part in (untilted, tilted)]
    pixel = torch.stack(own, 1).flatten()
    return None if bool(((pixel / untilted.apix - 1).abs() < EQUAL).all()) else pixel


def _named(stack: ParticleStack) -> str:
    """The file of its images, for errors."""
    return str(stack.source.headers[0].path) if isinstance(stack.source, FileSource) else "images in memory"
