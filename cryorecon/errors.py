"""The one error that a user may cause: bad input, told in one line."""


class InputError(ValueError):
    """What a user handed in can't be used.

    The message is one line that says what was expected, what was found and what to do. The command line prints it and
    exits with code 2.
    """
