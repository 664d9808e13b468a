"""Identity: x @ W + b, with our split weights, is what the model's own module computes; on every family."""

import pytest
import torch

from mi_core.engine import run
from mi_core.errors import SiteMissing
from mi_core.model.weights import embedding, tied, unembedding, weight
from tests.tiny import FAMILY_NAMES, tiny, tokens

NORMED_AFTER = {"qwen3", "gemma3_text", "olmo2", "phi_qk_norm"}  # q and k are normed after the projection


def _bias(structure, name: str, layer: int) -> torch.Tensor | float:
    try:
        return weight(structure, name, layer)
    except SiteMissing:
        return 0.0


def _activation(config) -> str:
    return getattr(config, "hidden_activation", None) or config.hidden_act


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_split_weights_reproduce_the_activations(name: str) -> None:
    model = tiny(name)
    structure, dims = model.structure, model.dims
    inputs: dict[int, torch.Tensor] = {}
    layer = 1

    def keep(_module: object, args: tuple, kwargs: dict) -> None:
        inputs[layer] = args[0] if args else kwargs["hidden_states"]

    handle = structure.attention[layer].register_forward_pre_hook(keep, with_kwargs=True)
    try:
        got = run(
            model,
            tokens(2, 5),
            capture=["q", "k", "v", "z", "result", "mlp_in", "mlp_pre", "mlp_post", "attn_out", "mlp_out"],
        )
    finally:
        handle.remove()
    x = inputs[layer].reshape(2, 5, dims.d_model)
    for letter in "qkv" if name not in NORMED_AFTER else "v":
        expected = torch.einsum("bpm,hmd->bphd", x, weight(structure, f"W_{letter.upper()}", layer))
        torch.testing.assert_close(
            got[letter, layer],
            expected + _bias(structure, f"b_{letter.upper()}", layer),
            atol=1e-10,
            rtol=1e-10,
        )
    by_head = torch.einsum("bphd,hdm->bphm", got["z", layer], weight(structure, "W_O", layer))
    torch.testing.assert_close(got["result", layer], by_head, atol=1e-10, rtol=1e-10)
    if structure.family.attention_write == structure.family.attention:
        torch.testing.assert_close(
            got["attn_out", layer], by_head.sum(2) + _bias(structure, "b_O", layer), atol=1e-10, rtol=1e-10
        )
    branch = "gate" if structure.family.gated else "in"
    pre = got["mlp_in", layer] @ weight(structure, f"W_{branch}", layer) + _bias(
        structure, f"b_{branch}", layer
    )
    torch.testing.assert_close(got["mlp_pre", layer], pre, atol=1e-10, rtol=1e-10)
    if structure.family.mlp_write in (structure.family.mlp, structure.family.mlp_down):
        out = got["mlp_post", layer] @ weight(structure, "W_out", layer) + _bias(structure, "b_out", layer)
        torch.testing.assert_close(got["mlp_out", layer], out, atol=1e-10, rtol=1e-10)
    if structure.family.gated:
        act = (
            torch.nn.functional.silu
            if "silu" in str(_activation(model.hf.config))
            else lambda x: torch.nn.functional.gelu(x, approximate="tanh")
        )
        linear = got["mlp_in", layer] @ weight(structure, "W_in", layer)
        torch.testing.assert_close(got["mlp_post", layer], act(pre) * linear, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_unembedding_reproduces_the_logits(name: str) -> None:
    model = tiny(name)
    got = run(model, tokens(1, 5), capture=["final_norm"])
    torch.testing.assert_close(
        got["final_norm", None] @ unembedding(model.hf), got.logits, atol=1e-10, rtol=1e-10
    )
    assert embedding(model.hf).shape == (model.dims.d_vocab, model.dims.d_model)
    assert tied(model.hf) == model.hf.config.tie_word_embeddings


def test_a_weight_that_a_family_lacks_is_named() -> None:
    with pytest.raises(SiteMissing, match="gpt2 models have no W_gate"):
        weight(tiny("gpt2").structure, "W_gate", 0)
    with pytest.raises(SiteMissing, match="llama models have no b_Q"):
        weight(tiny("llama").structure, "b_Q", 0)
    with pytest.raises(SiteMissing, match="no weight called 'W_X'"):
        weight(tiny("llama").structure, "W_X", 0)
