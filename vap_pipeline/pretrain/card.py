"""The model card of an encoder: what it has heard, how it was trained, and what it is worth."""

from typing import Any

from vap_pipeline.audio.rates import SAMPLE_RATE_HZ
from vap_pipeline.pretrain.loop import WINDOW_SAMPLES, Progress
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
    lines = [
        f"# CPC encoder, trained on {settings['corpus']}",
        "",
        f"- **Network:** five convolutions of {sizes['hiddenEncoder']} channels, {sizes['arMode']} "
        f"{sizes['hiddenGar']} wide, {sizes['nLevelsGRU']} deep; 100 features a second of 16 kHz audio.",
        f"- **Speech:** {settings['corpus']}: {_amount(training)}; held back: {_amount(held_back)}.",
        f"- **Training:** contrastive predictive coding from {settings['start']['weights']}, "
        f"{progress.step} steps of {config['speakers']} x {config['windows']} windows of 1.28 s, "
        f"{heard_h:.1f} h heard in all; "
        f"{config['negatives']} negatives of the same speaker, {config['ahead']} frames ahead; AdamW, "
        f"{config['learning_rate']:g}, cosine; seed {config['seed']}.",
    ]
    if checks:
        lines.append(
            f"- **On held-back conversations:** loss {checks[-1]['held_back_loss']:.3f}; frames ahead "
            f"recognised: {checks[-1]['held_back_accuracy']:.1%} "
            f"(by chance {1 / (1 + config['negatives']):.1%})."
        )
    lines += [
        "",
        "Linear probes of single frames on held-back conversations; phones on synthetic speech:",
        "",
        measured,
    ]
    return "\n".join(lines)


def _amount(stretches: list[Stretch]) -> str:
    hours = sum(each.end_s - each.start_s for each in stretches) / 3600
    return f"{hours:.2f} h of {len({each.speaker for each in stretches})} speakers"
