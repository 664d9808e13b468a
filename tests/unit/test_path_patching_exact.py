"""Path patching against a second, plain implementation: torch hooks on the Hugging Face modules."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mi_core.analyses.head_classes_evidence import direct_effects
from mi_core.analyses.path_patching_bands import mean_band
from mi_core.analyses.path_patching_names import Receiver, parse_receiver
from mi_core.analyses.path_patching_paths import Paths, kv_group
from mi_core.analyses.path_patching_rows import Group, gather
from mi_core.engine import readout, run
from mi_core.errors import InputError
from mi_core.model.model import LoadedModel
from tests.tiny import N_LAYERS, tiny, tokens

N_ROWS, N_POS, N_HEADS, D_HEAD = 3, 7, 4, 8
SENDERS = [(layer, head) for layer in range(N_LAYERS) for head in range(N_HEADS)]


def group() -> Group:
    return Group(
        tokens(N_ROWS, N_POS, seed=1),
        tokens(N_ROWS, N_POS, seed=2),
        torch.tensor([5, 6, 7]),
        torch.tensor([8, 9, 10]),
        {},
        np.arange(N_ROWS),
    )


class Naive:
    """The model with hooks that set inputs of W_O, outputs of MLPs, and queries, keys or values."""

    def __init__(self, model: LoadedModel) -> None:
        self.hf = model.hf
        self.gpt2 = model.hf.config.model_type == "gpt2"
        self.blocks = self.hf.transformer.h if self.gpt2 else self.hf.model.layers

    def run(
        self,
        ids: Tensor,
        *,
        z: Callable[[int, Tensor], Tensor] = lambda layer, value: value,
        mlp: Callable[[int, Tensor], Tensor] = lambda layer, value: value,
        projected: Callable[[int, str, Tensor], Tensor] = lambda layer, part, value: value,
    ) -> Tensor:
        """Logits at the last token; every callable sees and may replace values."""
        with ExitStack() as stack, torch.no_grad():
            for layer, block in enumerate(self.blocks):
                attention = block.attn if self.gpt2 else block.self_attn
                out = attention.c_proj if self.gpt2 else attention.o_proj

                def before_output(_: Any, args: Any, layer: int = layer) -> Any:
                    return (z(layer, args[0].unflatten(-1, (N_HEADS, D_HEAD))).flatten(-2),)

                def after_mlp(_: Any, __: Any, value: Tensor, layer: int = layer) -> Tensor:
                    return mlp(layer, value)

                stack.callback(out.register_forward_pre_hook(before_output).remove)
                stack.callback(block.mlp.register_forward_hook(after_mlp).remove)
                self._hook_projections(stack, attention, layer, projected)
            return self.hf(input_ids=ids, use_cache=False).logits[:, -1]

    def _hook_projections(self, stack: ExitStack, attention: Any, layer: int, projected: Any) -> None:
        if self.gpt2:

            def fused(_: Any, __: Any, value: Tensor) -> Tensor:
                pieces = zip("qkv", value.chunk(3, -1), strict=True)
                return torch.cat([split(projected, layer, part, piece) for part, piece in pieces], -1)

            stack.callback(attention.c_attn.register_forward_hook(fused).remove)
            return
        for part in "qkv":

            def single(_: Any, __: Any, value: Tensor, part: str = part) -> Tensor:
                return split(projected, layer, part, value)

            stack.callback(getattr(attention, f"{part}_proj").register_forward_hook(single).remove)


def split(projected: Any, layer: int, part: str, value: Tensor) -> Tensor:
    return projected(layer, part, value.unflatten(-1, (-1, D_HEAD))).flatten(-2)


def remembered(naive: Naive, ids: Tensor) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """`z` and MLP outputs of every layer."""
    heads: dict[int, Tensor] = {}
    mlps: dict[int, Tensor] = {}

    def keep(store: dict[int, Tensor]) -> Any:
        def see(layer: int, value: Tensor) -> Tensor:
            store[layer] = value.clone()
            return value

        return see

    naive.run(ids, z=keep(heads), mlp=keep(mlps))
    return heads, mlps


def naive_effect(
    model: LoadedModel, one: Group, sender: tuple[int, int], receivers: list[Receiver], mlps: str
) -> np.ndarray:
    """The definition, literally: every head of every layer and every position is set in pass 1."""
    naive = Naive(model)
    clean, outputs = remembered(naive, one.tokens)
    other, _ = remembered(naive, one.counterfactual)

    def frozen(layer: int, value: Tensor) -> Tensor:
        new = clean[layer].clone()
        if layer == sender[0]:
            new[:, :, sender[1]] = other[layer][:, :, sender[1]]
        return new

    def held(layer: int, value: Tensor) -> Tensor:
        return outputs[layer] if mlps == "frozen" else value

    arrived: dict[tuple[int, str], Tensor] = {}

    def see(layer: int, part: str, value: Tensor) -> Tensor:
        arrived[layer, part] = value.clone()
        return value

    patched = naive.run(one.tokens, z=frozen, mlp=held, projected=see)
    if receivers[0].layer is not None:

        def put(layer: int, part: str, value: Tensor) -> Tensor:
            new = value.clone()
            for receiver in receivers:
                if (receiver.layer, receiver.part) == (layer, part):
                    size = N_HEADS // value.shape[2] if part != "q" else 1
                    where = slice(-1, None) if part == "q" else slice(None)
                    new[:, where, receiver.head // size] = arrived[layer, part][
                        :, where, receiver.head // size
                    ]
            return new

        patched = naive.run(one.tokens, projected=put)
    difference = one.difference(torch.stack([patched, naive.run(one.tokens)]))
    return (difference[0] - difference[1]).numpy()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("mlps", ["recomputed", "frozen"])
def test_paths_to_the_logits_equal_the_plain_implementation(family: str, mlps: Any) -> None:
    model, one = tiny(family), group()
    got = Paths(model, one, mlps).into_logits(SENDERS, lambda text: None)
    want = np.array([naive_effect(model, one, sender, [Receiver()], mlps) for sender in SENDERS])
    assert np.abs(want).min(-1).max() > 1e-3
    np.testing.assert_allclose(got, want, atol=1e-9)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("mlps", ["recomputed", "frozen"])
def test_paths_into_heads_equal_the_plain_implementation(family: str, mlps: Any) -> None:
    model, one = tiny(family), group()
    receivers = [parse_receiver(text) for text in ("L3H1.q", "L3H2.k", "L2H3.v", "L1H0.q")]
    got = Paths(model, one, mlps).into_heads(SENDERS, receivers, lambda text: None, together=False)
    for number, sender in enumerate(SENDERS):
        for index, receiver in enumerate(receivers):
            if sender[0] >= (receiver.layer or 0):
                assert np.isnan(got[index, number]).all()
                continue
            want = naive_effect(model, one, sender, [receiver], mlps)
            np.testing.assert_allclose(got[index, number], want, atol=1e-9)
    assert np.nanmax(np.abs(got)) > 1e-2


def test_receivers_together_are_set_in_one_run_and_not_added_up() -> None:
    model, one = tiny("llama"), group()
    receivers = [parse_receiver(text) for text in ("L3H1.q", "L2H3.q", "L3H0.k", "L3H1.k")]
    got = Paths(model, one).into_heads(SENDERS, receivers, lambda text: None, together=True)
    assert got.shape[0] == 1
    for number, sender in enumerate(SENDERS[:12]):
        later = [receiver for receiver in receivers if (receiver.layer or 0) > sender[0]]
        want = naive_effect(model, one, sender, later, "recomputed")
        np.testing.assert_allclose(got[0, number], want, atol=1e-9)


def test_a_prompt_that_is_its_own_counterfactual_has_no_effect() -> None:
    one = group()
    same = Group(one.tokens, one.tokens, one.answers, one.wrong, {}, one.index)
    paths = Paths(tiny("gpt2"), same)
    assert np.abs(paths.into_logits(SENDERS, lambda text: None)).max() < 1e-10
    into = paths.into_heads(SENDERS, [parse_receiver("L3H1.v")], lambda text: None, together=False)
    assert np.nanmax(np.abs(into)) < 1e-10


def test_heads_that_share_keys_are_named_together() -> None:
    assert kv_group(tiny("llama"), parse_receiver("L2H3.k")) == ((2, 2), (2, 3))
    assert kv_group(tiny("llama"), parse_receiver("L2H3.q")) == ((2, 3),)
    assert kv_group(tiny("gpt2"), parse_receiver("L2H3.v")) == ((2, 3),)
    assert kv_group(tiny("gpt2"), Receiver()) == ()


@pytest.mark.parametrize("text", ["L9H6", "L9H6.z", "H6.q", "logit", "L9H6.q.k", ""])
def test_what_names_no_receiver_is_told(text: str) -> None:
    with pytest.raises(InputError, match="names no"):
        parse_receiver(text)


def test_a_partner_of_another_length_is_refused() -> None:
    with pytest.raises(InputError, match="different numbers of tokens"):
        Group(tokens(1, 5), tokens(1, 6), torch.tensor([1]), torch.tensor([2]), {}, np.arange(1))


def test_the_band_is_students() -> None:
    mean, low, high = mean_band(np.array([1.0, 2.0, 3.0, 6.0]))
    assert (mean, high - mean) == (3.0, pytest.approx(3.1824 * 2.1602 / 2, abs=2e-3))
    assert mean - low == pytest.approx(high - mean)
    assert np.isnan(mean_band(np.ones((1, 2)))[1]).all()


def test_groups_are_joined_in_the_tasks_order() -> None:
    one = group()
    first = Group(one.tokens, one.tokens, one.answers, one.wrong, {}, np.array([0, 3, 4]))
    second = Group(one.tokens, one.tokens, one.answers, one.wrong, {}, np.array([1, 2, 5]))
    joined = gather([np.array([[0, 3, 4]]), np.array([[1, 2, 5]])], [first, second])
    assert joined.tolist() == [[0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize("family", ["llama", "gemma2", "olmo2"])
def test_direct_effects_of_heads_add_up_to_that_of_attention(family: str) -> None:
    """Families without an output bias; two of them with a norm behind the heads."""
    model, one = tiny(family), group()
    effects = direct_effects(model, one)
    seen = run(model, one.tokens, capture=["attn_out", ("resid_post", N_LAYERS - 1)])
    for row in range(N_ROWS):
        wanted = [int(one.answers[row]), int(one.wrong[row])]
        way = readout(model, seen["resid_post", N_LAYERS - 1][row, -1:], wanted)
        for layer in range(N_LAYERS):
            right, wrong = way.parts(seen["attn_out", layer][row, -1:])[0].tolist()
            assert effects[layer, :, row].sum() == pytest.approx(right - wrong, abs=1e-6)
