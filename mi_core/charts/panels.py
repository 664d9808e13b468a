"""Several panels in one view, side by side along one axis.

Vega-Lite can place separate charts next to each other, but then nothing fits the total size, selections are
split, and every panel has its own scale. Here all panels share one plot: panel `i` begins at `i * period`
on a numeric axis, and labels are looked up by position. Repeated labels cannot merge, one scale is the only
scale, and the total size is exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mi_core.charts.text import isolated, literal, pick_expression
from mi_core.charts.token_layout import cut, letters

Spec = dict[str, Any]

LABEL = 14  # letters of a text under an axis
KEPT_LABEL = 20  # of the one that is never left out
TICKS = 60  # texts along an axis at most
FLAT = 110  # letters that fit beside each other under an axis; more stand aslant


@dataclass(frozen=True, slots=True)
class Strip:
    """Panels along the horizontal axis.

    Attributes:
        count: number of panels.
        columns: positions per panel, counted from 0; column `c` is centred on `c`.
    """

    count: int
    columns: int

    @property
    def period(self) -> int:
        """Distance between the same column of two panels: a panel and its gap, a whole number."""
        return self.columns + (max(1, round(0.08 * self.columns)) if self.count > 1 else 0)

    def at(self, panel: int, column: float) -> float:
        """Place of a column of a panel on the shared axis."""
        return panel * self.period + column

    @property
    def domain(self) -> tuple[float, float]:
        """Ends of the shared axis."""
        return -0.5, self.at(self.count - 1, self.columns - 0.5)

    def frames(self, rows: int) -> list[dict[str, float]]:
        """Corners of every panel, for frames, titles and separators."""
        return [
            {"x": self.at(i, -0.5), "x1": self.at(i, self.columns - 0.5), "y": -0.5, "y1": rows - 0.5}
            for i in range(self.count)
        ]

    def scale(self) -> Spec:
        """The shared horizontal scale."""
        return {"domain": list(self.domain), "nice": False, "zero": False}

    def axis(self, labels: Sequence[str], title: str | None, *, whole: bool = False) -> Spec:
        """Axis below, starting again in every panel: numbers are thinned, texts stand aslant.

        Args:
            labels: of every column.
            title: what they are.
            whole: treat even short labels as texts, so that none is left out where there is room.
        """
        index = f"round(datum.value) % {self.period}"
        total = self.count * self.columns
        if whole or worded(labels):
            step, look = tick_step(total), text_axis(labels, total, index)
        else:
            step = thinning(self.columns, max((len(label) for label in labels), default=1))
            look = {"labelExpr": pick_expression(labels, index)}
        shown = [
            self.at(panel, column) for panel in range(self.count) for column in range(0, self.columns, step)
        ]
        return {
            "values": shown,
            "title": title,
            "grid": False,
            "domain": False,
            "labelOverlap": False,
            "labelFlush": False,
            **look,
        }

    def slant(self, labels: Sequence[str], *, whole: bool = False) -> int:
        """Screen height that the labels below need more than numbers do, because they stand aslant."""
        return slant_height(labels, self.count * self.columns) if whole or worded(labels) else 0

    def title_axis(self, titles: Sequence[str]) -> Spec:
        """Axis above: one title over the middle of each panel."""
        middles = [self.at(panel, (self.columns - 1) / 2) for panel in range(self.count)]
        return {
            "orient": "top",
            "values": middles,
            "labelExpr": f"{literal(list(titles))}[floor(datum.value / {self.period})]",
            "title": None,
            "grid": False,
            "domain": False,
            "ticks": False,
            "labelOverlap": False,
            "labelLimit": {"expr": f"width / {self.count} - 2"},
        }


def worded(labels: Sequence[str]) -> bool:
    """Whether labels are texts, which are all wanted, and not numbers, of which a few will do."""
    return any(len(label) > 4 for label in labels)


def text_axis(
    labels: Sequence[str], total: int, index: str = "datum.value", *, kept: int | None = None
) -> Spec:
    """Labels of a horizontal axis of texts: side by side if they fit, else aslant, as many as fit.

    Args:
        labels: text of every position.
        total: positions along the whole axis.
        index: expression of the position of a label.
        kept: a position whose label is never left out; ticks stand at whole steps of `tick_step` from it.
    """
    sizes = [KEPT_LABEL if place == kept else LABEL for place in range(len(labels))]
    texts = [isolated(cut(label, size)) for label, size in zip(labels, sizes, strict=True)]
    shown = pick_expression(texts, index)
    stride, first = tick_step(total), 0 if kept is None else kept
    if not slant_height(labels, total):
        if kept is None:
            return {"labelExpr": shown, "labelOverlap": "greedy"}  # a narrow screen has room for fewer
        longest = max(letters(text) for text in texts) + 1
        step = f"ceil({total * longest} * (width < 240 ? 4.2 : 7) / width)"  # type is smaller on paper
        return {"labelExpr": f"(({index}) - {first}) % {step} ? '' : {shown}", "labelOverlap": False}
    # A line of type aslant takes one and a half of its height along the axis; type is smaller on paper.
    step = f"ceil({min(total, TICKS)} * (width < 500 ? 11 : 18) / width)"
    return {
        "labelExpr": f"floor((({index}) - {first}) / {stride}) % {step} ? '' : {shown}",
        "labelAngle": -40,
        "labelAlign": "right",
    }


def tick_step(total: int) -> int:
    """Every how many positions of an axis of texts may have a label."""
    return -(-total // TICKS)


def slant_height(labels: Sequence[str], total: int) -> int:
    """Screen height of texts aslant under an axis; 0 where they fit side by side."""
    longest = min(LABEL, max((letters(label) for label in labels), default=0))
    return 0 if total * (longest + 1) <= FLAT else round(longest * 4.2)


def thinning(count: int, label_length: int = 2) -> int:
    """Every how many positions a label is drawn: all of a short axis, else at most six, on round numbers."""
    limit = 10 if label_length == 1 else max(2, 12 // max(2, label_length))
    if count <= limit:
        return 1
    for scale in (1, 10, 100, 1000):
        for step in (1, 2, 5):
            if -(-count // (step * scale)) <= limit:
                return step * scale
    return count
