"""The logit lens as a grid: layers down, tokens across, the top token in the cell, a statistic as colour.

Bright always means "settled": near the target, certain, or near the final output. For rank, entropy and KL
that is the low end of the scale.
"""

from typing import Any

import numpy as np

from mi_core.analyses.logit_lens_inputs import STATISTIC_INFO, Statistic
from mi_core.analyses.logit_lens_result import PLAIN, LogitLensResult
from mi_core.charts.bars import Bar, bars
from mi_core.charts.colours import ColourScale
from mi_core.charts.heatmap import Axis, Panel, describe, heatmap
from mi_core.charts.text import number, token_label

Spec = dict[str, Any]

SHOWN_ON_HOVER = 5
LOW_IS_BRIGHT: tuple[Statistic, ...] = ("rank", "entropy", "kl")
SHARES: tuple[Statistic, ...] = ("probability", "top_probability")


def lens_heatmap(
    result: LogitLensResult, statistic: Statistic = "probability", *, chosen: tuple[int, int] | None = None
) -> Spec:
    """The grid of a lens.

    Args:
        result: the numbers.
        statistic: what the colours say.
        chosen: (layer, position) of the cell to outline.

    Returns:
        Specification without looks; clicks select `cell` with fields kind, layer and position.
    """
    cell = None if chosen is None else ("lens", *chosen)
    return heatmap(
        [_panel(result, statistic)],
        _layer_axis(result),
        _token_axis(result),
        lens_scale(result, statistic),
        chosen=cell,
    )


def describe_lens(result: LogitLensResult, statistic: Statistic = "probability") -> str:
    """The text alternative of `lens_heatmap`."""
    told = describe(
        [_panel(result, statistic)], _layer_axis(result), _token_axis(result), lens_scale(result, statistic)
    )
    last = result.positions[-1]
    path = " ".join(result.visible(token) for token in result.top_ids[:, -1, 0].tolist())
    token = token_label(last, result.tokens[last].visible)
    return f"{told} Top tokens at {token} from the first to the last layer: {path}."


def lens_scale(result: LogitLensResult, statistic: Statistic) -> ColourScale:
    """The colour scale of a statistic; probabilities always reach from 0 to 1."""
    info = STATISTIC_INFO[statistic]
    return ColourScale(
        quantity(result, statistic),
        "" if info.unit == "rank" else info.unit,
        _domain(result, statistic),
        logarithmic=statistic == "rank",
    )


def quantity(result: LogitLensResult, statistic: Statistic) -> str:
    """A statistic named with the token that it is about."""
    target = result.answer.visible if result.inputs.target == "answer" else "next token"
    named = {
        "probability": f"P({target})",
        "log_probability": f"log P({target})",
        "rank": f"rank of {target}",
    }
    return named.get(statistic, STATISTIC_INFO[statistic].label)


def _domain(result: LogitLensResult, statistic: Statistic) -> tuple[float, float]:
    if statistic in SHARES:
        return 0.0, 1.0
    values = result.statistic(statistic)
    low, high = float(values.min()), float(values.max())
    if statistic == "log_probability":
        return (min(low, -1e-3), 0.0)
    best = 1.0 if statistic == "rank" else 0.0
    return (max(high, best + (1.0 if statistic == "rank" else 1e-3)), best)


def _panel(result: LogitLensResult, statistic: Statistic) -> Panel:
    texts = tuple(tuple(result.visible(token) for token in row) for row in result.top_ids[..., 0].tolist())
    title = "" if result.lens == PLAIN else f"tuned lens {result.lens}"
    return Panel("lens", title, result.statistic(statistic), texts=texts, notes=_notes(result))


def _notes(result: LogitLensResult) -> tuple[tuple[str, ...], ...]:
    """The most probable tokens of every cell in one line."""
    ids, shares = result.top_ids[..., :SHOWN_ON_HOVER], result.top_probabilities[..., :SHOWN_ON_HOVER]
    return tuple(
        tuple(
            ", ".join(f"{result.visible(token)} {number(share)}" for token, share in zip(*cell, strict=True))
            for cell in zip(*row, strict=True)
        )
        for row in zip(ids.tolist(), shares.tolist(), strict=True)
    )


def _layer_axis(result: LogitLensResult) -> Axis:
    return Axis("layer", "Layer", tuple(f"L{layer}" for layer in result.layers), ids=result.layers)


def _token_axis(result: LogitLensResult) -> Axis:
    labels = tuple(token_label(position, result.tokens[position].visible) for position in result.positions)
    return Axis("position", "Token", labels, ids=result.positions)


def cell_bars(result: LogitLensResult, layer: int, position: int) -> Spec:
    """The most probable tokens of one cell.

    Args:
        result: the numbers.
        layer: one of `result.layers`.
        position: one of `result.positions`.

    Returns:
        Specification without looks; the token that is followed is outlined.
    """
    row, column = result.row_of(layer), result.column_of(position)
    ids = result.top_ids[row, column].tolist()
    target = int(result.target_ids[column])
    items = [
        Bar(result.visible(token), share, note=_in_output(result, token, column))
        for token, share in zip(ids, result.top_probabilities[row, column].tolist(), strict=True)
    ]
    chosen = ids.index(target) if target in ids else None
    return bars(items, title="probability", unit="", chosen=chosen, diverging=False)


def _in_output(result: LogitLensResult, token: int, column: int) -> str:
    """What the model itself thinks of a token."""
    among = np.flatnonzero(result.output_top_ids[column] == token)
    if not len(among):
        return f"not among the model's own top {result.output_top_ids.shape[1]}"
    return f"{number(float(result.output_top_probabilities[column, among[0]]))} in the model's output"


def describe_cell(result: LogitLensResult, layer: int, position: int) -> str:
    """The text alternative of `cell_bars`."""
    row, column = result.row_of(layer), result.column_of(position)
    tops = zip(result.top_ids[row, column].tolist(), result.top_probabilities[row, column], strict=True)
    told = ", ".join(f"{result.visible(token)} {number(float(share))}" for token, share in tops)
    return f"Bars of the most probable tokens: {told}."
