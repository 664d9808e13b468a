"""Numbers per head on patterns made by hand, and against plain loops."""

import math

import pytest
import torch

from mi_core.analyses.attention_inputs import METRIC_NAMES
from mi_core.analyses.attention_metrics import QUERY_BLOCK, ROW_METRICS, head_metrics, row_metrics

REPEATED = torch.tensor([7, 1, 2, 3, 1, 2, 3])


def one_hot(keys: list[int]) -> torch.Tensor:
    """A head whose query q reads only keys[q]."""
    return torch.nn.functional.one_hot(torch.tensor(keys), len(keys)).double()[None]


def metrics(pattern: torch.Tensor, tokens: torch.Tensor, *, mask_first: bool = False) -> dict[str, float]:
    values = head_metrics(pattern, tokens)[mask_first]
    return dict(zip(ROW_METRICS, values[:, 0].tolist(), strict=True))


def random_pattern(heads: int, size: int, seed: int = 0) -> torch.Tensor:
    scores = torch.randn(
        heads, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return scores.masked_fill(~torch.ones(size, size).tril().bool(), -torch.inf).softmax(-1)


def by_loops(pattern: torch.Tensor, tokens: list[int], name: str, *, mask: bool) -> float:
    """One head's mean, cell by cell as the module's docstring defines it."""
    found = []
    for q in range(1, len(tokens)):
        cells = [(k, float(pattern[q, k])) for k in range(q + 1) if not (mask and k == 0)]
        if name == "entropy":
            found.append(-sum(a * math.log(a) for _, a in cells if a > 0))
        elif name == "distance":
            found.append(sum(a * (q - k) for k, a in cells))
        elif name == "first_token":
            found.append(float(pattern[q, 0]))
        else:
            wanted = {
                "previous_token": lambda k, q=q: k == q - 1,
                "duplicate_token": lambda k, q=q: k < q and tokens[k] == tokens[q],
                "induction": lambda k, q=q: 0 < k < q and tokens[k - 1] == tokens[q],
            }[name]
            hits = [a for k, a in cells if wanted(k)]
            found += [sum(hits)] if hits else []
    return sum(found) / len(found) if found else math.nan


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("name", ROW_METRICS)
def test_every_metric_is_its_definition_cell_by_cell(name: str, mask: bool) -> None:
    tokens = [5, 1, 2, 5, 5, 1, 2, 2, 9, 1]
    pattern = random_pattern(3, len(tokens))
    got = head_metrics(pattern, torch.tensor(tokens))[mask][ROW_METRICS.index(name)]
    expected = [by_loops(pattern[head], tokens, name, mask=mask) for head in range(3)]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64))


def test_long_patterns_are_read_in_blocks_with_the_same_numbers() -> None:
    size = QUERY_BLOCK + 45
    tokens = torch.randint(0, 40, (size,), generator=torch.Generator().manual_seed(1))
    pattern = random_pattern(2, size)
    for mask in (False, True):
        whole = row_metrics(pattern, tokens)
        rows = whole.masked if mask else whole.plain
        at_once = torch.stack([rows[name][:, 1:].nanmean(-1) for name in ROW_METRICS])
        torch.testing.assert_close(head_metrics(pattern, tokens)[mask], at_once)


def test_the_entropy_of_a_uniform_row_is_the_logarithm_of_its_length_and_of_a_sure_one_zero() -> None:
    size = 6
    uniform = torch.ones(1, size, size).tril() / torch.arange(1, size + 1)[:, None]
    rows = row_metrics(uniform, torch.arange(size)).plain["entropy"][0]
    torch.testing.assert_close(rows, torch.arange(1, size + 1).float().log())
    sure = row_metrics(one_hot([0, 0, 1, 3, 2, 5]), torch.arange(6)).plain["entropy"]
    assert (sure == 0).all()


def test_an_exact_previous_token_head() -> None:
    got = metrics(one_hot([0, 0, 1, 2, 3, 4, 5]), REPEATED)
    assert got["previous_token"] == 1
    assert got["distance"] == 1
    assert got["induction"] == 0
    assert got["duplicate_token"] == 0
    assert got["first_token"] == pytest.approx(1 / 6)


def test_an_exact_induction_head() -> None:
    got = metrics(one_hot([0, 0, 0, 0, 2, 3, 4]), REPEATED)  # after the copies of 1, 2, 3
    assert got["induction"] == 1
    assert got["duplicate_token"] == 0


def test_an_exact_duplicate_token_head() -> None:
    got = metrics(one_hot([0, 0, 0, 0, 1, 2, 3]), REPEATED)
    assert got["duplicate_token"] == 1
    assert got["induction"] == 0


def test_shares_of_copies_count_only_queries_that_have_one() -> None:
    got = metrics(one_hot([0, 1, 2, 3, 1, 5, 6]), REPEATED)
    assert got["duplicate_token"] == pytest.approx(1 / 3)


def test_a_token_right_after_its_copy_has_a_duplicate_but_nothing_to_induce() -> None:
    got = metrics(one_hot([0, 0, 1]), torch.tensor([9, 4, 4]))
    assert got["duplicate_token"] == 1
    assert math.isnan(got["induction"])  # what followed the copy is the query itself


def test_masking_leaves_key_0_out_and_renormalises_nothing() -> None:
    tokens = torch.tensor([3, 4, 3, 3])
    pattern = torch.tensor([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25, 0.25, 0.5, 0], [0.5, 0.125, 0.125, 0.25]])[
        None
    ]
    plain, masked = metrics(pattern, tokens), metrics(pattern, tokens, mask_first=True)
    assert masked["first_token"] == plain["first_token"] == pytest.approx((0.5 + 0.25 + 0.5) / 3)
    assert plain["previous_token"] == pytest.approx((0.5 + 0.25 + 0.125) / 3)
    assert masked["previous_token"] == pytest.approx((0.25 + 0.125) / 2)  # query 1's previous token is masked
    assert plain["duplicate_token"] == pytest.approx((0.25 + 0.625) / 2)
    assert masked["duplicate_token"] == pytest.approx(0.125)  # query 2 has its copy only at 0
    assert masked["distance"] == pytest.approx((0 + 0.25 + 0.375) / 3)


def test_a_resting_head_has_a_first_token_share_and_with_the_mask_nothing_else() -> None:
    got = metrics(one_hot([0, 0, 0, 0, 0, 0, 0]), REPEATED, mask_first=True)
    assert got.pop("first_token") == 1
    assert set(got.values()) == {0.0}


def test_without_repeated_tokens_and_with_one_token_there_is_no_number_not_zero() -> None:
    got = metrics(random_pattern(1, 4), torch.tensor([1, 2, 3, 4]))
    assert math.isnan(got["induction"])
    assert math.isnan(got["duplicate_token"])
    assert all(math.isnan(value) for value in metrics(torch.ones(1, 1, 1), torch.tensor([5])).values())


def test_half_precision_patterns_are_summed_in_float32() -> None:
    pattern = random_pattern(2, 200).to(torch.bfloat16)
    got, _ = head_metrics(pattern, torch.arange(200))
    exact, _ = head_metrics(pattern.double(), torch.arange(200))
    torch.testing.assert_close(got, exact, rtol=1e-4, atol=1e-5, equal_nan=True)


def test_the_result_names_the_metrics_in_the_order_of_the_arrays() -> None:
    assert (*ROW_METRICS, "effect") == METRIC_NAMES
