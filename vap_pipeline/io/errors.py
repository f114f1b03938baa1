"""The one kind of error that is the user's to mend."""


class InputError(ValueError):
    """What was given is wrong: the message names the file or conversation, what is wrong, and the cure."""
