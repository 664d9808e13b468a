"""Attention routing under an injection: against another way to push, identities, and what users do wrong."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch

from mi_core.engine import Edit, run
from mi_core.errors import InputError
from mi_core.exports import feature_planning as figures
from mi_core.transcoders import FeatureRoutingInputs, FeatureRoutingResult, feature_routing
from tests.attribution_cases import model_of
from tests.transcoders import tiny_clt, use

INPUTS = FeatureRoutingInputs(
    "The capital of France is", inject="L1F3", suppress="L2F5", position=-3, strength=3.0,
    strengths=(-2.0, 1.0, 3.0), controls=20,
)  # fmt: skip


@lru_cache(maxsize=4)
def prepared(name: str):
    model = model_of(name)
    return model, use(model, tiny_clt(model))


@lru_cache(maxsize=4)
def result_of(name: str) -> FeatureRoutingResult:
    return feature_routing(prepared(name)[0], INPUTS)


def by_hand(name: str, strength: float, position: int, query: int) -> np.ndarray:
    """Patterns of one run in which the stream after each block is pushed, head by head."""
    model, transcoder = prepared(name)
    ids = model.tokenizer(INPUTS.prompt, return_tensors="pt")["input_ids"]
    edits = []
    for layer, index, sign in ((1, 3, 1.0), (2, 5, -1.0)):
        rows = transcoder.rows(layer, torch.tensor([index]))[0].double()
        edits += [
            Edit("resid_post", layer + j, "add", (position,), value=sign * strength * row)
            for j, row in enumerate(rows)
        ]
    seen = run(model, ids, capture=["pattern"], edits=edits)
    return np.stack([seen["pattern", layer][0, :, query, position] for layer in range(model.dims.n_layers)])


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_attention_is_that_of_one_run_at_a_time(name: str) -> None:
    result = result_of(name)
    position, query = result.position, result.query
    assert (position, query) == (len(result.tokens) - 3, len(result.tokens) - 1)
    before = by_hand(name, 0.0, position, query)
    np.testing.assert_allclose(result.before, before, atol=1e-7)
    np.testing.assert_allclose(result.after, by_hand(name, 3.0, position, query), atol=1e-6)
    for index, strength in enumerate(INPUTS.strengths):
        wanted = by_hand(name, strength, position, query) - before
        np.testing.assert_allclose(result.sweep[index], wanted, atol=1e-6)


def test_layers_up_to_the_first_written_one_stay() -> None:
    result = result_of("llama")
    assert result.first_layer == 2
    assert not result.change[:2].any()
    np.testing.assert_allclose(result.controls[:, :2], 0, atol=1e-12)  # another batch adds in another order
    assert result.total > 1e-3
    assert all(check.passed for check in result.checks)


def test_totals_and_top_heads_are_sums_and_order() -> None:
    result = result_of("llama")
    assert result.total == pytest.approx(sum(abs(x) for row in result.change.tolist() for x in row))
    assert result.totals[2] == pytest.approx(result.total)
    assert result.control_totals.shape == (20,)
    layer, head = result.top_heads[0]
    assert abs(result.change[layer, head]) == np.abs(result.change).max()
    assert len(result.top_heads) == result.change.size


def test_more_rows_than_fit_at_once_change_nothing() -> None:
    few = feature_routing(prepared("llama")[0], replace(INPUTS, controls=2))
    np.testing.assert_allclose(few.sweep, result_of("llama").sweep, atol=1e-12)
    np.testing.assert_allclose(few.controls, result_of("llama").controls[:2], atol=1e-12)


def test_the_record_comes_back_and_figures_stand() -> None:
    result = result_of("llama")
    assert FeatureRoutingResult.from_json(result.to_json()).to_json() == result.to_json()
    assert FeatureRoutingInputs.from_dict(INPUTS.to_dict()) == INPUTS
    assert len(result.to_frame()) == result.change.size * (1 + 3 + 20)
    for figure in (figures.routing_figure(result), figures.routing_sweep_figure(result)):
        assert figure.description
        assert figure.recipe
    with pytest.raises(InputError):
        FeatureRoutingResult.from_json(result.to_json().replace('"shape": [4', '"shape": [5'))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"position": 99}, "no token 99"),
        ({"position": -99}, "no token -99"),
        ({"position": 3, "query": 1}, "cannot look"),
        ({"prompt": "France", "position": 0}, "one token"),
        ({"inject": "L8F1"}, "no features in layer 8"),
    ],
)
def test_what_does_not_fit_is_told(fields: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        feature_routing(prepared("llama")[0], replace(INPUTS, **fields))


def test_half_precision_gives_numbers() -> None:
    model = model_of("llama", torch.bfloat16)
    use(model, tiny_clt(model))
    result = feature_routing(model, replace(INPUTS, controls=1))
    assert np.isfinite(result.after).all()
    assert all(check.passed for check in result.checks)
