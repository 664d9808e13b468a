"""Attention of a prompt: identities on every family, then the same numbers by another way."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch

from mi_core.analyses import AttentionInputs, AttentionResult, attention_patterns
from mi_core.analyses.attention_inputs import SHOWS, Show
from mi_core.analyses.attention_look import look
from mi_core.analyses.attention_weighing import contributions, head_contributions, head_directions
from mi_core.engine import Observation, frozen_norm, observe, post_norm, readout, run
from mi_core.errors import SiteMissing
from mi_core.model.model import LoadedModel
from mi_core.model.weights import weight
from tests.attention_models import OTHER, PROMPT, eager_attention, long_model, long_prompt, model_of
from tests.tiny import FAMILY_NAMES, N_LAYERS
from tests.two_passes import agree

INPUTS = AttentionInputs(PROMPT, answer=" Paris", distractor=" Rome")
SANDWICHED = ("gemma2", "gemma3_text", "olmo2")


@lru_cache(maxsize=64)
def looked_at(name: str, show: Show = "weights") -> AttentionResult:
    return attention_patterns(model_of(name), replace(INPUTS, show=show))


@pytest.mark.parametrize("show", SHOWS)
@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_all_identities_hold(name: str, show: Show) -> None:
    result = looked_at(name, show)
    assert [check for check in result.checks if not check.passed] == []
    names = {check.name for check in result.checks}
    assert ("contributions of the keys add up to the head's" in names) == (show == "contribution")
    assert ("no head moves more than its parts" in names) == (show == "value_weighted")


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_the_pattern_is_the_eager_models_own(name: str) -> None:
    result = looked_at(name)
    own = eager_attention(name, [token.id for token in result.tokens])
    np.testing.assert_allclose(result.values, own.numpy(), atol=1e-6)
    np.testing.assert_allclose(result.values.sum(-1), 1, atol=1e-5)
    assert (result.outside == 0).all()
    assert not result.windowed


def moved_vector(
    seen: Observation, layer: int, cell: tuple[int, int, int], groups: int, w_o: torch.Tensor
) -> torch.Tensor:
    """[d_model] weight times value times W_O, of one cell."""
    head, query, key = cell
    return seen["pattern", layer][head, query, key] * seen["v", layer][key, head // groups] @ w_o[head]


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "phi"])
def test_the_value_weighted_norm_is_the_length_of_the_vector_that_is_moved(name: str) -> None:
    model, result = model_of(name), looked_at(name, "value_weighted")
    seen = observe(model, [token.id for token in result.tokens], ["pattern", "v"])
    groups = model.dims.n_heads // model.dims.n_kv_heads
    for layer in (0, N_LAYERS - 1):
        w_o = weight(model.structure, "W_O", layer)
        for head in range(model.dims.n_heads):
            for query, key in ((3, 0), (7, 7), (10, 4)):
                moved = (
                    seen["pattern", layer][head, query, key]
                    * seen["v", layer][key, head // groups]
                    @ w_o[head]
                )
                assert result.values[layer, head, query, key] == pytest.approx(float(moved.norm()), rel=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama", "phi", "gpt_neox", *SANDWICHED])
def test_a_contribution_is_the_moved_vector_read_out_at_its_query(name: str) -> None:
    """Cell by cell in d_model, through the frozen norms as maps; the analysis never leaves d_head."""
    model, result = model_of(name), looked_at(name, "contribution")
    seen = observe(model, [token.id for token in result.tokens], ["pattern", "v", "z", "resid_post"])
    assert result.answer is not None
    assert result.distractor is not None
    way = readout(model, seen["resid_post", N_LAYERS - 1], [result.answer.ids[0], result.distractor.ids[0]])
    groups, layer = model.dims.n_heads // model.dims.n_kv_heads, 2
    w_o, norm = weight(model.structure, "W_O", layer), post_norm(model, "attn", layer)
    written = torch.einsum("qhd,hdm->qm", seen["z", layer], w_o)
    if name in ("gpt2", "phi", "gpt_neox"):
        written = written + weight(model.structure, "b_O", layer)
    for head, query, key in ((0, 10, 3), (3, 5, 5), (1, 8, 0)):
        moved = torch.zeros_like(written).double()
        moved[query] = moved_vector(seen, layer, (head, query, key), groups, w_o)
        if norm is not None:
            moved = frozen_norm(norm, written).linear(moved)
        parts = way.parts(moved)[query]
        expected = float(parts[0] - parts[1])
        assert result.values[layer, head, query, key] == pytest.approx(expected, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_all_contributions_of_a_layer_are_what_its_attention_writes(name: str) -> None:
    """Heads, keys and the output bias together are the layer's attn_out, read out at every query."""
    model, result = model_of(name), looked_at(name, "contribution")
    seen = observe(model, [token.id for token in result.tokens], ["attn_out", "resid_post"])
    assert result.answer is not None
    assert result.distractor is not None
    way = readout(model, seen["resid_post", N_LAYERS - 1], [result.answer.ids[0], result.distractor.ids[0]])
    for layer in range(N_LAYERS):
        written = way.parts(seen["attn_out", layer].double() - bias_of(model, layer))
        expected = (written[:, 0] - written[:, 1]).numpy()
        by_query = result.values[layer].sum((0, 2))
        np.testing.assert_allclose(by_query, expected, atol=2e-5 * max(1.0, np.abs(expected).max()))
        last = result.values[layer, :, -1].sum(-1)
        np.testing.assert_allclose(result.metric("effect")[layer], last, rtol=1e-4, atol=1e-6)


def bias_of(model: LoadedModel, layer: int) -> torch.Tensor | float:
    try:
        return weight(model.structure, "b_O", layer).double()
    except SiteMissing:
        return 0.0


@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_in_float64_keys_add_up_to_the_head_far_below_float32(name: str) -> None:
    """gpt2's norms are exact; gemma2's compute in float32 inside a float64 model, the same on both sides."""
    model, ids = model_of(name), [token.id for token in looked_at(name).tokens]
    looked = look(model, ids, (0, len(ids)), norms=False, on_layer=lambda layer: None)
    way = readout(model, looked.final, [5])
    for layer in range(N_LAYERS):
        directions = head_directions(model, layer, looked.z[layer], way.directions[..., 0])
        parts = contributions(looked.layers[layer].weights, looked.values[layer], directions[:, :-1])
        own = head_contributions(looked.z[layer], directions)[:, :-1]
        torch.testing.assert_close(parts.sum(-1), own, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("show", SHOWS)
@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
def test_a_window_is_the_slice_of_the_whole(name: str, show: Show) -> None:
    model, whole = model_of(name), looked_at(name, show)
    start, size = 3, 5
    part = attention_patterns(model, replace(INPUTS, show=show, window=size, window_start=start))
    assert part.window == (start, start + size)
    assert part.windowed
    inside = whole.values[:, :, start : start + size]
    np.testing.assert_allclose(part.values, inside[..., start : start + size], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(part.outside, inside[..., :start].sum(-1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(part.metrics, whole.metrics, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(part.masked_metrics, whole.masked_metrics, rtol=1e-6, atol=1e-9)
    assert "5 of them, 3 to 7" in part.warnings[0]


def test_weights_inside_and_outside_a_window_sum_to_1() -> None:
    part = attention_patterns(model_of("mistral"), replace(INPUTS, window=4))
    np.testing.assert_allclose(part.values.sum(-1) + part.outside, 1, atol=1e-5)
    assert part.window == (8, 12)  # the end, unless something else is asked for


def test_a_two_thousand_token_prompt_keeps_windows_not_squares() -> None:
    model, tokens = long_model(), 2000
    prompt = long_prompt(tokens)
    result = attention_patterns(model, AttentionInputs(prompt, show="value_weighted", answer=" Paris"))
    layers, heads = model.dims.n_layers, model.dims.n_heads
    assert len(result.tokens) == tokens
    assert result.window == (tokens - 256, tokens)
    assert result.values.size == layers * heads * 256 * 256
    assert not model.observations, "a prompt too long for its squares is not remembered"
    looked = look(
        model, [t.id for t in result.tokens], result.window, norms=True, on_layer=lambda layer: None
    )
    kept = 0
    for layer in looked.layers:
        assert layer.norms is not None
        kept += layer.weights.numel() + layer.outside.numel() + layer.norms.numel()
    assert kept < layers * heads * 256 * 259
    storage = looked.layers[0].weights.untyped_storage().size()
    assert storage == heads * 256 * 256 * 4, "a view would keep the whole square alive"


def test_the_numbers_per_head_of_a_long_prompt_are_those_of_all_its_rows() -> None:
    model = long_model(torch.float64)
    prompt = long_prompt(700)
    windowed = attention_patterns(model, AttentionInputs(prompt))
    whole = attention_patterns(model, AttentionInputs(prompt, window=700))
    assert windowed.window == (444, 700)
    assert whole.window == (0, 700)
    np.testing.assert_allclose(windowed.metrics, whole.metrics, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(windowed.values, whole.values[:, :, 444:, 444:], atol=1e-6)


def test_b_is_the_second_prompt_and_the_difference_is_cell_by_cell() -> None:
    model = model_of("qwen2")
    both = attention_patterns(model, replace(INPUTS, second_prompt=OTHER, show="contribution"))
    alone = attention_patterns(model, replace(INPUTS, prompt=OTHER, show="contribution"))
    np.testing.assert_allclose(both.patterns("b"), alone.values, atol=1e-6)
    np.testing.assert_array_equal(both.patterns("difference"), both.patterns("a") - both.patterns("b"))
    np.testing.assert_allclose(both.metric("induction", "b"), alone.metric("induction"))
    np.testing.assert_allclose(both.metric("effect", "b"), alone.metric("effect"), rtol=1e-6)
    assert [token.id for token in both.second_tokens] == [token.id for token in alone.tokens]


def test_b_is_read_out_at_as_target() -> None:
    """Without a typed target both read the top token after A: a difference must not mix two logits."""
    model = model_of("gpt2")
    first = attention_patterns(model, AttentionInputs(PROMPT))
    both = attention_patterns(model, AttentionInputs(PROMPT, second_prompt=OTHER))
    assert both.answer == first.answer
    assert first.answer is not None
    alone = attention_patterns(model, AttentionInputs(OTHER, answer=first.answer.text))
    assert alone.answer is not None
    assert alone.answer.ids == first.answer.ids
    np.testing.assert_allclose(both.metric("effect", "b"), alone.metric("effect"), rtol=1e-6)


def test_equal_prompts_differ_by_nothing() -> None:
    result = attention_patterns(model_of("llama"), replace(INPUTS, second_prompt=PROMPT))
    assert not result.patterns("difference").any()
    assert "same tokens" in result.warnings[0]


def test_looking_changes_nothing_and_costs_one_pass_for_all_views() -> None:
    model = model_of("starcoder2")
    ids = [token.id for token in looked_at("starcoder2").tokens]
    before = run(model, torch.tensor([ids])).logits
    model.observations.clear()
    kept = observe(model, ids, ["pattern"])["pattern", 1].clone()
    passes: list[int] = []
    hook = model.structure.attention[0].register_forward_hook(lambda *_: passes.append(1))
    for show in SHOWS:
        attention_patterns(model, replace(INPUTS, show=show))
    hook.remove()
    assert passes == []
    assert torch.equal(observe(model, ids, ["pattern"])["pattern", 1], kept)
    assert agree(run(model, torch.tensor([ids])).logits, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("show", SHOWS)
def test_half_precision_models_pass_their_checks(dtype: torch.dtype, show: Show) -> None:
    result = attention_patterns(model_of("llama", dtype), replace(INPUTS, show=show))
    assert all(check.passed for check in result.checks)
    assert result.values.dtype == np.float32
    assert np.isfinite(result.values).all()


def test_without_bos_and_with_one_token() -> None:
    result = attention_patterns(model_of("llama", bos=False), AttentionInputs("Tower", show="contribution"))
    assert result.values.shape[-1] == 1
    assert not result.starts_with_bos
    assert "one token" in result.warnings[0]
    assert np.isnan(result.metric("entropy")).all()
    assert np.isfinite(result.metric("effect")).all()
    assert AttentionResult.from_json(result.to_json()).to_json() == result.to_json()
