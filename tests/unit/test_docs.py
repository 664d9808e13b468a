"""The documentation is true: snippets run, tables are complete, links lead somewhere."""

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from docs.write_sites import PAGE, page
from mi_core.cli import ANALYSES
from mi_core.model.families import FAMILIES
from mi_core.version import __version__
from pages.shared.catalogue import PAGES

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MARKDOWN = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "assets").rglob("*.md")])
OFFLINE = {**os.environ, "HF_HUB_OFFLINE": "1"}


def blocks(language: str) -> list[str]:
    """Fenced code of one language in the README."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


def run_python(*arguments: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=cwd, env={**OFFLINE, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


CHECKS = """
assert recovered.shape == (len(result.tokens), model.dims.n_layers)
assert abs(recovered[-1, -1] - 1) < 1e-4, "restoring everything restores everything"
assert len(table) > recovered.size
assert abs(pattern.sum(-1) - 1).max() < 1e-5
assert effect.shape == (len(heads),) and effect.min() < 0
assert png.startswith(b"\\x89PNG")
print("all snippets ran")
"""


def test_the_python_snippets_of_the_readme_run_one_after_the_other() -> None:
    assert len(blocks("python")) == 3
    assert "all snippets ran" in run_python("-c", "\n".join([*blocks("python"), CHECKS]))


def test_the_shell_snippets_of_the_readme_run(tmp_path: Path) -> None:
    commands = [line for block in blocks("bash") for line in block.splitlines() if line]
    assert len(commands) == 2
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "python"
        run_python(*arguments, cwd=tmp_path)
    assert '"schema"' in (tmp_path / "trace.json").read_text(encoding="utf-8")


def test_the_readme_names_every_page_and_every_family() -> None:
    for card in PAGES:
        row = re.search(rf"^\| \*\*{re.escape(card.title)}\*\* \|(.*)$", README, flags=re.MULTILINE)
        assert row, f"README has no row for the page {card.title!r}"
        assert card.question in row[1], f"README and the catalogue ask different questions on {card.title!r}"
    named = {name for name in FAMILIES if re.search(rf"\b{name.removesuffix('_text')}\b", README)}
    assert named == set(FAMILIES)


def test_the_readme_names_every_command() -> None:
    assert {name for name in ("info", *ANALYSES) if f"`{name}`" in README} == {"info", *ANALYSES}


def test_requirements_are_what_the_code_imports() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    asked = {re.split(r"[=><\[]", line)[0] for line in lines if line and line[0] not in "#-"}
    modules = {name.replace("-", "_").removesuffix("_python") for name in asked}
    files = [ROOT / "app.py", *(ROOT / "mi_core").rglob("*.py"), *(ROOT / "pages").rglob("*.py")]
    found = {name for path in files for name in imported(path.read_text(encoding="utf-8"))}
    ours = {"mi_core", "pages"}
    by_others = {  # what brings them
        "starlette": "streamlit",
        "tokenizers": "transformers",
        "yaml": "transformers",
        "httpx": "huggingface_hub",
        "httpx2": "huggingface_hub",
        "tqdm": "huggingface_hub",
        "docstring_parser": "tyro",
    }
    foreign = found - set(sys.stdlib_module_names) - ours
    assert foreign - set(by_others) == modules
    assert {by_others[name] for name in foreign & set(by_others)} <= modules


def imported(source: str) -> set[str]:
    """First names of all imports, at any depth."""
    nodes = list(ast.walk(ast.parse(source)))
    plain = {
        alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names
    }
    return plain | {(node.module or "").split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}


def test_the_sites_page_is_the_table_in_the_code() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m docs.write_sites"


def test_one_version_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == __version__


def test_decisions_are_listed() -> None:
    index = (ROOT / "docs" / "adr" / "README.md").read_text(encoding="utf-8")
    notes = sorted(path.name for path in (ROOT / "docs" / "adr").glob("0*.md"))
    assert [name for name in notes if f"]({name})" not in index] == []
    assert len(notes) == len({name[:4] for name in notes}), "two decisions share a number"


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_paths_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    missing = [t for t in targets if "://" not in t and not (path.parent / t).exists()]
    named = re.findall(r"`((?:mi_core|pages|tests|docs|benchmarks|tools|assets)/[\w./-]+)", text)
    missing += [name for name in named if not (ROOT / name.split("::")[0]).exists()]
    assert not missing
