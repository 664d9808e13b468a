"""The set of texts of the neurons page: which one, what a survey over it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from mi_core.analyses.neuron_inputs import NeuronSurveyInputs
from mi_core.errors import LanternError
from pages.shared.boundary import show_error
from pages.shared.neuron_fields import SOURCES
from pages.shared.running import duration
from pages.shared.session import hub
from pages.shared.text import code, plain

if TYPE_CHECKING:
    from mi_core.analyses.neuron_survey_result import SurveyCost
    from mi_core.analyses.texts import TextSet
    from pages.shared.hub import About

_UPLOADED = "_text_set"
_COSTS = "_survey_costs"
_REMEMBERED = 4

SMALL_WORK = 5e10
"""Tokens times parameters that any computer does in seconds; below it nobody has to press a button."""


def draw_texts() -> TextSet | None:
    """The widgets; the chosen set, or None after a mistake or while there is no file."""
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
        st.segmented_control(
            "Texts", list(SOURCES), format_func=SOURCES.__getitem__, key="neuron_source", required=True
        )
        st.number_input(
            "Tokens per text at most",
            min_value=2,
            max_value=4096,
            key="neuron_max_tokens",
            width=190,
            help="Longer texts are cut; the page says how many.",
        )
    try:
        return _uploaded() if st.session_state["neuron_source"] == "file" else _bundled()
    except LanternError as error:
        show_error(error)
        return None


def _bundled() -> TextSet:
    from mi_core.batch.texts import bundled_texts

    return bundled_texts()


def _uploaded() -> TextSet | None:
    """The uploaded set; it is kept in the session, because an upload is gone after a page change."""
    from mi_core.importers.text_files import read_text_file

    file = st.file_uploader(
        "TXT, CSV or JSON",
        type=["txt", "md", "csv", "json"],
        max_upload_size=10,
        key="neuron_file",
        help="Plain text: paragraphs separated by blank lines. CSV and JSON: text, and category if there "
        "are kinds of text.",
    )
    if file is not None:
        st.session_state[_UPLOADED] = read_text_file(file.getvalue(), file.name)
    found = st.session_state.get(_UPLOADED)
    if found is None:
        st.info("Choose a file of texts, or use Lantern's own.", icon=":material/upload_file:")
    return found


def survey_inputs(texts: TextSet) -> NeuronSurveyInputs:
    """The survey that the widgets ask for."""
    state = st.session_state
    return NeuronSurveyInputs(
        texts=texts.texts,
        set_name=texts.name,
        max_tokens=state["neuron_max_tokens"],
        bos=state["bos"],
    )


def draw_cost(texts: TextSet, about: About, inputs: NeuronSurveyInputs) -> SurveyCost | None:
    """One line: the texts, and what a survey over them takes; None after a mistake."""
    try:
        cost = survey_cost(about, inputs)
    except LanternError as error:
        show_error(error)
        return None
    from mi_core.model.progress import format_bytes

    time = "" if cost.seconds is None else f"about **{duration(cost.seconds)}** on {code(about.device)} · "
    st.caption(
        f"{plain(texts.name)}: {cost.texts:,} texts of {len(texts.categories)} kinds "
        f"({plain(', '.join(texts.categories))}) · {cost.tokens:,} tokens in {cost.passes:,} passes · {time}"
        f"{cost.activations:,} activations go by, "
        f"{plain(format_bytes(cost.state_bytes))} of statistics are kept"
    )
    return cost


def seconds_to_ask(about: About, cost: SurveyCost) -> float | None:
    """What a run over the texts is said to take before it starts; None for one that starts by itself.

    The model's speed was measured on a few tokens, where a small model is slower than on whole texts.
    """
    return None if cost.tokens * about.parameters < SMALL_WORK else cost.seconds


def survey_cost(about: About, inputs: NeuronSurveyInputs) -> SurveyCost:
    """The cost of a survey; tokenizing a large set takes a moment, so it is remembered.

    Raises:
        LanternError: no token counts, or the statistics would not fit.
    """
    from mi_core.analyses import neuron_survey_cost

    model = hub().resident(about.spec)
    speed = None if model is None else model.token_layers_per_second or None
    known = st.session_state.setdefault(_COSTS, {})
    key = (about.fingerprint, inputs, speed)
    if key not in known:
        while len(known) >= _REMEMBERED:
            known.pop(next(iter(known)))
        known[key] = neuron_survey_cost(
            about.tokenizer, about.dims, inputs, context=about.context, speed=speed
        )
    return known[key]


def missing_neurons(about: About) -> bool:
    """Whether this model's neurons cannot be read; then the reason is drawn."""
    model = hub().resident(about.spec)
    reason = "" if model is None else model.structure.missing.get("mlp_post", "")
    if reason:
        st.info(f"The neurons of this model cannot be read: {plain(reason)}.", icon=":material/block:")
    return bool(reason)
