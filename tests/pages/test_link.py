"""Links: what goes out comes back, and what cannot be used is said in a sentence that shows it literally."""

import pytest

from pages.shared import link
from pages.shared.catalogue import PAGES, all_fields, fields_of
from pages.shared.link import BadValue, parse_span, read_link, show_span, write_link
from pages.shared.text import code, plain

VALUES = {
    "model": "/models/my model",
    "dtype": "bfloat16",
    "prompt": "Zeile eins\nline two & a=b?c#d 日本 \U0001f600",
    "second_prompt": "<script>alert(1)</script>",
    "subject": "2-4",
    "answer": " Paris",
    "selected_layer": 7,
    "selected_kind": "mlp",
    "noise_level": 2.5,
    "samples": 25,
    "kinds": ["state", "head"],
    "head_position": 4,
    "metric": "kl_recovery",
    "ran": True,
}


def test_every_value_survives_the_round_trip() -> None:
    fields = all_fields()
    state = {field.name: field.default for field in fields} | VALUES
    good, problems = read_link(write_link(state, fields), fields)
    assert problems == []
    assert good == VALUES


def test_defaults_are_not_written() -> None:
    fields = all_fields()
    assert write_link({field.name: field.default for field in fields}, fields) == {}


def test_defaults_are_readable_values() -> None:
    for field in all_fields():
        if field.default not in (None, "", False):
            assert field.parse(field.show(field.default)) == field.default, field.name


def test_names_and_keys_are_unique() -> None:
    fields = all_fields()
    assert len({field.name for field in fields}) == len(fields)
    assert len({field.key for field in fields}) == len(fields)
    assert {field.name for card in PAGES for field in fields_of(card)} == {field.name for field in fields}


@pytest.mark.parametrize(
    ("key", "raw", "said"),
    [
        ("n", "ten", "not a whole number"),
        ("n", "0", "not between 1 and 1000"),
        ("n", "1e3", "not a whole number"),
        ("level", "nan", "not between"),
        ("level", "-1", "not between"),
        ("dtype", "float8", "none of float32"),
        ("kinds", "state,banana", "there is only"),
        ("kinds", "", "there is only"),
        ("subject", "4-2", "ends before it begins"),
        ("subject", "two", "not a range"),
        ("run", "yes", "neither 0 nor 1"),
        ("prompt", "x" * (link.MAX_TEXT + 1), "longer than 20,000"),
        ("layer", "-1", "not between"),
        ("nonsense", "1", "means nothing here"),
    ],
)
def test_bad_values_are_said_and_the_rest_is_used(key: str, raw: str, said: str) -> None:
    good, problems = read_link({key: raw, "pos": "3"}, all_fields())
    assert good == {"selected_position": 3}
    assert len(problems) == 1
    assert said in problems[0]


def test_a_hostile_value_is_shown_as_code() -> None:
    _, problems = read_link({"n": "`</code><img src=x onerror=alert(1)>` **b**"}, all_fields())
    assert "`` `</code><img" in problems[0]


@pytest.mark.parametrize(
    ("raw", "span"), [("3", (3, 4)), ("2-4", (2, 5)), (" 2 \N{EN DASH} 4 ", (2, 5)), ("", None)]
)
def test_spans(raw: str, span: tuple[int, int] | None) -> None:
    assert parse_span(raw) == span
    assert parse_span(show_span(span)) == span


def test_a_span_is_not_a_number_with_a_sign() -> None:
    with pytest.raises(BadValue, match="range"):
        parse_span("-3")


@pytest.mark.parametrize("turning", ["\u202a", "\u202b", "\u202c", "\u202d", "\u202e", "\u2066", "\u2067"])
def test_plain_text_cannot_write_the_rest_of_a_line_backwards(turning: str) -> None:
    assert plain(f"evil{turning}label") == f"evil⟨U\\+{ord(turning):04X}⟩label"
    assert plain("\u2068closed\u2069") == "\u2068closed\u2069"


@pytest.mark.parametrize(
    "text", ["*_$", "<script>", "a\nb", ":red[x]", "[a](b)", "# h", "1. x", "$x$", "~~s~~"]
)
def test_plain_text_leaves_no_character_that_markdown_reads(text: str) -> None:
    escaped = plain(text)
    for place, character in enumerate(escaped):
        if character in r"*_$<>[]()#`~:.":
            assert escaped[place - 1] == "\\"
    assert "\n" not in escaped
    assert escaped.replace("\\", "") == " ".join(text.split())


@pytest.mark.parametrize(
    ("text", "shown"),
    [("Paris", "`Paris`"), ("a`b", "``a`b``"), ("`", "`` ` ``"), ("a\nb", "`a↵b`"), ("", "`   `")],
)
def test_code_spans_cannot_be_left(text: str, shown: str) -> None:
    assert code(text) == shown


def test_code_is_shortened() -> None:
    assert code("x" * 100, limit=10) == "`" + "x" * 9 + "…`"
