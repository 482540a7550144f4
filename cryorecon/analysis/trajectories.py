"""Paths through latent space, and maps along them."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm import tqdm

from cryorecon.analysis.latent import PCA
from cryorecon.data.files import atomic_path
from cryorecon.data.mrc import write_volume
from cryorecon.errors import InputError

Decode = Callable[[np.ndarray], Tensor]  # z (d,) -> map (D, D, D)


def component_path(pca: PCA, z: np.ndarray, component: int, n: int = 10, low: float = 5.0, high: float = 95.0,
                   by_percentile: bool = False) -> np.ndarray:
    """``(n, d)`` latents along principal component ``component`` (from 0), the others at the mean.

    They run between the ``low`` and ``high`` percentiles of the particles ``z (N, d)``, evenly by length or
    ``by_percentile``: then each step passes as many particles.

    Raises
    ------
    InputError: there is no such component, or percentiles that do not rise from 0 to 100.
    """
    if not 0 <= low < high <= 100:
        raise InputError(f"percentiles: expected two that rise, from 0 to 100, found {low:g} and {high:g}")
    if not 0 <= component < len(pca.components):
        raise InputError(f"principal component: expected 1 to {len(pca.components)}, found {component + 1}")
    along = (np.asarray(z) - pca.mean) @ pca.components[component]
    if by_percentile:
        stops = np.percentile(along, np.linspace(low, high, n))
    else:
        first, last = np.percentile(along, [low, high])
        stops = np.linspace(float(first), float(last), n)
    return pca.mean + stops[:, None] * pca.components[component]


def write_latents(path: Path, z: np.ndarray) -> None:
    """Write latents ``(n, d)`` as text, one a line: the form that ``eval_vol --zfile`` reads."""
    with atomic_path(path) as temporary:
        np.savetxt(temporary, np.atleast_2d(z), fmt="%.8g")


def write_series(folder: Path, decode: Decode, z: np.ndarray, apix: float, label: str, first: int = 1) -> list[Path]:
    """Decode ``z (n, d)`` one by one into ``folder/vol_001.mrc`` ... and write ``folder/z_values.txt``.

    Maps left there by an earlier call and not written now are removed. The text is written last: where it is, all maps of it
    are. ``label`` names the progress bar; ``first``: the first
    map's number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "z_values.txt").unlink(missing_ok=True)
    paths = [folder / f"vol_{i + first:03d}.mrc" for i in range(len(z))]
    for path, point in zip(paths, _progress(z, label), strict=True):
        write_volume(path, decode(point).detach().cpu().numpy(), apix)
    for stale in set(folder.glob("vol_*.mrc")) - set(paths):
        stale.unlink()
    write_latents(folder / "z_values.txt", z)
    return paths


def _progress(items: np.ndarray, label: str) -> Iterable[np.ndarray]:
    return tqdm(items, desc=label, unit="map", disable=None, leave=False)
