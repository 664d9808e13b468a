"""The frozen linear pass: forward, backward, and against the model's own activations, in every family."""

from dataclasses import replace

import pytest
import torch

from mi_core.engine import observe, readout, unembed
from mi_core.errors import TranscoderError
from mi_core.transcoders import Hook, frozen_pass
from mi_core.transcoders.linear_pass import FrozenPass
from tests.tiny import FAMILY_NAMES, tiny, tokens
from tests.transcoders import tiny_clt

IDS = tokens()[0].tolist()
# RMS norms of transformers compute in float32 even inside a float64 model.
CLOSE = 1e-5


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def far(made: torch.Tensor, own: torch.Tensor) -> float:
    return float((made - own).abs().max() / own.abs().max())


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_embedding_mlps_and_constants_pushed_forward_are_the_models_own_stream(name: str) -> None:
    model = tiny(name)
    frozen = frozen_pass(model, IDS)
    # What attention adds when nothing enters it stands in the stream like a write of the same layer's MLP.
    deltas = {
        layer: (frozen.mlp_out[layer] + frozen.attention[layer].constant)[None]
        for layer in range(frozen.n_layers)
    }
    pushed = frozen.push(deltas, frozen.embed[None])
    seen = observe(model, IDS, ("resid_post",))
    for layer in range(frozen.n_layers):
        assert far(pushed.resid_post[layer][0], seen["resid_post", layer]) < CLOSE
    assert frozen.error < CLOSE
    assert frozen.parallel == model.structure.parallel == (pushed.resid_mid is None)


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_backward_is_the_transpose_of_push(name: str) -> None:
    model = tiny(name)
    frozen = frozen_pass(model, IDS)
    deltas = {layer: random(2, 9, 32, seed=layer) for layer in (0, 2)}
    embed, direction = random(2, 9, 32, seed=7), random(2, 9, 32, seed=8)
    forward = (frozen.push(deltas, embed).final * direction).sum((1, 2))
    back, gradient = torch.zeros(2, dtype=torch.float64), direction.clone()
    for place, layer, live in frozen.backward(gradient):
        if place == "mlp_out" and layer in deltas:
            back += (live * deltas[layer]).sum((1, 2))
    back += (gradient * embed).sum((1, 2))
    torch.testing.assert_close(forward, back, rtol=1e-10, atol=1e-10)


def test_nothing_arrives_before_it_is_written_nor_at_earlier_tokens() -> None:
    frozen = frozen_pass(tiny("llama"), IDS)
    delta = torch.zeros(1, 9, 32)
    delta[0, 4] = 1.0
    pushed = frozen.push({2: delta})
    assert all(not one.any() for one in (*pushed.resid_pre[:3], *pushed.resid_post[:2]))
    assert not pushed.final[:, :4].any()
    assert pushed.final[:, 4:].any()


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "phi"])
def test_logits_of_a_change_are_those_of_the_readout(name: str) -> None:
    model = tiny(name)
    frozen, change = frozen_pass(model, IDS), random(1, 9, 32)
    last = observe(model, IDS, ("resid_post",))["resid_post", 3]
    proved = readout(model, last, [3, 50])
    torch.testing.assert_close(
        frozen.logits(change, [3, 50])[0], proved.parts(change[0]), rtol=1e-5, atol=1e-6
    )
    assert frozen.logits(change).shape == (1, 9, model.dims.d_vocab)
    own = unembed(model, last[-1:])[0].double()
    if proved.softcap is None:
        told = frozen.logit_gradient([3, 50], 8) @ last[-1] + frozen.logit_bias([3, 50])
        torch.testing.assert_close(told, own[[3, 50]], rtol=1e-5, atol=1e-5)
        mean = frozen.mean_logit_gradient(8) @ last[-1] + frozen.mean_logit_bias
        torch.testing.assert_close(mean, own.mean(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "hook"), [
    ("llama", Hook("resid_mid")), ("gpt2", Hook("mlp_in")), ("gemma2", Hook("resid_mid", normalised=True)),
    ("phi", Hook("mlp_in")), ("qwen3", Hook("resid_pre")),
])  # fmt: skip
def test_what_the_encoders_see_of_a_change_is_the_change_of_what_they_see(name: str, hook: Hook) -> None:
    """At a frozen scale the read is affine: the read of the clean stream is the read of all its parts."""
    model = tiny(name)
    transcoder = replace(tiny_clt(tiny("llama")), reads=hook)
    frozen = frozen_pass(model, IDS, transcoder)
    whole = _everything(frozen)
    seen = observe(model, IDS, ("mlp_in", hook.site))
    for layer in transcoder.layers:
        told = frozen.read(whole, layer)[0]
        bias = frozen.reads[layer].bias
        told = told if bias is None else told + bias
        own = seen[hook.site, layer]
        if hook.normalised:
            factor = told.norm(dim=-1) / own.norm(dim=-1)
            own = own * factor[:, None]
            torch.testing.assert_close(
                told.square().mean(-1).sqrt(), torch.ones(9).double(), rtol=1e-3, atol=1e-3
            )
        assert far(told, own) < CLOSE


def _everything(frozen: FrozenPass):
    deltas = {
        layer: (frozen.mlp_out[layer] + frozen.attention[layer].constant)[None]
        for layer in range(frozen.n_layers)
    }
    if frozen.parallel or frozen.read_site == "resid_pre":
        return frozen.push(deltas, frozen.embed[None])
    # resid_mid of a layer holds its attention's constant, which `push` adds behind it.
    whole = frozen.push(deltas, frozen.embed[None])
    middle = [mid + frozen.attention[layer].constant for layer, mid in enumerate(whole.resid_mid or [])]
    return replace(whole, resid_mid=middle)


def test_a_transcoder_of_something_else_is_refused() -> None:
    model = tiny("llama")
    good = tiny_clt(model)
    with pytest.raises(TranscoderError, match="attribution graph"):
        frozen_pass(model, IDS, replace(good, writes=Hook("resid_post")))
    with pytest.raises(TranscoderError, match="not a transcoder of this model"):
        frozen_pass(model, IDS, replace(good, d_model=16))
