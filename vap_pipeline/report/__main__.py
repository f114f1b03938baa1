"""``vap-anova``: compare the models over the folds, and write the report."""

import argparse
import json
import logging

from vap_pipeline.io.errors import InputError
from vap_pipeline.runtime import command
from vap_pipeline.settings.params import add_corpus, read_corpus

log = logging.getLogger(__name__)

DESCRIPTION = """\
Compare the models over the folds: a one-way ANOVA per score, then t-tests of the discrete model against each
other, unpaired as published and paired, raw and corrected for their number (Holm).

reads   scores/CORPUS/MODEL/fold-K.parquet, …events.parquet, …timeline.parquet of all models and folds
writes  table.md                means and deviations in the layout of the paper's Table 1, and the tests
        anova.parquet           the same, a row per score, level and model
        metrics.json            the means, for `dvc metrics show`
        precision_recall.png    the four tasks, a curve per model; the points in precision_recall.csv
        timeline.png            half a minute of one conversation, as the discrete model sees it"""


def main(argv: list[str] | None = None) -> int:
    """Run ``vap-anova`` and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="vap-anova",
        description=DESCRIPTION,
        epilog="example: vap-anova --corpus sample",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_corpus(parser)
    parser.add_argument("--scores", metavar="DIR", help="folder of the scores (default: scores/CORPUS)")
    parser.add_argument("--out", metavar="DIR", help="folder of the report (default: reports/CORPUS)")
    return command.run(_run, parser, argv)


def _run(args: argparse.Namespace) -> None:
    import pyarrow as pa

    from vap_pipeline.artefacts import score_files
    from vap_pipeline.io import files, parquet
    from vap_pipeline.report import figures
    from vap_pipeline.report import table as report
    from vap_pipeline.report.anova import REFERENCE, compare, find

    settings = read_corpus(args.params, args.corpus)
    corpus = settings.name
    folder, out = args.scores or f"scores/{corpus}", args.out or f"reports/{corpus}"
    paths = find(folder, corpus, settings.models, settings.folds)
    found = {run: score_files.read_scores(path) for run, path in paths.items()}
    for run, each in found.items():
        if (of := (each["model"][0].as_py(), each["fold"][0].as_py())) != run:
            raise InputError(f"{paths[run]}: scores of {of[0]} on fold {of[1]}; {score_files.CURE}")
    scores = pa.concat_tables(found.values())
    encoders = {(each.schema.metadata or {}).get(b"encoder", b"unknown").decode() for each in found.values()}

    curves = figures.curves(paths, found)
    comparison = compare(scores)
    table = report.table(corpus, sorted(encoders), scores, comparison)
    timeline = next((run for run in paths if run[0] == REFERENCE), next(iter(paths)))
    written: dict[str, bytes] = {
        "anova.parquet": parquet.encode(comparison),
        "metrics.json": (json.dumps(report.metrics(scores, comparison), indent=2) + "\n").encode(),
        "precision_recall.csv": figures.points(curves),
        "precision_recall.png": figures.precision_recall(corpus, curves),
        "timeline.png": figures.timeline(corpus, *timeline, paths[timeline], found[timeline]),
        "table.md": table.encode(),
    }
    for name, content in written.items():
        files.write(f"{out}/{name}", content)
    command.show(table)
    log.info("written: %s", ", ".join(f"{out}/{name}" for name in written))


if __name__ == "__main__":
    raise SystemExit(main())
