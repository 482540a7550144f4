"""What ``torchrun`` tells a process that it starts, before any heavy import."""

import os


def launched() -> int:
    """How many processes were started together."""
    return max(_number("WORLD_SIZE", 1), 1)


def follows() -> bool:
    """Whether this is another than the first of them."""
    return launched() > 1 and _number("RANK", 0) > 0


def place() -> int:
    """Its place among those on its machine, from 0."""
    return _number("LOCAL_RANK", 0)


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default
