"""The restricted unpickler: arrays of every protocol come through, nothing else does, nothing is ever called."""

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from cryorecon.data.safe_pickle import dump_pickles, load_pickles
from cryorecon.errors import InputError

VALUES = [
    np.arange(6.0).reshape(2, 3),
    np.arange(6).reshape(2, 3).T,
    np.ones((2, 2), ">f4"),
    np.zeros((0, 3)),
    np.array([True, False]),
    np.float32(1.5),
    (np.ones(3, "f2"), np.zeros((2, 2), "u1")),
    [1, 2, 3],
    {"a": np.arange(2), "b": (1, "text", None)},
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1),
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_arrays_of_every_protocol(tmp_path, value, protocol):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    np.testing.assert_equal(load_pickles(path)[0], value)


@pytest.mark.parametrize("home", ["numpy.core", "numpy._core"])
def test_pickles_of_older_and_newer_numpy(tmp_path, home):
    raw = pickle.dumps(np.arange(3), 0)
    path = tmp_path / "a.pkl"
    path.write_bytes(raw.replace(b"numpy._core", home.encode()).replace(b"numpy.core", home.encode()))
    assert load_pickles(path)[0].tolist() == [0, 1, 2]


class Attack:
    """Runs a command when unpickled."""

    def __init__(self, call, *args):
        self.what = (call, args)

    def __reduce__(self):
        return self.what


def owned(path):
    return Attack(os.system, f"touch {path}")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: x,
        lambda x: (np.ones(3), x),
        lambda x: [[x]],
        lambda x: {"a": x},
        lambda x: np.array([x, 1], dtype=object),
        lambda x: OrderedDict(a=x),
    ],
    ids=["bare", "tuple", "list", "dict", "object array", "class"],
)
def test_a_pickle_that_runs_commands_is_refused_and_does_not_run(tmp_path, wrap, protocol):
    path, flag = tmp_path / "a.pkl", tmp_path / "owned"
    path.write_bytes(pickle.dumps(wrap(owned(flag)), protocol))
    with pytest.raises(InputError, match="expected a pickle of arrays, found"):
        load_pickles(path)
    assert not flag.exists()


def test_builtins_and_gadgets_are_refused(tmp_path):
    flag = tmp_path / "owned"
    for call, args in (
        (eval, (f"open({str(flag)!r}, 'w')",)),
        (exec, ("1",)),
        (getattr, (1, "real")),
        (Path.touch, (flag,)),
        (np.load, ("x",)),
        (np.ndarray, ((3,),)),
        (np.dtype, ("O",)),
        (np.frombuffer, (b"1234",)),
    ):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(Attack(call, *args)))
        with pytest.raises(InputError):
            load_pickles(tmp_path / "a.pkl")
    assert not flag.exists()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"not a pickle",
        pickle.dumps(np.arange(100))[:-60],
        pickle.dumps({1, 2}),
        pickle.dumps(torch.ones(2)),
        b"cnumpy\ndtype\n(S'O8'\nI00\nI01\ntR.",  # an object dtype
        b"cnumpy\ndtype\n}S'x'\nI1\nsb.",  # a state for one of our stand-ins
        b"cnumpy\nndarray\n((I3\nttR.",  # a call of ndarray
        b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.",  # another codec
        b"\x80\x04\x8c\x08os.\x94.",
    ],
    ids=range(10),
)
def test_broken_or_crafted_files_give_one_line(tmp_path, raw):
    path = tmp_path / "a.pkl"
    path.write_bytes(raw)
    with pytest.raises(InputError, match="expected a pickle of arrays"):
        load_pickles(path)


def test_an_array_whose_bytes_do_not_fill_its_shape_is_refused(tmp_path):
    raw = pickle.dumps(np.arange(4, dtype="u1"), 0)
    bad = raw.replace(b"(I4\ntp", b"(I4000000\ntp", 1)
    assert bad != raw
    (tmp_path / "a.pkl").write_bytes(bad)
    with pytest.raises(InputError, match="4 bytes for an array of 4000000"):
        load_pickles(tmp_path / "a.pkl")


def test_endlessly_repeated_lists_are_refused(tmp_path):
    value = [0]
    for _ in range(60):
        value = [value, value]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(value))
    with pytest.raises(InputError, match="nested too deeply"):
        load_pickles(tmp_path / "a.pkl")


def test_consecutive_pickles(tmp_path):
    dump_pickles(tmp_path / "z.pkl", np.arange(3), np.ones(2))
    first, second = load_pickles(tmp_path / "z.pkl")
    assert first.tolist() == [0, 1, 2]
    assert second.tolist() == [1, 1]
