"""The page of ``validate``: verdicts in words, FSCs of the controls, and how well images and noise fit the map."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cryorecon import __version__
from cryorecon.analysis.validation import Validation
from cryorecon.report import plots
from cryorecon.report.page import Picture, Section, Table, ending, write_page
from cryorecon.report.style import LINES, figure, save, style

FSC = ("Half maps' FSC of the run's images and of the controls, in the run's mask. What noise shares beyond where detail was "
       "replaced is not the molecule's. Noise that chose its poses shows the map that it was aligned on: that agreement proves "
       "nothing.")
FITS = ("Nats that each particle gains on an empty image by the pose it likes best in the other half set's map. Images that "
        "hold the molecule stand apart from noise of their own spectrum; noise that was aligned does not.")
FILES = {"validate.json": "verdicts and numbers", "fsc.csv": "all curves", "fits.csv": "nats of every particle that was asked",
         "fsc.png, fits.png": "the pictures"}


def write_validation(folder: Path, found: Validation, facts: Mapping[str, Any]) -> Path:
    """Draw ``fsc.png`` and ``fits.png``, write ``validate.html`` and return its path."""
    curves = {name: (curve.frequency.numpy(), curve.value.numpy()) for name, curve in found.curves.items()}
    fsc = save(plots.fsc(curves, found.apix, title="Half maps of the run's images and of controls"), folder / "fsc.png")
    drawn = save(fits(*found.gains), folder / "fits.png")
    rows = [(one.control, one.said, one.words, f"{one.seconds:.0f} s") for one in found.verdicts]
    used = f"{found.particles:,} particles, {found.images:,} images"
    sections = [Section("Verdicts", f"{found.verdict} By {used}.", tables=[Table(("control", "verdict", "why", "took"), rows)]),
                Section("What half maps share", pictures=[Picture(fsc, FSC, 760)]),
                Section("Do images fit better than noise?", pictures=[Picture(drawn, FITS, 620)]),
                *ending(folder, FILES, {name: str(value) for name, value in facts.items()} | {"cryorecon": __version__})]
    return write_page(folder / "validate.html", f"Controls of {Path(str(facts['run'])).name}", found.verdict, sections,
                      f"cryorecon {__version__}")


@style()
def fits(ours: np.ndarray, theirs: np.ndarray) -> Figure:
    """Histograms of the gains ``(m,)`` of images and of noise."""
    drawn = figure(5.0, 3.2)
    axes = drawn.add_subplot()
    both = np.concatenate([ours, theirs])
    bins = np.histogram_bin_edges(both, 50).tolist()
    for values, name, shade in ((ours, "the run's images", LINES[0]), (theirs, "noise", LINES[1])):
        axes.hist(values, bins, color=shade, alpha=0.55, label=f"{name}, mean {values.mean():.1f}")
        axes.axvline(values.mean(), color=shade, linewidth=1.2)
    axes.set(xlabel="nats gained by the best pose in the other half's map", ylabel="particles")
    axes.legend(loc="best")
    return drawn
