"""Inputs made by their structure: star tables, configurations, words of the command line. Whatever comes, it is read as it was
written or refused in one line."""

import contextlib
import io
import json
from dataclasses import asdict, fields

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryorecon.cli.main import main
from cryorecon.data import star_text
from cryorecon.data.files import read_records
from cryorecon.data.star_columns import read_blocks
from cryorecon.data.star_write import write_blocks
from cryorecon.errors import LONGEST, InputError, one_line
from cryorecon.training.config import RunConfig

bounded = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
LABELS = st.sampled_from(["rlnImageName", "rlnMicrographName", "rlnGroupName", "rlnTomoName"])
WORDS = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "Zs"], exclude_characters="\"'#"), max_size=12).filter(
    lambda word: word.strip() not in ("nan", "NaN")
)
NUMBERS = st.floats(-1e6, 1e6).map(lambda value: round(value, 6))
HOSTILE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=30),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@bounded
@given(st.dictionaries(LABELS, st.lists(WORDS, min_size=3, max_size=3), min_size=1), st.lists(NUMBERS, min_size=3, max_size=3))
def test_a_star_table_is_read_as_it_was_written(tmp_path, words, numbers):
    frame = pd.DataFrame({**words, "rlnDefocusU": numbers})
    write_blocks(tmp_path / "a.star", {"particles": frame})
    held = read_blocks(tmp_path / "a.star")["particles"]
    assert [*held] == [*frame]
    assert np.allclose(held["rlnDefocusU"].to_numpy(), numbers, atol=1e-6)
    for name, column in words.items():
        assert held[name].tolist() == [word or "None" for word in column]


@bounded
@given(
    st.lists(
        st.sampled_from(
            [
                "data_a",
                "data_",
                "loop_",
                "_a",
                "_b #2",
                "_c 1",
                "_d 'x y'",
                "1 2",
                "1",
                "'",
                '"',
                "#",
                "",
                "a b c",
                "nan",
                "_",
                "data_a loop_",
            ]
        )
        | st.text(max_size=10),
        max_size=12,
    )
)
def test_any_lines_are_a_star_or_none(lines):
    try:
        blocks = star_text.parse(line.replace("\n", " ") + "\n" for line in lines)
    except ValueError:
        pass
    else:
        assert all(isinstance(block, dict | pd.DataFrame) for block in blocks.values())


@bounded
@given(st.dictionaries(st.sampled_from([field.name for field in fields(RunConfig)]), HOSTILE, max_size=4))
def test_a_configuration_is_a_run_or_one_line(tmp_path, values):
    path = tmp_path / "config.yaml"
    table = asdict(RunConfig("p.star", zdim=1)) | values
    path.write_text(yaml.safe_dump({"run": table}), encoding="utf-8")
    try:
        config = RunConfig.from_yaml(path)
    except InputError as error:
        line = one_line(str(error))
        if str(path) not in line or not line.isprintable():
            raise
    else:
        assert {name: value for name, value in asdict(config).items() if value == value} == {
            name: value for name, value in table.items() if value == value
        }


OPTIONS = [
    ("eval_vol", "-z"),
    ("eval_vol", "--zfile"),
    ("eval_vol", "--epoch"),
    ("eval_vol", "-d"),
    ("select", "--cluster"),
    ("serve", "--port"),
    ("inspect", "--datadir"),
    ("analyze", "--epoch"),
    ("pc_traversal", "--epoch"),
    ("direct_traversal", "--anchors"),
    ("eval_fsc", "--mask"),
    ("parse_pose_star", "-D"),
    ("parse_ctf_star", "--kv"),
    ("downsample", "-D"),
    ("filter", "--ind"),
    ("train_vae", "--zdim"),
    ("train_nn", "--poses"),
    ("train_gan", "--background"),
    ("backproject", "--ctf"),
    ("preprocess", "--background"),
]


@pytest.mark.parametrize(("command", "option"), OPTIONS)
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.text(st.characters(exclude_characters="\0/"), min_size=1, max_size=20),
    value=st.text(max_size=20) | st.integers().map(str),
)
def test_words_of_the_command_line_are_taken_or_refused_in_one_line(tmp_path, monkeypatch, command, option, name, value):
    monkeypatch.chdir(tmp_path)
    err, out = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(out):
        try:
            code = main([command, name, option, value, "-o", "out.pkl"])
        except SystemExit as exit_:  # a name of -h
            code = exit_.code
    if code != 0:
        lines = err.getvalue().splitlines()
        assert (code, len(lines)) == (2, 1), lines
        assert lines[0].isprintable()


@bounded
@given(st.text(max_size=60))
def test_one_line_is_printable_whatever_it_is_told(text):
    assert one_line(text).isprintable()
    assert "\n" not in one_line(text)


def test_a_long_line_keeps_its_ends():
    line = one_line("x.mrc: expected a map, found " + "y" * 10**6 + "; copy it again")
    assert len(line) < LONGEST + 10
    assert line.startswith("x.mrc: expected")
    assert line.endswith("copy it again")


@bounded
@given(st.lists(HOSTILE | st.dictionaries(st.sampled_from(["epoch", "loss"]), HOSTILE), max_size=5))
def test_records_are_the_tables_among_the_lines(tmp_path, values):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    assert len(read_records(path)) == sum(isinstance(value, dict) for value in values)
