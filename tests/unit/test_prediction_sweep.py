"""The prediction sweep: planted matrices with known layers, then the lens of one prompt at a time."""

import json
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from mi_core.analyses import (
    Case,
    LogitLensInputs,
    PredictionSweepInputs,
    PredictionSweepResult,
    logit_lens,
    prediction_sweep,
)
from mi_core.analyses.prediction_sweep_result import SweptCase, first_true, stays_true
from mi_core.batch.prompt_sets import FIVE_QUESTIONS
from mi_core.engine import build_model
from mi_core.errors import Cancelled, InputError, SiteMissing
from mi_core.model.model import LoadedModel
from tests.tiny import hf_model
from tests.words import word_tokenizer

RIGHT, WRONG = 7, 3
CASES = (
    Case("The Eiffel Tower is in", "Eiffel Tower", "Paris", relation="a"),
    Case("The capital of Italy is the city of", "Italy", "Rome", relation="b"),
    Case("Big Ben is in", "Big Ben", "London", relation="a"),
    Case("The Space Needle is in", "Space Needle", "San Francisco", relation="b"),
    Case("Paris is the capital of", "Paris", "France", relation="a"),
)


def planted(*columns: str) -> PredictionSweepResult:
    """A result whose column `.xx.` says where the top token is right, layer by layer."""
    right = np.array([[one == "x" for one in column] for column in columns]).T
    top_ids = np.where(right, RIGHT, WRONG)
    grid, n = np.full(right.shape, 0.5), len(columns)
    cases = tuple(Case(f"prompt {index}", "", "seven") for index in range(n))
    return PredictionSweepResult(
        inputs=PredictionSweepInputs(cases),
        provenance=None,
        n_layers=len(right),
        swept=tuple(SweptCase(index, 3, ("·seven",)) for index in range(n)),
        left_out=(),
        answer_ids=np.full(n, RIGHT),
        top_ids=top_ids,
        top_probabilities=grid,
        answer_log_probability=np.log(grid),
        answer_rank=np.where(right, 1, 2),
        output_top_ids=top_ids[-1],
        output_top_probabilities=grid[-1],
        vocabulary={RIGHT: "·seven", WRONG: "·three"},
    )


def test_planted_layers_are_found() -> None:
    result = planted("..xx", "xxxx", ".x.x", "....", "xx..", "...x")
    np.testing.assert_array_equal(result.appears, [2, 0, 1, np.nan, 0, 3])
    np.testing.assert_array_equal(result.stabilises, [2, 0, 3, np.nan, np.nan, 3])
    np.testing.assert_array_equal(result.depth, [0.5, 0, 0.75, np.nan, np.nan, 0.75])
    assert result.depth_counts().tolist() == [1, 0, 1, 2]
    assert (result.n_stable, result.n_lost, result.n_never) == (4, 1, 1)
    assert result.median_depth() == 0.625
    assert result.depth_counts().sum() == result.n_stable


def test_nothing_right_has_no_depth() -> None:
    result = planted("....", "x...")
    assert (result.n_stable, result.n_lost, result.n_never) == (0, 1, 1)
    assert np.isnan(result.median_depth())
    assert result.depth_counts().tolist() == [0, 0, 0, 0]


def test_first_and_last_of_every_pattern_by_reading_it() -> None:
    random = np.random.default_rng(1)
    matrix = random.random((6, 200)) < 0.5
    for column, first, stays in zip(matrix.T, first_true(matrix), stays_true(matrix), strict=True):
        text = "".join("x" if one else "." for one in column)
        assert first == (text.index("x") if "x" in text else pytest.approx(np.nan, nan_ok=True))
        tail = len(text) - len(text.rstrip("x"))
        assert stays == (6 - tail if tail else pytest.approx(np.nan, nan_ok=True))
    assert first_true(np.zeros((4, 0), bool)).shape == stays_true(np.zeros((4, 0), bool)).shape == (0,)


@lru_cache(maxsize=4)
def model_of(name: str = "llama") -> LoadedModel:
    return build_model(hf_model(name), word_tokenizer(bos=True))


@lru_cache(maxsize=4)
def swept(name: str = "llama") -> PredictionSweepResult:
    return prediction_sweep(model_of(name), PredictionSweepInputs(CASES))


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_every_column_is_the_lens_of_that_prompt(name: str) -> None:
    """Batches of equal length, last position only, against one whole lens per prompt."""
    result = swept(name)
    assert [one.index for one in result.swept] == [0, 1, 2, 3, 4]
    for column, case in enumerate(CASES):
        lens = logit_lens(model_of(name), LogitLensInputs(case.prompt, answer=case.answer))
        assert result.swept[column].n_tokens == len(lens.tokens)
        assert result.answer_ids[column] == lens.answer.id
        np.testing.assert_array_equal(result.top_ids[:, column], lens.top_ids[:, -1, 0])
        np.testing.assert_allclose(
            result.top_probabilities[:, column], lens.top_probabilities[:, -1, 0], atol=1e-9
        )
        np.testing.assert_allclose(
            result.answer_log_probability[:, column], lens.log_probability[:, -1], atol=1e-9
        )
        np.testing.assert_array_equal(result.answer_rank[:, column], lens.rank[:, -1])
        assert result.output_top_ids[column] == lens.output_top_ids[-1, 0]
    assert all(check.passed for check in result.checks)
    assert len(result.checks) == 2


def test_the_last_row_is_the_models_own_answer() -> None:
    np.testing.assert_array_equal(swept().top_ids[-1], swept().output_top_ids)


def test_other_streams() -> None:
    before = prediction_sweep(model_of(), PredictionSweepInputs(CASES, site="resid_pre"))
    np.testing.assert_array_equal(before.top_ids[1:], swept().top_ids[:-1])
    with pytest.raises(SiteMissing, match="parallel block"):
        prediction_sweep(model_of("phi"), PredictionSweepInputs(CASES, site="resid_mid"))
    with pytest.raises(InputError, match="resid_pre, resid_mid, resid_post"):
        PredictionSweepInputs(CASES, site="mlp_out")


def test_what_cannot_be_read_is_listed() -> None:
    long = Case("the " * 80 + "city", "", "Rome")
    result = prediction_sweep(model_of(), PredictionSweepInputs((CASES[0], long)))
    assert [one.index for one in result.swept] == [0]
    assert result.left_out[0].index == 1
    assert "at most 64" in result.left_out[0].reason
    assert any("1 of 2 prompts cannot be read" in warning for warning in result.warnings)
    nothing = prediction_sweep(model_of(), PredictionSweepInputs((long,)))
    assert (nothing.n_prompts, nothing.n_never, nothing.checks) == (0, 0, ())
    assert PredictionSweepResult.from_json(nothing.to_json()).n_prompts == 0


def test_warnings_count_wrong_and_long_answers() -> None:
    text = " ".join(swept().warnings)
    wrong = sum(top != answer for top, answer in zip(swept().output_top_ids, swept().answer_ids, strict=True))
    assert f"gets {wrong} of 5 prompts wrong" in text
    assert "1 of 5 answers have several tokens" in text


def test_cancelling_keeps_the_prompts_that_are_done() -> None:
    seen: list[Any] = []

    def stop(step: Any) -> None:
        seen.append(step)
        if step.done:
            raise Cancelled

    result = prediction_sweep(model_of(), PredictionSweepInputs(CASES), on_step=stop)
    assert result.cancelled
    assert 0 < result.n_prompts < len(CASES)
    for column, one in enumerate(result.swept):
        np.testing.assert_array_equal(result.top_ids[:, column], swept().top_ids[:, one.index])
    at_once = prediction_sweep(model_of(), PredictionSweepInputs(CASES), on_step=_raise)
    assert (at_once.cancelled, at_once.n_prompts) == (True, 0)


def _raise(_step: Any) -> None:
    raise Cancelled


def test_steps_carry_what_is_done() -> None:
    steps: list[Any] = []
    prediction_sweep(model_of(), PredictionSweepInputs(CASES), on_step=steps.append)
    assert (steps[0].done, steps[-1].done, steps[-1].total) == (0, 5, 5)
    assert steps[-1].partial.n_prompts == 5


def test_a_record_brings_the_same_numbers_back() -> None:
    result = swept()
    again = PredictionSweepResult.from_json(result.to_json())
    assert again.to_json() == result.to_json()
    assert (again.inputs, again.swept) == (result.inputs, result.swept)
    np.testing.assert_array_equal(again.answer_log_probability, result.answer_log_probability)


@pytest.mark.parametrize(
    "damage",
    [
        {"top_ids": [[1]]},
        {"swept": [{"index": 99, "n_tokens": 1, "pieces": ["x"]}] * 5},
        {"swept": [{"index": 0, "n_tokens": 1, "pieces": []}] * 5},
        {"n_layers": "four"},
        {"inputs": {"cases": [{"prompt": "", "subject": "", "answer": ""}]}},
        {"inputs": {}},
    ],
)
def test_a_damaged_record_is_one_sentence(damage: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        PredictionSweepResult.from_json(json.dumps(json.loads(swept().to_json()) | damage))


def test_sets_without_prompts_are_refused() -> None:
    with pytest.raises(InputError, match="0 prompts"):
        PredictionSweepInputs(())


def test_the_table_has_a_row_per_prompt_and_layer() -> None:
    frame = planted("..xx", "....").to_frame()
    assert len(frame) == 8
    assert frame["appears"].tolist()[:4] == [2] * 4
    assert frame["depth"].isna().tolist() == [False] * 4 + [True] * 4
    assert frame["top_token"].tolist()[:4] == ["·three", "·three", "·seven", "·seven"]


def test_the_bundled_questions_are_the_seeds() -> None:
    assert [case.prompt for case in FIVE_QUESTIONS.cases][:4] == [
        "The capital of France is",
        "Barack Obama was born in",
        "The largest planet in the solar system is",
        "Water freezes at zero degrees",
    ]
    assert FIVE_QUESTIONS.cases[4].prompt.startswith("def fibonacci(n):")
    assert all(case.subject in case.prompt for case in FIVE_QUESTIONS.cases)
