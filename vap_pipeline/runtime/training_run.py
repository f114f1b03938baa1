"""What ``vap-train`` and ``vap-pretrain`` share: processes, state, signals, log and progress of a run."""

import contextlib
import logging
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError
from vap_pipeline.io.tensors import Tensors
from vap_pipeline.runtime import command, memory, resume, tracking
from vap_pipeline.runtime.resume import RESUME, Progress
from vap_pipeline.runtime.signals import Requests, Stopped

P = TypeVar("P", bound=Progress)

log = logging.getLogger(__name__)


class TrainingRun:
    """A run that keeps its state in a folder, so that it can be stopped and continued.

    Use it in this order: :meth:`prepare`, :meth:`restore`, then :meth:`running` around the loop, in which
    :meth:`record`, :meth:`save` and :meth:`save_if_due` are called.

    Args:
        folder: of the state, local or any fsspec path.
        settings: all that the result depends on, as JSON.
        name: of the run in the log, such as ``sample/discrete/fold-0``.
        seed: of the weights.
        save_every_s: seconds between two states.
        tracked: log the run with Weights & Biases.

    Attributes:
        accelerator: of Accelerate; several processes on CPUs work together too.
        device, is_main: where to compute, and whether this process writes.
        requests: the signals that were received.
    """

    def __init__(
        self, folder: str, settings: dict[str, Any], name: str, seed: int, save_every_s: float, tracked: bool
    ) -> None:
        tracked = tracked and tracking.is_enabled()
        # With cpu=False and no GPU, Accelerate would let several processes work each for itself.
        self.accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(), log_with="wandb" if tracked else None
        )
        self.device, self.is_main = self.accelerator.device, self.accelerator.is_main_process
        if not self.is_main:
            logging.disable(logging.INFO)
        command.note_one_process(self.accelerator.num_processes)
        self.folder, self.name, self.tracked, self.save_every_s = folder, name, tracked, save_every_s
        self.settings = settings | {"precision": self.accelerator.mixed_precision}
        self.requests = Requests()
        self.progress: Progress = Progress()
        self._saved_at, self._saved_step = time.monotonic(), 0
        memory.keep()
        torch.manual_seed(seed)

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """Return network and optimizer for the processes; the originals share the weights and stay usable."""
        self.model, self.optimizer = model, optimizer
        return self.accelerator.prepare(model, optimizer)

    def restore(
        self, progress: P, resumed: bool, may_differ: tuple[str, ...] = ()
    ) -> tuple[P, dict[str, Tensors]]:
        """Continue from the state in the folder if ``resumed``.

        Args:
            progress: that of a new run.
            may_differ: settings that a continued run may change, such as ``train.epochs``.

        Returns:
            The progress, and the tensors of the state by part.
        """
        parts: dict[str, Tensors] = {}
        if resumed:
            state = resume.load(
                self.folder, self.settings, type(progress), self.model, self.optimizer, may_differ
            )
            if isinstance(state, str):
                log.info("%s; starting from the beginning", state)
            else:
                progress, parts = state
        self._resumed, self._may_differ = resumed, may_differ
        progress.run_id = progress.run_id or uuid.uuid4().hex[:8]
        self.progress, self._saved_step = progress, progress.step
        return progress, parts

    @contextlib.contextmanager
    def running(self, last_step: int, parts: Callable[[], dict[str, Tensors]]) -> Iterator[tqdm]:
        """While in this context, keep other runs out of the folder, note signals, log, and show progress.

        Args:
            last_step: number of steps in the whole run.
            parts: returns the tensors to save, by part.

        Raises:
            InputError: another process is writing in the folder, or the state cannot be written.
        """
        self._parts = parts
        if self.progress.step:
            standing = "complete" if self.progress.finished else "continuing"
            log.info("%s: %s at step %d", self.folder, standing, self.progress.step)
        with contextlib.ExitStack() as stack:
            if self.is_main:
                stack.enter_context(files.alone(self.folder))
                self._set_aside()
            stack.enter_context(self.requests)
            bar = stack.enter_context(
                tqdm(
                    initial=self.progress.step,
                    total=last_step,
                    unit="step",
                    disable=None if self.is_main else True,
                )
            )
            if not bar.disable:
                stack.enter_context(logging_redirect_tqdm())
            if self.tracked and self.is_main and not self.progress.finished:
                stack.callback(tracking.finish, self.accelerator, exit_code=1)
                tracking.start(self.accelerator, self.settings, self.name, self.progress.run_id)
            self.save()  # with the settings of now; a folder that cannot be written is noticed early
            yield bar

    def _set_aside(self) -> None:
        """Keep the state of another run that this one would overwrite."""
        if not self.progress.step:
            kept = resume.set_aside(self.folder, self.settings, self._may_differ, self._resumed)
            if kept:
                log.info("%s", kept)

    def record(self, measures: dict[str, float]) -> None:
        """Append a row to the history, and log it."""
        row = {"step": self.progress.step, **measures}
        self.progress.history.append(row)
        tracking.log_row(self.accelerator, row)

    def save(self) -> None:
        """Replace the state in the folder."""
        if self.is_main:
            resume.save(self.folder, self.settings, self.progress, self._parts())
        self._saved_at, self._saved_step = time.monotonic(), self.progress.step

    def save_if_due(self, stops: float) -> None:
        """Save the state if the last one is older than ``save_every_s``; stop if any process was asked to.

        Args:
            stops: the sum of :meth:`stop_flag` over the processes.

        Raises:
            Stopped: a process was asked to stop; the state is saved.
        """
        if stops:
            raise self.stopped()
        if time.monotonic() - self._saved_at > self.save_every_s:
            self.save()

    def stop_flag(self) -> Tensor:
        """Return 1 if this process was asked to stop, else 0, to be summed over the processes."""
        return torch.tensor(float(self.requests.received > 0), device=self.device)

    def stopped(self) -> Stopped:
        """Save the state, and return the exception that ends the run."""
        self.save()
        return Stopped(self.requests.received or signal.SIGTERM)

    def failure(self, fault: str, origin: str) -> InputError:
        """Return the error for a loss that is NaN or infinite.

        Args:
            fault: what is wrong, such as ``the loss is nan``.
            origin: what to look at, and the names in the batch.
        """
        return InputError(
            f"step {self.progress.step}: {fault}; the last good state is {self.folder}/{RESUME}, of step "
            f"{self._saved_step}; lower the learning rate, or look at {origin}"
        )

    def complete(self) -> None:
        """Log the checkpoint of a complete run, and end the processes."""
        tracking.finish(self.accelerator, self.folder)
        self.accelerator.end_training()
