"""The lens' numbers on distributions whose answers are known."""

import math

import numpy as np
import pytest
import torch

from mi_core.analyses.logit_lens_inputs import lens_layers, window
from mi_core.analyses.logit_lens_statistics import divergence, entropy_of, lens_numbers, ranks, rows_per_chunk
from mi_core.errors import ModelError
from mi_core.metrics import kl_divergence

NONE = torch.zeros(0, dtype=torch.long)


def numbers(logits: torch.Tensor, target: int = 0, final: torch.Tensor | None = None, k: int = 3):
    log_p = logits.log_softmax(-1) if final is None else final
    return lens_numbers(logits, log_p, torch.full((len(logits),), target), NONE, k)


def test_a_uniform_distribution_has_entropy_log_n() -> None:
    got = numbers(torch.zeros(2, 50, dtype=torch.float64))
    np.testing.assert_allclose(got.entropy, math.log(50), rtol=1e-12)
    np.testing.assert_allclose(got.top_probabilities, 1 / 50)
    assert got.rank.tolist() == [1, 1], "all tie for the best rank"


def test_a_certain_distribution_has_entropy_zero_and_rank_one() -> None:
    logits = torch.full((1, 5), -torch.inf)
    logits[0, 3] = 2.0
    got = numbers(logits, target=3)
    assert (got.entropy.item(), got.rank.item(), got.log_probability.item(), got.kl.item()) == (0, 1, 0, 0)


def test_hand_worked_numbers() -> None:
    """p = (1/2, 1/4, 1/4), q = (1/4, 1/2, 1/4): KL(p || q) = 1/2 log 2 - 1/4 log 2."""
    p, q = torch.tensor([[0.5, 0.25, 0.25]]).double(), torch.tensor([[0.25, 0.5, 0.25]]).double()
    got = lens_numbers(q.log(), p.log(), torch.tensor([0]), torch.tensor([1, 2]), 2)
    assert got.kl.item() == pytest.approx(0.25 * math.log(2))
    assert got.entropy.item() == pytest.approx(1.5 * math.log(2))
    assert got.log_probability.item() == pytest.approx(math.log(0.25))
    assert (got.rank.item(), got.word_rank.tolist()) == (2, [[1, 2]])
    np.testing.assert_allclose(got.word_log_probability, [[math.log(0.5), math.log(0.25)]])
    assert got.top_ids[0, 0].item() == 1


def test_divergence_has_a_direction_and_drops_no_term() -> None:
    final, lens = torch.tensor([[20.0, 0.0, -30.0]]).double(), torch.tensor([[0.0, 20.0, -30.0]]).double()
    forward = divergence(final.log_softmax(-1), lens.log_softmax(-1)).item()
    assert forward == pytest.approx(20.0, rel=1e-6)
    assert forward == pytest.approx(kl_divergence(final, lens).item())
    # What a cut at p <= 1e-10 would lose: the lens is certain that the final output is wrong about token 2.
    rare = torch.tensor([[0.0, -24.0]]).double().log_softmax(-1)
    sure = torch.tensor([[0.0, -1e12]]).double().log_softmax(-1)
    assert divergence(rare, sure).item() == pytest.approx(math.exp(-24) * 1e12, rel=1e-6)


def test_ranks_are_places_in_a_sorted_list() -> None:
    random = np.random.default_rng(0)
    logits = random.integers(0, 30, (40, 60)).astype(float)  # many ties
    tokens = random.integers(0, 60, (40, 3))
    got = ranks(torch.from_numpy(logits), torch.from_numpy(tokens)).numpy()
    for row, column in np.ndindex(tokens.shape):
        ordered = sorted(logits[row].tolist(), reverse=True)
        value = logits[row, tokens[row, column]]
        assert got[row, column] == min(place for place, one in enumerate(ordered, 1) if one == value)


def test_probabilities_of_minus_infinity_leave_no_nan() -> None:
    logits = torch.tensor([[0.0, 1.0, -torch.inf]])
    got = numbers(logits, target=2)
    assert got.log_probability.item() == -torch.inf
    assert torch.isfinite(entropy_of(logits.log_softmax(-1))).all()
    assert got.kl.item() == 0


def test_half_precision_is_read_in_float32() -> None:
    got = numbers(torch.tensor([[1.0, 2.0, 3.0]]).half())
    assert got.entropy.dtype == torch.float32
    assert got.top_probabilities.sum().item() == pytest.approx(1, abs=1e-6)


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ModelError, match="not finite"):
        numbers(torch.tensor([[1.0, float("nan"), 3.0]]), final=torch.zeros(1, 3))
    with pytest.raises(ModelError, match="float32"):
        numbers(torch.tensor([[1.0, float("inf"), 3.0]]), final=torch.zeros(1, 3))


def test_more_top_tokens_than_there_are() -> None:
    assert numbers(torch.zeros(1, 2), k=10).top_ids.shape == (1, 2)


def test_chunks_follow_the_vocabulary() -> None:
    assert rows_per_chunk(250_000, torch.float32) < 50
    assert rows_per_chunk(4096, torch.float32) == 2 * rows_per_chunk(4096, torch.float64)
    assert rows_per_chunk(10**12, torch.bfloat16) == 1


def test_layers_of_a_stride() -> None:
    assert lens_layers(8, 1) == tuple(range(8))
    assert lens_layers(8, 3) == (1, 4, 7)
    assert lens_layers(8, 100) == (7,)
    assert lens_layers(1, 2) == (0,)


def test_windows_of_a_long_prompt() -> None:
    assert window(5, 24) == (0, 1, 2, 3, 4)
    assert window(100, 4) == (96, 97, 98, 99)
    assert window(100, 4, first=10) == (10, 11, 12, 13)
    assert window(100, 4, first=99) == (96, 97, 98, 99)
    assert window(100, 4, first=10, around=12) == (10, 11, 12, 13), "a click does not move the grid"
    assert 50 in window(100, 4, first=10, around=50)
    assert 0 in window(100, 4, around=0)
    assert window(100, 4, around=500) == (96, 97, 98, 99)
