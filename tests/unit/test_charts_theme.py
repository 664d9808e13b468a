"""Themes and sizes: one drawing, many looks, nothing global."""

import copy
import subprocess
import sys

import pytest

from mi_core.charts.causal_trace import trace_heatmap
from mi_core.charts.theme import DIVERGING, SIZES, THEMES, SizeName, styled
from tests.examples import example_result

PAPER: tuple[SizeName, ...] = ("column", "text", "page")
ALL_LOOKS = [(theme, size) for theme in THEMES for size in SIZES]


@pytest.mark.parametrize(("theme", "size"), ALL_LOOKS)
def test_a_look_changes_the_surroundings_and_never_the_drawing(theme, size) -> None:
    spec = trace_heatmap(example_result())
    before = copy.deepcopy(spec)
    result = styled(spec, theme=theme, size=size, title="T")
    assert spec == before
    assert {name: result[name] for name in ("layer", "datasets", "resolve")} == {
        name: spec[name] for name in ("layer", "datasets", "resolve")
    }
    assert set(result) - set(spec) <= {
        "$schema", "width", "autosize", "padding", "background", "config", "title",
    }  # fmt: skip


def test_paper_widths_are_what_journals_ask_for_and_type_is_seven_to_nine_points() -> None:
    assert [SIZES[name].width / 72 for name in PAPER] == [3.25, 5.5, 6.75]
    assert (SIZES["slide"].width, SIZES["slide"].height) == (960, 540)  # 16:9
    for name in PAPER:
        config = styled({"height": 100}, theme="print", size=name)["config"]
        assert 7 <= config["axis"]["labelFontSize"] <= 9
        assert 7 <= config["legend"]["labelFontSize"] <= 9


def test_only_slides_carry_the_title() -> None:
    with_title = {size for size in SIZES if "title" in styled({"height": 100}, size=size, title="T")}
    assert with_title == {"slide"}


def test_paper_height_follows_the_type_size() -> None:
    assert styled({"height": 240}, size="screen")["height"] == 240
    assert styled({"height": 240}, size="column")["height"] == 140  # 7 of 12 points


def test_padding_names_its_sides_because_streamlits_page_writes_into_it() -> None:
    assert set(styled({"height": 100})["padding"]) == {"left", "right", "top", "bottom"}


def test_files_are_never_see_through() -> None:
    for theme in THEMES:
        assert styled({"height": 100}, theme=theme, opaque=True)["background"] != "transparent"
    assert styled({"height": 100}, theme="dark")["background"] == "transparent"


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(("name", "page"), [("light", "#ffffff"), ("dark", "#0e1117"), ("print", "#ffffff")])
def test_text_and_lines_stand_out_from_the_page(name, page: str) -> None:
    theme = THEMES[name]
    assert _contrast(theme.ink, page) >= 7
    assert _contrast(theme.muted, page) >= 4.5
    assert all(_contrast(colour, page) >= 3 for colour in theme.categories)


def test_zero_is_white_and_both_arms_of_the_diverging_scale_darken_steadily() -> None:
    middle = len(DIVERGING) // 2
    assert DIVERGING[middle] == "#ffffff"
    blue = [_luminance(colour) for colour in DIVERGING[middle:]]
    orange = [_luminance(colour) for colour in DIVERGING[middle::-1]]
    assert blue == sorted(blue, reverse=True)
    assert orange == sorted(orange, reverse=True)


def test_drawing_and_exporting_never_touch_altair() -> None:
    program = (
        "import sys; from tests.examples import example_result;"
        "from mi_core.exports.causal_trace import heatmap_figure, curve_figure;"
        "from mi_core.exports.export import export; from mi_core.charts.theme import styled;"
        "f = heatmap_figure(example_result()); styled(f.spec); export(f, 'csv'); export(f, 'json');"
        "curve_figure(example_result());"
        "assert not {'altair', 'streamlit', 'torch'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=600)
