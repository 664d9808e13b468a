"""Causal traces as heatmaps: state, attention and MLP panels on one scale, tokens down, layers across.

The colour scale starts at the corrupted run, as in ROME's figures; metrics that have a true zero
(differences and recovered shares) are blue above it and orange below, white at zero. A cell's number comes
from the result alone.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np

from mi_core.analyses.causal_trace_inputs import KIND_LABELS, METRICS, Kind
from mi_core.analyses.causal_trace_result import AnswerTokens, CausalTraceResult
from mi_core.charts.colours import ColourScale, symmetric_bound
from mi_core.charts.heatmap import Axis, Panel, describe, heatmap
from mi_core.charts.text import MINUS, token_label
from mi_core.charts.theme import ROME_HUES

Spec = dict[str, Any]
Cell = tuple[str, int, int]
Palette = Literal["cividis", "rome"]

DIVERGING_METRICS = ("logit_difference", "recovered_probability", "recovered_logit_difference", "kl_recovery")
WINDOWED: tuple[Kind, ...] = ("attn", "mlp")


COLOUR_STEPS = 256
"""Shades that a screen can show of a scale."""


def trace_heatmap(
    result: CausalTraceResult,
    metric: str = "probability",
    *,
    kinds: Sequence[Kind] | None = None,
    chosen: Cell | None = None,
    palette: Palette = "cividis",
    show_values: bool = False,
) -> Spec:
    """Panels of the kinds that were traced per token position.

    Args:
        result: a trace, finished or not.
        metric: one of `result.metrics`.
        kinds: which panels; None = all that have token rows.
        chosen: (kind, position, layer) of the cell to outline.
        palette: "rome" gives states, attention and MLP the purples, reds and greens of the paper.
        show_values: print the numbers into the cells.

    Returns:
        Specification without looks; clicks select `cell` with fields kind, row (the position) and layer.
    """
    panels = trace_panels(result, metric, kinds, palette)
    rows, columns = position_axis(result, panels[0].key), layer_axis(result.n_layers)
    return heatmap(
        panels, rows, columns, trace_scale(result, metric, panels), chosen=chosen, show_values=show_values
    )


def head_heatmap(
    result: CausalTraceResult, metric: str = "probability", *, chosen: Cell | None = None
) -> Spec:
    """Heads down, layers across, for the kind "head"."""
    panels = head_panels(result, metric)
    return heatmap(
        panels,
        head_axis(result),
        layer_axis(result.n_layers),
        _head_scale(result, metric, panels),
        chosen=chosen,
    )


def describe_trace(
    result: CausalTraceResult, metric: str = "probability", kinds: Sequence[Kind] | None = None
) -> str:
    """The text alternative of `trace_heatmap`, or of `head_heatmap` when none of the kinds has token rows."""
    if not position_kinds(result, kinds):
        return describe_heads(result, metric)
    panels = trace_panels(result, metric, kinds)
    rows = position_axis(result, panels[0].key)
    return describe(panels, rows, layer_axis(result.n_layers), trace_scale(result, metric, panels))


def describe_heads(result: CausalTraceResult, metric: str = "probability") -> str:
    """The text alternative of `head_heatmap`."""
    panels = head_panels(result, metric)
    return describe(
        panels, head_axis(result), layer_axis(result.n_layers), _head_scale(result, metric, panels)
    )


def position_kinds(result: CausalTraceResult, kinds: Sequence[Kind] | None = None) -> tuple[Kind, ...]:
    """The kinds of a trace whose rows are token positions, in the order asked for."""
    wanted = tuple(result.grids) if kinds is None else tuple(kinds)
    return tuple(kind for kind in wanted if result.grids[kind].row_axis == "position")


def trace_panels(
    result: CausalTraceResult, metric: str, kinds: Sequence[Kind] | None = None, palette: Palette = "cividis"
) -> list[Panel]:
    """One panel per kind.

    Raises:
        ValueError: none of the kinds has token rows.
    """
    shown = position_kinds(result, kinds)
    if not shown:
        raise ValueError("no kind with token rows to draw; heads have a figure of their own")
    hues = ROME_HUES if palette == "rome" and metric not in DIVERGING_METRICS else {}
    return [
        Panel(kind, kind_title(result, kind), result.grid(kind, metric), _hues_of(kind, hues) if hues else ())
        for kind in shown
    ]


def _hues_of(kind: Kind, hues: Any) -> tuple[str, ...]:
    return hues.get(kind, hues["state"])


def head_panels(result: CausalTraceResult, metric: str) -> list[Panel]:
    """The one panel of the kind "head"."""
    return [Panel("head", head_title(result), result.grid("head", metric))]


def kind_title(result: CausalTraceResult, kind: Kind) -> str:
    """Name of a kind for a panel or a legend, with the window where one was used."""
    return kind_name(kind, result.inputs.window)


def kind_name(kind: Kind, window: int) -> str:
    """Name of a kind; "w" is the number of layers patched together, which only modules can be."""
    return KIND_LABELS[kind] + (f", w = {window}" if window > 1 and kind in WINDOWED else "")


def head_title(result: CausalTraceResult) -> str:
    """Where single heads were patched."""
    position = result.inputs.head_position
    if position is None:
        return "heads, all positions"
    return f"heads at {token_label(position, result.tokens[position].visible)}"


def position_axis(result: CausalTraceResult, kind: Any = "state") -> Axis:
    """Tokens from top to bottom, `*` on the subject; positions that were not traced have no row."""
    rows = result.grids[kind].rows
    labels = tuple(token_label(p, result.tokens[p].visible, marked=result.is_subject(p)) for p in rows)
    marked = tuple(index for index, p in enumerate(rows) if result.is_subject(p))
    return Axis("row", "Token", labels, ids=rows, marked=marked)


def head_axis(result: CausalTraceResult) -> Axis:
    """Heads from top to bottom, counted from 0."""
    rows = result.grids["head"].rows
    return Axis("row", "Head", tuple(f"H{head}" for head in rows), ids=rows)


def layer_axis(n_layers: int) -> Axis:
    """Layers from left to right, counted from 0."""
    return Axis("layer", "Layer", tuple(str(layer) for layer in range(n_layers)))


class Answered(Protocol):
    """What knows the tokens that a metric is about."""

    @property
    def answer(self) -> AnswerTokens:
        """Whose probability is read."""
        ...

    @property
    def distractor(self) -> AnswerTokens | None:
        """What it is compared with, or None."""
        ...


def quantity(result: Answered, metric: str) -> str:
    """A metric named with the tokens that it is about."""
    answer = answer_text(result.answer)
    if metric == "logit_difference" and result.distractor is not None:
        return f"logit {answer} {MINUS} logit {answer_text(result.distractor)}"
    named = {
        "probability": f"P({answer})",
        "log_probability": f"log P({answer})",
        "logit": f"logit of {answer}",
        "rank": f"rank of {answer}",
        "recovered_probability": f"recovered P({answer})",
    }
    return named.get(metric, METRICS[metric].label)


def answer_text(tokens: AnswerTokens) -> str:
    """Visible text of an answer, all its tokens."""
    return "".join(tokens.visible)


def _head_scale(result: CausalTraceResult, metric: str, panels: Sequence[Panel]) -> ColourScale:
    return trace_scale(result, metric, panels, to_clean=False)


def trace_scale(
    result: CausalTraceResult, metric: str, panels: Sequence[Panel], *, to_clean: bool = True
) -> ColourScale:
    """The colour scale of a metric: from the corrupted run on, or symmetric about a true zero.

    Args:
        result: the trace.
        metric: one of `result.metrics`.
        panels: what will be drawn on it.
        to_clean: reach to the clean run even if no cell does; off for heads, whose effects are small.
    """
    corrupted, clean = (result.value(run, metric) for run in (result.corrupted, result.clean))
    marks = ((corrupted, "corrupted"), (clean, "clean"))
    numbers = np.concatenate([panel.values.ravel() for panel in panels])
    numbers = numbers[np.isfinite(numbers)]
    return ColourScale(
        quantity(result, metric),
        METRICS[metric].unit,
        _domain(metric, corrupted, clean if to_clean or not len(numbers) else corrupted, numbers),
        diverging=metric in DIVERGING_METRICS,
        marks=tuple((value, name) for value, name in marks if math.isfinite(value) and metric != "top1_flip"),
        logarithmic=metric == "rank",
    )


def _domain(metric: str, corrupted: float, clean: float, numbers: np.ndarray) -> tuple[float, float]:
    known = [value for value in (corrupted, clean, *numbers.tolist()) if math.isfinite(value)]
    if metric in DIVERGING_METRICS:
        bound = symmetric_bound(max((abs(value) for value in known), default=0.0))
        return -bound, bound
    if metric == "top1_flip":
        return 0.0, 1.0
    ends = (corrupted, min(known)) if metric in ("kl", "rank") else (corrupted, max(known))
    if ends[0] == ends[1]:  # corruption does not lower the answer: there is no run to start from
        ends = (min(known), max(known))
    if ends[0] == ends[1]:
        ends = (ends[0], ends[0] + max(abs(ends[0]), 1e-6))
    return ends


def clipped_cells(panels: Sequence[Panel], colours: ColourScale) -> tuple[int, int]:
    """Cells drawn in the colour of an end of the scale though they lie beyond it; and cells with a number.

    A cell less than a colour step beyond an end looks as it should, and is not counted.
    """
    low, high = sorted(colours.domain)
    numbers = np.concatenate([panel.values.ravel() for panel in panels])
    numbers = numbers[np.isfinite(numbers)]
    slack = (high - low) / COLOUR_STEPS
    return int(((numbers < low - slack) | (numbers > high + slack)).sum()), len(numbers)
