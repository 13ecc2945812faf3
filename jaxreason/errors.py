"""The errors users meet: a single line that names the thing, its value and the remedy."""


class InputError(ValueError):
    """Something the user gave is wrong: a file, a flag, a name, a size.

    Experiments print the message alone and exit with status 2; library users can catch it as a `ValueError`.
    """


class Stopped(Exception):
    """A run that ends before its last step: why, and how to go on. Experiments print it and exit with `status`."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status
