"""Figures of attention: one scale for A and B, names that fit the prompt, colours as the canvas gets them."""

from functools import lru_cache

import numpy as np
import pytest

from mi_core.analyses import (
    AttentionInputs,
    AttentionResult,
    HeadScoresInputs,
    attention_patterns,
    head_scores,
)
from mi_core.analyses.attention_inputs import Show
from mi_core.charts import attention as charts
from mi_core.charts import attention_heads as heads
from mi_core.charts import head_scores as score_charts
from mi_core.charts.attention_heads import View
from mi_core.charts.colours import ColourScale
from mi_core.exports import attention as figures
from mi_core.exports import head_scores as score_figures
from mi_core.exports.references import BIBTEX
from tests.attention_models import OTHER, PROMPT, model_of

BOTH = [View("a"), View("b")]


@lru_cache(maxsize=8)
def result_of(
    show: Show = "weights", *, second: bool = True, window: int = 256, bos: bool = True
) -> AttentionResult:
    inputs = AttentionInputs(
        PROMPT, second_prompt=OTHER if second else None, show=show, answer=" Paris", window=window
    )
    return attention_patterns(model_of("llama", bos=bos), inputs)


@pytest.mark.parametrize("show", ["weights", "value_weighted", "contribution"])
def test_a_and_b_have_one_scale_whichever_is_shown(show: Show) -> None:
    result, place = result_of(show), [(2, 1)]
    scales = [charts.pattern_scale(result, place, views) for views in ([BOTH[0]], [BOTH[1]], BOTH)]
    assert scales[0] == scales[1] == scales[2]
    largest = max(np.abs(result.patterns(side)[2, 1]).max() for side in ("a", "b"))
    assert scales[0].domain[1] >= largest * (1 - 1e-6)
    assert scales[0].diverging == (show == "contribution")


def test_a_difference_is_white_at_zero() -> None:
    scale = charts.pattern_scale(result_of(), [(0, 0)], [View("difference")])
    assert scale.diverging
    assert scale.domain[0] == -scale.domain[1]


def test_the_drawn_cells_are_the_results_numbers_at_their_positions() -> None:
    result = result_of(window=6)
    cells = charts.pattern_map(result, [(1, 3)], [View("b")])["datasets"]["cells"]
    assert len(cells) == 21
    assert result.second_values is not None
    for cell in cells:
        row, column = cell["query"] - 6, cell["key"] - 6
        assert cell["value"] == pytest.approx(float(result.second_values[1, 3, row, column]))
        assert cell["name"].startswith(f"{cell['query']} ")


def test_the_text_and_the_sums_of_a_window_are_counted_from_the_prompts_start() -> None:
    result = result_of(window=6)
    text = charts.attention_text(result, (0, 0), View("a"), 9, "from")
    shown = {
        record["position"]
        for records in text["datasets"].values()
        for record in records
        if "position" in record
    }
    assert shown <= set(range(6, 12))
    assert 9 in shown
    assert charts.key_at(result, 2.0) == 8
    points = charts.key_sum_lines(result, (0, 0), BOTH, chosen=8)["datasets"]
    assert points["chosen"] == [{"x": 2}]


def test_numbers_are_called_by_what_they_are_on_this_prompt() -> None:
    assert heads.head_metric_label(result_of(), "first_token") == "first token (BOS)"
    assert "no BOS" in heads.head_metric_label(result_of(bos=False), "first_token")
    assert heads.head_metric_label(result_of(), "effect") == "effect on logit of ▁Paris".replace("▁", "·")


def test_shades_are_steps_along_the_scale() -> None:
    values = np.array([[0.0, 0.5], [1.0, np.nan]])
    assert heads.shade_levels(values, ColourScale("x", "", (0.0, 1.0))) == [[0, 127], [254, -1]]
    signed = ColourScale("x", "", (-2.0, 2.0), diverging=True)
    assert heads.shade_levels(np.array([[-2.0, 0.0]]), signed) == [[0, 127]]


def test_a_metric_that_no_head_has_is_said_in_words() -> None:
    result = attention_patterns(model_of("llama"), AttentionInputs("The Eiffel Tower"))
    assert "No head has a number" in heads.describe_heads(result, "induction")
    figures.heads_figure(result, "induction")


def test_every_figure_has_its_table_its_papers_and_a_recipe() -> None:
    result, place = result_of(), (1, 1)
    made = [
        figures.heads_figure(result, "entropy", View("b", mask_first=True), chosen=place),
        figures.pattern_figure(result, [place, (2, 2)], BOTH),
        figures.sums_figure(result, place, BOTH),
        figures.text_figure(result, place, View("difference"), 4, "to"),
        figures.pairs_figure(result, place, View("a")),
    ]
    for figure in made:
        table = figure.frame()
        assert len(table)
        assert "unit" in table
        assert set(figure.references) <= set(BIBTEX)
        assert "attention_patterns" in figure.recipe
        assert "second_values" in figure.recipe
        assert figure.description
    pairs = made[-1].frame()
    assert pairs["value"].is_monotonic_decreasing
    assert pairs["value"].iloc[0] == pytest.approx(float(result.values[1, 1].max()))
    cells = made[2].frame()
    of_a = cells[cells["prompt"] == "A"]["value"].tolist()
    assert sum(of_a) == pytest.approx(12, abs=1e-4), "twelve rows that sum to 1"


def test_head_scores_are_drawn_from_0_to_1_with_the_threshold() -> None:
    result = head_scores(model_of("llama"), HeadScoresInputs(length=8, samples=3, threshold=0.2))
    spec = score_charts.score_map(result, "induction", chosen=(1, 2))
    values = {(cell["layer"], cell["head"]): cell["value"] for cell in spec["datasets"]["cells"]}
    assert values[1, 2] == pytest.approx(result.mean("induction")[1, 2])
    assert {cell["note"] for cell in spec["datasets"]["cells"]} >= {"none"}
    figure = score_figures.strongest_figure(result, "induction")
    assert "0.2" in figure.caption
    assert "Whiskers" in figure.caption
    assert "head_scores" in figure.recipe
    assert len(figure.frame()) == 16
