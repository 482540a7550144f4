"""Four controls of a run, each with a verdict: detail that is noise, images that are noise, poses of other particles, a
molecule that does not move.

*Detail.* The run's images with random phases beyond the shell at which its half maps' FSC falls below 0.8 are reconstructed as
the run's own are; where the run moved poses, these are searched for again. What half maps then share beyond that shell is
overfitting, and ``(FSC_t - FSC_n) / (1 - FSC_n)`` is the FSC without it.

*Noise* (Einstein from noise: Henderson, PNAS 110, 18037 (2013)). Images of noise of the measured spectrum and the run's own
images choose their poses by one search of the other half set's map. Images that hold the molecule fit it better than noise
does; images that were made to show it by alignment don't. Noise is reconstructed at the run's poses, too, and at those that it
chose.

*Poses.* Each particle meets the other half set's map at the run's pose, and with rotation or shift of another particle in its
place. Poses in another order than the images, or of another convention, are no better than another particle's; shifts of the
wrong sign are worse.

*Motion.* Images of the run's mean map, with noise of each image's own spectrum, show a molecule that does not move. Components
are learned of one half set, and z is inferred of the other's images and of their still doubles: where nothing moves, both
spread alike.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cryorecon.analysis.controls import Subject, fits, gained, of_others, reconstruct, searched_again, still_images
from cryorecon.analysis.latent import fit_pca
from cryorecon.data.arrays import write_csv
from cryorecon.data.files import atomic_path
from cryorecon.data.stack import ParticleStack
from cryorecon.inference.conformation.posterior import Posterior
from cryorecon.inference.conformation.table import Table
from cryorecon.metrics.fsc import FSCCurve, fsc_curve, resolution
from cryorecon.metrics.solvent import BESIDE, first_below, overfit_free
from cryorecon.model import Model
from cryorecon.training.closed_form import Consensus, LowRank, low_rank
from cryorecon.training.evaluate import POINTS
from cryorecon.training.inferred import inferred

CROSSED = 0.143
FITTED = 1000  # particles that choose their poses
SURE = 5.0  # standard errors by which images must fit better than noise
ENOUGH = 1000  # particles of which a control that is not SURE is flagged
REACH = 2  # shells at which a component's half maps must agree to count

Report = Callable[[str], None]


@dataclass(frozen=True)
class Verdict:
    """control: its name. passed: None where it has nothing to say. words: why, in a sentence or two. numbers: for the file.
    few: it could not tell, of so few particles."""

    control: str
    passed: bool | None
    words: str
    numbers: dict[str, Any]
    seconds: float = 0.0
    few: bool = False

    @property
    def said(self) -> str:
        """The verdict in a word or two."""
        return {True: "passed", False: "FLAGGED", None: "too few particles" if self.few else "not told"}[self.passed]

    def __str__(self) -> str:
        return f"{self.control}: {self.said}. {self.words}"


@dataclass(frozen=True)
class Validation:
    """verdicts: of all controls. curves: name -> FSC of half maps, masked. gains: nats ``(m,)`` of the run's images and of
    noise. images, particles: how many were used."""

    verdicts: list[Verdict]
    curves: dict[str, FSCCurve]
    gains: tuple[np.ndarray, np.ndarray]
    apix: float
    images: int
    particles: int

    @property
    def passed(self) -> bool:
        """No control is flagged, and none had too few particles."""
        return all(verdict.passed is not False and not verdict.few for verdict in self.verdicts)

    @property
    def flagged(self) -> bool:
        """A control is."""
        return any(verdict.passed is False for verdict in self.verdicts)

    @property
    def verdict(self) -> str:
        """All verdicts in a sentence."""
        if self.flagged:
            return "A control is flagged: read it before you believe the maps."
        return "Every control passed." if self.passed else "None is flagged, but particles are too few for all to be told."


def validate(subject: Subject, report: Report = lambda line: None) -> Validation:
    """Run all controls; ``report`` hears of each as it ends."""
    problem = subject.problem
    found = reconstruct(subject, subject.stack, subject.given())
    mask = problem.mask.cpu()
    curves = {"the run's images": halves_fsc(found, mask)}
    gains: tuple[np.ndarray, np.ndarray] = (np.zeros(0), np.zeros(0))
    verdicts = []

    def add(control: Callable[[], Verdict]) -> None:
        began = time.monotonic()
        verdicts.append(replace(control(), seconds=time.monotonic() - began))
        report(f"{verdicts[-1]} ({verdicts[-1].seconds:.0f} s)")

    def noise() -> Verdict:
        nonlocal gains
        verdict, gains = of_noise(subject, found, mask, curves)
        return verdict

    add(lambda: of_detail(subject, found, mask, curves))
    add(noise)
    add(lambda: of_poses(subject, found))
    if subject.config.zdim:
        add(lambda: of_still(subject, found))
    return Validation(verdicts, curves, gains, problem.grid.apix, len(subject.stack), subject.stack.n_particles)


def halves_fsc(found: Consensus, mask: Tensor) -> FSCCurve:
    """FSC of the masked half maps."""
    halves = found.halves.cpu()
    return fsc_curve(halves[0], halves[1], mask, "the run's")


def shared_by(curve: FSCCurve, shells: slice, mask: Tensor) -> tuple[float, float]:
    """Mean of a curve over ``shells``, by their numbers of coefficients, and three standard deviations of what it is for maps
    that share nothing: one over the root of as many coefficients as the mask leaves independent."""
    number = torch.arange(len(curve.value), dtype=torch.float64)[shells].square()
    independent = 2 * math.pi * float(number.sum()) * float(mask.square().mean())
    return float((number * curve.value[shells]).sum() / number.sum()), 3 / math.sqrt(max(independent, 1.0))


def of_detail(subject: Subject, found: Consensus, mask: Tensor, curves: dict[str, FSCCurve]) -> Verdict:
    """Detail that is noise; adds the curves with random phases and without overfitting."""
    apix, total = subject.problem.grid.apix, curves["the run's images"]
    first = first_below(total)
    if first >= len(total.value) - BESIDE:
        return Verdict("detail", None, "Half maps agree (FSC 0.8) up to the last shell: there is no detail to replace by "
                       "noise.", {"first_shell": first})
    stack = subject.with_random_phases(first)
    pose = searched_again(subject, stack, found.resolved) if subject.moved else subject.given()
    noise = halves_fsc(reconstruct(subject, stack, pose), mask)
    true = replace(total, value=overfit_free(total.value, noise.value, first))
    curves |= {"detail replaced by noise": noise, "without overfitting": true}
    shells = slice(first + BESIDE, max(first + BESIDE + 1, int(found.resolved) + 1))
    shared, chance = shared_by(noise, shells, mask)
    claimed, left = (resolution(curve, CROSSED, apix) for curve in (total, true))
    beyond = f"etail beyond {apix / float(total.frequency[first]):.3g} Å"
    how = (f"Poses were searched for again with d{beyond} replaced by noise: " if subject.moved else
           f"D{beyond} was replaced by noise, at the poses that were given (how these were made it can't tell): ")
    words = (f"{how}half maps of that noise share {shared:.2f} on average up to the resolution. Of {claimed.bound}"
             f"{claimed.angstrom:.2f} Å, {left.bound}{left.angstrom:.2f} Å are left without overfitting.")
    return Verdict("detail", shared < max(CROSSED, chance), words, {
        "first_shell": first, "first_angstrom": apix / float(total.frequency[first]), "noise_fsc": shared,
        "searched_again": subject.moved, "resolution_A": claimed.angstrom, "resolution_without_overfitting_A": left.angstrom})


def of_noise(subject: Subject, found: Consensus, mask: Tensor,
             curves: dict[str, FSCCurve]) -> tuple[Verdict, tuple[np.ndarray, np.ndarray]]:
    """Images of noise; adds their curves. Returns the gains of the run's images and of noise, too."""
    apix = subject.problem.grid.apix
    flat = reconstruct(subject, subject.with_random_phases(1), subject.given())
    curves["noise at the run's poses"] = halves_fsc(flat, mask)
    part = subject.part(FITTED)
    stack = part.with_random_phases(1)
    ours, _ = fits(part, part.stack, found)
    theirs, table = fits(part, stack, found)
    numbers = compared(ours, theirs)
    chosen = reconstruct(part, stack, table)
    curves["noise at poses it chose"] = halves_fsc(chosen, mask)
    curves["noise's map and the run's"] = fsc_curve(chosen.density.cpu(), found.density.cpu(), mask)
    resolved = slice(1, int(found.resolved) + 1)
    shared, chance = shared_by(curves["noise at the run's poses"], resolved, mask)
    likeness = resolution(curves["noise's map and the run's"], 0.5, apix)
    fit = numbers["standard_errors"] > SURE
    few = not fit and too_few(numbers["standard_errors"], len(ours))
    if fit:
        words = (f"The run's images fit the map of the other half by {numbers['images']:.1f} nats each, noise by "
                 f"{numbers['control']:.1f} when both may choose their poses ({numbers['standard_errors']:.0f} standard errors "
                 "apart).")
    else:
        words = (f"The run's images fit the map of the other half no better than noise does ({numbers['images']:.1f} and "
                 f"{numbers['control']:.1f} nats, {numbers['standard_errors']:.1f} standard errors): ")
        words += (f"{len(ours)} particles can't tell a sound map from noise that was aligned on a reference." if few else
                  "the map may be noise that was aligned on a reference.")
    words += (f" Noise that was aligned on the run's map looks like it up to {likeness.bound}{likeness.angstrom:.3g} Å (FSC "
              "0.5).")
    agrees = shared >= max(CROSSED, chance)
    if agrees:
        words += f" Noise at the run's poses has half maps that share {shared:.2f}: something other than the images agrees."
    return Verdict("noise", None if few and not agrees else fit and not agrees, words, numbers | {
        "noise_fsc_at_the_runs_poses": shared, "aligned_noise_like_the_map_A": likeness.angstrom}, few=few), (ours, theirs)


def of_poses(subject: Subject, found: Consensus) -> Verdict:
    """The run's poses against rotations and shifts of other particles. These alone are not asked to be better: where shifts are
    smaller than the resolution another's is as good."""
    rotation, shift = of_others(subject)
    own, turned, moved = (gained(subject, found, pose) for pose in (subject.given(), rotation, shift))
    apart, off = (float((own - each).mean()) / max(float((own - each).std()) / math.sqrt(len(own)), 1e-12)
                  for each in (turned, moved))
    numbers = {"images": float(own.mean()), "rotations_of_others": float(turned.mean()),
               "shifts_of_others": float(moved.mean()), "standard_errors": apart, "standard_errors_of_shifts": off}
    fit, wrong = apart > SURE, off < -SURE
    few = not fit and too_few(apart, len(own))
    words = (f"The run's images fit the map of the other half by {own.mean():.1f} nats each at the run's poses, by "
             f"{turned.mean():.1f} with rotations of other particles ({apart:.1f} standard errors apart), by "
             f"{moved.mean():.1f} with their shifts.")
    if few:
        words += f" {len(own)} particles can't tell these rotations from those of others."
    elif not fit:
        words += " The rotations may be in another order than the images, or of another convention."
    if wrong:
        words += " Shifts of others fit better: sign, unit or order of the shifts may be wrong."
    return Verdict("poses", False if wrong else None if few else fit, words, numbers, few=few)


def too_few(standard_errors: float, n: int) -> bool:
    """Whether a difference of so many standard errors, found of ``n`` particles, may be one of which :data:`ENOUGH` particles
    would be :data:`SURE`: two standard errors more than was found, and these shrink with the root of the number."""
    return n < ENOUGH and (standard_errors + 2) * math.sqrt(ENOUGH / n) > SURE


def compared(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """Means of what the run's images ``(m,)`` and a control's ``(m,)`` reach, their distance in standard errors, and the share
    of pairs of which the run's reaches more."""
    error = math.sqrt(ours.var() / len(ours) + theirs.var() / len(theirs))
    rank = np.searchsorted(np.sort(theirs), ours)
    return {"images": float(ours.mean()), "control": float(theirs.mean()),
            "standard_errors": float(ours.mean() - theirs.mean()) / max(error, 1e-12),
            "images_reach_more": float(rank.mean() / len(theirs))}


def of_still(subject: Subject, found: Consensus) -> Verdict:
    """A molecule that does not move: how z spreads in its images and in the run's, under components that neither has met; and
    on how many components half sets agree."""
    config = subject.config
    still = subject.showing(still_images(subject, found))
    ours, theirs = (np.concatenate(each) for each in zip(*(moving(subject, still, number) for number in (1, 2)), strict=True))
    numbers: dict[str, Any] = {"motion": compared(ours, theirs)}
    numbers["components"] = {name: components(each) for name, each in (
        ("images", subject), ("still", still), ("noise", subject.showing(subject.with_random_phases(1))))}
    numbers["variance_of_z_of_the_run"] = latent_spread(subject, still.stack)
    apart, agreed = numbers["motion"]["standard_errors"], numbers["components"]
    ratio = numbers["motion"]["images"] / max(numbers["motion"]["control"], 1e-30)
    words = (f"By components of the other half, z of the run's images varies {ratio:.2f} times as much as that of a molecule "
             f"which does not move ({apart:.1f} standard errors apart). " if ours.any() else "No component tells anything. ")
    words += (f"Half sets agree on {agreed['images']} of {config.zdim} components of the run's images, on {agreed['still']} of "
              f"the still molecule, on {agreed['noise']} of noise.")
    few = apart <= SURE and too_few(apart, len(ours))
    if few:
        words += f" {len(ours)} particles can't tell motion from chance."
    elif apart <= SURE:
        words += " What z shows may be chance."
    return Verdict("motion", None if few else apart > SURE, words, numbers, few=few)


def moving(subject: Subject, still: Subject, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Square distance ``(m,)`` of every particle's z from the mean, of half set ``number`` and of the same particles had they
    not moved: inferred under a linear family that was learned of the other half set alone."""
    grid, low = subject.problem.grid, learned_family(subject.half_set(3 - number))
    posterior = Posterior(low.volume, grid, low.volume.lattice.limit, None, low.variance)
    out = []
    for asked in (subject.half_set(number), still.half_set(number)):
        z = latents_of(Model(grid, low.volume, asked.given(), posterior), asked)
        out.append(np.square(z - z.mean(0)).sum(1).astype(np.float64))
    return out[0], out[1]


def learned_family(subject: Subject) -> LowRank:
    """Components of a subject's images at the run's poses, as ``train_vae`` begins."""
    problem, config = subject.problem, subject.config
    start = reconstruct(subject, subject.stack, subject.given())
    return low_rank(subject.loader(subject.stack), problem.half, problem.mask, start, config.zdim, config.atoms, config.seed,
                    lambda *_: None)


def components(subject: Subject) -> int:
    """On how many components half sets agree, at :data:`REACH` shells or more."""
    return int(((learned_family(subject).fsc[1:, 1:] > CROSSED).sum(1) >= REACH).sum())


def latents_of(model: Model, subject: Subject) -> np.ndarray:
    """z ``(particles, d)`` of a subject's particles by ``model``."""
    z = torch.zeros(subject.stack.n_particles, model.volume.z_dim)
    for batch, told in inferred(model, subject.loader(subject.stack), POINTS):
        z[batch.particle.cpu()] = told.z[:, 0].cpu()  # a particle's images all have its z
    return z.numpy()


def latent_spread(subject: Subject, still: ParticleStack) -> float | None:
    """Variance of z of the run's images along its first principal component over that of a still molecule's images, both
    inferred by the run, which has met the first; None where it infers none."""
    model = subject.state.model
    by_tilt = subject.stack.tilt is not None and not isinstance(model.conformation, Posterior)  # knows images by their place
    if isinstance(model.conformation, Table) or by_tilt:
        return None
    asked = Model(model.grid, model.volume, subject.given(), model.conformation)
    ours, theirs = (latents_of(asked, each) for each in (subject, subject.showing(still)))
    pca = fit_pca(ours)
    return float(pca.project(ours)[:, 0].var() / max(pca.project(theirs)[:, 0].var(), 1e-30))


def write(folder: Path, found: Validation, facts: dict[str, Any]) -> None:
    """Write ``fsc.csv``, ``fits.csv`` and, last, ``validate.json`` (``facts`` first)."""
    report = {**facts, "passed": found.passed, "images": found.images, "particles": found.particles, "apix": found.apix,
              "controls": [asdict(verdict) for verdict in found.verdicts]}
    frequency = next(iter(found.curves.values())).frequency.tolist()
    columns = [curve.value.tolist() for curve in found.curves.values()]
    rows = ((each, found.apix / each if each else "", *values) for each, *values in zip(frequency, *columns, strict=True))
    names = [name.replace("'", "").replace(",", "").replace(" ", "_") for name in found.curves]
    write_csv(folder / "fsc.csv", ("frequency_per_px", "resolution_angstrom", *names), rows)
    write_csv(folder / "fits.csv", ("images_nats", "noise_nats"), zip(*(each.tolist() for each in found.gains), strict=True))
    with atomic_path(folder / "validate.json") as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n")
