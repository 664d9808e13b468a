"""What must hold for every causal trace, on tiny random models in float64."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch

from mi_core.analyses import KINDS, CausalTraceInputs, CausalTraceResult, causal_trace
from mi_core.analyses.causal_trace_inputs import Kind
from mi_core.analyses.causal_trace_prepare import Prepared, prepare
from mi_core.analyses.causal_trace_variants import build_variants, window_layers
from mi_core.engine import Edit, Variant, build_model, run, sweep
from mi_core.model.model import LoadedModel
from tests.tiny import N_LAYERS, hf_model
from tests.trace_oracle import BLOCKS, Oracle
from tests.words import word_tokenizer

PROMPT, OTHER, SUBJECT = "The Eiffel Tower is in the city of", "The Space Needle is in the city of", (2, 4)
NOISE = CausalTraceInputs(PROMPT, subject=SUBJECT, samples=3, kinds=KINDS, window=2)
PAIR = CausalTraceInputs(PROMPT, corrupted_prompt=OTHER, kinds=KINDS, window=2)
EXACT = {"rtol": 0, "atol": 1e-12}


@lru_cache(maxsize=16)
def model_of(name: str) -> LoadedModel:
    return build_model(hf_model(name), word_tokenizer(bos=True))


@lru_cache(maxsize=32)
def traced(name: str, inputs: CausalTraceInputs) -> CausalTraceResult:
    return causal_trace(model_of(name), inputs)


def readings_of(prepared: Prepared, variants: list[Variant]) -> np.ndarray:
    out = sweep(
        prepared.model, prepared.base, variants, read=prepared.reader, read_positions=prepared.read_positions
    )
    return out.values["probability"]


@pytest.mark.parametrize("inputs", [NOISE, PAIR], ids=["noise", "pair"])
@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_all_checks_pass(inputs, direction):
    result = traced("llama", replace(inputs, direction=direction))
    assert [check.name for check in result.checks if not check.passed] == []
    assert len(result.checks) == 3


@pytest.mark.parametrize("inputs", [NOISE, PAIR], ids=["noise", "pair"])
def test_patching_the_base_into_itself_changes_nothing(inputs):
    """Every kind, window, severed graph and head: the empty intervention is the corrupted run."""
    prepared = prepare(model_of("llama"), inputs)
    own = run(
        prepared.model,
        prepared.base.tokens,
        capture=["resid_post", "attn_out", "mlp_out", "z"],
        edits=prepared.base.edits,
    )

    def values(site, layer):
        return own[site, layer]

    _, variants = build_variants(inputs, prepared.shape, values, values)
    found = readings_of(prepared, variants)
    np.testing.assert_allclose(
        found, np.broadcast_to(prepared.corrupted.samples["probability"], found.shape), **EXACT
    )


@pytest.mark.parametrize("layer", range(N_LAYERS))
@pytest.mark.parametrize("inputs", [NOISE, PAIR], ids=["noise", "pair"])
def test_trap_07_patching_every_position_gives_the_clean_run(inputs, layer):
    prepared = prepare(model_of("llama"), inputs)
    clean = prepared.source_run["resid_post", layer]
    found = readings_of(prepared, [Variant((Edit("resid_post", layer, value=clean),))])
    np.testing.assert_allclose(found, prepared.clean.mean("probability"), **EXACT)


def test_restoring_the_embedding_of_every_subject_token_gives_the_clean_run():
    prepared = prepare(model_of("llama"), NOISE)
    clean = run(prepared.model, prepared.base.tokens[:1], capture=["embed"])["embed", None]
    restored = Edit("embed", positions=(2, 3), value=clean[:, 2:4])
    found = readings_of(prepared, [Variant((restored,))])
    np.testing.assert_allclose(found, prepared.clean.mean("probability"), **EXACT)


def test_patching_nothing_is_the_corrupted_run_bit_for_bit():
    """Rows before the first difference are not computed: they are the corrupted run's own numbers."""
    result = traced("llama", NOISE)
    for kind in ("state", "attn", "mlp", "state_attn_severed", "state_mlp_severed"):
        for metric, samples in result.grids[kind].samples.items():
            expected = np.broadcast_to(result.corrupted.samples[metric], samples[: SUBJECT[0]].shape)
            np.testing.assert_array_equal(samples[: SUBJECT[0]], expected, err_msg=f"{kind} {metric}")


@pytest.mark.parametrize("kind", ["state", "state_attn_severed", "state_mlp_severed"])
@pytest.mark.parametrize("inputs", [NOISE, PAIR], ids=["noise", "pair"])
def test_last_layer_is_everything_at_the_last_token_and_nothing_elsewhere(inputs, kind):
    share = traced("llama", inputs).grid(kind, "recovered_probability")[:, -1]
    np.testing.assert_allclose(share, [0] * (len(share) - 1) + [1], **EXACT)


def test_zero_noise_makes_all_cells_equal():
    result = traced("llama", replace(NOISE, noise_level=0))
    for kind in KINDS:
        np.testing.assert_allclose(result.grid(kind), result.clean.mean("probability"), **EXACT)
        assert np.isnan(result.grid(kind, "recovered_probability")).all()  # nothing to recover is no share
    assert "noise level is 0" in result.warnings[0]
    assert "no noise: every cell equals the clean run" in [check.name for check in result.checks]


def test_noising_is_denoising_with_the_prompts_swapped():
    """Putting A's states into B's run is the same forward pass, whichever of the two is called clean."""
    there = traced("llama", CausalTraceInputs(PROMPT, corrupted_prompt=OTHER, answer="Paris", window=2))
    back = CausalTraceInputs(OTHER, corrupted_prompt=PROMPT, answer="Paris", window=2, direction="noising")
    for kind in there.grids:
        np.testing.assert_allclose(there.grid(kind), traced("llama", back).grid(kind), **EXACT)
        np.testing.assert_allclose(
            there.grid(kind, "recovered_probability"),
            1 - traced("llama", back).grid(kind, "recovered_probability"),
            atol=1e-9,
        )


def test_window_of_one_is_the_single_layer():
    prepared = prepare(model_of("llama"), NOISE)
    result = traced("llama", replace(NOISE, window=1, kinds=("mlp",)))
    clean = prepared.source_run["mlp_out", 1]
    found = readings_of(prepared, [Variant((Edit("mlp_out", 1, positions=(3,), value=clean[:, 3:4]),))])
    np.testing.assert_allclose(result.grids["mlp"].samples["probability"][3, 1], found[0], **EXACT)


def test_trap_16_attention_and_mlp_of_a_parallel_block_are_its_whole_change():
    """In a parallel block, restoring both outputs at (l, t) writes the state: stream before + both clean
    outputs.
    """
    prepared = prepare(model_of("gpt_neox"), NOISE)
    layer, t = 1, 3
    before = run(
        prepared.model, prepared.base.tokens, capture=[("resid_pre", layer)], edits=prepared.base.edits
    )
    attn, mlp = (
        prepared.source_run["attn_out", layer][:, t : t + 1],
        prepared.source_run["mlp_out", layer][:, t : t + 1],
    )
    state = before["resid_pre", layer][:, t : t + 1] + attn + mlp
    both = Variant(
        (
            Edit("attn_out", layer, positions=(t,), value=attn),
            Edit("mlp_out", layer, positions=(t,), value=mlp),
        )
    )
    whole = Variant((Edit("resid_post", layer, positions=(t,), value=state),))
    one, other = readings_of(prepared, [both, whole])
    np.testing.assert_allclose(one, other, **EXACT)
    assert prepared.model.structure.parallel


def test_all_heads_at_once_are_the_attention_output():
    """Restoring z of every head at one position restores what attention adds there."""
    prepared = prepare(model_of("llama"), NOISE)
    z, out = prepared.source_run["z", 2][:, 3:4], prepared.source_run["attn_out", 2][:, 3:4]
    heads = Variant((Edit("z", 2, positions=(3,), value=z),))
    whole = Variant((Edit("attn_out", 2, positions=(3,), value=out),))
    one, other = readings_of(prepared, [heads, whole])
    np.testing.assert_allclose(one, other, **EXACT)


# --- against the slow, independent implementation
# ---------------------------------------------------------------------


def oracle_of(name: str, prepared: Prepared, *, noise: bool) -> Oracle:
    edits = prepared.base.edits
    value = edits[0].value.numpy() if noise and isinstance(edits[0].value, torch.Tensor) else None
    pair = prepared.pair
    return Oracle(
        prepared.model.hf, name, list(pair.clean.ids), list(pair.corrupted.ids), pair.subject, value
    )


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_grids_equal_one_whole_forward_pass_per_cell(name):
    """Also trap 15 (post-norms: raw module outputs patched here) and trap 18 (window 4 < 9 tokens: gemma2,
    mistral).
    """
    inputs = CausalTraceInputs(
        PROMPT,
        subject=SUBJECT,
        samples=2,
        window=2,
        kinds=("state", "attn", "mlp", "state_attn_severed", "state_mlp_severed"),
    )
    result, prepared = traced(name, inputs), prepare(model_of(name), inputs)
    oracle, answer = oracle_of(name, prepared, noise=True), result.answer.ids[0]

    def pair_of_layers(layer):
        return list(window_layers(layer, 2, N_LAYERS, "code"))

    for kind in inputs.kinds:
        base_kind, _, severed = kind.partition("_")
        window = pair_of_layers if kind in ("attn", "mlp") else (lambda layer: [layer])
        slow = oracle.grid(base_kind, len(result.tokens), window, severed.removesuffix("_severed"))
        np.testing.assert_allclose(
            result.grids[kind].samples["probability"], slow[..., answer], atol=1e-12, err_msg=kind
        )


def test_pair_and_noising_equal_one_whole_forward_pass_per_cell():
    inputs = CausalTraceInputs(
        PROMPT, corrupted_prompt=OTHER, direction="noising", kinds=("state", "state_mlp_severed")
    )
    result, prepared = traced("gpt2", inputs), prepare(model_of("gpt2"), inputs)
    oracle = oracle_of("gpt2", prepared, noise=False)
    severed_of: dict[Kind, str] = {"state": "", "state_mlp_severed": "mlp"}
    for kind, severed in severed_of.items():
        slow = oracle.grid("state", len(result.tokens), lambda layer: [layer], severed, noising=True)
        found = result.grids[kind].samples["probability"]
        np.testing.assert_allclose(found, slow[..., result.answer.ids[0]], atol=1e-12)


def test_every_metric_equals_its_definition_on_the_slow_runs():
    inputs = CausalTraceInputs(
        PROMPT, subject=SUBJECT, samples=3, kinds=("state",), answer="Paris", distractor="Rome"
    )
    result, prepared = traced("llama", inputs), prepare(model_of("llama"), inputs)
    assert result.distractor is not None
    oracle = oracle_of("llama", prepared, noise=True)
    logits = torch.stack([out[-1] for out in oracle.cell("state", [1], 3)])  # (sample, vocab)
    clean = oracle.run(oracle.clean, None)[-1]
    low = torch.stack([oracle.run(oracle.corrupted, noise)[-1] for noise in oracle.noise])
    p, q, q_low, (a, d) = (
        clean.softmax(-1),
        logits.softmax(-1),
        low.softmax(-1),
        (result.answer.ids[0], result.distractor.ids[0]),
    )
    kl, kl_low = ((p * (p / other).log()).sum(-1).mean() for other in (q, q_low))
    expected = {
        "probability": q[:, a].mean(),
        "log_probability": q[:, a].log().mean(),
        "logit": logits[:, a].mean(),
        "logit_difference": (logits[:, a] - logits[:, d]).mean(),
        "recovered_probability": (q[:, a].mean() - q_low[:, a].mean()) / (p[a] - q_low[:, a].mean()),
        "kl": kl,
        "kl_recovery": 1 - kl / kl_low,
        "rank": 1 + (logits > logits[:, a, None]).sum(-1).double().mean(),
        "top1_flip": (logits.argmax(-1) != low.argmax(-1)).double().mean(),
    }
    gap = lambda x: (x[..., a] - x[..., d]).mean()  # noqa: E731
    expected["recovered_logit_difference"] = (gap(logits) - gap(low)) / (gap(clean) - gap(low))
    assert set(expected) == set(result.metrics)
    for metric, value in expected.items():
        np.testing.assert_allclose(
            result.grid("state", metric)[3, 1], float(value), rtol=1e-9, err_msg=metric
        )
    order = q.mean(0).argsort(descending=True)[:10]
    np.testing.assert_array_equal(result.grids["state"].top_ids[3, 1], order.numpy())
    np.testing.assert_allclose(result.grids["state"].top_probabilities[3, 1], q.mean(0)[order].numpy())
