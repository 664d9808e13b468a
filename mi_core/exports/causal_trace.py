"""The figures of a causal trace: drawing, table, caption, checks and recipe together, ready to leave."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mi_core.analyses.causal_trace_inputs import METRICS, Kind
from mi_core.analyses.causal_trace_result import CausalTraceResult
from mi_core.charts import causal_trace as heatmaps
from mi_core.charts import causal_trace_cell as cells
from mi_core.charts import causal_trace_curves as curves
from mi_core.charts.causal_trace import Cell, Palette
from mi_core.charts.text import token_label
from mi_core.exports import captions, how_to_read
from mi_core.exports.figure import Figure
from mi_core.exports.recipe import causal_trace_recipe
from mi_core.exports.references import CAUSAL_TRACE

if TYPE_CHECKING:
    import pandas as pd


def heatmap_figure(
    result: CausalTraceResult,
    metric: str = "probability",
    *,
    kinds: Sequence[Kind] | None = None,
    chosen: Cell | None = None,
    palette: Palette = "cividis",
    show_values: bool = False,
) -> Figure:
    """The state, attention and MLP panels; arguments as in `charts.causal_trace.trace_heatmap`."""
    shown = heatmaps.position_kinds(result, kinds)
    spec = heatmaps.trace_heatmap(
        result, metric, kinds=shown, chosen=chosen, palette=palette, show_values=show_values
    )
    view = {
        "figure": "heatmap",
        "metric": metric,
        "kinds": list(shown),
        "chosen": chosen and list(chosen),
        "palette": palette,
    }
    return _figure(
        result, "Where the answer is carried", spec, view, how_to_read.CAUSAL_TRACE,
        caption=captions.trace_caption(result, metric, shown),
        description=heatmaps.describe_trace(result, metric, shown),
        frame=lambda: trace_table(result, metric, shown),
    )  # fmt: skip


def head_figure(
    result: CausalTraceResult, metric: str = "probability", *, chosen: Cell | None = None
) -> Figure:
    """Single heads by layer."""
    return _figure(
        result, "Heads that carry the answer", heatmaps.head_heatmap(result, metric, chosen=chosen),
        {"figure": "heads", "metric": metric, "chosen": chosen and list(chosen)}, how_to_read.CAUSAL_TRACE,
        caption=captions.trace_caption(result, metric, ("head",)),
        description=heatmaps.describe_heads(result, metric),
        frame=lambda: trace_table(result, metric, ("head",)),
    )  # fmt: skip


def curve_figure(
    result: CausalTraceResult,
    metric: str = "probability",
    *,
    kinds: Sequence[Kind] | None = None,
    position: int | None = None,
) -> Figure:
    """Lines over layers at one token; arguments as in `charts.causal_trace_curves.recovery_curve`."""
    shown = curves.kinds_at(result, kinds, position)
    at = curves.position_or_last(result, position)
    return _figure(
        result, f"Recovery at {token_label(at, result.tokens[at].visible, marked=result.is_subject(at))}",
        curves.recovery_curve(result, metric, kinds=shown, position=at),
        {"figure": "curve", "metric": metric, "kinds": list(shown), "position": at}, how_to_read.CURVE,
        caption=captions.curve_caption(result, metric, shown, at),
        description=curves.describe_curve(result, metric, at),
        frame=lambda: trace_table(result, metric, shown, at),
    )  # fmt: skip


def severed_figure(
    result: CausalTraceResult, metric: str = "probability", *, position: int | None = None
) -> Figure:
    """Bars with severed modules; arguments as in `charts.causal_trace_curves.severed_bars`."""
    at = curves.position_or_last(result, position)
    kinds: list[Kind] = [kind for kind in curves.SEVERED if kind in result.grids]
    return _figure(
        result, "Effect with attention or MLPs severed", curves.severed_bars(result, metric, position=at),
        {"figure": "severed", "metric": metric, "position": at}, how_to_read.SEVERED,
        caption=captions.severed_caption(result, metric, at),
        description=curves.describe_severed(result, metric, at),
        frame=lambda: trace_table(result, metric, kinds, at),
    )  # fmt: skip


def cell_figure(result: CausalTraceResult, kind: Kind, row: int, layer: int) -> Figure:
    """Most probable tokens clean, corrupted and patched."""
    name = cells.cell_name(result, kind, row, layer)
    return _figure(
        result, f"What the model says: {name}", cells.cell_tops(result, kind, row, layer),
        {"figure": "cell", "chosen": [kind, row, layer]}, how_to_read.CELL,
        caption=captions.cell_caption(result, name),
        description=cells.describe_cell(result, kind, row, layer),
        frame=lambda: tops_table(result, kind, row, layer),
    )  # fmt: skip


def samples_figure(
    result: CausalTraceResult, kind: Kind, row: int, layer: int, metric: str = "probability"
) -> Figure:
    """Noise samples at one cell."""
    name = cells.cell_name(result, kind, row, layer)
    return _figure(
        result, f"Spread over noise samples: {name}", cells.cell_samples(result, kind, row, layer, metric),
        {"figure": "samples", "metric": metric, "chosen": [kind, row, layer]}, how_to_read.SAMPLES,
        caption=captions.samples_caption(result, metric, name),
        description=cells.describe_samples(result, kind, row, layer, metric),
        frame=lambda: samples_table(result, kind, row, layer, metric),
    )  # fmt: skip


def trace_table(
    result: CausalTraceResult, metric: str, kinds: Sequence[Kind], position: int | None = None
) -> "pd.DataFrame":
    """The rows of the result's table that a figure shows, the two runs included.

    Args:
        result: a trace.
        metric: which number.
        kinds: which grids.
        position: only this token; None = all.
    """
    import pandas as pd

    frame = result.to_frame()
    runs = frame["kind"].isin(["clean run", "corrupted run"])
    cells_shown = frame["kind"].isin(kinds)
    if position is not None:
        cells_shown &= (frame["position"] == position).fillna(False)
    shown = frame[(frame["metric"] == metric) & (runs | cells_shown)]
    return pd.DataFrame(shown).reset_index(drop=True)


def tops_table(result: CausalTraceResult, kind: Kind, row: int, layer: int) -> "pd.DataFrame":
    """One row per run and token: run, rank, id, token, value, unit, role."""
    import pandas as pd

    records = cells.top_records(result, kind, row, layer)
    names = {
        "run": "run",
        "rank": "rank",
        "id": "id",
        "token": "token",
        "probability": "value",
        "role": "role",
    }
    table = pd.DataFrame([{new: record[old] for old, new in names.items()} for record in records])
    return table.assign(unit="probability")


def samples_table(result: CausalTraceResult, kind: Kind, row: int, layer: int, metric: str) -> "pd.DataFrame":
    """One row per run and noise sample: run, sample, value, metric, unit."""
    import pandas as pd

    samples, _ = cells.sample_records(result, kind, row, layer, metric)
    return pd.DataFrame(samples).assign(metric=metric, unit=METRICS[metric].unit)


def _figure(
    result: CausalTraceResult,
    title: str,
    spec: Mapping[str, Any],
    view: Mapping[str, Any],
    reading: str,
    *,
    caption: str,
    description: str,
    frame: "Callable[[], pd.DataFrame]",
) -> Figure:
    return Figure(
        title=title,
        spec=spec,
        frame=frame,
        result_json=result.to_json,
        caption=caption,
        provenance=result.provenance,
        checks=result.checks,
        how_to_read=reading,
        warnings=result.warnings,
        description=description,
        analysis="causal_trace",
        view=view,
        inputs=result.inputs.to_dict(),
        references=CAUSAL_TRACE,
        recipe=causal_trace_recipe(result),
    )
