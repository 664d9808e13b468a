"""The probe tab: one layer's features at every token, one of them injected at every token, and its files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.errors import InputError
from mi_core.transcoders.probe_inputs import CltProbeInputs
from pages.shared.feature_probe_fields import WHICH
from pages.shared.feature_prompt_text import PROBE_FORMULA
from pages.shared.feature_source import told
from pages.shared.features_page import FeaturesAsked, choose_feature, chosen_feature, features_asked
from pages.shared.figure_card import figure_card
from pages.shared.instant import draw_warnings, instant, pass_seconds
from pages.shared.selection import selection
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel
    from mi_core.transcoders.probe_result import CltProbeResult

SLOT = "clt_probe"
FILE = "_probe_file"
MOST_MEGABYTES = 20


def draw_probe_tab() -> None:
    """The tab: the probe of this prompt, or of a file."""
    wanted = features_asked()
    st.caption(
        "Which features of one layer are active at every token, and how far the logits at the last token "
        "move when one of them is added at each token in turn."
    )
    read = _draw_upload()
    if read is not None:
        _draw(read, "file")
        return
    if wanted is None or wanted.asked.about is None or wanted.asked.tokens is None:
        return
    inputs = _draw_settings(wanted)
    if inputs is None:
        return
    # Half of the prompt is recomputed for a token in the middle.
    cost = pass_seconds(wanted.asked, passes=1 + len(wanted.asked.tokens) / 2)
    result: CltProbeResult | None = instant(
        SLOT, inputs, _run, "Feature probe", about=wanted.asked.about, seconds=cost
    )
    if result is not None:
        _draw(result, "prompt")
        _draw_download(result)


def _run(model: LoadedModel, inputs: CltProbeInputs, *, on_step: Any) -> CltProbeResult:
    """Runs on the worker thread."""
    from mi_core.transcoders import clt_probe

    return clt_probe(model, inputs, on_step=on_step)


def _draw_settings(wanted: FeaturesAsked) -> CltProbeInputs | None:
    state = st.session_state
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom", key="probe_settings"):
        st.number_input(
            "Layer", min_value=0, max_value=10_000, key="selected_layer", width=150, placeholder="middle",
            help="Whose features are read. Empty: the layer in the middle.",
        )  # fmt: skip
        st.selectbox(
            "Injected", list(WHICH), format_func=WHICH.__getitem__, key="probe_which", width=270,
            help="The chosen feature is the one that the other tabs show, if it is of this layer.",
        )  # fmt: skip
        st.number_input(
            "Strength", -1000.0, 1000.0, key="probe_strength", width=150,
            help="How many times the feature's decoder rows are added; 1 = an activation of 1.",
        )  # fmt: skip
        st.number_input("Features per token", 1, 100, key="probe_top", width=160)
    feature = chosen_feature()
    if state["probe_which"] == "chosen" and feature is None:
        st.info("No feature is chosen. Click one under “This prompt”.", icon=":material/touch_app:")
        return None
    try:
        return CltProbeInputs(
            prompt=wanted.asked.prompt,
            transcoder=wanted.transcoder,
            layer=selection().layer,
            feature=None if feature is None or state["probe_which"] == "strongest" else feature.index,
            strength=float(state["probe_strength"]),
            top=state["probe_top"],
            bos=wanted.asked.bos,  # type: ignore[arg-type]  # one of the header's three words
        )
    except InputError as error:
        st.warning(plain(str(error)), icon=":material/warning:")
        return None


# --- files ---


def _draw_upload() -> CltProbeResult | None:
    """A probe from a file, kept in the session, because the uploader forgets it on another page."""
    from mi_core.transcoders.probe_files import read_candle_json

    state = st.session_state
    with st.expander("Open a probe from a file", icon=":material/upload_file:", expanded=FILE in state):
        uploaded = st.file_uploader(
            "A position sweep of candle-mi (JSON)", type=["json"], key="probe_upload",
            max_upload_size=MOST_MEGABYTES,
        )  # fmt: skip
        if uploaded is not None:
            try:
                state[FILE] = read_candle_json(uploaded.getvalue())
            except InputError as error:
                state.pop(FILE, None)
                st.error(plain(str(error)), icon=":material/error:")
        if FILE in state:
            st.button(
                "Close the file", icon=":material/close:", key="probe_close", on_click=_close,
            )  # fmt: skip
    return state.get(FILE)


def _close() -> None:
    st.session_state.pop(FILE, None)
    st.session_state.pop("probe_upload", None)


def _draw_download(result: CltProbeResult) -> None:
    from mi_core.transcoders.probe_files import candle_json

    if result.feature is not None and result.has_injection:
        st.download_button(
            "As candle-mi's JSON", candle_json(result), file_name="clt_position_sweep.json",
            mime="application/json", icon=":material/download:", key="probe_download", on_click="ignore",
        )  # fmt: skip


# --- figures ---


def _draw(result: CltProbeResult, name: str) -> None:
    from mi_core.exports.feature_probe import count_figure, injection_figure, top_figure

    draw_warnings(result, told() if name == "prompt" else ())
    _draw_numbers(result)
    now = selection().position
    position = len(result) - 1 if now is None else min(now, len(result) - 1)

    def choose(cell: dict[str, Any]) -> None:
        at, rank = cell.get("position"), cell.get("rank")
        if not isinstance(at, int) or not isinstance(rank, int) or not 0 <= at < len(result):
            return
        top = result.top_of(at)
        if 1 <= rank <= len(top) and name == "prompt":  # a file may be of another transcoder
            from mi_core.transcoders.names import Feature

            choose_feature(Feature(result.layer, top[rank - 1]), at)

    figure_card(f"probe_top_{name}", top_figure(result, position, chosen=_cell(result)), on_cell=choose)
    if result.feature is not None and (result.has_injection or result.cancelled):
        figure_card(f"probe_l2_{name}", injection_figure(result, position), formula=PROBE_FORMULA)
    figure_card(f"probe_counts_{name}", count_figure(result, position))


def _cell(result: CltProbeResult) -> tuple[int, int] | None:
    """The chosen feature at the chosen token, if it is drawn."""
    feature, now = chosen_feature(), selection().position
    if feature is None or feature.layer != result.layer or now is None or now >= len(result):
        return None
    top = result.top_of(now)
    return (now, top.index(feature.index)) if feature.index in top else None


def _draw_numbers(result: CltProbeResult) -> None:
    from mi_core.charts.text import number

    with st.container(horizontal=True, gap="medium", key="probe_numbers"):
        st.metric(
            "Different strongest features", str(result.unique_top1_count), width="content",
            help="Every token's strongest feature, each counted once; special tokens count, as in "
            f"candle-mi's files. Without special tokens: {result.unique_top1_words}.",
        )  # fmt: skip
        st.metric(
            "Jaccard, first and last token", number(result.jaccard_first_last), width="content",
            help="Features that both have over features that either has. A special token may be the first, "
            f"as in candle-mi's files; without special tokens: {number(result.jaccard_words)}.",
        )  # fmt: skip
        if result.has_injection:
            st.metric("Concentration ratio", number(result.concentration_ratio), width="content")
            st.metric("Rank of the last token", f"{result.last_rank} of {len(result)}", width="content")
            st.metric("Largest change", f"{number(result.max_l2)} logits", width="content")
