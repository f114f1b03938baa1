"""Ending on request: SIGTERM, as SLURM sends before it takes a machine away, and SIGINT, from Ctrl-C."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType, TracebackType

from vap_pipeline.errors import InputError


class Stopped(KeyboardInterrupt):
    """The run was asked to end, and has saved what state it has."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class Requests:
    """While in this context, signals do not end the process but are noted in ``received`` (0: none)."""

    def __init__(self) -> None:
        self.received = 0
        self._at_once = False

    def __enter__(self) -> "Requests":
        self._before = {each: signal.signal(each, self._note) for each in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def act_at_once(self) -> None:
        """From now on the first of them raises :class:`Stopped`; one that came before does so here."""
        self._at_once = True
        if self.received:
            raise Stopped(self.received)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        first, self.received = not self.received, signum
        if self._at_once and first:
            raise Stopped(signum)


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
