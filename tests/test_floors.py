"""The house stands on floors: imports run downwards only, never sideways within a floor, never in circles.

The floors are those of docs/extending.md.
"""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "cryorecon"
FLOORS = {
    "errors": -2, "launch": -2,
    "ranks": -1,
    "geometry": 0,
    "imaging": 1, "metrics": 1,
    "data": 2, "volumes": 2,
    "inference": 3,
    "model": 4,
    "objectives": 5, "simulation": 5,
    "training": 6,
    "analysis": 7,
    "report": 8,
    "api": 8.5,
    "cli": 9,
    "__main__": 10,
}  # fmt: skip
ROOT_NAMES = {"__version__"}  # what else `import cryorecon` offers, it fetches from cryorecon.api when asked
ONLY_IN = {"healpy": "geometry.so3_grid"}  # GPL-2: README says what that means for who redistributes


def modules(root: Path) -> dict[str, Path]:
    """Dotted names below the package (``geometry.grid``; a folder's own is ``geometry``; the root is '') and files."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> list[tuple[int, str]]:
    """Line and dotted name of everything that a module imports, functions' insides too; ours without ``cryorecon.``,
    others as ``!name``."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: list[tuple[int, str]] = []

    def add(line: int, target: str):
        top, _, rest = target.partition(".")
        found.append((line, rest if top == "cryorecon" else "!" + target))

    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                add(node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")[: len(package.split(".")) - node.level + 1] if package else []
                base = ".".join(["cryorecon", *up, *filter(None, [node.module])])
            for alias in node.names:
                inside = f"{base}.{alias.name}".removeprefix("cryorecon.")
                if base == "cryorecon" and inside not in known and inside not in ROOT_NAMES:
                    add(node.lineno, "cryorecon.api")
                else:
                    add(node.lineno, f"{base}.{alias.name}" if inside in known else base)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant):
                    add(node.lineno, str(argument.value))
    return found


def folder(name: str, path: Path) -> str:
    """The folder a module lives in: ``inference.pose`` for ``inference.pose.search``, and for its ``__init__``."""
    return name if path.name == "__init__.py" else name.rpartition(".")[0]


def faults(root: Path) -> list[str]:
    """Every arrow between modules of the package at ``root`` that may not be."""
    known = modules(root)
    wrong = []
    arrows: dict[str, set[str]] = {name: set() for name in known}
    for name, path in known.items():
        top = name.split(".")[0]
        if name and top not in FLOORS:
            wrong.append(f"{name}: stands on no floor; give it one in FLOORS and in docs/extending.md")
            continue
        for line, target in imports(name, path, known):
            here = f"{path.relative_to(root.parent)}:{line}"
            if target.startswith("!"):
                owner = ONLY_IN.get(target[1:].split(".")[0])
                if owner is not None and name != owner:
                    wrong.append(f"{here}: {target[1:]} may be imported in {owner} alone")
            elif target in ("", name):
                continue
            elif name == "":
                if target != "api":
                    wrong.append(f"{here}: the root may fetch nothing but api, found {target}")
            elif target not in known:
                wrong.append(f"{here}: imports cryorecon.{target}, which does not exist")
            else:
                arrows[name].add(target)
                other = target.split(".")[0]
                mine, theirs = folder(name, path), folder(target, known[target])
                related = f"{mine}.".startswith(f"{theirs}.") or f"{theirs}.".startswith(f"{mine}.")
                if FLOORS[other] > FLOORS[top]:
                    wrong.append(f"{here}: {top} (floor {FLOORS[top]}) imports {target} (floor {FLOORS[other]}): up")
                elif FLOORS[other] == FLOORS[top] and not related:
                    wrong.append(f"{here}: {mine} imports {target}: sideways")
    return wrong + circles(arrows)


def circles(arrows: dict[str, set[str]]) -> list[str]:
    """One line for each circle met on a walk along the arrows."""
    done: set[str] = set()
    found = []

    def walk(name: str, trail: list[str]):
        if name in trail:
            found.append("circle: " + " -> ".join([*trail[trail.index(name) :], name]))
        elif name not in done:
            for target in sorted(arrows[name]):
                walk(target, [*trail, name])
            done.add(name)

    for name in sorted(arrows):
        walk(name, [])
    return found


def test_imports_run_downwards():
    assert faults(PACKAGE) == []


def test_every_folder_is_a_package():
    bare = [str(path.parent.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")
            if not (path.parent / "__init__.py").is_file()]
    assert bare == []


@pytest.mark.parametrize(("file", "source", "says"), [
    ("geometry/grid.py", "from cryorecon.data import stack", "up"),
    ("geometry/grid.py", "from cryorecon.data.stack import ParticleStack", "up"),
    ("geometry/grid.py", "import cryorecon.data.stack", "up"),
    ("geometry/grid.py", "from ..data import stack", "up"),
    ("geometry/grid.py", "from ..data.stack import ParticleStack", "up"),
    ("geometry/grid.py", "def late():\n    from cryorecon.data import stack", "up"),
    ("geometry/grid.py", "import importlib\nimportlib.import_module('cryorecon.data.stack')", "up"),
    ("geometry/grid.py", "from cryorecon import load_stack", "up"),
    ("geometry/grid.py", "from cryorecon.imaging import ctf", "does not exist"),
    ("data/stack.py", "from cryorecon.volumes import lattice", "sideways"),
    ("inference/pose/search.py", "from cryorecon.inference.conformation import fixed", "sideways"),
    ("volumes/lattice.py", "import healpy as hp", "healpy may be imported in geometry.so3_grid alone"),
    ("volumes/lattice.py", "def late():\n    from healpy.pixelfunc import nside2npix", "healpy"),
    ("volumes/lattice.py", "from cryorecon.volumes import voxels", "circle"),
    ("__init__.py", "from cryorecon.geometry import grid", "nothing but api"),
    ("extra.py", "", "no floor"),
])
def test_the_checker_finds_a_planted_fault(file, source, says, tmp_path):
    assert faults(plant(tmp_path)) == []
    (tmp_path / "cryorecon" / file).write_text(source)
    found = faults(tmp_path / "cryorecon")
    assert len(found) == 1
    assert says in found[0]


@pytest.mark.parametrize(("file", "source"), [
    ("data/stack.py", "import torch\nfrom cryorecon import __version__\nfrom cryorecon.geometry.grid import Grid"),
    ("data/stack.py", "from ..geometry import grid\nfrom ..errors import InputError\nfrom . import mrc"),
    ("inference/pose/search.py", "from cryorecon.inference.hypotheses import Hypotheses"),
    ("geometry/so3_grid.py", "import healpy"),
    ("__init__.py", "def __getattr__(name):\n    from cryorecon import api\n    return getattr(api, name)"),
])
def test_the_checker_lets_good_imports_pass(file, source, tmp_path):
    plant(tmp_path)
    (tmp_path / "cryorecon" / file).write_text(source)
    assert faults(tmp_path / "cryorecon") == []


def plant(parent: Path) -> Path:
    """A small house without faults."""
    root = parent / "cryorecon"
    sources = {
        "errors": "", "api": "from cryorecon.data.stack import ParticleStack", "geometry/grid": "import torch",
        "geometry/so3_grid": "", "data/stack": "", "data/loader": "from cryorecon.geometry import grid", "data/mrc": "",
        "volumes/lattice": "", "volumes/voxels": "from cryorecon.volumes import lattice",
        "inference/hypotheses": "", "inference/pose/search": "", "inference/conformation/fixed": "",
    }  # fmt: skip
    for name, source in sources.items():
        path = root / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    for at in {path.parent for path in root.rglob("*.py")} | {root / "inference"}:
        (at / "__init__.py").touch()
    return root
