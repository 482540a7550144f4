"""Scripts that show a series of maps in UCSF ChimeraX as the pictures do: one level, the same colours, in their order.

Commands are those of its user guide (https://www.rbvi.ucsf.edu/chimerax/docs/user/commands/): `open`, `volume` (`level`,
`color`), `volume morph` (`frames`, `playStep`), `mseries slider`, `view`, `lighting`, `movie`; quoting and comments as under
"Command Usage Conventions". A script runs in its own folder (`open` of a .cxc), so names may be relative to that.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from cryorecon.data.files import atomic_path
from cryorecon.data.mrc import read_volume
from cryorecon.errors import InputError
from cryorecon.report.style import colours
from cryorecon.report.surface import Colour, default_level

FRAMES = 20  # from one map to the next
FORBIDDEN = set("\"'\\*?[]{}")  # quotes, escapes and wildcards mean something within quotation marks too


def write_script(path: Path, maps: Sequence[Path], level: float, shades: Sequence[Colour], morph: bool) -> Path:
    """Write ``path`` (.cxc), which opens ``maps`` as models #1, #2, ... at one ``level``, and return it.

    shades: RGB in [0, 1], one a map. morph: play through the maps, interpolated, forth and back (a path); else show the first
    with a slider to the others (clusters).

    Raises
    ------
    InputError: no maps, other numbers of shades, or a name that ChimeraX would not take literally.
    """
    if not maps or len(maps) != len(shades):
        raise InputError(f"{path}: expected maps and a colour for each, found {len(maps)} and {len(shades)}")
    n = len(maps)
    lines = ["# Made by cryorecon. Open this file in a ChimeraX without models: the maps become " + f"#1 to #{n}."]
    for number, (file, shade) in enumerate(zip(maps, shades, strict=True), 1):
        lines.append(f"open {_quoted(file, path.parent)}")
        lines.append(f"volume #{number} style surface step 1 level {level:.6g} color {_hex(shade)}")
    lines += ["set bgColor white", "lighting soft", "graphics silhouettes true"]
    series = f"#1-{n}"
    if n == 1:
        lines.append("view #1")
    elif morph:
        frames = FRAMES * (n - 1)
        play = f"volume morph {series} frames {2 * frames} playStep {1 / frames:.6g}"  # its fraction bounces at 1
        lines += [f"view {series}", "# Remove the # below to record a movie of the morph, forth and back, beside this file.",
                  "# movie record supersample 3", play, f"# wait {2 * frames}",
                  f"# movie encode {_quoted(path.with_suffix('.mp4'), path.parent)}"]
    else:
        lines += [f"view {series}", f"hide #2-{n} models", f"mseries slider {series}",
                  f"# All side by side instead: show {series} models; tile {series}"]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_series_script(folder: Path, maps: Sequence[Path], morph: bool) -> Path:
    """``folder/chimerax.cxc`` for map files drawn as in the pictures: level of their mean map, colours along the series."""
    total = torch.zeros(())
    for file in maps:
        total = total + torch.from_numpy(read_volume(file)[0])
    return write_script(folder / "chimerax.cxc", maps, default_level(total / len(maps)), colours(len(maps)), morph)


def _quoted(file: Path, folder: Path) -> str:
    """The file's name relative to the script's folder, in quotation marks."""
    name = Path(os.path.relpath(file, folder)).as_posix()
    bad = sorted(set(name) & FORBIDDEN | {character for character in name if not character.isprintable()})
    if bad:
        raise InputError(f"{file}: expected a name that ChimeraX takes literally, found {' '.join(map(repr, bad))} in it; "
                         "rename the file")
    return f'"{name}"'


def _hex(shade: Colour) -> str:
    return "#" + "".join(f"{round(255 * min(max(channel, 0), 1)):02x}" for channel in shade)
