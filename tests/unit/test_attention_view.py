"""Squares, sums, ranks, pairs and small pictures of hand-made results."""

import numpy as np
import pytest

from mi_core.analyses import AttentionInputs, AttentionResult
from mi_core.analyses.attention_inputs import METRIC_NAMES
from mi_core.analyses.attention_run import window_around
from mi_core.analyses.attention_view import (
    NOTHING,
    along,
    cells_frame,
    key_sums,
    ordered_heads,
    ranks,
    square,
    thumbnails,
    top_pairs,
)
from mi_core.errors import InputError
from mi_core.tokens import Token


def made(
    values: np.ndarray, *, start: int = 0, second: np.ndarray | None = None, show: str = "weights"
) -> AttentionResult:
    """A result around a pattern [layer head query key]."""
    layers, heads, size, _ = values.shape
    numbers = np.zeros((len(METRIC_NAMES), layers, heads))
    tokens = tuple(Token(p, p, f"t{p}", p, p + 1, special=p == 0) for p in range(start + size))
    extra = {} if second is None else {
        "second_values": second.astype(np.float32), "second_outside": np.zeros(second.shape[:3], np.float32),
        "second_metrics": numbers, "second_masked_metrics": numbers, "second_tokens": tokens,
    }  # fmt: skip
    return AttentionResult(
        inputs=AttentionInputs("text", show=show),  # type: ignore[arg-type]
        provenance=None, tokens=tokens, **{"second_tokens": (), **extra},
        window=(start, start + size), answer=None, distractor=None,
        values=values.astype(np.float32),
        outside=np.full(values.shape[:3], 0.25 if start else 0.0, np.float32),
        metrics=numbers, masked_metrics=numbers,
    )  # fmt: skip


PATTERN = np.array([[[[1, 0, 0], [0.75, 0.25, 0], [0.5, 0.125, 0.375]]]])


def test_a_square_shows_nothing_of_the_future_and_nothing_of_a_masked_key() -> None:
    result = made(PATTERN)
    plain, masked = square(result, 0, 0), square(result, 0, 0, mask_first=True)
    assert np.isnan(plain[np.triu_indices(3, 1)]).all()
    np.testing.assert_array_equal(plain[np.tril_indices(3)], [1, 0.75, 0.25, 0.5, 0.125, 0.375])
    assert np.isnan(masked[:, 0]).all()
    assert masked[2, 1] == 0.125, "what is left is not renormalised"


def test_the_mask_is_about_position_0_not_about_the_windows_first_column() -> None:
    result = made(PATTERN, start=4)
    np.testing.assert_array_equal(square(result, 0, 0, mask_first=True), square(result, 0, 0))


def test_key_sums_add_up_the_columns() -> None:
    result = made(PATTERN)
    np.testing.assert_allclose(key_sums(square(result, 0, 0)), [2.25, 0.375, 0.375])
    masked = key_sums(square(result, 0, 0, mask_first=True))
    assert np.isnan(masked[0])
    np.testing.assert_allclose(masked[1:], [0.375, 0.375])


def test_along_is_a_row_or_a_column() -> None:
    pattern = square(made(PATTERN), 0, 0)
    np.testing.assert_array_equal(along(pattern, 1, "from"), [0.75, 0.25, np.nan])
    np.testing.assert_array_equal(along(pattern, 1, "to"), [np.nan, 0.25, 0.125])


def test_ranks_and_pairs_by_hand() -> None:
    pattern = square(made(PATTERN), 0, 0)
    assert ranks(pattern).tolist() == [[1, 0, 0], [1, 2, 0], [1, 3, 2]]
    pairs = [(pair.query, pair.key, pair.value, pair.rank) for pair in top_pairs(pattern, start=10, count=4)]
    assert pairs == [(10, 10, 1.0, 1), (11, 10, 0.75, 1), (12, 10, 0.5, 1), (12, 12, 0.375, 2)]


def test_of_signed_numbers_size_ranks() -> None:
    pattern = square(made(PATTERN * np.array([1, -1, 1]), show="contribution"), 0, 0)
    assert [pair.value for pair in top_pairs(pattern, count=5)] == [1.0, 0.75, 0.5, 0.375, -0.25]


def test_a_small_prompt_is_a_picture_of_its_very_cells() -> None:
    pictures = thumbnails(made(PATTERN))
    assert pictures.pooled == 1
    expected = [[254, NOTHING, NOTHING], [190, 64, NOTHING], [127, 32, 95]]
    np.testing.assert_allclose(pictures.pixels[0, 0], expected, atol=1)
    assert pictures.limits[0, 0] == 1


def test_a_masked_key_is_out_of_the_scale() -> None:
    pictures = thumbnails(made(PATTERN), mask_first=True)
    assert pictures.limits[0, 0] == 0.375
    assert (pictures.pixels[0, 0][:, 0] == NOTHING).all()
    assert pictures.pixels[0, 0][2, 2] == 254


def test_pixels_of_a_long_prompt_keep_the_strongest_cell() -> None:
    values = np.zeros((1, 1, 100, 100))
    values[0, 0, 77, 31] = 0.5
    pictures = thumbnails(made(values))
    assert pictures.pooled == 3
    assert pictures.pixels.shape == (1, 1, 34, 34)
    assert pictures.pixels[0, 0, 25, 10] == 254
    assert (pictures.pixels[0, 0] == 254).sum() == 1


def test_signed_pictures_have_their_zero_in_the_middle() -> None:
    pictures = thumbnails(made(PATTERN * -1, show="contribution"))
    assert pictures.signed
    assert pictures.pixels[0, 0, 0, 0] == 0
    assert thumbnails(made(PATTERN * 0, show="contribution")).pixels[0, 0, 0, 0] == 127


def test_a_common_scale_is_that_of_the_strongest_head() -> None:
    two = np.concatenate([PATTERN, PATTERN / 4], axis=1)
    alone, common = thumbnails(made(two)), thumbnails(made(two), common=True)
    assert alone.pixels[0, 1, 0, 0] == 254
    assert common.pixels[0, 1, 0, 0] == pytest.approx(254 / 4, abs=1)


def test_a_and_b_share_a_scale_and_the_difference_has_its_own() -> None:
    result = made(PATTERN, second=PATTERN / 2)
    assert thumbnails(result, "b").pixels[0, 0, 0, 0] == 127
    assert thumbnails(result, "difference").limits[0, 0] == 0.5
    with pytest.raises(InputError, match="no second prompt"):
        square(made(PATTERN), 0, 0, "b")


def test_heads_are_ordered_by_size_with_the_unknown_last() -> None:
    numbers = np.array([[0.1, -0.9], [np.nan, 0.5]])
    assert ordered_heads(numbers, by_number=True) == [(0, 1), (1, 1), (0, 0), (1, 0)]
    assert ordered_heads(numbers, top=2) == [(0, 1), (1, 1)]
    assert ordered_heads(numbers) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_the_table_of_a_head_has_every_cell_once_and_the_rest_of_windowed_rows() -> None:
    whole = cells_frame(made(PATTERN), [(0, 0)])
    assert len(whole) == 6
    assert sum(whole["value"].tolist()) == 3
    part = cells_frame(made(PATTERN, start=4), [(0, 0)])
    assert len(part) == 6 + 3
    assert part[part["key"].isna()]["value"].tolist() == [0.25] * 3
    assert min(part["query"].tolist()) == 4


def test_a_window_follows_the_selection_in_steps() -> None:
    assert window_around(256, 10, 256) is None
    assert window_around(1000, None, 256) is None
    assert window_around(1000, 5000, 256) is None
    start = window_around(1000, 500, 256)
    assert start == 352
    assert window_around(1000, 510, 256) == start
    assert window_around(1000, 3, 256) == 0
    assert window_around(1000, 999, 256) is None
