"""Hostile versions of text, star, YAML and JSON files."""

import json
import random
import re

from mutate import TOKENS, mutation


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
