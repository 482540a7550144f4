"""Hostile versions of MRC files and of numpy's arrays and archives."""

import io
import random
import struct
import tokenize
import zipfile
import zlib

import numpy as np
from mutate import WORDS, Runs, cut, flip_bits, mutation, npy


@mutation("mrc")
def header_word(rng: random.Random, raw: bytes) -> bytes:
    """Extreme integers in any header word: sides, mode, extended header, axes, machine stamp."""
    out = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = 4 * (
            rng.choice((0, 1, 2, 3, 3, 7, 8, 10, 16, 17, 18, 23, 23, 52, 53)) if rng.random() < 0.7 else rng.randrange(256)
        )
        if len(out) >= at + 4:
            struct.pack_into(rng.choice("<<>") + "i", out, at, rng.choice(WORDS))
    return bytes(out)


@mutation("mrc")
def no_images(rng: random.Random, raw: bytes) -> bytes:
    shape = rng.choice(((0, 0, 0), (16, 16, 0), (1, 1, 1), (2, 2, 2), (1, 1, 1 << 20), (3, 3, 3), (16, 8, 4)))
    return struct.pack("<3i", *shape) + raw[12:]


@mutation("mrc")
def data_values(rng: random.Random, raw: bytes) -> bytes:
    data = np.frombuffer(raw[1024 : 1024 + (len(raw) - 1024) // 4 * 4], "<f4").copy()
    if len(data):
        data[rng.randrange(len(data)) :][: rng.choice((1, 100, 1 << 30))] = rng.choice(
            (np.nan, np.inf, -np.inf, 0, 3e38, -3e38, 1e-45)
        )
    return raw[:1024] + data.tobytes()


def _loaded(raw: bytes) -> np.ndarray | None:
    """The array of an ``.npy`` that is whole; None for others, which an earlier mutation may have left."""
    file = io.BytesIO(raw)
    try:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        return None if dtype.hasobject else np.ndarray(shape, dtype, raw, file.tell()).copy()
    except (
        ValueError,
        TypeError,
        EOFError,
        OverflowError,
        SyntaxError,
        tokenize.TokenError,
        RecursionError,
        MemoryError,
        LookupError,
        AttributeError,
    ):
        return None


def _header(text: str, data: bytes = b"", version: int = 1) -> bytes:
    raw = text.encode("latin1") + b"\n"
    return (
        b"\x93NUMPY"
        + bytes([version, 0])
        + struct.pack("<H" if version == 1 else "<I", len(raw) & (0xFFFF if version == 1 else 0xFFFFFFFF))
        + raw
        + data
    )


@mutation("npy")
def npy_header(rng: random.Random, raw: bytes) -> bytes:
    """Shapes and types that a header may claim, and words that are none."""
    end = raw.find(b"\n")
    data = raw[end + 1 :] if end > 0 else b""
    shape = rng.choice(
        (
            "(3,)",
            "()",
            "(0,)",
            "(1000000000000,)",
            "(1, 1, 1, 1, 1)",
            "(-3,)",
            "(4611686018427387904, 4)",
            "(3, 3.5)",
            "[3]",
            "'x'",
            "(True,)",
            "(1073741824,)",
            "(268435456, 8)",
            "(" + "1," * 70 + ")",
            "(10**9,)",
            "None",
            "(1000000000, 0)",
        )
    )
    descr = rng.choice(
        (
            "'<f8'",
            "'<f4'",
            "'|O'",
            "'<U1073741823'",
            "'<i8'",
            "'|S0'",
            "'|b1'",
            "'<M8[s]'",
            "'<c16'",
            "[('a', '<f8')]",
            "[('a', '|O')]",
            "'|V1000000000'",
            "[('blob/path', '|S8'), ('blob/idx', '<u4')]",
            "('<f8', (1000000, 1000000))",
            "'__import__'",
            "'<f16'",
            "'>f8'",
            "5",
            "[('a', '<f8', (100000, 100000))]",
            "'<f4,<f4'",
            "[]",
            "'|S1000000000'",
        )
    )
    more = rng.choice(
        ("", "", ", 'x': __import__('os').system('touch owned')", ", 'fortran_order': 2", "}" * 3, ", " + "[" * 5000)
    )
    return _header(
        "{'descr': "
        + descr
        + ", 'fortran_order': "
        + rng.choice(("False", "True", "0"))
        + ", 'shape': "
        + shape
        + more
        + ", }",
        data,
        rng.choice((1, 1, 2, 3)),
    )


@mutation("npy")
def npy_objects(rng: random.Random, raw: bytes) -> bytes:
    return npy(np.array([Runs(), 1], dtype=object), allow=True)


@mutation("npy", "npz")
def npy_other(rng: random.Random, raw: bytes) -> bytes:
    return npy(
        rng.choice(
            (
                np.zeros(()),
                np.zeros((0, 3)),
                np.full((4, 4), np.nan),
                np.array(["a", "b"]),
                np.arange(5),
                np.zeros((2, 2, 2, 2)),
                np.zeros(3, "c16"),
                np.array([True, False]),
                np.array([2**63], "u8"),
                np.array([1e300, -1e300]),
                np.zeros(2, [("a", "f8"), ("b", "S3")]),
                np.array(["2020-01-01"], "M8[D]"),
                np.array([-5, 3]),
                np.arange(12.0) * 1e18,
                np.full(12, np.inf),
            )
        )
    )


@mutation("npy")
def npy_values(rng: random.Random, raw: bytes) -> bytes:
    array = _loaded(raw)
    if array is None:
        return raw
    try:
        flat = array.reshape(-1)
        if array.dtype.names:
            name = rng.choice(array.dtype.names)
            flat = array[name].reshape(-1)
        if flat.dtype.kind in "fiu":
            values = (
                (np.nan, np.inf, -1e30, 0, 1e300)
                if flat.dtype.kind == "f"
                else (0, 1, np.iinfo(flat.dtype).max, np.iinfo(flat.dtype).min)
            )
            with np.errstate(all="ignore"):
                flat[rng.randrange(len(flat)) :][: rng.choice((1, 1 << 40))] = rng.choice(values)
        else:
            flat[:] = rng.choice((b"\x1b[2J", b"../../../../etc/passwd", b"", b">" * 9, b"/dev/zero", b"\xff\xfe"))
    except (ValueError, TypeError, IndexError):  # nothing in it, or no such value
        return raw
    return npy(array)


@mutation("npy")
def npy_fields(rng: random.Random, raw: bytes) -> bytes:
    """A table's fields dropped, renamed, or of another type."""
    array = _loaded(raw)
    if array is None:
        return raw
    if not array.dtype.names or not array.ndim:
        return npy(array.reshape(-1)[: rng.randrange(array.size + 1)])
    names = [*array.dtype.names]
    dropped = set(rng.sample(names, rng.choice((1, 1, 3, len(names)))))
    kind = rng.choice(("f4", "S4", "U2", "i8", "(2,)f4", "(3,3)f4", "c8", "M8[s]", "b1", None))
    parts = [(n, kind) if n in dropped else (n, array.dtype[n]) for n in names if kind or n not in dropped]
    table = np.zeros(len(array), parts)
    for name in set(names) - dropped:
        table[name] = array[name]
    return npy(table)


def members(raw: bytes) -> dict[str, bytes]:
    """Names and contents of an archive, but for very large ones; nothing where it is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            return {info.filename: archive.read(info) for info in archive.infolist() if info.file_size < 1 << 24}
    except (zipfile.BadZipFile, NotImplementedError, OSError, EOFError, ValueError, RuntimeError, zlib.error):
        return {}


def archive_of(held: dict[str, bytes], packed: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packed) as archive:
        for name, data in held.items():
            archive.writestr(name, data)
    return out.getvalue()


@mutation("npz")
def npz_members(rng: random.Random, raw: bytes) -> bytes:
    """Members replaced by hostile arrays, dropped, or renamed to lead out of the folder."""
    held = members(raw)
    if not held:
        return raw
    name = rng.choice([*held])
    member = held.pop(name)
    what = rng.randrange(6)
    if what < 3:
        kind = rng.choice((npy_header, npy_objects, npy_other, npy_values, flip_bits, cut))
        held[name] = kind(rng, member)
    elif what == 3:
        held[rng.choice(("../../owned.npy", "/owned.npy", "a\x1b[2J.npy", "x" * 5000, "a\n.npy"))] = member
    elif what == 4:
        held |= {
            name: npy(
                rng.choice(
                    (
                        np.array("x"),
                        np.array(1e300),
                        np.zeros((0, 0)),
                        np.array([[["x"]]]),
                        np.arange(99999),
                        np.full((1, 1), np.nan),
                    )
                )
            )
        }
    return archive_of(held, zipfile.ZIP_DEFLATED)


@mutation("npz")
def npz_bomb(rng: random.Random, raw: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in rng.sample(("xyz", "atom", "ca", "state", "coordinate", "rotation", "shift", "scale"), 4):
            with archive.open(f"{name}.npy", "w") as file:
                file.write(_header("{'descr': '<f8', 'fortran_order': False, 'shape': (25000000,), }"))
                for _ in range(200):
                    file.write(bytes(1_000_000))
    return out.getvalue()
