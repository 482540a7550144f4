"""Make ``data/peer_cryodrgn.npz``: what cryodrgn computes from 40 small images that cryorecon simulated.

    python tests/golden/make_peer_golden.py PEER_PYTHON

PEER_PYTHON: the interpreter of an environment of its own with ``pip install cryodrgn==4.3.1`` (GPL-3.0; it runs here as
a separate program, and only numbers that it computed are kept). Takes a minute. The file holds, besides provenance:

images_{ctf,noctf} (40, 32, 32) float16 of 5 Å/px, rotation (40, 3, 3), trans (40, 2) in fractions of the box, ctf
    (40, 9): the input, as written by ``cryorecon simulate``.
map_{ctf,noctf}_{invert,uninvert} (16, 16, 16) float16: its ``backproject_voxel`` without and with ``--uninvert-data``,
    Fourier-cropped to the band that 40 views cover.
hartley (2, 33, 33), moved (2, 33, 33): its Hartley transform of two images, and of the same images moved by shift_px.
ctf_values (6, P): its CTF at the points of ``Grid(32, 5.0)`` for ctf_rows (6, 9).
read_rotation, read_trans, read_ctf: what its own loaders make of the poses.pkl and ctf.pkl that cryorecon wrote.
"""

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

from cryorecon import __version__
from cryorecon.cli.main import main as cryorecon
from cryorecon.data.cryodrgn_files import write_ctf
from cryorecon.data.mrc import read_volume
from cryorecon.data.safe_pickle import load_pickles
from cryorecon.data.source import FileSource
from cryorecon.geometry.fourier import resample
from cryorecon.geometry.grid import Grid
from cryorecon.imaging.ctf import Optics

OUT = Path(__file__).parent / "data" / "peer_cryodrgn.npz"
SIMULATE = ["simulate", "-n", "40", "-D", "32", "--apix", "5", "--snr", "2", "--max-shift", "2", "--states", "1", "--seed",
            "3"]
BAND_BOX = 16
SHIFT_PX = np.array([[1.25, -2.5], [-0.5, 3.0]], np.float32)

PROBE = """
import sys
import cryodrgn
import numpy as np
import torch
from cryodrgn import ctf, fft
from cryodrgn.lattice import Lattice
from cryodrgn.pose import PoseTracker
given = np.load("given.npz")
images = torch.tensor(given["images"])
whole = fft.symmetrize_ht(fft.ht2_center(images))
lattice = Lattice(33, extent=16)
moved = lattice.translate_ht(whole.reshape(2, -1), torch.tensor(given["shift_px"])[:, None]).reshape(2, 33, 33)
poses = PoseTracker.load("ctf/poses.pkl", 40, 33)
rows = ctf.load_ctf_for_training(32, "rows.pkl")
values = [ctf.compute_ctf(torch.tensor(given["frequency"]), *torch.tensor(row[1:])) for row in rows]
np.savez("found.npz", version=cryodrgn.__version__, hartley=whole.numpy(), moved=moved.numpy(),
         ctf_values=torch.stack(values).numpy(), read_rotation=poses.rots.numpy(), read_trans=poses.trans.numpy(),
         read_ctf=ctf.load_ctf_for_training(32, "ctf/ctf.pkl"))
"""


def run(*arguments: str | Path) -> None:
    """Run a program of the peer's environment in the current folder."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run(arguments, check=True, env=environment, stdout=subprocess.DEVNULL)


def backproject(python: Path, kind: str, *options: str) -> np.ndarray:
    """The low band of its map."""
    given = ["--ctf", "ctf/ctf.pkl"] if kind == "ctf" else []
    run(python.with_name("cryodrgn"), "backproject_voxel", f"{kind}/particles.mrcs", "--poses",
        f"{kind}/poses.pkl", *given, "-o", "map", "--no-half-maps", *options)
    density, _ = read_volume("map/backproject.mrc")
    return resample(torch.from_numpy(density), BAND_BOX, 3).numpy().astype(np.float16)


def ctf_rows() -> Optics:
    """Six CTFs: round, astigmatic, weak and strong amplitude contrast, no Cs, a phase plate."""
    return Optics.from_columns(
        6, defocus_u=torch.tensor([8000.0, 15000, 22000, 12000, 5000, 18000]),
        defocus_v=torch.tensor([8000.0, 14000, 20500, 12900, 5000, 17000]),
        astigmatism=torch.deg2rad(torch.tensor([0.0, 30, 75, 120, 0, -40])),
        voltage=torch.tensor([300.0, 300, 200, 120, 100, 300]), cs=torch.tensor([2.7, 2.7, 1.4, 2.0, 0.0, 2.7]),
        amplitude_contrast=torch.tensor([0.1, 0.07, 0.1, 0.0, 0.3, 0.1]),
        phase_shift=torch.deg2rad(torch.tensor([0.0, 0, 0, 0, 0, 90])))


def make(python: Path) -> None:
    """Simulate, ask the peer, and write ``OUT``."""
    found: dict[str, np.ndarray] = {}
    for kind, option in (("ctf", []), ("noctf", ["--no-ctf"])):
        assert cryorecon([*SIMULATE, "-o", kind, *option]) == 0
        images = FileSource.open([Path(kind, "particles.mrcs")]).read(np.arange(40))
        found[f"images_{kind}"] = images.astype(np.float16)
        for sign, flags in (("invert", []), ("uninvert", ["--uninvert-data"])):
            found[f"map_{kind}_{sign}"] = backproject(python, kind, *flags)
    found["rotation"], found["trans"] = load_pickles(Path("ctf/poses.pkl"))[0]
    found["ctf"] = load_pickles(Path("ctf/ctf.pkl"))[0]
    write_ctf("rows.pkl", ctf_rows(), 32, torch.full((6,), 5.0))
    found["ctf_rows"] = load_pickles(Path("rows.pkl"))[0]
    found["shift_px"] = SHIFT_PX
    np.savez("given.npz", images=found["images_ctf"][:2].astype(np.float32), shift_px=SHIFT_PX,
             frequency=Grid(32, 5.0).frequency.numpy())
    run(python, "-c", PROBE)
    with np.load("found.npz") as probed:
        found.update(probed)
    note = {"peer": f"cryodrgn {found.pop('version')} (PyPI, GPL-3.0), run as a separate program; only its numbers are here",
            "made by": f"tests/golden/make_peer_golden.py, cryorecon {__version__}", "input": "cryorecon " + " ".join(SIMULATE)}
    OUT.parent.mkdir(exist_ok=True)
    np.savez_compressed(OUT, provenance=json.dumps(note), **found)
    print(f"{OUT}: {OUT.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", type=Path, metavar="PEER_PYTHON")
    interpreter = parser.parse_args().python.absolute()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make(interpreter)
