"""Direct logit attribution: what users do wrong, what models do not have, records and tables."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mi_core.analyses import AttributionInputs, AttributionResult, attribution
from mi_core.analyses.attribution_record import FLOAT_ARRAYS, INTEGER_ARRAYS
from mi_core.engine import build_model
from mi_core.errors import Cancelled, InputError, ModelError, SiteMissing
from tests.attribution_cases import INPUTS, PROMPT, model_of, own_logits, result_of
from tests.tiny import N_LAYERS, hf_model
from tests.words import word_tokenizer

# --- what a user does wrong, and what a model does not have ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "Paris", "distractor": "Paris"}, "begins with the same token as the target"),
        ({"split_heads": ("L1H4",)}, "no head L1H4: the model has layers 0 to 3 with heads 0 to 3"),
        ({"split_heads": ("L4H0",)}, "There is no head L4H0"),
        ({"neurons": ("L0N128",)}, "no neuron L0N128: the model has layers 0 to 3 with neurons 0 to 127"),
    ],
)
def test_users_errors_are_one_clear_sentence(change, message):
    with pytest.raises(InputError, match=message):
        attribution(model_of(), replace(INPUTS, **change))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompt": ""}, "The prompt is empty"),
        ({"prompt": "x", "control_prompt": ""}, "The control prompt is empty"),
        ({"prompt": "x", "answer": ""}, "The answer is empty"),
        ({"prompt": "x", "split_heads": ("L1N2",)}, "'L1N2' names no head. Write it like L9H6"),
        ({"prompt": "x", "neurons": ("3",)}, "'3' names no neuron"),
        ({"prompt": "x", "neurons": ("L1N2", "L01N2")}, "named twice"),
        ({"prompt": "x", "top_neurons": -1}, "top neurons is -1"),
        ({"prompt": "x", "bos": "sometimes"}, "bos is 'sometimes'"),
    ],
)
def test_inputs_that_no_model_could_serve_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        AttributionInputs(**values)


def test_without_a_target_the_top_token_is_attributed():
    result = attribution(model_of(), AttributionInputs(PROMPT))
    assert result.target.id == int(own_logits(model_of(), PROMPT).argmax())
    assert result.target.chosen_by == "model"
    assert result.total[0] == pytest.approx(float(own_logits(model_of(), PROMPT).max()))
    assert result.warnings == ()


def test_what_the_reader_must_know_is_said():
    said = " ".join(result_of().warnings)
    assert "The model itself says" in said
    assert "The control prompt's own top token is" in said
    same = attribution(model_of(), AttributionInputs(PROMPT, control_prompt=PROMPT))
    assert "control prompt is the prompt itself" in " ".join(same.warnings)
    several = attribution(model_of(), AttributionInputs(PROMPT, distractor="San Francisco"))
    assert "only ·San is read" in " ".join(several.warnings)
    assert "bfloat16" in " ".join(
        attribution(model_of("gpt2", torch.bfloat16), AttributionInputs(PROMPT)).warnings
    )


def test_a_model_whose_parts_cannot_be_read_is_refused_with_the_reason():
    model = build_model(hf_model("llama"), word_tokenizer())
    model.structure.missing["attn_out"] = "the probe failed: residuals are scaled"
    with pytest.raises(SiteMissing, match="residuals are scaled"):
        attribution(model, AttributionInputs(PROMPT))


def test_heads_or_neurons_that_cannot_be_told_apart_are_left_out_and_said():
    model = build_model(hf_model("llama"), word_tokenizer())
    model.structure.missing.update(z="not here", mlp_post="nor here", pattern="nor this")
    result = attribution(model, AttributionInputs(PROMPT, answer="Paris"))
    assert result.n_heads == 0
    assert not result.has_neurons
    assert [check.name for check in result.checks] == [
        "parts + biases = logit", "the sum is the model's own logit"
    ]  # fmt: skip
    assert "Heads cannot be told apart on this model: not here." in result.warnings
    assert AttributionResult.from_json(result.to_json()).heads.shape == (1, N_LAYERS, 0)
    with pytest.raises(SiteMissing, match="nor this"):
        attribution(model, AttributionInputs(PROMPT, split_heads=("L0H0",)))


def test_a_head_that_is_no_linear_read_of_the_stream_is_refused():
    model = build_model(hf_model("gpt2"), word_tokenizer())
    model.structure.points["final_norm", None].module.forward = torch.tanh  # no norm at all
    with pytest.raises(ModelError):
        attribution(model, AttributionInputs(PROMPT))


def test_one_token_and_duplicate_tokens():
    one = attribution(model_of("llama"), AttributionInputs("Paris", split_heads=("L0H0",)))
    assert one.sources_of(0, 0).tolist() == pytest.approx([one.heads[0, 0, 0]])
    many = attribution(model_of("llama"), AttributionInputs("Paris Paris Paris", split_heads=("L0H0",)))
    assert many.sources_of(0, 0).shape == (3,)
    with pytest.raises(InputError, match="was not split"):
        one.sources_of(0, 1)


def test_cancelling_leaves_no_hook_and_no_half_result():
    model, hooks = model_of(), model_of().modules_with_hooks()

    def stop(step):
        raise Cancelled

    with pytest.raises(Cancelled):
        attribution(model, INPUTS, on_step=stop)
    assert model.modules_with_hooks() == hooks
    assert model.lock.acquire(blocking=False)
    model.lock.release()


# --- shapes and records ---


@pytest.mark.parametrize("inputs", [INPUTS, AttributionInputs(PROMPT, top_neurons=0)])
def test_the_record_brings_every_number_back(inputs):
    result = attribution(model_of(), inputs)
    again = AttributionResult.from_json(result.to_json())
    assert again.to_json() == result.to_json()
    for name in (*FLOAT_ARRAYS, *INTEGER_ARRAYS):
        np.testing.assert_array_equal(getattr(again, name), getattr(result, name), err_msg=name)
    assert again.inputs == inputs
    assert AttributionInputs.from_dict(inputs.to_dict()) == inputs


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ('"embedding": [[', '"embedding": [[1, '),
        ('"chosen_by": "user"', '"chosen_by": "me"'),
        ('"n_heads": 4', '"n_heads": 5'),
        ('"softcap": null', '"softcap": "no"'),
        ('"attention": [', '"attention": 3, "was": ['),
        ('"top_neurons": 3', '"top_neurons": true'),
    ],
)
def test_a_damaged_record_is_one_sentence(good, bad):
    text = result_of().to_json()
    assert good in text
    with pytest.raises(InputError):
        AttributionResult.from_json(text.replace(good, bad, 1))


def test_the_table_holds_the_sum():
    result = result_of("gemma2")
    frame: Any = result.to_frame()
    parts = frame[(frame.level == "part") & (frame.prompt == "prompt")]
    assert parts.value.sum() == pytest.approx(result.total[0])
    assert list(parts.name[:3]) == ["embedding", "L0 attention", "L0 MLP"]
    assert set(frame.unit) == {"logits", "activation", "probability"}
    assert not frame.value.isna().any()
    first = frame[(frame.level != "part") & (frame.prompt == "prompt") & (frame.layer == 1)]
    heads = first[(first.level == "head")]
    assert heads.value.sum() == pytest.approx(result.attention[0, 1])
    neurons = first[(first.level == "neuron") & (first.unit == "logits")]
    assert neurons.value.sum() == pytest.approx(result.mlp[0, 1])


def test_a_result_checks_its_shapes():
    with pytest.raises(ValueError, match="sources has shape"):
        replace(result_of(), sources=np.zeros((2, 1, 8)))
    with pytest.raises(ValueError, match="1 top tokens for 2 prompts"):
        replace(result_of(), top=result_of().top[:1])
