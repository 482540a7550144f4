"""Hostile versions of a file's bytes, by the family of its format; each is a function of a random generator and the bytes."""

import gzip
import io
import os
import pickle
import random
import struct
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


class Runs:
    """Runs a command when unpickled."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch owned",)


def npy(array: np.ndarray, allow: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=allow)
    return file.getvalue()


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


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
            npz({"a": np.zeros(3)}),
            npy(np.zeros(3)),
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
