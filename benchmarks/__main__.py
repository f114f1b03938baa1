"""All benchmarks, one after the other, and a table of every ratio at the end; twenty minutes.

    python -m benchmarks [MANIFEST]

What needs no audio and no features is measured on the conversations of MANIFEST, where one is given.
"""

import argparse

from benchmarks import evaluate, extract, machine, store, train, turn_taking


def main() -> None:
    """Run them and print the summary."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", nargs="?", help="folder of a manifest")
    folder = parser.parse_args().manifest
    rows = []
    for run, flags in (
        (extract.main, ["--rounds", "3", "--hour", "--growth"]),
        (store.main, ["--rounds", "3"]),
        (train.main, ["--growth"]),
        (evaluate.main, []),
        *([(turn_taking.main, [folder])] if folder else []),
    ):
        rows += run(flags)
        print(flush=True)
    print(f"## All ratios\n\n{machine.name()}\n\n{machine.summary(rows)}")


if __name__ == "__main__":
    main()
