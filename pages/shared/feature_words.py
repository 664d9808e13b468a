"""The tab of the word search: features that write or read a word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.errors import LanternError
from mi_core.transcoders.words_inputs import WordSearchInputs
from pages.shared.feature_one_fields import MAX_WORD, RANKS, SIDES
from pages.shared.feature_one_text import SEARCH_FORMULA
from pages.shared.feature_source import told
from pages.shared.features_page import FeaturesAsked, choose_feature, chosen_feature, features_asked
from pages.shared.figure_card import figure_card
from pages.shared.instant import draw_warnings, instant
from pages.shared.session import hub

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel
    from mi_core.transcoders.words_result import WordSearchResult
    from pages.shared.hub import About


def draw_words_tab() -> None:
    """The tab."""
    wanted = features_asked()
    if wanted is None or wanted.asked.about is None:
        return
    inputs = _draw_settings(wanted)
    if inputs is None:
        st.info(
            "Type a word: every feature of the transcoder is asked whether it writes (promotes) it or reads "
            "it.",
            icon=":material/search:",
        )
        return
    about = wanted.asked.about
    result: WordSearchResult | None = instant(
        "word_search", inputs, _search, "Word search", about=about, seconds=_seconds(about, inputs)
    )
    if result is not None:
        draw_warnings(result, told())
        _draw(result)
        _draw_dead(about, result)


def _draw_settings(wanted: FeaturesAsked) -> WordSearchInputs | None:
    state = st.session_state
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom", key="word_search_settings"):
        st.text_input(
            "Word",
            key="word_search_word",
            width=200,
            max_chars=MAX_WORD,
            placeholder="e.g. Paris",
            help="With and without a space in front, where that is one token.",
        )
        st.segmented_control(
            "Features that",
            list(SIDES),
            format_func=SIDES.__getitem__,
            key="word_search_side",
            required=True,
        )
        st.selectbox(
            "Ranked by",
            list(RANKS),
            format_func=RANKS.__getitem__,
            key="word_search_rank",
            width=220,
            help="How far it stands out: the word's effect in standard deviations over all words of the "
            "feature. How strongly: per unit of activation.",
        )
        st.number_input("Features", min_value=1, max_value=60, key="word_search_count", width=110)
    word = state["word_search_word"].strip(" ")
    if not word:
        return None
    return WordSearchInputs(
        word=word,
        side=state["word_search_side"],
        transcoder=wanted.transcoder,
        rank_by=state["word_search_rank"],
        count=state["word_search_count"],
    )


def _search(model: LoadedModel, inputs: WordSearchInputs, *, on_step: Any) -> WordSearchResult:
    """Runs on the worker thread."""
    from mi_core.transcoders import word_search

    return word_search(model, inputs, on_step=on_step)


def _seconds(about: About, inputs: WordSearchInputs) -> float | None:
    """What the pass takes; None while the transcoder is not open yet."""
    model = hub().resident(about.spec)
    transcoder = None if model is None else model.transcoders.get(inputs.transcoder)
    if transcoder is None:
        return None
    from mi_core.transcoders.weights_cost import search_cost

    return search_cost(transcoder, inputs.side, inputs.rank_by, about.dims.d_vocab).seconds


def _draw_dead(about: About, result: WordSearchResult) -> None:
    """Which of the found features no text of the corpus has ever made active."""
    model = hub().resident(about.spec)
    if model is None:
        return
    from mi_core.transcoders.corpus_density import densities

    try:
        known = densities(model, result.inputs.transcoder)
    except LanternError:  # the tab of the feature says what is wrong with the corpus files
        known = None
    if known is None:
        return
    dead = [one.text for one in result.features if one.layer in known and known[one.layer][one.index] == 0]
    if dead:
        st.caption(f"Never active on the corpus, so these say nothing: {', '.join(dead)}.")


def _draw(result: WordSearchResult) -> None:
    from mi_core.exports.word_search import hits_figure, layers_figure

    hits = result.hits()
    now = chosen_feature()
    chosen = next((place for place, hit in enumerate(hits) if hit.feature == now), None)

    def choose(cell: dict[str, Any]) -> None:
        index = cell.get("index")
        if isinstance(index, int) and 0 <= index < len(hits):
            choose_feature(hits[index].feature, tab="feature")

    figure = hits_figure(result, chosen=chosen)
    figure_card("word_search_hits", figure, on_cell=choose, formula=SEARCH_FORMULA)
    st.caption("Click a bar to open the feature.")
    if result.inputs.side == "writes" and len(result.target_layers) > 1:
        figure_card("word_search_layers", layers_figure(result), formula=SEARCH_FORMULA)
