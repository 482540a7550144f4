"""Small data sets that tests write and read."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from cryorecon.data.cryodrgn_files import write_ctf, write_poses
from cryorecon.data.mrc import write_stack
from cryorecon.data.poses import Poses
from cryorecon.data.source import FileSource
from cryorecon.data.stack import ParticleStack
from cryorecon.data.star_write import write_star
from cryorecon.geometry import rotations
from cryorecon.imaging.ctf import Optics


@dataclass
class DataSet:
    """A stack of random images and its metadata, in memory and as files in ``folder``."""

    folder: Path
    images: np.ndarray
    stack: ParticleStack

    @property
    def mrcs(self):
        return self.folder / "images.mrcs"

    @property
    def star(self):
        return self.folder / "images.star"

    @property
    def poses(self):
        return self.folder / "poses.pkl"

    @property
    def ctf(self):
        return self.folder / "ctf.pkl"


@pytest.fixture
def make_data(tmp_path):
    """``make_data(n, box, apix)`` writes a stack, a star, poses.pkl and ctf.pkl."""

    def make(n=7, box=16, apix=2.5, name="set"):
        folder = tmp_path / name
        folder.mkdir()
        rng = np.random.default_rng(n)
        images = rng.normal(size=(n, box, box)).astype(np.float32)
        write_stack(folder / "images.mrcs", images, apix)
        generator = torch.Generator().manual_seed(n)
        defocus = 10000 + 5000 * torch.rand(n, generator=generator)
        optics = Optics.from_columns(
            n,
            defocus_u=defocus,
            defocus_v=defocus - 200,
            astigmatism=0.3,
            voltage=300.0,
            cs=2.7,
            amplitude_contrast=0.1,
            phase_shift=0.2,
        )
        poses = Poses(rotations.random(n, generator), 4 * torch.randn(n, 2, generator=generator))
        half = torch.arange(n) % 2 + 1
        stack = ParticleStack(FileSource.open([folder / "images.mrcs"]), apix, optics, poses, torch.arange(n), half)
        data = DataSet(folder, images, stack)
        write_star(data.star, stack)
        write_poses(data.poses, poses, box, apix)
        write_ctf(data.ctf, optics, box, apix)
        return data

    return make
