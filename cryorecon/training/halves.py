"""Two runs that never meet: the rows of a particle file that each half of the data trains on.

Each half's run is a run like any other, on ``--ind OUT/half_1.npy`` or ``half_2.npy``; it can be resumed, analysed and repeated
by itself.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cryorecon import ranks
from cryorecon.data.arrays import write_array
from cryorecon.data.cryodrgn_files import read_indices
from cryorecon.data.files import below
from cryorecon.data.load import read_metadata
from cryorecon.errors import InputError
from cryorecon.training.build import settled_halves
from cryorecon.training.config import RunConfig
from cryorecon.training.run_directory import RunDirectory

HALVES = (1, 2)


def split(config: RunConfig) -> tuple[np.ndarray, np.ndarray]:
    """Rows ``(n,)``, ascending, of the two halves: the file's own half sets (rlnRandomSubset), else drawn by particle with the
    configuration's seed; of the rows that ``ind`` names. Where a row is a tilt series it stays whole.

    Raises
    ------
    InputError: no such file, or fewer than two particles.
    """
    meta = read_metadata(config.particles, datadir=config.datadir, tomograms=config.tomograms)
    chosen = np.arange(meta.n_rows) if config.ind is None else np.sort(read_indices(config.ind, meta.n_rows))
    images = meta.images_of_rows(chosen)
    owner = images if meta.particle is None else np.asarray(meta.particle, np.int64)[images]
    own = None if meta.half is None else torch.from_numpy(meta.half[images])
    half = settled_halves(own, torch.from_numpy(owner), config.seed).numpy()
    rows = owner if meta.row_is_particle else images
    first, second = (np.unique(rows[half == number]) for number in HALVES)
    return first, second


def half_folder(outdir: str | Path, number: int) -> Path:
    """Where the run of a half, 1 or 2, lies. Raises :class:`InputError` where a link does."""
    return below(outdir, f"half_{number}")


def index_file(outdir: str | Path, number: int) -> Path:
    """Where the rows of a half are named."""
    return Path(outdir) / f"half_{number}.npy"


def half_config(config: RunConfig, outdir: str | Path, number: int) -> RunConfig:
    """The configuration of a half: its own particles and a seed of its own. Two networks that begin alike, and see batches in
    one order, agree beyond what their images say."""
    return replace(config, ind=str(index_file(outdir, number).absolute()), seed=config.seed + number - 1)


def begin(config: RunConfig, outdir: str | Path) -> None:
    """Write the rows of both halves below ``outdir``; of several processes the first one does.

    Raises
    ------
    InputError: as :func:`split`; a folder that holds a run already.
    """
    out = Path(outdir)
    if (out / "config.yaml").exists() or any(half_folder(out, number).exists() for number in HALVES):
        raise InputError(f"{out}: expected a new folder for two halves, found a run in it; give another -o, or --resume halves "
                         "that were begun")
    for number, rows in zip(HALVES, split(config), strict=True):  # whatever is wrong with the data all processes meet alike
        if ranks.leads():
            write_array(index_file(out, number), rows)


def forget(outdir: str | Path) -> None:
    """Remove the rows again where no half came of them."""
    out = Path(outdir)
    if any(half_folder(out, number).exists() for number in HALVES):
        return
    for number in HALVES:
        index_file(out, number).unlink(missing_ok=True)
    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()


def begun(outdir: str | Path) -> list[RunDirectory]:
    """The runs of the halves that have begun. Raises :class:`InputError` where ``outdir`` holds no halves, or two that meet."""
    if not all(index_file(outdir, number).is_file() for number in HALVES):
        raise InputError(f"{outdir}: expected the halves of a run to resume, found none; begin them without --resume")
    first, second = (read_indices(index_file(outdir, number)) for number in HALVES)
    both = np.intersect1d(first, second)
    if len(both):
        raise InputError(f"{outdir}: expected halves that never meet, found {len(both):,} rows that both half_1.npy "
                         "and half_2.npy name; put back the files as they were")
    runs = [RunDirectory(half_folder(outdir, number)) for number in HALVES]
    return [run for run in runs if (run.path / "config.yaml").is_file()]
