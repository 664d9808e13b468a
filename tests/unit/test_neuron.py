"""One neuron: activations, contexts, histogram, kinds of text, vocabulary; a text and a prompt by itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mi_core.analyses import (
    NeuronInputs,
    NeuronPromptInputs,
    NeuronPromptResult,
    NeuronResult,
    NeuronTextInputs,
    NeuronTextResult,
    neuron,
    neuron_prompt,
    neuron_survey,
    neuron_text,
)
from mi_core.analyses import neuron_vocabulary as module
from mi_core.analyses.neuron_inputs import NeuronSurveyInputs
from mi_core.analyses.neuron_statistics import category_bands, histogram_edges
from mi_core.analyses.neuron_vocabulary import vocabulary_effects
from mi_core.analyses.texts import Text
from mi_core.engine import build_model, readout, run
from mi_core.errors import Cancelled, InputError, ModelError
from mi_core.tokens import tokenize
from tests.neuron_oracle import FAMILIES, all_at_once, direct, some_texts, worded
from tests.tiny import hf_model
from tests.words import word_tokenizer

TEXT = "Mary gave John a drink in Paris"


# --- identities ---


@pytest.mark.parametrize("family", FAMILIES)
def test_activations_are_those_of_a_plain_hook(family):
    model, texts = worded(family), some_texts()
    result = neuron(model, NeuronInputs(2, 17, texts))
    assert all(check.passed for check in result.checks), result.checks
    values, rows, positions, _ = all_at_once(model, family, texts)
    counted = result.counted
    np.testing.assert_allclose(result.activations[counted], values[2, :, 17], rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(result.text_index[result.text_of[counted]], rows)
    np.testing.assert_array_equal(result.position_of[counted], positions)
    np.testing.assert_allclose(result.bound, np.abs(values[2, :, 17]).max(), rtol=1e-6)
    ids = tokenize(model.tokenizer, TEXT).ids
    own = direct(model, family, ids)
    text = neuron_text(model, NeuronTextInputs(TEXT, 2, 17, result.bound))
    np.testing.assert_allclose(text.activations, own[2, :, 17], rtol=1e-6, atol=1e-7)
    prompt = neuron_prompt(model, NeuronPromptInputs(TEXT, top=6))
    for layer in range(4):
        for position in range(len(ids)):
            order = np.argsort(-np.abs(own[layer, position]))[:6]
            np.testing.assert_array_equal(prompt.neurons[layer, position], order)
            np.testing.assert_allclose(prompt.values[layer, position], own[layer, position, order], rtol=1e-6)
    np.testing.assert_allclose(prompt.sizes, np.linalg.norm(own, axis=2), rtol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_effect_is_the_derivative_at_frozen_scale(family):
    """A second computation, with the norms written out: push the last residual along its write."""
    model, ids, position, layer, number = worded(family), (5, 9, 31, 12, 7), 3, 1, 11
    effects, frozen_post, checks = vocabulary_effects(model, layer, number, ids, position)
    assert all(check.passed for check in checks), checks
    assert frozen_post == (family == "gemma2")
    write = _written(model, family, layer, number, ids, position)
    residual = run(model, torch.tensor([ids]), capture=[("resid_post", 3)])["resid_post", 3][0, position]
    step = 1e-4
    moved = _logits_at_frozen_scale(model, family, residual.double() + step * write, residual.double())
    still = _logits_at_frozen_scale(model, family, residual.double(), residual.double())
    numeric = (moved - still) / step
    np.testing.assert_allclose(effects, numeric.numpy(), rtol=1e-4, atol=1e-5 * float(numeric.abs().max()))


@pytest.mark.parametrize("family", ["opt", "gemma2"])
def test_all_neurons_together_are_the_mlp(family):
    """Effects times activations, plus what biases write, are the direct effect of `mlp_out`."""
    model, ids, position, layer = worded(family), (5, 9, 31, 12, 7), 4, 2
    seen = run(model, torch.tensor([ids]), capture=["mlp_post", "mlp_out", "resid_post"])
    activations = seen["mlp_post", layer][0, position].double().numpy()
    effects = np.stack(
        [vocabulary_effects(model, layer, j, ids, position)[0] for j in range(model.dims.d_mlp)]
    )
    way = readout(model, seen["resid_post", 3][0, [position]], range(model.dims.d_vocab))
    whole = way.parts(seen["mlp_out", layer][0, [position]])[0].numpy()
    constant = _constant(model, family, layer, way)
    np.testing.assert_allclose(
        activations @ effects + constant, whole, rtol=1e-4, atol=2e-5 * np.abs(whole).max()
    )


def _written(model, family, layer, number, ids, position):
    """What one unit of the neuron adds to the stream, with a sandwich norm written out."""
    hf = model.hf
    if family == "gpt2":
        return hf.transformer.h[layer].mlp.c_proj.weight[number].detach().double()
    if family == "opt":
        return hf.model.decoder.layers[layer].fc2.weight[:, number].detach().double()
    block = hf.model.layers[layer]
    direction = block.mlp.down_proj.weight[:, number].detach().double()
    if family != "gemma2":
        return direction
    values = torch.tensor(direct(model, family, ids)[layer, position])
    into = block.mlp.down_proj.weight.detach().double() @ values
    scale = (into.square().mean() + hf.config.rms_norm_eps).sqrt()
    return (1 + block.post_feedforward_layernorm.weight.detach().double()) * direction / scale


def _logits_at_frozen_scale(model, family, residual, frozen_at):
    """Final norm by its formula, its scale taken from another vector; logits before the softcap."""
    hf = model.hf
    head = hf.lm_head.weight.detach().double()
    if family in ("gpt2", "opt"):
        norm = hf.transformer.ln_f if family == "gpt2" else hf.model.decoder.final_layer_norm
        scale = (frozen_at.var(unbiased=False) + norm.eps).sqrt()
        normed = (residual - residual.mean()) / scale * norm.weight.double() + norm.bias.double()
    else:
        norm = hf.model.norm
        gain = norm.weight.double() + (1 if family == "gemma2" else 0)
        scale = (frozen_at.square().mean() + hf.config.rms_norm_eps).sqrt()
        normed = residual / scale * gain
    return (head @ normed).detach()


def _constant(model, family, layer, way):
    """What the down projection's bias writes."""
    bias = None
    if family == "opt":
        bias = model.hf.model.decoder.layers[layer].fc2.bias
    return 0.0 if bias is None else way.parts(bias.detach().double()[None])[0].numpy()


def test_the_survey_and_the_neuron_tell_the_same():
    model, texts = worded("llama"), some_texts()
    survey = neuron_survey(model, NeuronSurveyInputs(texts, top=3, contexts=4))
    for kept in range(0, len(survey.layers), 5):
        layer, number = int(survey.layers[kept]), int(survey.neurons[kept])
        one = neuron(model, NeuronInputs(layer, number, texts))
        np.testing.assert_allclose(one.category_mean, survey.category_means[kept], rtol=1e-5, atol=1e-8)
        contexts = one.contexts(4, per_text=False)
        assert [c.text for c in contexts] == survey.context_texts[kept].tolist()
        assert [c.position for c in contexts] == survey.context_positions[kept].tolist()
        assert one.share_active == pytest.approx(survey.share_active[kept])


def test_a_text_does_not_change_its_scale():
    model = worded("llama")
    bound = neuron(model, NeuronInputs(1, 3, some_texts())).bound
    quiet = neuron_text(model, NeuronTextInputs("the the", 1, 3, bound))
    loud = neuron_text(model, NeuronTextInputs("the the", 1, 3, bound / 1000))
    assert quiet.bound == pytest.approx(bound)
    assert loud.bound == pytest.approx(bound / 1000)
    np.testing.assert_array_equal(quiet.activations, loud.activations)
    assert (quiet.clipped, loud.clipped) == (0.0, 1.0)
    own = neuron_text(model, NeuronTextInputs("the the", 1, 3))
    assert own.bound == pytest.approx(float(np.abs(own.activations[1:]).max()))
    assert np.isnan(own.shown[0])
    assert own.clipped == 0.0


# --- numbers worked out by hand ---


def hand_made() -> NeuronResult:
    """Two texts of three and two tokens; the first of each does not count."""
    model = worded("llama")
    texts = (Text("a", "Mary gave"), Text("b", "John"))
    result = neuron(model, NeuronInputs(0, 0, texts, bins=2))
    values = {
        "activations": np.array([9.0, 1.0, -2.0, -9.0, 2.0], np.float32),
        "edges": np.array([-2.0, 0.0, 2.0]),
        "counts": np.array([[1, 1], [0, 1]]),
    }
    return replace(result, **values)


def test_contexts_by_hand():
    result = hand_made()
    assert result.tokens == ("<s>", "·Mary", "·gave", "<s>", "·John")
    assert result.bound == 2.0
    assert result.share_active == pytest.approx(2 / 3)
    strongest = result.contexts(5)  # -2 and 2 tie: the earlier token first
    assert [(c.text, c.position, c.value) for c in strongest] == [(0, 2, -2.0), (1, 1, 2.0)]
    every = result.contexts(5, per_text=False)
    assert [(c.text, c.position) for c in every] == [(0, 2), (1, 1), (0, 1)]
    assert [c.value for c in result.contexts(5, sign="positive", per_text=False)] == [2.0, 1.0]
    assert [c.value for c in result.contexts(5, sign="negative", per_text=False)] == [-2.0]
    near = result.contexts(1, around=0)[0]
    assert (near.tokens, near.start) == (("·gave",), 2)
    whole = result.contexts(1, around=None)[0]
    assert whole.tokens == ("<s>", "·Mary", "·gave")
    assert np.isnan(whole.values[0])
    assert whole.values[1:] == (1.0, -2.0)


def test_bins_by_hand():
    assert histogram_edges(np.array([-1.0, 3.0]), 4).tolist() == [-1, 0, 1, 2, 3]
    assert histogram_edges(np.array([2.0, 2.0]), 2).tolist() == [1.5, 2.0, 2.5]


def test_bands_draw_texts_not_tokens():
    sums, counts = np.array([10.0, 0.0, 5.0, 7.0]), np.array([1, 9, 5, 0])
    mean, low, high = category_bands(sums, counts, np.array([0, 0, 1, 2]), 4, 2000, 0)
    np.testing.assert_allclose(mean, [1.0, 1.0, np.nan, np.nan])  # 10/10 tokens; 5/5; none; none
    assert (low[0], high[0]) == (0.0, 10.0)  # one text drawn twice, or the other
    assert np.isnan([low[1], high[1], low[2], low[3]]).all()


def test_counts_are_those_of_the_activations():
    result = neuron(worded("gpt2"), NeuronInputs(3, 5, some_texts(), bins=7))
    kinds = result.text_category[result.text_of]
    for kind in range(3):
        mine = result.activations[(kinds == kind) & result.counted]
        np.testing.assert_array_equal(result.counts[kind], np.histogram(mine, result.edges)[0])
        assert result.category_mean[kind] == pytest.approx(mine.mean(dtype=float))
    assert result.counts.sum() == result.counted.sum() == result.token_counts.sum()


# --- what a user does ---


def test_a_neuron_that_is_not_there():
    model, texts = worded("llama"), some_texts(count=2)
    for run_it in (
        lambda: neuron(model, NeuronInputs(0, 64, texts)),
        lambda: neuron_text(model, NeuronTextInputs("Mary", 0, 64)),
    ):
        with pytest.raises(InputError, match="no neuron 64 in layer 0: the layer has neurons 0 to 63"):
            run_it()


@pytest.mark.parametrize(
    ("kind", "values", "told"),
    [
        (NeuronInputs, {"layer": -1, "neuron": 0, "texts": some_texts(count=1)}, "The layer is -1"),
        (NeuronInputs, {"layer": 0, "neuron": 0, "texts": some_texts(count=1), "bins": 1}, "bars is 1"),
        (NeuronTextInputs, {"text": "", "layer": 0, "neuron": 0}, "The text is empty"),
        (NeuronTextInputs, {"text": "a", "layer": 0, "neuron": 0, "bound": float("nan")}, "bound of the"),
        (NeuronTextInputs, {"text": "a" * 200_000, "layer": 0, "neuron": 0}, "more than 100,000"),
        (NeuronPromptInputs, {"prompt": "", "top": 3}, "The prompt is empty"),
        (NeuronPromptInputs, {"prompt": "a", "top": 0}, "number of neurons is 0"),
    ],
)
def test_mistakes_are_told(kind, values, told):
    with pytest.raises(InputError, match=told):
        kind(**values)


@pytest.mark.parametrize("text", ["Mary", "🎉", "日本語", " ", "Mary Mary Mary Mary", "\n\n"])
def test_odd_texts_are_read(text):
    model = worded("gpt2", bos=False)
    read = neuron_text(model, NeuronTextInputs(text, 0, 0, 1.0))
    prompt = neuron_prompt(model, NeuronPromptInputs(text, top=200))
    assert prompt.top == model.dims.d_mlp
    assert len(read.tokens) == len(prompt.tokens) == prompt.sizes.shape[1]
    assert bool(read.warnings) == (len(read.tokens) == 1)
    np.testing.assert_allclose(prompt.share.sum(2), 1.0, rtol=1e-5)


def test_a_model_whose_logits_are_not_linear_has_no_vocabulary(monkeypatch):
    def refuse(*_arguments):
        raise ModelError("The way is not linear", kind="unsupported")

    model = build_model(hf_model("llama"), word_tokenizer(bos=True))
    monkeypatch.setattr(module, "readout", refuse)
    result = neuron(model, NeuronInputs(0, 0, some_texts(count=3)))
    assert result.vocabulary.problem == "The way is not linear."
    assert NeuronResult.from_json(result.to_json()).vocabulary.problem
    assert all(check.passed for check in result.checks)


def test_stopping_keeps_what_is_done():
    def stop(step):
        if step.done > step.total // 2:
            raise Cancelled

    result = neuron(worded("llama"), NeuronInputs(0, 0, some_texts()), on_step=stop)
    assert result.cancelled
    assert result.vocabulary.problem
    assert any("Stopped after" in warning for warning in result.warnings)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision(dtype):
    result = neuron(worded("llama", dtype), NeuronInputs(1, 2, some_texts()))
    assert all(check.passed for check in result.checks), result.checks
    assert np.isfinite(result.activations).all()


# --- records ---


def test_tables_and_records():
    model, texts = worded("llama"), some_texts()
    made = (
        neuron(model, NeuronInputs(1, 2, texts)),
        neuron_text(model, NeuronTextInputs(TEXT, 1, 2, 1.5)),
        neuron_prompt(model, NeuronPromptInputs(TEXT)),
    )
    for result, kind in zip(made, (NeuronResult, NeuronTextResult, NeuronPromptResult), strict=True):
        again = kind.from_json(result.to_json())
        assert again.to_json() == result.to_json()
        assert again.inputs == result.inputs
        assert len(result.to_frame())
        with pytest.raises(InputError, match="record"):
            kind.from_json(result.to_json().replace('"tokens": [', '"tokens": ["x", ', 1))
    frame = made[0].to_frame()
    assert set(frame["quantity"]) == {"activation", "tokens in bin", "mean", "promoted", "suppressed"}
    assert set(made[2].to_frame()["token"].tolist()) == set(made[2].tokens)
