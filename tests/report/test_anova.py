import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vap_pipeline.artefacts.score_files import SCORES
from vap_pipeline.io.errors import InputError
from vap_pipeline.report import table as report_table
from vap_pipeline.report.__main__ import main
from vap_pipeline.report.anova import compare, holm
from vap_pipeline.report.command import find


def table(
    values: dict[str, list[float]], metric: str = "f1_hold_shift", support: tuple[int, int] = (90, 10)
) -> pa.Table:
    """Scores of models on folds 0, 1, …"""
    return pa.Table.from_pylist(
        [
            {
                "corpus": "small",
                "model": model,
                "fold": fold,
                "seed": fold,
                "metric": metric,
                "level": "frame",
                "value": value,
                "threshold": 0.5,
                "support_0": support[0],
                "support_1": support[1],
            }
            for model, each in values.items()
            for fold, value in enumerate(each)
        ],
        SCORES,
    )


def rows(comparison: pa.Table) -> dict[str, dict]:
    return {row["model"]: row for row in comparison.to_pylist()}


def test_anova_and_t_tests_by_hand():
    # Means .5 and .3, grand mean .4. Between: 3·(.1² + .1²) = .06, df 1. Within: .02 + .02, df 4. F = 6.
    # Pooled variance .01, so unpaired t = .2 / √(.01·2/3) = √6. Differences .1 .4 .1: mean .2, variance .03,
    # paired t = .2 / √(.03/3) = 2.
    found = rows(compare(table({"discrete": [0.4, 0.6, 0.5], "comparative": [0.3, 0.2, 0.4]})))
    assert found["discrete"]["mean"] == pytest.approx(0.5)
    assert found["discrete"]["sd"] == pytest.approx(0.1)
    assert found["discrete"]["difference"] is None
    other = found["comparative"]
    assert (other["df_between"], other["df_within"], other["folds"]) == (1, 4, 3)
    assert other["F"] == pytest.approx(6)
    assert other["difference"] == pytest.approx(0.2)
    assert other["t_unpaired"] == pytest.approx(np.sqrt(6))
    assert other["t_paired"] == pytest.approx(2)
    # F with 1 and n degrees of freedom is t²; Student's t with 2 degrees: P(|T| > t) = 1 − t/√(t² + 2).
    assert other["p"] == pytest.approx(other["p_unpaired"])
    assert other["p_paired"] == pytest.approx(1 - 2 / np.sqrt(6))
    assert other["p_paired_holm"] == pytest.approx(other["p_paired"])  # a single comparison


def test_pairs_are_of_the_same_fold_whatever_the_order_of_the_rows():
    ordered = table({"discrete": [0.4, 0.6, 0.5], "comparative": [0.3, 0.2, 0.4]})
    shuffled = ordered.take([3, 2, 5, 0, 4, 1])
    assert rows(compare(shuffled))["comparative"]["t_paired"] == pytest.approx(2)


def test_holm_by_hand():
    # Smallest .01·4 = .04; .02·3 = .06; .03·2 = .06, not below what comes before; .9·1.
    assert holm([0.02, 0.9, 0.01, 0.03]) == pytest.approx([0.06, 0.9, 0.04, 0.06])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []


def test_comparisons_of_one_score_are_corrected_together():
    values = {"discrete": [0.9, 0.8, 0.85], "independent": [0.7, 0.65, 0.7], "comparative": [0.8, 0.82, 0.79]}
    found = rows(compare(table(values)))
    raw = [found[model]["p_unpaired"] for model in ("independent", "comparative")]
    assert [found[model]["p_unpaired_holm"] for model in ("independent", "comparative")] == holm(raw)
    assert min(raw) * 2 == pytest.approx(min(holm(raw)))


def test_one_fold_has_no_deviation_and_no_test():
    comparison = compare(table({"discrete": [0.5], "comparative": [0.4]}))
    for row in comparison.to_pylist():
        assert row["mean"] is not None
        assert row["sd"] is None and row["F"] is None and row["p_paired"] is None
    text = report_table.report(
        "small", ["random-seed0"], table({"discrete": [0.5]}), compare(table({"discrete": [0.5]}))
    )
    assert "| discrete | .500 | (–) | – | – | – |" in text
    assert "more than one fold" in text


def test_values_without_variance_have_no_t():
    found = rows(compare(table({"discrete": [0.5, 0.5], "comparative": [0.4, 0.4]})))
    assert found["comparative"]["t_paired"] is None
    assert found["comparative"]["F"] is None
    report_table.report(
        "small", ["random-seed0"], table({"discrete": [0.5, 0.5]}), compare(table({"discrete": [0.5, 0.5]}))
    )


def test_losses_are_not_compared():
    found = rows(compare(table({"discrete": [2.0, 2.1], "comparative": [0.5, 0.6]}, "loss")))
    assert found["discrete"]["mean"] == pytest.approx(2.05)
    assert found["comparative"]["p"] is None


def test_table_of_switchboard_shows_the_published_rows():
    scores = table({"discrete": [0.9, 0.8], "comparative": [0.7, 0.7]})
    text = report_table.report("switchboard", ["60k.pt"], scores, compare(scores))
    lines = text.splitlines()
    at = lines.index("| discrete | .850 ± .071 | (–) | – | – | – |")
    assert lines[at + 1] == "| *published* | *.899* | (*.510*) | *.786* | *.733* | *.723* |"
    assert "*published*" not in report_table.report("sample", ["random-seed0"], scores, compare(scores))
    # 90 holds, 10 shifts: always hold has F1 180/190 for holds, 0 for shifts; weighted .9 · 180/190.
    assert f"| majority class | {0.9 * 180 / 190:.3f}".replace("0.", ".") in text


def test_majority_of_shifts():
    scores = pa.concat_tables(
        [table({"discrete": [0.9]}, metric, support=(10, 30)) for metric in ("f1_hold_shift", "f1_shift")]
    )
    always = report_table.metrics(scores, compare(scores))[report_table.MAJORITY]
    assert always["f1_shift"] == pytest.approx(60 / 70, abs=1e-4)  # precision 30/40, recall 1
    assert always["f1_hold_shift"] == pytest.approx(0.75 * 60 / 70, abs=1e-4)


def write(folder: Path, model: str, fold: int) -> None:
    (folder / model).mkdir(parents=True, exist_ok=True)
    rows = pa.concat_tables([table({model: [0.5]}), table({model: [0.5]}, "loss")])
    pq.write_table(rows, folder / model / f"fold-{fold}.parquet")


def test_missing_scores_are_named_with_the_command_that_makes_them(tmp_path: Path):
    for fold in range(2):
        write(tmp_path, "discrete", fold)
    write(tmp_path, "comparative", 0)
    (tmp_path / "discrete" / "fold-0.events.parquet").touch()
    assert list(find(str(tmp_path), "small", ["discrete"])) == [("discrete", 0), ("discrete", 1)]
    with pytest.raises(
        InputError, match=r"comparative on fold 1;.*--corpus small --model comparative --fold 1"
    ):
        find(str(tmp_path), "small")
    with pytest.raises(InputError, match="discrete on fold 2 and 1 others"):
        find(str(tmp_path), "small", ["discrete", "comparative"], [0, 2])
    with pytest.raises(InputError, match="vap-evaluate score --corpus small"):
        find(str(tmp_path / "nowhere"), "small")


def test_scores_of_another_run_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write(tmp_path, "discrete", 0)
    (tmp_path / "discrete" / "fold-0.parquet").rename(tmp_path / "discrete" / "fold-1.parquet")
    assert main(["--corpus", "nowhere", "--scores", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "fold-1.parquet: scores of discrete on fold 0; run" in capsys.readouterr().err


def test_command_says_in_one_line_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["--corpus", "nowhere", "--scores", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("vap-anova: error: ") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_report_needs_no_torch():
    code = (
        "import sys; from vap_pipeline.report import anova, command, figures, table; import scipy.stats; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_command_writes_the_report_of_scored_models(corpus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from vap_pipeline.evaluate.__main__ import main as evaluate

    monkeypatch.chdir(corpus.root)
    scores = tmp_path / "scores"
    for model in "discrete", "comparative":
        for fold in 0, 1:
            out = scores / model / f"fold-{fold}.parquet"
            flags = ["--model", model, "--fold", str(fold), "--out", str(out), "--device", "cpu"]
            assert evaluate(["score", "--corpus", "small", *flags]) == 0
    assert main(["--corpus", "small", "--scores", str(scores), "--out", str(tmp_path / "report")]) == 0
    text = (tmp_path / "report" / "table.md").read_text()
    means = json.loads((tmp_path / "report" / "metrics.json").read_text())
    found = pq.read_table(tmp_path / "report" / "anova.parquet").to_pylist()
    values = [
        pq.read_table(scores / "discrete" / f"fold-{fold}.parquet").to_pylist()[0]["value"] for fold in (0, 1)
    ]
    assert means["discrete"]["f1_hold_shift"] == pytest.approx(np.mean(values), abs=1e-4)
    assert "weights random-seed0" in text
    assert f"| discrete | {np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}".replace("0.", ".") in text
    assert {row["level"] for row in found} == {"frame", "event"}
    assert "f1_predict_backchannel" not in means["comparative"]
    for name in "precision_recall.png", "timeline.png":
        content = (tmp_path / "report" / name).read_bytes()
        assert content[:8] == b"\x89PNG\r\n\x1a\n" and len(content) > 20_000
    import pyarrow.csv

    points = pyarrow.csv.read_csv(io.BytesIO((tmp_path / "report" / "precision_recall.csv").read_bytes()))
    assert points.column_names == ["task", "model", "recall", "precision"]
    assert set(points["model"].to_pylist()) == {"discrete", "comparative"}


def test_events_whose_scores_a_kill_has_taken_are_missed(tmp_path: Path):
    write(tmp_path, "discrete", 0)
    (tmp_path / "discrete" / "fold-1.events.parquet").touch()
    with pytest.raises(InputError, match="no scores of discrete on fold 1"):
        find(str(tmp_path), "small")


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    nowhere = "http://127.0.0.1:9/scores"
    assert main(["--corpus", "small", "--scores", nowhere, "--out", str(tmp_path)]) == 2
    assert nowhere in capsys.readouterr().err.splitlines()[-1]
