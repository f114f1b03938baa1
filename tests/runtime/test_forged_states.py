"""States that were forged, checksum and all: they are told from those that a run can have left."""

import json

import pytest
import safetensors.torch
import torch
from torch import nn

from vap_pipeline.pretrain.loop import Progress as Pretraining
from vap_pipeline.runtime import resume
from vap_pipeline.train.progress import Progress as Training

NAN = float("nan")
SETTINGS = {"seed": 1}
TOLD = {"hold_shift": {"frame": 0.5}}
LEFT = [
    Training(
        step=4,
        run_id="0123abcd",
        history=[
            {"step": 2, "epoch": 0.5, "validation_loss": 0.5, "f1_shift": NAN},
            {"step": 4, "epoch": 1.0, "validation_loss": 0.4},
        ],
        checks=2,
        best_check=1,
        best_quality=0.5,
        logged=4,
    ),
    Pretraining(step=4, run_id="0123abcd", history=[{"step": 2, "loss": 1.0}]),
]


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def load(folder, kind):
    torch.manual_seed(1)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    untouched = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def possible(progress):
        progress.check(8)

    found = resume.load(str(folder), SETTINGS, kind, model, optimizer, possible)
    if isinstance(found, str):
        assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in untouched.items())
        assert not optimizer.state
    return found, model, optimizer


def save(folder, progress):
    model, optimizer = trained()
    parts = {"model": model.state_dict(), "optimizer": resume.moments(model, optimizer)}
    if isinstance(progress, Training):
        parts["best"] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    resume.save(str(folder), SETTINGS, progress, parts)
    return model, optimizer


def forge(folder, change):
    tensors, header = resume.unpack((folder / resume.RESUME).read_bytes())
    progress = json.loads(header["progress"])
    tensors = change(tensors, progress) or tensors
    header = {"settings": header["settings"], "progress": json.dumps(progress)}
    header["sha256"] = resume.digest(header, tensors)
    (folder / resume.RESUME).write_bytes(safetensors.torch.save(tensors, header))


@pytest.mark.parametrize("progress", LEFT)
def test_a_state_that_was_left_is_gone_on_with(tmp_path, progress):
    model, optimizer = save(tmp_path, progress)
    (found, _), restored, again = load(tmp_path, type(progress))
    assert repr(found) == repr(progress)
    for one, other in zip(model.parameters(), restored.parameters(), strict=True):
        assert torch.equal(one, other)
        assert all(torch.equal(optimizer.state[one][key], again.state[other][key]) for key in resume.MOMENTS)


def says(**what):
    return lambda tensors, progress: progress.update(what)


def without(*names):
    return lambda tensors, progress: {n: t for n, t in tensors.items() if not n.startswith(names)}


def has(name, tensor):
    return lambda tensors, progress: tensors | {name: tensor}


BOTH = {
    "a step in words": says(step="x"),
    "half a step": says(step=1.5),
    "before the first step": says(step=-5),
    "after the last step": says(step=9),
    "a step for yes": says(step=True),
    "another field": says(zzz=1),
    "history in words": says(history="x"),
    "a row in words": says(history=["x"]),
    "a row without its step": says(history=[{"loss": 1.0}]),
    "a row of a step to come": says(history=[{"step": 5}]),
    "a step beyond all numbers": says(history=[{"step": 2**70}]),
    "no optimizer": without("optimizer."),
    "an optimizer of more steps": has("optimizer.weight.step", torch.tensor(5.0)),
    "an optimizer of no steps": has("optimizer.weight.step", torch.tensor(0.0)),
    "moments that are no numbers": has("optimizer.weight.exp_avg", torch.full((2, 3), NAN)),
    "weights that are no numbers": has("model.weight", torch.full((2, 3), NAN)),
    "a step of the history in words": says(history=[{"step": "x"}]),
    "a run that leads elsewhere": says(run_id="../../x"),
    "no model": without("model."),
    "half a model": without("model.weight"),
    "another shape": has("model.weight", torch.zeros(3)),
    "another type": has("model.weight", torch.zeros(2, 3, dtype=torch.int64)),
    "a tensor of nobody's": has("zzz", torch.zeros(1)),
    "half an optimizer": without("optimizer.weight"),
    "a moment of nobody's": has("optimizer.zzz.exp_avg", torch.zeros(2)),
    "a moment of another shape": has("optimizer.weight.exp_avg", torch.zeros(3)),
    "a step of a vector": has("optimizer.weight.step", torch.zeros(3)),
}
OF_TRAINING = {
    "the best check at none": says(best_row=99),
    "checks without end": says(checks=10**9),
    "the best of no checks": says(checks=0),
    "finished before it began": says(finished=True, checks=0, best_check=0),
    "finished in words": says(finished="x"),
    "a quality in words": says(best_quality="x"),
    "no history": says(history=[]),
    "a best check that was none": says(best_quality=None),
    "logged after now": says(logged=5),
    "thresholds of nothing": says(thresholds=[]),
    "thresholds of one task": says(thresholds=TOLD),
    "half of the best": without("best.weight"),
    "no best": without("best."),
}


@pytest.mark.parametrize(
    ("progress", "change"),
    [(progress, change) for progress in LEFT for change in BOTH.values()]
    + [(LEFT[0], change) for change in OF_TRAINING.values()],
    ids=[f"{kind}: {what}" for kind in ("train", "pretrain") for what in BOTH] + list(OF_TRAINING),
)
def test_a_forged_state_is_damaged(tmp_path, progress, change):
    save(tmp_path, progress)
    forge(tmp_path, change)
    found, _, _ = load(tmp_path, type(progress))
    assert isinstance(found, str) and f"{resume.RESUME} is damaged (" in found
