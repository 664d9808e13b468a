"""The prediction sweep on the page: which prompts, the grid of top tokens, the histogram of depths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.analyses.logit_lens_inputs import SITE_LABELS, window
from mi_core.errors import LanternError
from pages.shared.boundary import show_error
from pages.shared.figure_card import figure_card
from pages.shared.instant import draw_warnings, instant
from pages.shared.lens_controls import missing_sites
from pages.shared.lens_fields import SOURCES, STREAM
from pages.shared.lens_text import SWEEP_FORMULA
from pages.shared.session import chosen_about, hub
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.analyses import PredictionSweepInputs, PredictionSweepResult, PromptSet
    from mi_core.model.model import LoadedModel
    from pages.shared.hub import About

COLUMNS = 16
"""Prompts that are drawn side by side; more would leave no room for their tokens."""

_UPLOADED = "_sweep_prompt_set"


def draw_sweep_tab() -> None:
    """Prompts, and what every layer says to them."""
    about = chosen_about()
    with st.container(border=True, key="sweep_setup"):
        prompts = _draw_set(about)
    if about is None:
        st.info("The model is not loaded yet; the sidebar shows how far it is.", icon=":material/edit:")
        return
    if prompts is None:
        st.info("Choose or upload prompts with their right answers.", icon=":material/upload_file:")
        return
    inputs = _inputs(prompts)
    result = instant(
        "prediction_sweep", inputs, _sweep, "Prediction sweep",
        about=about, seconds=_seconds(about, inputs), draw_partial=_draw_grid,
    )  # fmt: skip
    if result is None:
        return
    draw_warnings(result)
    _draw_left_out(result)
    if not result.swept:
        st.info("No prompt could be read.", icon=":material/filter_alt_off:")
        return
    _draw_numbers(result)
    _draw_grid(result)
    _draw_case(result)
    _draw_depths(result)


def _draw_set(about: About | None) -> PromptSet | None:
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
        st.segmented_control(
            "Prompts", list(SOURCES), format_func=SOURCES.__getitem__, key="sweep_source", required=True
        )
        st.number_input("At most", min_value=1, max_value=5000, key="sweep_count", width=120)
        missing = missing_sites(about)
        offered = [site for site in STREAM if site not in missing or site == st.session_state["sweep_site"]]
        st.selectbox("Read", offered, format_func=SITE_LABELS.__getitem__, key="sweep_site", width=330)
    try:
        prompts = _chosen_set()
    except LanternError as error:
        show_error(error)
        return None
    if prompts is None:
        return None
    used = prompts.sample(st.session_state["sweep_count"])
    st.caption(f"{plain(prompts.name)}: {plain(prompts.note)}. Using {len(used.cases)}.")
    return used


def _chosen_set() -> PromptSet | None:
    """The chosen set; an uploaded one is kept in the session, as the widget forgets it on a page change."""
    from mi_core.batch.prompt_sets import FIVE_QUESTIONS, bundled_facts
    from mi_core.importers.prompt_files import read_prompt_file

    source = st.session_state["sweep_source"]
    if source != "file":
        return FIVE_QUESTIONS if source == "five" else bundled_facts()
    file = st.file_uploader(
        "CSV or JSON",
        type=["csv", "json"],
        max_upload_size=10,
        key="sweep_file",
        help="Columns prompt, subject, answer; or ROME's known_1000; or CounterFact pairs.",
    )
    if file is not None:
        st.session_state[_UPLOADED] = read_prompt_file(file.getvalue(), file.name)
    return st.session_state.get(_UPLOADED)


def _inputs(prompts: PromptSet) -> PredictionSweepInputs:
    from mi_core.analyses import PredictionSweepInputs

    return PredictionSweepInputs(
        cases=prompts.cases,
        site=st.session_state["sweep_site"],
        bos=st.session_state["bos"],
        set_name=prompts.name,
    )


def _sweep(model: LoadedModel, inputs: PredictionSweepInputs, *, on_step: Any) -> PredictionSweepResult:
    """Runs on the worker thread."""
    from mi_core.analyses import prediction_sweep

    return prediction_sweep(model, inputs, on_step=on_step)


def _seconds(about: About, inputs: PredictionSweepInputs) -> float | None:
    from mi_core.analyses.prediction_sweep_run import sweep_seconds

    model = hub().resident(about.spec)
    return None if model is None else sweep_seconds(model, inputs)


def _draw_numbers(result: PredictionSweepResult) -> None:
    from mi_core.charts.text import number

    with st.container(horizontal=True, gap="large", key="sweep_numbers"):
        st.metric("Prompts", result.n_prompts, width="content")
        st.metric("Answers that stabilise", result.n_stable, width="content")
        st.metric(
            "Median depth",
            number(result.median_depth()),
            width="content",
            help="Layer from which on the answer is the top token, divided by the number of layers.",
        )
        st.metric(
            "Appear, then lost",
            result.n_lost,
            width="content",
            help="Some layer has the right answer on top, the last one has not.",
        )
        st.metric("Never appear", result.n_never, width="content")


def _draw_grid(result: PredictionSweepResult) -> None:
    from mi_core.exports.prediction_sweep import sweep_figure

    if not result.swept:
        return
    figure = sweep_figure(result, _columns(result), chosen=_chosen(result))
    figure_card("sweep_grid", figure, on_cell=choose_case, formula=SWEEP_FORMULA)


def _columns(result: PredictionSweepResult) -> range:
    """The prompts that are drawn."""
    shown = window(result.n_prompts, COLUMNS, st.session_state["sweep_first"])
    return range(shown[0], shown[-1] + 1)


def choose_case(cell: dict[str, Any]) -> None:
    """A click on the grid."""
    case, layer = cell.get("case"), cell.get("layer")
    if isinstance(case, int) and isinstance(layer, int):
        st.session_state["sweep_case"] = case
        st.session_state["selected_layer"] = layer


def _chosen(result: PredictionSweepResult) -> tuple[int, int] | None:
    layer, case = st.session_state["selected_layer"], st.session_state["sweep_case"]
    if layer is None or case is None or layer >= result.n_layers:
        return None
    return (layer, case) if case in [one.index for one in result.swept] else None


def _draw_case(result: PredictionSweepResult) -> None:
    """Which prompts are drawn, and the chosen one with a door to its own grid."""
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom", key="sweep_columns"):
        if result.n_prompts > COLUMNS:
            st.number_input(
                "First prompt drawn",
                min_value=0,
                max_value=result.n_prompts - 1,
                step=COLUMNS,
                key="sweep_first",
                width=180,
                help=f"{COLUMNS} of {result.n_prompts} prompts are drawn at a time; the table has those, "
                "the histogram all.",
            )
        cell = _chosen(result)
        if cell is None:
            st.markdown(":material/ads_click: **Click a cell** to see its prompt.")
            return
        case = result.inputs.cases[cell[1]]
        st.markdown(f"**Prompt {cell[1]}** {plain(case.prompt)} :gray[→ {plain(case.answer)}]")
        st.button(
            "Open its grid",
            icon=":material/grid_on:",
            key="open_case",
            on_click=_open_case,
            args=(case.prompt, case.answer),
        )


def _open_case(prompt: str, answer: str) -> None:
    """Show one prompt of the set in the first tab."""
    from pages.shared.lens_fields import TABS

    st.session_state.update(
        prompt=prompt, answer=answer, lens_first=None, selected_position=None, lens_tabs=TABS["one"]
    )


def _draw_depths(result: PredictionSweepResult) -> None:
    from mi_core.exports.prediction_sweep import depth_figure

    figure_card("sweep_depths", depth_figure(result), formula=SWEEP_FORMULA)


def _draw_left_out(result: PredictionSweepResult) -> None:
    if not result.left_out:
        return
    cases = result.inputs.cases
    with st.expander(f"{len(result.left_out)} prompts were left out", icon=":material/filter_alt_off:"):
        st.dataframe(
            {
                "prompt": [cases[one.index].prompt for one in result.left_out],
                "why": [one.reason for one in result.left_out],
            },
            hide_index=True,
            alt="Prompts that were left out, and why.",
        )
