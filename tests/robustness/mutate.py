"""Hostile versions of a file's bytes, by the family of its format; each is a function of a random generator and the bytes."""

import gzip
import io
import json
import os
import pickle
import random
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

Mutation = Callable[[random.Random, bytes], bytes]
FAMILIES: dict[str, dict[str, Mutation]] = {}

WORDS = (0, 1, -1, 2, 3, 4, 13, 255, 1 << 15, 1 << 16, 1 << 20, 1 << 24, (1 << 31) - 1, -(1 << 31), 1 << 30)
LONGS = (0, 1, 1 << 31, 1 << 32, 1 << 40, 1 << 62, (1 << 63) - 1, (1 << 64) - 1)
TOKENS = (
    b"nan",
    b"-nan",
    b"inf",
    b"-1",
    b"0",
    b"1e999",
    b"-1e308",
    b"9" * 400,
    b"9" * 5000,
    b"1e-320",
    b"",
    b"None",
    b"<NA>",
    b"true",
    b"\x00",
    b"\x1b[2J\x1b]0;owned\x07",
    b"\xff\xfe",
    "\u202egnp".encode(),
    b"a" * 70000,
    b"'",
    b'"',
    b"'\"",
    b"#",
    b"\\",
    b"@",
    b"999999999@x.mrcs",
    b"0@x.mrcs",
    b"-3@x.mrcs",
    b"1e9@x",
    b"nan@x",
    b"../../../../etc/passwd",
    b"/etc/passwd",
    b"/dev/zero",
    b"1@/dev/zero",
    b"1@/proc/self/mem",
    b"<script>alert(1)</script>",
    b"$(touch owned)",
    b"`touch owned`",
    b"; touch owned",
    b"!!python/object/apply:os.system ['touch owned']",
    b"[[[[[[",
    b"{",
    b"%s%s%n",
    b"1_000",
    "\u0661\u0662".encode(),
    b"0x10",
)


def mutation(*families: str) -> Callable[[Mutation], Mutation]:
    """Enter a function under its name in these families."""

    def enter(function: Mutation) -> Mutation:
        for family in families:
            FAMILIES.setdefault(family, {})[function.__name__] = function
        return function

    return enter


def _place(rng: random.Random, raw: bytes, most: int = 1 << 62) -> int:
    return rng.randrange(max(1, min(len(raw), most)))


@mutation("bytes")
def flip_bits(rng: random.Random, raw: bytes) -> bytes:
    out = bytearray(raw)
    head = rng.choice((64, 1024, 1 << 62))
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        if out:
            out[_place(rng, out, head)] ^= 1 << rng.randrange(8)
    return bytes(out)


@mutation("bytes")
def run_of_bytes(rng: random.Random, raw: bytes) -> bytes:
    at, n = _place(rng, raw), rng.choice((1, 4, 16, 300, 4096))
    fill = rng.choice((b"\0", b"\xff", b"\x7f", b"0", b"\n", b" "))
    return raw[:at] + fill * n + raw[at + n :]


@mutation("bytes")
def cut(rng: random.Random, raw: bytes) -> bytes:
    return raw[: rng.choice((_place(rng, raw), _place(rng, raw, 64), max(0, len(raw) - 1 - rng.randrange(40))))]


@mutation("bytes")
def insert(rng: random.Random, raw: bytes) -> bytes:
    at = _place(rng, raw)
    return raw[:at] + rng.randbytes(rng.choice((1, 3, 8, 200))) + raw[at:]


@mutation("bytes")
def remove(rng: random.Random, raw: bytes) -> bytes:
    at = _place(rng, raw)
    return raw[:at] + raw[at + rng.choice((1, 2, 7, 100)) :]


@mutation("bytes")
def double(rng: random.Random, raw: bytes) -> bytes:
    a, b = sorted((_place(rng, raw), _place(rng, raw)))
    return raw[:b] + raw[a:b] * rng.choice((1, 3)) + raw[b:]


@mutation("bytes")
def integers(rng: random.Random, raw: bytes) -> bytes:
    out = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if len(out) >= 8:
            value, form = rng.choice(((rng.choice(WORDS) & 0xFFFFFFFF, "I"), (rng.choice(LONGS), "Q")))
            size = struct.calcsize(form)
            at = _place(rng, out, rng.choice((64, 300, 1 << 62))) // 2 * 2
            struct.pack_into(rng.choice("<>") + form, out, min(at, len(out) - size), value)
    return bytes(out)


@mutation("bytes")
def other_byte_order(rng: random.Random, raw: bytes) -> bytes:
    n, width = len(raw) // 8 * 8, rng.choice(("u2", "u4", "u8"))
    start = rng.choice((0, 0, 16))
    return raw[:start] + np.frombuffer(raw[start : start + n - 16 * (start > 0)], width).byteswap().tobytes() + raw[n:]


@mutation("bytes")
def floats(rng: random.Random, raw: bytes) -> bytes:
    out = bytearray(raw)
    for _ in range(rng.choice((1, 3, 30))):
        if len(out) >= 8:
            at = _place(rng, out) // 4 * 4
            form = rng.choice("fd")
            value = rng.choice((float("nan"), float("inf"), -float("inf"), 3e38, -1.0, 0.0, 1e-42))
            struct.pack_into("<" + form, out, min(at, len(out) - 8), value)
    return bytes(out)


@mutation("bytes")
def nothing_left(rng: random.Random, raw: bytes) -> bytes:
    return rng.choice(
        (b"", b"\0", b"\n", b"\0" * 5000, rng.randbytes(3000), b"\x1f\x8b", b"PK\x03\x04", b"\x93NUMPY", b"\x80\x04.")
    )


@mutation("bytes")
def another_kind(rng: random.Random, raw: bytes) -> bytes:
    return rng.choice(
        (
            _npz({"a": np.zeros(3)}),
            _npy(np.zeros(3)),
            pickle.dumps([1]),
            b"data_\nloop_\n_a\n1\n",
            b"{}",
            b"<html>",
            gzip.compress(raw),
            b"MAP " * 300,
            np.array(7).tobytes(),
            raw[::-1],
        )
    )


@mutation("gzip")
def zip_bomb(rng: random.Random, raw: bytes) -> bytes:
    """A few hundred kB that unpack to some hundred MB, after the true beginning."""
    try:
        head = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error):
        head = raw
    if rng.random() < 0.5 and len(head) > 16:  # a header that claims it all
        head = struct.pack("<4i", 512, 512, 400, 2) + head[16:1024]
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    out = packer.compress(head)
    block = rng.choice((b"\0", b"1 ", b"\n", b"a")) * (1 << 20)
    for _ in range(150):
        out += packer.compress(block)
    return out + packer.flush()


@mutation("gzip")
def repacked(rng: random.Random, raw: bytes) -> bytes:
    try:
        plain = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error):
        plain = raw
    return gzip.compress(rng.choice([*FAMILIES["bytes"].values()])(rng, plain), 1, mtime=0)


@mutation("gzip")
def false_length(rng: random.Random, raw: bytes) -> bytes:
    return raw[:-4] + struct.pack("<I", rng.choice((0, 1 << 31, (1 << 32) - 1, 1 << 28)))


@mutation("text")
def tokens(rng: random.Random, raw: bytes) -> bytes:
    found = [*re.finditer(rb"[^\s,:\[\]{}()]+", raw)]
    for match in sorted(rng.sample(found, min(len(found), rng.choice((1, 1, 2, 10)))), key=lambda m: -m.start()):
        raw = raw[: match.start()] + rng.choice(TOKENS) + raw[match.end() :]
    return raw


@mutation("text")
def lines(rng: random.Random, raw: bytes) -> bytes:
    held = raw.split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(held))
        what = rng.randrange(5)
        if what == 0:
            held.insert(at, held[rng.randrange(len(held))])
        elif what == 1 and len(held) > 1:
            del held[at]
        elif what == 2:
            other = rng.randrange(len(held))
            held[at], held[other] = held[other], held[at]
        elif what == 3:
            held[at] = held[at][::-1]
        else:
            held[at] += b" " + rng.choice(TOKENS)
    return b"\n".join(held)


@mutation("text")
def line_ends(rng: random.Random, raw: bytes) -> bytes:
    return raw.replace(
        b"\n", rng.choice((b"\r", b"\r\n", b"\x0b", b"\x0c", b"\x1c", "\u2028".encode(), b"\x85", b"\n\n", b" ", b"\0\n"))
    )


@mutation("text")
def encodings(rng: random.Random, raw: bytes) -> bytes:
    cookie = rng.choice(
        (b"utf-7", b"zlib", b"rot13", b"undefined", b"idna", b"unicode_escape", b"base64", b"utf-16", b"no-such")
    )
    return rng.choice(
        (
            b"# -*- coding: " + cookie + b" -*-\n" + raw,
            b"\xef\xbb\xbf" + raw,
            b"\xff\xfe" + raw,
            raw.decode("latin1").encode("utf-16"),
            raw + b"\xff\xff",
            raw.replace(b"a", b"\xc3"),
        )
    )


@mutation("text")
def nested(rng: random.Random, raw: bytes) -> bytes:
    open_, shut = rng.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"(", b")"), (b"{a: ", b"}"), (b"- ", b"")))
    n = rng.choice((100, 3000, 100_000))
    deep = open_ * n + b"1" + shut * n
    found = [*re.finditer(rb"[^\s,]+", raw)]
    if not found or rng.random() < 0.5:
        return deep
    match = rng.choice(found)
    return raw[: match.start()] + deep + raw[match.end() :]


@mutation("text")
def long_lines(rng: random.Random, raw: bytes) -> bytes:
    return raw + rng.choice((b"x", b" ", b"1 ", b"'", b"_a ", b"data_", b"\t", b"[],", b"1,")) * rng.choice((10_000, 1_000_000))


def _star_columns(raw: bytes) -> list[re.Match]:
    return [*re.finditer(rb"(?m)^_(\S+)[^\n]*\n", raw)]


@mutation("star")
def labels(rng: random.Random, raw: bytes) -> bytes:
    """A label removed, repeated, swapped with another or renamed."""
    found = _star_columns(raw)
    if not found:
        return raw
    one, other = rng.choice(found), rng.choice(found)
    what = rng.randrange(4)
    if what == 0:
        return raw[: one.start()] + raw[one.end() :]
    if what == 1:
        return raw[: one.start()] + other.group() + raw[one.start() :]
    if what == 2:
        return raw[: one.start()] + other.group() + raw[one.end() :]
    name = rng.choice(
        (
            b"rlnTomoVisibleFrames",
            b"rlnTomoParticleName",
            b"rlnOpticsGroup",
            b"rlnImageSize",
            b"rlnDefocusU",
            b"rlnRandomSubset",
            b"rlnGroupName",
            b"rlnTomoParticlesFile",
            b"rlnImageDimensionality",
            b"rlnCtfDataAreCtfPremultiplied",
            b"rlnPixelSize",
            b"rlnDetectorPixelSize",
            b"cryoreconProteinIsWhite",
            b"",
            b"__class__",
            b"\x1b[31m",
            b"<b>",
            b"0",
            b"name",
            b"index",
        )
    )
    return raw[: one.start()] + b"_" + name + b" #1\n" + raw[one.end() :]


@mutation("star")
def cells(rng: random.Random, raw: bytes) -> bytes:
    """One column of rows gets hostile values."""
    value, column = rng.choice(TOKENS), rng.randrange(30)
    share = rng.choice((0.1, 1.0))
    out = []
    for line in raw.split(b"\n"):
        words = line.split()
        chosen = len(words) > 2 and not line.startswith((b"_", b"data", b"loop", b"#")) and rng.random() < share
        if chosen:
            words[column % len(words)] = value
        out.append(b" ".join(words) if chosen else line)
    return b"\n".join(out)


@mutation("star")
def blocks(rng: random.Random, raw: bytes) -> bytes:
    return rng.choice(
        (
            lambda: raw.replace(
                b"data_", rng.choice((b"dat_", b"data_optics\n\ndata_", b"DATA_", b"save_", b"data_a\ndata_b\ndata_"))
            ),
            lambda: raw.replace(b"loop_", rng.choice((b"", b"loop_\nloop_", b"LOOP_", b"loop_\n\n"))),
            lambda: raw + raw,
            lambda: b"data_\n",
            lambda: b"data_particles\n\nloop_\n",
            lambda: b"data_particles\n\nloop_\n_rlnImageName #1\n",
            lambda: b"data_x\n_a",
            lambda: b"data_x\n_a 'b\n",
            lambda: raw.rstrip() + b"\ndata_",
            lambda: b"data_x\n" + b"_rlnTomoParticlesFile ../../x.star\n_rlnTomoTomogramsFile /etc/passwd\n",
            lambda: raw.replace(b"\n", b"\n#", 3),
        )
    )()


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


def _npy(array: np.ndarray, allow: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=allow)
    return file.getvalue()


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


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


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


class _Runs:
    """Runs a command when unpickled."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch owned",)


@mutation("npy")
def npy_objects(rng: random.Random, raw: bytes) -> bytes:
    return _npy(np.array([_Runs(), 1], dtype=object), allow=True)


@mutation("npy", "npz")
def npy_other(rng: random.Random, raw: bytes) -> bytes:
    return _npy(
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
    return _npy(array)


@mutation("npy")
def npy_fields(rng: random.Random, raw: bytes) -> bytes:
    """A table's fields dropped, renamed, or of another type."""
    array = _loaded(raw)
    if array is None:
        return raw
    if not array.dtype.names or not array.ndim:
        return _npy(array.reshape(-1)[: rng.randrange(array.size + 1)])
    names = [*array.dtype.names]
    dropped = set(rng.sample(names, rng.choice((1, 1, 3, len(names)))))
    kind = rng.choice(("f4", "S4", "U2", "i8", "(2,)f4", "(3,3)f4", "c8", "M8[s]", "b1", None))
    parts = [(n, kind) if n in dropped else (n, array.dtype[n]) for n in names if kind or n not in dropped]
    table = np.zeros(len(array), parts)
    for name in set(names) - dropped:
        table[name] = array[name]
    return _npy(table)


def _members(raw: bytes) -> dict[str, bytes]:
    """Names and contents of an archive, but for very large ones; nothing where it is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            return {info.filename: archive.read(info) for info in archive.infolist() if info.file_size < 1 << 24}
    except (zipfile.BadZipFile, NotImplementedError, OSError, EOFError, ValueError, RuntimeError, zlib.error):
        return {}


def _archive(held: dict[str, bytes], packed: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packed) as archive:
        for name, data in held.items():
            archive.writestr(name, data)
    return out.getvalue()


@mutation("npz")
def npz_members(rng: random.Random, raw: bytes) -> bytes:
    """Members replaced by hostile arrays, dropped, or renamed to lead out of the folder."""
    held = _members(raw)
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
            name: _npy(
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
    return _archive(held, zipfile.ZIP_DEFLATED)


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
            pickle.dumps(_Runs(), rng.randrange(6)),
            pickle.dumps((np.zeros(3), _Runs()), rng.randrange(6)),
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


@mutation("yaml")
def yaml_bombs(rng: random.Random, raw: bytes) -> bytes:
    names = [f"a{i}" for i in range(rng.choice((9, 30)))]
    aliases = "".join(
        f"{n}: &{n} [{', '.join([f'*{m}'] * 9) if i else 'x'}]\n"
        for i, (m, n) in enumerate(zip(["", *names], names, strict=False))
    )
    merges = "".join(
        f"{n}: &{n} {{{'<<: [' + ', '.join([f'*{m}'] * 9) + ']' if i else 'x: 1'}}}\n"
        for i, (m, n) in enumerate(zip(["", *names], names, strict=False))
    )
    return rng.choice(
        (
            aliases.encode() + raw,
            merges.encode() + raw,
            raw + b"loop: &x [*x]\n",
            b"run: &x\n  particles: *x\n",
            b"&a *a\n",
            b"run: {" + b"a: {" * 2000,
            b"run: [" + b"1," * 200_000 + b"]",
            b"--- " * 5000,
            raw + b"---\n" + raw,
        )
    )


@mutation("yaml")
def yaml_tags(rng: random.Random, raw: bytes) -> bytes:
    tag = rng.choice(
        (
            b"!!python/object/apply:os.system ['touch owned']",
            b"!!python/name:os.system",
            b"!!binary '*'",
            b"!!timestamp 2001-99-99",
            b"2001-13-45",
            b"!!set {a}",
            b"!!omap [a]",
            b"!!float x",
            b"!!int x",
            b"!!bool x",
            b"!!null x",
            b"!foo bar",
            b"!!int " + b"9" * 5000,
            b"9" * 5000,
            b"0x" + b"f" * 50,
            b"1:2:3:99",
            b"!!python/object/new:type {args: [x], listitems: 1}",
            b".inf",
            b"-.nan",
            b"? [1, 2]\n  : 3",
            b"2001-12-14t21:59:43.10-05:00",
            b"~",
            b"yes",
            b"'a\\x1b[2J'",
        )
    )
    found = [*re.finditer(rb"(?m)^  (\w+): (.*)$", raw)]
    if not found:
        return tag
    match = rng.choice(found)
    return raw[: match.start(2)] + tag + raw[match.end(2) :]


@mutation("yaml")
def yaml_values(rng: random.Random, raw: bytes) -> bytes:
    """A field of another type or of an absurd value."""
    found = [*re.finditer(rb"(?m)^  (\w+): (.*)$", raw)]
    for match in sorted(rng.sample(found, min(len(found), rng.choice((1, 1, 1, 3)))), key=lambda m: -m.start()):
        value = rng.choice(
            (
                b"-1",
                b"0",
                b"1",
                b"2",
                b"1e9",
                b"100000000",
                b"3.5",
                b"'text'",
                b"[1, 2]",
                b"{a: 1}",
                b"null",
                b"true",
                b"-.inf",
                b".nan",
                b"1000000000000000000000",
                b"'../../../etc/passwd'",
                b'"a\\n\\e[2J"',
                b'"\\0"',
                b"''",
                b'"<script>alert(1)</script>"',
                b"2001-01-01",
                b"posterior",
                b"mlp",
                b"voxels",
                b"archetypes",
            )
        )
        raw = raw[: match.start(2)] + value + raw[match.end(2) :]
    return raw


@mutation("json")
def json_values(rng: random.Random, raw: bytes) -> bytes:
    """Every place of the first line's or the whole text's value may become another."""
    first, _, rest = raw.partition(b"\n")
    whole = rng.random() < 0.5
    try:
        value = json.loads(raw if whole else first)
    except ValueError:
        return raw
    bad = rng.choice(
        (
            None,
            [],
            {},
            "",
            "x",
            "../../../../etc",
            "a\x1b[2J",
            -1,
            10**400,
            1e308,
            True,
            [[1]],
            [None],
            {"a": {}},
            "NaN",
            ["x"],
            float("nan"),
            float("inf"),
            "\0",
            1.5,
        )
    )
    if isinstance(value, dict) and value and rng.random() < 0.85:
        value[rng.choice([*value])] = bad
    elif isinstance(value, list) and value:
        value[rng.randrange(len(value))] = bad
    else:
        value = bad
    return json.dumps(value).encode() + (b"" if whole else b"\n" + rest)


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
    held = _members(raw)
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
    return _archive(held, rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED)) if what > 1 else zipfile.ZIP_DEFLATED)


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


def not_a_file(rng: random.Random, path: Path) -> Path:
    """Something else takes the file's place: a folder, a pipe, a device, a link to nowhere, to itself, or out of the folder."""
    path.unlink(missing_ok=True)
    what = rng.randrange(7)
    if what == 0:
        path.mkdir()
    elif what == 1:
        os.mkfifo(path)
    elif what == 6:
        path.symlink_to("/etc/passwd")
    elif what != 2:
        path.symlink_to({3: path.name, 4: "/dev/zero", 5: "/dev/full"}[what])
    return path


def hostile_name(rng: random.Random, path: Path) -> Path:
    """The same file under a name that a terminal, a page or a script might take for more than a name."""
    stem = rng.choice(
        (
            "a\nb",
            "\x1b[2Ja",
            "a;touch owned",
            "$(touch owned)",
            "a'b",
            'a"b',
            "<script>alert(1)</script>".replace("/", "\u2044"),
            "\u202ea",
            "a b",
            "-rf",
            "%s",
            "\udcff",
            "*",
            "a\tb",
            "#",
            "x" * 200,
        )
    )
    whole = path.name
    other = path.with_name(stem + whole[whole.find(".") :] if "." in whole else stem)
    path.rename(other)
    return other
