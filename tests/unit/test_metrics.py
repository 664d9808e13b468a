"""Numbers from logits, worked out by hand."""

import math

import pytest
import torch

from mi_core.metrics import (
    entropy,
    exact_logits,
    kl_divergence,
    log_probabilities,
    log_probability,
    logit_difference,
    probability,
    rank,
    sequence_log_probability,
    top_tokens,
)

# P = (1/2, 1/4, 1/4)
HALF = torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64) * math.log(2)
# P = (1/8, 1/8, 3/4)
OTHER = torch.tensor([1.0, 1.0, 6.0], dtype=torch.float64).log()


def test_a_constant_added_to_all_logits_changes_nothing():
    torch.testing.assert_close(log_probabilities(HALF + 7), log_probabilities(HALF))


def test_probabilities_by_hand():
    assert probability(HALF, 0).item() == pytest.approx(0.5)
    assert log_probability(HALF, 1).item() == pytest.approx(-math.log(4))
    torch.testing.assert_close(
        log_probabilities(HALF).exp(), torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    )


def test_logit_difference_is_the_log_odds():
    assert logit_difference(HALF, 0, 1).item() == pytest.approx(math.log(2))
    assert logit_difference(HALF, 1, 0).item() == pytest.approx(-math.log(2))


def test_rank_counts_strictly_higher_logits_and_ties_share_the_best():
    logits = torch.tensor([[3.0, 1.0, 3.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert [rank(logits[0], token).item() for token in range(4)] == [1, 3, 1, 4]
    assert rank(logits, 3).tolist() == [4, 1]


def test_trap_23_kl_is_of_the_clean_run_to_the_other_and_not_symmetric():
    expected = 0.5 * math.log(4) + 0.25 * math.log(2) + 0.25 * math.log(1 / 3)
    assert kl_divergence(HALF, OTHER).item() == pytest.approx(expected)
    assert kl_divergence(OTHER, HALF).item() != pytest.approx(expected, rel=0.01)
    assert kl_divergence(HALF, HALF).item() == 0


def test_trap_23_kl_is_finite_where_the_clean_run_excludes_a_token():
    impossible = torch.tensor([0.0, -torch.inf, 0.0])
    assert kl_divergence(impossible, torch.zeros(3)).item() == pytest.approx(math.log(1.5))
    assert (
        kl_divergence(torch.zeros(3), impossible).item() == math.inf
    )  # honest: the other run rules out what is possible


@pytest.mark.parametrize("seed", range(5))
def test_kl_is_never_negative(seed):
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(20, 50, generator=random) * 10
    assert (kl_divergence(logits, logits + 1e-4 * torch.randn(20, 50, generator=random)) >= 0).all()


def test_entropy_of_certain_and_uniform():
    assert entropy(torch.zeros(8)).item() == pytest.approx(math.log(8))
    assert entropy(torch.tensor([0.0, -torch.inf])).item() == 0
    assert entropy(HALF).item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(4))


def test_trap_04_a_sequence_is_the_sum_of_its_tokens():
    logits = torch.stack([HALF, OTHER])
    total = sequence_log_probability(logits, torch.tensor([1, 2]))
    assert total.item() == pytest.approx(math.log(0.25 * 0.75))
    batch = sequence_log_probability(logits.expand(3, 2, 2, 3), torch.tensor([0, 0]))
    assert batch.shape == (3, 2)
    assert batch[2, 1].item() == pytest.approx(math.log(0.5 * 0.125))


def test_trap_21_half_precision_is_computed_in_float32_and_float64_stays():
    logits = torch.tensor([12.0, 11.0, -3.0], dtype=torch.bfloat16)
    assert log_probabilities(logits).dtype == torch.float32
    assert exact_logits(HALF).dtype == torch.float64
    expected = math.exp(12) / (math.exp(12) + math.exp(11) + math.exp(-3))
    assert probability(logits, 0).item() == pytest.approx(expected, rel=1e-6)


def test_trap_27_the_mean_of_probabilities_is_not_the_probability_of_the_mean():
    rows = torch.tensor([[4.0, 0.0], [-4.0, 0.0]])
    assert probability(rows, 0).mean().item() == pytest.approx(0.5)
    lopsided = torch.tensor([[10.0, 0.0], [-2.0, 0.0]])
    assert probability(lopsided, 0).mean().item() == pytest.approx(0.5596, abs=1e-4)
    assert probability(lopsided.mean(0), 0).item() == pytest.approx(0.9820, abs=1e-4)


def test_top_tokens_are_sorted_and_never_more_than_there_are():
    ids, values = top_tokens(torch.tensor([0.1, 0.7, 0.2]), 10)
    assert ids.tolist() == [1, 2, 0]
    assert values.tolist() == pytest.approx([0.7, 0.2, 0.1])


def test_kl_of_a_token_too_rare_for_the_format_and_excluded_by_the_other_run_is_finite():
    logits = torch.tensor([0.0, 0.0, -800.0], dtype=torch.float64)
    other = torch.tensor([0.0, 0.0, -torch.inf], dtype=torch.float64)
    assert kl_divergence(logits, other) == 0
    assert kl_divergence(torch.zeros(3), other.float()) == torch.inf
