"""The one error users meet: a single line that names the thing, its value and the remedy."""


class InputError(ValueError):
    """Something the user gave is wrong: a file, a flag, a name, a size.

    Experiments print the message alone and exit with status 2; library users can catch it as a `ValueError`.
    """
