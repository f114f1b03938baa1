"""Settings: where they come from, and what is refused."""

import pytest
from vap_pipeline.train.settings import TrainConfig, model_sizes, train_config

from vap_pipeline.io.errors import InputError
from vap_pipeline.runtime import command
from vap_pipeline.train.__main__ import main, parser


def parse(*flags):
    return parser().parse_args(["--model", "discrete", "--fold", "0", *flags])


def test_a_flag_overrides_the_corpus_and_that_the_default():
    corpus = {"name": "x", "train": {"learning_rate": "1e-2", "betas": [0.8, 0.9], "batch": 7}}
    chosen = train_config(parse("--batch", "8", "--betas", "0.1", "0.2"), corpus)
    assert chosen == TrainConfig(batch=8, learning_rate=0.01, betas=(0.1, 0.2))
    assert model_sizes(parse("--width", "8"), {"name": "x", "model": {"width": 4, "dropout": 0}}) == {
        "width": 8,
        "dropout": 0.0,
    }


def test_defaults_are_the_papers():
    """Ekstedt & Skantze 2022, section 3.3, and for Switchboard in params.yaml."""
    paper = TrainConfig(
        50, 3.63e-4, (0.9, 0.999), 0.001, epochs=100, checks_per_epoch=2, patience=20, swap=0.5
    )
    switchboard = command.read_corpus(corpus="switchboard")
    assert train_config(parse(), {"name": "x"}) == paper == train_config(parse(), switchboard)
    sizes = {"width": 256, "layers": 4, "heads": 4, "feedforward": 768, "dropout": 0.1}
    assert model_sizes(parse(), switchboard) == sizes


@pytest.mark.parametrize(
    ("section", "content", "match"),
    [
        ("train", {"lr": 1}, "unknown setting 'lr'"),
        ("model", {"model": "discrete"}, "unknown setting 'model'"),
        ("train", [1], "not a section"),
        ("train", {"batch": "many"}, "train.batch: not a number"),
        ("train", {"batch": 1.5}, "train.batch: must be whole"),
        ("train", {"betas": 0.9}, "train.betas: not a number"),
        ("train", {"betas": [0.9]}, "two numbers"),
        ("train", {"batch": 0}, "at least 1"),
        ("train", {"learning_rate": float("nan")}, "learning_rate"),
        ("train", {"swap": 2}, "probability"),
        ("train", {"seed": -1}, "seed"),
    ],
)
def test_a_wrong_setting_is_named(section, content, match):
    corpus = {"name": "x", section: content}
    with pytest.raises(InputError, match=match):
        train_config(parse(), corpus)
        model_sizes(parse(), corpus)


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (["--model", "best"], "model 'best' is unknown"),
        (["--heads", "3"], "multiple of the 3 heads"),
        (["--fold", "9"], "fold 9"),
        (["--store", "nowhere"], "nowhere"),
        (["--manifest", "nowhere"], "nowhere"),
        (["--params", "nowhere"], "nowhere"),
        (["--out", "/dev/null/x"], "cannot be written"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_line(arguments, tmp_path, capsys, monkeypatch, flags, match):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert main([*arguments(tmp_path / "out"), *flags]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert match in lines[-1] and lines[-1].startswith("vap-train: error:")
    assert not (tmp_path / "out").exists()


def test_help_says_what_is_read_and_written(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    for word in (
        "features.zarr",
        "data_manifest",
        "model.safetensors",
        "--resume",
        "accelerate launch",
        "0.000363",
    ):
        assert word in text


def test_a_store_of_other_weights_than_the_settings_say_is_refused(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tiny").symlink_to(corpus)
    (tmp_path / "params.yaml").write_text("tiny: {extract: {weights: random, seed: 3}}\n")
    flags = ["--corpus", "tiny", "--manifest", str(corpus / "manifest"), "--model", "discrete", "--fold", "0"]
    assert main(flags) == 2
    error = capsys.readouterr().err
    assert "encoder.weights is None, expected 'random-seed3'" in error and error.count("\n") == 1
