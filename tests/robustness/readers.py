"""Every reader of a file that may come from a stranger, and small true files for it to be handed mutations of.

A seed is a folder and the file in it that is mutated; the whole folder is copied for a case, so that stacks, stars and
checkpoints stand beside each other as they do in life. Seeds are made by the package's own writers, so that the fuzzer works
anywhere; where the real files of ``CRYORECON_DATA`` are there, small ones of other programs join them.
"""

import argparse
import gzip
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryorecon.analysis import generated, history, pose_files, selection
from cryorecon.analysis.truth import read_truth
from cryorecon.cli import eval_vol, traversal
from cryorecon.cli.main import main
from cryorecon.data import background, convert, cryodrgn_files, cs, empty_ice, load, mrc, preprocess, tilt_pair
from cryorecon.data.inspect import inspect
from cryorecon.data.source import FileSource
from cryorecon.geometry.grid import Grid
from cryorecon.report import chimerax
from cryorecon.simulation import images, molecule
from cryorecon.simulation.experiment import Experiment, ctf_table
from cryorecon.simulation.motion import flexible
from cryorecon.simulation.write import write_simulation
from cryorecon.training import build, provenance
from cryorecon.training.config import RunConfig
from cryorecon.training.run_directory import RunDirectory
from cryorecon.training.trained import load_run

LARGEST = 700_000  # bytes of a real file that is taken as a seed
DATA = Path(os.environ.get("CRYORECON_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


@dataclass(frozen=True)
class Seed:
    """folder: what is copied. name: the file in it that is mutated."""

    folder: Path
    name: str


@dataclass(frozen=True)
class Reader:
    """name: for the table. read: what is tried, on the path of the mutated file. families: of mutations. seeds: names of files
    as ``folder/file``, of :func:`make_seeds`; real ones by patterns below the data folder."""

    name: str
    read: Callable[[Path], object]
    families: tuple[str, ...]
    seeds: tuple[str, ...]
    real: tuple[str, ...] = ()

    def found(self, seeds: Path) -> list[Seed]:
        """The seeds that are there, in an order that never changes."""
        own = [Seed(seeds / Path(one).parent, Path(one).name) for one in self.seeds]
        real = [path for pattern in self.real for path in sorted(DATA.glob(pattern)) if path.stat().st_size <= LARGEST]
        return own + [Seed(seeds / "real" / str(path.relative_to(DATA)).replace("/", "_"), path.name) for path in real]


def make_seeds(root: Path) -> None:
    """Write all seeds below ``root``: a simulation, runs of it, what is made of them, and copies of small real files."""
    sim = root / "sim"
    write_simulation(flexible("hinge", 3), Experiment(12, 16, 12.0, 1.0, 0, optics=ctf_table(None)), sim)
    for command in (
        f"train_vae {sim}/particles.star --zdim 1 -n 1 -o {root}/run --dim 8 --device cpu",
        f"train_gan {sim}/particles.star -n 1 -o {root}/game --device cpu",
    ):
        assert main(command.split()) == 0
    _particles(root, sim)
    _arrays(root)
    _tilt_series(root / "tilts")
    _analysis(root / "analysis")
    _molecules(root / "atoms")
    for path in {path for reader in READERS for pattern in reader.real for path in DATA.glob(pattern)}:
        if path.stat().st_size <= LARGEST:
            place = root / "real" / str(path.relative_to(DATA)).replace("/", "_")
            place.mkdir(parents=True, exist_ok=True)
            for beside in [path, *path.parent.glob("*tomograms.star")] if "tilt" in str(path) else [path]:
                shutil.copy(beside, place / beside.name)


def _particles(root: Path, sim: Path) -> None:
    """Beside the simulation: its star packed, lists, a cs, tilted images, ice, a micrograph, masks."""
    stack = load.load_particles(sim / "particles.star")
    (sim / "particles.star.gz").write_bytes(gzip.compress((sim / "particles.star").read_bytes()))
    (sim / "list.txt").write_text("particles.mrcs\nparticles.mrcs\n")
    mrc.write_stack(sim / "tilted.mrcs", stack.images().numpy(), stack.apix)
    rng = np.random.default_rng(0)
    table = np.zeros(
        12,
        [
            ("uid", "u8"),
            ("blob/path", "S40"),
            ("blob/idx", "u4"),
            ("blob/shape", "u4", (2,)),
            ("blob/psize_A", "f4"),
            ("alignments3D/pose", "f4", (3,)),
            ("alignments3D/shift", "f4", (2,)),
            ("alignments3D/split", "u4"),
            *(
                (f"ctf/{name}", "f4")
                for name in ("df1_A", "df2_A", "df_angle_rad", "accel_kv", "cs_mm", "amp_contrast", "phase_shift_rad")
            ),
        ],
    )
    table["blob/path"], table["blob/idx"], table["blob/shape"], table["blob/psize_A"] = (
        b">particles.mrcs",
        np.arange(12),
        16,
        12.0,
    )
    table["alignments3D/pose"], table["ctf/df1_A"], table["ctf/df2_A"], table["ctf/accel_kv"], table["ctf/cs_mm"] = (
        rng.normal(size=(12, 3)),
        1e4,
        1e4,
        300,
        2.7,
    )
    with (sim / "particles.cs").open("wb") as file:
        np.save(file, table)
    mrc.write_volume(sim / "mask.mrc", np.ones((16, 16, 16), np.float32), 12.0)
    mrc.write_volume(sim / "sphere.mrc", (rng.random((16, 16, 16)) > 0.5).astype(np.float32), 12.0)
    (sim / "map.mrc.gz").write_bytes(gzip.compress((sim / "sphere.mrc").read_bytes()))
    mrc.write_volume(sim / "micrograph.mrc", rng.normal(size=(1, 64, 80)), 12.0)
    columns = ("rlnImageName", "rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "rlnMicrographPixelSize")
    rows = "".join(f"{i + 1:06d}@particles.mrcs micrograph.mrc {20 + i} 30 12.0\n" for i in range(12))
    (sim / "picks.star").write_text(
        "data_particles\n\nloop_\n" + "".join(f"_{name} #{i}\n" for i, name in enumerate(columns, 1)) + rows
    )


def _arrays(root: Path) -> None:
    """Poses, CTF, indices and latents in every form."""
    folder, sim = root / "arrays", root / "sim"
    folder.mkdir()
    poses = cryodrgn_files.read_poses(sim / "poses.pkl", 16, 12.0)
    table = cryodrgn_files.read_ctf(sim / "ctf.pkl")
    rng = np.random.default_rng(1)
    for end in ("pkl", "npy"):
        cryodrgn_files.write_poses(folder / f"poses.{end}", poses, 16, 12.0)
        cryodrgn_files.write_ctf(folder / f"ctf.{end}", table.optics, 16, 12.0)
        cryodrgn_files.write_indices(folder / f"ind.{end}", np.array([0, 3, 5, 11]))
    cryodrgn_files.write_indices(folder / "ind.txt", np.array([0, 3, 5, 11]))
    z = rng.normal(size=(12, 2)).astype(np.float32)
    cryodrgn_files.write_latents(folder / "z.pkl", z, z)
    np.save(folder / "z.npy", z)
    np.savetxt(folder / "z.txt", z)
    np.savetxt(folder / "powers.txt", np.ones(9))
    np.save(folder / "powers.npy", np.ones(9))
    lasso = {"x": "pc1", "y": "z2", "polygon": [[-1, -1], [1, -1], [1, 1], [-1, 1]]}
    (folder / "lasso.json").write_text(json.dumps(lasso))
    (folder / "particles.json").write_text(json.dumps({"particles": [0, 3, 7]}))


def _tilt_series(folder: Path) -> None:
    """Two particles of RELION 5 with three tilts, their tomograms and an optimisation set."""
    folder.mkdir()
    rng = np.random.default_rng(2)
    for name in ("a.mrcs", "b.mrcs"):
        mrc.write_stack(folder / name, rng.normal(size=(3, 16, 16)).astype(np.float32), 4.0)

    def text(block: str, columns: list[str], rows: list[str]) -> str:
        return (
            f"data_{block}\n\nloop_\n"
            + "".join(f"_{name} #{i}\n" for i, name in enumerate(columns, 1))
            + "\n".join(rows)
            + "\n\n"
        )

    optics = text(
        "optics",
        [
            "rlnOpticsGroup",
            "rlnVoltage",
            "rlnSphericalAberration",
            "rlnAmplitudeContrast",
            "rlnImagePixelSize",
            "rlnImageSize",
            "rlnImageDimensionality",
            "rlnCtfDataAreCtfPremultiplied",
        ],
        ["1 300 2.7 0.1 4.0 16 2 1"],
    )
    particles = text(
        "particles",
        [
            "rlnTomoName",
            "rlnTomoVisibleFrames",
            "rlnImageName",
            "rlnAngleRot",
            "rlnAngleTilt",
            "rlnAnglePsi",
            "rlnOriginXAngst",
            "rlnOriginYAngst",
            "rlnOriginZAngst",
            "rlnOpticsGroup",
            "rlnRandomSubset",
        ],
        ["TS_1 [1,1,1] a.mrcs 10 20 30 4 5 6 1 1", "TS_1 [0,1,1] b.mrcs 10 20 30 4 5 6 1 2"],
    )
    angles = np.deg2rad([-30.0, 0.0, 30.0])
    rows = [
        f"[{np.cos(a):.9f},0,{np.sin(a):.9f},0] [0,1,0,0] [{-np.sin(a):.9f},0,{np.cos(a):.9f},0] {9000 + 1000 * i} 8000 30 0.5"
        for i, a in enumerate(angles)
    ]
    (folder / "run.star").write_text(optics + particles)
    (folder / "run_tomograms.star").write_text(
        text(
            "TS_1",
            [
                "rlnTomoProjX",
                "rlnTomoProjY",
                "rlnTomoProjZ",
                "rlnDefocusU",
                "rlnDefocusV",
                "rlnDefocusAngle",
                "rlnCtfScalefactor",
            ],
            rows,
        )
    )
    (folder / "set.star").write_text("data_\n\n_rlnTomoParticlesFile run.star\n_rlnTomoTomogramsFile run_tomograms.star\n")


def _analysis(folder: Path) -> None:
    """What ``select`` and ``serve`` read of an analysis."""
    (folder / "kmeans2").mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({"clusters_in": "kmeans2", "states_in": None}))
    np.save(folder / "kmeans2" / "labels.npy", np.arange(12) % 2)
    np.save(folder / "ind.npy", np.arange(0, 12, 2))


def _molecules(folder: Path) -> None:
    folder.mkdir()
    lines = [
        f"ATOM  {i:5d}  CA  ALA A{i:4d}    {i * 3.8:8.3f}{0:8.3f}{i % 3:8.3f}  1.00 20.00           C  " for i in range(1, 20)
    ]
    (folder / "a.pdb").write_text("\n".join([*lines, "END", ""]))
    columns = (
        "group_PDB",
        "id",
        "type_symbol",
        "label_atom_id",
        "label_alt_id",
        "label_comp_id",
        "label_asym_id",
        "label_entity_id",
        "label_seq_id",
        "Cartn_x",
        "Cartn_y",
        "Cartn_z",
        "occupancy",
        "B_iso_or_equiv",
        "auth_seq_id",
        "auth_asym_id",
        "pdbx_PDB_model_num",
    )
    rows = [f"ATOM {i} C CA . ALA A 1 {i} {i * 3.8:.3f} 0.0 {i % 3}.0 1.0 20.0 {i} A 1" for i in range(1, 20)]
    (folder / "a.cif").write_text(
        "data_a\n#\nloop_\n" + "".join(f"_atom_site.{name}\n" for name in columns) + "\n".join(rows) + "\n#\n"
    )
    (folder / "a.cif.gz").write_bytes(gzip.compress((folder / "a.cif").read_bytes()))
    (folder / "a.pdb.gz").write_bytes(gzip.compress((folder / "a.pdb").read_bytes()))
    rng = np.random.default_rng(3)
    np.savez(
        folder / "a.npz",
        xyz=rng.normal(size=(3, 9, 3)),
        atom=np.array(["CA", "N", "C"] * 3),
        scale=np.array(0.1),
        state=np.arange(3.0)[:, None],
    )
    np.savez_compressed(folder / "ca.npz", ca=rng.normal(size=(3, 9, 3)).astype("f4"))


# what is tried ------------------------------------------------------------------------------------------------------------


def _stack(path: Path) -> None:
    source = FileSource.open([path])
    source.read(np.arange(len(source))[:50])


def _particles_of(path: Path) -> None:
    stack = load.load_particles(path, apix=12.0 if path.suffix == ".mrcs" else None)
    stack.images(np.arange(len(stack))[:20])


def _metadata(path: Path) -> None:
    meta = load.read_metadata(path)
    meta.poses(1.0)


def _tilt_series_of(path: Path) -> None:
    """The particles' star, whichever of the three files was mutated."""
    name = path.with_name("set.star") if path.with_name("set.star").exists() else path
    load.read_metadata(path if path.name.endswith("run.star") or "tomograms" not in path.name else name)


def _tilted(path: Path) -> None:
    tilt_pair.load_tilt_pair(load.load_particles(path.with_name("particles.star")), path, 0.5)


def _ice(path: Path) -> None:
    background.load_background(path, load.load_particles(path.with_name("particles.mrcs"), apix=12.0))


def _picks(path: Path) -> None:
    picks = empty_ice.read_picks(path)
    empty_ice.locate(picks, path.parent)


def _pose_file(path: Path) -> None:
    load.read_pose_file(path, 16, 12.0)


def _given(option: str) -> Callable[[Path], object]:
    """load_particles with ``option`` from the mutated file, beside the simulation's particles."""

    def read(path: Path) -> None:
        load.load_particles(path.parent.parent / "beside" / "particles.star", **{option: path})

    return read


def _run_files(path: Path) -> None:
    """Whatever of a run was mutated: opened as analyze, eval_vol and serve do."""
    run = load_run(path.parent, None, "cpu")
    run.density(np.zeros((1, run.config.zdim), np.float32))
    if run.config.objective == "likelihood":
        run.directory.likelihood(run.epoch)
        len(run.z)


def _resumed(path: Path) -> None:
    directory = RunDirectory(path.parent)
    directory.resumed({"epochs": 3})
    directory.epochs()
    directory.load_stage("search")
    directory.last_logged("hours")


def _provenance(path: Path) -> None:
    found = provenance.read(RunDirectory(path.parent))
    if found is not None:
        provenance.changed(found["inputs"])


def _metrics(path: Path) -> None:
    directory = RunDirectory(path.parent)
    history.read_history(path)
    generated.read_doubts(path, 1)
    directory.last_logged("loss")
    directory.drop_after(0)


def _true(path: Path) -> None:
    pose_files.read_pose_table(path)
    read_truth(path, load_run(path.parent.parent / "beside", None, "cpu"), path.parent / "maps")


def _selected(path: Path) -> None:
    z = np.random.default_rng(0).normal(size=(12, 2))
    selection.by_selection_file(path, z, z)


def _labels(path: Path) -> None:
    folder = path.parent.parent if path.parent.name == "kmeans2" else path.parent
    selection.analysed(folder, 12)
    selection.by_cluster(selection.labels_of(folder, "clusters_in", 12), [1])


def _spectrum(path: Path) -> None:
    images.noise_spectrum(path, Grid(16, 12.0))


def _mask(path: Path) -> None:
    build.read_mask(str(path), 16, 12.0)


def _walked(path: Path) -> None:
    traversal.read_latents(argparse.Namespace(z=path, vol=None, epoch=None, device="cpu"))


def _anchors(path: Path) -> None:
    traversal.read_anchors(argparse.Namespace(anchors=[str(path)], loop=False))


def _z_file(path: Path) -> None:
    given = argparse.Namespace(run=path.parent, zfile=path, z=None, z_start=None, z_end=None, n=10)
    eval_vol.coordinates(given, 2)


def _latents(path: Path) -> None:
    cryodrgn_files.read_latents(path)


def _converted(path: Path) -> None:
    out = path.parent / "out"
    convert.filter_rows(
        path, np.array([0, 2]), out.with_suffix(path.suffix if path.suffix != ".gz" else Path(path.stem).suffix)
    )
    if path.suffix in (".star", ".cs"):
        meta = load.read_metadata(path)
        convert.convert_poses(meta, out.with_suffix(".pkl"), 16, 12.0)
        convert.convert_ctf(meta, out.with_suffix(".pkl"), 16, 12.0)
    elif path.suffix == ".mrcs":
        convert.downsample_stack(path, path.parent / "small.mrcs", 8)


def _smaller(path: Path) -> None:
    convert.downsample_volume(path, path.parent / "small.mrc", 8)


def _prepared(path: Path) -> None:
    stack = load.load_particles(path.parent / "particles.star")
    preprocess.prepare(stack, path.parent / "out.star", preprocess.Preparation())


def _script(path: Path) -> None:
    chimerax.write_series_script(path.parent, [path], morph=False)


STARS = ("sim/particles.star", "sim/particles.star.gz", "tilts/run.star")
READERS: tuple[Reader, ...] = (
    Reader("mrc header", mrc.read_header, ("mrc", "bytes"), ("sim/particles.mrcs", "sim/sphere.mrc"), ("maps/*65p.mrc",)),
    Reader(
        "mrc volume",
        mrc.read_volume,
        ("mrc", "bytes"),
        ("sim/sphere.mrc", "sim/mask.mrc"),
        ("real_particles/*/*reconstruct.mrc",),
    ),
    Reader("mrc volume .gz", mrc.read_volume, ("gzip", "bytes"), ("sim/map.mrc.gz",), ("maps/*.map.gz",)),
    Reader("mrc stack", _stack, ("mrc", "bytes"), ("sim/particles.mrcs",)),
    Reader("mask", _mask, ("mrc", "bytes"), ("sim/mask.mrc", "sim/sphere.mrc")),
    Reader("micrograph", empty_ice.read_micrograph, ("mrc", "bytes"), ("sim/micrograph.mrc",)),
    Reader("particles .mrcs", _particles_of, ("mrc", "bytes"), ("sim/particles.mrcs",)),
    Reader("particles .star", _particles_of, ("star", "text", "bytes"), ("sim/particles.star",)),
    Reader("particles .cs", _particles_of, ("npy", "bytes"), ("sim/particles.cs",)),
    Reader("particles .txt", _particles_of, ("text", "bytes"), ("sim/list.txt",)),
    Reader("star metadata", _metadata, ("star", "text", "bytes"), STARS[:1], ("metadata/*.star",)),
    Reader("star metadata .gz", _metadata, ("gzip", "bytes"), STARS[1:2], ("metadata/relion31_betagal*.star.gz",)),
    Reader(
        "tilt series .star",
        _tilt_series_of,
        ("star", "text", "bytes"),
        ("tilts/run.star", "tilts/run_tomograms.star", "tilts/set.star"),
        ("real_particles/ribosome*/*-12.star",),
    ),
    Reader("tilt pair", _tilted, ("mrc", "bytes"), ("sim/tilted.mrcs",)),
    Reader("picks .star", _picks, ("star", "text", "bytes"), ("sim/picks.star",)),
    Reader("background .star", _ice, ("star", "text", "bytes"), ("sim/particles.star",)),
    Reader("cs table", cs.read_cs, ("npy", "bytes"), ("sim/particles.cs",), ("metadata/*.cs",)),
    Reader("poses .pkl", _pose_file, ("pickle", "bytes"), ("arrays/poses.pkl",), ("metadata/*pose.pkl",)),
    Reader("poses .npy", _pose_file, ("npy", "bytes"), ("arrays/poses.npy",)),
    Reader("poses .star .cs", _pose_file, ("text", "bytes"), ("sim/particles.star", "sim/particles.cs")),
    Reader("--poses", _given("poses"), ("pickle", "npy"), ("arrays/poses.pkl", "arrays/poses.npy")),
    Reader("--ctf", _given("ctf"), ("pickle", "npy"), ("arrays/ctf.pkl", "arrays/ctf.npy")),
    Reader("--ind", _given("ind"), ("pickle", "npy", "text"), ("arrays/ind.pkl", "arrays/ind.npy", "arrays/ind.txt")),
    Reader(
        "ctf .pkl .npy",
        cryodrgn_files.read_ctf,
        ("pickle", "npy", "bytes"),
        ("arrays/ctf.pkl", "arrays/ctf.npy"),
        ("metadata/*ctf.pkl",),
    ),
    Reader(
        "indices",
        cryodrgn_files.read_indices,
        ("pickle", "npy", "text", "bytes"),
        ("arrays/ind.pkl", "arrays/ind.npy", "arrays/ind.txt"),
    ),
    Reader("latents", _latents, ("pickle", "npy", "text", "bytes"), ("arrays/z.pkl", "arrays/z.npy", "arrays/z.txt")),
    Reader("traversal latents", _walked, ("pickle", "npy", "bytes"), ("arrays/z.pkl", "arrays/z.npy")),
    Reader("anchors", _anchors, ("text", "bytes"), ("arrays/ind.txt",)),
    Reader("--zfile", _z_file, ("text", "bytes"), ("arrays/z.txt",)),
    Reader(
        "pose table",
        pose_files.read_pose_table,
        ("pickle", "npy", "npz", "bytes"),
        ("arrays/poses.pkl", "arrays/poses.npy", "sim/truth.npz"),
    ),
    Reader("config.yaml", RunConfig.from_yaml, ("yaml", "text", "bytes"), ("run/config.yaml", "game/config.yaml")),
    Reader("run: config.yaml", _run_files, ("yaml", "text"), ("run/config.yaml", "game/config.yaml")),
    Reader("run: weights.N.pt", _run_files, ("checkpoint", "bytes"), ("run/weights.1.pt", "game/weights.1.pt")),
    Reader("run: z.N.npy", _run_files, ("npy", "bytes"), ("run/z.1.npy", "run/z_likelihood.1.npy")),
    Reader("run: resumed", _resumed, ("yaml", "json", "text"), ("run/config.yaml", "run/metrics.jsonl")),
    Reader("provenance.json", _provenance, ("json", "text", "bytes"), ("run/provenance.json", "game/provenance.json")),
    Reader("metrics.jsonl", _metrics, ("json", "text", "bytes"), ("run/metrics.jsonl", "game/metrics.jsonl")),
    Reader("truth.npz", _true, ("npz", "bytes"), ("sim/truth.npz",)),
    Reader("selection.json", _selected, ("json", "text", "bytes"), ("arrays/lasso.json", "arrays/particles.json")),
    Reader(
        "analysis",
        _labels,
        ("json", "npy", "text", "bytes"),
        ("analysis/summary.json", "analysis/ind.npy", "analysis/kmeans2/labels.npy"),
    ),
    Reader("atoms .pdb .cif", molecule.load, ("text", "bytes"), ("atoms/a.pdb", "atoms/a.cif")),
    Reader("atoms .gz", molecule.load, ("gzip", "bytes"), ("atoms/a.cif.gz", "atoms/a.pdb.gz"), ("atoms/2dhb.cif.gz",)),
    Reader("atoms .npz", molecule.load, ("npz", "bytes"), ("atoms/a.npz", "atoms/ca.npz")),
    Reader("noise powers", _spectrum, ("text", "npy", "bytes"), ("arrays/powers.txt", "arrays/powers.npy")),
    Reader(
        "inspect",
        lambda path: str(inspect(path)),
        ("pickle", "npy", "mrc", "star", "bytes"),
        (
            "sim/particles.star",
            "sim/particles.mrcs",
            "sim/sphere.mrc",
            "arrays/poses.pkl",
            "arrays/ctf.npy",
            "arrays/ind.npy",
            "sim/map.mrc.gz",
            "sim/list.txt",
        ),
    ),
    Reader(
        "filter",
        _converted,
        ("pickle", "npy", "mrc", "star", "bytes"),
        ("sim/particles.star", "sim/particles.mrcs", "arrays/poses.pkl", "arrays/ctf.npy", "sim/particles.cs"),
    ),
    Reader("downsample map", _smaller, ("mrc", "bytes"), ("sim/sphere.mrc",)),
    Reader("preprocess", _prepared, ("mrc", "bytes"), ("sim/particles.mrcs",)),
    Reader("ChimeraX script", _script, ("mrc",), ("sim/sphere.mrc",)),
)
