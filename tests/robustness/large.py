"""Sound files as large as real ones: what a reader takes of memory, as a multiple of the file, and of time.

The fuzzer's files are small: of its bound, an allowance and four times the file, the allowance is all. These have up to 70 MB.

    python tests/robustness/large.py --json benchmarks/results/robustness_large.json
"""

import argparse
import gzip
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import guard
import numpy as np
import torch

from cryorecon.data import cryodrgn_files, load, mrc, safe_pickle
from cryorecon.data.arrays import read_columns

SPARE = 32 << 20  # bytes that the allocator may keep, whatever the file
SECONDS = 60.0
STAR = """data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnVoltage #2\n_rlnSphericalAberration #3\n_rlnAmplitudeContrast #4
_rlnImagePixelSize #5\n_rlnImageSize #6\n1 300 2.7 0.1 3 64\n\ndata_particles\n\nloop_\n"""
LABELS = ("ImageName", "MicrographName", "AngleRot", "AngleTilt", "AnglePsi", "OriginXAngst", "OriginYAngst", "DefocusU",
          "DefocusV", "DefocusAngle", "OpticsGroup")
CS = np.dtype([("uid", "<u8"), ("blob/path", "S60"), ("blob/idx", "<u4"), ("blob/shape", "<u4", 2), ("blob/psize_A", "<f4"),
               ("ctf/df1_A", "<f4"), ("ctf/df2_A", "<f4"), ("ctf/df_angle_rad", "<f4"), ("ctf/accel_kv", "<f4"),
               ("ctf/cs_mm", "<f4"), ("ctf/amp_contrast", "<f4"), ("ctf/phase_shift_rad", "<f4"),
               ("alignments3D/pose", "<f4", 3), ("alignments3D/shift", "<f4", 2), ("alignments3D/psize_A", "<f4")])

Case = tuple[str, Path, Callable[[Path], object]]


def star(path: Path, n: int) -> Path:
    """A star file of ``n`` particles."""
    values = np.random.default_rng(0).uniform(0, 180, (n, 8))
    with path.open("w") as file:
        file.write(STAR + "".join(f"_rln{name} #{i + 1}\n" for i, name in enumerate(LABELS)))
        for i, row in enumerate(values):
            name = f"mic_{i // 100:06d}.mrc"
            file.write(f"{i % 100 + 1:06d}@Extract/job012/{name}s {name} {' '.join(f'{x:.4f}' for x in row)} 1\n")
    return path


def particles_cs(path: Path, n: int) -> Path:
    """cryoSPARC's particles."""
    table = np.zeros(n, CS)
    table["blob/path"] = [b"J1/extract/mic_%06d.mrc" % (i // 100) for i in range(n)]
    table["blob/idx"] = np.arange(n) % 100
    for name, value in (("blob/shape", 64), ("blob/psize_A", 3), ("ctf/df1_A", 1e4), ("ctf/df2_A", 1e4), ("ctf/accel_kv", 300),
                        ("ctf/cs_mm", 2.7), ("ctf/amp_contrast", 0.1), ("alignments3D/psize_A", 3)):
        table[name] = value
    with path.open("wb") as file:
        np.save(file, table)
    return path


def arrays(folder: Path) -> Iterator[Case]:
    """cryoDRGN's files and ours."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(1_000_000, 8)).astype(np.float32)
    ctf = rng.uniform(1, 2, (500_000, 9)).astype(np.float32)
    poses = np.tile(np.eye(3, dtype=np.float32), (800_000, 1, 1)), np.zeros((800_000, 2), np.float32)
    index = np.arange(4_000_000)
    for name, value, read in (("z", z, cryodrgn_files.read_latents), ("ctf", ctf, cryodrgn_files.read_ctf),
                              ("ind", index, cryodrgn_files.read_indices)):
        np.save(folder / f"{name}.npy", value)
        safe_pickle.dump_pickles(folder / f"{name}.pkl", value)
        yield from ((f"{name}{ending}", folder / f"{name}{ending}", read) for ending in (".npy", ".pkl"))
    safe_pickle.dump_pickles(folder / "poses.pkl", poses)
    yield "poses.pkl", folder / "poses.pkl", lambda path: load.read_pose_file(path, 64, 3.0)
    np.savetxt(folder / "z.txt", z[:300_000])
    yield "z.txt", folder / "z.txt", lambda path: read_columns(path, "z", 2)


def images(folder: Path) -> Iterator[Case]:
    """A map, packed and not, and a stack."""
    density = torch.randn(256, 256, 256, generator=torch.Generator().manual_seed(0)).numpy()
    mrc.write_volume(folder / "map.mrc", density, 1.0)
    with gzip.open(folder / "map.mrc.gz", "wb", 1) as file:
        file.write((folder / "map.mrc").read_bytes())
    yield "map.mrc", folder / "map.mrc", mrc.read_volume
    yield "map.mrc.gz", folder / "map.mrc.gz", mrc.read_volume
    mrc.write_stack(folder / "stack.mrcs", density[:, :128, :128].copy(), 3.0)
    yield "stack.mrcs", folder / "stack.mrcs", lambda path: load.load_particles(path, apix=3.0)


def tables(folder: Path) -> Iterator[Case]:
    """Particles by star and cs."""
    path = star(folder / "particles.star", 500_000)
    yield "particles.star", path, load.read_metadata
    with gzip.open(folder / "particles.star.gz", "wb", 1) as file:
        file.write(path.read_bytes())
    yield "particles.star.gz", folder / "particles.star.gz", load.read_metadata
    yield "particles.cs", particles_cs(folder / "particles.cs", 250_000), load.read_metadata


def size_of(path: Path) -> int:
    """Bytes of a file, of a gzipped one what it unpacks to."""
    if path.suffix != ".gz":
        return path.stat().st_size
    return path.with_suffix("").stat().st_size


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the table")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        load.read_metadata(star(folder / "warm.star", 10))  # pandas and its libraries are in memory from here on
        for what, path, read in (case for make in (tables, arrays, images) for case in make(folder)):
            size, began = size_of(path), time.process_time()
            outcome = guard.watch(lambda path=path, read=read: read(path), folder, size, SECONDS)
            sound = outcome.verdict == "read" and outcome.peak <= guard.FACTOR * size + SPARE
            rows.append({"file": what, "bytes": size, "peak_bytes": outcome.peak, "seconds": time.process_time() - began,
                         "sound": sound, "said": outcome.said})
            print(f"{what:18s} {size / 1e6:6.1f} MB  {outcome.peak / size:5.2f} times  {rows[-1]['seconds']:5.1f} s  "
                  f"{'read' if sound else 'FAILED ' + outcome.said}", flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps({"factor": guard.FACTOR, "spare_bytes": SPARE, "rows": rows}, indent=1) + "\n")
    return 0 if all(row["sound"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
