"""The command's settings: what is refused in one line, and what --help says."""

import pytest

from vap_pipeline.train.__main__ import main


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (["--model", "best"], "it must be one of discrete"),
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
    assert "encoder.weights was None, is random-seed3" in error and error.count("\n") == 1
