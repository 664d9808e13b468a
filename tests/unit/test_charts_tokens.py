"""Tokens in boxes: one per position, where the text puts it, in ink that can be read."""

import re
from html import unescape
from itertools import pairwise

import altair as alt
import numpy as np
import pytest

from mi_core.charts.colours import ColourScale
from mi_core.charts.ink import CIVIDIS, fill_of, ink_on, luminance
from mi_core.charts.theme import DIVERGING, SIZES, THEMES, SizeName, ThemeName, styled
from mi_core.charts.token_layout import cut, flow, in_view, letters
from mi_core.charts.token_text import NUMBERED_UP_TO, TokenRow, token_rows, token_text
from mi_core.exports.converter import shared_converter
from mi_core.exports.vector import size_of, with_fonts

AMOUNT = ColourScale("activation", "", (0.0, 1.0))
SIGNED = ColourScale("contribution", "logit", (-2.0, 2.0), diverging=True)
RANK = ColourScale("rank", "", (0.0, 5000.0), logarithmic=True)
HUES = ColourScale("activation", "", (0.0, 3.0), hues=("#ffffff", "#ff0000", "#000000"))
NASTY = ("·the", "·the", "<b>", "$", "😀", "漢字", '"', "\\")


def places(spec) -> list[tuple[int, int, int]]:
    """(line, start, end) of every token, in the order of the text."""
    records = sorted(spec["datasets"]["tokens"] + spec["datasets"]["missing"], key=lambda r: r["position"])
    return [(record["line"], record["x"], record["x1"]) for record in records]


def svg_of(spec, size: SizeName = "screen", theme: ThemeName = "print") -> str:
    return with_fonts(shared_converter().svg(styled(spec, theme=theme, size=size)))


def rects(svg: str, style_fill: str = "") -> list[str]:
    return [
        r for r in re.findall(r'<path[^>]*aria-roledescription="rect mark"[^>]*>', svg) if style_fill in r
    ]


# Layout, worked by hand: widths are 4, 4, 1, 2, 4 letters.
TEXT = ("·the", "·cat", "↵", "漢", "·sat")


def test_lines_flow_break_at_the_columns_and_after_a_line_break() -> None:
    boxes = flow(TEXT, 8)
    assert [(b.line, b.start, b.end) for b in boxes] == [
        (0, 0, 4),
        (0, 4, 8),
        (1, 0, 1),
        (2, 0, 2),
        (2, 2, 6),
    ]
    boxes = flow(TEXT, 100)
    assert [(b.line, b.start, b.end) for b in boxes] == [
        (0, 0, 4),
        (0, 4, 8),
        (0, 8, 9),
        (1, 0, 2),
        (1, 2, 6),
    ]


def test_two_letters_for_wide_characters_and_none_for_marks() -> None:
    widths = {"a": 1, "漢字": 4, "😀": 2, "e\u0301": 1, "ก\u0e34": 1, "ﾊ": 1, "Ａ": 2, "⟨E2 96⟩": 7}
    assert {text: letters(text) for text in widths} == widths


def test_a_token_longer_than_a_line_is_cut_and_no_other() -> None:
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abcdefg", 6) == "abcde…"
    assert cut("漢字漢字", 6) == "漢字…"
    (box,) = flow(["·" * 30], 10)
    assert (box.text, box.end) == ("·" * 9 + "…", 10)


def test_the_centre_stays_in_view_and_gets_context_on_both_sides() -> None:
    texts = ["aa"] * 9
    assert in_view(texts, 4, 10) == range(2, 7)
    assert in_view(texts, 0, 10) == range(0, 5)
    assert in_view(texts, 8, 10) == range(4, 9)
    assert in_view(["a", "long" * 9, "b"], 1, 10) == range(1, 2)


def test_equal_tokens_have_boxes_of_their_own_that_never_overlap() -> None:
    where = places(token_text(NASTY, np.linspace(0, 1, 8).tolist(), AMOUNT))
    assert len(where) == len(set(where)) == 8
    assert all(a[0] < b[0] or a[2] <= b[1] for a, b in pairwise(sorted(where)))


def test_eight_nasty_tokens_draw_eight_boxes_with_their_texts() -> None:
    spec = token_text(NASTY, np.linspace(0, 1, 8).tolist(), AMOUNT, notes=["<script>"] * 8)
    svg = svg_of(spec)
    assert len(rects(svg)) == 8
    texts = [unescape(text) for text in re.findall(r"<text\b[^>]*>([^<]*)</text>", svg)]
    assert [text for text in texts if text in NASTY] == list(NASTY)
    assert "<script>" not in svg


def test_clicks_give_positions_and_the_chosen_one_is_outlined_by_its_own_layer() -> None:
    spec = token_text(NASTY, [0.5] * 8, AMOUNT, chosen=103, start=100)
    (param,) = spec["layer"][0]["params"]
    assert (param["name"], param["select"]["fields"]) == ("cell", ["position"])
    assert [record["position"] for record in spec["datasets"]["tokens"]] == list(range(100, 108))
    (outlined,) = spec["datasets"]["chosen"]
    assert (outlined["position"], outlined["token"]) == (103, "$")
    assert [layer["mark"]["style"] for layer in spec["layer"][-2:]] == ["halo", "chosen"]
    accent = THEMES["print"].accent
    assert accent in svg_of(spec)
    assert accent not in svg_of(token_text(NASTY, [0.5] * 8, AMOUNT, chosen=3, start=100))


def test_a_token_without_a_number_is_grey_and_says_so() -> None:
    spec = token_text(["a", "b", "c"], [0.5, float("nan"), float("inf")], AMOUNT)
    assert [(r["token"], r["status"]) for r in spec["datasets"]["missing"]] == [
        ("b", "no value"), ("c", "not finite"),
    ]  # fmt: skip
    assert len(rects(svg_of(spec), THEMES["print"].missing)) == 2


def test_zero_is_white_and_signs_have_their_colours() -> None:
    svg = svg_of(token_text(["a", "b", "c"], [0.0, 2.0, -2.0], SIGNED))
    fills = [re.search(r'fill="([^"]+)"', rect) for rect in rects(svg)]
    assert [fill and fill[1] for fill in fills] == ["rgb(255, 255, 255)", "rgb(5, 48, 97)", "rgb(127, 59, 8)"]


def _drawn_fills(colours: ColourScale, values: list[float]) -> list[tuple[int, ...]]:
    svg = svg_of(token_text(["a"] * len(values), values, colours))
    fills = [re.search(r'fill="([^"]+)"', rect) for rect in rects(svg)]
    named = [fill[1] for fill in fills if fill]
    return [
        tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) if (c := name).startswith("#")
        else tuple(int(part) for part in re.findall(r"\d+", name))
        for name in named
    ]  # fmt: skip


@pytest.mark.parametrize("colours", [AMOUNT, SIGNED, RANK, HUES], ids=["cividis", "signed", "rank", "hues"])
def test_the_fill_that_ink_is_chosen_for_is_the_fill_that_vega_draws(colours: ColourScale) -> None:
    values = np.linspace(*colours.domain, 61).tolist()
    drawn = np.array(_drawn_fills(colours, values))
    assert np.abs(drawn - np.array([fill_of(colours, value) for value in values])).max() <= 1


@pytest.mark.parametrize("colours", [AMOUNT, SIGNED, RANK, HUES], ids=["cividis", "signed", "rank", "hues"])
def test_ink_stands_out_from_every_fill(colours: ColourScale) -> None:
    low, high = colours.domain
    values = np.linspace(low - 0.1 * (high - low), high, 2001).tolist()
    for value, ink in zip(values, ink_on(colours, values), strict=True):
        pair = sorted((luminance(fill_of(colours, value)), 1.0 if ink == "#ffffff" else 0.0))
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, value


def test_ink_is_black_on_white_and_white_on_the_dark_ends() -> None:
    assert ink_on(SIGNED, [0.0, 2.0, -2.0, float("nan")]) == ["#000000", "#ffffff", "#ffffff", ""]
    assert ink_on(AMOUNT, [0.0, 1.0]) == ["#ffffff", "#000000"]
    assert (len(CIVIDIS), DIVERGING[5]) == (64, "#ffffff")


def test_short_texts_carry_their_positions_and_long_ones_have_them_in_the_tooltip() -> None:
    short, long = (token_text(["a"] * n, [0.0] * n, AMOUNT) for n in (NUMBERED_UP_TO, NUMBERED_UP_TO + 1))
    styles = [[layer["mark"].get("style") for layer in spec["layer"]] for spec in (short, long)]
    assert "position" in styles[0]
    assert "position" not in styles[1]
    assert [c["field"] for c in long["layer"][0]["encoding"]["tooltip"]] == ["position", "token", "value"]
    # A position of two digits never runs into the next one's.
    assert places(short)[9:11] == [(0, 9, 10), (0, 10, 12)]


@pytest.mark.parametrize("size", list(SIZES))
def test_sizes_are_exact_and_a_paper_column_has_shorter_lines(size) -> None:
    tokens = ["·word"] * 90
    spec = token_text(tokens, [0.3] * 90, AMOUNT)
    drawn = styled(spec, size=size)
    assert size_of(svg_of(spec, size)) == pytest.approx((drawn["width"], drawn["height"]), rel=1e-9)
    assert max(r["x1"] for r in drawn["datasets"]["tokens"]) == (45 if size == "column" else 100)
    assert "narrow" not in drawn


@pytest.mark.parametrize("size", ["column", "text", "page"])
def test_tokens_on_paper_are_at_least_six_points_high(size) -> None:
    svg = svg_of(token_text(["·word"] * 90, [0.3] * 90, AMOUNT), size)
    sizes = [float(found) for found in re.findall(r'font-size="([\d.]+)px"[^>]*>·word<', svg)]
    assert len(sizes) == 90
    assert 6 <= min(sizes) == max(sizes) <= 8.5


def test_empty_and_long_texts_are_drawn() -> None:
    alt.Chart.from_dict(styled(token_text([], [], AMOUNT)))
    many = token_text(["·the"] * 2000, [0.1] * 2000, SIGNED)
    assert len(many["datasets"]["tokens"]) == 2000
    alt.Chart.from_dict(styled(token_rows([], AMOUNT)))


def test_a_wrong_number_of_values_or_notes_is_refused() -> None:
    with pytest.raises(ValueError, match="2 tokens, 1 values and 0 notes"):
        token_text(["a", "b"], [0.1], AMOUNT)
    with pytest.raises(ValueError, match="2 tokens, 2 values and 1 notes"):
        token_text(["a", "b"], [0.1, 0.2], AMOUNT, notes=["x"])
    with pytest.raises(ValueError, match="centre 2 of 2 tokens"):
        TokenRow("r", ["a", "b"], [0.1, 0.2], centre=2)


def test_rows_have_label_largest_value_and_a_frame_around_it() -> None:
    rows = [
        TokenRow("verse", ["a", "·b", "·b"], [0.1, -0.9, 0.3], start=7),
        TokenRow("verse", ["a"], [float("nan")]),
        TokenRow("empty", [], []),
    ]
    spec = token_rows(rows, SIGNED, chosen=(0, 9))
    data = spec["datasets"]
    assert [(head["label"], head["value"]) for head in data["heads"]] == [
        ("verse", "−0.9"), ("verse", ""), ("empty", ""),
    ]  # fmt: skip
    assert [(r["row"], r["position"]) for r in data["strongest"]] == [(0, 8)]
    assert [(r["row"], r["position"]) for r in data["chosen"]] == [(0, 9)]
    assert len({(r["line"], r["x"]) for r in data["tokens"] + data["missing"]}) == 4
    assert spec["layer"][0]["params"][0]["select"]["fields"] == ["row", "position"]


def test_a_row_that_is_too_long_keeps_its_centre_and_shows_that_it_was_cut() -> None:
    spec = token_rows([TokenRow("r", ["·word"] * 60, [0.1] * 60, centre=40)], AMOUNT)
    shown = [r["position"] for r in spec["datasets"]["tokens"]]
    assert 40 in shown
    assert shown == list(range(shown[0], shown[-1] + 1))
    assert max(r["x1"] for r in spec["datasets"]["tokens"]) < 100
    assert [r["rest"] for r in spec["datasets"]["rests"]] == ["…", "…"]
    assert 40 in [r["position"] for r in spec["narrow"]["datasets"]["tokens"]]


def test_type_does_not_shrink_for_columns_that_a_short_text_does_not_use() -> None:
    def type_size(spec) -> float:
        found = re.search(r'font-size="([\d.]+)px"[^>]*>·the<', svg_of(spec, "column"))
        assert found is not None
        return float(found[1])

    assert 7.5 < type_size(token_text(["·the"] * 3, [0.1] * 3, AMOUNT)) < 8.6
    rows = [TokenRow("a", ["·the"] * 3, [0.1] * 3)]
    assert 7.5 < type_size(token_rows(rows, AMOUNT)) < 8.6
