"""The tab "Sweeps" of the knock-out page: one part at a time, sum against joint effect, dose of an edge."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.analyses.ablation_sweep_inputs import AblationSweepInputs, JointAblationInputs
from mi_core.errors import InputError
from pages.shared.ablation_sweep_dose import draw_dose
from pages.shared.ablation_sweep_fields import METRIC_LABELS, MODES, POSITIONS, WHAT
from pages.shared.ablation_sweep_view import draw_joint, draw_partial, draw_result
from pages.shared.edit_list import pieces
from pages.shared.instant import Asked, draw_warnings, instant, page_state, pass_seconds, prompt_inputs
from pages.shared.knockout_fields import LIST
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.analyses import AblationSweepResult, JointAblationResult
    from mi_core.model.model import LoadedModel


def draw_sweeps() -> None:
    """The tab."""
    asked = prompt_inputs()
    if not page_state(asked) or asked.about is None or asked.tokens is None:
        return
    _draw_settings()
    _draw_sweep(asked)
    _draw_joint(asked)
    draw_dose(asked)


def _draw_settings() -> None:
    state = st.session_state
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom", key="ablation_settings"):
        st.segmented_control(
            "Take out, one at a time", list(WHAT), format_func=WHAT.__getitem__, key="ablation_what",
            required=True,
            help="Edges: what the last token reads. Keys: a token that nobody reads from a layer on.",
        )  # fmt: skip
        if state["ablation_what"] in ("heads", "modules"):
            st.segmented_control(
                "Put in its place", list(MODES), format_func=MODES.__getitem__, key="ablation_mode",
                required=True, help="Mean: over bundled prompts. Resample: its value in the second prompt.",
            )  # fmt: skip
            st.segmented_control(
                "Where", list(POSITIONS), format_func=POSITIONS.__getitem__, key="ablation_positions",
                required=True,
            )  # fmt: skip
        if state["ablation_what"] == "edges":
            st.text_input(
                "In these heads only", key="ablation_heads", width=200, placeholder="e.g. L4H0, L5H1",
                help="Empty: every layer, all its heads together.",
            )  # fmt: skip
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom", key="ablation_reading"):
        offered = [name for name in METRIC_LABELS if name != "logit_difference" or state["distractor"]]
        if state["ablation_metric"] not in offered:
            state["ablation_metric"] = "probability"
        st.segmented_control(
            "Effect on", offered, format_func=METRIC_LABELS.__getitem__, key="ablation_metric", required=True,
            help="Changes the figures only; nothing is computed again. Logit difference needs a distractor.",
        )  # fmt: skip
        if pieces(state[LIST]):
            st.toggle(
                "Keep the list active", key="ablation_listed",
                help="The list of the tab Interventions then holds in the baseline and in every run.",
            )  # fmt: skip


def _draw_sweep(asked: Asked) -> None:
    inputs = _wanted(asked)
    if inputs is None or asked.about is None:
        return
    metric = st.session_state["ablation_metric"]
    result: AblationSweepResult | None = instant(
        "ablation_sweep", inputs, _sweep, "Sweep", about=asked.about, seconds=_seconds(asked, inputs),
        draw_partial=lambda partial: draw_partial(partial, metric),
    )  # fmt: skip
    if result is None:
        return
    draw_warnings(result)
    if result.done.any():
        draw_result(result, metric)


def _wanted(asked: Asked) -> AblationSweepInputs | None:
    """Inputs from header and settings, or None, and then the reason is drawn."""
    state = st.session_state
    replaced = state["ablation_what"] in ("heads", "modules")
    heads = tuple(dict.fromkeys(re.findall(r"[^\s,;]+", state["ablation_heads"])))
    try:
        return AblationSweepInputs(
            prompt=asked.prompt,
            what=state["ablation_what"],
            mode=state["ablation_mode"] if replaced else "auto",
            answer=state["answer"] or None,
            distractor=state["distractor"] or None,
            second_prompt=(state["second_prompt"] or None) if replaced or state["ablation_listed"] else None,
            interventions=state[LIST] if state["ablation_listed"] else "",
            positions=state["ablation_positions"] if replaced else "all",
            heads=heads if state["ablation_what"] == "edges" else (),
            bos=asked.bos,  # type: ignore[arg-type]  # one of the header's three words
        )
    except InputError as error:
        st.warning(plain(str(error)), icon=":material/warning:")
        return None


def _seconds(asked: Asked, inputs: AblationSweepInputs) -> float | None:
    """From the number of cells; the exact plan would compile every one of them at each click."""
    from mi_core.analyses.ablation_sweep_units import passes_of

    if asked.about is None or asked.tokens is None:
        return None
    dims = asked.about.dims
    return pass_seconds(asked, passes=passes_of(inputs, dims.n_layers, dims.n_heads, len(asked.tokens)))


def _sweep(model: LoadedModel, inputs: AblationSweepInputs, *, on_step: Any) -> AblationSweepResult:
    """Runs on the worker thread."""
    from mi_core.analyses import ablation_sweep

    return ablation_sweep(model, inputs, on_step=on_step)


def _draw_joint(asked: Asked) -> None:
    """The list of the tab Interventions: each alone, and all together."""
    state = st.session_state
    st.subheader("The list: one by one, and together")
    if not pieces(state[LIST]):
        st.caption("The list is empty. Click a cell above and add it, or write a list under Interventions.")
        return
    try:
        inputs = JointAblationInputs(
            prompt=asked.prompt, interventions=state[LIST], answer=state["answer"] or None,
            distractor=state["distractor"] or None, second_prompt=state["second_prompt"] or None,
            bos=asked.bos,  # type: ignore[arg-type]  # one of the header's three words
        )  # fmt: skip
    except InputError as error:
        st.warning(plain(str(error)), icon=":material/warning:")
        return
    if asked.about is None:
        return
    seconds = pass_seconds(asked, passes=float(len(pieces(state[LIST])) + 4))
    result: JointAblationResult | None = instant(
        "joint_ablation", inputs, _joint, "Joint effect", about=asked.about, seconds=seconds
    )
    if result is not None and not result.cancelled:
        draw_joint(result, state["ablation_metric"])


def _joint(model: LoadedModel, inputs: JointAblationInputs, *, on_step: Any) -> JointAblationResult:
    """Runs on the worker thread."""
    from mi_core.analyses import joint_ablation

    return joint_ablation(model, inputs, on_step=on_step)
