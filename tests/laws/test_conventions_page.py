"""Every test that docs/conventions.md names as a guard exists."""

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "conventions.md"


def test_every_guard_exists():
    guards = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE.read_text())
    assert len(guards) > 20
    absent = [f"{file}::{name}" for file, name in guards
              if not (TESTS / file).is_file() or f"\ndef {name}(" not in (TESTS / file).read_text()]
    assert absent == []


def test_every_section_has_a_guard():
    sections = re.split(r"\n##+ ", PAGE.read_text())[1:]
    bare = [section.splitlines()[0] for section in sections if "*Guarded by*" not in section]
    assert bare == []
