"""Figures of the model page: the plan has every box, lines and bars are the results' numbers."""

import json
import runpy
from dataclasses import replace
from pathlib import Path

import altair as alt
import numpy as np
import pytest

from mi_core import load_model
from mi_core.analyses import (
    InspectInputs,
    InspectResult,
    InspectWeightInputs,
    InspectWeightResult,
    NextTokenInputs,
    NextTokenResult,
    inspect_model,
    inspect_weight,
    next_token,
)
from mi_core.analyses.inspect_architecture import architecture_of
from mi_core.charts.architecture import architecture_chart, describe_architecture
from mi_core.charts.architecture_boxes import ONCE, WIDTH, block_boxes, row_boxes
from mi_core.charts.inspect import GROUPS, layer_lines, lines_of
from mi_core.charts.next_token import drawn_rows, surprise_scale
from mi_core.charts.theme import styled
from mi_core.exports import inspect as inspect_figures
from mi_core.exports import next_token as next_figures
from mi_core.exports.export import export
from mi_core.exports.figure import Figure
from mi_core.model.model import LoadedModel
from tests.tiny import tiny


@pytest.fixture(scope="module")
def atlas() -> LoadedModel:
    return load_model("atlas")


@pytest.fixture(scope="module")
def inspection(atlas: LoadedModel) -> InspectResult:
    return inspect_model(atlas, InspectInputs(singular_values=True))


@pytest.fixture(scope="module")
def weight(atlas: LoadedModel) -> InspectWeightResult:
    return inspect_weight(atlas, InspectWeightInputs("blocks.1.attn.W_Q[2]"))


@pytest.fixture(scope="module")
def said(atlas: LoadedModel) -> NextTokenResult:
    return next_token(atlas, NextTokenInputs("The capital of France is", k=4, answer="Paris"))


@pytest.mark.parametrize("family", ["llama", "gemma2", "phi", "olmo2", "gpt_neox"])
def test_the_plan_has_a_box_for_everything_and_none_overlap(family: str) -> None:
    plan = architecture_of(tiny(family))
    row, block = list(row_boxes(plan)), list(block_boxes(plan, 2))
    places = [(box.part, box.layer) for box in row]
    assert {("attn", layer) for layer in range(4)} | {("mlp", layer) for layer in range(4)} <= set(places)
    assert {("embed", ONCE), ("final_norm", ONCE), ("unembed", ONCE)} <= set(places)
    norms = (plan.attention_norm, plan.mlp_norm, plan.attention_post_norm, plan.mlp_post_norm)
    drawn = [box.note.removesuffix(" (one norm for both)") for box in block if box.part == "norm"]
    assert sorted(drawn) == sorted(name for name in norms if name)
    assert {box.part for box in block} >= {"attn", "mlp"}
    boxes = [*row, *block]
    for number, one in enumerate(boxes):
        assert 0 <= one.left < one.right <= WIDTH
        for other in boxes[number + 1 :]:
            beside = one.right <= other.left or other.right <= one.left
            assert beside or one.bottom <= other.top or other.bottom <= one.top, (one, other)


def test_parallel_modules_stand_side_by_side_and_serial_ones_one_after_the_other() -> None:
    parallel = {box.part: box for box in block_boxes(architecture_of(tiny("phi")), 0)}
    assert parallel["attn"].left == parallel["mlp"].left
    assert parallel["attn"].bottom < parallel["mlp"].top
    serial = {box.part: box for box in block_boxes(architecture_of(tiny("llama")), 0)}
    assert serial["attn"].right < serial["mlp"].left
    assert serial["attn"].top == serial["mlp"].top


def test_no_wire_crosses_a_box() -> None:
    for family in ("gemma2", "phi"):
        spec = architecture_chart(architecture_of(tiny(family)))
        for wire in spec["datasets"]["wires"]:
            for box in spec["datasets"]["boxes"]:
                inside_x = box["x"] < (wire["x"] + wire["x1"]) / 2 < box["x1"]
                inside_y = box["y"] < (wire["y"] + wire["y1"]) / 2 < box["y1"]
                assert not (inside_x and inside_y), (wire, box)


@pytest.mark.parametrize(
    ("layer", "part", "outlined"),
    [
        (None, None, 0),
        (1, None, 1),
        (1, "attn", 2),
        (1, "mlp", 2),
        (1, "norm", 2),
        (None, "embed", 1),
        (99, "attn", 0),
    ],
)
def test_the_chosen_part_is_outlined(layer: int | None, part: str | None, outlined: int) -> None:
    plan = architecture_of(tiny("llama"))
    spec = architecture_chart(plan, layer=layer, part=part)
    assert len(spec["datasets"]["chosen"]) == outlined
    alt.Chart.from_dict(styled(spec))


def test_a_click_gives_part_and_layer() -> None:
    spec = architecture_chart(architecture_of(tiny("llama")))
    live = next(layer for layer in spec["layer"] if "params" in layer)
    assert live["params"][0]["select"]["fields"] == ["part", "layer"]
    assert {(r["part"], r["layer"]) for r in spec["datasets"]["boxes"]} >= {("attn", 3), ("unembed", ONCE)}


def test_a_hundred_layers_have_a_box_each_and_few_numbers() -> None:
    plan = replace(architecture_of(tiny("llama")), n_layers=100)
    spec = architecture_chart(plan, layer=57)
    assert sum(record["part"] == "attn" for record in spec["datasets"]["boxes"]) == 101  # and the large one
    numbers = [text["text"] for text in spec["datasets"]["texts"] if 92 < text["y"] < 112]
    assert numbers == [str(layer) for layer in range(0, 100, 10)]


def test_a_hostile_name_stays_text() -> None:
    hostile = "</script><script>\u202e"
    plan = replace(architecture_of(tiny("llama")), attention_norm=hostile, activation=hostile)
    text = json.dumps(architecture_chart(plan))
    assert "\u202e" not in text
    assert "\\u202e" not in text
    assert describe_architecture(plan)


@pytest.mark.parametrize("group", GROUPS)
def test_lines_are_the_results_numbers(inspection: InspectResult, group: str) -> None:
    names = lines_of(inspection, group)
    points = layer_lines(inspection, "std", group)["datasets"]["points"]
    assert len(points) == 8 * len(names)
    for point in points:
        row = next(
            i
            for i, info in enumerate(inspection.weights)
            if (info.name, info.layer, info.head) == (point["series"], point["x"], None)
        )
        assert point["y"] == inspection.std[row]


def test_a_tied_embedding_is_drawn_once(inspection: InspectResult) -> None:
    figure = inspect_figures.embedding_figure(inspection)
    assert sum(record["count0"] for record in figure.spec["datasets"]["bins"]) == 3475
    untied = inspect_figures.embedding_figure(inspect_model(tiny("llama")))
    drawn = untied.spec["datasets"]["bins"]
    assert [sum(record[f"count{series}"] for record in drawn) for series in (0, 1)] == [97, 97]


def test_bars_show_the_top_and_the_target(said: NextTokenResult) -> None:
    many = replace(said, roles=("top",) * (len(said.roles) - 1) + ("distractor",))
    assert drawn_rows(many) == list(range(len(said.roles)))
    bars = next_figures.next_token_figure(said).spec["datasets"]["bars"]
    assert [bar["value"] for bar in bars] == said.probabilities.tolist()


def test_surprise_is_coloured_from_zero_on(said: NextTokenResult) -> None:
    scale = surprise_scale(said)
    assert scale.domain[0] == 0
    assert scale.domain[1] >= np.nanmax(said.surprise)
    tokens = next_figures.surprise_figure(said).spec["datasets"]["tokens"]
    assert [token["value"] for token in tokens] == said.surprise[1:].tolist()


def all_figures(
    inspection: InspectResult, weight: InspectWeightResult, said: NextTokenResult
) -> list[Figure]:
    return [
        inspect_figures.architecture_figure(inspection, layer=1, part="attn"),
        inspect_figures.layers_figure(inspection, "largest_singular_value", "mlp", layer=1),
        inspect_figures.embedding_figure(inspection),
        inspect_figures.entries_figure(weight),
        inspect_figures.spectrum_figure(weight),
        next_figures.next_token_figure(said),
        next_figures.surprise_figure(said, chosen=2),
    ]


def test_every_figure_is_valid_and_says_what_it_is(
    inspection: InspectResult, weight: InspectWeightResult, said: NextTokenResult
) -> None:
    for figure in all_figures(inspection, weight, said):
        alt.Chart.from_dict({k: v for k, v in styled(figure.spec).items() if k != "narrow"})
        assert figure.caption.endswith(".")
        assert figure.description
        assert len(figure.frame()) > 0, figure.title
        assert "unit" in figure.frame().columns, figure.title
        assert all(check.passed for check in figure.checks)
        assert export(figure, "csv").count(b"\n") > 1
        assert json.loads(export(figure, "json"))["result"]


def test_the_recipes_make_the_numbers_again(
    inspection: InspectResult, weight: InspectWeightResult, said: NextTokenResult, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    figures = {figure.recipe: figure for figure in all_figures(inspection, weight, said)}
    for number, (recipe, figure) in enumerate(figures.items()):
        if number in (0, 2, 4):  # one of each analysis
            (tmp_path / "recipe.py").write_text(recipe, encoding="utf-8")
            (tmp_path / "data.json").write_bytes(export(figure, "json"))
            runpy.run_path(str(tmp_path / "recipe.py"))
            assert "agree" in capsys.readouterr().out
