"""Pictures and page of what ``analyze`` found of a run of train_gan."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from cryorecon.analysis.generated import LAST, Generated, Occupancy
from cryorecon.geometry.fourier import resample
from cryorecon.metrics.occupancy import PARTS, halfway
from cryorecon.report import generated_plots, maps, plots
from cryorecon.report.explorer import Series, asset, scripts, series_data
from cryorecon.report.page import Picture, Section, Table, embedded, ending, write_page
from cryorecon.report.projection_plots import projection_plot
from cryorecon.report.style import save
from cryorecon.report.surface import default_level, principal_view

HAND = ("Hand and orientation of the map are not determined{one}: a mirrored and turned one makes the same images. Lay it on "
        "another by eval_fsc --align.")
SIMILARITY = ("FSCCC: the area under the FSC of every two maps. Blocks along the diagonal are conformations, and their widths "
              "occupancies, for alpha is drawn evenly; a gradient without blocks is a continuous motion, and where it is cut "
              "then means little. That maps differ does not prove that particles do. ")

ALONE = ("There are no errors: the last third of the epochs has one checkpoint. Give train_gan a smaller --checkpoint or more "
         "epochs.")


def in_short(found: Generated) -> Section:
    """What was found, in sentences, warnings last."""
    said, warned = [], []
    if found.zdim:
        said.append(f"{len(found.alpha)} maps along alpha, from 0 to 1; the two ends have an area under their FSC of "
                    f"{found.areas[0, -1]:.3f}, where a map with itself has 1.")
    if found.alike:
        warned.append("all maps along alpha are alike: this run found no conformations, and occupancies mean nothing")
    elif found.occupancy:
        said.append(f"By the rule relative to the ends: {_shares(found.occupancy['ends'])}. "
                    f"By the paper's rule: {_shares(found.occupancy['paper'])}.")
    if found.earlier:
        epoch = next((one for one in found.earlier if one > (1 - LAST) * found.epoch), max(found.earlier))
        said.append(f"The {'maps' if found.zdim else 'map'} of epoch {epoch} and of this one agree to "
                    f"{_resolution(found, epoch)} (FSC 0.5).")
    if not bool(torch.any(found.maps > 0)):
        warned.append("the map is empty")
    warned += found.doubts
    said.append(HAND.format(one=", and are the same for all alpha" if found.zdim else ""))
    said += [f"Warning: {line}." for line in warned]
    return Section("In short", " ".join(said))


def _shares(one: Occupancy) -> str:
    errors = [""] * len(PARTS) if one.error is None else [f"\u00a0±\u00a0{100 * error:.0f}" for error in one.error]
    return ", ".join(f"{part} {100 * share:.0f}{error}\u00a0%"
                     for part, share, error in zip(PARTS, one.share, errors, strict=True))


def _resolution(found: Generated, epoch: int) -> str:
    value = found.unchanged(epoch)
    return f"{value.bound}{value.angstrom:.1f} Å"


def maps_section(found: Generated) -> Section | None:
    """Surfaces that turn, stills of them and slices: ``volumes.png``, ``slices.png``; None where no maps were written."""
    if not found.map_files:
        return None
    densities = maps.read_maps(found.map_files)
    middle = len(densities) // 2
    apix = found.apix * found.maps.shape[-1] / densities[middle].shape[-1]
    if found.zdim:
        labels, title = [f"α = {alpha:g}" for alpha in found.alpha], "Maps along alpha"
        drawn, which = maps.surfaces(densities, labels, title, columns=7), f"the map at {labels[middle]}"
        text = ("One map for each alpha; Play runs through them. Every alpha is as frequent as any other. All maps share one "
                "level and one view.")
        if found.zdim > 1:
            text += f" This run's alpha has {found.zdim} numbers; they go from 0 to 1 together here."
    else:
        labels, which, title, text = ["The map"], "the map", "The map", ""
        drawn = maps.surface(densities[0], title)
    series = Series("alpha", "along alpha" if found.zdim else "of the run", "path", found.map_files,
                    np.repeat(found.alpha[:, None], found.zdim, 1), labels, first=0)
    pictures = [Picture(save(drawn, found.folder / "volumes.png"), f"{title}, as shaded surfaces.", instead="surface"),
                Picture(save(maps.slices(densities[middle], apix), found.folder / "slices.png"),
                        f"Central slices and projections of {which}.", 720)]
    data = embedded(series_data([series], found.folder, found.zdim), "explorer-data")
    return Section(title, text, pictures, markup=asset("explorer.html") + data)


def similarity_section(found: Generated) -> Section:
    """``fsccc.png`` and occupancies by either rule."""
    parts = found.occupancy["ends"].parts if found.occupancy else None
    picture = Picture(save(generated_plots.fsccc(found.alpha, found.areas, parts), found.folder / "fsccc.png"),
                      "Left: every map with every other. Right: the first and the last row"
                      + ("; the ground says to which end a map belongs by the relative rule, grey is a transition."
                         if found.occupancy else "."), 860)
    if not found.occupancy:
        return Section("Conformations", SIMILARITY + "Alpha has several numbers here, so that shares along this line are not "
                       "occupancies.", [picture])
    names = {"paper": "paper's, area 0.5", "ends": f"relative, area {halfway(found.areas):.3f}"}
    rows = [(names[rule], *(_percent(one, i) for i in range(len(PARTS)))) for rule, one in found.occupancy.items()]
    checkpoints = found.occupancy["ends"].checkpoints
    errors = (ALONE if len(checkpoints) == 1 else f"Errors are the standard deviation over epochs {_listed(checkpoints)}: how "
              "far the game has settled. Other images and other seeds scatter more.")
    step = f"A share counts maps, in steps of {100 / len(found.alpha):.1f} %. "
    return Section("Conformations", SIMILARITY + step + errors, [picture], [Table(("rule", *PARTS), rows)])


def _percent(one: Occupancy, part: int) -> str:
    error = "" if one.error is None else f" ±\u00a0{100 * one.error[part]:.1f}"
    return f"{100 * one.share[part]:.1f}{error}\u00a0%"


def _listed(epochs: list[int]) -> str:
    return f"{', '.join(map(str, epochs[:-1]))} and {epochs[-1]}"


def projections_section(found: Generated) -> Section | None:
    """``projections.png`` and ``along_alpha.png``; None where there is neither."""
    pictures = []
    if found.images is not None:
        pictures.append(Picture(save(projection_plot(found.images), found.folder / "projections.png"),
                                "Real images; simulated ones at other poses, with the same CTFs; these without noise. All as "
                                "the critic sees them. The first two rows should look alike.", 860))
    if found.zdim:
        few = torch.stack([resample(one, min(len(one), maps.PICTURE_BOX), 3) for one in found.maps])
        mean = few.mean(0)
        drawn = generated_plots.along_alpha(found.alpha, few, principal_view(mean, default_level(mean)))
        pictures.append(Picture(save(drawn, found.folder / "along_alpha.png"),
                                "The maps seen along one direction, without CTF and noise, and how they differ from their "
                                "mean: red is more, blue less.", 1000))
    return Section("Projections", pictures=pictures) if pictures else None


def settling_section(found: Generated) -> Section:
    """``settling.png``, where there are earlier checkpoints."""
    what, title = "maps" if found.zdim else "map", "Has it settled?"
    if not found.earlier:
        return Section(title, "There is no earlier checkpoint to compare with; give train_gan a smaller --checkpoint.")
    curves = {f"epoch {epoch}": (one.frequency.numpy(), one.value.numpy()) for epoch, one in reversed(found.earlier.items())}
    drawn = plots.fsc(curves, found.apix, title=f"Earlier {what} with epoch {found.epoch}'s")
    drawn.axes[0].legend(loc="lower left", ncols=2, fontsize=8)  # curves are high there
    picture = Picture(save(drawn, found.folder / "settling.png"), "FSC of earlier checkpoints with this one"
                      + (", of all alpha together." if found.zdim else "."), 560)
    rows = [(str(epoch), _resolution(found, epoch)) for epoch in found.earlier]
    return Section(title, f"How far the {what} still changed. Steps grow small towards the end of a run, which brings the last "
                   "checkpoints together: agreement here is not resolution.", [picture],
                   [Table(("epoch", "agrees to (FSC 0.5)"), rows)])


def training_section(found: Generated, history: Mapping[str, np.ndarray]) -> Section:
    """``learning_curve.png``."""
    picture = Picture(save(generated_plots.game(history), found.folder / "learning_curve.png"),
                      "By epoch; on grey ground the critic's band still grew.")
    words = ("The critic's distance between real and simulated images rises while the critic learns, should then fall, and "
             "stays at what the critic knows by heart.")
    if "contrast" in history:
        words += (" Later the critic is the likelihood of the maps themselves, in nats an image: real images come to be as "
                  "likely as simulated ones, a difference of 0.")
    return Section("Training", words, [picture])


def write_generated(found: Generated, history: Mapping[str, np.ndarray], title: str, facts: Mapping[str, str]) -> Path:
    """Draw everything and write ``report.html``; returns its path.

    ``history``: of :func:`cryorecon.analysis.history.read_history`. ``facts``: name -> words on how this was made.
    """
    sections = [in_short(found), maps_section(found), similarity_section(found) if found.zdim else None,
                projections_section(found), settling_section(found), training_section(found, history),
                *ending(found.folder, found.files, facts)]
    what = "maps along alpha; no particle has one" if found.zdim else "one map"
    return write_page(found.folder / "report.html", title, f"A run of train_gan: {what}",
                      [section for section in sections if section is not None],
                      "Made by cryorecon analyze. This page needs no network.", asset("explorer.css"),
                      scripts(plots=False) if found.map_files else ())
