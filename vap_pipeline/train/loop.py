"""The training loop.

A run is a function of its settings. Which windows a step trains on, and which of them with the speakers
swapped, follows from the run's seed; dropout is seeded anew at each step. No random state is carried along,
so a run that was stopped goes on as if it had not been, and any number of processes sees the same batches.
"""

import contextlib
import logging
import math
import signal
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from tqdm import tqdm

from vap_pipeline.artefacts.windows import Windows, activity, inputs, swap
from vap_pipeline.io import files
from vap_pipeline.io.errors import InputError
from vap_pipeline.models.network import ModelConfig, ProjectionModel
from vap_pipeline.runtime import command, memory, resume
from vap_pipeline.runtime.resume import RESUME
from vap_pipeline.runtime.signals import Requests, Stopped, together
from vap_pipeline.runtime.tracking import Tracker
from vap_pipeline.settings.train import TrainSettings as TrainConfig
from vap_pipeline.train import progress as checkpoint
from vap_pipeline.train.batches import Piece, Plan, pieces, read
from vap_pipeline.train.progress import Progress
from vap_pipeline.train.validation import NotANumber, Validation
from vap_pipeline.turn_taking import projection

LOG_EVERY = 10  # steps in a row of the history; fewer before a validation check
SAVE_EVERY_S = 300.0  # between two states, where no validation check comes before

log = logging.getLogger(__name__)


@together()
def train(
    training: Windows,
    validation: Windows,
    sizes: ModelConfig,
    config: TrainConfig,
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
        config: how it is trained; its ``seed`` is the run's.
        settings: all that the result depends on, as JSON; written to ``config.json``.
        folder: of the checkpoint, local or any fsspec path.
        resumed: go on from the state in ``folder``, where it is one of the same settings.
        workers: processes that read batches; 0 reads them here.
        first_batch_only: take one batch of either set for the whole.
        track: show the history in Weights & Biases while it is written.

    Raises:
        InputError: the loss is not a number, or a file cannot be written.
        Stopped: SIGTERM or SIGINT came; the state is saved.
    """
    # Told that there is no GPU, Accelerate lets several processes on CPUs work together, not each for itself.
    accelerator = Accelerator(cpu=not torch.accelerator.is_available())
    device, is_main = accelerator.device, accelerator.is_main_process
    settings = settings | {"precision": accelerator.mixed_precision}
    if not is_main:
        logging.disable(logging.INFO)
    command.note_one_process(accelerator.num_processes)
    accumulation = accelerator.gradient_accumulation_steps
    n_pieces = accelerator.num_processes * accumulation

    memory.keep()
    torch.manual_seed(config.seed)
    model = ProjectionModel(sizes)
    adamw = torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        betas=(config.betas[0], config.betas[1]),
        weight_decay=config.weight_decay,
        fused=True,
    )
    network, optimizer = accelerator.prepare(model, adamw)  # model stays usable: it shares the weights

    limit = config.batch if first_batch_only else None
    n, n_validation = (len(range(len(windows))[:limit]) for windows in (training, validation))
    plan = Plan(n, config.batch, config.swap, config.seed)
    check = Validation(validation, n_validation, config.batch, config.seed, workers)
    last_step = config.epochs * plan.steps_per_epoch
    checks_per_epoch = min(config.checks_per_epoch, plan.steps_per_epoch)

    progress, best = Progress(), {}
    if resumed:

        def possible(found: Progress) -> None:
            found.check(last_step)
            if found.checks > found.step * checks_per_epoch // plan.steps_per_epoch:
                raise ValueError(f"{found.checks} checks in {found.step} steps")

        found = resume.load(folder, settings, Progress, model, adamw, possible)
        if isinstance(found, str):
            log.info("%s; starting anew", found)
        else:
            progress, best = found[0], found[1].get("best", {})
            log.info(
                "%s: %s at step %d", folder, "complete" if progress.finished else "going on", progress.step
            )
    first_step = saved_step = progress.step
    saved_at = time.monotonic()
    progress.run_id = progress.run_id or uuid.uuid4().hex[:8]
    name = "{}/{}/fold-{}".format(settings["corpus"], sizes.model, settings["fold"])

    def wrong(what: str, names: Iterable[str]) -> InputError:
        return InputError(
            f"step {progress.step}: {what}; the last good checkpoint is {folder}/{RESUME}, of step "
            f"{saved_step}; lower the learning rate, or look at the features of the conversations: "
            + ", ".join(sorted(names))
        )

    def save() -> None:
        nonlocal saved_step, saved_at
        if is_main:
            checkpoint.save(folder, settings, progress, model, adamw, best)
        saved_step, saved_at = progress.step, time.monotonic()

    def own_pieces() -> Iterator[Piece]:
        """What this process computes, step after step; between the pieces of a step gradients accumulate."""
        first = accelerator.process_index * accumulation
        for step in range(first_step, last_step):
            yield from pieces(*plan(step), n_pieces)[first : first + accumulation]

    with (
        files.alone(folder) if is_main else contextlib.nullcontext(),
        Requests() as requests,
        contextlib.closing(read(training, own_pieces, workers, device)) as batches,
        Tracker(settings, name, progress.run_id, track and is_main and not progress.finished) as tracker,
        tqdm(initial=progress.step, total=last_step, unit="step", disable=None if is_main else True) as bar,
    ):

        def record(measures: dict[str, float]) -> None:
            epoch = progress.step / plan.steps_per_epoch
            progress.history.append({"step": progress.step, "epoch": epoch, **measures})
            tracker.log(progress.history[-1])

        def record_training() -> None:
            """The means over the steps since the last such row."""
            steps = progress.step - progress.logged
            if steps:
                means = {"training_loss": progress.loss_sum, "gradient_norm": progress.norm_sum}
                record({"learning_rate": config.learning_rate} | {k: v / steps for k, v in means.items()})
            progress.logged, progress.loss_sum, progress.norm_sum = progress.step, 0.0, 0.0

        if not progress.step:
            save()  # a place that cannot be written is found out before anything is computed
        elif is_main:
            checkpoint.publish(folder, settings, progress, sizes, best)
        while not progress.finished:
            # A validation check where one is due. A run that was stopped in one makes it when it goes on.
            if progress.step * checks_per_epoch // plan.steps_per_epoch > progress.checks:
                record_training()
                try:
                    measured = check(model, accelerator, requests)
                except NotANumber as error:
                    raise wrong(f"the validation loss is {error.loss}", error.conversations) from error
                if measured is None:
                    save()
                    raise Stopped(requests.received or signal.SIGTERM)
                progress.checks += 1
                measures = measured.measures
                record(measures)
                # Where the validation set holds no shift and no hold, the loss decides.
                quality = measures.get("f1_hold_shift", -measures["validation_loss"])
                if progress.best_quality is None or quality > progress.best_quality:
                    progress.best_quality, progress.best_check = quality, progress.checks
                    progress.best_row = len(progress.history) - 1
                    # Evaluation scores in full precision: it does not want those of another.
                    exact = accelerator.mixed_precision == "no"
                    progress.thresholds = measured.thresholds if exact else {}
                    best = {
                        name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()
                    }
                patience_over = progress.checks - progress.best_check >= config.patience
                progress.finished = patience_over or progress.step == last_step
                save()
                if is_main:
                    checkpoint.publish(folder, settings, progress, sizes, best)
                continue

            # A step: the gradient of the mean loss over the global batch, whose pieces lie on all processes.
            torch.manual_seed(_seed(config.seed, progress.step, accelerator.process_index))
            model.train()
            loss = torch.zeros((), device=device)
            for last in (i == accumulation - 1 for i in range(accumulation)):
                piece, batch = next(batches)
                batch = swap(batch, torch.from_numpy(piece.swapped))
                with contextlib.nullcontext() if last else accelerator.no_sync(network):
                    logits = network(*inputs(batch))
                    target = projection.labels(activity(batch), sizes.model, training.frames.look_ahead)
                    part = piece.weight * projection.loss(logits, target, sizes.model)
                    # Accelerate divides by the pieces, and DistributedDataParallel by the processes.
                    accelerator.backward(part * n_pieces)
                loss += part.detach()
            accelerator.unscale_gradients()
            norm = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
            stop = torch.tensor(float(requests.received > 0), device=device)
            totals = accelerator.reduce(torch.stack([loss, stop]), "sum")
            mean_loss, stops, gradient_norm = torch.cat([totals, norm[None]]).tolist()
            # With float16 an infinite gradient is no fault: the scaler leaves out the step and scales down.
            if not math.isfinite(mean_loss) or not (math.isfinite(gradient_norm) or accelerator.scaler):
                names = {training.conversation(i) for i in plan(progress.step)[0].tolist()}
                raise wrong(f"the loss is {mean_loss}, its gradient {gradient_norm}", names)
            optimizer.step()
            optimizer.zero_grad()

            progress.step += 1
            progress.loss_sum += mean_loss
            progress.norm_sum += gradient_norm
            bar.update()
            bar.set_postfix(loss=f"{mean_loss:.3f}", refresh=False)
            if progress.step % LOG_EVERY == 0:
                record_training()
            if stops:
                save()
                raise Stopped(requests.received or signal.SIGTERM)
            if time.monotonic() - saved_at > SAVE_EVERY_S:
                save()
        tracker.complete(folder)
    accelerator.end_training()
    return progress


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
