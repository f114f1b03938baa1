"""params.yaml: what it may say, at every level, and what is refused."""

import argparse
import difflib
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from vap_pipeline.io.errors import InputError
from vap_pipeline.settings.corpus import Corpus
from vap_pipeline.settings.events import EventSettings
from vap_pipeline.settings.fields import Section, add_flags, given_flags, override
from vap_pipeline.settings.params import read_corpus
from vap_pipeline.settings.train import ModelSettings, TrainSettings

ROOT = Path(__file__).parents[2]


def read(tmp_path: Path, section: object, name: str | None = "tiny") -> Corpus:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({"tiny": section, "corpus": section}))
    return read_corpus(path, name)


def refused(tmp_path: Path, section: object) -> str:
    with pytest.raises(InputError) as raised:
        read(tmp_path, section)
    message = str(raised.value)
    assert message.startswith(f"{tmp_path / 'params.yaml'}: ") and "\n" not in message
    return message


def sections(
    section: type[Section], path: tuple[str, ...] = ()
) -> list[tuple[tuple[str, ...], type[Section]]]:
    inner = [(field.name, field.default_factory) for field in fields(section) if not field.metadata]
    return [(path, section)] + [each for name, kind in inner for each in sections(kind, (*path, name))]


@pytest.mark.parametrize(("path", "section"), sections(Corpus), ids=lambda value: str(value))
def test_an_unknown_key_is_refused_by_name_at_every_level_with_the_nearest(tmp_path, path, section):
    known = [field.name for field in fields(section)]
    for name in known:
        wrong = name[:-2] + name[-1] + name[-2] if name[-2:] != name[-2:][::-1] else name + "s"
        given: dict = {wrong: 1}
        for key in reversed(path):
            given = {key: given}
        message = refused(tmp_path, {"name": "tiny"} | given)
        nearest = difflib.get_close_matches(wrong, known, 1)
        assert f"{'.'.join(('tiny', *path))}: unknown setting '{wrong}'" in message
        assert not nearest or f"did you mean '{nearest[0]}'?" in message


def test_what_trained_a_full_size_model_without_a_word(tmp_path):
    assert "tiny: unknown setting 'modle'; did you mean 'model'?" in refused(
        tmp_path, {"modle": {"width": 16}}
    )


def test_a_misspelled_key_outside_a_section(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("corpus: {name: tiny}\nlunch: python\n")
    with pytest.raises(InputError, match="unknown setting 'lunch'; did you mean 'launch'"):
        read_corpus(path)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"train": {"epochs": 1.5}}, "tiny.train.epochs is 1.5; it must be a whole number"),
        ({"train": {"epochs": True}}, "it must be a whole number"),
        ({"train": {"epochs": 0}}, "tiny.train.epochs is 0; it must be at least 1"),
        ({"train": {"learning_rate": "fast"}}, "it must be a number"),
        ({"train": {"learning_rate": float("nan")}}, "it must be a number"),
        ({"train": {"learning_rate": 0}}, "it must be more than 0"),
        ({"train": {"swap": 1.1}}, "it must be at least 0 and at most 1"),
        ({"train": {"betas": [0.9]}}, "it must be 2 numbers"),
        ({"train": {"betas": [0.9, 1.0]}}, "both must be at least 0 and less than 1"),
        ({"train": {"seed": 1 << 32}}, "it must be at least 0 and at most"),
        ({"train": [1]}, "tiny.train is [1]; give a section of settings"),
        ({"model": {"width": 10, "heads": 4}}, "even and a multiple of the 4 heads"),
        ({"models": "discrete"}, "it must be a list of names"),
        ({"models": [1]}, "it must be a list of names"),
        ({"folds": ["a"]}, "it must be a list of whole numbers"),
        ({"extract": {"backend": "other"}}, "it must be one of native, cpc_audio"),
        ({"extract": {"download": "yes"}}, "it must be true or false"),
        ({"pretrain": {"recurrent": "CNN"}}, "it must be one of LSTM, GRU, RNN"),
        ({"audio": 3}, "it must be a path"),
        ({"name": "my calls"}, "a corpus cannot be called 'my calls'"),
        ({"name": "../up"}, "a corpus cannot be called '../up'"),
        ({"name": "a;b"}, "a corpus cannot be called 'a;b'"),
    ],
)
def test_values_that_are_refused(tmp_path, section, message):
    section = {"name": "tiny"} | section
    if section["name"] != "tiny":
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump({"corpus": section}))
        with pytest.raises(InputError) as raised:
            read_corpus(path)
        assert message in str(raised.value)
    else:
        assert message in refused(tmp_path, section)


def test_yaml_s_text_numbers_and_empty_values(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("tiny:\n  train: {learning_rate: 5e-4, epochs: 2.0}\n  model:\n  audio:\n")
    corpus = read_corpus(path, "tiny")
    assert (corpus.train.learning_rate, corpus.train.epochs) == (5e-4, 2)
    assert corpus.model == ModelSettings() and corpus.audio is None


def test_paths_start_from_the_file_and_tilde_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "w.pt").touch()
    section = {"audio": "recordings", "transcripts": "~/ms98", "features": "s3://bucket/x.zarr"}
    corpus = read(tmp_path, section | {"extract": {"weights": "w.pt"}})
    assert corpus.audio == tmp_path / "recordings"
    assert corpus.transcripts == tmp_path / "home" / "ms98"
    assert corpus.features == "s3://bucket/x.zarr"
    assert corpus.extract.weights == str(tmp_path / "w.pt")
    assert read(tmp_path, {"extract": {"weights": "telephone-small"}}).extract.weights == "telephone-small"
    assert read(tmp_path, {"extract": {"weights": "a/b.pt"}}).extract.weights == str(tmp_path / "a" / "b.pt")
    assert read(tmp_path, {"features": "x.zarr"}).store == str(tmp_path / "x.zarr")


def test_a_corpus_without_a_section_has_the_defaults_and_says_so(tmp_path, caplog):
    caplog.set_level("INFO")
    path = tmp_path / "params.yaml"
    path.write_text("switchbord: {train: {epochs: 3}}\ncorpus: {name: tiny}\n")
    assert read_corpus(path, "switchboard").train == TrainSettings()
    assert "no section 'switchboard' (did you mean 'switchbord'?), so the defaults hold" in caplog.text


def test_without_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_corpus(name="calls").store == "data/calls/features.zarr"
    assert read_corpus().name == "switchboard"
    with pytest.raises(InputError, match=r"other.yaml: no such settings file"):
        read_corpus(Path("other.yaml"))


@pytest.mark.parametrize(
    "text", ["x: [", "x: !!timestamp foo", "x: !!int ''", "- 1", "corpus: *nobody", "corpus: 3", "a: &a [*a]"]
)
def test_files_that_are_no_settings(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"params.yaml: "):
        read_corpus(path)


@pytest.mark.parametrize("section", [TrainSettings, ModelSettings, EventSettings])
def test_every_setting_has_a_flag_that_overrides_it(section):
    parser = argparse.ArgumentParser()
    add_flags(parser, section, "title")
    shown = parser.format_help()
    assert not given_flags(parser.parse_args([]), section)
    for path, name in [((field.name,), field.name) for field in fields(section) if field.metadata]:
        assert f"--{name.replace('_', '-')} " in shown, path
    if section is EventSettings:
        args = parser.parse_args(["--hs-pre-offset-shift", "0.5", "--metric-pad", "0.1", "--hop-s", "5"])
        changed = override(EventSettings(), args)
        assert (changed.hs.pre_offset_shift, changed.metric.pad, changed.hop_s) == (0.5, 0.1, 5)
        assert changed.complete().hs.metric_pad == 0.1  # follows metric.pad
    if section is TrainSettings:
        args = parser.parse_args(["--betas", "0.8", "0.99", "--epochs", "7"])
        assert override(TrainSettings(), args) == TrainSettings(betas=(0.8, 0.99), epochs=7)
        for name, value in (("epochs", "0"), ("swap", "2.0")):
            with pytest.raises(InputError, match=rf"train.{name} is {value}; it must be at least"):
                override(TrainSettings(), parser.parse_args([f"--{name}", value]))
        with pytest.raises(SystemExit):
            parser.parse_args(["--epochs", "x"])


def test_the_shipped_settings_are_read():
    for name in ("sample", "switchboard", None):
        corpus = read_corpus(ROOT / "params.yaml", name)
        assert len(corpus.models) == 4 and corpus.events == EventSettings()
    paper = read_corpus(ROOT / "params.yaml", "switchboard")
    assert (paper.train, paper.model) == (TrainSettings(), ModelSettings())
