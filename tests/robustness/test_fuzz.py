"""A bounded sample of the fuzzer, and proof that it would catch what it looks for.

The whole is ``make robustness``. Every planted defect below is a reader as somebody might write it, on a file that harms it.
"""

import contextlib
import os
import pickle
import socket
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from cryorecon.errors import InputError

sys.path.insert(0, str(Path(__file__).parent))
import fuzz
import guard
import mutate_arrays
import readers

SAMPLE = 2  # cases of each reader


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    readers.make_seeds(folder)
    yield folder
    tracemalloc.stop()


@pytest.mark.parametrize("reader", readers.READERS, ids=lambda reader: reader.name)
def test_a_sample_of_hostile_files(reader, seeds, tmp_path):
    assert fuzz.warm_up([reader], seeds, tmp_path) == [], "true files are read"
    cases = [fuzz.run_case(reader, 977 * i, seeds, tmp_path) for i in range(SAMPLE)]
    assert [f"{one.replay}: {one.outcome}" for one in cases if one.outcome.verdict in guard.BAD] == []


def test_a_case_is_the_same_whenever_it_is_played(seeds, tmp_path):
    reader = readers.READERS[0]
    first, again = (fuzz.run_case(reader, 31, seeds, tmp_path / name) for name in ("a", "a"))
    assert (first.mutations, first.seed, first.outcome.verdict) == (again.mutations, again.seed, again.outcome.verdict)
    assert "--reader 'mrc header' --case 31" in first.replay


def test_every_reader_has_mutations_of_its_format_and_of_places():
    for reader in readers.READERS:
        names = fuzz.mutations_of(reader)
        assert len(names) == len(set(names)) > 4
        assert set(fuzz.PLACES) < set(names)


class Runs:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def unpickles(path):
    pickle.loads(path.read_bytes())


def numpy_unpickles(path):
    np.load(path, allow_pickle=True)


def looks_up(path):
    {"a": 1}[path.read_text()]


def believes_the_header(path):
    np.zeros(struct.unpack("<q", path.read_bytes()[:8])[0], np.uint8)


def fills_what_the_header_claims(path):
    np.ones(struct.unpack("<q", path.read_bytes()[:8])[0] // 4, np.uint8)


def waits(path):
    while True:
        with contextlib.suppress(Exception):  # that is the defect
            sum(range(1000))


def opens_a_pipe(path):
    path.with_name("pipe").read_bytes()


def writes_beside(path):
    (path.parents[1] / "elsewhere").write_text("x")


def follows_a_name(path):
    (path.parent / path.read_text()).write_text("x")


def removes_beside(path):
    (path.parents[1] / "precious").unlink()


def calls(path):
    subprocess.run(["true"], check=True)


def telephones(path):
    with socket.socket() as one:
        one.settimeout(0.1)
        one.connect(("127.0.0.1", 9))


def evaluates(path):
    exec(compile(path.read_text(), "a file", "exec"))


def two_words(path):
    raise InputError("bad file")


def names_nothing(path):
    raise InputError("expected a file, found another")


def no_filename(path):
    raise OSError("something went wrong")


def exits(path):
    sys.exit(3)


BIG = struct.pack("<q", 1 << 30)


@pytest.mark.parametrize(("read", "raw", "verdict"), [
    (unpickles, pickle.dumps(Runs("true")), "escape"), (unpickles, b"not a pickle", "traceback"),
    (looks_up, b"b", "traceback"), (looks_up, b"a", "read"),
    (believes_the_header, BIG, "memory"), (fills_what_the_header_claims, BIG, "memory"),
    (believes_the_header, struct.pack("<q", 9), "read"),
    (waits, b"", "hang"), (opens_a_pipe, b"", "hang"),
    (writes_beside, b"", "escape"), (follows_a_name, b"../elsewhere", "escape"), (follows_a_name, b"here", "read"),
    (removes_beside, b"", "escape"),
    (calls, b"", "escape"), (telephones, b"", "escape"), (evaluates, b"1 + 1", "escape"),
    (two_words, b"", "line"), (names_nothing, b"", "line"), (no_filename, b"", "traceback"), (exits, b"", "traceback"),
])  # fmt: skip
def test_planted_defects_are_caught(tmp_path, read, raw, verdict):
    folder = tmp_path / "case"
    folder.mkdir()
    (tmp_path / "precious").write_text("x")
    os.mkfifo(folder / "pipe")
    (folder / "file").write_bytes(raw)
    outcome = guard.watch(lambda: read(folder / "file"), folder, len(raw), seconds=0.5 if verdict == "hang" else 20)
    assert outcome.verdict == verdict, outcome
    tracemalloc.stop()


def test_an_array_of_objects_is_caught_where_a_reader_unpickles_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # it touches a file
    path = tmp_path / "a.npy"
    path.write_bytes(mutate_arrays.npy_objects(None, b""))
    assert guard.watch(lambda: numpy_unpickles(path), tmp_path, 100).verdict == "escape"
    tracemalloc.stop()


def test_a_good_refusal_is_one_printable_line(tmp_path):
    def read():
        raise InputError(f"{tmp_path}/a\x1b[2J.mrc: expected a map,\n found \x07 nothing")

    outcome = guard.watch(read, tmp_path, 0)
    assert outcome.verdict == "refused"
    assert outcome.said.isprintable()
    assert "\\x1b[2J" in outcome.said
    tracemalloc.stop()
