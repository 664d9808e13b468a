"""The counting tab of the steering page: the character-count helix, all layers from one run."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.errors import InputError, LanternError
from pages.shared.boundary import show_error
from pages.shared.charts import draw_chart
from pages.shared.figure_card import figure_card
from pages.shared.helix_fields import PAIRS, SOURCES
from pages.shared.helix_text import HELIX_FORMULA
from pages.shared.instant import draw_warnings, instant
from pages.shared.running import duration
from pages.shared.selection import select, selection
from pages.shared.session import chosen_about, hub
from pages.shared.text import code, plain

if TYPE_CHECKING:
    from mi_core.analyses import CharacterHelixInputs, CharacterHelixResult
    from mi_core.analyses.character_helix_result import HelixCost
    from mi_core.analyses.texts import TextSet
    from mi_core.model.model import LoadedModel
    from pages.shared.hub import About

_UPLOADED, _COSTS, _REMEMBERED = "_helix_text_set", "_helix_costs", 4


def draw_helix() -> None:
    """Texts and widths, what a run takes, and the shape of the means."""
    st.caption(
        "Texts are wrapped into lines. For every number of characters since the line began, the residual "
        "stream is averaged: does the model keep that number, and on what kind of curve?"
    )
    about = chosen_about()
    if about is None:
        st.info("The model is not loaded yet; the sidebar shows how far it is.", icon=":material/edit:")
        return
    with st.container(border=True, key="helix_setup"):
        asked = _draw_setup(about)
    if asked is None:
        return
    inputs, cost = asked
    seconds = float("nan") if cost.seconds is None else cost.seconds
    result = instant(
        "character_helix",
        inputs,
        _helix,
        "Character-count helix",
        about=about,
        seconds=seconds,
        draw_partial=_draw_partial,
    )
    if result is not None:
        draw_warnings(result)
        _draw_result(result)


def _helix(model: LoadedModel, inputs: CharacterHelixInputs, *, on_step: Any) -> CharacterHelixResult:
    """Runs on the worker thread."""
    from mi_core.analyses import character_helix

    return character_helix(model, inputs, on_step=on_step)


def _draw_partial(result: CharacterHelixResult) -> None:
    from mi_core.charts.character_helix import variance_lines

    draw_chart(variance_lines(result), key="partial_helix", alt="Shares of variance so far.")


# --- the question ---


def _draw_setup(about: About) -> tuple[CharacterHelixInputs, HelixCost] | None:
    """The widgets and the cost; None after a mistake or while there is no file."""
    try:
        texts = _draw_texts()
        _draw_numbers()
        if texts is None:
            return None
        inputs = _inputs(texts)
        cost = _cost(about, inputs)
    except LanternError as error:
        show_error(error)
        return None
    _say_cost(texts, about, cost)
    return inputs, cost


def _draw_texts() -> TextSet | None:
    from mi_core.batch.texts import bundled_texts
    from mi_core.importers.text_files import read_text_file

    st.segmented_control(
        "Texts", list(SOURCES), format_func=SOURCES.__getitem__, key="helix_source", required=True
    )
    if st.session_state["helix_source"] != "file":
        return bundled_texts()
    file = st.file_uploader(
        "A text file",
        type=["txt", "md"],
        max_upload_size=10,
        key="helix_file",
        help="Plain text. Its own line breaks become spaces, then it is wrapped at every width.",
    )
    if file is not None:  # an upload is gone after a page change: it is kept in the session
        st.session_state[_UPLOADED] = read_text_file(file.getvalue(), file.name)
    found = st.session_state.get(_UPLOADED)
    if found is None:
        st.info("Choose a file, or use Lantern's own texts.", icon=":material/upload_file:")
    return found


def _draw_numbers() -> None:
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
        for key, label, low, high, help in (
            (
                "helix_narrow",
                "Narrowest line",
                2,
                1000,
                "In characters; a character is a Unicode code point.",
            ),
            ("helix_wide", "Widest line", 2, 1000, "In characters."),
            ("helix_step", "Step", 1, 1000, "From one width to the next."),
            ("helix_count", "Largest count", 2, 1000, "Tokens further into their line are not averaged."),
            ("helix_least", "Tokens per count", 1, 1_000_000, "Counts with fewer tokens are left out."),
            (
                "helix_tokens",
                "Tokens in all",
                100,
                5_000_000,
                "Reading stops before a stretch of text would exceed this; the first is always read.",
            ),
        ):
            st.number_input(label, min_value=low, max_value=high, key=key, width=124, help=help)


def _inputs(texts: TextSet) -> CharacterHelixInputs:
    """The question that the widgets ask.

    Raises:
        InputError: the widths are turned round, or refused.
    """
    from mi_core.analyses import CharacterHelixInputs

    state = st.session_state
    if state["helix_narrow"] > state["helix_wide"]:
        raise InputError(
            "The narrowest line is wider than the widest", fix="Make the widest line at least as wide"
        )
    return CharacterHelixInputs(
        texts=texts.texts,
        set_name=texts.name,
        widths=tuple(range(state["helix_narrow"], state["helix_wide"] + 1, state["helix_step"])),
        max_count=state["helix_count"],
        n_min=state["helix_least"],
        max_tokens=state["helix_tokens"],
        bos=state["bos"],
    )


def _cost(about: About, inputs: CharacterHelixInputs) -> HelixCost:
    """The cost of a run; wrapping and tokenizing takes a moment, so it is remembered."""
    from mi_core.analyses import character_helix_cost

    model = hub().resident(about.spec)
    speed = None if model is None else model.token_layers_per_second or None
    known = st.session_state.setdefault(_COSTS, {})
    key = (about.fingerprint, inputs, speed)
    if key not in known:
        while len(known) >= _REMEMBERED:
            known.pop(next(iter(known)))
        known[key] = character_helix_cost(
            about.tokenizer, about.dims, inputs, context=about.context, speed=speed
        )
    return known[key]


def _say_cost(texts: TextSet, about: About, cost: HelixCost) -> None:
    from mi_core.model.progress import format_bytes

    time = "" if cost.seconds is None else f"about **{duration(cost.seconds)}** on {code(about.device)} · "
    rest = f" · {cost.left_out:,} stretches of text beyond the limit of tokens" if cost.left_out else ""
    st.caption(
        f"{plain(texts.name)} · {cost.tokens:,} tokens in {cost.passes:,} passes · {time}"
        f"{plain(format_bytes(cost.state_bytes))} of sums are kept, all layers at once{rest}"
    )


# --- the answer ---


def _draw_result(result: CharacterHelixResult) -> None:
    from mi_core.exports.character_helix import cosine_figure, path_figure, ring_figure, variance_figure

    def choose(cell: dict[str, Any]) -> None:
        layer = cell.get("x")
        if isinstance(layer, (int, float)) and 0 <= layer < result.n_layers:
            select(replace(selection(), layer=int(layer)))

    layer = _layer(result)
    figure_card(
        "helix_variance", variance_figure(result, chosen=layer), on_cell=choose, formula=HELIX_FORMULA
    )
    _draw_choices(result)
    components = result.inputs.components
    pair = tuple(int(part) for part in st.session_state["helix_pair"].split("-"))
    if max(pair) <= components:
        figure_card("helix_path", path_figure(result, layer, pair), formula=HELIX_FORMULA)  # type: ignore[arg-type]  # two numbers
    figure_card("helix_cosine", cosine_figure(result, layer), formula=HELIX_FORMULA)
    figure_card("helix_ring", ring_figure(result, layer))
    st.download_button(
        "JSON with candle-mi's keys",
        lambda: json.dumps(result.to_candle_mi(layer)),
        file_name=f"character_count_helix_layer{layer}.json",
        mime="application/json",
        on_click="ignore",
        key="helix_candle_mi",
        help="This layer's numbers under the names of candle-mi's character_count_helix; ours are centred.",
    )


def _layer(result: CharacterHelixResult) -> int:
    """The selected layer, or the middle one."""
    chosen = selection().layer
    return chosen if chosen is not None and chosen < result.n_layers else result.n_layers // 2


def _draw_choices(result: CharacterHelixResult) -> None:
    state = st.session_state
    if state["selected_layer"] is not None and state["selected_layer"] >= result.n_layers:
        state["selected_layer"] = None
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
        st.selectbox(
            "Layer",
            range(result.n_layers),
            index=None,
            key="selected_layer",
            placeholder=f"{result.n_layers // 2} (middle)",
            width=150,
            help="Another layer needs no new run.",
        )
        st.segmented_control(
            "Components", list(PAIRS), format_func=PAIRS.__getitem__, key="helix_pair", required=True
        )
