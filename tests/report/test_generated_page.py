"""The page of a run of train_gan: what it says, what it shows, what it asks of the browser."""

import numpy as np
import pytest
import torch

from cryorecon.analysis.generated import Generated, Occupancy
from cryorecon.analysis.trajectories import write_series
from cryorecon.metrics import occupancy
from cryorecon.metrics.fsc import cross_conformation, pooled_curve
from cryorecon.report import generated_plots
from cryorecon.report.generated_page import in_short, write_generated
from cryorecon.report.style import save
from cryorecon.report.surface import projected, turned

EVIL = "</script><img src=x onerror=alert(1)><b>'\"&"
HISTORY = {"epoch": np.arange(1.0, 7), "distance": np.linspace(2, 1, 6), "critic_slope": np.ones(6), "noise": np.ones(6),
           "generator_gradient": np.ones(6), "band": np.array([6.0, 8, 10, 12, 12, 12])}


def ball(alpha: float) -> torch.Tensor:
    """24 px; a smaller ball goes round a larger one."""
    axis = torch.arange(24.0) - 12
    x, y, z = axis, axis[:, None], axis[:, None, None]
    small = torch.exp(-((x - 6 * np.cos(alpha)) ** 2 + (y - 6 * np.sin(alpha)) ** 2 + z**2) / 5)
    return (torch.sigmoid(2 * (4 - (x**2 + y**2 + z**2).sqrt())) + small).float()


def finding(folder, zdim: int = 1, steps: int = 4, doubts: tuple[str, ...] = (), earlier: bool = True) -> Generated:
    """What explore_generated would find, of ``steps`` + 1 maps."""
    alpha = np.arange(steps + 1) / steps if zdim else np.zeros(1)
    maps = torch.stack([ball(value) for value in alpha])
    held = iter(maps)
    paths = write_series(folder, lambda _: next(held), alpha[:, None], 3.0, "maps", first=0)
    areas = occupancy.normalised(cross_conformation(maps).numpy()) if zdim else np.ones((1, 1))
    rules = {} if zdim != 1 else {
        name: Occupancy(rule(areas), occupancy.fractions(rule(areas)), np.full(3, 0.0123), [5, 6])
        for name, rule in occupancy.RULES.items()}
    before = {5: pooled_curve(maps.roll(1, 1), maps)} if earlier else {}
    images = np.random.default_rng(0).normal(size=(3, 4, 24, 24))
    return Generated(folder, 6, 3.0, zdim, alpha, maps, paths, areas, rules, before, images, list(doubts), {"a": "maps"})


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    return write_generated(finding(folder, doubts=(EVIL,)), HISTORY, EVIL, {"command": EVIL})


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    return write_generated(finding(folder, zdim=0, earlier=False), HISTORY, "one", {"command": "a"})


def test_the_page_says_what_was_found(several, one):
    text = several.read_text(encoding="utf-8")
    for part in ("Hand and orientation of the map are not determined, and are the same for all alpha", "± 1.2",
                 "epochs 5 and 6", "relative, area 0.", "By the paper&#x27;s rule",
                 "That maps differ does not prove that particles do"):
        assert part in text.replace("\u00a0", " "), part
    assert text.count("<img") == 7
    assert "plotly.js" not in text
    text = one.read_text(encoding="utf-8")
    assert "Conformations" not in text
    assert "There is no earlier checkpoint" in text
    assert text.count("<img") == 4


def test_names_stay_words(several):
    assert EVIL not in several.read_text(encoding="utf-8")
    assert "<b>" not in several.read_text(encoding="utf-8")


def test_in_short_says_what_is_doubtful(tmp_path):
    found = finding(tmp_path, doubts=("the critic is flat",))
    assert in_short(found).text.endswith("Warning: the critic is flat.")
    same = Generated(**{**found.__dict__, "areas": np.ones((5, 5)), "maps": torch.zeros(5, 24, 24, 24)})
    assert "Warning: all maps along alpha are alike" in in_short(same).text
    assert "Warning: the map is empty." in in_short(same).text
    assert "By the rule" not in in_short(same).text
    assert "By the rule" in in_short(found).text


def test_a_projection_is_the_sum_along_the_view():
    """Rows of a projection run downwards, those of a map up."""
    density = ball(0.7)
    found = projected(density, np.eye(3))
    torch.testing.assert_close(found.flip(0)[:-1], density.sum(0)[1:], atol=1e-4, rtol=1e-4)
    aside = projected(density, turned(np.eye(3), "y", 90))  # z to the right
    torch.testing.assert_close(aside.flip(0)[:-1], density.sum(2).T[1:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("history", [HISTORY, {"epoch": np.array([])}, {"epoch": np.array([1.0]), "distance": np.ones(1)}])
def test_training_curves_of_any_length_are_drawn(history, tmp_path):
    assert save(generated_plots.game(history), tmp_path / "a.png", dpi=40).stat().st_size > 1000


def test_the_heat_map_is_drawn_with_and_without_parts(tmp_path):
    alpha, areas = np.linspace(0, 1, 5), np.full((5, 5), 0.3) + 0.7 * np.eye(5)
    for parts in (None, np.array([0, 1, 1, 1, 2]), np.ones(5, int)):
        assert save(generated_plots.fsccc(alpha, areas, parts), tmp_path / "a.png", dpi=40).stat().st_size > 1000


def test_in_a_browser_maps_play_without_points(several, browser):
    browser.open(several.as_uri(), 390, 844)
    assert browser.run("document.documentElement.scrollWidth") == 390
    assert browser.run("[...document.querySelectorAll('.volumes button')].map(b => b.textContent).join()") == "0,1,2,3,4"
    assert browser.run("getComputedStyle(document.querySelector('.points')).display") == "none"
    assert browser.run("document.querySelector('.surface').dataset.shown") == "alpha/0"
    assert int(browser.run("document.querySelector('.surface').dataset.triangles")) > 100
    browser.press("[data-part=play]")
    browser.wait("document.querySelector('.surface').dataset.shown === 'alpha/3'")
    browser.press("[data-part=play]")
    browser.run("document.querySelectorAll('.volumes button')[4].click()")
    browser.wait("document.querySelector('[data-part=title]').textContent === 'α = 1'")
    assert browser.run("document.querySelector('[data-part=file]').getAttribute('href')") == "vol_004.mrc"
    assert browser.run("document.querySelector('h1').textContent") == EVIL
    assert browser.run("document.querySelectorAll('img[src=x]').length") == 0
    browser.dark(True)
    assert browser.complaints() == []
    assert browser.requests() == [several.as_uri()]


def test_in_a_browser_one_map_has_nothing_to_choose(one, browser):
    browser.open(one.as_uri())
    assert int(browser.run("document.querySelector('.surface').dataset.triangles")) > 100
    for part in ("volumes", "movie"):
        assert browser.run(f"document.querySelector('[data-part={part}]').hidden"), part
    for part in ("series", "compare"):
        assert browser.run(f"document.querySelector('[data-part={part}]').parentElement.hidden"), part
    assert browser.run("document.querySelector('[data-part=detail]').textContent") == ""
    assert browser.complaints() == []


def test_without_webgl_the_stills_stay(several, browser_without_webgl):
    browser_without_webgl.open(several.as_uri())
    assert browser_without_webgl.run("getComputedStyle(document.querySelector('.fallback-surface')).display") == "block"
    assert not browser_without_webgl.run("document.querySelector('[data-part=missing]').hidden")
    assert browser_without_webgl.complaints() == []
