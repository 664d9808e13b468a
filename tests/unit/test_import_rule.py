"""Imports point downwards only (docs/adr/0006).

Two proofs: the direct imports of every file, read from its syntax tree, and one process that imports all of
mi_core while streamlit does not exist (and its lower layers while altair and vl_convert do not exist either).
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

TOP_FILES = (
    "mi_core.cli",
    "mi_core.cli_all",
    "mi_core.cli_options",
    "mi_core.cli_table",
    "mi_core.cli_texts",
    "mi_core.__main__",
)
# Files directly in mi_core are the words that everything else is written in (sites, tokens, metrics ...).
WORDS = tuple(
    sorted(
        {f"mi_core.{path.stem}" for path in (ROOT / "mi_core").glob("[a-z]*.py")}
        - {*TOP_FILES, "mi_core.answers"}  # answers are scored by the engine
    )
)
# From low to high. An area may import its own layer and those below.
LAYERS: tuple[tuple[str, ...], ...] = (
    WORDS,
    ("mi_core.model",),
    ("mi_core.engine",),
    ("mi_core.answers", "mi_core.analyses", "mi_core.batch", "mi_core.importers", "mi_core.transcoders"),
    ("mi_core.charts", "mi_core.exports"),
    (*TOP_FILES, "mi_core"),
    ("pages.shared",),
    ("pages", "app"),
)
# These stand outside: they may import mi_core, and nothing imports them.
PROGRAMS = ("tools", "benchmarks", "tests")
DRAWING = ("altair", "vl_convert", "streamlit")

# What an area must not import from outside. The lower layers make numbers, which are drawn elsewhere;
# charts and exports see results, which are numpy.
FORBIDDEN: dict[str, tuple[str, ...]] = {
    **{area: DRAWING for layer in LAYERS[:4] for area in layer},
    "mi_core.charts": ("streamlit", "torch", "transformers"),
    "mi_core.exports": ("streamlit", "torch", "transformers"),
    "mi_core.cli": ("streamlit",),
    "mi_core.cli_all": ("streamlit", "torch"),
    "mi_core.cli_options": ("streamlit", "torch"),
    "mi_core.cli_table": ("streamlit", "torch"),
    "mi_core.cli_texts": ("streamlit", "torch"),
    "mi_core.__main__": ("streamlit",),
    "mi_core": ("streamlit",),
    "tools": ("streamlit",),
    "benchmarks": ("streamlit",),
}
# A page's first paint must not wait for these (5.7 s instead of 2.4 s); the worker imports them.
SLOW_AT_TOP = ("torch", "transformers", "altair", "vl_convert")


def area_of(module: str) -> str | None:
    """The longest name in the table that `module` is or lies below; None for what is not ours."""
    names = [name for layer in LAYERS for name in layer] + list(PROGRAMS)
    found = [name for name in names if module == name or module.startswith(name + ".")]
    best = max(found, key=len, default=None)
    if best == "mi_core" and module != "mi_core":
        raise AssertionError(f"{module} is in no layer: add it to LAYERS in {__file__}")
    return best


def height(area: str) -> int:
    return next(index for index, layer in enumerate(LAYERS) if area in layer)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or path.is_dir()


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, module) of every import; `from package import module` counts as the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            base = node.module or ""
            for alias in node.names:
                child = f"{base}.{alias.name}"
                ours = area_of(base.partition(".")[0]) is not None
                yield node.lineno, child if ours and is_module(child) else base


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def python_files() -> list[Path]:
    folders = ("mi_core", "pages", "tools", "benchmarks", "tests")
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in [ROOT / "app.py", *found] if path.exists()]


def violations(module: str, tree: ast.AST) -> list[str]:
    area = area_of(module)
    assert area is not None, f"{module} belongs to no area"
    found = []
    for line, target in imports(tree):
        outside = target.partition(".")[0]
        if outside in FORBIDDEN.get(area, ()):
            found.append(f"line {line}: {area} must not import {outside}")
        target_area = area_of(target)
        if target_area is None:
            continue
        if target_area in PROGRAMS:
            if area not in PROGRAMS:
                found.append(f"line {line}: nothing imports {target_area}, {module} does")
        elif area not in PROGRAMS and height(target_area) > height(area):
            found.append(f"line {line}: {module} imports upwards, {target}")
        elif area in ("tools", "benchmarks") and target_area.startswith(("pages", "app")):
            found.append(f"line {line}: {area} works without the dashboard, but imports {target}")
    return found


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path: Path) -> None:
    found = violations(module_name(path), ast.parse(path.read_text(encoding="utf-8")))
    assert not found, "\n".join(found)


def top_level_imports(tree: ast.Module) -> Iterator[str]:
    for statement in tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            yield from (name.partition(".")[0] for _, name in imports(statement))


@pytest.mark.parametrize(
    "path",
    [path for path in python_files() if area_of(module_name(path)) in ("app", "pages", "pages.shared")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_pages_import_slow_libraries_inside_functions(path: Path) -> None:
    slow = set(top_level_imports(ast.parse(path.read_text(encoding="utf-8")))) & set(SLOW_AT_TOP)
    assert not slow, f"{path.name} imports {slow} at its top: the first paint would wait for it"


def test_areas_of_one_layer_do_not_import_each_other_in_a_circle() -> None:
    edges: dict[str, set[str]] = {}
    for path in python_files():
        area = area_of(module_name(path))
        if area is None or area in PROGRAMS:
            continue
        for _, target in imports(ast.parse(path.read_text(encoding="utf-8"))):
            other = area_of(target)
            if other and other != area and other not in PROGRAMS:
                edges.setdefault(area, set()).add(other)
    for circle in circles(edges):
        raise AssertionError(" -> ".join(circle))


def circles(edges: dict[str, set[str]]) -> Iterator[list[str]]:
    """Walks back to where they began, by depth-first search."""

    def walk(path: list[str]) -> Iterator[list[str]]:
        for following in sorted(edges.get(path[-1], ())):
            if following == path[0]:
                yield [*path, following]
            elif following not in path:
                yield from walk([*path, following])

    for start in sorted(edges):
        yield from walk([start])


@pytest.mark.parametrize(
    ("module", "source", "count"),
    [
        ("mi_core.engine.run", "from mi_core.model import LoadedModel\nimport torch", 0),
        ("mi_core.model.model", "from mi_core.engine import run", 1),
        ("mi_core.model.model", "def f():\n    import mi_core.analyses.causal_trace", 1),
        ("mi_core.analyses.causal_trace", "import altair", 1),
        ("mi_core.charts.heatmap", "import altair", 0),
        ("mi_core.charts.heatmap", "import torch.nn", 1),
        ("mi_core.errors", "from mi_core import load_model", 1),
        ("pages.home", "from pages.shared import cache\nimport streamlit", 0),
        ("pages.shared.cache", "from pages import home", 1),
        ("mi_core.cli", "import streamlit", 1),
        ("mi_core.tokens", "from tests import tiny", 1),
        ("tools.train", "from pages.shared import cache", 1),
    ],
)
def test_the_rule_itself(module: str, source: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = ("pages.shared", "pages.home", "tests.tiny")
    monkeypatch.setattr(sys.modules[__name__], "is_module", lambda name: name in modules)
    assert len(violations(module, ast.parse(source))) == count


def test_circles_are_found() -> None:
    assert next(circles({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == ["a", "b", "c", "a"]
    assert not [*circles({"a": {"b", "c"}, "b": {"c"}})]


IMPORT_ALL = """
import importlib, sys
low, high = sys.argv[1].split(","), sys.argv[2].split(",")
for name in ("streamlit", "altair", "vl_convert"):
    sys.modules[name] = None  # importing it raises ImportError
for name in low:
    importlib.import_module(name)
del sys.modules["altair"], sys.modules["vl_convert"]
for name in high:
    importlib.import_module(name)
"""


def test_mi_core_imports_without_streamlit_and_its_lower_layers_without_charts() -> None:
    modules = [module_name(path) for path in python_files() if path.is_relative_to(ROOT / "mi_core")]
    modules = [name for name in modules if name != "mi_core.__main__"]  # importing that runs the command line
    low = [name for name in modules if "altair" in FORBIDDEN.get(area_of(name) or "", ())]
    high = [name for name in modules if name not in low]
    assert low
    assert high
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_ALL, ",".join(low), ",".join(high)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
