"""Sweeps of ablations: every cell is one ordinary run with the same edit, and what plain torch hooks give."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mi_core.analyses.ablation_sweep_inputs import AblationSweepInputs, JointAblationInputs
from mi_core.analyses.ablation_sweep_result import AblationSweepResult, JointAblationResult
from mi_core.analyses.ablation_sweep_run import ablation_sweep, ablation_sweep_plan, joint_ablation
from mi_core.analyses.interventions import Reference, compile_edits, parse_interventions, reference_of
from mi_core.engine import build_model, run
from mi_core.errors import Cancelled, InputError
from tests.attribution_cases import CONTROL, PROMPT, model_of
from tests.tiny import N_LAYERS, hf_model
from tests.words import word_tokenizer

OTHER = "The capital of Italy is"
FAMILIES = ("gpt2", "gpt_neox", "gemma2", "olmo2", "qwen3", "opt")
INPUTS = AblationSweepInputs(PROMPT, answer=" Paris", distractor=" Rome")


def ids_of(prompt: str) -> tuple[int, ...]:
    return tuple(word_tokenizer()(prompt)["input_ids"])


def numbers_by_hand(logits: torch.Tensor, base: torch.Tensor) -> dict[str, float]:
    """Every metric from the two runs' last logits, written down once more."""
    paris, rome = (word_tokenizer()(f"The {word}")["input_ids"][-1] for word in ("Paris", "Rome"))
    p, q = (torch.softmax(one.double(), -1) for one in (base, logits))
    return {
        "probability": float(q[paris]),
        "log_probability": math.log(q[paris]),
        "logit": float(logits[paris]),
        "logit_difference": float(logits[paris] - logits[rome]),
        "kl": float((p * (p.log() - q.log())).sum()),
        "rank": 1 + int((logits > logits[paris]).sum()),
        "top1_flip": float(logits.argmax() != base.argmax()),
    }


def check_cells(result: AblationSweepResult, name: str, reference: Reference | None = None) -> None:
    """Each cell against an ordinary pass with the edits of its text form."""
    model, ids = model_of(name), ids_of(PROMPT)
    tokens = torch.tensor([ids])
    listed = compile_edits(model, ids, parse_interventions(result.inputs.interventions), reference)
    base = run(model, tokens, edits=listed).logits[0, -1]
    for metric, value in numbers_by_hand(base, base).items():
        assert result.baseline[result.metrics.index(metric)] == pytest.approx(value, abs=1e-9)
    for row, texts in enumerate(result.units.texts):
        for column, text in enumerate(texts):
            edits = compile_edits(model, ids, parse_interventions(text), reference)
            logits = run(model, tokens, edits=[*listed, *edits]).logits[0, -1]
            wanted = numbers_by_hand(logits, base)
            found = dict(zip(result.metrics, result.values[:, row, column], strict=True))
            assert found == pytest.approx(wanted, abs=1e-9), text
            assert result.top_ids[row, column] == int(logits.argmax())


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("what", ["heads", "modules", "edges", "keys"])
def test_a_cell_is_an_ordinary_run_with_the_same_edit(name, what):
    result = ablation_sweep(model_of(name), replace(INPUTS, what=what))
    check_cells(result, name)
    assert result.done.all()
    assert not result.cancelled
    assert all(check.passed for check in result.checks)


def test_the_other_ways_to_take_a_part_out():
    last = ablation_sweep(model_of(), replace(INPUTS, positions="last"))
    assert last.units.texts[1][2] == "L1H2@4:zero"
    check_cells(last, "gpt2")
    resampled = replace(INPUTS, mode="resample", second_prompt=OTHER)
    check_cells(ablation_sweep(model_of(), resampled), "gpt2", Reference((), ids_of(OTHER)))
    meant = ablation_sweep(model_of(), replace(INPUTS, mode="mean"))
    check_cells(meant, "gpt2", reference_of(model_of(), "general"))
    assert "reference prompts 'general'" in meant.reference_note
    listed = replace(INPUTS, interventions="L0H1:zero, L2mlp:scale=0.5")
    check_cells(ablation_sweep(model_of(), listed), "gpt2")
    heads = replace(INPUTS, what="edges", heads=("L3H1", "L0H2"))
    result = ablation_sweep(model_of(), heads)
    assert result.units.rows == ("L3H1", "L0H2")
    assert result.units.texts[1][3] == "e4-3@L0H2"
    check_cells(result, "gpt2")


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_heads_are_those_of_plain_hooks_on_the_output_projection(name):
    """Without our engine: the columns of a head are set to zero where they enter W_O."""
    model = model_of(name)
    result, hf = ablation_sweep(model, INPUTS), hf_model(name)
    tokens, metric = torch.tensor([ids_of(PROMPT)]), result.metrics.index("logit")
    blocks = hf.transformer.h if name == "gpt2" else hf.model.layers
    width = model.dims.d_head
    near = 1e-9 if name == "gpt2" else 1e-6  # RMS norms and eager softmax compute in float32 there
    for layer, block in enumerate(blocks):
        out = block.attn.c_proj if name == "gpt2" else block.self_attn.o_proj
        for head in range(model.dims.n_heads):

            def silence(_module, args, head=head):
                z = args[0].clone()
                z[..., head * width : (head + 1) * width] = 0
                return (z,)

            handle = out.register_forward_pre_hook(silence)
            with torch.no_grad():
                logits = hf(input_ids=tokens).logits[0, -1]
            handle.remove()
            assert result.values[metric, layer, head] == pytest.approx(
                float(logits[result.answer.id]), abs=near
            )


def test_a_head_that_writes_nothing_has_no_effect():
    hf = hf_model("gpt2")
    hf.transformer.h[2].attn.c_proj.weight.data[8:16] = 0
    result = ablation_sweep(build_model(hf, word_tokenizer()), INPUTS)
    for metric in ("probability", "logit", "logit_difference", "kl", "rank"):
        effects = np.abs(result.effect(metric))
        assert effects[2, 1] < 1e-12
        assert metric == "rank" or np.delete(effects.ravel(), 9).min() > 1e-9
    assert result.ranked("logit")[-1] == (2, 1)


def test_without_any_edge_the_last_token_gets_nothing_from_attention():
    """All edges of a layer cut one by one in one list = what attention writes there is its bias alone."""
    model, ids = model_of(), ids_of(PROMPT)
    cuts = ", ".join(f"e4-{key}@L2" for key in range(5))
    joint = joint_ablation(model, JointAblationInputs(PROMPT, cuts, answer=" Paris"))
    hf = hf_model("gpt2")
    attention = hf.transformer.h[2].attn

    def mute(_module, args):
        z = args[0].clone()
        z[:, -1] = 0
        return (z,)

    attention.c_proj.register_forward_pre_hook(mute)
    with torch.no_grad():
        logits = hf(input_ids=torch.tensor([ids])).logits[0, -1]
    assert joint.joint[joint.metrics.index("logit")] == pytest.approx(
        float(logits[joint.answer.id]), abs=1e-9
    )


def test_the_joint_effect_of_one_is_its_single_effect_and_two_interact():
    model = model_of()
    sweep = ablation_sweep(model, INPUTS)
    listed = JointAblationInputs(PROMPT, "L1H2:zero", answer=" Paris", distractor=" Rome")
    one = joint_ablation(model, listed)
    np.testing.assert_allclose(one.joint, one.single[:, 0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(one.joint, sweep.values[:, 1, 2], rtol=0, atol=1e-12)
    assert one.sum_of_singles("logit") == pytest.approx(one.joint_effect("logit"))
    two = joint_ablation(model, replace(listed, interventions="L1H2:zero, L3mlp:zero"))
    assert two.sum_of_singles("logit") == pytest.approx(float(two.single_effects("logit").sum()))
    assert two.joint_effect("logit") != pytest.approx(two.sum_of_singles("logit"), abs=1e-6)
    assert all(check.passed for check in two.checks)
    found = JointAblationResult.from_json(two.to_json())
    np.testing.assert_array_equal(found.single, two.single)
    np.testing.assert_array_equal(found.joint, two.joint)
    frame = two.to_frame()
    assert len(frame) == len(two.metrics) * 5
    assert set(frame["what"]) == {
        "baseline",
        "single",
        "sum of singles",
        "joint",
    }


def test_resampling_from_the_same_prompt_and_a_list_that_did_it_already_change_nothing():
    same = ablation_sweep(model_of(), replace(INPUTS, mode="resample", second_prompt=PROMPT))
    np.testing.assert_allclose(same.values - same.baseline[:, None, None], 0, atol=1e-12)
    twice = ablation_sweep(model_of(), replace(INPUTS, interventions="L1H2:zero"))
    np.testing.assert_allclose(twice.values[:, 1, 2], twice.baseline, atol=1e-12)


def test_in_the_last_layer_an_unread_key_is_a_cut_edge():
    """Only what the last token itself reads there can reach the logits."""
    keys = ablation_sweep(model_of(), replace(INPUTS, what="keys"))
    edges = ablation_sweep(model_of(), replace(INPUTS, what="edges"))
    np.testing.assert_allclose(keys.values[:, -1], edges.values[:, -1], atol=1e-12)
    assert keys.units.texts[0][2] == "c2@all"
    assert keys.units.texts[2][2] == "c2@L2+L3"


def test_floor_and_ranking_are_of_the_cells_that_were_run():
    result = ablation_sweep(model_of(), INPUTS)
    effects = np.abs(result.effect("logit"))
    assert result.floor("logit") == pytest.approx(float(np.median(effects)))
    order = [effects[cell] for cell in result.ranked("logit")]
    assert order == sorted(order, reverse=True)
    assert len(order) == effects.size


def test_cancelling_keeps_what_is_done():
    steps = []

    def stop(step):
        steps.append(step)
        if step.done:
            raise Cancelled

    result = ablation_sweep(model_of(), replace(INPUTS, what="keys"), on_step=stop)
    assert result.cancelled
    assert result.done.any()
    assert not result.checks
    assert np.isfinite(result.values[:, result.done]).all()
    assert np.isnan(result.values[:, ~result.done]).all()
    assert steps[0].done == 0
    assert steps[-1].partial.done.any()

    def at_once(step):
        raise Cancelled

    nothing = ablation_sweep(model_of(), INPUTS, on_step=at_once)
    assert nothing.cancelled
    assert not nothing.done.any()
    assert math.isnan(nothing.floor("logit"))
    assert AblationSweepResult.from_json(nothing.to_json()).ranked("logit") == []


def test_the_record_brings_everything_back():
    result = ablation_sweep(model_of(), replace(INPUTS, what="modules"))
    again = AblationSweepResult.from_json(result.to_json())
    for name in ("baseline", "values", "top_ids", "done"):
        np.testing.assert_array_equal(getattr(again, name), getattr(result, name))
    for name in ("inputs", "provenance", "tokens", "answer", "distractor", "metrics", "vocabulary", "checks"):
        assert getattr(again, name) == getattr(result, name)
    frame = result.to_frame()
    assert len(frame) == len(result.metrics) * (1 + 2 * N_LAYERS)
    with pytest.raises(InputError, match="shape"):
        AblationSweepResult.from_json(result.to_json().replace('"n_layers": 4', '"n_layers": 5'))


def test_the_plan_counts_the_cells():
    cost = ablation_sweep_plan(model_of(), replace(INPUTS, mode="resample", second_prompt=OTHER))
    assert cost.variants == 16
    assert cost.token_layers < cost.token_layers_full


def test_one_token_and_half_precision():
    one = ablation_sweep(model_of(), AblationSweepInputs("The", what="edges"))
    assert one.values.shape[1:] == (4, 1)
    assert np.isfinite(one.values).all()
    half = ablation_sweep(build_model(hf_model("gpt2", torch.bfloat16), word_tokenizer()), INPUTS)
    assert any("bfloat16" in warning for warning in half.warnings)
    assert half.answer.chosen_by == "user"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"what": "edges", "mode": "zero"}, "does not go with edges"),
        ({"mode": "resample"}, "needs a second prompt"),
        ({"heads": ("L1H2",)}, "chosen for edges only"),
        ({"what": "edges", "heads": ("L1H2", "L1H2")}, "named twice"),
        ({"what": "edges", "heads": ("first",)}, "names no head"),
        ({"prompt": ""}, "prompt is empty"),
        ({"what": "neurons"}, "Choose one of heads"),
    ],
)
def test_inputs_that_make_no_sense_are_refused(changes, said):
    with pytest.raises(InputError, match=said):
        AblationSweepInputs(**{"prompt": PROMPT, **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"what": "edges", "heads": ("L9H2",)}, "no head L9H2"),
        ({"mode": "resample", "second_prompt": CONTROL}, "equal length"),
        ({"mode": "mean", "reference": "nowhere"}, "no reference set 'nowhere'"),
        ({"interventions": "L1H9:zero"}, "no head 9"),
        ({"interventions": "L1H2:vanish"}, "L1H2:vanish"),
        ({"distractor": " Paris"}, "token of the answer"),
    ],
)
def test_what_the_model_does_not_have_is_named(changes, said):
    with pytest.raises(InputError, match=said):
        ablation_sweep(model_of(), replace(INPUTS, **changes))


def test_an_empty_list_has_no_joint_effect():
    with pytest.raises(InputError, match="list of interventions is empty"):
        joint_ablation(model_of(), JointAblationInputs(PROMPT, " , "))
