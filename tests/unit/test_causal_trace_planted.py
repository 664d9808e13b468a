"""A model whose every number can be worked out by hand: one layer copies the mean of all tokens to each of
them.

All weights that write to the stream are zero but the attention of layer MOVE, whose queries and keys are zero
(so every token attends evenly to those up to it) and whose values and outputs are the identity. Before MOVE
the answer's evidence lies at the subject; MOVE takes it to the last token, where it stays.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mi_core.analyses import CausalTraceInputs, causal_trace
from mi_core.analyses.causal_trace_corruption import draw_noise
from mi_core.analyses.causal_trace_inputs import WindowConvention
from mi_core.engine import build_model
from mi_core.model.model import LoadedModel
from tests.words import word_tokenizer

N_LAYERS, MOVE, WIDTH, VOCAB = 4, 2, 16, 97
PROMPT, SUBJECT, LAST = "The capital of France is", 3, 4


@lru_cache(maxsize=1)
def planted() -> LoadedModel:
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=32,
        tie_word_embeddings=False,
    )
    hf: Any = LlamaForCausalLM(config).double().eval()
    model = build_model(
        hf, word_tokenizer()
    )  # proved while it is random: the probe switches off what writes nothing
    torch.nn.init.normal_(hf.model.embed_tokens.weight)
    torch.nn.init.normal_(hf.lm_head.weight)
    for layer, block in enumerate(hf.model.layers):
        block.mlp.down_proj.weight.data.zero_()
        block.self_attn.o_proj.weight.data.zero_()
        if layer == MOVE:
            block.self_attn.q_proj.weight.data.zero_()
            block.self_attn.k_proj.weight.data.zero_()
            block.self_attn.v_proj.weight.data.copy_(torch.eye(WIDTH))
            block.self_attn.o_proj.weight.data.copy_(torch.eye(WIDTH))
    return model


INPUTS = CausalTraceInputs(
    PROMPT,
    subject=(SUBJECT, SUBJECT + 1),
    samples=4,
    kinds=("state", "attn", "mlp", "state_attn_severed", "state_mlp_severed", "head"),
)


def by_hand(embedded: np.ndarray) -> np.ndarray:
    """P over the vocabulary at the last token: unembed(norm(x_last + mean_t norm(x_t)))."""

    def norm(x):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)

    head = planted().hf.lm_head.weight.numpy()
    logits = norm(embedded[-1] + norm(embedded).mean(0)) @ head.T
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()


def test_clean_and_corrupted_runs_equal_the_formula():
    result, model = causal_trace(planted(), INPUTS), planted()
    embedded = model.hf.model.embed_tokens.weight.numpy()[[token.id for token in result.tokens]]
    p = by_hand(embedded)
    answer = result.answer.ids[0]
    assert answer == p.argmax()
    np.testing.assert_allclose(result.clean.mean("probability"), p.max(), rtol=1e-6)
    noise = draw_noise(INPUTS, 3 * (result.sigma or 0), 1, WIDTH)
    low = []
    for one in noise:
        corrupted = embedded.copy()
        corrupted[SUBJECT] += one[0]
        low.append(by_hand(corrupted)[answer])
    np.testing.assert_allclose(result.corrupted.samples["probability"], low, rtol=1e-6)
    # (Llama norms in float32 whatever the model, hence 1e-6.) Trap 27: the mean of probabilities, not the
    # probability of mean logits.
    np.testing.assert_allclose(result.baseline(), np.mean(low), rtol=1e-6)


def test_the_grid_follows_the_planted_path():
    share = causal_trace(planted(), INPUTS).grid("state", "recovered_probability")
    expected = np.zeros((LAST + 1, N_LAYERS))
    expected[SUBJECT, :MOVE] = 1  # before the copy the subject's state carries everything
    expected[LAST, MOVE:] = 1  # after it the last token's does
    np.testing.assert_allclose(share, expected, atol=1e-12)


@pytest.mark.parametrize(("kind", "where"), [("attn", (LAST, MOVE)), ("mlp", None)])
def test_only_the_module_that_moves_matters(kind, where):
    share = causal_trace(planted(), INPUTS).grid(kind, "recovered_probability")
    expected = np.zeros_like(share)
    if where is not None:
        expected[where] = 1
    np.testing.assert_allclose(share, expected, atol=1e-12)


def test_a_window_over_the_moving_layer_finds_it():
    """Window 2 of ROME's program covers [l - 1, l]: centres 2 and 3 hold layer 2; the paper's [l, l + 1]: 1
    and 2.
    """
    conventions: dict[WindowConvention, list[int]] = {"code": [MOVE, MOVE + 1], "paper": [MOVE - 1, MOVE]}
    for convention, centres in conventions.items():
        inputs = CausalTraceInputs(
            PROMPT,
            subject=(SUBJECT, SUBJECT + 1),
            samples=2,
            kinds=("attn",),
            window=2,
            window_convention=convention,
        )
        share = causal_trace(planted(), inputs).grid("attn", "recovered_probability")[LAST]
        np.testing.assert_allclose(share, [float(layer in centres) for layer in range(N_LAYERS)], atol=1e-12)


def test_severed_attention_holds_the_last_token_back_and_severed_mlp_does_not():
    """Severing acts at the restored token only: attention *at the subject* moves nothing, so both grids stay
    as they are.
    """
    result = causal_trace(planted(), INPUTS)
    state = result.grid("state", "recovered_probability")
    np.testing.assert_allclose(result.grid("state_mlp_severed", "recovered_probability"), state, atol=1e-12)
    severed = result.grid("state_attn_severed", "recovered_probability")
    # At the last token nothing changes either: before MOVE its own restored state is clean already, and what
    # MOVE brings is
    # corrupted with or without severing.
    np.testing.assert_allclose(severed, state, atol=1e-12)


def test_the_only_head_of_the_moving_layer_carries_all():
    result = causal_trace(planted(), INPUTS)
    share = result.grid("head", "recovered_probability")
    np.testing.assert_allclose(share, [[0, 0, 1, 0]], atol=1e-12)
    assert result.grids["head"].rows == (0,)
    at_subject = causal_trace(
        planted(), CausalTraceInputs(PROMPT, subject=(3, 4), kinds=("head",), head_position=SUBJECT)
    )
    np.testing.assert_allclose(at_subject.grid("head", "recovered_probability"), 0, atol=1e-12)


def test_top_tokens_of_a_fully_restored_cell_are_the_clean_ones():
    result = causal_trace(planted(), INPUTS)
    grid = result.grids["state"]
    np.testing.assert_array_equal(grid.top_ids[SUBJECT, 0], result.clean.top_ids)
    np.testing.assert_allclose(grid.top_probabilities[SUBJECT, 0], result.clean.top_probabilities, rtol=1e-6)
    assert result.visible(result.answer.ids[0]) == result.answer.visible[0]


def test_kl_recovery_is_all_or_nothing_on_the_planted_path():
    result = causal_trace(planted(), INPUTS)
    kl = result.grid("state", "kl_recovery")
    assert set(np.unique(kl.round(9))) == {0.0, 1.0}
    assert result.value(result.clean, "kl") == pytest.approx(0, abs=1e-12)
