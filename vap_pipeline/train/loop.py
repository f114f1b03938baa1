"""The training loop.

A run is a function of its settings. The seed decides which windows a step trains on, and which of them have
their speakers swapped; dropout is seeded at each step. No random state is carried along, so a stopped run
continues as if it had not been stopped, and any number of processes sees the same batches.
"""

import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from vap_pipeline.artefacts.windows import Batch, Windows, activity, inputs, swap
from vap_pipeline.io.tensors import Tensors
from vap_pipeline.models.network import ModelConfig, ProjectionModel
from vap_pipeline.runtime import resume
from vap_pipeline.runtime.signals import together
from vap_pipeline.runtime.training_run import TrainingRun
from vap_pipeline.settings.train import TrainSettings
from vap_pipeline.train.batches import Piece, Plan, pieces, read
from vap_pipeline.train.progress import Progress, publish
from vap_pipeline.train.validation import NotANumber, Validation
from vap_pipeline.turn_taking import projection
from vap_pipeline.turn_taking.published import TASK_COLUMNS

LOG_EVERY_STEPS = 10  # in a row of the history; fewer before a validation check
SAVE_EVERY_S = 300.0  # between two states, if no validation check comes before
MAY_DIFFER = ("train.epochs", "train.patience")  # when a run continues: they only decide when it ends

log = logging.getLogger(__name__)


@together()
def train(
    training: Windows,
    validation: Windows,
    sizes: ModelConfig,
    config: TrainSettings,
    settings: dict[str, Any],
    folder: str,
    *,
    resumed: bool = False,
    workers: int = 0,
    first_batch_only: bool = False,
    track: bool = False,
) -> Progress:
    """Train a model until it no longer gets better, and keep the best in ``folder``.

    Args:
        training, validation: the windows of either set.
        sizes: of the model.
        config: how to train; its ``seed`` is the run's.
        settings: all that the result depends on, as JSON; written to ``config.json``.
        folder: of the checkpoint, local or any fsspec path.
        resumed: continue from the state in ``folder``, if its settings match.
        workers: processes that read batches; 0 reads them here.
        first_batch_only: use one batch of either set.
        track: log the history with Weights & Biases.

    Raises:
        InputError: the loss is NaN or infinite, or a file cannot be written.
        Stopped: SIGTERM or SIGINT came; the state is saved.
    """
    name = "{}/{}/fold-{}".format(settings["corpus"], sizes.model, settings["fold"])
    run = TrainingRun(folder, settings, name, config.seed, SAVE_EVERY_S, tracked=track)
    model = ProjectionModel(sizes)
    adamw = _optimizer(model, config)
    network, optimizer = run.prepare(model, adamw)
    n, n_validation = (
        min(len(w), config.batch if first_batch_only else len(w)) for w in (training, validation)
    )
    plan = Plan(n, config.batch, config.swap, config.seed, config.checks_per_epoch)
    check = Validation(validation, n_validation, config.batch, config.seed, workers)
    last_step = config.epochs * plan.steps_per_epoch

    progress, parts = run.restore(Progress(), resumed, MAY_DIFFER)
    best = parts.get("best", {})

    def is_over() -> bool:
        patience_over = progress.checks - progress.best_check >= config.patience
        all_checked = plan.checks_by(progress.step) <= progress.checks
        return all_checked and (patience_over or progress.step >= last_step)

    progress.finished = is_over()
    schedule = _own_pieces(run, plan, progress.step, last_step)
    with (
        run.running(last_step, lambda: _state(model, adamw, best)) as bar,
        contextlib.closing(read(training, schedule, workers, run.device)) as batches,
    ):
        if progress.step and run.is_main:
            publish(folder, run.settings, progress, sizes, best)
        while not progress.finished:
            # A check that is due comes first: a run that was stopped in one makes it on resuming.
            if plan.checks_by(progress.step) > progress.checks:
                _record_training(run, progress, plan, config)
                best = _check(run, progress, check, model, plan, bar) or best
                progress.finished = is_over()
                run.save()
                if run.is_main:
                    publish(folder, run.settings, progress, sizes, best)
                continue

            torch.manual_seed(_seed(config.seed, progress.step, run.accelerator.process_index))
            loss, norm, stops = _step(run, network, optimizer, batches, training, plan, sizes.model)
            progress.step += 1
            progress.loss_sum, progress.norm_sum = progress.loss_sum + loss, progress.norm_sum + norm
            bar.update()
            bar.set_description_str(f"loss {loss:.3f}", refresh=False)
            if progress.step % LOG_EVERY_STEPS == 0:
                _record_training(run, progress, plan, config)
            run.save_if_due(stops)
        run.complete()
    return progress


def _optimizer(model: nn.Module, config: TrainSettings) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        model.parameters(), config.learning_rate, config.betas, weight_decay=config.weight_decay, fused=True
    )


def _state(model: nn.Module, optimizer: torch.optim.Optimizer, best: Tensors) -> dict[str, Tensors]:
    return {"model": model.state_dict(), "best": best, "optimizer": resume.moments(model, optimizer)}


def _own_pieces(
    run: TrainingRun, plan: Plan, first_step: int, last_step: int
) -> Callable[[], Iterator[Piece]]:
    """Return the schedule of this process: the pieces of step after step, as many as gradients accumulate."""
    accumulation = run.accelerator.gradient_accumulation_steps
    n_pieces = run.accelerator.num_processes * accumulation
    first = run.accelerator.process_index * accumulation

    def schedule() -> Iterator[Piece]:
        for step in range(first_step, last_step):
            yield from pieces(*plan(step), n_pieces)[first : first + accumulation]

    return schedule


def _step(
    run: TrainingRun,
    network: nn.Module,
    optimizer: Any,
    batches: Iterator[tuple[Piece, Batch]],
    training: Windows,
    plan: Plan,
    model: str,
) -> tuple[float, float, float]:
    """Take a step along the gradient of the mean loss over the global batch, a piece of it on each process.

    Returns:
        The loss, the gradient's norm, and the number of processes that were asked to stop.

    Raises:
        InputError: the loss or its gradient is NaN or infinite.
    """
    accelerator = run.accelerator
    accumulation = accelerator.gradient_accumulation_steps
    network.train()
    own_loss = torch.zeros((), device=run.device)
    for number in range(accumulation):
        piece, batch = next(batches)
        batch = swap(batch, torch.from_numpy(piece.swapped))
        is_last = number == accumulation - 1
        with contextlib.nullcontext() if is_last else accelerator.no_sync(network):
            logits = network(*inputs(batch))
            target = projection.labels(activity(batch), model, training.frames.look_ahead)
            part = piece.weight * projection.loss(logits, target, model)
            # Accelerate divides by the pieces, and DistributedDataParallel by the processes.
            accelerator.backward(part * accumulation * accelerator.num_processes)
        own_loss += part.detach()
    accelerator.unscale_gradients()
    own_norm = nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])
    totals = accelerator.reduce(torch.stack([own_loss, run.stop_flag()]), "sum")
    loss, stops, norm = torch.cat([totals, own_norm[None]]).tolist()
    # With float16 an infinite gradient is no fault: the scaler leaves out the step and scales down.
    if not math.isfinite(loss) or not (math.isfinite(norm) or accelerator.scaler):
        names = {training.conversation(i) for i in plan(run.progress.step)[0].tolist()}
        raise _failure(run, f"the loss is {loss}, its gradient {norm}", names)
    optimizer.step()
    optimizer.zero_grad()
    return loss, norm, stops


def _check(
    run: TrainingRun, progress: Progress, check: Validation, model: ProjectionModel, plan: Plan, bar: tqdm
) -> Tensors:
    """Measure the model on the validation set and say the result; return its weights if it is the best."""
    try:
        measured = check(model, run.accelerator, run.requests)
    except NotANumber as error:
        raise _failure(run, f"the validation loss is {error.loss}", error.conversations) from error
    if measured is None:
        raise run.stopped()
    progress.checks += 1
    measures = measured.measures
    run.record({"epoch": progress.step / plan.steps_per_epoch, **measures})
    # If the validation set has no shift or no hold, the loss decides.
    quality = measures.get("f1_hold_shift", -measures["validation_loss"])
    is_best = progress.best_quality is None or quality > progress.best_quality
    if is_best:
        progress.best_quality, progress.best_check = quality, progress.checks
        progress.best_row = len(progress.history) - 1
        # Evaluation scores in full precision, so thresholds of another precision are of no use to it.
        progress.thresholds = measured.thresholds if run.accelerator.mixed_precision == "no" else {}
    if progress.checks == 1:
        log.info("scores: %s", ", ".join(f"{column} is {metric}" for column, metric in TASK_COLUMNS.items()))
    shown = [
        f"{column} {measures[metric]:.3f}" for column, metric in TASK_COLUMNS.items() if metric in measures
    ]
    log.info(
        "step %d, epoch %.1f: validation loss %.3f, %s%s",
        progress.step,
        progress.step / plan.steps_per_epoch,
        measures["validation_loss"],
        ", ".join(shown) or "no events to score",
        "; the best so far" if is_best else "",
    )
    bar.set_postfix_str(", ".join(shown), refresh=False)
    weights = model.state_dict().items() if is_best else ()
    return {name: tensor.detach().cpu().clone() for name, tensor in weights}


def _record_training(run: TrainingRun, progress: Progress, plan: Plan, config: TrainSettings) -> None:
    """Record the means over the steps since the last such row."""
    steps = progress.step - progress.logged
    if steps:
        means = {"training_loss": progress.loss_sum / steps, "gradient_norm": progress.norm_sum / steps}
        epoch = progress.step / plan.steps_per_epoch
        run.record({"epoch": epoch, "learning_rate": config.learning_rate} | means)
    progress.logged, progress.loss_sum, progress.norm_sum = progress.step, 0.0, 0.0


def _failure(run: TrainingRun, fault: str, conversations: Iterable[str]) -> Exception:
    return run.failure(fault, f"the features of the conversations: {', '.join(sorted(conversations))}")


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
