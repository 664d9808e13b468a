"""The figures of an average of causal traces, ready to leave."""

import json
from collections.abc import Sequence
from typing import Any

from mi_core.analyses.causal_trace_average_types import CausalTraceAverageResult
from mi_core.analyses.causal_trace_inputs import Kind
from mi_core.charts import causal_trace_average as charts
from mi_core.exports import how_to_read
from mi_core.exports.captions_average import average_caption
from mi_core.exports.figure import Figure
from mi_core.exports.recipe import causal_trace_average_recipe
from mi_core.exports.references import CAUSAL_TRACE

MAX_INPUT_CHARACTERS = 300_000


def role_heatmap_figure(
    result: CausalTraceAverageResult,
    *,
    kinds: Sequence[Kind] | None = None,
    share: bool = False,
    chosen: tuple[str, int, int] | None = None,
) -> Figure:
    """Roles by layer; arguments as in `charts.causal_trace_average.role_heatmap`."""
    spec = charts.role_heatmap(result, kinds=kinds, share=share, chosen=chosen)
    view = {
        "figure": "role_heatmap",
        "kinds": _listed(kinds),
        "share": share,
        "chosen": chosen and list(chosen),
    }
    return _figure(result, "Average effect by token role", spec, view, share=share, lines=False)


def role_lines_figure(
    result: CausalTraceAverageResult, *, kinds: Sequence[Kind] | None = None, share: bool = False
) -> Figure:
    """Lines with bands; arguments as in `charts.causal_trace_average.role_lines`."""
    spec = charts.role_lines(result, kinds=kinds, share=share)
    view = {"figure": "role_lines", "kinds": _listed(kinds), "share": share}
    return _figure(result, "Average effect over layers", spec, view, share=share, lines=True)


def _listed(kinds: Sequence[Kind] | None) -> list[str] | None:
    return None if kinds is None else list(kinds)


def _figure(
    result: CausalTraceAverageResult,
    title: str,
    spec: dict[str, Any],
    view: dict[str, Any],
    *,
    share: bool,
    lines: bool,
) -> Figure:
    kinds: Any = view["kinds"]
    return Figure(
        title=title,
        spec=spec,
        frame=result.to_frame,
        result_json=result.to_json,
        caption=average_caption(result, share=share, lines=lines),
        provenance=result.provenance,
        checks=result.checks,
        how_to_read=how_to_read.AVERAGE,
        warnings=result.warnings,
        description=charts.describe_roles(result, kinds, share=share),
        analysis="causal_trace_average",
        view=view,
        inputs=_inputs(result),
        references=CAUSAL_TRACE,
        recipe=causal_trace_average_recipe(result),
    )


def _inputs(result: CausalTraceAverageResult) -> dict[str, Any]:
    """What was asked for; without the prompts where a picture could not carry them all."""
    inputs = result.inputs.to_dict()
    if len(json.dumps(inputs)) > MAX_INPUT_CHARACTERS:
        inputs["cases"] = []
    return inputs
