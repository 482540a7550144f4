"""The report in Chromium: it opens offline and without a complaint, and what it offers to click, drag and turn does so."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from cryorecon.analysis import selection
from cryorecon.analysis.explore import explore
from cryorecon.data.stack import ParticleStack
from cryorecon.imaging.ctf import Optics
from cryorecon.report.analysis_page import make_explorer, write_analysis
from cryorecon.report.explorer import Curves, curves_markup
from cryorecon.report.page import Section
from cryorecon.report.server import ReportServer
from cryorecon.report.thumbnails import Thumbnails

EVIL = "</script><img src=x onerror=alert(1)><b>'\"&"
N = 400


def ball(point) -> torch.Tensor:
    axis = torch.arange(24.0) - 12
    x, y, z = axis - float(point[0]), axis[:, None], axis[:, None, None]
    return torch.sigmoid(2 * (6 - (x**2 + (y / 1.3) ** 2 + (z / 0.8) ** 2).sqrt()))


def build(folder: Path, title: str = "run", umap: bool = True, zdim: int = 2, decode=ball):
    """A report of an explored normal cloud; returns its path, the latents and what was found."""
    rng = np.random.default_rng(3)
    z = rng.normal(size=(N, zdim)).astype(np.float32) * np.array([2.0, 1.0, 0.5], np.float32)[:zdim]
    found = explore(z, folder, decode, 3.0, k=4, n_points=5, n_components=1)
    optics = Optics.from_columns(N, defocus_u=torch.linspace(1e4, 2e4, N), defocus_v=torch.linspace(1e4, 2e4, N), voltage=300.0)
    stack = ParticleStack.from_images(rng.normal(size=(N, 24, 24)).astype(np.float32), 3.0, optics)
    embedded = (np.arange(0, N, 2), rng.normal(size=(N // 2, 2)).astype(np.float32)) if umap else None
    explorer = make_explorer(found, z, f"cryorecon select '{title}' 1 --lasso selection.json -o chosen", embedded, stack)
    frequency = np.linspace(0, 0.2, 9)
    curves = Curves(title, {title: (frequency, 1 - 4 * frequency), "b": (frequency, np.full(9, np.nan))})
    history = {"epoch": np.arange(2.0), "loss": np.ones(2)}
    page = write_analysis(found, history, 3.0, title, {"command": title}, explorer,
                          [Section("Agreement", markup=curves_markup(curves))])
    return page, z, found


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return build(tmp_path_factory.mktemp("report"), EVIL, umap=False)


@pytest.fixture(scope="module")
def umap_report(tmp_path_factory):
    return build(tmp_path_factory.mktemp("umap"))


@pytest.fixture
def opened(browser, report):
    browser.open(report[0].as_uri())
    yield browser
    assert browser.complaints() == []
    assert browser.requests() == [report[0].as_uri()]


def plot_pixels(browser, points):
    """Places in the window of points of the plot's axes."""
    return browser.run("(() => { const g = document.querySelector('.plot'), l = g._fullLayout;"
                       "g.scrollIntoView({block: 'center'}); const r = g.getBoundingClientRect();"
                       f"return {json.dumps(points)}.map(([x, y]) =>"
                       "[r.x + l.xaxis._offset + l.xaxis.d2p(x), r.y + l.yaxis._offset + l.yaxis.d2p(y)]); })()")


def pixels(browser) -> list[int]:
    """The surface's picture, a number for each pixel."""
    browser.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return browser.run("(() => { const c = document.querySelector('.surface'), d = document.createElement('canvas');"
                       "d.width = d.height = 100; const g = d.getContext('2d'); g.drawImage(c, 0, 0, 100, 100);"
                       "return [...g.getImageData(0, 0, 100, 100).data].filter((_, i) => i % 4 === 3); })()")


def part(name: str) -> str:
    return f"document.querySelector('[data-part={name}]')"


def slide(browser, name: str, value: float) -> None:
    browser.run(f"{part(name)}.value = {value}; {part(name)}.dispatchEvent(new Event('input'))")


def choose(browser, name: str, value: str) -> None:
    browser.run(f"{part(name)}.value = '{value}'; {part(name)}.dispatchEvent(new Event('change'))")


def saved(browser) -> Path:
    """The file that Save writes."""
    path = Path(browser.folder) / "selection.json"
    path.unlink(missing_ok=True)
    browser.press("[data-part=save]")
    browser.wait_for(path.is_file)
    return path


def test_words_stay_words(opened):
    assert opened.run("document.querySelector('h1').textContent") == f"{EVIL}"
    assert opened.run("document.querySelectorAll('img[src=x]').length") == 0
    assert EVIL in opened.run(f"{part('command')}.textContent")
    assert opened.run("document.querySelectorAll('.curves .main-svg').length") > 0


def test_the_policy_lets_nothing_out_and_no_script_in(browser, report):
    browser.open(report[0].as_uri())
    assert browser.run("fetch('https://example.org/').then(() => 'out', () => 'stopped')") == "stopped"
    bad = '<img src=x onerror="window.hit = 1"><a id=a onclick="window.hit = 2">'
    browser.run(f"document.body.insertAdjacentHTML('beforeend', {json.dumps(bad)})")
    browser.run("document.getElementById('a').click()")
    browser.wait("[...document.images].at(-1).complete")
    assert browser.run("window.hit") is None
    assert sum("Content Security Policy" in told for told in browser.complaints()) >= 3


def test_the_surface_is_drawn_and_the_stills_give_way(opened):
    assert sum(value > 0 for value in pixels(opened)) > 500
    assert opened.run("[...document.querySelectorAll('.fallback-surface, .fallback-points')]"
                      ".every(e => getComputedStyle(e).display === 'none')")


def test_the_level_moves_the_surface(opened):
    counts = []
    for value in (50, 500, 950):
        slide(opened, "level", value)
        counts.append(sum(alpha > 0 for alpha in pixels(opened)))
    assert counts[0] > counts[1] > counts[2] > 0


def test_dragging_and_keys_turn_it(opened):
    before = pixels(opened)
    x, y = opened.run("(() => { const e = document.querySelector('.surface'); e.scrollIntoView({block: 'center'});"
                      "const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()")
    opened.drag([(x, y), (x + 40, y + 10), (x + 90, y + 60)])
    turned = pixels(opened)
    assert turned != before
    opened.press("[data-part=reset]")
    assert pixels(opened) == before
    opened.run("document.querySelector('.surface').focus()")
    opened.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowLeft")
    assert pixels(opened) != before


def test_a_click_on_a_point_shows_the_nearest_map_its_cluster_and_images(opened, report):
    _, z, found = report
    particle = int(found.coordinates[:, 0].argmax())
    (place,) = plot_pixels(opened, [found.coordinates[particle, :2].tolist()])
    opened.click(*place)
    nearest = int(((z[found.clusters.nearest] - z[particle]) ** 2).sum(1).argmin())
    opened.wait(f"document.querySelector('.surface').dataset.shown === 'clusters/{nearest}'")
    said = opened.run(f"{part('title')}.textContent")
    assert said.startswith(f"Particle {particle}, cluster {found.clusters.labels[particle] + 1}:")
    assert opened.run("document.querySelectorAll('[data-part=strip] canvas').length") >= 4
    assert opened.run("document.querySelector('tr.shown').dataset.volume") == str(nearest)
    assert opened.run(f"{part('file')}.getAttribute('href')") == f"kmeans4/vol_{nearest + 1:03d}.mrc"


def test_buttons_numbers_rows_and_comparison(opened, report):
    found = report[2]
    before = pixels(opened)
    opened.press("[data-part=volumes] button:nth-child(4)")
    opened.wait("document.querySelector('.surface').dataset.shown === 'clusters/3'")
    alone = pixels(opened)
    assert alone != before
    choose(opened, "compare", "0")
    opened.wait("Explorer.ready.then(e => e.view.state.layers.length === 2)")
    both = pixels(opened)
    assert sum(alpha > 0 for alpha in both) > sum(alpha > 0 for alpha in alone)
    (badge,) = plot_pixels(opened, [found.coordinates[found.clusters.nearest[2], :2].tolist()])
    opened.click(*badge)
    opened.wait("document.querySelector('.surface').dataset.shown === 'clusters/2'")
    opened.press("tr[data-volume='1'] button")
    opened.wait("document.querySelector('.surface').dataset.shown === 'clusters/1'")


def test_a_lasso_is_what_select_reads(opened, report):
    _, z, found = report
    corners = plot_pixels(opened, [[-0.5, -1.2], [3.1, -1.0], [2.8, 1.3], [0.2, 0.6], [-0.4, 1.2]])
    opened.drag([*corners, corners[0]])
    opened.wait(f"!{part('selection')}.hidden")
    chosen = opened.run("Explorer.ready.then(e => e.state.chosen.map(i => e.index[i]))")
    assert 20 < len(chosen) < N - 20
    path = saved(opened)
    x, y, polygon = selection.read_lasso(path)
    assert (x, y) == ("pc1", "pc2")
    axes = (selection.axis(name, z, found.pca.project(z)) for name in (x, y))
    assert np.flatnonzero(selection.by_lasso(*axes, polygon)).tolist() == chosen
    assert np.flatnonzero(selection.by_selection_file(path, z, found.pca.project(z))).tolist() == chosen
    assert f"{len(chosen)} of {N}" in opened.run(f"{part('count')}.textContent")
    opened.press("[data-part=clear]")
    assert opened.run(f"{part('selection')}.hidden")


def test_a_box_selects_as_well_and_an_outline_can_be_moved(opened, report):
    found = report[2]
    opened.run("Plotly.relayout(document.querySelector('.plot'), {dragmode: 'select'}).then(() => 0)")
    opened.drag(plot_pixels(opened, [[-1, -1], [0, 0], [1, 1]]))
    opened.wait(f"!{part('selection')}.hidden")
    _, _, polygon = selection.read_lasso(saved(opened))
    assert polygon.shape == (4, 2)
    np.testing.assert_allclose(np.sort(np.abs(polygon).ravel()), 1, atol=0.05)
    inside = (np.abs(found.coordinates[:, :2] - polygon.mean(0)) < np.ptp(polygon, axis=0) / 2).all(1)
    assert opened.run("Explorer.ready.then(e => e.state.chosen)") == np.flatnonzero(inside).tolist()
    opened.drag(plot_pixels(opened, [[0.05, 0.9], [1.0, 0.9], [2.05, 0.9]]))  # from within it
    moved = opened.run("Explorer.ready.then(e => e.state.selected.file.polygon)")
    chosen = opened.run("Explorer.ready.then(e => e.state.chosen)")
    assert np.flatnonzero(selection.by_lasso(*found.coordinates[:, :2].T, np.array(moved))).tolist() == chosen


def test_a_lasso_in_umap_lists_particles(browser, umap_report):
    page, z, found = umap_report
    browser.open(page.as_uri())
    choose(browser, "x", "umap1")
    choose(browser, "y", "umap2")
    corners = plot_pixels(browser, [[-1, -1], [1, -1], [1, 1], [-1, 1]])
    browser.drag([*corners, corners[0]])
    browser.wait(f"!{part('selection')}.hidden")
    assert f"only of the {N // 2} shown of {N}" in browser.run(f"{part('caution')}.textContent")
    held = json.loads(saved(browser).read_text())
    assert (held["shown"], held["of"]) == (N // 2, N)
    chosen = selection.by_selection_file(Path(browser.folder) / "selection.json", z, found.coordinates)
    assert chosen.sum() == len(held["particles"]) > 10
    assert not chosen[1::2].any()
    assert browser.complaints() == []


def test_points_take_the_colour_of_a_column(opened):
    choose(opened, "colour", "defocus (µm)")
    assert opened.run("document.querySelector('.plot').data[0].marker.color[399]") == pytest.approx(2.0)


def test_the_movie_plays_there_and_back(opened):
    assert opened.run(f"{part('movie')}.hidden")
    choose(opened, "series", "pc1")
    choose(opened, "speed", "12")
    opened.press("[data-part=play]")
    opened.wait("document.querySelector('.surface').dataset.shown === 'pc1/4'")
    opened.wait("document.querySelector('.surface').dataset.shown === 'pc1/2'")
    opened.press("[data-part=play]")
    assert opened.run(f"{part('play')}.textContent") == "Play"
    slide(opened, "frame", 1)
    opened.wait("document.querySelector('.surface').dataset.shown === 'pc1/1'")


def test_a_phone_scrolls_in_one_direction_only(browser, report):
    browser.open(report[0].as_uri(), width=390, height=844)
    assert browser.run("document.documentElement.scrollWidth") <= 390
    assert browser.run("document.querySelector('.surface').clientWidth") > 250
    assert browser.complaints() == []


def test_dark_and_light_follow_the_system(opened):
    def looks():
        return opened.run("[getComputedStyle(document.body).backgroundColor,"
                          "document.querySelector('.plot')._fullLayout.font.color]")

    light = looks()
    opened.dark(True)
    opened.wait(f"document.querySelector('.plot')._fullLayout.font.color !== '{light[1]}'")
    dark = looks()
    assert dark[0] != light[0]
    opened.dark(False)
    opened.wait(f"document.querySelector('.plot')._fullLayout.font.color === '{light[1]}'")


def test_without_webgl_pictures_stand_in(browser_without_webgl, report):
    tab = browser_without_webgl
    tab.open(report[0].as_uri())
    assert not tab.run(f"{part('missing')}.hidden")
    assert tab.run("getComputedStyle(document.querySelector('.fallback-surface')).display") != "none"
    assert tab.run("document.querySelectorAll('.plot .scatterlayer .point').length") >= N
    assert tab.requests() == [report[0].as_uri()]


def test_served_a_click_decodes_the_map_at_that_particle(browser, umap_report):
    page, z, found = umap_report
    asked = []

    def decode(point):
        asked.append(point)
        return ball(point)

    image = np.zeros((1, 24, 24), np.uint8)
    server = ReportServer(page.parent, decode, 2, lambda particle: Thumbnails(np.array([particle]), image), N)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        browser.open(server.address)
        particle = 2 * int(found.coordinates[::2, 0].argmax())
        (place,) = plot_pixels(browser, [found.coordinates[particle, :2].tolist()])
        browser.click(*place)
        browser.wait(f"document.querySelector('.surface').dataset.shown === 'decoded/{particle}'")
        browser.wait("document.querySelectorAll('[data-part=strip] canvas.own').length === 1")
        assert "decoded at z" in browser.run(f"{part('detail')}.textContent")
        assert sum(value > 0 for value in pixels(browser)) > 200
        assert browser.complaints() == []
        assert all(url.startswith(server.address) for url in browser.requests())
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    np.testing.assert_array_equal(asked, [z[particle]])


def test_without_maps_there_are_points_and_images(browser, tmp_path):
    page, _, found = build(tmp_path, decode=None)
    browser.open(page.as_uri())
    particle = 2 * int(found.coordinates[::2, 0].argmax())
    (place,) = plot_pixels(browser, [found.coordinates[particle, :2].tolist()])
    browser.click(*place)
    browser.wait(f"{part('title')}.textContent.startsWith('Particle {particle},')")
    assert browser.run("document.querySelectorAll('[data-part=strip] canvas').length") >= 4
    assert browser.run("document.querySelector('.surface').clientWidth") == 0
    assert browser.complaints() == []


@pytest.mark.parametrize("zdim", [1, 3])
def test_other_dimensions(browser, tmp_path, zdim):
    browser.open(build(tmp_path, zdim=zdim, umap=False)[0].as_uri())
    assert browser.complaints() == []
    title = browser.run("document.querySelector('.plot')._fullLayout.yaxis.title.text")
    assert title.startswith({1: "spread out", 3: "PC 2"}[zdim])
