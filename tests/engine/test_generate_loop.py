"""A repeated block of layers: identities, and a second computation with the layers called by hand."""

from typing import Any

import pytest
import torch

from mi_core.engine import run
from mi_core.engine.generate_loop import Loop, loop_logits
from mi_core.errors import InputError
from tests.tiny import FAMILY_NAMES, tiny, tokens
from tests.two_passes import agree

PROMPT = tokens(n_pos=7)[0].tolist()


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_once_without_feedback_is_the_model(family: str) -> None:
    model = tiny(family)
    own = run(model, torch.tensor([PROMPT])).logits[0, -1].double()
    assert agree(loop_logits(model, PROMPT, Loop(1, 3, 1), ()), own)
    nothing = Loop(1, 3, 2, torch.zeros(32, dtype=torch.float64))
    assert agree(loop_logits(model, PROMPT, nothing, (6,)), own)
    assert model.modules_with_hooks() == 0


def by_hand(depth: int, vector: torch.Tensor | None, positions: list[int]) -> Any:
    """Llama's layers called one after another, without this project's code."""
    hf = tiny("llama").hf
    decoder = hf.model
    ids = torch.tensor([PROMPT])
    n_pos = len(PROMPT)
    mask = torch.full((1, 1, n_pos, n_pos), -torch.inf, dtype=torch.float64).triu(1)
    places = torch.arange(n_pos)[None]
    with torch.no_grad():
        hidden = decoder.embed_tokens(ids)
        rotary = decoder.rotary_emb(hidden, places)

        def layer(index: int, state: torch.Tensor) -> torch.Tensor:
            out = decoder.layers[index](
                state, attention_mask=mask, position_ids=places, position_embeddings=rotary
            )
            return out[0] if isinstance(out, tuple) else out

        hidden = layer(0, hidden)
        if vector is not None:
            hidden[:, positions] += vector
            depth = 1
        for _ in range(depth):
            hidden = layer(2, layer(1, hidden))
        return hf.lm_head(decoder.norm(layer(3, hidden)))[0, -1]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_iterating_is_calling_the_layers_again(depth: int) -> None:
    found = loop_logits(tiny("llama"), PROMPT, Loop(1, 3, depth), ())
    torch.testing.assert_close(found, by_hand(depth, None, []), atol=1e-10, rtol=1e-10)


def test_feedback_is_added_to_the_blocks_input_once_for_every_depth() -> None:
    vector = torch.randn(32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = by_hand(1, vector, [2, 6])
    for depth in (1, 3):
        found = loop_logits(tiny("llama"), PROMPT, Loop(1, 3, depth, vector), (2, 6))
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)


def test_a_block_that_does_not_exist_is_told() -> None:
    for loop in (Loop(2, 2, 1), Loop(3, 5, 1), Loop(-1, 2, 1), Loop(1, 2, 0)):
        with pytest.raises(InputError, match="cannot be run"):
            loop_logits(tiny("gpt2"), PROMPT, loop, ())
    with pytest.raises(InputError, match="of 7"):
        loop_logits(tiny("gpt2"), PROMPT, Loop(1, 2, 1), (7,))
