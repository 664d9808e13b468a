"""The figure of any analysis, and the program that makes its numbers again."""

import ast
import json
import math
import os
import subprocess
import sys
import zipfile
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mi_core.analyses import Check
from mi_core.analyses.records import dump_record, encode_array
from mi_core.charts.bars import Bar, bars
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.export import export
from mi_core.exports.recipe import MAX_LITERAL, analysis_recipe
from mi_core.provenance import Provenance
from tests.examples import example_provenance

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class SumInputs:
    prompt: str
    positions: tuple[int, ...] = (0, 2)
    answer: str | None = None
    level: float = 0.5

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class SumResult:
    inputs: SumInputs
    provenance: Provenance | None
    values: np.ndarray
    ids: np.ndarray
    nothing: np.ndarray
    checks: tuple[Check, ...] = (Check("parts add up", True, "largest difference 0"),)
    warnings: tuple[str, ...] = ("A note.",)

    def to_json(self) -> str:
        arrays = {name: encode_array(getattr(self, name)) for name in ("values", "ids", "nothing")}
        return dump_record("lantern/sum", 1, {"inputs": self.inputs.to_dict(), **arrays})


def result(prompt: str = "The cat", **more: Any) -> SumResult:
    values = np.array([[0.25, np.nan, -1.0]], np.float32)
    return SumResult(
        SumInputs(prompt, **more),
        example_provenance(),
        values,
        np.array([3, 5]),
        np.zeros((0, 4), np.float32),
    )


def figure(made: SumResult, arrays: tuple[str, ...] = ("values", "ids", "nothing")):
    return analysis_figure(
        made, analysis="sum", title="Sums", spec=bars([Bar("a", 0.25)], title="sum", unit="logit"),
        view={"metric": "sum"}, caption="A caption.", how_to_read="Read it.", description="Bars.",
        frame=lambda: pd.DataFrame({"value": [0.25], "unit": ["logit"]}), references=("meng2022locating",),
        function="sum_of", arrays=arrays,
    )  # fmt: skip


def test_a_figure_has_what_its_result_knows_and_can_be_written_in_every_format() -> None:
    made = figure(result())
    assert made.record()["inputs"] == result().inputs.to_dict()
    assert made.record()["checks"] == [
        {"name": "parts add up", "passed": True, "detail": "largest difference 0"}
    ]
    assert made.record()["warnings"] == ["A note."]
    with zipfile.ZipFile(BytesIO(export(made, "zip"))) as archive:
        names = {name.split("/")[1] for name in archive.namelist()}
    assert {"recipe.py", "data.json", "figure.pdf", "refs.bib"} <= names


def test_a_picture_carries_the_hash_of_a_long_input_and_the_data_carry_the_input() -> None:
    long, other = (figure(result(f"{start} cat " * 5_000)) for start in ("The", "An"))
    kept = long.record()["inputs"]["prompt"]
    assert kept["characters"] == 8 * 5_000 + 2  # with its quotation marks
    assert kept["sha256"] != other.record()["inputs"]["prompt"]["sha256"]
    assert len(long.record_json()) < 5_000
    whole = json.loads(export(long, "json"))
    assert whole["result"]["inputs"]["prompt"].startswith("The cat The cat")


def test_an_array_that_the_result_does_not_have_is_noticed_when_the_figure_is_made() -> None:
    with pytest.raises(AttributeError, match="valeus"):
        figure(result(), arrays=("valeus",))


def call_of(recipe: str) -> ast.Call:
    """The call that makes the inputs."""
    calls = [node for node in ast.walk(ast.parse(recipe)) if isinstance(node, ast.Call)]
    (call,) = [node for node in calls if isinstance(node.func, ast.Name) and node.func.id == "SumInputs"]
    return call


@pytest.mark.parametrize(
    "prompt",
    ["plain", 'quote " and \\ and \n', "'''\"\"\"\n__import__('os').system('x')\n", "{spec}", "漢😀"],
)
def test_inputs_are_literals_and_never_code(prompt: str) -> None:
    made = result(prompt, answer=prompt)
    recipe = figure(made).recipe
    assert recipe.isascii()
    values = {str(word.arg): ast.literal_eval(word.value) for word in call_of(recipe).keywords}
    assert SumInputs(**values) == made.inputs


ODD: tuple[Any, ...] = range(2)  # type: ignore[assignment]  # as somebody may pass it in a notebook


@pytest.mark.parametrize(
    "inputs", [SumInputs("x" * (MAX_LITERAL + 1)), SumInputs("x", level=math.nan), SumInputs("x", ODD)]
)
def test_inputs_that_are_long_or_no_literals_are_read_from_the_record(inputs: SumInputs) -> None:
    recipe = analysis_recipe(replace(result(), inputs=inputs), function="sum_of", arrays=["values"])
    ast.parse(recipe)
    assert 'SumInputs.from_dict(stored["inputs"])' in recipe
    assert "SumInputs(" not in recipe


def test_a_recipe_uses_public_doors_only_and_there_is_none_without_a_model() -> None:
    tree = ast.parse(figure(result()).recipe)
    imported = {n.module: [a.name for a in n.names] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert imported == {
        "pathlib": ["Path"],
        "mi_core": ["ModelSpec", "load_model"],
        "mi_core.analyses": ["SumInputs", "sum_of"],
    }
    assert figure(replace(result(), provenance=None)).recipe == ""


@dataclass(frozen=True)
class Again:
    """What a second run gave."""

    values: np.ndarray
    ids: np.ndarray
    nothing: np.ndarray


@pytest.mark.parametrize(
    ("value", "number", "noticed"), [(0.25, 5, ""), (0.2501, 5, ""), (0.27, 5, "values"), (0.25, 6, "ids")]
)
def test_floats_are_compared_nearly_and_whole_numbers_exactly(
    value: float, number: int, noticed: str
) -> None:
    """The recipe's last part, on the record that lies beside it; the whole of it is run by the slow test."""
    made = figure(result())
    comparison = made.recipe[made.recipe.index("for name, tolerance") :]
    stored = json.loads(export(made, "json"))["result"]
    assert stored["values"] == [[0.25, None, -1]]
    values = np.array([[value, np.nan, -1.0]], np.float32)
    again = Again(values, np.array([3, number]), np.zeros((0, 4), np.float32))
    names = {"np": np, "stored": stored, "result": again, "print": str}
    if not noticed:
        exec(comparison, names)
        return
    with pytest.raises(AssertionError, match=noticed):
        exec(comparison, names)


@pytest.mark.slow
def test_the_recipe_of_a_figure_makes_the_numbers_again_and_notices_a_wrong_one(tmp_path: Path) -> None:
    from mi_core import load_model
    from mi_core.analyses import LogitLensInputs, logit_lens
    from mi_core.exports.logit_lens import grid_figure

    inputs = LogitLensInputs("The Eiffel Tower is located in the city of", answer=" Paris")
    made = grid_figure(logit_lens(load_model("atlas"), inputs), "probability")
    (tmp_path / "recipe.py").write_text(made.recipe, encoding="utf-8")
    (tmp_path / "data.json").write_bytes(export(made, "json"))

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(tmp_path / "recipe.py")], env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip

    assert run().stdout == "The numbers agree with data.json.\n"
    data = json.loads((tmp_path / "data.json").read_text(encoding="utf-8"))
    data["result"]["entropy"][1][2] += 0.1
    (tmp_path / "data.json").write_text(json.dumps(data), encoding="utf-8")
    assert "entropy" in run().stderr


def test_the_recipe_of_a_transcoder_analysis_asks_its_own_package() -> None:
    made = type("FeatureInputs", (SumInputs,), {"__module__": "mi_core.transcoders.sums"})
    inside = analysis_recipe(replace(result(), inputs=made("The cat")), function="sums", arrays=("values",))
    assert "from mi_core.transcoders import FeatureInputs, sums\n" in inside
    assert "mi_core.analyses" not in inside
