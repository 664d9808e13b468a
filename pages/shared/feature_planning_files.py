"""Result files of candle-mi on the planning tab: read with their checks, and written from our results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.errors import InputError
from pages.shared.instant import draw_warnings
from pages.shared.text import code, plain

if TYPE_CHECKING:
    from mi_core.transcoders.planning_result import PlanningResult


def draw_files() -> None:
    """Read and write, folded away."""
    with st.expander("Result files of candle-mi", icon=":material/swap_horiz:"):
        _draw_downloads()
        uploaded = st.file_uploader(
            "Read a file (figure 13, step A, attention routing)", type=["json"], key="planning_upload"
        )
        if uploaded is not None:
            _draw_file(uploaded)


def _draw_downloads() -> None:
    """Our latest results with candle-mi's keys."""
    from pages.shared import running

    with st.container(horizontal=True, gap="small"):
        for slot, name, label in (
            ("planning", "planning_candle_mi.json", "This sweep"),
            ("feature_routing", "routing_candle_mi.json", "This routing"),
        ):
            run = running.current(slot)
            result = None if run is None else run.result
            text = None if result is None else _written(slot, result)
            st.download_button(
                f"{label} with candle-mi's keys", text or "", file_name=name, mime="application/json",
                icon=":material/download:", disabled=text is None, key=f"planning_save_{slot}",
            )  # fmt: skip


def _written(slot: str, result: Any) -> str | None:
    from mi_core.transcoders.planning_files import planning_to_candle_mi
    from mi_core.transcoders.routing_files import routing_to_candle_mi

    try:
        return planning_to_candle_mi(result) if slot == "planning" else routing_to_candle_mi(result)
    except InputError:  # nothing injected, which these files cannot say
        return None


def _draw_file(uploaded: Any) -> None:
    """The file's own figures, with what does not agree in it."""
    from mi_core.transcoders.planning_files import read_planning
    from mi_core.transcoders.planning_json import MAX_FILE_BYTES, load_object
    from mi_core.transcoders.routing_files import read_routing
    from pages.shared.feature_planning import draw_figures
    from pages.shared.feature_routing import draw_routing_figures

    try:
        if uploaded.size > MAX_FILE_BYTES:
            raise InputError("The file is too large", why=f"more than {MAX_FILE_BYTES:,} bytes")
        data = uploaded.getvalue()
        routing = "head_deltas" in load_object(data)
        result = read_routing(data) if routing else read_planning(data)
    except InputError as error:
        st.error(plain(str(error)), icon=":material/error:")
        return
    st.markdown(f"From {code(uploaded.name)}, transcoder {code(result.transcoder)}")
    draw_warnings(result)
    if routing:
        draw_routing_figures(result, "routing_file")  # type: ignore[arg-type]  # a routing file
        return
    st.button(
        "Take its prompt and settings", icon=":material/content_copy:", key="planning_take",
        on_click=_take, args=(result,),
    )  # fmt: skip
    draw_figures(result, "planning_file")  # type: ignore[arg-type]  # a planning file


def _take(result: PlanningResult) -> None:
    """A callback: the widgets take these values in the next run."""
    state, inputs = st.session_state, result.inputs
    values = {
        "prompt": inputs.prompt, "answer": inputs.answer or "", "distractor": inputs.distractor or "",
        "planning_source": "named", "planning_inject": inputs.inject, "planning_suppress": inputs.suppress,
        "planning_strength": inputs.strength,
    }  # fmt: skip
    for name, value in values.items():
        state[name] = value
