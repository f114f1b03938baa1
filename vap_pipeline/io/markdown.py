"""Tables in Markdown."""

from collections.abc import Iterable, Sequence

ABSENT = "–"  # in a cell without a value


def table(head: Sequence[str], lines: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table, its first column aligned left and the others right."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *lines])
