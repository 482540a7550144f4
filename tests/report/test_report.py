"""Pictures show what they claim; pages escape what they quote and need no network."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from cryorecon import report
from cryorecon.analysis.explore import explore
from cryorecon.geometry.rotations import random
from cryorecon.report import maps, plots
from cryorecon.report.analysis_page import make_explorer, write_analysis
from cryorecon.report.page import Picture, Section, Table, embedded, served, write_page
from cryorecon.report.style import colours, save
from cryorecon.report.surface import default_level, principal_view, render, turned

EVIL = "</script><img src=x onerror=alert(1)>"


def ellipsoid(box: int, radii: tuple[float, float, float]) -> torch.Tensor:
    axis = torch.arange(box).float() - box // 2
    x, y, z = axis / radii[0], (axis / radii[1])[:, None], (axis / radii[2])[:, None, None]
    return torch.sigmoid(8 * (1 - (x**2 + y**2 + z**2).sqrt()))


def test_a_rendered_ellipsoid_has_its_outline() -> None:
    density = ellipsoid(32, (6.0, 12.0, 9.0))
    picture = render(density, 0.5, np.eye(3), size=64)
    alpha = picture[..., 3] > 0.5
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    assert abs(np.ptp(columns) + 1 - 2 * 6.0 * 2) <= 2  # two picture pixels to a voxel
    assert abs(np.ptp(rows) + 1 - 2 * 12.0 * 2) <= 2
    assert abs(columns.mean() - 32) <= 1.5
    zoomed = render(density, 0.5, np.eye(3), size=64, zoom=1.2)[..., 3].sum()
    assert abs(zoomed / picture[..., 3].sum() - 1.44) < 0.1


def test_light_comes_from_the_upper_left() -> None:
    picture = render(ellipsoid(32, (11.0, 11.0, 11.0)), 0.5, np.eye(3), size=48)
    grey = picture[..., :3].mean(2)
    assert grey[14, 14] > grey[33, 33] + 0.1


def test_the_principal_view_lays_it_flat() -> None:
    density = ellipsoid(32, (12.0, 5.0, 9.0))
    view = principal_view(density, 0.5)
    np.testing.assert_allclose(np.abs(view), [[0, 0, 1], [1, 0, 0], [0, 1, 0]], atol=1e-2)
    assert np.linalg.det(view) == pytest.approx(1)
    np.testing.assert_allclose(turned(np.eye(3), "y", 90) @ [1, 0, 0], [0, 0, -1], atol=1e-12)


def test_nothing_to_see_is_an_empty_picture() -> None:
    assert render(torch.zeros(16, 16, 16), 0.5, np.eye(3), size=16).max() == 0
    assert principal_view(torch.zeros(16, 16, 16), 0.5).shape == (3, 3)
    assert np.isfinite(default_level(torch.zeros(16, 16, 16)))


def test_the_default_level_is_above_noise() -> None:
    noise = 0.05 * torch.randn(32, 32, 32, generator=torch.Generator().manual_seed(0))
    level = default_level(ellipsoid(32, (8.0, 8.0, 8.0)) + noise)
    assert 0.15 < level < 0.6


def figures() -> dict[str, object]:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(400, 3))
    frequency = np.linspace(0, 0.5, 17)
    density = ellipsoid(16, (4.0, 6.0, 3.0))
    images = rng.normal(size=(3, 16, 16))
    return {
        "scatter": plots.latent_scatter(z, ("a", "b"), rng.integers(3, size=400), z[:3]),
        "line": plots.latent_scatter(z[:, :1], ("a",), rng.integers(3, size=400), z[:3, :1]),
        "density": plots.latent_density(z, ("a", "b"), z[:4], "path"),
        "same": plots.latent_density(np.ones((50, 2)), ("a", "b"), np.ones((1, 2)), "path"),
        "variance": plots.variance(np.array([0.7, 0.3])),
        "curve": plots.learning_curve({"epoch": np.arange(3.0), "kl": np.array([np.nan, 2, 1]), "loss": np.ones(3)}),
        "no curve": plots.learning_curve({"epoch": np.array([])}),
        "fsc": plots.fsc({"a": (frequency, 1 - 2 * frequency)}, 3.0, [(0.5, 0.25)], "title"),
        "fsc px": plots.fsc({"a": (frequency, np.ones(17))}, 0.0),
        "orientations": plots.orientations(random(200).numpy()),
        "slices": maps.slices(density, 2.0, "t"),
        "slices without pixel size": maps.slices(density, 0.0),
        "surface": maps.surface(density, "t"),
        "surfaces": maps.surfaces([density, density], ["1", "2"], "t", size=32),
        "images": maps.data_and_prediction(images, images * 0.5, ["1", "2", "3"]),
    }


def test_every_figure_draws(tmp_path) -> None:
    for name, drawn in figures().items():
        path = save(drawn, tmp_path / f"{name}.png", dpi=40)
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert not list(tmp_path.glob(".*"))
    assert len(colours(1)) == 1
    assert len(set(colours(20))) == 20


class Seen(HTMLParser):
    """Tags and their attributes of a page."""

    def __init__(self):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_a_page_escapes_and_stands_alone(tmp_path) -> None:
    save(plots.variance(np.array([1.0])), tmp_path / "a.png", dpi=30)
    bad = "<script>alert(1)</script>\"'&"
    sections = [Section(bad, bad, [Picture(tmp_path / "a.png", bad)], [Table((bad,), [(bad,)], (0,))])]
    page = write_page(tmp_path / "x.html", bad, bad, sections, bad).read_text()
    seen = Seen()
    seen.feed(page)
    assert not [tag for tag, _ in seen.tags if tag in ("script", "iframe")]
    assert [attributes["href"] for tag, attributes in seen.tags if tag == "link"] == ["data:,"]
    sources = [attributes["src"] or "" for _, attributes in seen.tags if "src" in attributes]
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "http://" not in page
    assert "https://" not in page
    assert [attributes["alt"] for tag, attributes in seen.tags if tag == "img"] == [bad]


def test_the_analysis_page_holds_every_picture(tmp_path) -> None:
    z = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    found = explore(z, tmp_path, lambda p: ellipsoid(16, (4.0 + 0.3 * float(p[0]), 5.0, 3.0)), 2.0, k=3, n_points=2)
    page = write_analysis(found, {"epoch": np.arange(2.0), "loss": np.ones(2)}, 2.0, "run <1>", {"command": "a & b"},
                          make_explorer(found, z, "select", (np.arange(200), z)))
    pictures = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png"))
    assert pictures == ["learning_curve.png", "pc1/volumes.png", "pc2/volumes.png", "slices.png", "umap.png",
                        "variance.png", "volumes.png", "z_pca.png", "z_pca_hexbin.png"]
    text = page.read_text()
    assert text.count("<img") == len(pictures)
    assert "run &lt;1&gt;" in text
    assert "a &amp; b" in text


def test_a_page_allows_its_own_scripts_alone(tmp_path) -> None:
    script = "document.title = 'é < 1'"
    section = Section("a", markup=embedded({"b": EVIL}, "data"))
    page = write_page(tmp_path / "x.html", "t", "s", [section], "f", scripts=[script])
    text = page.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search('Content-Security-Policy" content="(.*?)"', text).group(1)
    assert f"script-src 'unsafe-eval' 'sha256-{digest}';" in policy
    assert "default-src 'none'; connect-src 'none'" in policy
    assert "connect-src 'self'" in served(text)
    assert "connect-src 'none'" not in served(text)
    assert text.count("</script>") == 2
    held = re.search('class="data">(.*?)</script>', text).group(1)
    assert json.loads(held) == {"b": EVIL}


def test_vendored_files_are_those_that_their_table_names() -> None:
    folder = Path(report.__file__).parent / "vendor"
    table = (folder / "README.md").read_text()
    libraries = list(folder.glob("*.js"))
    assert libraries
    for library in libraries:
        assert hashlib.sha256(library.read_bytes()).hexdigest() in table
        assert b"</script" not in library.read_bytes()
    assert "MIT" in (folder / "plotly-LICENSE.txt").read_text()
