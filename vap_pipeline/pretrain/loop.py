"""Contrastive predictive coding: the encoder learns by telling what comes next from what does not.

From its recurrent net's output at a frame it has to recognise each of the next twelve frames (of its
convolutions' output) among frames of the same speaker: InfoNCE, eq. 4 of van den Oord et al., "Representation
learning with contrastive predictive coding" (arXiv 1807.03748), with the architecture of Rivière et al.,
"Unsupervised pretraining transfers well across languages" (ICASSP 2020, arXiv 2002.02848) and a linear map
for each of the twelve. No label is needed, only who speaks when.

A step's windows, gains and negatives follow from the seed and the step alone, so a run that was stopped goes
on as if it had not been.
"""

import contextlib
import logging
import math
import signal
import time
import uuid
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from vap_pipeline.audio.rates import HOP_SAMPLES, SAMPLE_RATE_HZ
from vap_pipeline.encoders import cpc_weights
from vap_pipeline.encoders.cpc import CPCEncoder, State
from vap_pipeline.io import files, parquet
from vap_pipeline.io.errors import InputError
from vap_pipeline.pretrain.speech import QUIET, Stretch, read
from vap_pipeline.runtime import memory, resume
from vap_pipeline.runtime.signals import Requests, Stopped, leave_to_main, together
from vap_pipeline.runtime.tracking import Tracker
from vap_pipeline.settings.pretrain import PretrainSettings as PretrainConfig

WINDOW = 20_480  # samples: 1.28 s, 128 frames
FRAMES = WINDOW // HOP_SAMPLES
WARM_UP = 0.05  # the share of the steps in which the learning rate rises; then it falls as a cosine
GAINS = (0.1, 1.0)  # the peaks that windows are scaled to
LOG_EVERY = 20  # steps in a row of the history
SAVE_EVERY_S = 120.0
CHECKS = 10  # checks on held-back speakers, evenly over the run
CHECKED = 16  # batches in each
MEASURES = ("learning_rate", "loss", "accuracy", "held_back_loss", "held_back_accuracy")
HISTORY = pa.schema([("step", pa.int64()), *((measure, pa.float64()) for measure in MEASURES)])

log = logging.getLogger(__name__)


class Batch(NamedTuple):
    """Windows of some speakers, and which of their frames are negatives.

    Attributes:
        audio: (speakers, windows, 20,480), float32 at 16 kHz.
        negatives: (speakers, negatives) int64, each a frame among the speaker's windows * 128.
    """

    audio: Tensor
    negatives: Tensor


class Prediction(nn.Module):
    """The encoder with a linear map for each frame ahead; gives the loss that trains both.

    The maps are no part of the encoder: a checkpoint holds the encoder alone.
    """

    def __init__(self, encoder: CPCEncoder, ahead: int) -> None:
        super().__init__()
        self.encoder, self.ahead = encoder, ahead
        self.maps = nn.Linear(encoder.dim, ahead * encoder.config.hiddenEncoder, bias=False)

    def forward(self, audio: Tensor, negatives: Tensor) -> Tensor:
        """Return loss and accuracy (2,) over a :class:`Batch`, means over frames and frames ahead."""
        speakers, windows, samples = audio.shape
        z = self.encoder.convolve(audio.reshape(-1, samples), State())
        c, _ = self.encoder.gAR["baseNet"](z)
        frames, width, ahead = z.shape[1], z.shape[2], self.ahead
        n = frames - ahead  # frames whose future lies in the window
        z = z.view(speakers, windows * frames, width)
        prediction = self.maps(c[:, :n]).view(speakers, windows, n, ahead, width) / width**0.5
        # What really comes ahead: (speakers, windows, n, ahead, width), a view
        future = z.view(speakers, windows, frames, width)[:, :, 1:].unfold(2, ahead, 1).transpose(-1, -2)
        positive = (prediction * future).sum(-1)
        others = z.gather(1, negatives[..., None].expand(-1, -1, width))  # (speakers, negatives, width)
        wrong = prediction.flatten(1, 3) @ others.transpose(1, 2)
        wrong = wrong.view(*positive.shape, -1)
        # A negative that is the very frame to be told does not count.
        place = (
            torch.arange(windows * frames, device=z.device).view(windows, frames)[:, 1:].unfold(1, ahead, 1)
        )
        same = place[None, ..., None] == negatives[:, None, None, None]
        wrong = wrong.masked_fill(same, -torch.inf).float()
        positive = positive.float()
        scores = torch.logsumexp(torch.cat([positive[..., None], wrong], -1), -1)
        return torch.stack([(scores - positive).mean(), (positive > wrong.amax(-1)).float().mean()])


class Batches(Dataset[Batch]):
    """The batches of a run: element ``i`` is that of step ``i``, a function of the seed and ``i`` alone.

    Speakers are drawn by how much they speak, windows evenly over what a speaker says.
    """

    def __init__(self, stretches: list[Stretch], config: PretrainConfig, first: int, share: slice) -> None:
        self.config, self.first, self.share = config, first, share
        self.by_speaker: dict[str, list[Stretch]] = {}
        for stretch in stretches:
            self.by_speaker.setdefault(stretch.speaker, []).append(stretch)
        self.speakers = list(self.by_speaker)
        # Of each stretch, the seconds in which a window can begin.
        self.room = {
            name: np.array([s.end_s - s.start_s - WINDOW / SAMPLE_RATE_HZ for s in mine]) + 1e-3
            for name, mine in self.by_speaker.items()
        }
        spoken = np.array([sum(s.end_s - s.start_s for s in mine) for mine in self.by_speaker.values()])
        self.weight = spoken / spoken.sum()

    def __len__(self) -> int:
        return self.config.steps - self.first

    def __getitem__(self, index: int) -> Batch:
        """Read the batch of step ``first + index``: this process's share of its speakers.

        Raises:
            InputError: audio cannot be read any more.
        """
        config = self.config
        chosen, seeds = self._draw(index)
        audio, negatives = [], []
        for speaker, seed in list(zip(chosen, seeds, strict=True))[self.share]:
            generator = np.random.default_rng(seed)
            audio.append(torch.stack([self._window(speaker, generator) for _ in range(config.windows)]))
            negatives.append(generator.integers(config.windows * FRAMES, size=config.negatives))
        return Batch(torch.stack(audio), torch.from_numpy(np.stack(negatives)))

    def names(self, step: int) -> str:
        """The speakers in the batch of ``step``, over all processes."""
        return ", ".join(sorted({self.speakers[each] for each in self._draw(step - self.first)[0]}))

    def _draw(self, index: int) -> tuple[list[int], list[int]]:
        generator = np.random.default_rng([self.config.seed, self.first + index])
        chosen = generator.choice(len(self.speakers), self.config.speakers, p=self.weight)
        return chosen.tolist(), generator.integers(2**63, size=self.config.speakers).tolist()

    def _window(self, speaker: int, generator: np.random.Generator) -> Tensor:
        name = self.speakers[speaker]
        room = self.room[name]
        stretch = int(generator.choice(len(room), p=room / room.sum()))
        mine = self.by_speaker[name][stretch]
        signal = read(mine, mine.start_s + generator.random() * room[stretch], WINDOW)
        low, high = np.log(GAINS)
        return signal * (math.exp(generator.uniform(low, high)) / signal.abs().max().clamp(min=QUIET))


@dataclass
class Progress(resume.Progress):
    """Where a run stands. ``history`` has a row per 20 steps and per check, and columns of ``HISTORY``."""

    loss_sum: float = 0.0  # over the steps since the last row
    accuracy_sum: float = 0.0

    def check(self, last_step: int) -> None:
        """Raise ValueError where no run of ``last_step`` steps can have come to this."""
        super().check(last_step)
        pa.Table.from_pylist(self.history, HISTORY)


@together()
def pretrain(
    encoder: CPCEncoder,
    training: list[Stretch],
    held_back: list[Stretch],
    config: PretrainConfig,
    settings: dict[str, Any],
    folder: str,
    *,
    resumed: bool = False,
    workers: int = 0,
    track: bool = False,
) -> Progress:
    """Train ``encoder``, in place.

    Args:
        training, held_back: speech; the loss on the latter is measured, not learnt from.
        settings: all that the result depends on, as JSON.
        folder: where the run keeps its state.
        resumed: go on from the state in ``folder``, where it is one of the same settings.
        workers: processes that read audio; 0 reads it here.
        track: show the history in Weights & Biases.

    Raises:
        InputError: the loss is not a number, audio cannot be read, or the state cannot be written.
        Stopped: SIGTERM or SIGINT came; the state is saved.
    """
    accelerator = Accelerator(cpu=not torch.accelerator.is_available())
    device, is_main, n = accelerator.device, accelerator.is_main_process, accelerator.num_processes
    if accelerator.gradient_accumulation_steps > 1:
        raise InputError("pretrain: no gradients are accumulated; give more --speakers or --windows instead")
    if config.speakers % n:
        raise InputError(
            f"pretrain: {config.speakers} speakers in a batch cannot be spread over {n} processes"
        )
    if not is_main:
        logging.disable(logging.INFO)
    memory.keep()
    torch.manual_seed(config.seed)
    model = Prediction(encoder, config.ahead)
    adamw = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    network, optimizer = accelerator.prepare(model.train(), adamw)

    progress = Progress()
    if resumed:
        found = resume.load(folder, settings, Progress, model, adamw, lambda found: found.check(config.steps))
        if isinstance(found, str):
            log.info("%s; starting anew", found)
        else:
            progress = found[0]
            log.info("%s: going on at step %d", folder, progress.step)
    progress.run_id = progress.run_id or uuid.uuid4().hex[:8]
    saved_at, saved_step = time.monotonic(), progress.step

    def wrong(what: str, names: str) -> InputError:
        return InputError(
            f"step {progress.step}: {what}; the last good state is {folder}/{resume.RESUME}, of step "
            f"{saved_step}; lower the learning rate, or look at the audio of the speakers: {names}"
        )

    def save() -> None:
        nonlocal saved_at, saved_step
        if is_main:
            parts = {"model": model.state_dict(), "optimizer": resume.moments(model, adamw)}
            resume.save(folder, settings, progress, parts)
        saved_at, saved_step = time.monotonic(), progress.step

    name = "{}/cpc/seed-{}".format(settings["corpus"], config.seed)
    complete = progress.step == config.steps
    share = config.speakers // n
    own = slice(accelerator.process_index * share, (accelerator.process_index + 1) * share)
    checked = Batches(held_back, config, 0, own) if held_back else None
    batches = Batches(training, config, progress.step, own)
    with (
        files.alone(folder) if is_main else contextlib.nullcontext(),
        Requests() as requests,
        contextlib.closing(_read(batches, workers, device)) as reading,
        Tracker(settings, name, progress.run_id, track and is_main and not complete) as tracker,
        tqdm(
            initial=progress.step, total=config.steps, unit="step", disable=None if is_main else True
        ) as bar,
    ):

        def record(measures: dict[str, float]) -> None:
            progress.history.append({"step": progress.step, **measures})
            tracker.log(progress.history[-1])

        if not progress.step:
            save()  # a place that cannot be written is found out before anything is computed
        for batch in reading:
            rate = _learning_rate(progress.step, config)
            for group in adamw.param_groups:
                group["lr"] = rate
            result = network(*batch)
            accelerator.backward(result[0])
            norm = accelerator.clip_grad_norm_(model.parameters(), 10.0)
            stop = torch.tensor(float(requests.received > 0), device=device)
            sums = accelerator.reduce(torch.cat([result.detach(), stop[None]]), "sum").tolist()
            loss, accuracy, stops = sums[0] / n, sums[1] / n, sums[2]
            if not math.isfinite(loss) or not (math.isfinite(float(norm)) or accelerator.scaler):
                raise wrong(f"the loss is {loss}, its gradient {float(norm)}", batches.names(progress.step))
            optimizer.step()
            optimizer.zero_grad()
            progress.step += 1
            progress.loss_sum += loss
            progress.accuracy_sum += accuracy
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}", accuracy=f"{accuracy:.3f}", refresh=False)
            if progress.step % LOG_EVERY == 0:
                means = {"loss": progress.loss_sum, "accuracy": progress.accuracy_sum}
                record({"learning_rate": rate} | {k: v / LOG_EVERY for k, v in means.items()})
                progress.loss_sum = progress.accuracy_sum = 0.0
            if progress.step * CHECKS // config.steps > (progress.step - 1) * CHECKS // config.steps:
                if checked:
                    each = accelerator.reduce(_check(model, checked, device), "mean")
                    for number, held_back_loss in enumerate(each[:, 0].tolist()):
                        if not math.isfinite(held_back_loss):
                            raise wrong(f"the held-back loss is {held_back_loss}", checked.names(number))
                    measured = each.mean(0).tolist()
                    record({"held_back_loss": measured[0], "held_back_accuracy": measured[1]})
                save()
            if stops and progress.step < config.steps:
                save()
                raise Stopped(requests.received or signal.SIGTERM)
            if time.monotonic() - saved_at > SAVE_EVERY_S:
                save()
        if is_main:
            publish(folder, encoder, progress)
        tracker.complete(folder)
    accelerator.end_training()
    encoder.eval()
    return progress


def publish(folder: str, encoder: CPCEncoder, progress: Progress) -> None:
    """Write the encoder and the history; what the encoder holds is rounded as in its file."""
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


@torch.no_grad()
def _check(model: Prediction, batches: Batches, device: torch.device) -> Tensor:
    model.eval()
    parts = [model(*(tensor.to(device) for tensor in batches[i])) for i in range(CHECKED)]
    model.train()
    return torch.stack(parts)


def _learning_rate(step: int, config: PretrainConfig) -> float:
    """The rate of step ``step``: up in a line, down in half a cosine."""
    warm = max(round(WARM_UP * config.steps), 1)
    if step < warm:
        return config.learning_rate * (step + 1) / warm
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(config.steps - warm, 1)))
