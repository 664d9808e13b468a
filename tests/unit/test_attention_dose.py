"""Dose curves of attention: what comes out of the row, and what it does at the end."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mi_core.analyses.ablation_sweep_inputs import JointAblationInputs
from mi_core.analyses.ablation_sweep_run import joint_ablation
from mi_core.analyses.attention_dose_inputs import LEVELS, AttentionDoseInputs
from mi_core.analyses.attention_dose_result import AttentionDoseResult
from mi_core.analyses.attention_dose_run import attention_dose
from mi_core.engine import Edit, run
from mi_core.errors import Cancelled, InputError
from tests.attribution_cases import PROMPT, model_of
from tests.words import word_tokenizer

INPUTS = AttentionDoseInputs(PROMPT, key=1, layer=2, head=3, answer=" Paris", distractor=" Rome")


def weight(name: str) -> float:
    """The unedited attention of the edge."""
    ids = torch.tensor([word_tokenizer()(PROMPT)["input_ids"]])
    return float(run(model_of(name), ids, capture=[("pattern", 2)])["pattern", 2][0, 3, 4, 1])


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_a_factor_multiplies_and_the_row_sums_to_one(name):
    result, a = attention_dose(model_of(name), INPUTS), weight(name)
    assert result.base_attention == pytest.approx(a, abs=1e-12)
    wanted = [f * a / (1 - a + f * a) for f in LEVELS]
    np.testing.assert_allclose(result.attention, wanted, atol=1e-9)
    assert all(check.passed for check in result.checks)
    assert result.edge == "e4-1@L2H3"


def test_factor_one_is_the_baseline_and_factor_zero_is_the_cut():
    result = attention_dose(model_of(), INPUTS)
    np.testing.assert_allclose(result.values[:, LEVELS.index(1.0)], result.baseline, atol=1e-12)
    cut = joint_ablation(
        model_of(), JointAblationInputs(PROMPT, "e4-1@L2H3", answer=" Paris", distractor=" Rome")
    )
    np.testing.assert_allclose(result.values[:, 0], cut.joint, atol=1e-10)


def test_a_value_is_met_exactly_and_an_effect_by_hand():
    """All attention on one key: z of the head is that key's value vector."""
    model = model_of()
    result = attention_dose(model, replace(INPUTS, kind="set", levels=(0.0, 0.3, 1.0)))
    np.testing.assert_allclose(result.attention, [0, 0.3, 1], atol=1e-12)
    ids = torch.tensor([word_tokenizer()(PROMPT)["input_ids"]])
    seen = run(model, ids, capture=[("v", 2)])
    z = Edit("z", 2, "set", (4,), (3,), value=seen["v", 2][0, 1:2, 3:4])
    logits = run(model, ids, edits=[z]).logits[0, -1]
    assert result.values[result.metrics.index("logit"), 2] == pytest.approx(
        float(logits[result.answer.id]), abs=1e-9
    )


def test_an_edge_in_all_heads_and_layers():
    result = attention_dose(model_of(), replace(INPUTS, layer=None, head=None, levels=(0.0, 1.0, 3.0)))
    assert result.edge == "e4-1@all"
    assert all(check.passed for check in result.checks)
    assert result.attention[0] == 0
    assert result.attention[1] == pytest.approx(result.base_attention, abs=1e-12)


def test_the_dose_for_an_effect_is_read_off_the_straight_lines():
    real = attention_dose(model_of(), replace(INPUTS, levels=(0.0, 1.0, 2.0, 4.0)))
    values = np.tile([-1.0, 0.0, 2.0, 1.0], (7, 1))
    result = replace(real, baseline=np.zeros(7), values=values)
    assert result.dose_for(-0.5, "logit") == pytest.approx(0.5)
    assert result.dose_for(1.0, "logit") == pytest.approx(1.5)  # the first of two
    assert result.dose_for(0.0, "logit") == 1.0
    assert result.dose_for(2.0, "logit") == 2.0
    assert result.dose_for(2.1, "logit") is None
    assert result.dose_for(-1.1, "logit") is None
    assert replace(result, inputs=replace(result.inputs, wished=1.0)).wished_dose == pytest.approx(1.5)
    assert result.wished_dose is None


def test_the_record_brings_everything_back_and_cancelling_keeps_the_shape():
    result = attention_dose(model_of(), INPUTS)
    again = AttentionDoseResult.from_json(result.to_json())
    for name in ("baseline", "values", "attention"):
        np.testing.assert_array_equal(getattr(again, name), getattr(result, name))
    assert again.inputs == result.inputs
    assert again.base_attention == result.base_attention
    assert len(result.to_frame()) == (len(result.metrics) + 1) * (1 + len(LEVELS))

    def stop(step):
        raise Cancelled

    stopped = attention_dose(model_of(), INPUTS, on_step=stop)
    assert stopped.cancelled
    assert np.isnan(stopped.values).all()
    assert stopped.dose_for(0.0, "logit") is None
    assert np.isnan(AttentionDoseResult.from_json(stopped.to_json()).values).all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"levels": (1.0, 0.5)}, "do not ascend"),
        ({"levels": (-1.0, 0.5)}, "level -1 cannot be used"),
        ({"kind": "set", "levels": (0.5, 1.5)}, "between 0 and 1"),
        ({"levels": (0.0, float("nan"))}, "cannot be used"),
        ({"layer": None}, "needs its layer"),
        ({"wished": float("inf")}, "not a number"),
        ({"metric": "joy"}, "Choose one of"),
        ({"key": -1}, "whole number"),
    ],
)
def test_inputs_that_make_no_sense_are_refused(changes, said):
    with pytest.raises(InputError, match=said):
        replace(INPUTS, **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"key": 4, "query": 2}, "edge from the future"),
        ({"metric": "logit_difference", "wished": 1.0, "distractor": None}, "needs a distractor"),
        ({"key": 9}, "no key 9"),
        ({"layer": 7}, "no layer 7"),
        ({"head": 8}, "no head 8"),
        ({"kind": "set", "query": 0, "key": 0, "levels": (0.5,)}, "reads only itself"),
    ],
)
def test_what_the_prompt_or_the_model_does_not_have_is_named(changes, said):
    with pytest.raises(InputError, match=said):
        attention_dose(model_of(), replace(INPUTS, **changes))
