"""Ending on request: SIGTERM, as SLURM sends before it takes a machine away, and SIGINT, from Ctrl-C."""

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType

from vap_pipeline.io.errors import InputError

FORWARDED_S = 1.0  # accelerate passes on a signal that the process has received: not a second request

log = logging.getLogger(__name__)


class Stopped(KeyboardInterrupt):
    """A signal ended the run, which has saved its state."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class Requests:
    """Records the first SIGTERM or SIGINT in ``received``; a second one kills the process."""

    def __init__(self) -> None:
        self.received, self._received_at, self._raises = 0, 0.0, False

    def __enter__(self) -> "Requests":
        self._before = {
            signum: signal.signal(signum, self._note) for signum in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def act_at_once(self) -> None:
        """From now on the first signal raises :class:`Stopped`; one that was received before raises it here.

        Call it after the imports: many modules print a traceback or go on if they are interrupted. Python
        drops exceptions that are raised in ``__del__``, so long loops should also poll ``received``.
        """
        self._raises = True
        if self.received:
            raise Stopped(self.received)

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """Let signals end the process, during a wait outside Python that would not notice them."""
        self.__exit__(None, None, None)
        yield
        self.__enter__()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if not self.received:
            self.received, self._received_at = signum, time.monotonic()
            if self._raises:
                raise Stopped(signum)
        elif time.monotonic() - self._received_at > FORWARDED_S:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)


@contextlib.contextmanager
def ending_on_request(how_to_continue: Callable[[], str]) -> Iterator[Requests]:
    """Record signals. If one stops the work in this context, say how to continue and exit with its status."""
    with Requests() as requests:
        try:
            yield requests
        except Stopped as stopped:
            log.info("%s; %s", stopped, how_to_continue())
            sys.exit(128 + stopped.signum)


def how_to_continue(folder: str) -> str:
    """Return the advice to the user about a training that was stopped, whose state is in ``folder``."""
    from vap_pipeline.io import files  # here, as the light start of a command imports this module
    from vap_pipeline.runtime.resume import RESUME

    if files.exists(f"{folder}/{RESUME}"):
        return f"its state is in {folder}; start the same command with --resume to continue"
    return "nothing was trained yet; start the same command again"


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Turn the error of a process whose peer ended early into one line."""
    try:
        yield
    except RuntimeError as error:
        if not any(library in str(error) for library in ("gloo", "NCCL", "c10d")):
            raise
        raise InputError("another of the processes ended early; its own message is above") from error


def leave_to_main(worker: int) -> None:
    """Leave signals to the main process, in a process that reads for it (a ``worker_init_fn``).

    SLURM and Ctrl-C reach every process, and the run needs its readers until it has saved its state. A second
    SIGTERM ends a reader: that is how Python ends one that does not end by itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
