"""Simulated images: signal to noise, shifts, CTF, seeds, populations."""

import numpy as np
import pytest
import torch

from cryorecon.errors import InputError
from cryorecon.geometry.grid import Grid
from cryorecon.imaging.ctf import Optics, ctf
from cryorecon.simulation.experiment import Experiment, simulate_stack
from cryorecon.simulation.images import Truth, clean_spectra, ctf_table, draw_truth, noise_spectrum, noisy_images
from cryorecon.simulation.molecule import of_elements
from cryorecon.simulation.motion import flexible


@pytest.fixture(scope="module")
def lump():
    """A small blob, off the centre."""
    atoms = 5 * torch.randn(3, 200, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([6.0, -3.0, 0.0])
    return of_elements(atoms, ["C"] * 200)


def images_of(molecule, snr=0.1, n=40, seed=0, **options):
    stack, truth = simulate_stack(molecule, n, 32, 3.0, snr, seed=seed, **options)
    return stack.images(), truth


def test_snr_is_the_ratio_of_variances_over_the_whole_image(lump):
    clean, _ = images_of(lump, snr=0, n=100)
    noisy, _ = images_of(lump, snr=0.2, n=100)
    noise = noisy - clean
    assert float(clean.var() / noise.var()) == pytest.approx(0.2, rel=0.02)
    assert float((noise[:, :4, :4]).std() / noise.std()) == pytest.approx(1, abs=0.05)


def test_the_ctf_multiplies_and_leaves_protein_white_at_low_frequency(lump):
    grid = Grid(32, 3.0)
    optics = Optics.from_columns(1, defocus_u=15000, defocus_v=14000, astigmatism=0.3, voltage=300, cs=2.7,
                                 amplitude_contrast=0.1)
    plain = Truth(torch.zeros(1, dtype=torch.long), torch.eye(3)[None], torch.zeros(1, 2), None)
    seen = Truth(plain.state, plain.rotation, plain.shift, optics)
    first, second = (next(clean_spectra(lump, truth, grid, 20.0)) for truth in (plain, seen))
    torch.testing.assert_close(second, first * ctf(optics, grid.frequency))
    assert float((second[0, :4] / first[0, :4]).real.min()) > 0


def test_a_seed_makes_the_same_images(lump):
    first, truth = images_of(lump, seed=3)
    again, _ = images_of(lump, seed=3)
    other, _ = images_of(lump, seed=4)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(truth) == 40


def test_weights_are_populations():
    generator = torch.Generator().manual_seed(0)
    truth = draw_truth(2000, 3, None, 0.0, generator, torch.tensor([60.0, 30.0, 10.0]))
    assert torch.bincount(truth.state).div(2000).tolist() == pytest.approx([0.6, 0.3, 0.1], abs=0.03)
    assert truth.optics is None
    assert float(truth.shift.abs().max()) == 0
    for wrong in ([1.0, 1.0], [1.0, -1.0, 1.0], [0.0, 0.0, 0.0]):
        with pytest.raises(InputError, match="weights"):
            draw_truth(5, 3, None, 0.0, generator, torch.tensor(wrong))


def test_shifts_and_states_fill_their_ranges():
    truth = draw_truth(4000, 5, ctf_table(None), 9.0, torch.Generator().manual_seed(0))
    assert float(truth.shift.abs().max()) == pytest.approx(9, abs=0.05)
    assert truth.shift.mean(0).tolist() == pytest.approx([0, 0], abs=0.3)
    assert torch.bincount(truth.state).tolist() == pytest.approx([800] * 5, rel=0.15)


def test_a_stack_in_memory_knows_its_poses_and_halves(lump):
    stack, truth = simulate_stack(lump, 10, 32, 3.0)
    assert torch.equal(stack.poses.rotation, truth.rotation)
    assert torch.equal(stack.poses.shift, truth.shift)
    assert stack.half.tolist() == [1, 2] * 5
    assert stack.sign == 1
    assert stack.optics is not None
    assert simulate_stack(lump, 2, 32, 3.0, optics=None)[0].optics is None


def test_tilted_images_have_their_own_noise_and_leave_the_untilted_as_they_are(lump):
    angle = 0.8
    plain, truth = simulate_stack(lump, 300, 32, 3.0, 0.1, seed=2)
    stack, same = simulate_stack(lump, 300, 32, 3.0, 0.1, seed=2, tilt=angle)
    clean, _ = simulate_stack(lump, 300, 32, 3.0, 0, seed=2, tilt=angle)
    assert torch.equal(stack.images()[0::2], plain.images())
    for name in ("state", "rotation", "shift"):
        assert torch.equal(getattr(same, name), getattr(truth, name))
    assert (len(stack), stack.n_particles) == (600, 300)
    assert torch.equal(stack.optics.parameters[1::2], truth.optics.parameters)
    assert torch.equal(stack.poses.rotation, clean.poses.rotation)
    signal, noise = clean.images(), stack.images() - clean.images()
    first, second = noise[0::2].flatten(), noise[1::2].flatten()
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 5 / len(first) ** 0.5
    assert float(signal[1::2].var() / second.var()) == pytest.approx(0.1, rel=0.05)
    again, _ = simulate_stack(lump, 300, 32, 3.0, 0.1, seed=2, tilt=angle)
    assert torch.equal(again.images(), stack.images())


def test_a_stage_that_does_not_tilt_shows_the_same_twice(lump):
    stack, _ = simulate_stack(lump, 6, 32, 3.0, 0, tilt=0.0)
    assert torch.equal(stack.images()[0::2], stack.images()[1::2])
    with pytest.raises(InputError, match="tilted"):
        simulate_stack(lump, 6, 32, 3.0, 0, tilt=float("nan"))


def test_coloured_noise_has_its_spectrum(lump, tmp_path):
    grid = Grid(32, 3.0)
    np.savetxt(tmp_path / "power.txt", np.linspace(4, 1, 50))
    spectrum = noise_spectrum(tmp_path / "power.txt", grid)
    truth = draw_truth(300, 1, None, 0.0, torch.Generator().manual_seed(0))
    made = torch.cat(list(noisy_images(lump, truth, grid, 20.0, 0.05, torch.Generator().manual_seed(1), spectrum)))
    clean = torch.cat([grid.images(s) for s in clean_spectra(lump, truth, grid, 20.0)])
    power = grid.shell_mean(grid.spectra(made - clean).abs().square().mean(0))
    assert float(clean.var() / (made - clean).var()) == pytest.approx(0.05, rel=0.03)
    ratio = (power / spectrum)[2:-1]
    assert float(ratio.std() / ratio.mean()) < 0.06


def test_bad_tables(tmp_path):
    (tmp_path / "words.txt").write_text("white\n")
    (tmp_path / "words.npz").write_text("white\n")
    np.save(tmp_path / "bare.npy", np.zeros((3, 9)))
    np.savez(tmp_path / "narrow.npz", a=np.zeros((3, 5)))
    np.savetxt(tmp_path / "negative.txt", [1.0, -1.0])
    for name in ("words.npz", "bare.npy", "narrow.npz", "absent.npz"):
        with pytest.raises(InputError, match=name):
            ctf_table(tmp_path / name)
    for name in ("words.txt", "negative.txt", "absent.txt"):
        with pytest.raises(InputError, match=name):
            noise_spectrum(tmp_path / name, Grid(32, 3.0))


def test_an_experiment_that_cannot_be():
    for wrong in ({"n": 0}, {"snr": -1.0}, {"max_shift": -1.0}, {"b_factor": -5.0}, {"apix": 1e300}, {"apix": 1e-300}):
        with pytest.raises(InputError):
            Experiment(**{"n": 5, "box": 32, "apix": 3.0} | wrong)
    with pytest.raises(InputError, match="box of at least"):
        simulate_stack(flexible("rigid"), 2, 32, 3.0)


def test_ctf_parameters_of_real_data(shared_data):
    table = ctf_table(shared_data / "metadata" / "cryodrgn_ctf_empiar10028_10049.npz")
    assert table.shape[1] == 9
    assert 7000 < float(table[:, 0].min()) < float(table[:, 0].max()) < 40000
