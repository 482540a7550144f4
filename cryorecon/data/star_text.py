"""The text of star files: blocks of loops and of single values, read as the lines stream by.

RELION's dialect of STAR (Hall 1991): ``data_name`` begins a block; ``loop_`` and labels begin rows, one a line, words between
blanks, quoted where they hold some, ``#`` begins a comment; without ``loop_`` each line is a label and its value.
"""

import io
import re
import shlex
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

MOST = 10_000  # blocks, and labels of a block: no project has as many, and each costs memory
LONGEST = 1 << 14  # characters of a label and its value: shlex takes the square of their number
_WORD = re.compile(r'"[^"]*"|\S+')


def parse(lines: Iterable[str], as_text: Iterable[str] = ()) -> "dict[str, pd.DataFrame | dict[str, Any]]":
    """Blocks by name: a frame for each loop, a dictionary for each list of values. ``as_text``: labels of what is never a
    number, whatever it looks like.

    Raises
    ------
    ValueError: a broken row, a label without a value or given twice, more blocks or labels than any project has.
    """
    stream, text = _Lines(lines), frozenset(as_text)
    blocks: dict[str, pd.DataFrame | dict[str, Any]] = {}
    for line in stream:
        if not line.startswith("data_"):
            continue
        name = (line[5:].split() or [""])[0]
        while (start := stream.peek()) is not None and not start.startswith(("loop_", "_", "data_")):
            stream.skip()
        if start is None or start.startswith("data_"):
            continue
        blocks[name] = _loop(stream, text) if start.startswith("loop_") else _values(stream, text)
        if len(blocks) > MOST:
            raise ValueError(f"more than {MOST:,} blocks")
    return blocks


class _Lines:
    """Stripped lines, of which the next can be looked at before it is taken."""

    def __init__(self, lines: Iterable[str]):
        self._lines = iter(lines)
        self._next: str | None = None

    def peek(self) -> str | None:
        """The next line; None at the end."""
        if self._next is None:
            line = next(self._lines, None)
            self._next = None if line is None else line.strip()
        return self._next

    def skip(self) -> None:
        """Take the line that was looked at."""
        self._next = None

    def __iter__(self) -> Iterator[str]:
        while (line := self.peek()) is not None:
            self.skip()
            yield line


class _Rows(io.TextIOBase):
    """The rows of a loop as a file, up to the next block."""

    def __init__(self, stream: _Lines):
        self._stream = stream

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int | None = -1) -> str:
        """Whole lines of ``size`` characters at least, where there are so many; quotes of either kind as double ones."""
        parts: list[str] = []
        length = 0
        while size is None or size < 0 or length < size:
            line = self._stream.peek()
            if line is None or line.startswith("data_"):
                break
            self._stream.skip()
            parts.append(line.replace("'", '"') + "\n")
            length += len(parts[-1])
        return "".join(parts)


def _labels(stream: _Lines) -> list[str]:
    names: list[str] = []
    while (line := stream.peek()) is not None and line.startswith("_"):
        names.append(line.split()[0][1:])
        stream.skip()
        if len(names) > MOST:
            raise ValueError(f"more than {MOST:,} labels")
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1] if len(set(names)) < len(names) else []
    if twice:
        raise ValueError(f"the label {twice[0]} twice")
    return names


def _loop(stream: _Lines, text: frozenset[str]) -> "pd.DataFrame":
    import pandas as pd

    stream.skip()
    while stream.peek() == "":
        stream.skip()
    names = _labels(stream)
    while (first := stream.peek()) is not None and not first.partition("#")[0]:
        stream.skip()
    if not names or first is None or first.startswith("data_"):
        return pd.DataFrame({name: [] for name in names}, dtype=float)
    words = len(_WORD.findall(first.partition("#")[0].replace("'", '"')))
    if words != len(names):
        raise ValueError(f"{len(names)} labels and {words} values in the first row")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pd.errors.DtypeWarning)  # words and numbers in a column: words it is
        frame = pd.read_csv(_Rows(stream), sep=r"\s+", header=None, comment="#", keep_default_na=False,
                            na_values=["nan", "NaN", "<NA>"], dtype={i: str for i, name in enumerate(names) if name in text})
    if frame.shape[1] != len(names):
        raise ValueError(f"{len(names)} labels and rows of {frame.shape[1]} values")
    frame.columns = pd.Index(names)
    for name in names:
        if name not in text and frame[name].dtype.kind not in "iufb":
            frame[name] = _numeric(frame[name])
    return frame


def numbers_of(column: "pd.Series") -> np.ndarray:
    """A column as float64 ``(N,)``: NaN for what is no number, infinity for whole numbers beyond all floats."""
    import pandas as pd

    try:
        return pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, copy=True)
    except OverflowError:  # words of some hundred digits, one by one
        return np.array([_float(value) for value in column], np.float64)


def _float(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return float("nan")


def _numeric(column: "pd.Series") -> "pd.Series":
    """A column of words that are all numbers as numbers; any other as it is."""
    import pandas as pd

    try:
        return pd.to_numeric(column)
    except (ValueError, OverflowError):
        return column


def _values(stream: _Lines, text: frozenset[str]) -> dict[str, Any]:
    held: dict[str, Any] = {}
    while (line := stream.peek()) is not None and not line.startswith("data_"):
        stream.skip()
        if line.startswith("_"):
            if len(line) > LONGEST:
                raise ValueError(f"a value of {len(line):,} characters")
            words = shlex.split(line, comments=True)
            if len(words) != 2:
                raise ValueError(f"{len(words) - 1} values for {line.split()[0]}")
            held[words[0][1:]] = words[1] if words[0][1:] in text else _number(words[1])
            if len(held) > MOST:
                raise ValueError(f"more than {MOST:,} labels")
    return held


def _number(word: str) -> str | int | float:
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            pass
    return word
