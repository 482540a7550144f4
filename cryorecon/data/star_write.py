"""Star files written in RELION 3.1's style: an optics block and a particles block."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cryorecon.data.files import atomic_path, refuse_input
from cryorecon.data.source import FileSource
from cryorecon.data.stack import ParticleStack
from cryorecon.data.star_columns import TILT_COLUMNS, WHITE_COLUMN
from cryorecon.errors import InputError
from cryorecon.geometry import rotations
from cryorecon.imaging.ctf import Optics

if TYPE_CHECKING:
    import pandas as pd

_CHUNK = 100_000


def write_star(path: str | Path, stack: ParticleStack, images: str | None = None) -> None:
    """Write what is known of a stack's images: names, micrographs, poses, CTF, half-sets, tilts, and the mark of white
    protein, with which no reader of this package inverts them.

    Parameters
    ----------
    images: name of one stack that holds all images in order, as it is to stand in the star; by default the files that
        the stack reads from, relative to the star's folder where they lie below it.

    Raises
    ------
    InputError: a name that doesn't end in .star, or of a file that the stack was read from; images in memory.
    """
    import pandas as pd

    path = Path(path)
    if path.suffix != ".star":
        raise InputError(f"{path}: expected a name that ends in .star, found {path.suffix or 'no ending'}; choose another -o")
    refuse_input(path, stack.inputs)
    optics, group = _optics_block(stack)
    columns: dict[str, object] = {"rlnImageName": _names(stack, images, path), "rlnOpticsGroup": group}
    if stack.micrograph is not None:
        columns["rlnMicrographName"] = stack.micrograph
    if stack.optics is not None:
        columns |= _ctf_columns(stack.optics)
    if stack.poses is not None:
        columns |= _angles(stack.poses.rotation, ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"))
        shift = stack.poses.shift.double().numpy() * (_own_pixel(stack) / stack.apix)[:, None]  # in the image's own Å
        columns |= {"rlnOriginXAngst": shift[:, 0], "rlnOriginYAngst": shift[:, 1]}
    if stack.half is not None:
        columns["rlnRandomSubset"] = stack.half.numpy()
    if stack.n_particles < len(stack):
        columns["rlnTomoParticleName"] = np.char.mod("particle/%d", stack.particle.numpy())
    if stack.tilt is not None:
        columns |= _angles(stack.tilt, TILT_COLUMNS)
    write_blocks(path, {"optics": optics, "particles": pd.DataFrame(columns)})


def write_blocks(path: str | Path, blocks: "dict[str, pd.DataFrame | dict]") -> None:
    """Write blocks as a star file, row by row, to a temporary name first."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for name, block in blocks.items():
            file.write(f"\n# version 30001\n\ndata_{name}\n\n")
            if isinstance(block, dict):
                file.writelines(f"_{key}  {_quoted(str(value))}\n" for key, value in block.items())
            else:
                file.write("loop_ \n")
                file.writelines(f"_{column} #{i} \n" for i, column in enumerate(block.columns, 1))
                for start in range(0, len(block), _CHUNK):
                    _texts(block.iloc[start : start + _CHUNK]).to_csv(
                        file, sep=" ", header=False, index=False, float_format="%.6f", na_rep="nan", lineterminator=" "
                                                                                                                    "\n")
            file.write("\n")


def _texts(block: "pd.DataFrame") -> "pd.DataFrame":
    """Text columns with what is empty made a word; to_csv itself quotes blanks."""
    out = block.copy()
    for name in out.columns:
        if out[name].dtype.kind not in "iufb":
            out[name] = out[name].astype(str).where(out[name].astype(str) != "", "None")
    return out


def _quoted(value: str) -> str:
    return f'"{value}"' if " " in value or not value else value


def _optics_block(stack: ParticleStack) -> "tuple[pd.DataFrame, np.ndarray]":
    """One optics group for each voltage, Cs, amplitude contrast and pixel size, and the group of each image."""
    import pandas as pd

    shared: dict[str, np.ndarray] = {}
    if stack.optics is not None:
        names = {"rlnVoltage": "voltage", "rlnSphericalAberration": "cs", "rlnAmplitudeContrast": "amplitude_contrast"}
        shared = {name: stack.optics.column(column).double().numpy() for name, column in names.items()}
    shared["rlnImagePixelSize"] = _own_pixel(stack)
    rows, inverse = np.unique(np.stack([*shared.values()], 1).round(6), axis=0, return_inverse=True)
    numbers = np.arange(1, len(rows) + 1)
    frame = pd.DataFrame({
        "rlnOpticsGroup": numbers, "rlnOpticsGroupName": [f"opticsGroup{i}" for i in numbers],
        **dict(zip(shared, rows.T, strict=True)), "rlnImageSize": stack.box, "rlnImageDimensionality": 2,
    })
    if stack.premultiplied:
        frame["rlnCtfDataAreCtfPremultiplied"] = 1
    if stack.white:
        frame[WHITE_COLUMN] = 1
    return frame, inverse.reshape(-1).astype(np.int64) + 1


def _own_pixel(stack: ParticleStack) -> np.ndarray:
    """Å/px of each image ``(N,)`` float64."""
    return np.full(len(stack), stack.apix) if stack.pixel is None else stack.pixel.double().numpy()


def _names(stack: ParticleStack, images: str | None, path: Path) -> np.ndarray:
    """``000001@stack.mrcs`` for each image."""
    if images is not None:
        return np.char.add(np.char.mod("%06d@", np.arange(1, len(stack) + 1)), images)
    if not isinstance(stack.source, FileSource):
        raise InputError(f"{path}: expected images of files, found images in memory; write them first and name their "
                         "stack")
    folder = path.absolute().parent
    files = []
    for header in stack.source.headers:
        place = header.path.absolute()
        files.append(str(place.relative_to(folder) if place.is_relative_to(folder) else place))
    return np.char.add(np.char.mod("%06d@", stack.source.frame + 1), np.array(files)[stack.source.file_index])


def _ctf_columns(optics: Optics) -> dict[str, object]:
    value = {name: optics.column(name).double().numpy() for name in
             ("defocus_u", "defocus_v", "astigmatism", "phase_shift", "b_factor", "scale")}
    columns: dict[str, object] = {
        "rlnDefocusU": value["defocus_u"], "rlnDefocusV": value["defocus_v"],
        "rlnDefocusAngle": np.rad2deg(value["astigmatism"]), "rlnPhaseShift": np.rad2deg(value["phase_shift"]),
    }
    if (value["b_factor"] != 0).any():
        columns["rlnCtfBfactor"] = value["b_factor"]
    if (value["scale"] != 1).any():
        columns["rlnCtfScalefactor"] = value["scale"]
    return columns


def _angles(rotation: Tensor, names: tuple[str, str, str]) -> dict[str, object]:
    """Euler angles in degrees under three names."""
    angles = torch.rad2deg(rotations.to_euler(rotation.double())).numpy()
    return dict(zip(names, angles.T, strict=True))
