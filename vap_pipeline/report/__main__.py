"""``vap-anova``: compare the models over the folds, and write the report."""

import argparse

from vap_pipeline.runtime import command
from vap_pipeline.settings.params import add_corpus, read_corpus
from vap_pipeline.turn_taking.published import NAMES_IN_FILES

DESCRIPTION = f"""\
Compare the models over the folds: a one-way ANOVA per score, then t-tests of the discrete model against each
other model, unpaired as published and paired, raw and corrected for their number (Holm).

reads   scores/CORPUS/MODEL/fold-K.parquet, …events.parquet, …timeline.parquet of all models and folds
writes  table.md                means and deviations in the layout of the paper's Table 1, and the tests
        anova.parquet           the same, a row per score, level and model
        metrics.json            the means, for `dvc metrics show`
        precision_recall.png    the four tasks, a curve per model; the points in precision_recall.csv
        timeline.png            half a minute of one conversation, with the discrete model's probabilities

{NAMES_IN_FILES}"""


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
    corpus = read_corpus(args.params, args.corpus)

    from vap_pipeline.report.command import write_report

    folder, out = args.scores or f"scores/{corpus.name}", args.out or str(corpus.report_folder)
    command.show(write_report(corpus, folder, out))


if __name__ == "__main__":
    raise SystemExit(main())
