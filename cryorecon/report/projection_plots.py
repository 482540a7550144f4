"""Real images beside simulated ones."""

import numpy as np
from matplotlib.figure import Figure

from cryorecon.report.style import INK, figure, style

ROWS = ("real", "simulated", "simulated,\nno noise")


@style()
def projection_plot(images: np.ndarray) -> Figure:
    """Images ``(3, n, D, D)``: real, simulated with noise, and the latter without; the first two rows on one grey scale."""
    n = images.shape[1]
    drawn = figure(1.1 * n + 0.9, 3.5)
    noisy = np.percentile(images[:2], [1, 99])
    clean = (float(images[2].min()), max(float(images[2].max()), float(images[2].min()) + 1e-12))
    for row, (name, limits) in enumerate(zip(ROWS, (noisy, noisy, clean), strict=True)):
        for column in range(n):
            axes = drawn.add_subplot(3, n, row * n + column + 1)
            axes.imshow(images[row, column], cmap="gray", vmin=limits[0], vmax=limits[1], interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if not column:
                axes.set_ylabel(name, color=INK)
    return drawn
