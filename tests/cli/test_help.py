"""What help and pages say of the command line is so: examples parse, options exist, stated defaults are the true ones."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

from cryorecon.cli.main import COMMANDS, WIDEST, main, parser_of

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCES = sorted((ROOT / "cryorecon").rglob("*.py"))
OTHERS = {  # options of other programs
    "torchrun": {"--standalone", "--nproc_per_node", "--nnodes", "--rdzv_id", "--rdzv_backend", "--rdzv_endpoint"},
    "sbatch": {"--job-name", "--nodes", "--ntasks-per-node", "--gpus-per-node", "--cpus-per-task", "--time", "--signal",
               "--requeue"},
    "pip": {"--index-url", "--extra-index-url"},
    "tests/robustness/fuzz.py": {"--reader", "--case"},
    "an example of idle's": {"--a", "--b"},
}  # fmt: skip


def parsers():
    return {name: parser_of(name) for name in COMMANDS}


def actions():
    """(command, option) of every option and argument but --help."""
    return [(name, action) for name, parser in parsers().items() for action in parser._actions if action.dest != "help"]


def command_lines(text):
    """The words after ``cryorecon`` of every line that runs it; lines that go on by a backslash are one."""
    found = []
    for line in re.sub(r"\\\n *", "", text).splitlines():
        match = re.match(r"\s*(?:srun )?(?:torchrun .*-m )?cryorecon (?=[a-z])(.*)", line)
        if match:
            lexer = shlex.shlex(re.sub(r"(?<=\s)\$(\w+|\(.*?\))", "", match[1]), posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            words = list(lexer)
            found.append(words[:next((i for i, word in enumerate(words) if word[0] in ";<>|&"), len(words))])
    return found


def fenced(page):
    return "\n".join(re.findall(r"^```[^\n]*\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE))


def helps(name, columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        main([name, "--help"])
    return capsys.readouterr().out


def test_command_lines_are_found():
    text = "$ x\ncryorecon a b \\\n    --c 'd e'  # f\n  torchrun -n 2 -m cryorecon g \"$h\" $i > j\ncryorecon --version\n"
    assert command_lines(text) == [["a", "b", "--c", "d e"], ["g", "$h"]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_pages_parse(page):
    for words in command_lines(fenced(page)):
        parser_of(words[0]).parse_args(words[1:])  # raises where it doesn't take them


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_of_help_parse(name):
    examples = command_lines(importlib.import_module(f"cryorecon.cli.{name}").__doc__)
    assert name in [words[0] for words in examples]
    for words in examples:
        parser_of(words[0]).parse_args(words[1:])


def test_pages_and_messages_name_options_that_exist():
    known = {"--help", "--version"}.union(*(action.option_strings for _, action in actions()), *OTHERS.values())
    read = [path for path in PAGES + SOURCES if path.name not in ("benchmarks.md", "page.py")]  # scripts' options, CSS
    named = [(path, option) for path in read for option in re.findall(r"(?<![\w-])--[A-Za-z][\w-]*", path.read_text())]
    assert len(named) > 300
    assert [f"{path.relative_to(ROOT)}: {option}" for path, option in named if option not in known] == []


def test_the_default_that_is_stated_is_the_true_one():
    wrong = []
    for name, action in actions():
        default = action.default
        if default in (None, argparse.SUPPRESS, False) or default == []:
            continue
        told = " ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)
        if re.sub(r"\.0\b", "", told) not in re.findall(r"default: ([^,;)]*?)(?:\.0)?[,;)]", action.help):
            wrong.append(f"{name} {action.dest}: {action.help!r}, {told}")
    assert wrong == []


def test_every_option_says_what_it_takes():
    bare = []
    for name, action in actions():
        if len(action.help.partition("(default")[0].strip()) < 4:
            bare.append(f"{name} {action.dest}: {action.help!r}")
        if action.option_strings and action.nargs != 0 and not (action.choices or action.metavar):
            bare.append(f"{name} {action.dest}: no metavar")
    assert bare == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_the_terminal(name, monkeypatch, capsys):
    narrow, wide = (helps(name, columns, monkeypatch, capsys).splitlines() for columns in (80, 200))
    assert max(map(len, narrow)) <= 80
    assert max(map(len, wide)) <= WIDEST
    assert narrow[0].startswith(f"usage: cryorecon {name} ")
    assert re.match(r"[A-Z].*[.?]$", " ".join(narrow[2:narrow.index("", 2)])), "a sentence says what it does"


def test_an_option_of_help_is_not_broken_at_its_hyphen(monkeypatch, capsys):
    for columns in range(60, 101, 5):
        assert not [line for line in helps("train_gan", columns, monkeypatch, capsys).splitlines() if line.endswith("-")]


def test_links_of_the_readme_lead_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)", (ROOT / "README.md").read_text())
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []
