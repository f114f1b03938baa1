"""The projection window: what a model predicts at each frame, and what that says about the next turn.

At frame t the window is frames t+1 … t+200 (2 s) of both speakers. The models differ in what they predict
(Ekstedt & Skantze 2022; docs/definitions.md, "The projection window"):

==================  ==================================  ==========================================
model               bins per speaker                    target
==================  ==================================  ==========================================
``discrete``        0.2, 0.4, 0.6, 0.8 s                one of 256 classes
``independent``     0.2, 0.4, 0.6, 0.8 s                (2, 4) bits
``independent-40``  40 of 0.05 s                        (2, 40) bits
``comparative``     none                                speaker A's share of the activity
==================  ==================================  ==========================================
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vap_pipeline.io.errors import InputError
from vap_pipeline.settings.events import FRAME_RATE_HZ

MODELS = ("discrete", "independent", "independent-40", "comparative")
OUTPUTS = {"discrete": 256, "independent": 8, "independent-40": 80, "comparative": 1}

HORIZON_FRAMES = 200
FOUR_PERCENT = (10, 20, 30, 40)
BINS_PERCENT = {"discrete": FOUR_PERCENT, "independent": FOUR_PERCENT, "independent-40": (2.5,) * 40}
NEAR_BINS = {"independent": 2, "independent-40": 12}  # in the first 0.6 s, left out while someone speaks


def bins(model: str, horizon_frames: int = HORIZON_FRAMES) -> tuple[int, ...]:
    """Return the lengths of a model's bins in frames: 20, 40, 60 and 80, or forty of 5, of the paper's 200.

    Raises:
        InputError: the horizon does not divide into whole frames.
    """
    sizes = [share * horizon_frames / 100 for share in BINS_PERCENT.get(model, ())]
    if any(size != int(size) for size in sizes):
        raise InputError(
            f"events.horizon_s is {horizon_frames / FRAME_RATE_HZ:g}; the bins of {model} must be "
            f"whole frames, so give a multiple of {0.4 if model == 'independent-40' else 0.1} s"
        )
    return tuple(map(int, sizes))


def labels(va: Tensor, model: str, horizon_frames: int = HORIZON_FRAMES) -> Tensor:
    """Targets of ``model`` for every frame whose projection window is inside ``va``.

    Args:
        va: (..., frames + horizon, 2) voice activity.
        model: one of ``MODELS``.
        horizon_frames: length of the projection window; the bins are in proportion to it.

    Returns:
        discrete: (..., frames) int64, the class Σ bit_i·2^i over the bits A1 A2 A3 A4 B1 B2 B3 B4.
        independent, independent-40: (..., frames, 2, bins) float32 bits; a bin is 1 when at least half of its
        frames are active.
        comparative: (..., frames) float32, A/(A + B + 1e-9) over the window.
    """
    n = va.shape[-2] - horizon_frames
    active = F.pad(va.cumsum(-2, dtype=torch.int32), (0, 0, 1, 0))  # frames active before frame t

    def count(size: int) -> Tensor:  # frames active in t … t+size−1
        return active[..., size:, :] - active[..., :-size, :]

    if model == "comparative":
        a, b = count(horizon_frames)[..., 1:, :].unbind(-1)
        return a / (a + b + 1e-9)
    sizes = bins(model, horizon_frames)
    half = {size: 2 * count(size) >= size for size in set(sizes)}
    starts = [1 + sum(sizes[:i]) for i in range(len(sizes))]
    bits = torch.stack([half[size].narrow(-2, t, n) for size, t in zip(sizes, starts, strict=True)], dim=-1)
    if model == "discrete":
        place = 2 ** torch.arange(8, dtype=torch.uint8, device=va.device)
        return (bits.flatten(-2) * place).sum(-1)
    return bits.float()


def loss(logits: Tensor, target: Tensor, model: str) -> Tensor:
    """Mean cross-entropy of ``logits`` (..., frames, OUTPUTS[model]) against targets from :func:`labels`."""
    if model == "discrete":
        return F.cross_entropy(logits.flatten(0, -2), target.flatten())
    return F.binary_cross_entropy_with_logits(logits.reshape(target.shape), target)


def probabilities(logits: Tensor, va: Tensor, model: str) -> tuple[Tensor, Tensor | None]:
    """Zero-shot turn-taking probabilities (Ekstedt & Skantze 2022; docs/definitions.md, "Probabilities").

    Who speaks next is asked of the present state. In silence both speakers compete for the turn; while one
    speaks, the question is whether the other takes over; while both speak, who goes on.

    Args:
        logits: (..., frames, OUTPUTS[model]); of the independent models (speaker, bin) flattened, A first.
        va: (..., frames, 2) voice activity in the same frames.
        model: one of ``MODELS``.

    Returns:
        p: (..., frames, 2) float32, the probability that A, B speaks next.
        p_bc: (..., frames, 2) float32, the probability that A, B is about to give a backchannel; None for
        comparative.
    """
    logits = logits.float()
    if model == "comparative":
        p_a = logits.sigmoid()
        return torch.cat([p_a, 1 - p_a], dim=-1), None
    in_silence, in_speech, p_bc = (
        _discrete(logits) if model == "discrete" else _independent(logits, NEAR_BINS[model])
    )
    a_speaks, b_speaks = va.bool().split(1, dim=-1)
    takes_a, takes_b = in_speech.split(1, dim=-1)
    p_a = torch.where(
        a_speaks,
        torch.where(b_speaks, takes_a / (takes_a + takes_b), 1 - takes_b),
        torch.where(b_speaks, takes_a, in_silence[..., :1]),
    )
    return torch.cat([p_a, 1 - p_a], dim=-1), p_bc


def now_and_future(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the 256 states of ``discrete`` say without voice activity (Inoue et al. 2024, arXiv 2401.04868).

    Args:
        logits: (..., frames, 256).

    Returns:
        p_now, p_future: (..., frames, 2), the share of A, B in the expected activity of the first two and of
        the last two bins; the two sum to a little less than 1.
        entropy: (..., frames) of the states, 0 to 8 bits.
    """
    p = logits.float().softmax(-1)
    bits = torch.arange(256, device=logits.device)[:, None] // 2 ** torch.arange(8, device=logits.device) % 2
    active = (p @ bits.float()).unflatten(-1, (2, 2, 2)).sum(-1)  # (..., speaker, now and future)
    now, future = (active / (active.sum(-2, keepdim=True) + 1e-5)).unbind(-1)
    return now, future, -(p * p.clamp(min=1e-37).log()).sum(-1) / math.log(2)


# Both return three probabilities (..., frames, 2) for X = A, B: that X speaks next in silence, that X speaks
# next while someone speaks (a_X of the definitions), and that X is about to give a backchannel.


def _discrete(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # A class is 16 times B's four bits plus A's, the first bin being the lowest bit. So 12 to 15 mean "the
    # last two bins active, the first two free", 8 to 15 "the last bin active", 1 to 7 "some, not the last".
    by_b_a = logits.unflatten(-1, (16, 16))
    by_x_other = (by_b_a.mT, by_b_a)
    late, yielding = slice(12, 16), [0b0000, 0b0001, 0b0011]
    turn = torch.stack([x[..., late, yielding].flatten(-2) for x in by_x_other], dim=-2)
    keep = torch.stack([x[..., 0, late] for x in by_x_other], dim=-2)
    joint = logits.softmax(-1).unflatten(-1, (16, 16))
    p_bc = torch.stack([x[..., 1:8, 8:].sum((-1, -2)) for x in (joint.mT, joint)], dim=-1)
    return _share(keep.flip(-2), keep), _share(turn, keep), p_bc


def _independent(logits: Tensor, near: int) -> tuple[Tensor, Tensor, Tensor]:
    bins = logits.unflatten(-1, (2, -1))
    last, earlier = bins[..., -1].contiguous(), bins[..., :-1].amax(-1)
    p_bc = torch.where((last < last.flip(-1)) & (earlier > last), earlier.sigmoid(), 0.0)
    # All sums in one product: of A and B over all bins, and without the near ones. No sum may be zero.
    summed = torch.zeros(2, bins.shape[-1], 4, device=bins.device)
    summed[0, :, 0] = summed[1, :, 1] = summed[0, near:, 2] = summed[1, near:, 3] = 1
    a, b, far_a, far_b = (logits.sigmoid() @ summed.flatten(0, 1)).clamp(min=1e-37).unbind(-1)
    far_share = far_a / (far_a + far_b)
    return (a / (a + b))[..., None], torch.stack((far_share, 1 - far_share), -1), p_bc


def _share(x: Tensor, other: Tensor) -> Tensor:
    """Σ exp(x) / (Σ exp(x) + Σ exp(other)) over the last dimension; as a softmax, no sum can vanish."""
    return torch.cat([x, other], dim=-1).softmax(-1)[..., : x.shape[-1]].sum(-1).clamp(max=1)
