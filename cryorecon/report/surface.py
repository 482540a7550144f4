"""Shaded isosurfaces by ray marching: no mesh, no display, the same picture on every machine.

A map is resampled twofold (band-limited), rays run parallel to the view's z axis from the front until the density first
reaches the level, and the surface is lit by the gradient there, darkened in its hollows.
"""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn.functional import grid_sample

from cryorecon.geometry.fourier import resample

Colour = tuple[float, float, float]
FINE_BOX = 160  # maps are refined up to twofold, and not beyond this
LIGHT = np.array([-0.45, 0.62, 0.64])  # from the upper left, in front: x right, y up, z towards the viewer


def ground_and_top(density: Tensor) -> tuple[float, float, float]:
    """Mean and standard deviation of the box's rim, and the density that only 1 in 500 voxels within it reach."""
    box = density.shape[-1]
    axis = (torch.arange(box) - box // 2) / box
    radius = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()
    rim = density[(radius > 0.43) & (radius < 0.5)]
    inside = density[radius < 0.43]
    return float(rim.mean()), float(rim.std()), float(inside.topk(max(1, len(inside) // 500)).values[-1])


def default_level(density: Tensor) -> float:
    """A level that shows the molecule: 0.3 of the way from the rim to the densest, above five sigma of the rim."""
    ground, sigma, top = ground_and_top(density)
    level = ground + max(0.3 * (top - ground), min(5 * sigma, 0.6 * (top - ground)))
    return level if level < float(density.max()) else float(density.mean())


def fitting_zoom(density: Tensor, level: float) -> float:
    """How far to come near so that what is above ``level`` fills the picture, seen from anywhere."""
    box = density.shape[-1]
    points = (density > level).nonzero() - box // 2
    if len(points) == 0:
        return 1.0
    return float(np.clip(0.46 * box / max(float(points.float().norm(dim=1).max()), 1.0), 0.75, 2.5))


def principal_view(density: Tensor, level: float) -> np.ndarray:
    """Rotation ``(3, 3)`` that lays what is above ``level`` flat: longest axis upright, shortest towards the viewer."""
    z, y, x = torch.nonzero(density > level, as_tuple=True)
    if len(x) < 4:
        return np.eye(3)
    points = (torch.stack([x, y, z], 1).double() - density.shape[-1] // 2).numpy()
    _, vectors = np.linalg.eigh(np.cov(points.T))
    view = np.stack([vectors[:, 1], vectors[:, 2], vectors[:, 0]])
    # signs by the skew along each axis, so that similar maps are seen alike
    skew = (((points - points.mean(0)) @ view.T) ** 3).sum(0)
    view[:2] *= np.where(skew[:2] < 0, -1, 1)[:, None]
    view[2] = np.cross(view[0], view[1])
    return view


def turned(view: np.ndarray, axis: str, degrees: float) -> np.ndarray:
    """``view`` turned about the picture's own ``x`` (horizontal) or ``y`` (upright) axis."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) if axis == "y" else np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    return turn @ view


def render(density: Tensor, level: float, view: np.ndarray, colour: Colour = (0.45, 0.62, 0.82), size: int = 240,
           zoom: float = 1.0) -> np.ndarray:
    """Picture ``(size, size, 4)`` RGBA in [0, 1], transparent where no ray meets the surface.

    density: ``(D, D, D)``. view: rotation ``(3, 3)``; rows are the picture's right, up and towards the viewer in the
    map's (x, y, z). zoom: 1 shows a box's width.
    """
    wide = 2 * size  # rendered at twice the size and averaged: smooth edges
    fine = resample(density.float(), min(2 * density.shape[-1], max(FINE_BOX, density.shape[-1])), 3)
    field = (fine - level) / float(fine.std() + 1e-12)
    depth = _first_hit(field, view, wide, zoom)
    if not np.isfinite(depth).any():
        return np.zeros((size, size, 4))
    normal = _normals(field, depth, view, zoom)
    shaded = _shade(depth, normal, colour)
    parts = shaded.reshape(size, 2, size, 2, 4)
    alpha = parts[..., 3:].mean((1, 3))
    rgb = (parts[..., :3] * parts[..., 3:]).mean((1, 3)) / np.maximum(alpha, 1e-6)
    return np.concatenate([np.clip(rgb, 0, 1), alpha], -1)


def projected(density: Tensor, view: np.ndarray) -> Tensor:
    """Projection ``(D, D)`` of a map ``(D, D, D)`` towards the viewer of :func:`render`, first row on top."""
    box = density.shape[-1]
    line = (torch.arange(box) - box // 2) * (2 / box)
    depth, up, right = torch.meshgrid(line, -line, line, indexing="ij")
    return _sample(density.float(), torch.stack([right, up, depth], -1), view).sum(0)


def _sample(field: Tensor, points: Tensor, view: np.ndarray) -> Tensor:
    """``field`` at points ``(..., 3)`` of the picture's frame, in units of half a box from the origin."""
    box = field.shape[-1]
    place = points @ torch.from_numpy(view.astype(np.float32))
    place = place + (box // 2 * 2 + 1 - box) / box  # grid_sample counts from the outer edges of the box
    shape = place.shape[:-1]
    values = grid_sample(field[None, None], place.reshape(1, 1, 1, -1, 3), padding_mode="border", align_corners=False)
    return values.reshape(shape)


def _axes(wide: int, zoom: float) -> Tensor:
    """Picture coordinates ``(wide, wide, 2)``: x to the right, y up."""
    line = (torch.arange(wide) + 0.5) / wide * 2 - 1
    y, x = torch.meshgrid(-line / zoom, line / zoom, indexing="ij")
    return torch.stack([x, y], -1)


def _first_hit(field: Tensor, view: np.ndarray, wide: int, zoom: float) -> np.ndarray:
    """Where each ray from the front first reaches 0: ``(wide, wide)`` in half boxes, NaN where it doesn't."""
    box = field.shape[-1]
    reach = ((field > 0).nonzero() - box // 2).float().norm(dim=1)
    if len(reach) == 0:
        return np.full((wide, wide), np.nan)
    front = float(reach.max()) * 2 / box + 0.02
    steps = torch.linspace(front, -front, int(0.8 * front * box / 2) * 2)  # 1.25 fine voxels
    plane = _axes(wide, zoom).reshape(-1, 2)
    # a coarse picture first: only rays near something are marched
    coarse = _axes(wide // 4, zoom).reshape(-1, 2)
    seen = torch.full((len(coarse),), -torch.inf)
    for z in steps[::2]:
        seen = torch.maximum(seen, _sample(field, torch.cat([coarse, z.expand(len(coarse), 1)], 1), view))
    seen = torch.nn.functional.max_pool2d(seen.view(1, 1, wide // 4, wide // 4), 3, 1, 1)
    near = torch.nn.functional.interpolate(seen, (wide, wide)).flatten() > -0.3
    depth = torch.full((wide * wide,), torch.nan)
    active = torch.nonzero(near).flatten()
    before = torch.full((len(active),), -1.0)
    for i, z in enumerate(steps):
        value = _sample(field, torch.cat([plane[active], z.expand(len(active), 1)], 1), view)
        hit = value >= 0
        if hit.any():
            part = (value[hit] / (value[hit] - before[hit])).clamp(0, 1)
            back = float(steps[i - 1] - z) if i else 0.0
            depth[active[hit]] = z + part * back
            active, value = active[~hit], value[~hit]
        before = value
    return depth.view(wide, wide).numpy()


def _normals(field: Tensor, depth: np.ndarray, view: np.ndarray, zoom: float) -> np.ndarray:
    """Unit normals ``(wide, wide, 3)`` in the picture's frame from the density's gradient; NaN without surface."""
    wide = len(depth)
    points = torch.cat([_axes(wide, zoom), torch.from_numpy(depth)[..., None]], -1)
    hit = torch.isfinite(points[..., 2])
    at = points[hit]
    step = 2.0 / field.shape[-1]
    slope = [_sample(field, at + step * axis, view) - _sample(field, at - step * axis, view) for axis in torch.eye(3)]
    gradient = -torch.stack(slope, -1)
    out = np.full((wide, wide, 3), np.nan)
    out[hit.numpy()] = torch.nn.functional.normalize(gradient, dim=-1).numpy()
    return out


def _shade(depth: np.ndarray, normal: np.ndarray, colour: Colour) -> np.ndarray:
    """RGBA ``(wide, wide, 4)``: key light, soft sky, a small highlight, dark hollows, distance fading to pale."""
    hit = np.isfinite(depth)
    light = LIGHT / np.linalg.norm(LIGHT)
    n = np.nan_to_num(normal)
    key = np.clip(n @ light, 0, None)
    sky = 0.5 + 0.5 * n[..., 1]
    half = (light + np.array([0, 0, 1])) / np.linalg.norm(light + np.array([0, 0, 1]))
    gloss = np.clip(n @ half, 0, None) ** 40
    near, far = np.nanmax(depth), np.nanmin(depth)
    filled = np.where(hit, depth, far)
    hollow = np.zeros_like(filled)
    for width in (len(depth) / 60, len(depth) / 22):  # lower than its neighbourhood: in shadow
        hollow += np.clip((_neighbourhood(depth, width) - filled) / 0.12, 0, 1)
    strength = (0.34 + 0.62 * key + 0.16 * sky) * (1 - 0.38 * np.clip(hollow, 0, 1))
    base = np.array(colour) * strength[..., None] + 0.22 * gloss[..., None]
    fade = 0.28 * ((near - filled) / max(near - far, 1e-6))[..., None]
    return np.concatenate([base * (1 - fade) + fade * 0.93, hit[..., None].astype(float)], -1)


def _neighbourhood(depth: np.ndarray, width: float) -> np.ndarray:
    """Mean depth of the surface about each pixel, Gaussian of ``width`` pixels; made on every fourth pixel."""
    few = depth[::4, ::4]
    hit = np.isfinite(few)
    cover = gaussian_filter(hit.astype(np.float32), width / 4)
    mean = gaussian_filter(np.where(hit, few, 0.0).astype(np.float32), width / 4) / np.maximum(cover, 1e-6)
    wide = torch.nn.functional.interpolate(torch.from_numpy(mean)[None, None], depth.shape, mode="bilinear")
    return wide[0, 0].numpy()
