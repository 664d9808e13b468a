"""Direct logit attribution: identities in every family, a second computation, users' errors, records."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch

from mi_core.analyses import AttributionInputs, AttributionResult, attribution
from mi_core.analyses import attribution_view as view_module
from mi_core.analyses.attribution_record import FLOAT_ARRAYS, INTEGER_ARRAYS
from mi_core.engine import build_model
from mi_core.errors import Cancelled, InputError, ModelError, SiteMissing
from mi_core.model.model import LoadedModel
from tests.tiny import FAMILY_NAMES, N_LAYERS, hf_model
from tests.words import word_tokenizer

PROMPT, CONTROL = "The capital of France is", "The Space Needle is in the city of"
INPUTS = AttributionInputs(
    PROMPT, control_prompt=CONTROL, answer=" Paris", distractor=" Rome",
    split_heads=("L1H2", "L3H0"), neurons=("L2N5",), top_neurons=3,
)  # fmt: skip
SANDWICH = ("gemma2", "gemma3_text", "olmo2")


@lru_cache(maxsize=64)
def model_of(name: str = "gpt2", dtype: torch.dtype = torch.float64) -> LoadedModel:
    return build_model(hf_model(name, dtype), word_tokenizer())


@lru_cache(maxsize=64)
def result_of(name: str = "gpt2", dtype: torch.dtype = torch.float64) -> AttributionResult:
    return attribution(model_of(name, dtype), INPUTS)


def read(result: AttributionResult) -> tuple[int, int]:
    """Ids of target and distractor."""
    assert result.distractor is not None
    return result.target.id, result.distractor.id


def own_logits(model: LoadedModel, prompt: str) -> torch.Tensor:
    ids = model.tokenizer(prompt, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return model.hf(input_ids=ids).logits[0, -1].double()


# --- identities ---


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


def test_a_prompt_too_long_to_be_shared_gives_the_same_numbers(monkeypatch):
    monkeypatch.setattr(view_module, "MEMO_BYTES", 0)
    model = build_model(hf_model("llama"), word_tokenizer())
    again, known = attribution(model, INPUTS), result_of("llama")
    assert not model.observations
    for name in (*FLOAT_ARRAYS, *INTEGER_ARRAYS):
        np.testing.assert_allclose(getattr(again, name), getattr(known, name), atol=1e-9, err_msg=name)


# --- a second computation: hooks on the untouched model, and the formula in numpy ---


def hooked(hf: Any, ids: torch.Tensor, modules: dict[str, tuple[Any, str]]) -> dict[str, np.ndarray]:
    """Last-position inputs or outputs of some modules."""
    seen: dict[str, np.ndarray] = {}

    def note(name: str, value: Any) -> None:
        tensor = value[0] if isinstance(value, tuple) else value
        seen[name] = tensor.detach().reshape(ids.shape[1], -1)[-1].double().numpy()

    handles = []
    for name, (module, side) in modules.items():
        if side == "output":
            handles.append(module.register_forward_hook(lambda _m, _a, out, n=name: note(n, out)))
        else:
            handles.append(module.register_forward_pre_hook(lambda _m, args, n=name: note(n, args)))
    with torch.no_grad():
        hf(input_ids=ids)
    for handle in handles:
        handle.remove()
    return seen


def test_gpt2_by_the_formula():
    """Layer norm: centre, divide by the frozen scale, gain; Conv1D stores matrices [in, out]."""
    hf, result = hf_model("gpt2"), result_of("gpt2")
    ids = model_of("gpt2").tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    blocks = hf.transformer.h
    seen = hooked(hf, ids, {
        "last": (hf.transformer.ln_f, "input"),
        **{f"attn{i}": (block.attn, "output") for i, block in enumerate(blocks)},
        **{f"z{i}": (block.attn.c_proj, "input") for i, block in enumerate(blocks)},
        **{f"mlp{i}": (block.mlp, "output") for i, block in enumerate(blocks)},
        **{f"act{i}": (block.mlp.c_proj, "input") for i, block in enumerate(blocks)},
    })  # fmt: skip
    last = seen["last"]
    scale = np.sqrt(((last - last.mean()) ** 2).mean() + hf.transformer.ln_f.eps)
    unembed = hf.lm_head.weight.detach().numpy()
    direction = unembed[read(result)[0]] - unembed[read(result)[1]]
    gain = hf.transformer.ln_f.weight.detach().numpy()

    def share(part: np.ndarray) -> float:
        return float((part - part.mean()) * gain / scale @ direction)

    word = hf.transformer.wte.weight.detach().numpy()[ids[0, -1]]
    place = hf.transformer.wpe.weight.detach().numpy()[ids.shape[1] - 1]
    assert result.embedding_names == ("token embedding", "position embedding")
    np.testing.assert_allclose(result.embedding[0], [share(word), share(place)], atol=1e-10)
    assert result.bias[0] == pytest.approx(float(hf.transformer.ln_f.bias.detach().numpy() @ direction))
    for layer, block in enumerate(blocks):
        assert result.attention[0, layer] == pytest.approx(share(seen[f"attn{layer}"]), abs=1e-10)
        assert result.mlp[0, layer] == pytest.approx(share(seen[f"mlp{layer}"]), abs=1e-10)
        out = block.attn.c_proj.weight.detach().numpy().reshape(4, 8, 32)
        heads = [share(z @ w) for z, w in zip(seen[f"z{layer}"].reshape(4, 8), out, strict=True)]
        np.testing.assert_allclose(result.heads[0, layer], heads, atol=1e-10)
        bias = block.attn.c_proj.bias.detach().numpy()
        assert result.attention_bias[0, layer] == pytest.approx(share(bias))
    where = result.neuron_layers == 2
    assert 5 in result.neuron_ids[where]  # asked for by name
    rows = hf.transformer.h[2].mlp.c_proj.weight.detach().numpy()
    for neuron, value, active in zip(
        result.neuron_ids[where], result.neuron_values[0, where], result.neuron_activations[0, where],
        strict=True,
    ):  # fmt: skip
        assert active == pytest.approx(seen["act2"][neuron])
        assert value == pytest.approx(share(seen["act2"][neuron] * rows[neuron]), abs=1e-10)


def test_gemma2_heads_go_through_the_frozen_post_norm():
    """RMS with gain 1 + w, twice: the post-norm at this attention output's scale, the final at its own."""
    hf, result = hf_model("gemma2"), result_of("gemma2")
    ids = model_of("gemma2").tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    blocks = hf.model.layers
    seen = hooked(hf, ids, {
        "last": (hf.model.norm, "input"),
        **{f"raw{i}": (block.post_attention_layernorm, "input") for i, block in enumerate(blocks)},
        **{f"z{i}": (block.self_attn.o_proj, "input") for i, block in enumerate(blocks)},
    })  # fmt: skip

    def frozen(norm: Any, whole: np.ndarray) -> Any:
        scale = np.sqrt((whole**2).mean() + norm.eps)
        return lambda part: part / scale * (1 + norm.weight.detach().numpy())

    head = hf.lm_head.weight.detach().numpy()
    direction = head[read(result)[0]] - head[read(result)[1]]
    final = frozen(hf.model.norm, seen["last"])
    for layer, block in enumerate(blocks):
        post = frozen(block.post_attention_layernorm, seen[f"raw{layer}"])
        out = block.self_attn.o_proj.weight.detach().numpy().T.reshape(4, 8, 32)
        z = seen[f"z{layer}"].reshape(4, 8)
        heads = [float(final(post(z[h] @ out[h])) @ direction) for h in range(4)]
        np.testing.assert_allclose(result.heads[0, layer], heads, atol=1e-6)


def test_sources_are_attention_times_what_each_value_writes():
    """The eager model's own attention weights and values, value bias inside (peers add it twice)."""
    hf, result, layer, head = hf_model("qwen2"), result_of("qwen2"), 1, 2
    ids = model_of("qwen2").tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    attention = hf.model.layers[layer].self_attn
    values: list[torch.Tensor] = []
    handle = attention.v_proj.register_forward_hook(lambda _m, _a, out: values.append(out[0]))
    with torch.no_grad():
        out = hf(input_ids=ids, output_attentions=True, output_hidden_states=True)
    handle.remove()
    assert attention.v_proj.bias is not None
    assert float(attention.v_proj.bias.detach().abs().min()) > 0
    v = values[0].reshape(-1, 2, 8)[:, head // 2]  # two heads share a value head
    w = attention.o_proj.weight[:, 8 * head : 8 * head + 8].T
    weights = out.attentions[layer][0, head, -1]
    last = hooked(hf, ids, {"last": (hf.model.norm, "input")})["last"]
    scale = np.sqrt((last**2).mean() + hf.model.norm.variance_epsilon)
    unembed = hf.lm_head.weight[read(result)[0]] - hf.lm_head.weight[read(result)[1]]
    raw = weights[:, None] * (v @ w) * hf.model.norm.weight @ unembed
    mine = result.sources_of(layer, head)
    np.testing.assert_allclose(mine, raw.detach().numpy() / scale, atol=1e-6)


# --- a planted model ---


def test_one_planted_head_carries_the_answer():
    """Uniform attention in layer 2, head 1, which copies embeddings; everything else writes nothing."""
    model = build_model(hf_model("llama"), word_tokenizer())
    torch.manual_seed(1)
    for layer, block in enumerate(model.hf.model.layers):
        block.mlp.down_proj.weight.data.zero_()
        block.self_attn.o_proj.weight.data.zero_()
        if layer == 2:
            block.self_attn.q_proj.weight.data.zero_()
            block.self_attn.o_proj.weight.data[:, 8:16] = torch.randn(32, 8, dtype=torch.float64)
    result = attribution(model, AttributionInputs(PROMPT, answer="Paris", split_heads=("L2H1",)))
    others = result.heads[0].copy()
    others[2, 1] = 0
    assert np.abs(others).max() == 0
    assert np.abs(result.mlp).max() == 0
    assert result.attention[0].tolist() == pytest.approx([0, 0, result.heads[0, 2, 1], 0])
    assert result.total[0] == pytest.approx(result.embedding[0, 0] + result.heads[0, 2, 1])
    # Even attention over five tokens: each brings a fifth of what it would bring alone.
    block, embedded = model.hf.model.layers[2], model.hf.model.embed_tokens.weight
    ids = [token.id for token in result.tokens[0]]
    normed = block.input_layernorm(embedded[ids])
    written = (normed @ block.self_attn.v_proj.weight.T)[:, :8] @ block.self_attn.o_proj.weight[:, 8:16].T
    last = embedded[ids[-1]] + written.mean(0)
    scale = float((last**2).mean().add(model.hf.model.norm.variance_epsilon).sqrt())
    by_hand = written / 5 * model.hf.model.norm.weight / scale @ model.hf.lm_head.weight[result.target.id]
    np.testing.assert_allclose(result.sources_of(2, 1), by_hand.detach().numpy(), atol=1e-6)


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
