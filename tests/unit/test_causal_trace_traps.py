"""The traps of `causal_tracing.md` section 5 that a causal trace can fall into, each by its number, and
users' errors.
"""

import copy
import hashlib
import sys
from dataclasses import fields, replace
from functools import lru_cache

import numpy as np
import pytest
import torch

from mi_core.analyses import KINDS, CausalTraceInputs, causal_trace, causal_trace_plan
from mi_core.analyses.causal_trace_checks import trace_checks
from mi_core.analyses.causal_trace_corruption import draw_noise, sigma_of, tokenize_pair
from mi_core.analyses.causal_trace_prepare import prepare
from mi_core.analyses.causal_trace_variants import build_variants, for_cost, window_layers
from mi_core.engine import build_model, plan, run
from mi_core.errors import Cancelled, InputError
from mi_core.model.model import LoadedModel
from tests.tiny import hf_model
from tests.words import word_tokenizer

PROMPT, SUBJECT = "The Eiffel Tower is in the city of", (2, 4)
NOISE = CausalTraceInputs(PROMPT, subject=SUBJECT, samples=3)
PAIR = CausalTraceInputs(PROMPT, corrupted_prompt="The Space Needle is in the city of")


@lru_cache(maxsize=16)
def model_of(name: str = "llama", dtype: torch.dtype = torch.float64, bos: bool = True) -> LoadedModel:
    return build_model(hf_model(name, dtype), word_tokenizer(bos=bos))


def test_trap_01_bos_is_counted_never_noised_and_its_row_is_the_corrupted_run():
    result = causal_trace(model_of(), NOISE)
    assert [token.visible for token in result.tokens][:3] == ["<s>", "·The", "·Eiffel"]
    for metric, values in result.grids["state"].samples.items():
        np.testing.assert_array_equal(
            values[0], np.broadcast_to(result.corrupted.samples[metric], values[0].shape)
        )
    with pytest.raises(InputError, match=r"beginning-of-sequence.*token 1 or later"):
        causal_trace(model_of(), replace(NOISE, subject=(0, 2)))
    without = causal_trace(model_of(), replace(NOISE, bos="never", subject=(1, 3)))
    assert len(without.tokens) == len(result.tokens) - 1


def test_trap_04_several_answer_tokens_are_the_product_of_each_one():
    """Teacher forcing in one pass equals asking for one token after the other."""
    inputs = replace(NOISE, answer="San Francisco", kinds=("state",))
    result, prepared = causal_trace(model_of(), inputs), prepare(model_of(), inputs)
    first, second = result.answer.ids
    clean, noise = prepared.base.tokens[:1, : len(result.tokens)], prepared.base.edits
    step_by_step = []
    for rows, edits in ((clean, ()), (clean.repeat(3, 1), noise)):
        one = run(model_of(), rows, edits=edits).logits[:, -1].softmax(-1)[:, first]
        longer = torch.cat([rows, torch.full((len(rows), 1), first)], 1)
        two = run(model_of(), longer, edits=edits).logits[:, -1].softmax(-1)[:, second]
        step_by_step.append((one * two).numpy())
    np.testing.assert_allclose(result.clean.samples["probability"], step_by_step[0], rtol=1e-10)
    np.testing.assert_allclose(result.corrupted.samples["probability"], step_by_step[1], rtol=1e-10)
    assert result.grids["state"].rows == tuple(
        range(len(result.tokens))
    )  # rows are the prompt's, not the answer's
    assert any("2 tokens (·San ·Francisco)" in warning for warning in result.warnings)
    assert all(check.passed for check in result.checks)


def test_trap_05_the_answer_is_tokenised_as_it_follows_the_prompt():
    result = causal_trace(model_of(), replace(NOISE, answer="Paris", kinds=("state",)))
    assert result.answer.visible == ("·Paris",)
    assert result.answer.joint


def test_trap_06_prompts_of_other_length_are_refused_and_shown():
    with pytest.raises(InputError, match="differ in length, 9 and 8 tokens") as caught:
        causal_trace(model_of(), replace(PAIR, corrupted_prompt="The Needle is in the city of"))
    assert "·Eiffel" in str(caught.value)


def test_trap_10_tracing_twice_gives_the_same_bits():
    first, second = (causal_trace(model_of(), replace(NOISE, kinds=KINDS, window=2)) for _ in range(2))
    for kind in KINDS:
        for metric in first.grids[kind].samples:
            np.testing.assert_array_equal(
                first.grids[kind].samples[metric], second.grids[kind].samples[metric]
            )


def test_trap_10_captured_values_survive_the_sweep():
    prepared = prepare(model_of(), NOISE)
    before = {place: prepared.source_run[place].clone() for place in prepared.source_run}
    from mi_core.analyses.causal_trace_run import trace_prepared

    trace_prepared(prepared, started=0.0)
    for place, value in before.items():
        assert torch.equal(prepared.source_run[place], value), place


def test_trap_12_sigma_is_of_the_embedding_modules_output():
    """Gemma multiplies embeddings by sqrt(d_model) inside the module."""
    model = model_of("gemma2")
    weight = model.hf.get_input_embeddings().weight
    np.testing.assert_allclose(sigma_of(model), float(weight.std()) * np.sqrt(model.dims.d_model), rtol=1e-6)
    np.testing.assert_allclose(
        sigma_of(model_of("gpt2")), float(model_of("gpt2").hf.transformer.wte.weight.std()), rtol=1e-10
    )


def test_trap_12_sigma_of_given_subjects_is_theirs_alone():
    model, subjects = model_of(), ("Eiffel Tower", "Big Ben")
    ids = [
        i for text in subjects for i in word_tokenizer(bos=True)(text, add_special_tokens=False)["input_ids"]
    ]
    rows = model.hf.get_input_embeddings().weight[ids]
    np.testing.assert_allclose(sigma_of(model, subjects), float(rows.std()), rtol=1e-10)
    result = causal_trace(model, replace(NOISE, sigma_subjects=subjects))
    assert result.noise_scale == pytest.approx(3 * sigma_of(model, subjects))


def test_trap_20_weights_are_untouched():
    def digest():
        tensors = model_of().hf.state_dict().values()
        return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()

    before = digest()
    causal_trace(model_of(), replace(NOISE, kinds=KINDS))
    assert digest() == before


def test_trap_21_half_precision_is_told_and_checked_with_its_own_tolerance():
    result = causal_trace(model_of("llama", torch.bfloat16), NOISE)
    assert any("bfloat16" in warning for warning in result.warnings)
    assert all(check.passed for check in result.checks)
    assert result.grids["state"].samples["probability"].dtype == np.float32


def test_float32_agrees_with_float64():
    exact, single = (
        causal_trace(model_of("llama", dtype), NOISE) for dtype in (torch.float64, torch.float32)
    )
    assert all(check.passed for check in single.checks)
    answer = exact.answer.text
    single = causal_trace(model_of("llama", torch.float32), replace(NOISE, answer=answer))
    for kind in exact.grids:
        np.testing.assert_allclose(single.grid(kind), exact.grid(kind), atol=2e-5)


def test_trap_26_noise_is_numpys_legacy_stream_so_seed_one_is_romes():
    """ROME: RandomState(1).randn(samples, tokens, width), scaled, the same in every cell."""
    drawn = draw_noise(replace(NOISE, seed=1, samples=10), 0.1, 2, 8)
    np.testing.assert_array_equal(drawn, 0.1 * np.random.RandomState(1).randn(10, 2, 8))
    uniform = draw_noise(replace(NOISE, noise="uniform"), 0.5, 2, 8)
    np.testing.assert_array_equal(uniform, 0.5 * np.random.RandomState(0).uniform(-1, 1, (3, 2, 8)))


def test_trap_26_the_scale_is_what_was_asked_for():
    model = model_of()
    for unit, level, expected in (("sigma", 2.0, 2 * sigma_of(model)), ("absolute", 0.7, 0.7)):
        prepared = prepare(model, replace(NOISE, noise_unit=unit, noise_level=level, samples=400))
        clean, noised = (run(model, rows, capture=["embed"], edits=edits)["embed", None] for rows, edits in (
            (prepared.base.tokens, ()), (prepared.base.tokens, prepared.base.edits)))  # fmt: skip
        noise = noised - clean
        np.testing.assert_allclose(float(noise[:, 2:4].std()), expected, rtol=0.02)
        assert float(noise[:, :2].abs().max()) == 0
        assert float(noise[:, 4:].abs().max()) == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_trap_26_a_gpu_gets_the_same_noise_and_the_same_grid():
    hf = hf_model("llama", torch.float32)
    cpu, cuda = (
        build_model(copy.deepcopy(hf).to(device), word_tokenizer(bos=True)) for device in ("cpu", "cuda")
    )
    noise = [prepare(model, NOISE).base.edits[0].value for model in (cpu, cuda)]
    assert isinstance(noise[0], torch.Tensor)
    assert isinstance(noise[1], torch.Tensor)
    assert torch.equal(noise[0], noise[1].cpu())
    one, other = (
        causal_trace(cpu, replace(NOISE, kinds=KINDS)),
        causal_trace(cuda, replace(NOISE, kinds=KINDS)),
    )
    for kind in KINDS:
        np.testing.assert_allclose(one.grid(kind), other.grid(kind), atol=1e-4)


def test_trap_28_weak_and_helping_corruption_is_said_first():
    weak = causal_trace(model_of(), replace(NOISE, noise_level=1e-3))
    assert "corruption is weak" in weak.warnings[0]
    rare = causal_trace(model_of(), PAIR).distractor
    assert rare is not None
    helps = causal_trace(model_of(), replace(PAIR, answer=rare.text))
    assert "does not give the answer" in helps.warnings[0]
    assert "corruption helps" in helps.warnings[1]


def test_a_corrupted_run_that_still_answers_is_told():
    weak = causal_trace(model_of(), replace(NOISE, noise_level=1e-3))
    assert any("still answers" in warning and "100 %" in warning for warning in weak.warnings)


@pytest.mark.parametrize(
    ("n_layers", "window", "convention", "table"),
    [
        (48, 10, "code", {0: (0, 4), 5: (0, 9), 20: (15, 24), 44: (39, 47), 47: (42, 47)}),
        (48, 10, "paper", {0: (0, 5), 5: (1, 10), 20: (16, 25), 44: (40, 47), 47: (43, 47)}),
        (12, 10, "code", {5: (0, 9), 0: (0, 4), 11: (6, 11)}),
        (12, 1, "code", {0: (0, 0), 6: (6, 6), 11: (11, 11)}),
        (12, 1, "paper", {0: (0, 0), 6: (6, 6), 11: (11, 11)}),
        (12, 5, "code", {0: (0, 2), 6: (4, 8), 11: (9, 11)}),
        (12, 5, "paper", {0: (0, 2), 6: (4, 8), 11: (9, 11)}),
        (12, 25, "code", {0: (0, 11), 11: (0, 11)}),
    ],
)
def test_trap_29_windows(n_layers, window, convention, table):
    for layer, (first, last) in table.items():
        assert list(window_layers(layer, window, n_layers, convention)) == list(range(first, last + 1))


@pytest.mark.parametrize("window", [1, 2, 5, 10])
def test_trap_29_windows_are_those_of_romes_program(window):
    for n_layers in (6, 12, 48):
        for layer in range(n_layers):
            rome = range(max(0, layer - window // 2), min(n_layers, layer - (-window // 2)))
            assert window_layers(layer, window, n_layers, "code") == rome


def test_trap_29_a_window_over_most_layers_is_told():
    result = causal_trace(model_of(), replace(NOISE, window=4))
    assert any("covers up to 4 of the model's 4" in warning for warning in result.warnings)
    alone = causal_trace(model_of(), replace(NOISE, window=4, kinds=("state",)))
    assert not any("window" in warning for warning in alone.warnings)  # states have no window


def test_trap_31_repeated_words_keep_their_own_rows():
    result = causal_trace(model_of(), CausalTraceInputs("the the the", subject=(2, 3), kinds=("state",)))
    assert [token.position for token in result.tokens] == [0, 1, 2, 3]
    assert result.grids["state"].rows == (0, 1, 2, 3)


def test_trap_35_every_field_is_part_of_the_key():
    other = {
        "prompt": "x", "corrupted_prompt": "x", "subject": (1, 3), "noise": "uniform", "noise_level": 1.0,
        "noise_unit": "absolute", "sigma_subjects": ("x",), "samples": 4, "seed": 5, "direction": "noising",
        "kinds": ("state",), "window": 3, "window_convention": "paper", "head_position": 1, "answer": "x",
        "distractor": "x", "bos": "never", "positions": (1,),
    }  # fmt: skip
    assert set(other) == {field.name for field in fields(CausalTraceInputs)}
    assert len({NOISE, *(replace(NOISE, **{name: value}) for name, value in other.items())}) == len(other) + 1


# --- what is told, planned, stopped
# -----------------------------------------------------------------------------------


def test_the_default_answer_is_the_clean_runs_top_token_and_the_default_distractor_the_other_prompts():
    result = causal_trace(model_of(), PAIR)
    assert result.distractor is not None
    assert (result.answer.chosen_by, result.distractor.chosen_by) == ("clean run", "corrupted run")
    assert result.clean.mean("rank") == 1
    assert result.distractor.ids[0] == result.corrupted.top_ids[0]
    assert "recovered_logit_difference" in result.metrics
    assert "logit_difference" not in causal_trace(model_of(), NOISE).metrics


def test_a_wrong_answer_is_told_with_what_the_model_says():
    result = causal_trace(model_of(), replace(NOISE, answer="Rome"))
    top = result.visible(int(result.clean.top_ids[0]))
    assert result.warnings[0].startswith(f"The clean run does not give the answer: its top token is {top}")


def test_only_the_positions_asked_for_are_traced():
    whole, some = causal_trace(model_of(), NOISE), causal_trace(model_of(), replace(NOISE, positions=(8, 3)))
    assert some.grids["state"].rows == (3, 8)
    np.testing.assert_allclose(some.grid("state"), whole.grid("state")[[3, 8]], atol=1e-12)
    assert some.plan.variants == 2 * 4 * 3


def test_heads_at_one_position_before_the_difference_are_the_corrupted_run():
    result = causal_trace(model_of(), replace(NOISE, kinds=("head",), head_position=1))
    np.testing.assert_array_equal(result.grid("head"), np.full((4, 4), result.baseline()))
    assert result.plan.variants == 0


def test_the_plan_is_that_of_the_run():
    inputs = replace(NOISE, kinds=KINDS, window=2)
    result, cost = causal_trace(model_of(), inputs), causal_trace_plan(model_of(), inputs)
    assert (cost.variants, cost.token_layers, cost.method) == (
        result.plan.variants, result.plan.token_layers, result.plan.method)  # fmt: skip
    assert cost.token_layers < cost.token_layers_full
    assert result.plan.rows == cost.variants * 3


@pytest.mark.parametrize("inputs", [NOISE, PAIR], ids=["noise", "pair"])
def test_the_short_way_to_the_cost_is_the_cost(inputs):
    prepared = prepare(model_of(), replace(inputs, kinds=KINDS, window=3))
    _, variants = build_variants(prepared.inputs, prepared.shape, lambda *_: 0.0, lambda *_: 0.0)
    assert plan(model_of(), prepared.base, for_cost(variants)) == plan(model_of(), prepared.base, variants)


def test_checks_fail_on_wrong_numbers():
    """A check that cannot fail is no check: each is given the one thing that it must not accept."""
    prepared = prepare(model_of(), NOISE)
    result = causal_trace(model_of(), NOISE)
    cells, variants = build_variants(
        NOISE,
        prepared.shape,
        lambda site, layer: prepared.source_run[site, layer],
        lambda site, layer: prepared.base_run[site, layer],
    )

    def failed(grids):
        checks = trace_checks(prepared, grids, cells, variants, "shared")
        return [check.name.split(":")[0] for check in checks if not check.passed]

    assert failed(result.grids) == []
    shifted = {kind: np.array(grid.samples["probability"]) for kind, grid in result.grids.items()}
    shifted["state"][3, -1] += 1e-4
    state = replace(
        result.grids["state"], samples={**result.grids["state"].samples, "probability": shifted["state"]}
    )
    assert failed({**result.grids, "state": state}) == ["last layer"]
    mlp = {name: values + 1e-4 for name, values in result.grids["mlp"].samples.items()}
    assert failed({**result.grids, "mlp": replace(result.grids["mlp"], samples=mlp)}) == [
        "the strongest cells by whole forward passes"
    ]
    place = ("resid_post", prepared.shape.n_layers - 1)
    prepared.source_run.captured[place] = prepared.source_run[place] + 1e-4  # as if the past saw the future
    assert failed(result.grids) == ["before the first difference both runs agree"]


def test_the_zero_noise_check_fails_on_wrong_numbers():
    inputs = replace(NOISE, noise_level=0, kinds=("mlp",))
    prepared, result = prepare(model_of(), inputs), causal_trace(model_of(), inputs)
    wrong = {name: values + 1e-4 for name, values in result.grids["mlp"].samples.items()}
    checks = trace_checks(prepared, {"mlp": replace(result.grids["mlp"], samples=wrong)}, [], [], "shared")
    assert [check.passed for check in checks] == [True, False]


def test_the_figure_fills_while_it_runs(monkeypatch):
    monkeypatch.setattr(sys.modules["mi_core.engine.plan"], "CHUNK_BYTES", 1)  # one variant per chunk
    steps = []
    result = causal_trace(model_of(), replace(NOISE, kinds=("state",)), on_step=steps.append)
    done = [step.done for step in steps]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (2 * 4, 9 * 4)
    assert len(set(done)) > 10
    half = steps[len(steps) // 2].partial
    known = half.grids["state"].done
    np.testing.assert_array_equal(half.grid("state")[known], result.grid("state")[known])
    assert np.isnan(half.grid("state")[~known]).all()
    assert (half.grids["state"].top_ids[~known] == -1).all()
    assert steps[-1].seconds_left == pytest.approx(0)
    assert half.warnings == result.warnings  # told before the figure is complete


@pytest.mark.parametrize("stop_at", [0, 3])
def test_cancelling_keeps_what_is_done_and_leaves_no_hook(monkeypatch, stop_at):
    monkeypatch.setattr(sys.modules["mi_core.engine.plan"], "CHUNK_BYTES", 1)
    model, seen = model_of(), []
    hooks = model.modules_with_hooks()

    def stop(step):
        seen.append(step)
        if len(seen) > stop_at:
            raise Cancelled

    result = causal_trace(model, replace(NOISE, kinds=("state",)), on_step=stop)
    assert result.cancelled
    assert len(seen) == stop_at + 1
    assert result.grids["state"].done.sum() == seen[-1].done < 36
    assert result.checks == ()
    assert type(result).from_json(result.to_json()).cancelled
    assert model.modules_with_hooks() == hooks
    assert not causal_trace(model, replace(NOISE, kinds=("state",))).cancelled


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (CausalTraceInputs(PROMPT), "No subject was chosen"),
        (replace(NOISE, subject=(7, 12)), "the prompt has only 9 tokens"),
        (replace(PAIR, corrupted_prompt=PROMPT), "same in tokens"),
        (replace(NOISE, positions=(3, 9)), "Token 9 cannot be traced: the prompt's tokens are 0 to 8"),
        (replace(NOISE, kinds=("head",), head_position=-1), "Token -1 cannot be traced"),
        (replace(NOISE, answer="Paris", distractor="Paris"), "same token as the answer"),
    ],
)
def test_users_errors_are_one_clear_sentence(inputs, message):
    with pytest.raises(InputError, match=message):
        causal_trace(model_of(), inputs)


def test_a_model_without_tokenizer_is_refused():
    with pytest.raises(InputError, match="no tokenizer"):
        tokenize_pair(build_model(hf_model("llama")), NOISE)
