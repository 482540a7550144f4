"""Closed-form steps find what was planted."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cryorecon.data.loader import Loader
from cryorecon.data.source import ArraySource
from cryorecon.geometry.rotations import from_rotation_vector
from cryorecon.imaging.ctf import ctf
from cryorecon.imaging.masks import soft_sphere
from cryorecon.inference.conformation.fixed import Fixed
from cryorecon.inference.conformation.posterior import Posterior
from cryorecon.inference.pose.given import Given
from cryorecon.inference.pose.table import PoseTable
from cryorecon.metrics.fsc import fsc_curve
from cryorecon.metrics.pose_error import pose_error
from cryorecon.model import Model
from cryorecon.training.closed_form import consensus, image_scales, low_rank
from cryorecon.training.inferred import latents
from cryorecon.volumes.voxel_grid import VoxelGrid


def run_consensus(problem, symmetry="C1", pose=None):
    half = 1 + torch.arange(len(problem.stack)) % 2
    mask = soft_sphere(problem.grid.box, 0.4 * problem.grid.box, 1.5)
    pose = pose or Given(problem.stack.poses.rotation, problem.stack.poses.shift)
    loader = problem.loader()
    return loader, pose, half, mask, consensus(loader, problem.grid, pose, half, mask, symmetry)


def test_consensus_recovers_a_phantom_at_planted_poses(planted):
    problem = planted(600, sigma=1.0)
    _, _, _, mask, found = run_consensus(problem)
    assert (fsc_curve(found.density, problem.maps[0] * mask).value[:6] > 0.95).all()
    scale = (found.density * problem.maps[0]).sum() / problem.maps[0].square().sum()
    assert scale == pytest.approx(1, abs=0.1)
    assert found.resolved >= 6


def test_half_maps_have_not_met(planted):
    """Half-set FSC predicts the agreement with the truth: sqrt(2 F / (1 + F)), shell by shell."""
    problem = planted(300, sigma=4.0)
    _, _, _, mask, found = run_consensus(problem)
    halves = fsc_curve(found.halves[0], found.halves[1], mask).value[1:6]
    against_truth = fsc_curve(found.halves.mean(0), problem.maps[0], mask).value[1:6]
    predicted = (2 * halves / (1 + halves)).clamp(min=0).sqrt()
    torch.testing.assert_close(predicted, against_truth, atol=0.12, rtol=0)
    assert halves[-1] < 0.95


def test_low_rank_recovers_a_planted_motion(planted):
    problem = planted(600, sigma=0.7, motion=0.6)
    loader, pose, half, mask, start = run_consensus(problem)
    heard = []
    found = low_rank(loader, half, mask, start, 2, 30, 0, lambda *line: heard.append(line))
    assert heard
    conformation = Posterior(found.volume, problem.grid, found.volume.lattice.limit, found.prior, found.variance)
    z = latents(Model(problem.grid, found.volume, pose, conformation), loader)
    joined = torch.cat([torch.from_numpy(z[:, :1]), problem.z], 1).T
    assert torch.corrcoef(joined)[0, 1].abs() > 0.9
    ends = found.volume.density(torch.tensor([[float(z[:, 0].min()), 0.0], [float(z[:, 0].max()), 0.0]]))
    assert fsc_curve((ends[1] - ends[0]).detach(), problem.maps[1] * mask).value[1:4].abs().min() > 0.8
    assert z[:, 0].var() > 4 * z[:, 1].var(), "the second axis has nothing to find"


def test_poses_that_were_found_follow_the_conformations(planted):
    """Poses a few degrees off come home while the motion is found; given ones are left as they stand."""
    problem = planted(400, sigma=0.5, motion=0.6)
    true = problem.stack.poses
    turn = from_rotation_vector(0.06 * torch.randn(400, 3, generator=torch.Generator().manual_seed(0)))
    table = PoseTable(turn @ true.rotation, true.shift + 0.5)
    before = pose_error(table.rotation, true.rotation, table.shift, true.shift)
    loader, _, half, mask, start = run_consensus(problem, pose=table)
    found = low_rank(loader, half, mask, start, 1, 30, 0, lambda *line: None)
    after = pose_error(table.rotation, true.rotation, table.shift, true.shift)
    assert after.angle.median() < before.angle.median() / 3
    z = latents(Model(problem.grid, found.volume, table, Posterior(found.volume, problem.grid, prior=found.prior)), loader)
    assert torch.corrcoef(torch.stack([torch.from_numpy(z[:, 0]), problem.z[:, 0]]))[0, 1].abs() > 0.9


def test_contrast_is_found_whether_images_were_multiplied_by_their_ctf_or_not(planted):
    """The same images twice, once premultiplied: planted factors come back, and are the same numbers."""
    problem = planted(80, sigma=0.3)
    grid, stack = problem.grid, problem.stack
    truth = torch.empty(80).uniform_(0.5, 1.6, generator=torch.Generator().manual_seed(3))
    images = stack.images() * truth[:, None, None]
    multiplied = grid.images(grid.spectra(images) * ctf(stack.optics, grid.frequency))
    plain = replace(stack, source=ArraySource(images.numpy()))
    premultiplied = replace(stack, source=ArraySource(multiplied.numpy().astype(np.float32)), premultiplied=True)
    model = Model(grid, VoxelGrid.from_density(problem.maps[:1], grid), Given(stack.poses.rotation, stack.poses.shift), Fixed())
    ours, theirs = (image_scales(Loader(each, grid, problem.noise, windowed=False), model) for each in (plain, premultiplied))
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours, truth / truth.median(), rtol=0.15, atol=0)


def test_a_start_that_half_sets_lose_is_made_anew(planted, monkeypatch):
    """Components that die in a pass leave nothing to follow: others are drawn, and the motion is found from them."""
    from cryorecon.training import closed_form

    problem = planted(400, sigma=0.5, motion=0.6)
    loader, pose, half, mask, start = run_consensus(problem)
    draws = []
    whole = closed_form.random_components

    def dead_at_first(density, mask, z_dim, generator):
        maps = whole(density, mask, z_dim, generator)
        draws.append(1)
        if len(draws) == 1:
            maps[1:] = 0  # no pass can leave it: z has no pull
        return maps

    monkeypatch.setattr(closed_form, "random_components", dead_at_first)
    found = low_rank(loader, half, mask, start, 1, 30, 0, lambda *line: None)
    assert len(draws) == 2
    z = latents(Model(problem.grid, found.volume, pose, Posterior(found.volume, problem.grid, prior=found.prior)), loader)
    assert torch.corrcoef(torch.stack([torch.from_numpy(z[:, 0]), problem.z[:, 0]]))[0, 1].abs() > 0.9
