"""Direct logit attribution in every family: parts and biases are the logit, at every level."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mi_core.analyses import attribution
from mi_core.analyses import attribution_view as view_module
from mi_core.analyses.attribution_record import FLOAT_ARRAYS, INTEGER_ARRAYS
from mi_core.engine import build_model
from tests.attribution_cases import CONTROL, INPUTS, PROMPT, SANDWICH, model_of, own_logits, read, result_of
from tests.tiny import FAMILY_NAMES, N_LAYERS, hf_model
from tests.words import word_tokenizer


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_parts_and_biases_are_the_logit_at_every_level(name, dtype):
    """Sandwich norms and biases included; RMS norms compute in float32 even in a float64 model."""
    result = result_of(name, dtype)
    near = {"atol": 1e-9 if dtype == torch.float64 else 1e-4, "rtol": 0}
    norm = {"atol": 1e-6 if dtype == torch.float64 else 1e-4, "rtol": 0}
    np.testing.assert_allclose(result.values.sum(-1), result.total, **near)
    np.testing.assert_allclose(result.cumulative[:, -1], result.total, **near)
    np.testing.assert_allclose(result.sums, result.logits, **near)
    own = np.array(
        [
            own_logits(model_of(name, dtype), prompt)[list(read(result))].tolist()
            for prompt in (PROMPT, CONTROL)
        ]
    )
    cap = result.softcap
    capped = result.sums if cap is None else cap * np.tanh(result.sums / cap)
    np.testing.assert_allclose(capped, own, **norm)
    inner = norm if name in SANDWICH else near
    np.testing.assert_allclose(result.heads.sum(-1) + result.attention_bias, result.attention, **inner)
    rest = result.neuron_rest + result.mlp_bias
    for layer in range(N_LAYERS):
        rest[:, layer] += result.neuron_values[:, result.neuron_layers == layer].sum(-1)
    np.testing.assert_allclose(rest, result.mlp, **inner)
    np.testing.assert_allclose(np.nansum(result.sources, -1), result.heads[:, [1, 3], [2, 0]], **near)
    assert all(check.passed for check in result.checks)
    assert len(result.checks) == 5
    assert result.post_norms == (name in SANDWICH)


def test_target_minus_distractor_is_the_difference_of_two_attributions():
    whole = result_of("gemma2")
    one, other = (
        attribution(model_of("gemma2"), replace(INPUTS, answer=text, distractor=None))
        for text in (" Paris", " Rome")
    )
    for name in ("embedding", "attention", "mlp", "bias", "heads", "attention_bias", "mlp_bias", "sources"):
        np.testing.assert_allclose(
            getattr(whole, name), getattr(one, name) - getattr(other, name), atol=1e-12, err_msg=name
        )
    np.testing.assert_allclose(whole.total, one.total - other.total, atol=1e-12)


def test_a_control_prompt_is_attributed_as_if_it_were_alone():
    both = result_of("qwen2")
    alone = attribution(model_of("qwen2"), replace(INPUTS, prompt=CONTROL, control_prompt=None))
    for name in ("embedding", "attention", "mlp", "bias", "heads", "sources", "sums", "probabilities"):
        np.testing.assert_allclose(getattr(both, name)[1], getattr(alone, name)[0], atol=1e-12, err_msg=name)
    np.testing.assert_allclose(both.contrast(both.values), both.values[0] - both.values[1], atol=1e-12)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("name", ["gpt2", "gemma2", "qwen2"])
def test_cuda_gives_the_numbers_of_the_cpu(name):
    on_gpu = attribution(build_model(hf_model(name).to("cuda"), word_tokenizer()), INPUTS)
    for array in FLOAT_ARRAYS:
        np.testing.assert_allclose(getattr(on_gpu, array), getattr(result_of(name), array), atol=1e-5)
    assert all(check.passed for check in on_gpu.checks)


def test_a_prompt_too_long_to_be_shared_gives_the_same_numbers(monkeypatch):
    monkeypatch.setattr(view_module, "MEMO_BYTES", 0)
    model = build_model(hf_model("llama"), word_tokenizer())
    again, known = attribution(model, INPUTS), result_of("llama")
    assert not model.observations
    for name in (*FLOAT_ARRAYS, *INTEGER_ARRAYS):
        np.testing.assert_allclose(getattr(again, name), getattr(known, name), atol=1e-9, err_msg=name)
