"""The planning experiment: against plain hooks on the blocks, identities, controls, and the bundled model."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch

from mi_core import load_model
from mi_core.errors import Cancelled, InputError
from mi_core.exports import feature_planning as figures
from mi_core.transcoders import (
    PlanningInputs,
    PlanningPickInputs,
    PlanningPickResult,
    PlanningResult,
    load_transcoder,
    planning,
    planning_features,
    planning_run,
)
from mi_core.transcoders.feature_vectors import push_of
from mi_core.transcoders.names import parse_features
from mi_core.transcoders.planning_presets import PRESETS
from mi_core.transcoders.planning_result import METRICS
from tests.attribution_cases import model_of
from tests.transcoders import tiny_clt, tiny_plt, use

PROMPT = "The capital of France is"
INPUTS = PlanningInputs(
    PROMPT, inject="L1F3", suppress="L0F2,L2F5", answer=" Paris", distractor=" Rome", strength=2.0,
    strengths=(-1.0, 0.0, 0.5, 2.0), controls=3,
)  # fmt: skip
BLOCKS = {
    "gpt2": "transformer.h", "llama": "model.layers", "gemma2": "model.layers",
    "gpt_neox_serial": "gpt_neox.layers",
}  # fmt: skip


@lru_cache(maxsize=8)
def prepared(name: str):
    model = model_of(name)
    return model, use(model, tiny_clt(model))


@lru_cache(maxsize=8)
def result_of(name: str) -> PlanningResult:
    return planning(prepared(name)[0], INPUTS)


def by_hand(name: str, weights: dict, strength: float, position: int, only_last: bool = False):
    """Last logits by forward hooks on whole blocks: what an MLP writes comes out of its block."""
    model, transcoder = prepared(name)
    ids = model.tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    added = {layer: 0 for layer in range(model.dims.n_layers)}
    for feature, sign in weights.items():
        rows = transcoder.rows(feature.layer, torch.tensor([feature.index]))[0].double()
        for offset, row in enumerate(rows):
            layer = model.dims.n_layers - 1 if only_last else feature.layer + offset
            added[layer] = added[layer] + sign * strength * row
    handles = []

    def hook(layer):
        def act(_module, _args, out):
            value = (out[0] if isinstance(out, tuple) else out).clone()
            value[:, position] += added[layer]
            return (value, *out[1:]) if isinstance(out, tuple) else value

        return act

    for layer, block in enumerate(model.hf.get_submodule(BLOCKS[name])):
        handles.append(block.register_forward_hook(hook(layer)))
    try:
        with torch.no_grad():
            return model.hf(input_ids=ids).logits[0, -1].double()
    finally:
        for handle in handles:
            handle.remove()


def numbers(name: str, logits: torch.Tensor) -> list[float]:
    """Probability, log-probability, logit, rank, KL of one run, written out."""
    token = result_of(name).answer.id
    base = by_hand(name, {}, 0.0, 0).log_softmax(-1)
    log_p = logits.log_softmax(-1)
    kl = (base.exp() * (base - log_p)).sum()
    rank = 1 + int((logits > logits[token]).sum())
    return [float(log_p[token].exp()), float(log_p[token]), float(logits[token]), rank, float(kl)]


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_every_cell_is_what_hooks_on_the_blocks_give(name: str) -> None:
    result = result_of(name)
    for row, dose in enumerate(INPUTS.doses):
        for column, position in enumerate(result.positions):
            wanted = numbers(name, by_hand(name, INPUTS.weights, dose, position))
            np.testing.assert_allclose(result.values[:, row, column], wanted, atol=2e-6)


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_direct_is_the_push_behind_the_last_block(name: str) -> None:
    result = result_of(name)
    for row, dose in enumerate(INPUTS.doses):
        logits = by_hand(name, INPUTS.weights, dose, result.output, only_last=True)
        np.testing.assert_allclose(result.direct[:, row], numbers(name, logits), atol=2e-6)


def test_direct_and_mediated_add_up_and_only_the_output_has_a_direct_part() -> None:
    result = result_of("llama")
    total, direct, mediated = (
        getattr(result, f"{way}_effect")("logit") for way in ("total", "direct", "mediated")
    )
    np.testing.assert_allclose(direct + mediated, total)
    assert not direct[:, :-1].any()
    assert abs(direct[result.dose, -1]) > 1e-3
    assert abs(mediated[result.dose, -1]) > 1e-3


def test_a_feature_of_the_last_layer_acts_at_the_output_alone_and_directly() -> None:
    model, _ = prepared("llama")
    last = model.dims.n_layers - 1
    result = planning(model, replace(INPUTS, inject=f"L{last}F1", suppress="", controls=0))
    assert (result.total_effect("logit")[:, :-1] == 0).all()
    assert not result.frozen[:-1].any()
    np.testing.assert_allclose(result.mediated_effect("logit"), 0, atol=1e-9)
    assert abs(result.total_effect("logit")[result.dose, -1]) > 1e-3


def test_held_effects_are_linear_and_are_the_slope_of_a_last_layer_push_with_a_fixed_norm() -> None:
    """Of the last layer everything held is the unembedding of the normalised push: by hand for llama."""
    model, transcoder = prepared("llama")
    last = model.dims.n_layers - 1
    result = planning(model, replace(INPUTS, inject=f"L{last}F1", suppress="", controls=0))
    ids = model.tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        seen = []
        handle = model.hf.model.norm.register_forward_hook(lambda _m, args, _o: seen.append(args[0]))
        model.hf(input_ids=ids)
        handle.remove()
    state, norm = seen[0][0, -1].double(), model.hf.model.norm
    scale = (state.square().mean() + norm.variance_epsilon).sqrt()
    row = transcoder.rows(last, torch.tensor([1]))[0, 0].double()
    slope = (row / scale * norm.weight.double()) @ model.hf.lm_head.weight[result.answer.id].double()
    assert result.frozen[-1] == pytest.approx(float(slope), abs=1e-7)


def test_each_half_alone_is_its_own_experiment() -> None:
    model, _ = prepared("llama")
    result = result_of("llama")
    for part, change in enumerate(({"suppress": ""}, {"inject": ""})):
        alone = planning(model, replace(INPUTS, **change, controls=0))
        np.testing.assert_allclose(result.parts[:, part], alone.values[:, alone.dose], atol=1e-9)
    assert result_of("llama").parts.shape[1] == 2
    assert planning(model, replace(INPUTS, suppress="", controls=0)).parts.shape[1] == 0


def test_random_features_are_others_of_the_same_layers_and_their_runs_are_theirs() -> None:
    model, _ = prepared("llama")
    result = result_of("llama")
    assert len(set(result.drawn)) > 1
    for draw, text in enumerate(result.drawn):
        (feature,) = parse_features(text)
        assert feature.layer == 1
        assert feature.index != 3
        again = planning(model, replace(INPUTS, inject=text, controls=0))
        np.testing.assert_allclose(result.random_features[:, draw], again.values[:, again.dose], atol=1e-9)
        logits = by_hand("llama", replace(INPUTS, inject=text).weights, 2.0, result.output)
        risen = int((logits - by_hand("llama", {}, 0.0, 0)).argmax())
        assert result.risen_ids[draw] == risen
        assert result.risen_after[draw] == pytest.approx(float(logits.softmax(-1)[risen]), abs=1e-6)
        assert result.risen_rank[draw] == 1 + int((logits > logits[risen]).sum())


def test_with_nothing_injected_the_suppressed_ones_are_replaced() -> None:
    model, _ = prepared("llama")
    result = planning(model, replace(INPUTS, inject="", controls=2))
    for draw, text in enumerate(result.drawn):
        again = planning(model, replace(INPUTS, inject="", suppress=text, controls=0))
        np.testing.assert_allclose(result.random_features[:, draw], again.values[:, again.dose], atol=1e-9)


def test_a_layer_without_other_features_has_no_draws_and_says_so() -> None:
    model = model_of("qwen3")
    use(model, tiny_clt(model, n_features=1))
    result = planning(model, replace(INPUTS, inject="L1F0", suppress="", controls=2))
    assert not result.drawn
    assert any("no random features" in warning for warning in result.warnings)
    assert PlanningResult.from_json(result.to_json()).to_json() == result.to_json()


def test_rotations_keep_lengths_and_angles_and_nothing_else() -> None:
    _, transcoder = prepared("llama")
    push = push_of(transcoder, INPUTS.weights)
    generator = np.random.default_rng(3)
    one, two = push.turned(generator), push.turned(generator)
    np.testing.assert_allclose(one.vectors @ one.vectors.T, push.vectors @ push.vectors.T, atol=1e-12)
    np.testing.assert_allclose(one.norms(4), push.norms(4))
    np.testing.assert_allclose(one.sums(4), push.sums(4))
    assert np.abs(one.vectors - two.vectors).max() > 0.1
    drawn = np.array([push.turned(generator).vectors for _ in range(400)])
    assert np.abs(drawn.mean(0)).max() < 0.15  # no direction is preferred
    assert all(check.passed for check in result_of("llama").checks)


def test_strength_0_is_the_baseline_and_the_seed_decides_the_draws() -> None:
    result = result_of("llama")
    zero = INPUTS.doses.index(0.0)
    assert (result.values[:, zero] == result.baseline[:, None]).all()
    model, _ = prepared("llama")
    assert planning(model, INPUTS).drawn == result.drawn
    assert planning(model, replace(INPUTS, seed=1)).drawn != result.drawn


def test_activations_and_ratio_by_hand() -> None:
    model, transcoder = prepared("llama")
    result = result_of("llama")
    assert result.features == ("L1F3", "L0F2", "L2F5")
    ids = model.tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    states, middles, handles = [], [], []
    for block in model.hf.model.layers:
        handles.append(block.register_forward_hook(lambda _m, _a, out: states.append(out)))
        norm = block.post_attention_layernorm
        handles.append(norm.register_forward_hook(lambda _m, args, _o: middles.append(args[0])))
    with torch.no_grad():
        model.hf(input_ids=ids)
    for handle in handles:
        handle.remove()
    encoder = transcoder.encoder(1)
    assert encoder.threshold is not None
    pre = middles[1][0].double() @ encoder.stored[3].double() + encoder.b_enc[3].double()
    wanted = torch.where(pre > encoder.threshold[3].double(), pre, torch.zeros_like(pre))
    np.testing.assert_allclose(result.activations[0], wanted.detach().numpy(), atol=1e-5)
    rows = {layer: transcoder.rows(layer, torch.arange(12)) for layer in range(3)}
    added, largest = 0, torch.zeros(len(result.tokens), dtype=torch.float64)
    for layer in range(4):
        added = added - rows[0][2, layer].double()
        added = added + (rows[1][3, layer - 1].double() if layer >= 1 else 0)
        added = added - (rows[2][5, layer - 2].double() if layer >= 2 else 0)
        state = states[layer][0] if isinstance(states[layer], tuple) else states[layer]
        largest = torch.maximum(largest, 2.0 * added.norm() / state.reshape(-1, 32).double().norm(dim=-1))
    np.testing.assert_allclose(result.ratio, largest.detach().numpy(), rtol=1e-5)


def test_the_distractors_probability_is_read_too() -> None:
    result = result_of("llama")
    assert result.distractor is not None
    logits = by_hand("llama", INPUTS.weights, 2.0, 1)
    wanted = float(logits.softmax(-1)[result.distractor.id])
    assert result.distractor_probability[result.dose, 1] == pytest.approx(wanted, abs=1e-6)


def test_chosen_positions_only_and_a_per_layer_transcoder() -> None:
    model = model_of("qwen2")
    use(model, tiny_plt(model))
    result = planning(model, replace(INPUTS, positions=(1, 3), controls=1))
    assert result.values.shape[2] == 2
    assert result.column is None
    assert (result.risen_ids == -1).all()
    assert np.flatnonzero(result.norms).tolist() == [0, 1, 2]
    assert PlanningResult.from_json(result.to_json()).to_json() == result.to_json()


def test_the_record_comes_back_and_damage_is_told() -> None:
    result = result_of("llama")
    again = PlanningResult.from_json(result.to_json())
    assert again.to_json() == result.to_json()
    assert PlanningInputs.from_dict(INPUTS.to_dict()) == INPUTS
    assert len(result.to_frame()) == 5 * (1 + 7 * 0 + len(result.positions) * (4 + 2 + 3 + 3) + 4)
    with pytest.raises(InputError, match="damaged"):
        PlanningResult.from_json(result.to_json().replace('"n_layers": 4', '"n_layers": "x"'))


def test_figures_stand_and_say_baseline_and_output() -> None:
    result = result_of("llama")
    for metric in METRICS:
        for make in (figures.sweep_figure, figures.grid_figure):
            figure = make(result, metric)
            assert "Baseline" in figure.caption
            assert figure.description
            assert len(figure.frame())
    assert "output" in str(figures.sweep_figure(result, "probability").spec["datasets"])
    for figure in (
        figures.ways_figure(result),
        figures.own_figure(result),
        figures.activations_figure(result),
    ):
        assert len(figure.frame())
        assert figure.recipe


def test_stopping_returns_what_is_done() -> None:
    model, _ = prepared("llama")

    def stop(step) -> None:
        if step.done:
            raise Cancelled

    result = planning(model, INPUTS, on_step=stop)
    assert result.cancelled
    assert np.isnan(result.values[:, result.dose]).any()
    assert figures.sweep_figure(result, "probability").description


def test_a_sweep_in_parts_is_the_sweep_and_keeps_whole_runs_when_stopped(monkeypatch) -> None:
    model, _ = prepared("llama")
    whole = planning(model, INPUTS)
    monkeypatch.setattr(planning_run, "PART", 2 * len(whole.positions))
    parts = planning(model, INPUTS)
    for name in ("values", "parts", "random_features", "random_rotations", "risen_after", "risen_ids"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-9, atol=1e-12)

    def stop(step) -> None:
        if step.done > 2 * len(whole.positions):  # in the second part
            raise Cancelled

    stopped = planning(model, INPUTS, on_step=stop)
    assert stopped.cancelled
    assert np.isfinite(stopped.values[:, stopped.dose]).all()
    assert np.isnan(stopped.random_rotations).all()
    assert "of n = 0 draws" in figures.own_figure(stopped).caption


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"inject": "", "suppress": ""}, "No feature"),
        ({"inject": "here"}, "names no feature"),
        ({"suppress": "L1F3"}, "injected and suppressed"),
        ({"strength": 0.0}, "strength is 0"),
        ({"strength": float("nan")}, "strength is nan"),
        ({"strengths": (2.0, 1.0)}, "do not ascend"),
        ({"positions": (2, 1)}, "do not ascend"),
        ({"controls": -1}, "random controls"),
        ({"answer": ""}, "answer is empty"),
    ],
)
def test_inputs_refuse_with_a_sentence(fields: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        replace(INPUTS, **fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"inject": "L9F0"}, "no features in layer 9"),
        ({"inject": "L1F99"}, "no feature 99"),
        ({"positions": (99,)}, "no token 99"),
        ({"distractor": " Paris"}, "begins with the token"),
    ],
)
def test_what_the_model_does_not_have_is_told(fields: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        planning(prepared("llama")[0], replace(INPUTS, **fields))


def test_an_endless_experiment_is_refused_before_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mi_core.transcoders.planning_setup.MAX_RUNS", 10)
    with pytest.raises(InputError, match="too large"):
        planning(prepared("llama")[0], INPUTS)


def test_one_token_and_half_precision() -> None:
    model, _ = prepared("llama")
    alone = planning(model, replace(INPUTS, prompt="France", controls=1))
    assert alone.values.shape[2] == len(alone.tokens)
    half = model_of("llama", torch.bfloat16)
    use(half, tiny_clt(half))
    rough = planning(half, replace(INPUTS, controls=1))
    assert np.isfinite(rough.values).all()
    assert all(check.passed for check in rough.checks), rough.checks


def test_picked_features_are_the_strongest_by_an_explicit_gradient() -> None:
    model, _ = prepared("llama")
    inputs = PlanningPickInputs(PROMPT, answer=" Paris", distractor=" Rome", count=4, share=0.0)
    picked = planning_features(model, inputs)
    assert PlanningPickResult.from_json(picked.to_json()).to_json() == picked.to_json()
    assert (np.diff(picked.effects) <= 0).all()
    assert (picked.positions < len(picked.tokens) - 1).all()
    few = planning_features(model, replace(inputs, share=0.9))
    assert (few.effects >= 0.9 * picked.effects[0]).all()
    assert few.names == picked.names[: len(few.names)]
    assert len(picked.to_frame()) == len(picked.names)
    name, position = picked.names[0], int(picked.positions[0])
    (feature,) = parse_features(name)
    assert picked.distractor is not None
    step = 1e-3
    ends = []
    for sign in (step, -step):
        logits = by_hand("llama", {feature: 1.0}, sign, position)
        ends.append(float(logits[picked.answer.id] - logits[picked.distractor.id]))
    slope = (ends[0] - ends[1]) / (2 * step)
    assert picked.effects[0] == pytest.approx(float(picked.activations[0]) * slope, rel=1e-3)


# --- the bundled model ---


@lru_cache(maxsize=1)
def atlas():
    model = load_model("atlas")
    load_transcoder(model)
    return model


@pytest.mark.parametrize("key", ["warsaw", "rome", "tokyo"])
def test_the_word_choice_preset_works_on_the_bundled_model(key: str) -> None:
    """The push changes the word from an earlier token on, above all controls."""
    preset, model = PRESETS[key], atlas()
    ours = (preset.other_prompt, preset.answer, preset.distractor, preset.count)
    theirs = (preset.prompt, preset.distractor, preset.answer, preset.count_down)
    up, down = (
        planning_features(model, PlanningPickInputs(*one)).names if one[-1] else () for one in (ours, theirs)
    )
    inputs = PlanningInputs(
        preset.prompt, inject=",".join(up), suppress=",".join(set(down) - set(up)), answer=preset.answer,
        distractor=preset.distractor, strength=preset.strength,
    )  # fmt: skip
    result = planning(model, inputs)
    line = result.line("probability")
    assert result.baseline[0] < 1e-3
    assert line[result.best] > 0.5
    assert result.positions[result.best] < result.output
    for controls in (result.random_features[0], result.random_rotations[0]):
        highest = controls.max(1)  # of each draw
        assert line[result.best] > highest.max()
        assert line[result.best] > 5 * np.median(highest)
    assert result.mediated_effect("logit")[result.dose, result.best] > 3
    if key == "rome":  # its note
        assert result.parts[0].max() < 0.5 * line[result.best]
    assert all(check.passed for check in result.checks)
