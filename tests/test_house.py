"""The limits of the house: modules that can be held in the head, and functions that fit on a screen."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "vap_pipeline"
MODULE_LINES, FUNCTION_LINES = 400, 80


def test_no_module_and_no_function_is_too_long():
    too_long = []
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        if (n := len(text.splitlines())) > MODULE_LINES:
            too_long.append(f"{path}: {n} lines")
        for node in ast.walk(ast.parse(text)):
            if (
                isinstance(node, ast.FunctionDef)
                and (n := node.end_lineno - node.lineno + 1) > FUNCTION_LINES
            ):
                too_long.append(f"{path}: {node.name}: {n} lines")
    assert not too_long
