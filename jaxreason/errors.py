"""Errors for users: one line that names the thing, its value and the remedy."""


class InputError(ValueError):
    """Wrong input: a file, a flag, a name, a size.

    Experiments print only the message and exit with status 2; library users can catch it as a `ValueError`.
    """


class Stopped(Exception):
    """A run ends before its last step. The message says why and how to resume; experiments exit with `status`."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status
