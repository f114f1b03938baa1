"""Contrastive predictive coding: the encoder learns to recognise the next frames among other frames.

A linear map of the recurrent net's output at a frame predicts the convolutions' output at each of the next
twelve frames. The loss is that of recognising it among frames of the same speaker: InfoNCE, eq. 4 of van den
Oord et al., "Representation learning with contrastive predictive coding" (arXiv 1807.03748), with the
architecture of Rivière et al., "Unsupervised pretraining transfers well across languages" (ICASSP 2020, arXiv
2002.02848). No labels are needed, only who speaks when.
"""

import contextlib
import logging
import math
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor, nn

from vap_pipeline.encoders import cpc_weights
from vap_pipeline.encoders.cpc import CPCEncoder, State
from vap_pipeline.io import files, parquet
from vap_pipeline.io.errors import InputError
from vap_pipeline.pretrain.batches import Batch, Batches
from vap_pipeline.pretrain.speech import Stretch
from vap_pipeline.runtime import resume
from vap_pipeline.runtime.signals import together
from vap_pipeline.runtime.training_run import TrainingRun
from vap_pipeline.settings.pretrain import PretrainSettings

WARM_UP_SHARE = 0.05  # of the steps: the learning rate rises in them, then falls as a cosine
LOG_EVERY_STEPS = 20  # a row of the history
SAVE_EVERY_S = 120.0
CHECKS = 10  # on held-back speakers, evenly over the run
CHECK_BATCHES = 16
LARGEST_NORM = 10.0  # a longer gradient is shortened to it
MEASURES = ("learning_rate", "loss", "accuracy", "held_back_loss", "held_back_accuracy")
HISTORY = pa.schema([("step", pa.int64()), *((measure, pa.float64()) for measure in MEASURES)])

log = logging.getLogger(__name__)


class Prediction(nn.Module):
    """The encoder with a linear map for each future frame. A checkpoint holds the encoder alone."""

    def __init__(self, encoder: CPCEncoder, ahead: int) -> None:
        super().__init__()
        self.encoder, self.ahead = encoder, ahead
        self.maps = nn.Linear(encoder.dim, ahead * encoder.config.hiddenEncoder, bias=False)

    def forward(self, audio: Tensor, negatives: Tensor) -> Tensor:
        """Return loss and accuracy, (2,), of a :class:`Batch`: means over frames and future frames."""
        speakers, windows, samples = audio.shape
        z = self.encoder.convolve(audio.reshape(-1, samples), State())
        c, _ = self.encoder.gAR["baseNet"](z)
        frames, width, ahead = z.shape[1], z.shape[2], self.ahead
        n = frames - ahead  # frames whose future is inside the window
        z = z.view(speakers, windows * frames, width)
        prediction = self.maps(c[:, :n]).view(speakers, windows, n, ahead, width) / width**0.5
        # The true future frames: (speakers, windows, n, ahead, width), a view.
        future = z.view(speakers, windows, frames, width)[:, :, 1:].unfold(2, ahead, 1).transpose(-1, -2)
        positive = (prediction * future).sum(-1)
        others = z.gather(1, negatives[..., None].expand(-1, -1, width))  # (speakers, negatives, width)
        wrong = prediction.flatten(1, 3) @ others.transpose(1, 2)
        wrong = wrong.view(*positive.shape, -1)
        # A negative that is the frame to recognise does not count.
        index = torch.arange(windows * frames, device=z.device).view(windows, frames)
        place = index[:, 1:].unfold(1, ahead, 1)
        same = place[None, ..., None] == negatives[:, None, None, None]
        positive, wrong = positive.float(), wrong.masked_fill(same, -torch.inf).float()
        scores = torch.logsumexp(torch.cat([positive[..., None], wrong], -1), -1)
        return torch.stack([(scores - positive).mean(), (positive > wrong.amax(-1)).float().mean()])


@dataclass
class Progress(resume.Progress):
    """How far a run is. ``history`` has a row for every 20 steps and every check."""

    loss_sum: float = 0.0  # over the steps since the last row
    accuracy_sum: float = 0.0


@together()
def pretrain(
    encoder: CPCEncoder,
    training: list[Stretch],
    held_back: list[Stretch],
    config: PretrainSettings,
    settings: dict[str, Any],
    folder: str,
    resumed: bool = False,
    workers: int = 0,
    track: bool = False,
) -> Progress:
    """Train ``encoder``, in place.

    Args:
        training, held_back: speech; the loss on the latter is measured, not trained on.
        settings: all that the result depends on, as JSON.
        folder: of the run's state and of the encoder.
        resumed: continue from the state in ``folder``, if its settings match.
        workers: processes that read audio; 0 reads it here.
        track: log the history with Weights & Biases.

    Raises:
        InputError: the loss is NaN or infinite, audio cannot be read, or the state cannot be written.
        Stopped: SIGTERM or SIGINT came; the state is saved.
    """
    name = "{}/cpc/seed-{}".format(settings["corpus"], config.seed)
    run = TrainingRun(folder, settings, name, config.seed, SAVE_EVERY_S, tracked=track)
    own = _own_speakers(run, config)
    model = Prediction(encoder, config.ahead)
    adamw = torch.optim.AdamW(
        model.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    network, optimizer = run.prepare(model.train(), adamw)
    progress, _ = run.restore(Progress(), resumed)
    progress.finished = progress.step == config.steps
    checked = Batches(held_back, config, own) if held_back else None
    batches = Batches(training, config, own)

    def state() -> dict[str, resume.Tensors]:
        return {"model": model.state_dict(), "optimizer": resume.moments(model, adamw)}

    with (
        run.running(config.steps, state) as bar,
        contextlib.closing(batches.read(progress.step, workers, run.device)) as reading,
    ):
        for batch in reading:
            rate = _learning_rate(progress.step, config)
            for group in adamw.param_groups:
                group["lr"] = rate
            loss, accuracy, stops = _step(run, network, optimizer, batch, batches)
            progress.step += 1
            progress.loss_sum += loss
            progress.accuracy_sum += accuracy
            progress.finished = progress.step == config.steps
            bar.update()
            bar.set_description_str(f"loss {loss:.3f}, accuracy {accuracy:.3f}", refresh=False)
            if progress.step % LOG_EVERY_STEPS == 0:
                sums = {"loss": progress.loss_sum, "accuracy": progress.accuracy_sum}
                run.record({"learning_rate": rate} | {k: v / LOG_EVERY_STEPS for k, v in sums.items()})
                progress.loss_sum = progress.accuracy_sum = 0.0
            if progress.step * CHECKS // config.steps > (progress.step - 1) * CHECKS // config.steps:
                if checked:
                    _check(run, model, checked)
                run.save()
            run.save_if_due(0 if progress.finished else stops)
        if run.is_main:
            _publish(folder, encoder, progress)
        run.complete()
    encoder.eval()
    return progress


def _own_speakers(run: TrainingRun, config: PretrainSettings) -> slice:
    """Return the places in a batch of the speakers that this process reads."""
    n = run.accelerator.num_processes
    if run.accelerator.gradient_accumulation_steps > 1:
        raise InputError("vap-pretrain accumulates no gradients; give more --speakers or --windows instead")
    if config.speakers % n:
        raise InputError(
            f"--speakers {config.speakers}: cannot be divided among {n} processes; give a multiple of {n}"
        )
    share, process = config.speakers // n, run.accelerator.process_index
    return slice(process * share, (process + 1) * share)


def _step(
    run: TrainingRun, network: nn.Module, optimizer: Any, batch: Batch, batches: Batches
) -> tuple[float, float, float]:
    """Take a step along the gradient of the mean loss over all processes.

    Returns:
        The loss, the accuracy, and the number of processes that were asked to stop.

    Raises:
        InputError: the loss or its gradient is NaN or infinite.
    """
    accelerator = run.accelerator
    result = network(*batch)
    accelerator.backward(result[0])
    norm = float(accelerator.clip_grad_norm_(network.parameters(), LARGEST_NORM))
    totals = accelerator.reduce(torch.cat([result.detach(), run.stop_flag()[None]]), "sum").tolist()
    loss, accuracy = (total / accelerator.num_processes for total in totals[:2])
    if not math.isfinite(loss) or not (math.isfinite(norm) or accelerator.scaler):
        fault = f"the loss is {loss}, its gradient {norm}"
        raise run.failure(fault, f"the audio of the speakers: {batches.names(run.progress.step)}")
    optimizer.step()
    optimizer.zero_grad()
    return loss, accuracy, totals[2]


@torch.no_grad()
def _check(run: TrainingRun, model: Prediction, batches: Batches) -> None:
    """Measure the model on held-back speakers, and log the result.

    Raises:
        InputError: the loss is NaN or infinite.
    """
    model.eval()
    parts = [model(*(tensor.to(run.device) for tensor in batches[i])) for i in range(CHECK_BATCHES)]
    model.train()
    results = run.accelerator.reduce(torch.stack(parts), "mean")
    for number, loss in enumerate(results[:, 0].tolist()):
        if not math.isfinite(loss):
            speakers = f"the audio of the speakers: {batches.names(number)}"
            raise run.failure(f"the held-back loss is {loss}", speakers)
    loss, accuracy = results.mean(0).tolist()
    run.record({"held_back_loss": loss, "held_back_accuracy": accuracy})
    log.info("step %d: held-back loss %.3f, accuracy %.3f", run.progress.step, loss, accuracy)


def _publish(folder: str, encoder: CPCEncoder, progress: Progress) -> None:
    """Write the encoder and the history. The encoder is rounded to float16, as in its file."""
    encoder.half().float()
    cpc_weights.save(encoder, f"{folder}/encoder.safetensors")
    history = pa.Table.from_pylist(progress.history, HISTORY)
    files.write(f"{folder}/history.parquet", parquet.encode(history))


def _learning_rate(step: int, config: PretrainSettings) -> float:
    """Return the learning rate of a step: a linear rise, then half a cosine."""
    warm_up = max(round(WARM_UP_SHARE * config.steps), 1)
    if step < warm_up:
        return config.learning_rate * (step + 1) / warm_up
    share = (step - warm_up) / max(config.steps - warm_up, 1)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * share))
