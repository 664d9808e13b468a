"""Bars, lines, histograms, scatters and texts in heatmaps: every number drawn is one that was given."""

import math
import re
from html import unescape

import altair as alt
import numpy as np
import pytest

from mi_core.charts.bars import Bar, bars
from mi_core.charts.colours import ColourScale
from mi_core.charts.heatmap import TEXT_COLUMNS, Axis, Panel, describe, heatmap
from mi_core.charts.histogram import Series, histogram
from mi_core.charts.lines import Line, lines
from mi_core.charts.panels import Strip
from mi_core.charts.rules import beside_rules
from mi_core.charts.scatter import Point, scatter
from mi_core.charts.theme import NEGATIVE, POSITIVE, SIZES, THEMES, SizeName, ThemeName, styled
from mi_core.exports.converter import shared_converter
from mi_core.exports.vector import size_of

NAN = math.nan
NASTY = ("·the", "·the", "<b>", "$", "😀", "漢字", '"', "\\")
SHARE = ColourScale("P", "probability", (0.0, 1.0))

BARS = [
    Bar("embedding", 0.5, group="stream"),
    Bar("L0 attention", -2.0, -2.5, -1.5, group="attention"),
    Bar("L0 attention", 1.0, group="attention", note="same name"),
    Bar("·<b>", NAN, group="attention"),
]


def drawn(spec, size: SizeName = "screen", theme: ThemeName = "print") -> str:
    return shared_converter().svg(styled(spec, theme=theme, size=size))


def texts_of(svg: str) -> list[str]:
    return [unescape(text) for text in re.findall(r"<text\b[^>]*>([^<]*)</text>", svg)]


def styles_of(spec) -> list[str]:
    return [layer["mark"].get("style", "") for layer in spec["layer"]]


ALL = {
    "bars": lambda: bars(BARS, title="effect", unit="logit", chosen=1, marks=[(0.9, "sum"), (1.0, "logit")]),
    "no bars": lambda: bars([], title="effect", unit=""),
    "amounts": lambda: bars(
        [Bar(t, 0.1 * i) for i, t in enumerate(NASTY)], title="P", unit="", diverging=False
    ),
    "lines": lambda: lines(
        [Line(name, [0, 1, 2], [1, 10 * (i + 1), 3], [1, 5, 2], [2, 99, 4]) for i, name in enumerate(NASTY)],
        x_title="Layer", y_title="rank", logarithmic=True, reversed=True, chosen_x=1,
        marks=[(2.0, "<b>"), (2.1, "near"), (2.2, "nearer")],
    ),
    "no lines": lambda: lines([], x_title="Layer", y_title="rank", logarithmic=True),
    "labels": lambda: lines([Line("a", range(8), range(8))], x_title="Token", y_title="y", x_labels=NASTY),
    "histogram": lambda: histogram(
        [0, 1, 2], [Series("a", [3, 0])], x_title="norm", unit="", marks=[(1, "m")]
    ),
    "histograms": lambda: histogram(
        [0, 1, 2], [Series("a", [3, 0]), Series("<b>", [1, 900])], x_title="norm", unit="x",
        logarithmic_counts=True,
    ),
    "scatter": lambda: scatter(
        [Point(t, i, i**2, "ab"[i % 2]) for i, t in enumerate(NASTY)], x_title="a", y_title="b",
        diagonal=True, notes=["r = 0.9"], chosen=3,
    ),
    "no scatter": lambda: scatter([], x_title="a", y_title="b", diagonal=True),
}  # fmt: skip


@pytest.mark.parametrize("name", list(ALL))
def test_every_figure_is_valid_and_has_exactly_its_size(name: str) -> None:
    alt.Chart.from_dict(styled(ALL[name](), size="column"))
    for size in SIZES:
        spec = styled(ALL[name](), size=size)
        svg = shared_converter().svg(spec)
        assert size_of(svg) == pytest.approx((spec["width"], spec["height"]), rel=1e-9)
        assert "<b>" not in svg


# Bars.


def test_bars_are_the_numbers_keyed_by_index_with_groups_in_rows_of_their_own() -> None:
    spec = ALL["bars"]()
    records = spec["datasets"]["bars"]
    assert [(r["index"], r["slot"], r.get("value")) for r in records] == [
        (0, 1, 0.5), (1, 3, -2.0), (2, 4, 1.0), (3, 5, None),
    ]  # fmt: skip
    assert spec["layer"][1]["params"][0]["select"]["fields"] == ["index"]
    axis = spec["layer"][0]["encoding"]["y"]["axis"]
    assert axis["labelExpr"].startswith('["stream", "embedding", "attention", "L0 attention", "L0 attention"')
    assert "indexof([0, 2], datum.value)" in axis["labelFontWeight"]["condition"]["test"]


def test_bars_print_their_numbers_beyond_their_error_bars() -> None:
    records = ALL["bars"]()["datasets"]["bars"]
    assert [(r["shown"], r["end"], r["side"]) for r in records] == [
        ("0.5", 0.5, "right"), ("−2", -2.5, "left"), ("1", 1.0, "right"), ("none", 0.0, "right"),
    ]  # fmt: skip
    assert {"0.5", "−2", "1", "none"} <= set(texts_of(drawn(ALL["bars"]())))


def test_pointing_at_a_bar_tells_what_it_has_and_nothing_that_none_has() -> None:
    spec = ALL["bars"]()
    tooltip = spec["layer"][1]["encoding"]["tooltip"]
    assert [channel["field"] for channel in tooltip] == ["group", "name", "told", "range", "note"]
    told = [(r["told"], r["range"]) for r in spec["datasets"]["bars"]]
    assert told == [("0.5", ""), ("−2", "−2.5, −1.5"), ("1", ""), ("none", "")]
    plain = bars([Bar("a", 1 / 3)], title="t", unit="")
    assert [c["field"] for c in plain["layer"][1]["encoding"]["tooltip"]] == ["name", "told"]
    assert plain["datasets"]["bars"][0]["told"] == "0.333333"


def test_positive_bars_are_blue_and_negative_ones_orange_and_both_begin_at_zero() -> None:
    svg = drawn(bars([Bar("a", 1.0), Bar("b", -1.0)], title="t", unit=""))
    paths = re.findall(
        r'<path aria-label="[^"]*"[^>]* d="M([-\d.]+),[^"]*?h([-\d.]+)v[^"]*" fill="([^"]+)"', svg
    )
    marks = {fill: (float(x), float(width)) for x, width, fill in paths if fill in (POSITIVE, NEGATIVE)}
    assert marks[NEGATIVE][0] + marks[NEGATIVE][1] == pytest.approx(marks[POSITIVE][0])
    assert marks[NEGATIVE][1] == pytest.approx(marks[POSITIVE][1])
    amounts = drawn(bars([Bar("a", 1.0), Bar("b", 0.5)], title="t", unit="", diverging=False))
    assert NEGATIVE not in amounts


def test_the_chosen_bar_is_outlined_over_its_whole_row_even_if_it_is_zero() -> None:
    spec = bars([Bar("a", 0.0), Bar("b", 3.0)], title="t", unit="", chosen=0)
    (chosen,) = spec["datasets"]["chosen"]
    assert (chosen["left"], chosen["right"]) == tuple(spec["layer"][0]["encoding"]["x"]["scale"]["domain"])
    assert styles_of(spec)[-1] == "chosen"
    assert THEMES["print"].accent in drawn(spec)


def test_the_axis_of_bars_holds_zero_the_bars_their_errors_and_the_marks() -> None:
    spec = bars([Bar("a", 2.0, 1.0, 3.0)], title="t", unit="", marks=[(-1.0, "m")])
    low, high = spec["layer"][0]["encoding"]["x"]["scale"]["domain"]
    assert low < -1.0 < 0.0 < 3.0 < high
    low, _ = bars([Bar("a", 2.0)], title="t", unit="")["layer"][0]["encoding"]["x"]["scale"]["domain"]
    assert low == 0.0


def test_names_of_rules_never_cover_each_other() -> None:
    records = beside_rules([(0.50, "model"), (0.51, "parts"), (0.0, "zero"), (1.0, "end")], 0.0, 1.0)
    assert {r["label"]: r["level"] for r in records} == {
        "zero 0": 0, "model 0.5": 0, "parts 0.51": 1, "end 1": 0,
    }  # fmt: skip
    assert [r["align"] for r in records] == ["left", "center", "center", "right"]


# Lines.


def test_lines_are_the_numbers_and_two_of_one_name_stay_apart() -> None:
    spec = lines(
        [Line("·the", [0, 1], [1.5, 2.5]), Line("·the", [0, 1], [3.5, 4.5])], x_title="L", y_title="y"
    )
    assert [(r["line"], r["series"], r["x"], r["y"]) for r in spec["datasets"]["points"]] == [
        ("0", "·the", 0, 1.5), ("0", "·the", 1, 2.5), ("1", "·the", 0, 3.5), ("1", "·the", 1, 4.5),
    ]  # fmt: skip
    assert spec["layer"][-1]["params"][0]["select"]["fields"] == ["series", "x"]


def test_a_value_that_is_not_finite_is_a_gap() -> None:
    spec = lines([Line("a", range(5), [1.0, 2.0, NAN, 3.0, math.inf])], x_title="L", y_title="y")
    assert [(r["x"], r["part"]) for r in spec["datasets"]["points"]] == [(0, 0), (1, 0), (3, 1)]
    assert len(re.findall(r'aria-roledescription="line mark"', drawn(spec))) == 2


def test_an_axis_of_ranks_starts_at_one_on_top() -> None:
    spec = lines([Line("a", [0, 1], [1, 3000])], x_title="L", y_title="rank", logarithmic=True, reversed=True)
    y = spec["layer"][-1]["encoding"]["y"]
    assert y["scale"]["domain"][0] == 1
    assert (y["scale"]["type"], y["scale"]["reverse"]) == ("log", True)
    assert y["axis"]["values"] == [1, 10, 100, 1000]
    dots = re.findall(
        r'y: (\d+); [^"]*"[^>]*aria-roledescription="point"[^>]*translate\([\d.]+,([\d.]+)\)', drawn(spec)
    )
    places = {int(rank): float(top) for rank, top in dots}
    assert places[1] == 0 < places[3000]


def test_zero_has_no_place_on_a_logarithmic_axis() -> None:
    with pytest.raises(ValueError, match="count ranks from 1"):
        lines([Line("a", [0], [0])], x_title="L", y_title="rank", logarithmic=True)


def test_bands_reach_from_low_to_high_and_the_axis_holds_them() -> None:
    spec = lines([Line("a", [0, 1], [1, 2], [-5, NAN], [9, NAN])], x_title="L", y_title="y")
    (band,) = spec["datasets"]["bands"]
    assert (band["x"], band["low"], band["high"]) == (0, -5, 9)
    low, high = spec["layer"][-1]["encoding"]["y"]["scale"]["domain"]
    assert low < -5 < 9 < high
    with pytest.raises(ValueError, match="2 x, 2 y, 1 low, 2 high"):
        Line("a", [0, 1], [1, 2], [0], [1, 2])


def test_twelve_lines_look_different() -> None:
    series = [Line(str(i), [0, 1], [i, i]) for i in range(12)]
    spec = lines(series, x_title="L", y_title="y")
    trend, dots = (
        next(part for part in spec["layer"] if part["mark"].get("style") == s) for s in ("trend", "dot")
    )
    dash = [tuple(test["value"]) for test in trend["encoding"]["strokeDash"]["condition"]]
    shape = dots["encoding"]["shape"]["scale"]["range"]
    assert len({(i % 6, d, s) for i, (d, s) in enumerate(zip(dash, shape, strict=True))}) == 12
    assert len(set(dash[:6])) == len(set(shape[:6])) == 6


def test_long_names_stand_under_each_other_on_a_phone() -> None:
    long, short = ("random rotations: mean and range", "random features: mean and range"), ("a", "b")
    for names, columns in ((long, 1), (short, 2)):
        spec = lines([Line(name, (0, 1), (0.0, 1.0)) for name in names], x_title="x", y_title="y")
        assert f"width < 400 ? {columns} :" in str(spec)


def test_the_legend_names_every_line_even_in_a_paper_column() -> None:
    names = [f"·token number {i}" for i in range(9)]
    spec = lines([Line(name, [0, 1], [i, i]) for i, name in enumerate(names)], x_title="L", y_title="y")
    for size in SIZES:
        svg = drawn(spec, size)
        assert set(names) <= set(texts_of(svg)), size
        width, height = size_of(svg)
        assert width > 0 < height


def test_names_of_close_marks_stand_in_different_spots() -> None:
    spec = lines(
        [Line("a", [0, 1], [0, 1])], x_title="L", y_title="y", marks=[(0.9, "a"), (0.91, "b"), (0.1, "c")]
    )
    assert {r["label"]: r["spot"] for r in spec["datasets"]["rules"]} == {"b 0.91": 0, "a 0.9": 1, "c 0.1": 0}


def test_many_points_have_no_dots_but_can_still_be_pointed_at() -> None:
    spec = lines([Line("a", range(200), range(200))], x_title="L", y_title="y")
    assert spec["layer"][-1]["mark"]["opacity"] == 0
    assert len(spec["datasets"]["points"]) == 200


# Histograms.


def test_a_histogram_is_its_counts_and_pointing_tells_those_of_all_series() -> None:
    spec = histogram([0, 1, 3], [Series("a", [4, 0]), Series("b", [2, 5])], x_title="norm", unit="")
    assert [(r["x"], r["x1"], r["count0"], r["count1"]) for r in spec["datasets"]["bins"]] == [
        (0, 1, 4, 2), (1, 3, 0, 5),
    ]  # fmt: skip
    outline = [(r["x"], r["count"]) for r in spec["datasets"]["steps"] if r["series"] == "1"]
    assert outline == [(0, 0), (0, 2), (1, 2), (1, 5), (3, 5), (3, 0)]
    hover = next(layer for layer in spec["layer"] if layer["mark"].get("fillOpacity") == 0)
    assert [c["title"] for c in hover["encoding"]["tooltip"]] == ["norm from", "to", "a", "b"]


def test_zero_stays_zero_with_logarithmic_counts() -> None:
    spec = histogram([0, 1, 2], [Series("a", [0, 999])], x_title="x", unit="", logarithmic_counts=True)
    y = spec["layer"][0]["encoding"]["y"]
    assert (y["scale"]["type"], y["scale"]["domain"][0], y["axis"]["values"]) == (
        "symlog",
        0,
        [0, 1, 10, 100],
    )
    heights = re.findall(
        r'count0: (\d+)[^"]*"[^>]*aria-roledescription="rect mark"[^>]* d="[^"]*?v([-\d.]+)h', drawn(spec)
    )
    assert {int(count): float(height) for count, height in heights}[0] == 0


def test_bins_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="must rise"):
        histogram([0, 1, 1], [Series("a", [1, 2])], x_title="x", unit="")
    with pytest.raises(ValueError, match="'a' has 3 counts for 2 bins"):
        histogram([0, 1, 2], [Series("a", [1, 2, 3])], x_title="x", unit="")


# Scatters.


def test_points_are_the_numbers_and_those_without_one_keep_their_index() -> None:
    points = [Point("a", 0, 1), Point("a", NAN, 2), Point("b", 3, math.inf), Point("a", 0, 1)]
    spec = scatter(points, x_title="x", y_title="y", chosen=3)
    assert [(r["index"], r["x"], r["y"]) for r in spec["datasets"]["points"]] == [(0, 0, 1), (3, 0, 1)]
    assert [r["index"] for r in spec["datasets"]["chosen"]] == [3]
    assert spec["layer"][1]["params"][0]["select"]["fields"] == ["index"]


def test_a_diagonal_gives_both_axes_the_same_ends() -> None:
    spec = scatter(
        [Point("a", 0, 10), Point("b", -5, 2)], x_title="x", y_title="y", unit="logit", diagonal=True
    )
    x, y = (spec["layer"][1]["encoding"][axis] for axis in "xy")
    assert x["scale"]["domain"] == y["scale"]["domain"]
    assert [(r["x"], r["y"]) for r in spec["datasets"]["diagonal"]] == [
        (end, end) for end in x["scale"]["domain"]
    ]
    assert x["axis"]["title"] == "x [logit]"


# Texts in heatmaps, and texts under them.


def grid(rows: int, columns: int, **more) -> dict:
    values = np.linspace(0, 1, rows * columns).reshape(rows, columns)
    values[0, 0] = np.nan
    texts = tuple(tuple(NASTY[(r + c) % 8] for c in range(columns)) for r in range(rows))
    panel = Panel("lens", "logit lens", values, texts=texts, notes=texts, **more)
    names = tuple(f"{c} {NASTY[c % 8]}" for c in range(columns))
    return heatmap(
        [panel], Axis("layer", "Layer", tuple(map(str, range(rows)))), Axis("position", "Token", names), SHARE
    )


def test_texts_stand_in_the_cells_and_in_the_tooltip() -> None:
    spec = grid(3, 4)
    cells = spec["datasets"]["cells"]
    assert [(c["layer"], c["position"], c["text"]) for c in cells][:3] == [
        (0, 1, "·the"), (0, 2, "<b>"), (0, 3, "$"),
    ]  # fmt: skip
    assert {c["ink"] for c in cells} == {"#000000", "#ffffff"}
    tooltip = spec["layer"][0]["layer"][0]["encoding"]["tooltip"]
    assert [channel["field"] for channel in tooltip] == ["what", "name", "column", "text", "value", "note"]
    written = texts_of(drawn(spec))
    assert [text for text in written if text in NASTY] == [c["text"] for c in cells]


def test_texts_are_cut_to_their_cells() -> None:
    values = np.full((2, 20), 0.5)
    texts = (("·internationalisation",) * 20,) * 2
    axes = Axis("row", "Row", ("0", "1")), Axis("column", "Column", tuple(map(str, range(20))))
    written = texts_of(drawn(heatmap([Panel("a", "A", values, texts=texts)], *axes, SHARE)))
    assert sum(text.endswith("…") and text.startswith("·int") for text in written) == 40


def test_cells_too_small_for_texts_have_them_in_the_tooltip_only() -> None:
    wide = grid(2, TEXT_COLUMNS + 1)
    assert len(wide["layer"]) == len(grid(2, TEXT_COLUMNS)["layer"]) - 1
    assert "text" in [c["field"] for c in wide["layer"][0]["layer"][0]["encoding"]["tooltip"]]


def test_without_texts_nothing_changes() -> None:
    axis = Axis("layer", "Layer", ("0", "1"))
    spec = heatmap([Panel("a", "A", np.eye(2))], axis, axis, SHARE)
    assert set(spec["datasets"]["cells"][0]) == {"kind", "what", "layer", "name", "yc", "xc", "value"}
    assert len(spec["layer"]) == 2


def test_a_cell_without_a_number_says_what_the_panel_says() -> None:
    assert [r["status"] for r in grid(2, 2, missing="not earlier")["datasets"]["missing"]] == ["not earlier"]


def test_texts_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="needs a text for each"):
        Panel("a", "A", np.eye(2), texts=(("x", "y"),))


def test_texts_under_an_axis_are_all_there_aslant_and_numbers_are_thinned_as_before() -> None:
    axis = Strip(1, 24).axis([f"{i} ·Token" for i in range(24)], "Token")
    assert (axis["labelAngle"], len(axis["values"])) == (-40, 24)
    assert "labelAngle" not in Strip(1, 4).axis([f"{i} ·Token" for i in range(4)], "Token")
    assert Strip(1, 24).axis([str(i) for i in range(24)], "Layer")["values"] == [0, 5, 10, 15, 20]
    assert len(Strip(1, 2000).axis([f"{i} ·Token" for i in range(2000)], "Token")["values"]) <= 60
    names = {f"{c} {NASTY[c % 8]}" for c in range(20)}
    assert names <= set(texts_of(drawn(grid(3, 20))))


def test_whole_columns_keep_short_names_that_would_be_thinned_like_numbers() -> None:
    heads = [f"L{layer}H{head}" for layer in range(7) for head in range(4)]
    assert len(Strip(1, 28).axis(heads, "Head")["values"]) == 3
    assert len(Strip(1, 28).axis(heads, "Head", whole=True)["values"]) == 28
    axis = Axis("head", "Head", tuple(heads), whole=True)
    spec = heatmap([Panel("a", "", np.zeros((28, 28)))], axis, axis, SHARE)
    assert set(heads) <= set(texts_of(drawn(spec)))


def test_a_panel_without_a_title_is_not_named_in_words() -> None:
    axis = Axis("layer", "Layer", ("L0", "L1"))
    panel = Panel("a", "", np.eye(2))
    assert describe([panel], axis, axis, SHARE).endswith(" to 1. Highest 1 at L0, layer L0.")
    tooltip = heatmap([panel], axis, axis, SHARE)["layer"][0]["layer"][0]["encoding"]["tooltip"]
    assert "what" not in [channel["field"] for channel in tooltip]


def test_a_narrow_layout_replaces_what_it_names_in_one_column_only() -> None:
    spec = {"height": 100, "layer": ["wide"], "narrow": {"layer": ["narrow"]}}
    for size in SIZES:
        shown = styled(spec, size=size)
        assert shown["layer"] == (["narrow"] if size == "column" else ["wide"])
        assert "narrow" not in shown
    assert spec["narrow"] == {"layer": ["narrow"]}
