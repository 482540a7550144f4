"""The one error that a user may cause: bad input, told in one line; and what a scheduler asks for."""

LONGEST = 2000  # characters of a line; a file's own words may be of any length


class InputError(ValueError):
    """What a user handed in can't be used.

    The message is one line that says what was expected, what was found and what to do. The command line prints it and
    exits with code 2.
    """


class Stopped(BaseException):
    """A scheduler has asked a run to stop (SIGTERM). What is saved is enough to go on; the command line exits with code 0.

    No error: ``except Exception`` does not hold it up.
    """
def printable(text: str) -> str:
    """``text`` with whatever a terminal might obey (control characters, turned directions) or could not show (bytes of a name
    that are no text) as escapes: words of a file are shown, never obeyed."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def one_line(text: str) -> str:
    """``text`` as one printable line, its middle left out where it is longer than :data:`LONGEST`."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= LONGEST else f"{line[:LONGEST // 2]} ... {line[-LONGEST // 2:]}"
