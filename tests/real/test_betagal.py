"""101 real beta-galactosidase particles (EMPIAR-10061) against an independent map of another box and pixel size.

Their poses were estimated in a band up to 20 Å, so that agreement beyond it comes from the images.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from cryorecon.cli.main import main
from cryorecon.data.cryodrgn_files import write_poses
from cryorecon.data.load import load_particles
from cryorecon.data.poses import Poses
from cryorecon.geometry.rotations import from_rotation_vector

BOUNDS = {24.0: 0.80, 15.0: 0.40}  # Å: FSC; measured .864 and .465


def fsc_with_the_independent_map(density: Path, shared_data: Path, out: Path) -> dict[float, float]:
    """What ``eval_fsc`` says at the resolutions of BOUNDS."""
    reference = shared_data / "maps" / "betaGal_relion_tutorial_100.mrc.gz"
    assert main(["eval_fsc", str(density), str(reference), "-o", str(out)]) == 0
    table = np.genfromtxt(out / "fsc.csv", delimiter=",", names=True)[1:]
    frequency = 1 / table["resolution_angstrom"]
    assert frequency[-1] == pytest.approx(1 / (2 * 3.54), rel=0.02)  # compared up to the coarser map's Nyquist
    return {angstrom: float(np.interp(1 / angstrom, frequency, table["fsc"])) for angstrom in BOUNDS}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "made"),
    [(["backproject"], "backproject.mrc"), (["train_nn", "-n", "1", "--dim", "32"], "reconstruct.1.mrc")],
    ids=["backproject", "train_nn"],
)
def test_map_agrees_with_an_independent_one(shared_data, tmp_path, command, made):
    star = shared_data / "real_particles" / "betagal_empiar10061" / "betagal_101_b96.star"
    # protein is dark in these images, as in any raw micrograph: --uninvert-data
    assert main([*command, str(star), "--symmetry", "D2", "--uninvert-data", "-o", str(tmp_path / "run")]) == 0
    found = fsc_with_the_independent_map(tmp_path / "run" / made, shared_data, tmp_path / "fsc")
    for angstrom, least in BOUNDS.items():
        assert found[angstrom] >= least, found


@pytest.mark.slow
def test_rough_poses_come_home(shared_data, tmp_path):
    """Every pose turned by 15° about an axis of its own and moved by 5 px, and brought back by the images alone."""
    star = shared_data / "real_particles" / "betagal_empiar10061" / "betagal_101_b96.star"
    stack = load_particles(star)
    generator = torch.Generator().manual_seed(0)
    axis = torch.nn.functional.normalize(torch.randn(len(stack), 3, generator=generator), dim=1)
    angle = 2 * torch.pi * torch.rand(len(stack), generator=generator)
    moved = 5 * stack.apix * torch.stack([angle.cos(), angle.sin()], 1)
    rough = Poses(from_rotation_vector(torch.pi / 12 * axis) @ stack.poses.rotation, stack.poses.shift + moved)
    write_poses(tmp_path / "rough.pkl", rough, stack.box, stack.apix)
    run = tmp_path / "run"
    assert main(["train_nn", str(star), "--pose-init", str(tmp_path / "rough.pkl"), "--symmetry", "D2", "--uninvert-data",
                 "-n", "0", "-o", str(run)]) == 0
    found = fsc_with_the_independent_map(run / "reconstruct.0.mrc", shared_data, tmp_path / "fsc")
    for angstrom, least in BOUNDS.items():
        assert found[angstrom] >= least, found
