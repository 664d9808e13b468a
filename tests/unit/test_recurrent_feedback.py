"""Recurrent feedback: identities, the numbers by another way, and what users do wrong."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch

from mi_core.analyses import RecurrentFeedbackInputs, RecurrentFeedbackResult, Step, recurrent_feedback
from mi_core.analyses.recurrent_feedback_inputs import COUPLETS
from mi_core.analyses.recurrent_feedback_run import last_word, rhyme_direction
from mi_core.engine import build_model
from mi_core.errors import Cancelled, InputError
from mi_core.exports.recurrent_feedback import lines_table, recurrent_figure
from mi_core.model.model import LoadedModel
from tests.tiny import hf_model
from tests.words import word_tokenizer

INPUTS = RecurrentFeedbackInputs(
    "The Eiffel Tower is in", "Paris", ("Paris", "Rome"), start=1, end=3, depth=2, steps=5, k=7
)


@lru_cache
def model() -> LoadedModel:
    return build_model(hf_model("gpt2"), word_tokenizer())


@lru_cache
def result_of(inputs: RecurrentFeedbackInputs) -> RecurrentFeedbackResult:
    return recurrent_feedback(model(), inputs)


def test_depth_one_without_feedback_is_the_model() -> None:
    result = result_of(replace(INPUTS, depth=1))
    np.testing.assert_array_equal(result.top_ids[0], result.top_ids[1])
    np.testing.assert_allclose(result.top_probabilities[0], result.top_probabilities[1], atol=1e-12)
    assert result.lines[0] == result.lines[1]
    assert all(check.passed for check in result.checks)
    assert any("as it is" in warning for warning in result.warnings)


def test_iterating_equals_blocks_called_by_hand() -> None:
    """GPT-2's blocks called one after another, without this project's code."""
    hf, ids = model().hf, torch.tensor([word_tokenizer()(INPUTS.line)["input_ids"]])
    n_pos = ids.shape[1]
    mask = torch.full((1, 1, n_pos, n_pos), -torch.inf, dtype=torch.float64).triu(1)
    with torch.no_grad():
        hidden = hf.transformer.wte(ids) + hf.transformer.wpe(torch.arange(n_pos))[None]
        for index in (0, 1, 2, 1, 2, 3):
            out = hf.transformer.h[index](hidden, attention_mask=mask)
            hidden = out[0] if isinstance(out, tuple) else out
        chances = hf.lm_head(hf.transformer.ln_f(hidden))[0, -1].softmax(-1)
    result = result_of(INPUTS)
    order = chances.argsort(descending=True)
    assert result.top_ids[1, 0].tolist() == order[:7].tolist()
    np.testing.assert_allclose(result.top_probabilities[1, 0], chances[order[:7]], rtol=1e-9)
    target = int(result.target_ids[0])
    assert result.target_probabilities[1, 0] == pytest.approx(float(chances[target]), rel=1e-9)
    assert result.target_ranks[1, 0] == 1 + order.tolist().index(target)


def test_strong_feedback_says_the_rhymes_direction_and_depth_does_not_matter() -> None:
    direction = rhyme_direction(model(), ("Paris", "Rome"))
    ids = [word_tokenizer()(f" {word}")["input_ids"][-1] for word in ("Paris", "Rome")]
    mean = model().hf.transformer.wte.weight[ids].mean(0)
    torch.testing.assert_close(direction, mean / mean.norm())
    fed = replace(INPUTS, strength=5.0)
    one, three = result_of(replace(fed, depth=1)), result_of(replace(fed, depth=3))
    np.testing.assert_array_equal(one.top_probabilities, three.top_probabilities)
    assert any("changes nothing" in warning for warning in three.warnings)
    assert not np.allclose(one.top_probabilities[0], one.top_probabilities[1])


def test_sustained_feedback_begins_as_prefill_does() -> None:
    fed = replace(INPUTS, strength=30.0)
    prefill, sustained = result_of(fed), result_of(replace(fed, mode="sustained"))
    np.testing.assert_array_equal(prefill.top_probabilities, sustained.top_probabilities)
    assert prefill.lines[1] != sustained.lines[1]


def test_last_words_and_outcomes() -> None:
    assert [last_word(line) for line in ("And gave the light.", "don't", "3 !", "A, Night!")] == [
        "light",
        "don't",
        "",
        "night",
    ]
    result = result_of(INPUTS)
    for hits, outcome in (((0, 1), "RESCUED"), ((1, 0), "REGRESS"), ((1, 1), "OK"), ((0, 0), "-")):
        made = replace(result, hits=np.array(hits, dtype=bool)[:, None])
        assert made.outcomes == (outcome,)
        assert made.candle_mi()["couplets"][0]["result"] == outcome
    assert result.candle_mi()["depth"] == 2


def test_the_bundled_couplets_run_and_come_back_from_json() -> None:
    result = result_of(RecurrentFeedbackInputs(steps=2))
    assert result.n_couplets == len(COUPLETS)
    assert all(couplet.target in couplet.rhymes for couplet in COUPLETS)
    back = RecurrentFeedbackResult.from_json(result.to_json())
    assert back.to_json() == result.to_json()
    assert len(result.to_frame()) == len(COUPLETS) * 2 * 3
    with pytest.raises(InputError, match="damaged"):
        RecurrentFeedbackResult.from_json(result.to_json().replace('"hits"', '"x"'))


def test_cancelling_keeps_the_couplets_that_are_done() -> None:
    def on_step(step: Step[RecurrentFeedbackResult]) -> None:
        if step.done == 2:
            raise Cancelled

    result = recurrent_feedback(model(), RecurrentFeedbackInputs(steps=1), on_step=on_step)
    assert (result.cancelled, result.n_couplets) == (True, 2)
    assert RecurrentFeedbackResult.from_json(result.to_json()).n_couplets == 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"target": ""}, "incomplete"),
        ({"rhymes": ()}, "incomplete"),
        ({"line": ""}, "incomplete"),
        ({"depth": 0}, "depth"),
        ({"strength": float("nan")}, "strength"),
        ({"mode": "always"}, "mode"),
        ({"start": -1}, "start layer"),
        ({"start": 3, "end": 3}, "no block"),
        ({"end": 5}, "no block"),
        ({"steps": 200}, "do not fit"),
    ],
)
def test_mistakes_are_told(changes: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        recurrent_feedback(model(), replace(INPUTS, **changes))  # type: ignore[arg-type]


def test_the_figure_says_what_was_repeated_and_how_many_rhyme() -> None:
    result = result_of(replace(INPUTS, strength=5.0))
    figure = recurrent_figure(result)
    assert "n = 1 couplets" in figure.caption
    assert "5 x the rhyme direction added before layers 1 to 2, prefill" in figure.caption
    assert [bar["value"] for bar in figure.spec["datasets"]["bars"]] == result.target_probabilities[
        :, 0
    ].tolist()
    assert len(figure.frame()) == 6
    assert lines_table(result)["result"].tolist() == list(result.outcomes)
