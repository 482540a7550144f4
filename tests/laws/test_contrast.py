"""Same command, same map: the sign of a map is that of cryoDRGN's, in all four cases."""

import pytest
import torch

from cryorecon.data.stack import contrast_sign
from cryorecon.geometry.grid import Grid
from cryorecon.imaging.ctf import Optics, ctf


@pytest.mark.parametrize("uninvert", [False, True])
@pytest.mark.parametrize("has_ctf", [False, True])
def test_the_map_has_the_sign_of_cryodrgns(has_ctf, uninvert):
    """cryoDRGN fits a map v to the data times -1 (+1 with --uninvert-data) by c' v, where its CTF is c' = -c, or 1."""
    grid = Grid(32, 3.0)
    optics = Optics.from_columns(1, defocus_u=15000, defocus_v=15000, voltage=300, cs=2.7, amplitude_contrast=0.1)
    c = ctf(optics, grid.frequency)[0] if has_ctf else torch.ones(grid.n)
    v = torch.randn(grid.n, generator=torch.Generator().manual_seed(0))
    raw = (-c if has_ctf else c) * v * (1 if uninvert else -1)  # the file in which cryoDRGN finds v
    torch.testing.assert_close(contrast_sign(has_ctf, uninvert) * raw, c * v)


def test_white_protein_with_a_ctf_is_taken_as_it_comes():
    assert contrast_sign(has_ctf=True) == 1
