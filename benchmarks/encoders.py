"""What an encoder's weights are worth for turn-taking: a corpus's models on one encoder and on another.

    python -m benchmarks.encoders [--corpus sample] [--weights telephone-small random] [--seeds 0 1 2]

Encodes the corpus with either weights, trains and scores all its models on all its folds with each of the
seeds, and prints weighted F1 over frames: the mean over folds and seeds, and by how much the first weights do
better, with the standard error of that over the trainings, of which each has its pair. The corpus's audio and
manifest must be there, as `dvc repro` leaves them.
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean

import numpy as np
from tqdm import tqdm

from benchmarks import machine
from vap_pipeline.artefacts import score_files
from vap_pipeline.io.markdown import ABSENT
from vap_pipeline.settings.params import PARAMS, read_corpus
from vap_pipeline.turn_taking.published import COLUMNS

Found = dict[str, list[float]]  # by metric: the values of all folds and seeds


def run(stage: str, *flags: str | Path) -> None:
    """Run a command of the pipeline; end with its message where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", f"vap_pipeline.{stage}", *map(str, flags)],
        env=os.environ | {"WANDB_MODE": "disabled"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)


def score(corpus: list[str], weights: str, runs: list[tuple[str, str, str]], out: Path) -> dict[str, Found]:
    """Return the scores, by model, on the corpus encoded by ``weights``.

    Args:
        corpus: the flags that name it.
        runs: a model, a fold and a seed each.
        out: folder for all that is written.
    """
    store, found = out / "features.zarr", dict[str, Found]()
    run("extract", *corpus, "--weights", weights, "--out", store)
    for model, fold, seed in tqdm(runs, weights, unit=" trainings", disable=None):
        which = (*corpus, "--model", model, "--fold", fold, "--store", str(store))
        run("train", *which, "--seed", seed, "--out", out / "checkpoint")
        run("evaluate", "score", *which, "--checkpoint", out / "checkpoint", "--out", out / "scores.parquet")
        for row in score_files.read_scores(str(out / "scores.parquet")).to_pylist():
            if row["level"] == "frame" and row["metric"] in COLUMNS.values():
                found.setdefault(model, {}).setdefault(row["metric"], []).append(row["value"])
    return found


def table(scores: dict[str, dict[str, Found]]) -> str:
    """The means of either weights and their difference, for each model and for all together."""
    first, second = scores
    rows: list[list[str]] = []
    for model in (*scores[first], "all"):
        of = {
            weights: [
                [value for name in found if model in (name, "all") for value in found[name].get(metric, [])]
                for metric in COLUMNS.values()
            ]
            for weights, found in scores.items()
        }
        for weights, columns in of.items():
            rows.append(
                [model, weights, *(f"{mean(values):.3f}" if values else ABSENT for values in columns)]
            )
        differences = [np.subtract(*pair) for pair in zip(of[first], of[second], strict=True)]
        rows.append([model, "difference", *map(_mean, differences)])
    return machine.table(["model", "weights", *COLUMNS], rows)


def _mean(differences: np.ndarray) -> str:
    if len(differences) < 2:
        return ABSENT
    return f"{differences.mean():+.3f} ± {differences.std(ddof=1) / len(differences) ** 0.5:.3f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", default="sample")
    parser.add_argument("--params", type=Path, default=PARAMS)
    parser.add_argument("--weights", nargs=2, default=("telephone-small", "random"))
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2"])
    args = parser.parse_args()
    settings = read_corpus(args.params, args.corpus)
    runs = list(itertools.product(settings.models, map(str, settings.folds), args.seeds))
    corpus = ["--corpus", args.corpus, "--params", str(args.params)]
    scores = {}
    for weights in args.weights:
        with tempfile.TemporaryDirectory() as out:
            scores[weights] = score(corpus, weights, runs, Path(out))
    print(f"## {args.corpus}: {' against '.join(args.weights)}\n\n{machine.name()}\n")
    print(table(scores))


if __name__ == "__main__":
    main()
