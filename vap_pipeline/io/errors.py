"""The errors of wrong input: one line for the user, never a traceback."""


class InputError(ValueError):
    """The input is wrong: the message names the file or conversation, what is wrong, and what to do."""


class MissingFile(InputError):
    """There is no such file."""
