"""Untrusted text in labels: seen, in order, and never code."""

import json

import pytest

from mi_core.charts.text import legible, literal, number, pick_expression, token_label

HOSTILE = (
    "</script><script>alert(1)</script>",
    "a\"b'c\\d`e${f}",
    "line\nbreak\tand\rreturn",
    "\u202eevil",
    "\u2028separator",
    "datum.value",
    "{{7*7}}",
    "\x00",
    "",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_invisible_is_left_in_a_label(text: str) -> None:
    label = token_label(3, text)
    assert label.startswith("3 ")
    assert label.isprintable()


@pytest.mark.parametrize("text", HOSTILE)
def test_a_literal_says_the_same_text_in_ascii_and_cannot_end_a_script(text: str) -> None:
    written = literal(text)
    assert json.loads(written) == text
    assert written.isascii()
    assert "<" not in written


def test_plain_spaces_stay_in_names_and_repeated_cleaning_changes_nothing() -> None:
    assert legible("The Eiffel Tower") == "The Eiffel Tower"
    once = legible("two  spaces\nand a \u202e turn")
    assert legible(once) == once


def test_right_to_left_tokens_do_not_move_their_number_or_the_star() -> None:
    assert token_label(6, "שלום", marked=True) == "6 \u2068שלום\u2069*"
    assert token_label(6, "plain", marked=True) == "6 plain*"


def test_labels_are_picked_by_position_so_repeated_ones_stay_apart() -> None:
    assert pick_expression(["the", "the"]) == '["the", "the"][datum.value] || \'\''


def test_numbers_have_three_digits_and_a_true_minus() -> None:
    assert [number(x) for x in (0.62, 0.08339, -1.5, 0.0, 1e-7, 123456.0, float("nan"))] == [
        "0.62", "0.0834", "−1.5", "0", "1.00e-07", "1.23e+05", "none",
    ]  # fmt: skip
