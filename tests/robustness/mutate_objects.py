"""Hostile versions of pickles and of checkpoints."""

import io
import pickle
import random
import struct
import zipfile
from collections.abc import Callable

import numpy as np
from mutate import Runs, cut, flip_bits, insert, integers, mutation
from mutate_arrays import archive_of, members


@mutation("pickle")
def pickle_calls(rng: random.Random, raw: bytes) -> bytes:
    """Opcodes that call: put before, into, or in place of the data, in every protocol."""
    bad = rng.choice(
        (
            b"cos\nsystem\n(S'touch owned'\ntR.",
            b"cbuiltins\neval\n(S'1'\ntR.",
            b"c__builtin__\nbytearray\n(I9000000000\ntR.",
            b"(S'touch owned'\nios\nsystem\n.",
            b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0btouch owned\x85R.",
            b"cnumpy\ncore\n.",
            b"ccollections\nOrderedDict\n(tR.",
            b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR.",
            b"c_codecs\nencode\n(S'x'\nS'idna'\ntR.",
            b"\x80\x02\x82\x01.",
            b"\x80\x02\x84\xff\xff\xff\x7f.",
            b"P0\n.",
            b"\x80\x04K\x01Q.",
            b"\x80\x05\x97.",
            b"\x80\x05N\x98.",
            pickle.dumps(Runs(), rng.randrange(6)),
            pickle.dumps((np.zeros(3), Runs()), rng.randrange(6)),
        )
    )
    return rng.choice((bad, bad + raw, raw + bad, raw[:-1] + bad))


@mutation("pickle")
def pickle_claims(rng: random.Random, raw: bytes) -> bytes:
    """Lengths, memo places and containers beyond all measure."""
    n = rng.choice((1 << 31, (1 << 32) - 1, 1 << 28, 1 << 20))
    return rng.choice(
        (
            lambda: b"\x80\x04Nr" + struct.pack("<I", n) + b".",
            lambda: b"\x80\x04\x8e" + struct.pack("<Q", n << 8) + b"abc.",
            lambda: b"\x80\x04B" + struct.pack("<I", n) + b"abc.",
            lambda: b"\x80\x05\x96" + struct.pack("<Q", n) + b"abc.",
            lambda: b"\x80\x04\x95" + struct.pack("<Q", n << 4) + b"K\x01.",
            lambda: b"\x80\x04X" + struct.pack("<I", n) + b"abc.",
            lambda: b"\x80\x04" + b"]" * 300_000 + b".",
            lambda: b"\x80\x04" + b"\x8f" * 3_000_000 + b".",
            lambda: b"(" * 3_000_000 + b".",
            lambda: b"\x80\x04" + b"]" + b"\x94]h\x00a" * 100_000 + b".",
            lambda: b"\x80\x02" + b"N\x85" * 200_000 + b".",
            lambda: b"I" + b"9" * 100_000 + b"\n.",
            lambda: b"L" + b"9" * 100_000 + b"L\n.",
            lambda: b"\x80\x02\x8b" + struct.pack("<i", -5) + b".",
            lambda: b"\x80\x02\x8b" + struct.pack("<i", 1 << 30) + b"abc.",
            lambda: b"p99999999999\n.",
            lambda: b"Np4294967295\n.",
            lambda: b"\x80\x04]\x94(" + b"h\x00" * 2000 + b"e\x94(" + b"h\x00" * 2000 + b"e.",
            lambda: pickle.dumps([[[[[[1]]]]]]),
            lambda: pickle.dumps({i: i for i in range(50_000)}),
            lambda: pickle.dumps([*range(200_000)]),
        )
    )()


@mutation("pickle")
def pickle_values(rng: random.Random, raw: bytes) -> bytes:
    value = rng.choice(
        (
            None,
            5,
            "text",
            b"bytes",
            [],
            {},
            (),
            [1, "a"],
            np.zeros((0,)),
            np.zeros((3, 3)),
            np.zeros((1, 3, 3)),
            np.array(["a"]),
            (np.eye(3)[None],),
            (np.eye(3)[None], np.full((1, 2), np.nan)),
            (np.eye(3)[None], np.zeros((1, 2)), 1),
            np.full((5, 9), np.inf),
            np.zeros((5, 9)),
            {1: 2},
            [[1], [2, 3]],
            np.arange(5)[::-1],
            np.array([0, 0]),
            np.array([-1]),
            np.array([10**18]),
            np.float32(3),
            (np.eye(3)[None], [0, 0]),
            np.ones((2, 3), ">i2"),
            (np.zeros(3), np.zeros(2)),
            np.zeros((4, 8)),
            [1.5, 2],
            [True, False],
            10**400,
            float("nan"),
            (None, None),
            np.full(12, 1e300),
            [10**30],
        )
    )
    return b"".join(pickle.dumps(value, rng.randrange(6)) for _ in range(rng.choice((1, 1, 2, 40))))


def _checkpoint(raw: bytes, change: Callable[[dict], None]) -> bytes:
    import torch

    try:
        held = torch.load(io.BytesIO(raw), weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, pickle.UnpicklingError):
        return raw
    change(held)
    out = io.BytesIO()
    torch.save(held, out)
    return out.getvalue()


@mutation("checkpoint")
def checkpoint_values(rng: random.Random, raw: bytes) -> bytes:
    """Numbers and tensors of another type, shape or size; parts absent; tensors that claim more than they store."""
    import torch

    bad = rng.choice(
        (
            None,
            -1,
            0,
            10**9,
            1 << 40,
            float("nan"),
            float("inf"),
            "x",
            [],
            {},
            torch.zeros(0),
            torch.zeros(3, 3),
            torch.full((12,), float("nan")),
            1e-30,
            True,
            3.5,
            torch.zeros(1).expand(100_000, 100_000),
            torch.zeros(1).as_strided((1 << 30,), (0,)),
            torch.zeros(4, dtype=torch.int8),
            4096,
            1 << 16,
        )
    )

    def change(held: dict) -> None:
        inside = rng.choice([held] * 2 + [value for value in held.values() if isinstance(value, dict) and value])
        name = rng.choice([*inside])
        if rng.random() < 0.2:
            del inside[name]
        else:
            inside[name] = bad

    return _checkpoint(raw, change)


@mutation("checkpoint")
def checkpoint_zip(rng: random.Random, raw: bytes) -> bytes:
    """Its archive packed anew: members compressed (a bomb), cut, or a pickle of ours in place of its own."""
    held = members(raw)
    if not held:
        return raw
    main = next((name for name in held if name.endswith("data.pkl")), "x/data.pkl")
    held.setdefault(main, b"")
    storages = [name for name in held if "/data/" in name] or [main]
    what = rng.randrange(7)
    if what == 0:
        held[rng.choice(storages)] = bytes(150_000_000)
    elif what == 1:
        held[main] = bytes(150_000_000)
    elif what == 2:
        name = rng.choice(storages)
        held[name] = held[name][: len(held[name]) // 2]
    elif what == 3:
        held[main] = rng.choice((pickle_calls, pickle_claims, pickle_values))(rng, held[main])
    elif what == 4:
        del held[rng.choice([*held])]
    elif what == 5:
        held[main] = rng.choice((flip_bits, integers, cut, insert))(rng, held[main])
    else:
        held["../../owned"] = b"x"
    return archive_of(held, rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED)) if what > 1 else zipfile.ZIP_DEFLATED)


@mutation("checkpoint")
def checkpoint_pickle(rng: random.Random, raw: bytes) -> bytes:
    """Storages of the older formats, and pickles that call."""
    return rng.choice(
        (
            lambda: pickle_calls(rng, raw),
            lambda: pickle_claims(rng, raw),
            lambda: pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + raw[:200],
        )
    )()
