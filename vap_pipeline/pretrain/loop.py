"""Contrastive predictive coding: the encoder learns to tell the next frames from other frames.

From the output of its recurrent net at a frame it has to recognise each of the next twelve frames (of its
convolutions' output) among frames of the same speaker: InfoNCE, eq. 4 of van den Oord et al., "Representation
learning with contrastive predictive coding" (arXiv 1807.03748), with the architecture of Rivière et al.,
"Unsupervised pretraining transfers well across languages" (ICASSP 2020, arXiv 2002.02848) and a linear map
for each of the twelve. No label is needed, only who speaks when.

The windows, gains and negatives of a step follow from the seed and the step alone, so a stopped run continues
as if it had not been stopped.
"""

import contextlib
import logging
import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from vap_pipeline.audio.rates import HOP_SAMPLES, SAMPLE_RATE_HZ
from vap_pipeline.encoders import cpc_weights
from vap_pipeline.encoders.cpc import CPCEncoder, State
from vap_pipeline.io import files, parquet
from vap_pipeline.io.errors import InputError
from vap_pipeline.pretrain.speech import QUIET, Stretch, read
from vap_pipeline.runtime import resume
from vap_pipeline.runtime.signals import leave_to_main, together
from vap_pipeline.runtime.training_run import TrainingRun
from vap_pipeline.settings.pretrain import WINDOW_FRAMES, PretrainSettings

WINDOW_SAMPLES = WINDOW_FRAMES * HOP_SAMPLES  # 1.28 s
WARM_UP_SHARE = 0.05  # of the steps, in which the learning rate rises; then it falls as a cosine
PEAKS = (0.1, 1.0)  # range of the peaks that windows are scaled to
LOG_EVERY_STEPS = 20  # in a row of the history
SAVE_EVERY_S = 120.0
CHECKS = 10  # on held-back speakers, evenly over the run
CHECK_BATCHES = 16
LARGEST_NORM = 10.0  # of a gradient; longer ones are shortened
MEASURES = ("learning_rate", "loss", "accuracy", "held_back_loss", "held_back_accuracy")
HISTORY = pa.schema([("step", pa.int64()), *((measure, pa.float64()) for measure in MEASURES)])

log = logging.getLogger(__name__)


class Batch(NamedTuple):
    """Windows of some speakers, and which of their frames are negatives.

    Attributes:
        audio: (speakers, windows, 20,480) float32 at 16 kHz.
        negatives: (speakers, negatives) int64, frames among the windows * 128 of the speaker.
    """

    audio: Tensor
    negatives: Tensor


class Prediction(nn.Module):
    """The encoder with a linear map for each future frame; returns the loss that trains both.

    The maps are not part of the encoder: a checkpoint holds the encoder alone.
    """

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
        place = (
            torch.arange(windows * frames, device=z.device).view(windows, frames)[:, 1:].unfold(1, ahead, 1)
        )
        same = place[None, ..., None] == negatives[:, None, None, None]
        wrong = wrong.masked_fill(same, -torch.inf).float()
        positive = positive.float()
        scores = torch.logsumexp(torch.cat([positive[..., None], wrong], -1), -1)
        return torch.stack([(scores - positive).mean(), (positive > wrong.amax(-1)).float().mean()])


class Batches(Dataset[Batch]):
    """The batches of a run from step ``first`` on: a function of the seed and the step alone.

    Speakers are drawn in proportion to how much they speak, windows evenly over a speaker's speech.
    """

    def __init__(self, stretches: list[Stretch], config: PretrainSettings, first: int, share: slice) -> None:
        self.config, self.first, self.share = config, first, share
        self.by_speaker: dict[str, list[Stretch]] = {}
        for stretch in stretches:
            self.by_speaker.setdefault(stretch.speaker, []).append(stretch)
        self.speakers = list(self.by_speaker)
        # The seconds of each stretch in which a window can begin.
        self.room = {
            name: np.array([s.end_s - s.start_s - WINDOW_SAMPLES / SAMPLE_RATE_HZ for s in mine]) + 1e-3
            for name, mine in self.by_speaker.items()
        }
        spoken = np.array([sum(s.end_s - s.start_s for s in mine) for mine in self.by_speaker.values()])
        self.weight = spoken / spoken.sum()

    def __len__(self) -> int:
        return self.config.steps - self.first

    def __getitem__(self, index: int) -> Batch:
        """Read this process's share of the speakers in the batch of step ``first + index``.

        Raises:
            InputError: audio cannot be read.
        """
        config = self.config
        chosen, seeds = self._draw(index)
        audio, negatives = [], []
        for speaker, seed in list(zip(chosen, seeds, strict=True))[self.share]:
            generator = np.random.default_rng(seed)
            audio.append(torch.stack([self._window(speaker, generator) for _ in range(config.windows)]))
            negatives.append(generator.integers(config.windows * WINDOW_FRAMES, size=config.negatives))
        return Batch(torch.stack(audio), torch.from_numpy(np.stack(negatives)))

    def names(self, step: int) -> str:
        """Return the speakers in the batch of ``step``, over all processes."""
        return ", ".join(sorted({self.speakers[i] for i in self._draw(step - self.first)[0]}))

    def _draw(self, index: int) -> tuple[list[int], list[int]]:
        generator = np.random.default_rng([self.config.seed, self.first + index])
        chosen = generator.choice(len(self.speakers), self.config.speakers, p=self.weight)
        return chosen.tolist(), generator.integers(2**63, size=self.config.speakers).tolist()

    def _window(self, speaker: int, generator: np.random.Generator) -> Tensor:
        name = self.speakers[speaker]
        room = self.room[name]
        stretch = int(generator.choice(len(room), p=room / room.sum()))
        mine = self.by_speaker[name][stretch]
        signal = read(mine, mine.start_s + generator.random() * room[stretch], WINDOW_SAMPLES)
        low, high = np.log(PEAKS)
        return signal * (math.exp(generator.uniform(low, high)) / signal.abs().max().clamp(min=QUIET))


@dataclass
class Progress(resume.Progress):
    """How far a run is. ``history`` has a row per 20 steps and per check, with columns of ``HISTORY``."""

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
    *,
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
    checked = Batches(held_back, config, 0, own) if held_back else None
    batches = Batches(training, config, progress.step, own)

    def state() -> dict[str, resume.Tensors]:
        return {"model": model.state_dict(), "optimizer": resume.moments(model, adamw)}

    with (
        run.running(config.steps, state) as bar,
        contextlib.closing(_read(batches, workers, run.device)) as reading,
    ):
        for batch in reading:
            rate = _learning_rate(progress.step, config)
            for group in adamw.param_groups:
                group["lr"] = rate
            loss, accuracy, stops = _step(run, network, optimizer, batch, batches)
            progress.step += 1
            progress.loss_sum, progress.accuracy_sum = (
                progress.loss_sum + loss,
                progress.accuracy_sum + accuracy,
            )
            progress.finished = progress.step == config.steps
            bar.update()
            bar.set_description_str(f"loss {loss:.3f}, accuracy {accuracy:.3f}", refresh=False)
            if progress.step % LOG_EVERY_STEPS == 0:
                means = {"loss": progress.loss_sum, "accuracy": progress.accuracy_sum}
                run.record({"learning_rate": rate} | {k: v / LOG_EVERY_STEPS for k, v in means.items()})
                progress.loss_sum = progress.accuracy_sum = 0.0
            if progress.step * CHECKS // config.steps > (progress.step - 1) * CHECKS // config.steps:
                if checked:
                    _check(run, model, checked, bar)
                run.save()
            run.save_if_due(0 if progress.finished else stops)
        if run.is_main:
            publish(folder, encoder, progress)
        run.complete()
    encoder.eval()
    return progress


def _own_speakers(run: TrainingRun, config: PretrainSettings) -> slice:
    """Return which speakers of a batch this process reads."""
    n = run.accelerator.num_processes
    if run.accelerator.gradient_accumulation_steps > 1:
        raise InputError("vap-pretrain accumulates no gradients; give more --speakers or --windows instead")
    if config.speakers % n:
        raise InputError(
            f"--speakers {config.speakers}: cannot be divided among {n} processes; give a multiple of {n}"
        )
    share = config.speakers // n
    return slice(run.accelerator.process_index * share, (run.accelerator.process_index + 1) * share)


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
def _check(run: TrainingRun, model: Prediction, batches: Batches, bar: tqdm) -> None:
    """Measure the model on held-back speakers, and say the result.

    Raises:
        InputError: the loss is NaN or infinite.
    """
    model.eval()
    parts = [model(*(tensor.to(run.device) for tensor in batches[i])) for i in range(CHECK_BATCHES)]
    model.train()
    results = run.accelerator.reduce(torch.stack(parts), "mean")
    for number, loss in enumerate(results[:, 0].tolist()):
        if not math.isfinite(loss):
            raise run.failure(
                f"the held-back loss is {loss}", f"the audio of the speakers: {batches.names(number)}"
            )
    loss, accuracy = results.mean(0).tolist()
    run.record({"held_back_loss": loss, "held_back_accuracy": accuracy})
    shown = f"held-back loss {loss:.3f}, accuracy {accuracy:.3f}"
    log.info("step %d: %s", run.progress.step, shown)
    bar.set_postfix_str(shown, refresh=False)


def publish(folder: str, encoder: CPCEncoder, progress: Progress) -> None:
    """Write the encoder and the history; the encoder is rounded to float16, as its file is."""
    for parameter in encoder.parameters():
        parameter.data = parameter.data.half().float()
    cpc_weights.save(encoder, f"{folder}/encoder.safetensors")
    history = pa.Table.from_pylist(progress.history, HISTORY)
    files.write(f"{folder}/history.parquet", parquet.encode(history))


def _read(batches: Batches, workers: int, device: torch.device) -> Generator[Batch, None, None]:
    """Yield the batches in order on ``device``, read ahead in ``workers`` processes, which end with it."""
    loader = DataLoader(
        batches,
        batch_size=None,
        shuffle=False,
        num_workers=workers,
        worker_init_fn=leave_to_main,
        generator=torch.Generator(),
        pin_memory=device.type == "cuda",
    )
    for batch in loader:
        yield Batch(*(tensor.to(device, non_blocking=True) for tensor in batch))


def _learning_rate(step: int, config: PretrainSettings) -> float:
    """Return the learning rate of a step: a linear rise, then half a cosine."""
    warm_up = max(round(WARM_UP_SHARE * config.steps), 1)
    if step < warm_up:
        return config.learning_rate * (step + 1) / warm_up
    share = (step - warm_up) / max(config.steps - warm_up, 1)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * share))
