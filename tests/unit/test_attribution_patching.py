"""Attribution patching: slopes against small steps, exact where the model is linear, the trace's noise."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch

from mi_core import ModelSpec, load_model
from mi_core.analyses import (
    AttributionPatchingResult,
    CausalTraceInputs,
    agreement,
    attribution_patching,
    causal_trace,
)
from mi_core.analyses import attribution_patching_run as run_module
from mi_core.analyses.attribution_patching_agreement import correlation, ranks
from mi_core.analyses.attribution_patching_result import ESTIMATED_KINDS
from mi_core.analyses.causal_trace_prepare import prepare
from mi_core.engine import Base, Edit, Variant, build_model, run, sweep
from mi_core.errors import Cancelled, InputError
from mi_core.model.model import LoadedModel
from tests.tiny import N_LAYERS, hf_model
from tests.words import word_tokenizer

PROMPT, OTHER = "The Space Needle is in the city of", "The Eiffel Tower is in the city of"
PAIR = CausalTraceInputs(
    PROMPT, corrupted_prompt=OTHER, answer="Seattle", distractor="Paris", kinds=ESTIMATED_KINDS
)
NOISE = CausalTraceInputs(
    PROMPT, subject=(1, 3), samples=3, seed=4, noise_level=0.5, answer="Seattle", kinds=ESTIMATED_KINDS
)


@lru_cache(maxsize=8)
def model_of(name: str = "gpt2") -> LoadedModel:
    return build_model(hf_model(name), word_tokenizer())


def small_steps(inputs: CausalTraceInputs, kind: str, name: str) -> np.ndarray:
    """Slopes of log-probability, logit and logit difference at every cell, by sweeps over tiny steps."""
    prepared, model = prepare(model_of(name), inputs), model_of(name)
    share = 3e-3 if name == "gemma2" else 1e-5
    site = {"state": "resid_post", "attn": "attn_out", "mlp": "mlp_out", "head": "z"}[kind]
    base = prepared.base
    own = run(model, base.tokens, capture=[site], edits=base.edits)
    source = prepared.source_run

    def step(layer: int) -> torch.Tensor:
        if inputs.direction == "noising":  # pair the samples as the mean over them does
            return source[site, layer] - own[site, layer][: len(source[site, layer])]
        return source[site, layer] - own[site, layer]

    first = prepared.shape.first_difference
    if kind == "head":
        cells = [(tuple(range(first, len(prepared.pair.clean))), (head,)) for head in range(4)]
    else:
        cells = [((position,), None) for position in range(len(prepared.pair.clean))]
    variants = [
        Variant((
            Edit(site, layer, "add", positions=positions, heads=heads,
                 value=sign * share * _part(step(layer), positions, heads)),
        ))
        for positions, heads in cells for layer in range(N_LAYERS) for sign in (1, -1)
    ]  # fmt: skip
    found = sweep(
        model, Base(base.tokens, base.edits), variants, read=prepared.reader,
        read_positions=prepared.read_positions,
    )  # fmt: skip
    names = [m for m in ("probability", "log_probability", "logit", "logit_difference") if m in found.values]
    values = np.stack([found.values[name].mean(-1) for name in names]).reshape(len(names), -1, N_LAYERS, 2)
    return (values[..., 0] - values[..., 1]) / (2 * share)


def _part(step: torch.Tensor, positions: tuple[int, ...], heads: tuple[int, ...] | None) -> torch.Tensor:
    chosen = step[:, list(positions)]
    return chosen if heads is None else chosen[:, :, list(heads)]


# --- identities ---


@pytest.mark.parametrize("kind", ESTIMATED_KINDS)
@pytest.mark.parametrize(
    ("inputs", "name"),
    [(PAIR, "gpt2"), (NOISE, "gpt2"), (replace(PAIR, direction="noising"), "gpt_neox"), (NOISE, "gemma2")],
)
def test_estimates_are_the_slopes_of_small_steps(inputs, name, kind):
    """Every cell, all metrics; Gemma's norms round to float32, which a very small step would feel."""
    result = attribution_patching(model_of(name), replace(inputs, kinds=(kind,)))
    slopes = small_steps(replace(inputs, kinds=(kind,)), kind, name)
    estimates = getattr(result, kind)
    slack = 2e-2 if name == "gemma2" else 1e-6
    np.testing.assert_allclose(estimates, slopes, atol=slack * np.abs(estimates).max() + 1e-9)


@pytest.mark.parametrize("inputs", [PAIR, NOISE, replace(PAIR, direction="noising")])
def test_a_linear_path_is_estimated_exactly(inputs):
    """Without the final norm, what the last layer writes goes straight into the logits."""
    hf = hf_model("gpt2")
    hf.transformer.ln_f.forward = lambda x: x
    model = build_model(hf, word_tokenizer())
    inputs = replace(inputs, kinds=("state", "mlp"))
    estimate, exact = attribution_patching(model, inputs), causal_trace(model, inputs)
    for kind in ("state", "mlp"):
        np.testing.assert_allclose(
            estimate.grid(kind, "logit")[:, -1], exact.grid(kind, "logit")[:, -1], atol=1e-10
        )
        assert np.abs(exact.effect(kind, "logit")[-1, -1]) > 1e-3


def test_no_noise_no_effect():
    result = attribution_patching(model_of(), replace(NOISE, noise_level=0.0))
    assert all(np.abs(getattr(result, kind)).max() == 0 for kind in ESTIMATED_KINDS)


@pytest.mark.parametrize("inputs", [PAIR, NOISE, replace(NOISE, direction="noising")])
def test_the_two_runs_are_those_of_the_trace(inputs):
    """The same noise, so the same baseline to the last bit; cells that causality fixes have no effect."""
    estimate, exact = attribution_patching(model_of(), inputs), causal_trace(model_of(), inputs)
    for metric in estimate.metrics:
        assert estimate.baseline(metric) == exact.baseline(metric)
        assert estimate.value("clean", metric) == exact.value(exact.clean, metric)
    assert np.abs(estimate.effect("state")[: estimate.first_difference]).max() == 0
    assert estimate.checks[0].name.startswith("the slopes are those of the trace's own")
    assert all(check.passed for check in estimate.checks)
    assert len(estimate.checks) == 5
    other = attribution_patching(model_of(), replace(inputs, seed=5))
    assert (inputs.corruption == "noise") == (other.corrupted.tolist() != estimate.corrupted.tolist())


def test_a_window_is_the_sum_over_its_layers():
    single = attribution_patching(model_of(), replace(PAIR, kinds=("attn", "mlp")))
    wide = attribution_patching(model_of(), replace(PAIR, kinds=("attn", "mlp"), window=3))
    for kind in ("attn", "mlp"):
        one, three = getattr(single, kind), getattr(wide, kind)
        np.testing.assert_allclose(three[..., 0], one[..., :2].sum(-1), atol=1e-12)
        np.testing.assert_allclose(three[..., 2], one[..., 1:4].sum(-1), atol=1e-12)


def test_positions_heads_and_answers_of_several_tokens_follow_the_trace():
    inputs = replace(PAIR, answer="San Francisco", positions=(2, 7), head_position=2)
    estimate, exact = attribution_patching(model_of(), inputs), causal_trace(model_of(), inputs)
    assert estimate.rows == exact.grids["state"].rows == (2, 7)
    whole = attribution_patching(model_of(), replace(inputs, positions=None))
    np.testing.assert_allclose(estimate.grid("mlp"), whole.grid("mlp")[[2, 7]], atol=1e-15)
    assert all(check.passed for check in estimate.checks)
    assert estimate.head is not None
    assert estimate.head.shape == (4, 4, N_LAYERS)


def test_rows_in_turn_give_the_same_numbers(monkeypatch):
    whole = attribution_patching(model_of(), NOISE)
    monkeypatch.setattr(run_module, "CHUNK_BYTES", 1)
    steps = []
    again = attribution_patching(model_of(), NOISE, on_step=steps.append)
    assert steps[-1].total == 2 * NOISE.samples
    for kind in ESTIMATED_KINDS:
        np.testing.assert_allclose(getattr(again, kind), getattr(whole, kind), atol=1e-12)


def test_shares_are_those_of_the_estimated_metric():
    result = attribution_patching(model_of(), PAIR)
    share = result.grid("state", "recovered_logit_difference")
    low, high = (result.value(run, "logit_difference") for run in ("corrupted", "clean"))
    np.testing.assert_allclose(share, (result.grid("state", "logit_difference") - low) / (high - low))
    assert result.baseline("recovered_logit_difference") == 0


# --- agreement with the exact trace ---


def test_correlations_by_hand():
    x, y = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 4.0])
    assert correlation(x, y) == pytest.approx(0.8)
    assert ranks(np.array([5.0, 1.0, 5.0, 7.0])).tolist() == [1.5, 0.0, 1.5, 3.0]
    assert correlation(ranks(x), ranks(np.exp(x))) == pytest.approx(1)
    assert np.isnan(correlation(x, np.ones(4)))
    assert np.isnan(correlation(x[:2], y[:2]))


def test_cells_that_causality_fixes_are_left_out():
    estimate, exact = attribution_patching(model_of(), PAIR), causal_trace(model_of(), PAIR)
    state = agreement(estimate, exact, "state", "logit")
    # 8 tokens, 4 layers: the first row is fixed, and in the last layer all but the last token.
    assert (state.n, state.fixed) == (7 * 4 - 6, 4 + 6)
    assert np.abs(exact.effect("state", "logit")[1:-1, -1]).max() < 1e-9
    assert agreement(estimate, exact, "head", "logit").n == 16
    wide = replace(PAIR, window=3)
    both = attribution_patching(model_of(), wide), causal_trace(model_of(), wide)
    assert agreement(*both, "attn", "logit").n == 7 * 4
    for row, layer, value in zip(state.rows, state.layers, state.exact, strict=True):
        assert exact.effect("state", "logit")[row, layer] == value


@pytest.mark.parametrize(("kind", "least"), [("state", 0.7), ("attn", 0.7), ("mlp", 0.7), ("head", 0.7)])
def test_on_a_fact_of_the_bundled_model_the_estimate_finds_the_cells(kind, least):
    """Measured over 40 facts, the medians are 0.90, 0.96, 0.89 and 0.97; one fact must not be far below."""
    estimate, exact = _louvre()
    assert agreement(estimate, exact, kind, "log_probability").pearson > least


@lru_cache(maxsize=1)
def _louvre():
    model = load_model(ModelSpec("atlas"))
    inputs = CausalTraceInputs(
        "The Louvre Museum is located in the city of", subject=(2, 6), samples=4, kinds=ESTIMATED_KINDS
    )
    return attribution_patching(model, inputs), causal_trace(model, inputs)


# --- what a user does wrong ---


def test_severed_restorations_are_left_out_and_alone_refused():
    inputs = replace(PAIR, kinds=("state_attn_severed", "state"))
    assert attribution_patching(model_of(), inputs).kinds == ("state",)
    with pytest.raises(InputError, match="None of the chosen restorations can be estimated"):
        attribution_patching(model_of(), replace(PAIR, kinds=("state_mlp_severed",)))


def test_metrics_without_a_slope_and_other_traces_are_refused():
    result = attribution_patching(model_of(), NOISE)
    with pytest.raises(InputError, match="no first-order estimate of 'rank': it has no slope"):
        result.grid("state", "rank")
    with pytest.raises(InputError, match="no first-order estimate of 'logit_difference'"):
        result.grid("state", "logit_difference")
    with pytest.raises(InputError, match="different settings"):
        agreement(result, causal_trace(model_of(), replace(NOISE, seed=9)), "state")


def test_cancelling_leaves_no_hook():
    model, hooks = model_of(), model_of().modules_with_hooks()

    def stop(step):
        raise Cancelled

    with pytest.raises(Cancelled):
        attribution_patching(model, PAIR, on_step=stop)
    assert model.modules_with_hooks() == hooks


def test_the_cost_is_known_before():
    model = model_of()
    one, three = (run_module.attribution_patching_seconds(model, i) for i in (PAIR, NOISE))
    if model.token_layers_per_second:
        assert one is not None
        assert three == pytest.approx(3 * one)
    with pytest.raises(InputError, match="No subject"):
        run_module.attribution_patching_seconds(model, CausalTraceInputs(PROMPT))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_cuda_gives_the_numbers_of_the_cpu(name):
    on_gpu = build_model(hf_model(name).to("cuda"), word_tokenizer())
    one, other = attribution_patching(on_gpu, NOISE), attribution_patching(model_of(name), NOISE)
    for kind in ESTIMATED_KINDS:
        np.testing.assert_allclose(getattr(one, kind), getattr(other, kind), atol=1e-5)


# --- records ---


@pytest.mark.parametrize("inputs", [PAIR, replace(NOISE, kinds=("mlp", "head"))])
def test_the_record_brings_every_number_back(inputs):
    result = attribution_patching(model_of(), inputs)
    again = AttributionPatchingResult.from_json(result.to_json())
    assert again.to_json() == result.to_json()
    assert again.kinds == result.kinds
    frame = result.to_frame()
    assert set(frame["kind"]) == {"clean run", "corrupted run", *inputs.kinds}
    cells = frame[(frame["kind"] == "mlp") & (frame["metric"] == "logit")]
    np.testing.assert_allclose(cells["value"], result.grid("mlp", "logit").ravel())
    with pytest.raises(InputError, match="record"):
        AttributionPatchingResult.from_json(result.to_json().replace('"n_layers": 4', '"n_layers": 5'))
