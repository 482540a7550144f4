"""Pictures of a report for these pages: python docs/screenshots.py demo/run/analyze.1

Opens report.html in Chromium at 1400 and 390 px, light and dark, does what a reader would do, and writes
docs/pictures/report_*.png.
"""

import importlib.util
import io
import sys
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parent
SCENES = {  # name: (width, height, scheme, what is done first, where the page is scrolled to)
    "report_wide": (1400, 1010, "light", "lasso", "section:has(.explorer)"),
    "report_wide_dark": (1400, 1010, "dark", "path", "section:has(.explorer)"),
    "report_phone": (390, 844, "light", "none", "header"),
    "report_phone_dark": (390, 844, "dark", "path", ".maps"),
}


def client():
    """The browser of the tests."""
    spec = importlib.util.spec_from_file_location("browser", HERE.parent / "tests" / "report" / "browser.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Browser()


def lasso(tab) -> None:
    """Around the right third of the points."""
    outline = [(0.72, 0.05), (0.98, 0.04), (0.99, 0.4), (0.97, 0.8), (0.8, 0.86), (0.66, 0.7), (0.68, 0.4)]
    left, top, width, height = tab.run("""(() => {
        const g = document.querySelector('.plot'), {xaxis, yaxis} = g._fullLayout;
        g.scrollIntoView({block: 'center'});
        const r = g.getBoundingClientRect();
        return [r.x + xaxis._offset, r.y + yaxis._offset, xaxis._length, yaxis._length]; })()""")
    places = [(left + x * width, top + y * height) for x, y in outline]
    tab.drag([*places, places[0]])
    tab.wait("!document.querySelector('[data-part=selection]').hidden")
    tab.run("Explorer.ready.then(e => e.chooseMap(document.querySelectorAll('.volumes button').length - 1, true))")


def path(tab) -> None:
    """The middle of the first path beside its first map."""
    for name, value in (("series", "path_density"), ("compare", "0")):
        tab.run(f"(() => {{ const e = document.querySelector('[data-part={name}]'); e.value = '{value}';"
                "e.dispatchEvent(new Event('change')); })()")
    tab.run("Explorer.ready.then(e => e.chooseMap(6, true))")


def shot(tab, page: Path, name: str) -> None:
    """One scene, in at most 256 colours."""
    width, height, scheme, first, place = SCENES[name]
    tab.open(page.resolve().as_uri(), width, height, scheme)
    {"lasso": lasso, "path": path, "none": lambda _: None}[first](tab)
    tab.run(f"window.scrollTo(0, document.querySelector('{place}').getBoundingClientRect().top + scrollY - 20)")
    tab.run("document.activeElement.blur()")
    tab.run("new Promise(done => setTimeout(done, 800))")
    picture = Image.open(io.BytesIO(tab.picture())).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    picture.save(HERE / "pictures" / f"{name}.png", optimize=True)
    print(HERE / "pictures" / f"{name}.png", (HERE / "pictures" / f"{name}.png").stat().st_size)


def main() -> None:
    """All scenes of the report in the folder that the command line names."""
    tab = client()
    try:
        for name in SCENES:
            shot(tab, Path(sys.argv[1]) / "report.html", name)
            if tab.complaints():
                sys.exit(f"{name}: {tab.complaints()}")
    finally:
        tab.close()


if __name__ == "__main__":
    main()
