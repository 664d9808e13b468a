"""Direct logit attribution a second time: hooks on the untouched model, formulas in numpy, a planted head."""

from typing import Any

import numpy as np
import pytest
import torch

from mi_core.analyses import AttributionInputs, attribution
from mi_core.engine import build_model
from tests.attribution_cases import PROMPT, model_of, read, result_of
from tests.tiny import hf_model
from tests.words import word_tokenizer

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
