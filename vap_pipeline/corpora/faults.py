"""Conversations that cannot be read: the first one stops the command, or all are skipped and listed."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from vap_pipeline.io.errors import InputError

log = logging.getLogger(__name__)


class Faults:
    """Stops at the first fault, or collects them and the names of the conversations that are left out."""

    def __init__(self, on_error: str = "stop") -> None:
        self.skip = on_error == "skip"
        self.skipped: list[str] = []
        self.left_out: set[str] = set()

    @contextmanager
    def handled(self, conversation: str | None = None) -> Iterator[None]:
        """Note an InputError of the block and leave out ``conversation``; without skipping, raise it."""
        try:
            yield
        except InputError as error:
            if not self.skip:
                raise
            self.skipped.append(str(error))
            if conversation is not None:
                self.left_out.add(conversation)

    def report(self) -> None:
        """List the conversations that were skipped."""
        if self.skipped:
            log.warning("left out:\n  %s", "\n  ".join(self.skipped))
