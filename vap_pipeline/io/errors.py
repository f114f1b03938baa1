"""The one kind of error that a user can correct."""


class InputError(ValueError):
    """What was given is wrong: the message names the file or conversation, what is wrong, and the cure."""
