"""How figures look: fonts, sizes, colours and themes as plain Vega-Lite configuration.

A chart says *what* is drawn and gives its marks style names (`"style": "tile"`); what a style, an axis or a
colour range looks like is said here and merged in by `styled`. So a figure is the same on screen and on
paper, and only sizes and surroundings differ. Nothing here is registered with Altair: its themes are global
to the process and shared by every browser tab.

Data colours do not depend on the theme. Positive is blue, negative orange, zero white; amounts use cividis,
which is told apart with every kind of colour vision and grows steadily lighter in grey. Lines also differ
in dash and point shape.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Spec = dict[str, Any]
ThemeName = Literal["light", "dark", "print"]
SizeName = Literal["screen", "column", "text", "page", "slide"]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.4.json"
POINTS_PER_INCH = 72  # paper sizes count one pixel of the specification as one point
NARROW_BELOW = 300  # width under which a chart's entry "narrow" replaces what it names: one column of a paper

# The converter brings Liberation Sans, which has Arial's measures; Streamlit loads Source Sans.
PAPER_FONT = "Arial, Liberation Sans, Helvetica, sans-serif"
SCREEN_FONT = f"Source Sans, {PAPER_FONT}"
MONO_FONT = "DejaVu Sans Mono, Liberation Mono, Menlo, Consolas, monospace"  # for tokens in running text

DIVERGING = (
    "#7f3b08", "#b35806", "#e08214", "#fdb863", "#fee0b6", "#ffffff",
    "#d1e5f0", "#92c5de", "#4393c3", "#2166ac", "#053061",
)  # fmt: skip
POSITIVE, NEGATIVE = DIVERGING[8], DIVERGING[2]  # of bars, where length says how much
SEQUENTIAL = "cividis"
# ROME's hues per kind of restoration, from white; an option for those who compare with the paper's figures.
ROME_HUES: Mapping[str, tuple[str, ...]] = {
    "state": ("#fcfbfd", "#dadaeb", "#9e9ac8", "#6a51a3", "#3f007d"),
    "attn": ("#fff5f0", "#fcbba1", "#fb6a4a", "#cb181d", "#67000d"),
    "mlp": ("#f7fcf5", "#c7e9c0", "#74c476", "#238b45", "#00441b"),
}
DASHES: tuple[tuple[int, int], ...] = ((1, 0), (6, 2), (2, 2), (8, 2), (4, 4), (1, 3))
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of everything that is not data.

    Attributes:
        name: "light", "dark" or "print".
        background: behind the figure; None = see-through.
        ink: text and axes.
        muted: labels of lesser weight, reference lines.
        faint: grid lines, cell borders.
        missing: fill of cells that were not run.
        hatch: the stroke across them.
        accent: outline of the chosen cell.
        categories: colours of up to six kinds or roles, in a fixed order.
    """

    name: ThemeName
    background: str | None
    ink: str
    muted: str
    faint: str
    missing: str
    hatch: str
    accent: str
    categories: tuple[str, ...]


_ON_WHITE = ("#6a51a3", "#d55e00", "#009e73", "#c0498a", "#0072b2", "#6b6b6b")
_ON_BLACK = ("#b3a6ea", "#ff9040", "#35cf9c", "#ee9cca", "#5bb8ec", "#bdbdbd")

THEMES: Mapping[ThemeName, Theme] = {
    "light": Theme(
        "light", None, "#1f2430", "#5c6370", "#e3e6ea", "#e6e6e6", "#9a9a9a", "#d6006c", _ON_WHITE
    ),
    "dark": Theme("dark", None, "#eceff4", "#a7aebb", "#3a404c", "#3b3f47", "#7d838f", "#ff5fa8", _ON_BLACK),
    "print": Theme(
        "print", "#ffffff", "#000000", "#444444", "#d9d9d9", "#e6e6e6", "#8c8c8c", "#d6006c", _ON_WHITE
    ),
}
DARK_PAGE = "#0e1117"  # behind a dark figure that leaves the browser


@dataclass(frozen=True, slots=True)
class Size:
    """A place where figures go.

    Attributes:
        name: short name.
        label: for a menu.
        width: total width in pixels on screen, in points (1/72 inch) on paper.
        height: total height, or None: the chart's own height, scaled with the type size.
        text: type size of labels.
        line: thickness of ordinary lines.
        label_limit: longest row label before it is cut with an ellipsis.
        titled: whether the figure carries its title; a paper's caption does that job itself.
        font: families, the first that exists is used.
    """

    name: SizeName
    label: str
    width: int
    height: int | None
    text: float
    line: float
    label_limit: int
    titled: bool = False
    font: str = PAPER_FONT


SIZES: Mapping[SizeName, Size] = {
    "screen": Size("screen", "Screen", 860, None, 12.0, 2.0, 150, font=SCREEN_FONT),
    "column": Size("column", "Paper, one column (3.25 in)", 234, None, 7.0, 1.0, 58),
    "text": Size("text", "Paper, text width (5.5 in)", 396, None, 8.0, 1.2, 90),
    "page": Size("page", "Paper, full width (6.75 in)", 486, None, 8.0, 1.2, 100),
    "slide": Size("slide", "Slide, 16:9 (13.3 x 7.5 in)", 960, 540, 16.0, 3.0, 200, titled=True),
}


def configuration(theme: Theme, size: Size) -> Spec:
    """Vega-Lite `config` for one theme at one size."""
    return {
        "font": size.font,
        "view": {"stroke": None},
        "axis": _axis(theme, size),
        "axisY": {"labelLimit": size.label_limit},
        "axisTop": {"labelFontWeight": 600, "labelPadding": size.text * 0.4},
        "legend": _legend(theme, size),
        "title": {
            "color": theme.ink, "fontSize": size.text * 1.2, "fontWeight": 600, "anchor": "start",
            "frame": "group", "offset": size.text * 0.8,
        },
        "text": {"color": theme.ink, "fontSize": size.text},
        "range": {
            "heatmap": {"scheme": SEQUENTIAL},
            "ramp": {"scheme": SEQUENTIAL},
            "category": list(theme.categories),
            "symbol": list(SHAPES),
        },
        "style": _styles(theme, size),
    }  # fmt: skip


def _axis(theme: Theme, size: Size) -> Spec:
    return {
        "labelColor": theme.ink, "titleColor": theme.ink,
        "tickColor": theme.muted, "domainColor": theme.muted,
        "gridColor": theme.faint, "gridWidth": size.line * 0.4, "tickWidth": size.line * 0.4,
        "domainWidth": size.line * 0.4, "tickSize": size.text * 0.3, "labelPadding": size.text * 0.25,
        "titlePadding": size.text * 0.5, "labelFontSize": size.text, "titleFontSize": size.text,
        "titleFontWeight": "normal",
    }  # fmt: skip


def _legend(theme: Theme, size: Size) -> Spec:
    return {
        "orient": "bottom", "direction": "horizontal", "labelColor": theme.ink, "titleColor": theme.ink,
        "labelFontSize": size.text, "titleFontSize": size.text, "titleFontWeight": "normal", "titleLimit": 0,
        "labelLimit": 0, "titlePadding": size.text * 0.35, "offset": size.text * 0.6, "padding": 0,
        "gradientThickness": size.text * 0.8, "gradientLength": {"expr": "min(width * 0.9, 420)"},
        "gradientStrokeColor": theme.muted, "gradientStrokeWidth": size.line * 0.25,
        "symbolStrokeWidth": 0, "symbolSize": size.text**2 * 0.6, "columnPadding": size.text,
    }  # fmt: skip


def _styles(theme: Theme, size: Size) -> Spec:
    """What the style names of our charts look like."""
    token = {"color": theme.ink, "fontSize": size.text, "limit": size.label_limit}
    thin, page = size.line * 0.4, theme.background or (DARK_PAGE if theme.name == "dark" else "#ffffff")
    return {
        "tile": {"stroke": theme.faint, "strokeWidth": thin * 0.6},
        "tile-dense": {"strokeWidth": 0},
        "missing": {"color": theme.missing, "stroke": theme.faint, "strokeWidth": thin * 0.6},
        "hatch": {"color": theme.hatch, "strokeWidth": thin},
        "frame": {"fillOpacity": 0, "stroke": theme.muted, "strokeWidth": thin},
        "halo": {"fillOpacity": 0, "stroke": "#ffffff", "strokeWidth": size.line * 2.2},
        "chosen": {"fillOpacity": 0, "stroke": theme.accent, "strokeWidth": size.line * 1.2},
        "bar": {"strokeWidth": 0},
        "whisker": {"color": theme.ink, "strokeWidth": size.line * 0.7},
        "trend": {"strokeWidth": size.line},
        "band": {"opacity": 0.18},
        "dot": {"filled": True, "size": size.text**2 * 0.28, "opacity": 1},
        "best": {"filled": False, "size": size.text**2 * 1.3, "strokeWidth": size.line * 0.9, "opacity": 1},
        "sample": {"filled": True, "size": size.text**2 * 0.3, "opacity": 0.6},
        "sample-small": {"filled": True, "size": size.text**2 * 0.12, "opacity": 0.45},
        "ring": {
            "filled": False, "size": size.text**2 * 1.1, "strokeWidth": size.line * 1.2, "opacity": 1,
            "color": theme.accent,
        },
        "bin": {"color": POSITIVE, "stroke": page, "strokeWidth": thin * 0.6},
        "mean": {"thickness": size.line * 1.1, "color": theme.ink, "size": size.text * 1.4},
        "reference": {"color": theme.muted, "strokeWidth": size.line * 0.6, "strokeDash": [4, 3]},
        "axis-line": {"color": theme.ink, "strokeWidth": thin},
        "separator": {"color": theme.faint, "strokeWidth": thin},
        "note": {"color": theme.muted, "fontSize": size.text},
        "value": {"fontSize": size.text * 0.9},
        "text-halo": {
            "fontSize": size.text * 0.9, "stroke": page, "strokeWidth": size.line * 2, "strokeJoin": "round"
        },
        "note-halo": {
            "fontSize": size.text, "stroke": page, "strokeWidth": size.line * 2, "strokeJoin": "round"
        },
        "token": token,
        "token-text": {"color": theme.ink, "font": MONO_FONT},
        "token-label": {"color": theme.ink},
        "token-value": {"color": theme.muted},
        "token-rest": {"color": theme.muted, "font": MONO_FONT},
        "position": {"color": theme.muted},
        "strongest": {"fillOpacity": 0, "stroke": theme.ink, "strokeWidth": size.line * 0.8},
        "chosen-line": {"color": theme.accent, "strokeWidth": size.line * 0.8},
        "edge": {"color": theme.muted, "opacity": 0.42},
        "edge-faint": {"color": theme.muted, "opacity": 0.1},
        "pin": {"filled": False, "color": theme.ink, "strokeWidth": size.line * 0.8, "opacity": 1},
    }  # fmt: skip


def styled(
    spec: Mapping[str, Any],
    *,
    theme: ThemeName = "light",
    size: SizeName = "screen",
    title: str = "",
    opaque: bool = False,
) -> Spec:
    """A chart's specification with its looks merged in, ready for a browser or the converter.

    Args:
        spec: from a chart builder; not changed. Its entry "narrow", if it has one, replaces what it names in
            one column of a paper.
        theme: "light" and "dark" are see-through for the page behind them; "print" is white.
        size: where it goes; paper sizes are in points.
        title: printed above the figure where the size wants it (slides).
        opaque: give a see-through theme its page colour, for a file that will be opened elsewhere.

    Returns:
        A new specification whose total width and height, axes and legends included, are `width` and `height`.
    """
    look, place = THEMES[theme], SIZES[size]
    spec = _laid_out_for(spec, place)
    if opaque and look.background is None:
        look = replace(look, background=DARK_PAGE if theme == "dark" else "#ffffff")
    return {  # only top-level entries are replaced, so the data need not be copied
        **spec,
        "$schema": SCHEMA,
        "width": place.width,
        "height": place.height or scaled_height(spec["height"], place),
        "autosize": {"type": "fit", "contains": "padding"},
        # All four sides by name: Streamlit's page writes into this object.
        "padding": dict.fromkeys(("left", "right", "top", "bottom"), round(place.text * 0.35, 2)),
        "background": look.background or "transparent",
        "config": configuration(look, place),
        **({"title": title} if title and place.titled else {}),
    }


def _laid_out_for(spec: Mapping[str, Any], size: Size) -> Spec:
    """The chart in the layout that it has for this width: text, for example, breaks into shorter lines."""
    wide = {name: part for name, part in spec.items() if name != "narrow"}
    return wide | spec.get("narrow", {}) if size.width < NARROW_BELOW else wide


def scaled_height(screen_height: float, size: Size) -> int:
    """Height on paper of a chart that is `screen_height` pixels high on screen: it follows the type size."""
    return round(screen_height * size.text / SIZES["screen"].text)
