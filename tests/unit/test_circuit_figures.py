"""The drawing of a circuit, its figures, and what Atlas shows."""

import dataclasses
import json
from functools import cache

import numpy as np
import pytest

from mi_core import load_model
from mi_core.analyses.circuit_test_inputs import CircuitTestInputs
from mi_core.analyses.circuit_test_run import try_circuit
from mi_core.analyses.circuit_test_whole import HeadCircuitResult, head_circuit
from mi_core.analyses.head_classes_inputs import HeadClassesInputs
from mi_core.analyses.head_classes_result import HeadClassesResult
from mi_core.analyses.head_classes_rules import QUANTITIES
from mi_core.analyses.head_classes_run import classes_of
from mi_core.analyses.path_patching_cost import head_classes_seconds
from mi_core.analyses.path_patching_inputs import PathPatchingInputs
from mi_core.analyses.path_patching_run import path_patching, paths_of
from mi_core.analyses.task_inputs import TaskInputs
from mi_core.charts import circuit as charts
from mi_core.errors import InputError
from mi_core.exports import circuit as figures
from tests.planted import CLASSES, planted_group, planted_model

N = 8


@cache
def planted() -> HeadClassesResult:
    second = planted_group(N, 1, indirect_first=False)
    groups = [planted_group(N), dataclasses.replace(second, index=np.arange(N, 2 * N))]
    return classes_of(planted_model(), groups, HeadClassesInputs(n=2 * N, habit_length=11))


@cache
def atlas() -> HeadCircuitResult:
    return head_circuit(load_model("atlas"), HeadClassesInputs(n=10, most_drawn=2, ablation="resample"))


def test_every_drawn_head_is_a_dot_of_its_class_at_its_layer() -> None:
    nodes = charts.circuit_drawing(planted())["datasets"]["nodes"]
    assert {(node["layer"], node["head"]): node["label"] for node in nodes} == CLASSES
    assert all(abs(node["y"] - node["layer"]) <= 0.1 for node in nodes)
    assert len({(round(node["x"], 6), round(node["y"], 6)) for node in nodes}) == len(nodes)


def test_lines_are_the_paths_that_count_and_their_ends_are_dots() -> None:
    data = charts.circuit_drawing(planted())["datasets"]
    lines = {line["name"]: line for line in data["edges"]}
    assert {"L1H1 \u2192 L2H0.q", "L0H1 \u2192 L1H1.v", "L2H0 \u2192 logits"} <= set(lines)
    assert all(abs(line["value"]) >= planted().least_effect for line in lines.values())
    dots = {(node["x"], node["y"]) for node in data["nodes"]}
    assert all((line["x"], line["y"]) in dots for line in lines.values())
    assert lines["L2H0 \u2192 logits"]["value"] < 0 < lines["L2H1 \u2192 logits"]["value"]
    assert "L1H1 \u2192 L2H0.q" in charts.describe_circuit(planted())


def test_the_table_names_the_numbers() -> None:
    table = figures.class_table(planted())
    assert set(table["head"]) == {f"L{layer}H{head}" for layer, head in CLASSES}
    assert all(table["rests on"].str.contains("holds"))


def test_figures_say_n_unit_and_zero_and_carry_their_numbers() -> None:
    trial = try_circuit(
        planted_model(), [planted_group(N)], CircuitTestInputs(("L2H0",), n=N, subsets=2, controls=3)
    )
    paths = paths_of(planted_model(), [planted_group(N)], PathPatchingInputs(("logits", "L2H0.q"), n=N))
    made = [
        figures.circuit_figure(planted(), chosen=(2, 0)),
        figures.quantity_figure(planted(), "direct"),
        figures.trial_figure(trial),
        figures.completeness_figure(trial),
        figures.path_figure(paths, 1),
    ]
    for figure in made:
        assert "prompts" in figure.caption
        assert "n = " in figure.caption
        assert "logits" in figure.caption
        assert figure.description
        assert len(figure.frame())
        json.dumps(figure.spec, allow_nan=False)
    assert "L2H0.q" in made[-1].title


def test_a_result_without_heads_is_drawn_as_nothing() -> None:
    empty = classes_of(
        planted_model(), [planted_group(N)], HeadClassesInputs(n=N, habit_length=11, most_drawn=0)
    )
    assert charts.circuit_drawing(empty)["datasets"]["nodes"] == []
    assert charts.describe_circuit(empty).startswith("Heads by layer: none")


# --- Atlas ---


def test_on_atlas_one_head_matters_and_others_do_not() -> None:
    """What the preset shows: ablating L0H3 takes a third of the logit difference; the median head nothing."""
    classes = atlas().classes
    assert classes.accuracy == 1.0
    effects = classes.means[list(QUANTITIES).index("ablated")]
    baseline = float(classes.baseline[0])
    assert effects.min() < -0.3 * baseline
    assert classes.band("ablated", 0, 3).high < -0.2 * baseline
    assert abs(float(np.median(effects))) < 0.05 * baseline
    assert classes.verdict(0, 3).label == "unclear"
    assert classes.band("attention_s2", 0, 3).low > 0.5


def test_on_atlas_no_head_meets_the_name_movers_numbers() -> None:
    """Its copying heads look at both names alike: high copying, attention to IO, but not above S."""
    classes = atlas().classes
    assert classes.heads_of("name mover") == ()
    assert classes.band("copying", 4, 0).low > 0.5
    assert abs(classes.band("io_above_s", 4, 0).mean) < 0.05


def test_the_command_gives_classes_and_test_in_one_record() -> None:
    again = HeadCircuitResult.from_json(atlas().to_json())
    assert again.test is not None
    assert again.classes.verdicts() == atlas().classes.verdicts()
    assert again.test.inputs.heads == tuple(f"L{a}H{b}" for a, b in again.classes.drawn)
    assert not atlas().cancelled
    with pytest.raises(InputError):
        HeadCircuitResult.from_json('{"schema": "lantern/head_circuit", "version": 1, "classes": {}}')


def test_atlas_layer_0_speaks_through_mlps() -> None:
    model = load_model("atlas")
    through, direct = (
        path_patching(model, PathPatchingInputs(n=8, mlps=mlps)).bands()[0][0, 0, 3]
        for mlps in ("recomputed", "frozen")
    )
    assert through < -1
    assert abs(direct) < 0.5


def test_costs_grow_with_prompts_and_tasks_have_the_same_defaults() -> None:
    model = load_model("atlas")
    model.token_layers_per_second = 1000.0
    small, large = (head_classes_seconds(model, HeadClassesInputs(n=n)) for n in (10, 20))
    assert large == pytest.approx(2 * small)
    shared = {field: getattr(TaskInputs(), field) for field in ("task", "n", "seed", "templates", "bos")}
    assert all(getattr(HeadClassesInputs(), field) == value for field, value in shared.items())
    assert all(getattr(PathPatchingInputs(), field) == value for field, value in shared.items())
