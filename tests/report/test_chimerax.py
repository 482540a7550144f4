"""ChimeraX scripts: the text, command by command."""

import shlex

import numpy as np
import pytest
import torch

from cryorecon.data.mrc import write_volume
from cryorecon.errors import InputError
from cryorecon.report.chimerax import write_script, write_series_script
from cryorecon.report.style import colours
from cryorecon.report.surface import default_level

SHADES = [(0.0, 0.5, 1.0), (1.0, 0.0, 0.2), (0.1, 0.2, 0.3)]


def commands(path):
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


def test_a_path_opens_by_relative_names_and_morphs_forth_and_back(tmp_path) -> None:
    maps = [tmp_path / f"vol_{i:03d}.mrc" for i in (1, 2, 3)]
    path = write_script(tmp_path / "path.cxc", maps, 0.0123456789, SHADES, morph=True)
    assert commands(path) == [
        'open "vol_001.mrc"', "volume #1 style surface step 1 level 0.0123457 color #0080ff",
        'open "vol_002.mrc"', "volume #2 style surface step 1 level 0.0123457 color #ff0033",
        'open "vol_003.mrc"', "volume #3 style surface step 1 level 0.0123457 color #1a334c",
        "set bgColor white", "lighting soft", "graphics silhouettes true", "view #1-3",
        "volume morph #1-3 frames 80 playStep 0.025",
    ]
    text = path.read_text()
    assert text.index("# movie record") < text.index("volume morph") < text.index('# wait 80\n# movie encode "path.mp4"')
    assert str(tmp_path) not in text, "the folder may be moved"


def test_clusters_get_a_slider_and_one_map_neither(tmp_path) -> None:
    maps = [tmp_path / "a" / f"{i}.mrc" for i in range(3)]
    text = commands(write_script(tmp_path / "view.cxc", maps, 1.0, SHADES, morph=False))
    assert text[0] == 'open "a/0.mrc"'
    assert text[-3:] == ["view #1-3", "hide #2-3 models", "mseries slider #1-3"]
    for morph in (True, False):
        alone = commands(write_script(tmp_path / "one.cxc", maps[:1], 1.0, SHADES[:1], morph))
        assert alone[-1] == "view #1"


def test_names_are_quoted_and_those_that_cannot_be_are_refused(tmp_path) -> None:
    odd = tmp_path / "maps; close session" / "Å #1 two.mrc"
    path = write_script(tmp_path / "view.cxc", [odd], 1.0, SHADES[:1], morph=False)
    assert shlex.split(commands(path)[0]) == ["open", "maps; close session/Å #1 two.mrc"]
    for bad in ('a"b', "a'b", "a\\b", "a*", "a?", "a[1]", "a\nclose"):
        with pytest.raises(InputError, match="takes literally"):
            write_script(tmp_path / "bad.cxc", [tmp_path / f"{bad}.mrc"], 1.0, SHADES[:1], morph=False)
    assert not (tmp_path / "bad.cxc").exists()
    with pytest.raises(InputError, match="a colour for each, found 0 and 0"):
        write_script(tmp_path / "bad.cxc", [], 1.0, [], morph=False)


def test_a_series_has_the_pictures_level_and_colours(tmp_path) -> None:
    rng = np.random.default_rng(0)
    densities = rng.random((2, 16, 16, 16)).astype(np.float32)
    densities[:, 6:10, 6:10, 6:10] += 5
    maps = [tmp_path / f"vol_{i}.mrc" for i in range(2)]
    for file, density in zip(maps, densities, strict=True):
        write_volume(file, density, 2.0)
    text = write_series_script(tmp_path, maps, morph=True).read_text()
    level = default_level(torch.from_numpy(densities.mean(0)))
    assert text.count(f"level {level:.6g} ") == 2
    last = "".join(f"{round(255 * channel):02x}" for channel in colours(2)[-1])
    assert f"volume #2 style surface step 1 level {level:.6g} color #{last}\n" in text
    assert (tmp_path / "chimerax.cxc").is_file()
