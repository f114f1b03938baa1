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

PATIENCE_S = 1  # accelerate hands on what the process was sent already; that is no second request

log = logging.getLogger(__name__)


class Stopped(KeyboardInterrupt):
    """The run was asked to end, and has saved what state it has."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class Requests:
    """While in this context, the first signal is noted in ``received`` (0: none), a later one ends all."""

    def __init__(self) -> None:
        self.received, self._at, self._at_once = 0, 0.0, False

    def __enter__(self) -> "Requests":
        self._before = {each: signal.signal(each, self._note) for each in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def act_at_once(self) -> None:
        """From now on the first of them raises :class:`Stopped`; one that came before does so here.

        Not while modules are imported: many print a traceback or go on where that is interrupted. And where
        it is raised in a finalizer it is lost; who works for long asks ``received`` too.
        """
        self._at_once = True
        if self.received:
            raise Stopped(self.received)

    @contextlib.contextmanager
    def left_to_the_system(self) -> Iterator[None]:
        """For a wait outside of Python, which would not hear: a signal ends the process at once."""
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)
        yield
        for each in self._before:
            signal.signal(each, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if not self.received:
            self.received, self._at = signum, time.monotonic()
            if self._at_once:
                raise Stopped(signum)
        elif time.monotonic() - self._at > PATIENCE_S:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)


@contextlib.contextmanager
def ending_on_request(how_to_go_on: Callable[[], str]) -> Iterator[Requests]:
    """Note signals; where one ends what is done in this context, say so and exit with its status."""
    with Requests() as requests:
        try:
            yield requests
        except Stopped as stopped:
            log.info("%s; %s", stopped, how_to_go_on())
            sys.exit(128 + stopped.signum)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Say in one line that the other processes of a run, which wait for one another, have lost one."""
    try:
        yield
    except RuntimeError as error:
        if not any(library in str(error) for library in ("gloo", "NCCL", "c10d")):
            raise
        raise InputError("another of the processes ended early; what it said is above") from error


def leave_to_main(worker: int) -> None:
    """In a process that reads for a run (a DataLoader's ``worker_init_fn``): leave signals to the run.

    SLURM and Ctrl-C reach every process, and the run needs its readers until it has saved its state. The
    second SIGTERM is for the reader: that is how Python ends one that does not end by itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
