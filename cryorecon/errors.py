"""The one error that a user may cause: bad input, told in one line; and what a scheduler asks for."""


class InputError(ValueError):
    """What a user handed in can't be used.

    The message is one line that says what was expected, what was found and what to do. The command line prints it and
    exits with code 2.
    """


class Stopped(BaseException):
    """A scheduler has asked a run to stop (SIGTERM). What is saved is enough to go on; the command line exits with code 0.

    No error: ``except Exception`` does not hold it up.
    """
