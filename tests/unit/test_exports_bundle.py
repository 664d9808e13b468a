"""The bundle: everything in one zip, and a recipe that makes the numbers again."""

import ast
import io
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from mi_core.exports.causal_trace import heatmap_figure
from mi_core.exports.causal_trace_average import role_heatmap_figure
from mi_core.exports.export import export
from mi_core.exports.png import size_of
from mi_core.exports.read_back import read_provenance
from tests.examples import example_result
from tests.examples_average import example_average


@pytest.fixture(scope="module")
def bundle() -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(export(heatmap_figure(example_result()), "zip", preset="column")))


def test_it_holds_pictures_numbers_words_and_the_recipe(bundle) -> None:
    folders = {name.split("/")[0] for name in bundle.namelist()}
    assert len(folders) == 1
    assert {name.split("/")[1] for name in bundle.namelist()} == {
        "figure.svg", "figure.pdf", "figure@300.png", "figure@600.png", "figure.html",
        "data.csv", "data.json", "caption.md", "refs.bib", "recipe.py",
    }  # fmt: skip
    assert bundle.testzip() is None


def read(bundle: zipfile.ZipFile, name: str) -> bytes:
    (path,) = [path for path in bundle.namelist() if path.endswith("/" + name)]
    return bundle.read(path)


def test_its_pictures_have_their_resolutions_and_all_say_where_they_come_from(bundle) -> None:
    assert size_of(read(bundle, "figure@300.png"))[0] == 975
    assert size_of(read(bundle, "figure@600.png"))[0] == 1950
    for name in ("figure.svg", "figure.pdf", "figure@300.png", "figure@600.png", "figure.html", "data.json"):
        assert read_provenance(read(bundle, name)).view["metric"] == "probability"


def test_equal_figures_give_equal_bundles() -> None:
    figure = heatmap_figure(example_result(("state",)))
    one, other = (zipfile.ZipFile(io.BytesIO(export(figure, "zip"))) for _ in range(2))
    assert one.namelist() == other.namelist()
    for name in one.namelist():  # svg2pdf writes its dictionaries in another order each time
        assert name.endswith(".pdf") or one.read(name) == other.read(name), name


def test_markdown_in_texts_is_shown_and_not_obeyed() -> None:
    figure = replace(heatmap_figure(example_result()), title="# <b>bold</b> [link](http://x) `code`")
    caption = zipfile.ZipFile(io.BytesIO(export(figure, "zip")))
    assert read(caption, "caption.md").decode().splitlines()[0] == (
        r"# \# \<b\>bold\</b\> \[link\](http://x) \`code\`"
    )


@pytest.mark.parametrize(
    "prompt", ["plain", 'quote " and \\ and \n', "'''\"\"\"\n__import__('os').system('x')\n", "{spec}"]
)
def test_a_prompt_is_data_in_the_recipe_and_never_code(prompt: str) -> None:
    result = example_result()
    result = replace(result, inputs=replace(result.inputs, prompt=prompt))
    tree = ast.parse(heatmap_figure(result).recipe)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    (made,) = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "CausalTraceInputs"]
    values = {str(k.arg): ast.literal_eval(k.value) for k in made.keywords}
    assert type(result.inputs)(**values) == result.inputs
    assert "__import__" not in {c.func.id for c in calls if isinstance(c.func, ast.Name)}


def test_recipes_end_with_a_comparison_and_use_public_doors_only() -> None:
    for figure in (heatmap_figure(example_result()), role_heatmap_figure(example_average())):
        tree = ast.parse(figure.recipe)
        imported = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert imported <= {"mi_core", "mi_core.analyses", "pathlib"}
        assert "assert_allclose" in figure.recipe
        json.loads(figure.record_json())


def test_a_figure_without_a_model_has_no_recipe() -> None:
    figure = heatmap_figure(replace(example_result(), provenance=None))
    names = zipfile.ZipFile(io.BytesIO(export(figure, "zip"))).namelist()
    assert not [name for name in names if name.endswith("recipe.py")]


@pytest.mark.slow
def test_the_recipe_makes_the_numbers_again_and_notices_a_wrong_one(tmp_path: Path) -> None:
    """The bundled model is traced, exported, and traced again by the recipe in a process of its own."""
    from mi_core import load_model
    from mi_core.analyses import CausalTraceInputs, causal_trace

    inputs = CausalTraceInputs("The Eiffel Tower is located in the city of", subject=(2, 6), samples=3)
    figure = heatmap_figure(causal_trace(load_model("atlas"), inputs))
    with zipfile.ZipFile(io.BytesIO(export(figure, "zip"))) as archive:
        archive.extractall(tmp_path)
    (folder,) = tmp_path.iterdir()

    def run() -> subprocess.CompletedProcess[str]:
        root = str(Path(__file__).parents[2])
        return subprocess.run(
            [sys.executable, str(folder / "recipe.py")], env={**os.environ, "PYTHONPATH": root},
            capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip

    assert run().stdout == "The numbers agree with data.json.\n"
    data = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    data["result"]["grids"]["state"]["samples"]["probability"][5][2][0] += 0.1
    (folder / "data.json").write_text(json.dumps(data), encoding="utf-8")
    assert "state, probability" in run().stderr
