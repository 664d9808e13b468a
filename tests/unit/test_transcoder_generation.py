"""Steering by features: a whole pass per token with hooks on the blocks, and features as steering vectors."""

import json
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch

from mi_core.analyses import SteeringInputs, steering_dose, steering_layers
from mi_core.engine import generate, run
from mi_core.errors import Cancelled, InputError
from mi_core.exports.feature_generation import found_figure, pushed_kl_figure, pushed_texts_figure
from mi_core.tokens import tokenize
from mi_core.transcoders import (
    FeatureGenerationInputs,
    FeatureGenerationResult,
    feature_generation,
    feature_vector,
)
from mi_core.transcoders.encode import masked_positions
from mi_core.transcoders.feature_edits_compile import compile_feature_edits
from mi_core.transcoders.feature_edits_growing import GrowingFeatureEdits
from tests.attribution_cases import model_of
from tests.transcoders import tiny_clt, use

PROMPT = "The capital of France is"
INPUTS = FeatureGenerationInputs(PROMPT, features="L1F3:add=4, L2F5:suppress=2, L0F1:add=1", steps=6)


@lru_cache(maxsize=4)
def prepared(name: str):
    model = model_of(name)
    return model, use(model, tiny_clt(model))


def by_hand(where: str) -> list[int]:
    """Greedy tokens, a whole pass each, with every block's output pushed."""
    model, transcoder = prepared("llama")
    prompt = model.tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    special, n_prompt = set(model.tokenizer.all_special_ids), prompt.shape[1]
    first = next(i for i, token in enumerate(prompt[0].tolist()) if token not in special)
    added: list = [0] * model.dims.n_layers
    for layer, index, weight in ((1, 3, 4.0), (2, 5, -2.0), (0, 1, 1.0)):
        for j, row in enumerate(transcoder.rows(layer, torch.tensor([index]))[0].double()):
            added[layer + j] = added[layer + j] + weight * row
    span = {"prompt": slice(first, n_prompt), "generated": slice(n_prompt, None), "all": slice(first, None)}

    def hook(layer):
        def act(_module, _args, out):
            value = (out[0] if isinstance(out, tuple) else out).clone()
            value[:, span[where]] += added[layer]
            return (value, *out[1:]) if isinstance(out, tuple) else value

        return act

    blocks = model.hf.model.layers
    handles = [block.register_forward_hook(hook(layer)) for layer, block in enumerate(blocks)]
    ids = prompt
    try:
        with torch.no_grad():
            for _ in range(INPUTS.steps):
                token = model.hf(input_ids=ids, use_cache=False).logits[0, -1].argmax()
                ids = torch.cat([ids, token[None, None]], 1)
    finally:
        for handle in handles:
            handle.remove()
    return ids[0, n_prompt:].tolist()


@pytest.mark.parametrize("where", ["all", "prompt", "generated"])
def test_the_steered_text_is_that_of_whole_passes_with_hooks(where: str) -> None:
    model, _ = prepared("llama")
    result = feature_generation(model, replace(INPUTS, where=where, stop_at_end=False))
    assert result.edited_ids[0].tolist() == by_hand(where)
    assert all(check.passed for check in result.checks)


def test_pushes_add_up_and_a_push_of_nothing_changes_nothing() -> None:
    model, _ = prepared("llama")
    once = feature_generation(model, replace(INPUTS, features="L1F3:add=4"))
    twice = feature_generation(model, replace(INPUTS, features="L1F3:add=1, L1F3:add=3"))
    np.testing.assert_array_equal(once.edited_log_probabilities, twice.edited_log_probabilities)
    assert twice.weights.tolist() == [4.0]
    nothing = feature_generation(model, replace(INPUTS, features="L1F3:add=2, L1F3:suppress=2"))
    np.testing.assert_array_equal(nothing.edited_ids, nothing.default_ids)
    assert np.nanmax(nothing.kl) < 1e-12
    assert nothing.ratio == 0


def test_the_record_comes_back_and_figures_stand() -> None:
    model, _ = prepared("llama")
    result = feature_generation(model, replace(INPUTS, temperature=1.0, seeds=(0, 3)))
    again = FeatureGenerationResult.from_json(result.to_json())
    assert again.to_json() == result.to_json()
    assert again.inputs == result.inputs
    assert len(result.texts.seeds) == 2
    for figure in (*(pushed_texts_figure(result, row) for row in range(2)), pushed_kl_figure(result)):
        assert "L1F3" in figure.caption
        assert figure.recipe
        assert len(figure.frame())
    with pytest.raises(InputError):
        FeatureGenerationResult.from_json(result.to_json().replace('"weights"', '"weight"'))


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ("L1F3:set", "set needs a number"),
        ("L1F3:ablate=1", "ablate takes no number"),
        ("L1F3@2:add=2", "names tokens"),
        ("L1F3@2:set=2", "names tokens"),
        ("L1F3", "no edit"),
    ],
)
def test_pushes_that_cannot_steer_are_refused(features: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        replace(INPUTS, features=features)


def test_what_is_not_there_is_told() -> None:
    model, _ = prepared("llama")
    with pytest.raises(InputError, match="No feature"):
        feature_generation(model, replace(INPUTS, features=""))
    with pytest.raises(InputError, match="no feature 99"):
        feature_generation(model, replace(INPUTS, features="L1F99:add=1"))


# --- features that are set, scaled or ablated while the text grows ---

HELD = "L0F1:set=3, L1F3:scale=-2, L2F5:ablate, L1F7:add=2"


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("where", ["all", "prompt", "generated"])
def test_every_step_is_a_whole_pass_with_the_list_compiled_for_the_text_so_far(name: str, where: str) -> None:
    model, transcoder = prepared(name)
    inputs = replace(INPUTS, features=HELD, where=where, stop_at_end=False)
    ids = tokenize(model.tokenizer, PROMPT).ids
    n_prompt, masked = len(ids), len(masked_positions(model, ids))
    first, end = (n_prompt if where == "generated" else masked), (n_prompt if where == "prompt" else None)
    growing = GrowingFeatureEdits(model, transcoder, inputs.edits, first, end)
    done = generate(model, ids, steps=6, stop=(), keep_logits=True, growing=growing)
    assert done.method == "cached"
    assert done.logits is not None
    tokens, here = list(ids), list(inputs.edits)
    for step, told in enumerate(done.logits):
        tokens = [*ids, *done.ids[:step]]
        at = tuple(range(first, len(tokens) if end is None else end))
        here = [replace(edit, positions=at) for edit in inputs.edits] if at else []
        fresh = compile_feature_edits(model, transcoder, tokens, here)
        whole = run(model, torch.tensor([tokens]), edits=fresh.edits, last=1).logits[0, -1].double()
        torch.testing.assert_close(told, whole, atol=1e-5, rtol=1e-5)
    result = feature_generation(model, inputs)
    assert result.edited_ids[0].tolist() == list(done.ids)
    assert all(check.passed for check in result.checks)
    assert len(result.checks) == 2
    last = compile_feature_edits(model, transcoder, tokens, here)
    seen = {(one.edit.text.split("@")[0], one.at.position): value
            for one, value in zip(last.placed, last.present, strict=True)}  # fmt: skip
    for text, values in zip(result.held, result.found[0], strict=True):
        for position, value in enumerate(values.tolist()):
            known = seen.get((text.split("@")[0], position), np.nan)
            np.testing.assert_allclose(value, known, atol=1e-5)


def test_a_set_feature_is_at_its_value_at_every_token_by_hooks_on_the_blocks() -> None:
    """A second computation: hooks that read the encoder and write the rows inside one plain pass."""
    model, transcoder = prepared("llama")
    layer, index, value = 1, 3, 2.5
    encoder, rows = transcoder.encoder(layer), transcoder.rows(layer, torch.tensor([index]))[0].double()
    held: dict[str, torch.Tensor] = {}

    def read(_module, args):
        pre = args[0].double() @ encoder.W_enc[index].double() + encoder.b_enc[index].double()
        limit = 0.0 if encoder.threshold is None else float(encoder.threshold[index])
        held["push"] = value - torch.where(pre > limit, pre, 0.0)
        held["push"][:, :masked] = 0

    def write(order):
        def act(_module, _args, out):
            return out + held["push"][..., None].to(out) * rows[order].to(out)

        return act

    blocks = model.hf.model.layers
    handles = [blocks[layer].post_attention_layernorm.register_forward_pre_hook(read)]
    handles += [blocks[layer + order].mlp.register_forward_hook(write(order)) for order in range(len(rows))]
    ids = model.tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    n_prompt, masked = ids.shape[1], len(masked_positions(model, ids[0].tolist()))
    try:
        with torch.no_grad():
            for _ in range(6):
                token = model.hf(input_ids=ids, use_cache=False).logits[0, -1].argmax()
                ids = torch.cat([ids, token[None, None]], 1)
    finally:
        for handle in handles:
            handle.remove()
    inputs = replace(INPUTS, features=f"L{layer}F{index}:set={value}", stop_at_end=False)
    assert feature_generation(model, inputs).edited_ids[0].tolist() == ids[0, n_prompt:].tolist()


def test_held_features_have_a_record_a_table_and_a_figure() -> None:
    model, _ = prepared("llama")
    result = feature_generation(model, replace(INPUTS, features=HELD, temperature=1.0, seeds=(0, 3)))
    assert result.features == ("L1F7",)
    assert result.held == ("L0F1@all:set=3", "L1F3@all:scale=-2", "L2F5@all:ablate")
    assert FeatureGenerationResult.from_json(result.to_json()).to_json() == result.to_json()
    figure = found_figure(result, 1)
    assert "L0F1 set to 3, L1F3 times -2, L2F5 ablated" in figure.caption
    table = figure.frame()
    assert set(table["seed"]) == {3}
    assert set(table.query("edit == 'L0F1@all:set=3'")["to"]) == {3.0}
    assert (result.to_frame()["metric"] == "activation found").sum() == (~np.isnan(result.found)).sum()
    older = json.loads(feature_generation(model, INPUTS).to_json())
    del older["held"], older["found"]  # records of before had pushes only
    assert FeatureGenerationResult.from_json(json.dumps(older)).held == ()


def test_setting_what_is_there_changes_nothing_and_contradictions_are_told() -> None:
    model, _ = prepared("llama")
    same = feature_generation(model, replace(INPUTS, features="L1F3:scale=1, L2F5:scale=1"))
    np.testing.assert_array_equal(same.edited_ids, same.default_ids)
    assert same.ratio < 1e-6
    with pytest.raises(InputError, match="L1F3@all:set=1 and L1F3@all:add=1 both change L1F3"):
        feature_generation(model, replace(INPUTS, features="L1F3:set=1, L1F3:add=1"))


def test_cancelling_a_held_generation_leaves_nothing_behind() -> None:
    model, _ = prepared("llama")

    def stop(step) -> None:
        if step.done == 8:
            raise Cancelled

    with pytest.raises(Cancelled):
        feature_generation(model, replace(INPUTS, features=HELD, stop_at_end=False), on_step=stop)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.hf.modules())


# --- a feature as the source of a steering vector ---


def test_a_features_rows_are_the_vector_layer_by_layer() -> None:
    model, transcoder = prepared("llama")
    vector = feature_vector(model, "L1F3")
    assert vector.norm(0) == 0
    for layer in (1, 2, 3):
        wanted = transcoder.rows(1, torch.tensor([3]))[0, layer - 1]
        np.testing.assert_array_equal(vector.at(layer), wanted.numpy())
    assert "L1F3" in vector.made


def steering(model, name: str, **fields) -> SteeringInputs:
    vector = feature_vector(model, name)
    numbers = tuple(vector.values.ravel().astype(float).tolist())
    return SteeringInputs(PROMPT, source="feature", vector=numbers, vector_name=vector.made, **fields)


def test_the_steering_page_takes_it() -> None:
    model, transcoder = prepared("llama")
    inputs = steering(model, "L1F3", layer=2, answer=" Paris", coefficients=(0.0, 2.0), controls=1)
    assert SteeringInputs.from_dict(inputs.to_dict()) == inputs
    result = steering_dose(model, inputs)
    ids = model.tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    row = transcoder.rows(1, torch.tensor([3]))[0, 1].double()

    def push(_module, _args, out):
        value = (out[0] if isinstance(out, tuple) else out).clone()
        value[:, -1] += 2 * row
        return (value, *out[1:]) if isinstance(out, tuple) else value

    handle = model.hf.model.layers[2].register_forward_hook(push)
    with torch.no_grad():
        logits = model.hf(input_ids=ids).logits[0, -1].double()
    handle.remove()
    wanted = float(logits.softmax(-1)[result.answer.id])
    assert result.values[result.index("probability"), 1] == pytest.approx(wanted, abs=1e-9)
    layers = steering_layers(model, inputs)
    assert layers.values[0, 0] == pytest.approx(layers.baseline[0])


def test_steering_refuses_a_feature_that_is_not_there_or_writes_nothing() -> None:
    model, _ = prepared("llama")
    with pytest.raises(InputError, match="belong together"):
        SteeringInputs(PROMPT, source="feature")
    with pytest.raises(InputError, match="does not fit this model"):
        steering_dose(model, SteeringInputs(PROMPT, source="feature", vector=(1.0, 2.0)))
    with pytest.raises(InputError, match="zero at layer 0"):
        steering_dose(model, steering(model, "L1F3", layer=0))
    with pytest.raises(InputError, match="names no feature"):
        feature_vector(model, "hello")
