"""The causal trace's preview: first-order estimates before it runs, their agreement with it afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.analyses.attribution_patching_result import ESTIMATED_KINDS
from mi_core.analyses.causal_trace_inputs import METRICS
from mi_core.errors import LanternError
from pages.shared.attribution_text import PATCHING_FORMULA
from pages.shared.figure_card import figure_card
from pages.shared.instant import instant
from pages.shared.session import hub
from pages.shared.text import plain
from pages.shared.trace_view import choose_cell, usable_metric

if TYPE_CHECKING:
    from mi_core.analyses.attribution_patching_agreement import Agreement
    from mi_core.analyses.attribution_patching_result import AttributionPatchingResult
    from mi_core.analyses.causal_trace_inputs import CausalTraceInputs
    from mi_core.analyses.causal_trace_result import CausalTraceResult
    from mi_core.model.model import LoadedModel
    from pages.shared.hub import About

SLOT = "attribution_patching"


def draw_preview(about: About | None, inputs: CausalTraceInputs | None) -> None:
    """What the trace would show, to first order, while it has not run."""
    from mi_core.exports.attribution_patching import estimate_figure

    result = _estimate(about, inputs)
    if result is None:
        return
    metric = st.session_state["metric"]
    if metric not in result.all_metrics:
        st.caption(f"There is no first-order estimate of {plain(METRICS[metric].label)}; P(answer) is shown.")
        metric = "probability"
    if any(kind != "head" for kind in result.kinds):
        figure_card("trace_preview", estimate_figure(result, metric), formula=PATCHING_FORMULA)
    if "head" in result.kinds:
        heads = estimate_figure(result, metric, kinds=("head",))
        figure_card("trace_preview_heads", heads, formula=PATCHING_FORMULA)


def draw_agreement(about: About | None, exact: CausalTraceResult) -> None:
    """How good the estimate was, once there is an exact trace of the model that is loaded."""
    from mi_core.analyses import agreement
    from mi_core.exports.attribution_patching import agreement_figure

    origin = exact.provenance
    if about is None or origin is None or origin.fingerprint != about.fingerprint:
        return
    result = _estimate(about, exact.inputs)
    if result is None:
        return
    metric = usable_metric(exact)
    metric = metric if metric in result.all_metrics else "probability"
    found = [one for kind in result.kinds if (one := agreement(result, exact, kind, metric)).n]
    if not found:
        return

    def choose(cell: dict[str, Any]) -> None:
        place = _place(found, cell.get("index"))
        if place is not None:
            choose_cell(place)

    figure = agreement_figure(result, exact, found)
    figure_card("trace_agreement", figure, on_cell=choose, formula=PATCHING_FORMULA)


def _place(found: list[Agreement], index: object) -> dict[str, Any] | None:
    """The cell behind a point, as a click on the heatmap would give it."""
    if not isinstance(index, int) or index < 0:
        return None
    for one in found:
        if index < one.n:
            return {"kind": one.kind, "row": int(one.rows[index]), "layer": int(one.layers[index])}
        index -= one.n
    return None


def _estimate(about: About | None, inputs: CausalTraceInputs | None) -> AttributionPatchingResult | None:
    """The estimates, if the model is in memory and any kind has a slope."""
    from mi_core.analyses import attribution_patching_seconds

    if about is None or inputs is None or not set(inputs.kinds) & set(ESTIMATED_KINDS):
        return None
    model = hub().resident(about.spec)
    if model is None:
        return None
    try:
        seconds = attribution_patching_seconds(model, inputs)
    except LanternError:
        return None  # the set-up above says what is wrong
    return instant(SLOT, inputs, _run, "First-order estimate", about=about, seconds=seconds)


def _run(model: LoadedModel, inputs: CausalTraceInputs, *, on_step: Any) -> AttributionPatchingResult:
    """Runs on the worker thread."""
    from mi_core.analyses import attribution_patching

    return attribution_patching(model, inputs, on_step=on_step)
