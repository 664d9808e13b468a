"""The lens' figures say the result's numbers, keep equal tokens apart, and withstand a token's text."""

import json
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from mi_core.analyses import (
    LogitLensInputs,
    LogitLensResult,
    LogitLensStepsInputs,
    PredictionSweepInputs,
    logit_lens,
    logit_lens_steps,
    prediction_sweep,
)
from mi_core.analyses.logit_lens_inputs import STATISTICS, Statistic
from mi_core.charts.logit_lens import lens_scale
from mi_core.charts.theme import styled
from mi_core.engine import build_model
from mi_core.exports.figure import Figure
from mi_core.exports.logit_lens import cell_figure, grid_figure, steps_figure, words_figure
from mi_core.exports.prediction_sweep import depth_figure, sweep_figure
from mi_core.model.model import LoadedModel
from tests.tiny import N_LAYERS, hf_model
from tests.unit.test_prediction_sweep import CASES, planted
from tests.words import word_tokenizer

HOSTILE = "</script><b>&\u202e\"'`\n"


@lru_cache(maxsize=1)
def model() -> LoadedModel:
    return build_model(hf_model("llama"), word_tokenizer(bos=True))


@lru_cache(maxsize=1)
def lens() -> LogitLensResult:
    return logit_lens(model(), LogitLensInputs("the Tower the Tower", tracked=("Rome", "Oslo")))


def cells(figure: Figure) -> list[dict[str, Any]]:
    return figure.spec["datasets"]["cells"]


@pytest.mark.parametrize("statistic", STATISTICS)
def test_the_grid_shows_the_results_numbers(statistic: Statistic) -> None:
    figure, values = grid_figure(lens(), statistic), lens().statistic(statistic)
    assert len(cells(figure)) == values.size
    for cell in cells(figure):
        row, column = lens().row_of(cell["layer"]), lens().column_of(cell["position"])
        assert cell["value"] == pytest.approx(values[row, column])
    low, high = sorted(lens_scale(lens(), statistic).domain)
    assert low <= values.min() + 1e-9
    assert values.max() <= high + 1e-9, "no cell is clipped"


def test_equal_tokens_have_columns_of_their_own() -> None:
    places = {(cell["layer"], cell["position"]) for cell in cells(grid_figure(lens()))}
    assert places == {(layer, position) for layer in range(N_LAYERS) for position in range(5)}


def test_the_chosen_cell_is_outlined_and_a_stranger_is_not() -> None:
    assert len(grid_figure(lens(), chosen=(2, 3)).spec["datasets"]["chosen"]) == 1
    assert grid_figure(lens(), chosen=(99, 3)).spec["datasets"]["chosen"] == []


def test_captions_say_n_unit_and_zero() -> None:
    kl = grid_figure(lens(), "kl").caption
    assert "4 of 4 layers" in kl
    assert "all 5 tokens" in kl
    assert "[nats]" in kl
    assert "0 = the same distribution" in kl
    assert "low values are bright" in kl
    assert "Tied tokens share the best rank" in grid_figure(lens(), "rank").caption
    some = logit_lens(model(), LogitLensInputs("the Tower the Tower", positions=(1, 2), target="next token"))
    assert "2 of 5 tokens (1 to 2)" in grid_figure(some).caption
    assert "the token that comes next" in grid_figure(some).caption


def test_lines_of_words_and_bars_of_a_cell() -> None:
    words = words_figure(lens(), 4, "rank", chosen_layer=1)
    text = json.dumps(words.spec)
    assert text.count('"log"') >= 1
    ranks = [point["y"] for point in words.spec["datasets"]["points"]]
    np.testing.assert_array_equal(ranks, lens().word_rank[:, 4].T.ravel())
    bars = cell_figure(lens(), 2, 3)
    np.testing.assert_allclose(
        [bar["value"] for bar in bars.spec["datasets"]["bars"]], lens().top_probabilities[2, 3]
    )
    assert bars.frame()["token"].tolist() == [lens().visible(int(t)) for t in lens().top_ids[2, 3]]


def test_steps_can_leave_out_the_first_layer() -> None:
    result = logit_lens_steps(model(), LogitLensStepsInputs("the Tower the Tower"))
    whole, rest = steps_figure(result), steps_figure(result, first_layer=1)
    assert len(whole.spec["datasets"]["points"]) == 2 * N_LAYERS
    assert len(rest.spec["datasets"]["points"]) == 2 * (N_LAYERS - 1)
    assert "from layer 1 on" in rest.caption
    assert len(rest.frame()) == 2 * N_LAYERS


def test_marks_stand_where_answers_appear_and_stabilise() -> None:
    data = sweep_figure(planted("..xx", ".x.x", "...."), range(3)).spec["datasets"]
    assert [(round(m["x"]), round(m["y"])) for m in data["appears"]] == [(0, 2), (1, 1)]
    assert [(round(m["x"]), round(m["y"])) for m in data["stabilises"]] == [(0, 2), (1, 3)]
    later = sweep_figure(planted("..xx", ".x.x", "...."), range(1, 3)).spec["datasets"]
    assert [(round(m["x"]), round(m["y"])) for m in later["appears"]] == [(0, 1)]
    assert {cell["case"] for cell in later["cells"]} == {1, 2}


def test_the_histogram_counts_layers_and_says_who_is_left_out() -> None:
    figure = depth_figure(planted("..xx", ".x.x", "....", "xxxx", "x..."))
    assert "layer 0: 1, layer 2: 1, layer 3: 1." in figure.description
    assert "3 stabilise, 1 appear in some layer but not in the last, 1 never appear" in figure.caption
    assert "no prompt" in depth_figure(planted("....")).description
    assert len(figure.frame()) == 5


def every_figure() -> list[Figure]:
    sweep = prediction_sweep(model(), PredictionSweepInputs(CASES))
    steps = logit_lens_steps(model(), LogitLensStepsInputs("the Tower the Tower"))
    return [
        grid_figure(lens()),
        words_figure(lens(), 2),
        cell_figure(lens(), 0, 0),
        steps_figure(steps),
        sweep_figure(sweep, range(5)),
        depth_figure(sweep),
    ]


def test_every_figure_can_leave() -> None:
    for figure in every_figure():
        json.dumps(styled(figure.spec, theme="print", size="column"), allow_nan=False)
        assert figure.description
        assert figure.caption
        assert figure.how_to_read
        assert len(figure.frame())
        compile(figure.recipe, "recipe.py", "exec")
        assert "np.testing.assert_allclose" in figure.recipe
        assert all(check.passed for check in figure.checks)
        assert figure.record_json()


def test_hostile_tokens_stay_text() -> None:
    nasty = replace(lens(), vocabulary=dict.fromkeys(lens().vocabulary, HOSTILE))
    figure = grid_figure(nasty)
    text = json.dumps(figure.spec)
    assert "\u202e" not in text
    assert "\\u202e" not in text
    assert "</script>" not in json.dumps([axis for axis in _axes(figure.spec)])
    json.dumps(cell_figure(nasty, 1, 1).spec, allow_nan=False)


def _axes(spec: Any) -> Any:
    """Everything inside the specification that is code: label expressions."""
    if isinstance(spec, dict):
        for key, value in spec.items():
            if key == "labelExpr":
                yield value
            elif key != "datasets":
                yield from _axes(value)
    elif isinstance(spec, list):
        for value in spec:
            yield from _axes(value)
