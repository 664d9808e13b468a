"""Formulas in texts of the interface: what opens a display formula also closes it, as Streamlit reads it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHOWN = sorted(
    path
    for folder in ("pages", "mi_core/exports", "mi_core/charts")
    for path in (ROOT / folder).rglob("*.py")
    if "$" in path.read_text(encoding="utf-8")
)


def texts(path: Path) -> Iterator[str]:
    """Every text of a file; what is filled in later stands as a letter."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            parts = (one.value if isinstance(one, ast.Constant) else "x" for one in node.values)
            yield "".join(map(str, parts))


def open_formulas(text: str) -> list[str]:
    """Lines that open a display formula without closing it.

    Markdown takes `$$` at the beginning of a line for a fence, and drops what stands behind it: a formula
    stands on one line, or between two lines that are `$$` alone.
    """
    return [line for line in text.splitlines() if line.count("$$") % 2 and line.strip() != "$$"]


def test_a_formula_that_runs_over_a_line_is_found() -> None:
    assert open_formulas("so\n\n$$a\nb$$\n\nthus") == ["$$a", "b$$"]
    assert open_formulas("so $$a$$ or\n\n$$\na\nb\n$$\n") == []


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_display_formulas_are_closed(path: Path) -> None:
    for text in texts(path):
        assert open_formulas(text) == []
        assert sum(line.strip() == "$$" for line in text.splitlines()) % 2 == 0
