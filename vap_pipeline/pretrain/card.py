"""The model card of an encoder: its speech, its training and its measured quality."""

from typing import Any

from vap_pipeline.audio.rates import SAMPLE_RATE_HZ
from vap_pipeline.pretrain.batches import WINDOW_SAMPLES
from vap_pipeline.pretrain.loop import Progress
from vap_pipeline.pretrain.speech import Stretch


def card(
    settings: dict[str, Any],
    progress: Progress,
    training: list[Stretch],
    held_back: list[Stretch],
    measured: str,
) -> str:
    """Return the card in Markdown.

    Args:
        settings, progress: of the run (see :func:`vap_pipeline.pretrain.loop.pretrain`).
        training, held_back: its speech.
        measured: the table of the probes.
    """
    config, sizes = settings["pretrain"], settings["encoder"]
    heard_h = progress.step * config["speakers"] * config["windows"] * WINDOW_SAMPLES / SAMPLE_RATE_HZ / 3600
    checks = [row for row in progress.history if "held_back_loss" in row]
    result = "not measured"
    if checks:
        result = (
            f"loss {checks[-1]['held_back_loss']:.3f}; future frames recognised: "
            f"{checks[-1]['held_back_accuracy']:.1%} (by chance {1 / (1 + config['negatives']):.1%})"
        )
    return f"""\
# CPC encoder, trained on {settings["corpus"]}

- **Network:** five convolutions of {sizes["hiddenEncoder"]} channels, {sizes["arMode"]} {sizes["hiddenGar"]}
  wide, {sizes["nLevelsGRU"]} deep; 100 features a second of 16 kHz audio.
- **Speech:** {settings["corpus"]}: {_amount(training)}; held back: {_amount(held_back)}.
- **Training:** contrastive predictive coding from {settings["start"]["weights"]}, {progress.step} steps of
  {config["speakers"]} x {config["windows"]} windows of 1.28 s, {heard_h:.1f} h heard in all;
  {config["negatives"]} negatives of the same speaker, {config["ahead"]} frames ahead; AdamW,
  {config["learning_rate"]:g}, cosine; seed {config["seed"]}.
- **On held-back conversations:** {result}.

Linear probes of single frames on held-back conversations; phones on synthetic speech:

{measured}"""


def _amount(stretches: list[Stretch]) -> str:
    hours = sum(stretch.end_s - stretch.start_s for stretch in stretches) / 3600
    return f"{hours:.2f} h of {len({stretch.speaker for stretch in stretches})} speakers"
