"""Soft masks in real space."""

import torch
from torch import Tensor


def radius_map(box: int, dims: int, device: torch.device | str = "cpu") -> Tensor:
    """Distance in pixels from the origin (index ``D // 2``), ``(D,) * dims``."""
    axis = torch.arange(box, device=device, dtype=torch.float32) - box // 2
    squared = sum(a.square() for a in torch.meshgrid(*[axis] * dims, indexing="ij"))
    return torch.as_tensor(squared).sqrt()


def soft_sphere(box: int, radius: float, edge: float, dims: int = 3, device: torch.device | str = "cpu") -> Tensor:
    """1 inside ``radius`` px, 0 beyond ``radius + edge``, a raised cosine between."""
    depth = ((radius_map(box, dims, device) - radius) / max(edge, 1e-6)).clamp(0, 1)
    return 0.5 * (1 + torch.cos(torch.pi * depth))


def window(box: int, inner: float = 0.85, outer: float = 0.99) -> Tensor:
    """cryoDRGN's image window: 1 to ``inner``, falling in a line to 0 at ``outer`` (fractions of ``D/2``), ``(D,
    D)``."""
    radius = radius_map(box, 2) / (box / 2)
    return ((outer - radius) / (outer - inner)).clamp(0, 1)


def from_map(density: Tensor, apix: float, threshold: float | None = None, lowpass: float = 15.0,
             dilate: float = 6.0, edge: float = 9.0) -> Tensor:
    """A soft solvent mask of a map ``(D, D, D)``.

    The map is low-passed to ``lowpass`` Å, cut at ``threshold`` (default: five standard deviations of its outer rim
    above that rim's mean, at most a fifth of the maximum), grown by ``dilate`` Å and given a raised-cosine edge of
    ``edge`` Å.
    """
    import numpy as np
    from scipy.ndimage import distance_transform_edt, label

    from cryorecon.geometry.fourier import centred_fft, centred_ifft

    box = density.shape[-1]
    radius = radius_map(box, 3)
    gauss = torch.exp(-0.5 * (radius / (box * apix) * lowpass) ** 2 * 1.386)
    smooth = centred_ifft(centred_fft(density, 3) * gauss, 3).real
    rim = smooth[(radius > 0.42 * box) & (radius < 0.5 * box)]
    if threshold is None:
        threshold = float(min(rim.mean() + 5 * rim.std(), 0.2 * smooth.max()))
    parts, _ = label((smooth > threshold).numpy())
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    kept = np.isin(parts, np.flatnonzero(sizes >= max(1, sizes.max() // 50)))  # specks of noise are not the molecule
    outside = torch.from_numpy(distance_transform_edt(~kept)).float() * apix
    return 0.5 * (1 + torch.cos(torch.pi * ((outside - dilate) / edge).clamp(0, 1)))
