"""Figures of attribution and attribution patching: what is drawn is the result's, and every one renders."""

from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from mi_core.analyses import Agreement, CausalTraceInputs, agreement, attribution_patching, causal_trace
from mi_core.analyses.attribution_patching_result import ESTIMATED_KINDS
from mi_core.charts import attribution as charts
from mi_core.charts import attribution_patching as patching_charts
from mi_core.charts.attribution_bars import Series, paired_bars
from mi_core.exports.attribution import heads_figure, neurons_figure, parts_figure, sources_figure
from mi_core.exports.attribution_patching import agreement_figure, estimate_figure
from mi_core.exports.export import export
from mi_core.exports.figure import Figure
from mi_core.exports.references import bibliography
from tests.attribution_cases import model_of, result_of

TRACE = CausalTraceInputs(
    "The Space Needle is in the city of", corrupted_prompt="The Eiffel Tower is in the city of",
    answer="Seattle", distractor="Paris", kinds=ESTIMATED_KINDS,
)  # fmt: skip


@lru_cache(maxsize=1)
def patched() -> Any:
    exact = causal_trace(model_of("llama"), TRACE)
    estimate = attribution_patching(model_of("llama"), TRACE)
    return estimate, exact, [agreement(estimate, exact, kind, "logit") for kind in estimate.kinds]


@lru_cache(maxsize=1)
def figures() -> dict[str, Figure]:
    result = result_of("gemma2")
    estimate, exact, found = patched()
    return {
        "parts": parts_figure(result),
        "waterfall": parts_figure(result, waterfall=True, chosen=2),
        "difference": parts_figure(result, compare="difference"),
        "heads": heads_figure(result, chosen=(1, 2)),
        "sources": sources_figure(result, 1, 2, chosen=0),
        "control": sources_figure(result, 1, 2, prompt=1),
        "neurons": neurons_figure(result, result.top_neurons(5)),
        "estimate": estimate_figure(estimate, "logit_difference"),
        "estimated heads": estimate_figure(estimate, kinds=("head",)),
        "agreement": agreement_figure(estimate, exact, found),
    }


NAMES = (
    "parts", "waterfall", "difference", "heads", "sources", "control", "neurons", "estimate",
    "estimated heads", "agreement",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_leaves_with_its_words_and_numbers(name):
    figure = figures()[name]
    assert export(figure, "svg").lstrip().startswith(b"<svg")
    frame = figure.frame()
    assert len(frame) > 0
    assert {"value", "unit"} <= set(frame.columns)
    assert "Model" in figure.caption
    assert figure.description
    assert figure.how_to_read
    assert all(check.passed for check in figure.checks)
    assert "@" in bibliography(figure.references)
    assert f"from mi_core.analyses import {type(figure_inputs(name)).__name__}" in figure.recipe
    compile(figure.recipe, "recipe.py", "exec")


def figure_inputs(name: str) -> Any:
    return TRACE if name in ("estimate", "estimated heads", "agreement") else result_of("gemma2").inputs


def test_the_caption_says_the_sum_and_the_softcap():
    result = result_of("gemma2")
    said = figures()["parts"].caption
    assert f"parts + biases = {result.total[0]:.5f}".replace("-", "\u2212") in said
    assert "before the softcap of 8" in said
    assert "norm of their own" in said
    assert "pale bars: the control prompt" in said
    assert "differences" in figures()["difference"].caption


def test_a_waterfall_begins_where_the_last_bar_ends():
    result = result_of("gpt2")
    bars = charts.parts_chart(result, waterfall=True)["datasets"]["bars"]
    for prompt in (0, 1):
        own = [bar for bar in bars if bar["series"] == prompt]
        assert own[0]["start"] == 0
        for before, after in pairwise(own[:-1]):
            assert after["start"] == pytest.approx(before["end"])
        assert own[-1]["start"] == 0
        assert own[-1]["end"] == pytest.approx(own[-2]["end"])
        assert own[-1]["end"] == pytest.approx(float(result.total[prompt]))


def test_two_prompts_share_one_scale():
    result = result_of("gpt2")
    panels = charts.head_panels(result)
    scale = charts.head_scale(result, panels)
    largest = max(float(np.abs(panel.values).max()) for panel in panels)
    assert scale.diverging
    assert scale.domain[1] >= largest
    np.testing.assert_allclose(panels[2].values, result.heads[0] - result.heads[1])
    assert charts.source_scale(result, 1, 2).domain[1] >= float(np.nanmax(np.abs(result.sources[:, 0])))


def test_bars_need_a_value_per_row():
    with pytest.raises(ValueError, match="2 rows"):
        paired_bars(["a", "b"], [Series("one", [1.0], [0.0])], title="t", unit="logits")


def test_labels_are_made_harmless():
    spec = paired_bars(["<b>\n\u202e"], [Series("", [1.0], [0.0])], title="t", unit="logits")
    assert "\u202e" not in str(spec)
    assert "\n" not in spec["datasets"]["rows"][0]["name"]


def test_estimates_are_drawn_on_the_traces_scale():
    estimate, exact, _ = patched()
    panels = patching_charts.estimate_panels(estimate, "probability", ("state",))
    scale = patching_charts.estimate_scale(estimate, "probability", panels)
    ends = exact.value(exact.corrupted, "probability"), exact.value(exact.clean, "probability")
    assert scale.domain == pytest.approx(ends)
    assert "estimate" in panels[0].title
    assert "no cell was run" in figures()["estimate"].caption


def test_points_are_the_cells_in_order():
    _, _, found = patched()
    points = patching_charts.agreement_points(found)
    assert len(points) == sum(one.n for one in found)
    first = found[0]
    assert (points[0].x, points[0].y) == (first.exact[0], first.estimate[0])
    frame: Any = figures()["agreement"].frame()
    assert set(frame["quantity"]) == {
        "estimated effect", "exact effect", "Pearson correlation", "Spearman correlation", "cells"
    }  # fmt: skip
    assert "are left out" in figures()["agreement"].caption


def test_a_correlation_that_does_not_exist_is_called_none():
    one: Agreement = replace(patched()[2][0], pearson=float("nan"))
    assert "Pearson none" in patching_charts.agreement_line(one)
