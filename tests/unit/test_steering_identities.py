"""Steering: identities, then plain torch hooks on the model's own blocks, numpy, and numbers by hand."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch

from mi_core import load_model
from mi_core.analyses import (
    SteeringInputs,
    steering_convergence,
    steering_dose,
    steering_layers,
    steering_routing,
)
from mi_core.analyses.steering_dose_run import random_directions
from mi_core.analyses.steering_make import steering_edits, steering_vector
from mi_core.engine import run
from pages.shared.steering_fields import NEGATIVE, POSITIVE
from tests.attribution_cases import model_of, own_logits
from tests.tiny import FAMILY_NAMES, N_LAYERS, hf_model
from tests.words import word_tokenizer

PROMPT, OTHER = "The capital of France is", "The Space Needle is in the city of"
INPUTS = SteeringInputs(
    PROMPT, source="prompts", positive=OTHER, layer=2, answer=" Paris", distractor=" Rome",
    coefficients=(-1.0, 0.0, 0.5, 2.0), coefficient=1.5, controls=3,
)  # fmt: skip
BLOCKS = {
    "gpt2": "transformer.h",
    "llama": "model.layers",
    "gemma2": "model.layers",
    "gpt_neox": "gpt_neox.layers",
}


@lru_cache(maxsize=8)
def blocks(name):
    return model_of(name).hf.get_submodule(BLOCKS[name])


def hooked(name, prompt, changes=None):
    """Logits and last-token states of every block, by plain forward hooks.

    `changes` maps a layer to (vector, positions).
    """
    model, states, handles = model_of(name), {}, []
    ids = model.tokenizer(prompt, return_tensors="pt")["input_ids"]

    def hook(layer):
        def act(_module, _args, out):
            value = (out[0] if isinstance(out, tuple) else out).clone()
            if changes and layer in changes:
                vector, positions = changes[layer]
                value[:, positions] += vector
            states[layer] = value[0].detach()
            return (value, *out[1:]) if isinstance(out, tuple) else value

        return act

    try:
        for layer, block in enumerate(blocks(name)):
            handles.append(block.register_forward_hook(hook(layer)))
        with torch.no_grad():
            logits = model.hf(input_ids=ids).logits[0, -1].double()
    finally:
        for handle in handles:
            handle.remove()
    return logits, states


def difference(name):
    """The vector of two prompts, by plain hooks."""
    up, down = hooked(name, OTHER)[1], hooked(name, PROMPT)[1]
    return {layer: (up[layer][-1] - down[layer][-1]).float().double() for layer in range(N_LAYERS)}


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_the_whole_difference_at_the_last_layer_gives_the_other_prompts_logits(name):
    """Patching identity: after the last block only the last token's state is read."""
    model = model_of(name)
    inputs = replace(INPUTS, layer=N_LAYERS - 1)
    ids = torch.tensor([model.tokenizer(PROMPT)["input_ids"]])
    edits = steering_edits(model, ids.shape[1], steering_vector(model, inputs), inputs, 1.0)
    steered = run(model, ids, edits=edits).logits[0, -1].double()
    torch.testing.assert_close(steered, own_logits(model, OTHER), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "gpt_neox"])
def test_a_dose_of_zero_is_the_baseline(name):
    result = steering_dose(model_of(name), INPUTS)
    np.testing.assert_array_equal(result.values[:, 1], result.baseline)
    np.testing.assert_array_equal(result.controls[:, :, 1], np.tile(result.baseline[:, None], (1, 3)))
    assert result.ratio[1] == 0
    assert all(check.passed for check in result.checks)
    assert not steering_edits(model_of(name), 5, steering_vector(model_of(name), INPUTS), INPUTS, 0.0)


@pytest.mark.parametrize("name", list(BLOCKS))
@pytest.mark.parametrize("where", ["last", "chosen"])
def test_doses_are_those_of_plain_hooks(name, where):
    chosen = (1, 3) if where == "chosen" else ()
    inputs = replace(INPUTS, where=where, chosen=chosen)
    result, vector = steering_dose(model_of(name), inputs), difference(name)[2]
    base, states = hooked(name, PROMPT)
    paris, rome = (
        model_of(name).tokenizer(f"{PROMPT} {word}")["input_ids"][-1] for word in ("Paris", "Rome")
    )
    assert result.distractor is not None
    assert (result.answer.id, result.distractor.id) == (paris, rome)
    positions = list(chosen) or [-1]
    lengths = states[2][positions].norm(dim=-1).median()
    for index, dose in enumerate(inputs.coefficients):
        logits, _ = hooked(name, PROMPT, {2: (dose * vector, positions)})
        log_p, log_base = logits.log_softmax(-1), base.log_softmax(-1)
        wanted = {
            "probability": log_p[paris].exp(),
            "logit_difference": logits[paris] - logits[rome],
            "kl": (log_base.exp() * (log_base - log_p)).sum(),
        }
        for metric, value in wanted.items():
            found = result.values[result.index(metric), index]
            np.testing.assert_allclose(found, float(value), atol=1e-6, err_msg=f"{metric} {dose}")
        np.testing.assert_allclose(result.ratio[index], float(abs(dose) * vector.norm() / lengths), rtol=1e-5)


def test_layers_and_convergence_are_those_of_plain_hooks():
    model = model_of("gpt2")
    layers, matrix = steering_layers(model, INPUTS), steering_convergence(model, INPUTS)
    vectors, (_, base) = difference("gpt2"), hooked("gpt2", PROMPT)
    paris = layers.answer.id
    for layer in range(N_LAYERS):
        logits, states = hooked("gpt2", PROMPT, {layer: (1.5 * vectors[layer], [-1])})
        np.testing.assert_allclose(layers.values[0, layer], float(logits.softmax(-1)[paris]), atol=1e-6)
        np.testing.assert_allclose(matrix.values[0, layer], layers.values[0, layer], atol=1e-9)
        for seen in range(N_LAYERS):
            x, y = base[seen][-1].numpy(), states[seen][-1].numpy()
            cosine = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
            np.testing.assert_allclose(matrix.cosine[layer, seen], cosine, atol=1e-6)
            away = np.linalg.norm(y - x) / np.linalg.norm(x)
            np.testing.assert_allclose(matrix.distance[layer, seen], away, atol=1e-6)
    # The edit itself is seen: candle-mi's diagonal is always 1, ours is not.
    assert (np.diag(matrix.distance) > 1e-3).all()
    np.testing.assert_allclose(np.tril(matrix.distance, k=-1), 0, atol=1e-12)
    assert all(check.passed for check in (*layers.checks, *matrix.checks))


def test_a_convergence_in_small_batches_is_the_same(monkeypatch):
    whole = steering_convergence(model_of("llama"), INPUTS)
    monkeypatch.setattr("mi_core.analyses.steering_convergence_run.TOKENS_AT_ONCE", 10)
    parts = steering_convergence(model_of("llama"), INPUTS)
    np.testing.assert_allclose(parts.cosine, whole.cosine, atol=1e-10)
    np.testing.assert_allclose(parts.values, whole.values, atol=1e-10)


def test_absorption_is_the_first_later_layer_at_the_threshold():
    result = steering_convergence(model_of("gpt2"), INPUTS)
    cosine = np.full((4, 4), 0.5)
    cosine[0] = [0.99, 0.9, 0.95, 0.99]  # its own layer does not count
    cosine[2, 3] = 0.96
    assert replace(result, cosine=cosine).absorption == (2, None, 3, None)


def plain_attention(vector, positions):
    """Transformers' own eager attention weights [layer, head, query, key], by a hook on block 2."""
    hf = hf_model("gpt2")
    hf.set_attn_implementation("eager")
    ids = word_tokenizer()(PROMPT, return_tensors="pt")["input_ids"]

    def act(_module, _args, out):
        value = (out[0] if isinstance(out, tuple) else out).clone()
        value[:, positions] += vector
        return (value, *out[1:]) if isinstance(out, tuple) else value

    handle = hf.transformer.h[2].register_forward_hook(act)
    try:
        with torch.no_grad():
            return torch.cat(hf(input_ids=ids, output_attentions=True).attentions).numpy()
    finally:
        handle.remove()


def test_routing_is_transformers_own_attention():
    inputs, vector = replace(INPUTS, where="chosen", chosen=(1, 2)), difference("gpt2")[2]
    result, later = (
        steering_routing(model_of("gpt2"), replace(inputs, queries=queries)) for queries in ("last", "later")
    )
    for doses, last, mean in ((0.0, result.before, later.before), (1.5, result.after, later.after)):
        pattern = plain_attention(doses * vector, [1, 2])
        np.testing.assert_allclose(last, pattern[:, :, -1, 1:3].sum(-1), atol=1e-6)
        np.testing.assert_allclose(mean, pattern[:, :, 2:, 1:3].sum(-1).mean(-1), atol=1e-6)
    assert np.abs(result.change[3]).max() > 1e-4
    assert result.total == pytest.approx(np.abs(result.after - result.before).sum())
    assert all(check.passed for check in result.checks)


@pytest.mark.parametrize(("site", "part"), [("attn_out", "attn"), ("mlp_out", "mlp")])
def test_halves_of_a_block_are_steered_as_plain_hooks_do(site, part):
    """gpt2's attention and MLP modules return what is added to the stream."""
    model, inputs = model_of("gpt2"), replace(INPUTS, site=site, controls=0)
    module, taken = model.hf.transformer.h[2].get_submodule(part), []

    def logits_of(prompt, push=None):
        def act(_module, _args, out):
            value = (out[0] if isinstance(out, tuple) else out).clone()
            if push is not None:
                value[:, -1] += push
            taken.append(value[0, -1].detach())
            return (value, *out[1:]) if isinstance(out, tuple) else value

        handle = module.register_forward_hook(act)
        try:
            return own_logits(model, prompt)
        finally:
            handle.remove()

    for text in (OTHER, PROMPT):
        logits_of(text)
    vector = (taken[0] - taken[1]).float().double()
    result = steering_dose(model, inputs)
    np.testing.assert_allclose(steering_vector(model, inputs).at(2), vector.numpy(), atol=1e-6)
    for index, dose in enumerate(inputs.coefficients):
        wanted = float(logits_of(PROMPT, dose * vector).softmax(-1)[result.answer.id])
        np.testing.assert_allclose(result.values[0, index], wanted, atol=1e-7)


def test_contrastive_means_by_hand():
    model = model_of("llama")
    sets = replace(
        INPUTS,
        source="sets",
        positive=f"{OTHER}\n\nThe capital of Italy is",
        negative=f"{PROMPT}\nBig Ben is in",
    )
    state = {
        text: hooked("llama", text)[1] for text in (OTHER, "The capital of Italy is", PROMPT, "Big Ben is in")
    }
    for pool in ("last", "all"):
        vector = steering_vector(model, replace(sets, pool=pool))
        for layer in range(N_LAYERS):
            one = {t: s[layer][-1] if pool == "last" else s[layer].mean(0) for t, s in state.items()}
            wanted = (one[OTHER] + one["The capital of Italy is"] - one[PROMPT] - one["Big Ben is in"]) / 2
            np.testing.assert_allclose(vector.at(layer), wanted.numpy(), atol=1e-6)


def test_a_tokens_vectors_are_rows_of_the_weights():
    model = model_of("llama")
    paris = model.tokenizer(f"{PROMPT} Paris")["input_ids"][-1]
    for source, weight in (
        ("embedding", model.hf.get_input_embeddings().weight),
        ("unembedding", model.hf.get_output_embeddings().weight),
    ):
        inputs = SteeringInputs.from_dict({"prompt": PROMPT, "source": source, "token": " Paris"})
        vector = steering_vector(model, inputs)
        np.testing.assert_allclose(vector.at(3), weight[paris].detach().numpy(), atol=1e-7)
    default = steering_vector(model, SteeringInputs(PROMPT, answer=" Paris"))
    np.testing.assert_array_equal(default.values, vector.values)


def test_controls_have_equal_norm_and_follow_the_seed():
    vector = np.arange(1.0, 33.0, dtype=np.float32)
    drawn = random_directions(vector, 5, seed=3)
    np.testing.assert_allclose(
        np.linalg.norm(drawn, axis=1), np.linalg.norm(vector.astype(float)), rtol=1e-12
    )
    np.testing.assert_array_equal(drawn, random_directions(vector, 5, seed=3))
    assert np.abs(drawn - random_directions(vector, 5, seed=4)).max() > 0.1
    assert np.abs(np.corrcoef(drawn) - np.eye(5)).max() < 0.9


def test_doses_between_are_on_straight_lines_and_none_outside():
    result = steering_dose(model_of("gpt2"), INPUTS)
    values = result.values.copy()
    values[0] = [0.1, 0.2, 0.6, 0.4]  # at -1, 0, 0.5, 2
    made = replace(result, values=values)
    assert made.dose_for(0.4, "probability") == pytest.approx(0.25)  # half of the way from 0 to 0.5
    assert made.dose_for(0.15, "probability") == pytest.approx(-0.5)
    assert made.dose_for(0.6, "probability") == 0.5
    assert made.dose_for(0.5, "probability") == pytest.approx(0.375)  # nearer to 0 than 1.25
    assert made.dose_for(0.7, "probability") is None
    assert made.dose_for(0.05, "probability") is None
    values[0] = [np.nan, 0.2, np.nan, 0.4]
    assert replace(result, values=values).dose_for(0.3, "probability") is None


def test_an_edit_beyond_the_prompts_own_spread_is_said():
    model = model_of("gpt2")
    result = steering_dose(model, replace(INPUTS, coefficients=(0.0, 1e-3, 500.0)))
    states = hooked("gpt2", PROMPT)[1][2].numpy()
    pairs = [np.linalg.norm(a - b) for i, a in enumerate(states) for b in states[i + 1 :]]
    middle = float(torch.tensor(pairs).median())  # torch's median: the lower of two
    assert result.spread == pytest.approx(middle / np.linalg.norm(states[-1]), rel=1e-6)
    assert result.off == (500.0,)
    assert any("Off the distribution at 500" in warning for warning in result.warnings)


def test_on_atlas_the_dose_curve_of_a_contrastive_vector_crosses_one_half():
    """The page's example; no random direction of the same length comes near."""
    inputs = SteeringInputs(
        "The Eiffel Tower is located in the city of", source="sets", positive=POSITIVE, negative=NEGATIVE,
        layer=5, answer=" Rome", distractor=" Paris",
    )  # fmt: skip
    result = steering_dose(load_model("atlas"), inputs)
    assert result.baseline[0] < 0.01
    assert result.wished_dose is not None
    assert 1.0 < result.wished_dose < 1.5
    assert result.values[0].max() > 0.8
    assert result.band("probability")[1].max() < 0.05
