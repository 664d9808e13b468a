"""The features of a prompt on the page: map of counts, list, table, features by tokens, error."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.errors import InputError
from pages.shared.feature_prompt_text import EFFECT_FORMULA, PROMPT_FORMULA
from pages.shared.features_page import choose_feature, chosen_feature, pins, toggle_pin
from pages.shared.figure_card import figure_card
from pages.shared.selection import select, selection
from pages.shared.session import chosen_about, hub
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.transcoders.names import Feature
    from mi_core.transcoders.prompt_result import FeaturesOnPromptResult
    from mi_core.transcoders.prompt_view import Choice, Listing

TABLE_ROWS = 300


def draw_result(result: FeaturesOnPromptResult, choice: Choice) -> None:
    """All cards of the tab."""
    from mi_core.transcoders.prompt_view import listing

    position = _position(result)
    _draw_counts(result, position)
    listed = listing(result, choice)
    if not len(listed):
        hidden = f" {listed.dense:,} are hidden because they are dense." if listed.dense else ""
        st.info(f"No feature is active at these tokens and layers.{hidden}", icon=":material/filter_alt_off:")
    else:
        labels = _labels(result)
        _draw_list(result, listed, choice)
        _draw_table(result, listed, choice, labels)
        _draw_chosen(result, listed, labels)
        _draw_tokens(result, listed, choice, position)
    _draw_error(result, position)


def _position(result: FeaturesOnPromptResult) -> int:
    """The chosen token, or the last one."""
    last, now = len(result.tokens) - 1, selection().position
    return last if now is None else min(now, last)


def _labels(result: FeaturesOnPromptResult) -> dict[str, str]:
    """Names of features, by "L5F102": the user's own, and those that come with the transcoder."""
    from mi_core.transcoders.labels import labels_of

    about = chosen_about()
    model = None if about is None else hub().resident(about.spec)
    opened = None if model is None else model.transcoders.get(result.inputs.transcoder)
    try:
        known = labels_of(result.transcoder.fingerprint, None if opened is None else opened.folder)
    except InputError as error:
        st.warning(plain(str(error)), icon=":material/label_off:")
        return {}
    return {name: label.text for name, label in known.items()}


def _draw_counts(result: FeaturesOnPromptResult, position: int) -> None:
    from mi_core.exports.feature_prompt import counts_figure

    state = st.session_state
    tokens, layers = state["feature_tokens"], state["feature_layers"]
    chosen = (layers[0], tokens[0]) if len(tokens) == 1 and len(layers) == 1 else None

    def choose(cell: dict[str, Any]) -> None:
        layer, at = cell.get("layer"), cell.get("position")
        if layer not in result.layers or at not in result.counting:
            return
        again = (layer, at) == chosen  # a second click on the cell takes the narrowing back
        state["feature_tokens"], state["feature_layers"] = ([], []) if again else ([at], [layer])
        select(replace(selection(), position=at))

    figure_card(
        "feature_counts",
        counts_figure(result, position, chosen=chosen),
        on_cell=choose,
        formula=PROMPT_FORMULA,
    )
    st.caption("Click a cell to list only the features of that layer at that token; click it again for all.")


def _draw_list(result: FeaturesOnPromptResult, listed: Listing, choice: Choice) -> None:
    from mi_core.exports.feature_prompt import list_figure

    def choose(cell: dict[str, Any]) -> None:
        row = cell.get("index")
        if isinstance(row, int) and 0 <= row < len(listed):
            choose_feature(listed.named(row), int(listed.position[row]))

    figure = list_figure(result, listed, choice, st.session_state["feature_rows"], chosen=_chosen_row(listed))
    formula = EFFECT_FORMULA if choice.sort == "effect" else PROMPT_FORMULA
    figure_card("feature_list", figure, on_cell=choose, formula=formula)


def _chosen_row(listed: Listing) -> int | None:
    chosen = chosen_feature()
    return None if chosen is None else listed.row_of(chosen)


def _draw_table(
    result: FeaturesOnPromptResult, listed: Listing, choice: Choice, labels: dict[str, str]
) -> None:
    """The list with everything that is known; a row selects its feature."""
    from mi_core.exports.feature_prompt import listing_table

    frame = listing_table(result, listed).head(TABLE_ROWS)
    if "density" in frame:
        frame["density"] = 100 * frame["density"]
    named = [labels.get(name, "") for name in frame["feature"]]
    if any(named):
        frame.insert(1, "label", named)
    key = f"feature_table_{hash(choice)}"  # a mark stays on its row when the rows change
    number = st.column_config.NumberColumn

    def choose() -> None:
        rows = st.session_state[key]["selection"]["rows"]
        if rows and rows[0] < len(listed):
            choose_feature(listed.named(rows[0]), int(listed.position[rows[0]]))

    st.dataframe(
        frame, hide_index=True, height=280, key=key, on_select=choose, selection_mode="single-row",
        column_config={
            "activation": number("activation", format="%.4g", help="Largest over the tokens."),
            "position": number("at position"),
            "times_threshold": number("times threshold", format="%.3g"),
            "sum": number("sum over tokens", format="%.4g"),
            "tokens": number("active tokens"),
            "effect_logits": number("effect [logits]", format="%.4g"),
            "density": number("density [%]", format="%.3g", help="Share of the corpus' tokens."),
        },
        alt="The features of the list with activation, threshold, sum, effect and density.",
    )  # fmt: skip
    if len(listed) > TABLE_ROWS:
        st.caption(f"The first {TABLE_ROWS} of {len(listed):,}; the export has all.")


def _draw_chosen(result: FeaturesOnPromptResult, listed: Listing, labels: dict[str, str]) -> None:
    """What can be done with the chosen feature."""
    from mi_core.charts.feature_prompt import note

    feature = chosen_feature()
    if feature is None:
        st.caption("Click a bar, a cell or a row of the table to choose a feature.")
        return
    row = listed.row_of(feature)
    said = "not active at these tokens and layers" if row is None else note(result, listed, row)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="feature_chosen"):
        label = labels.get(feature.text, "")
        shown = f"**{feature.text}** {f'{plain(label)}: ' if label else ''}{plain(said)}"
        st.markdown(shown, width="stretch")
        _draw_buttons(feature, None if row is None else int(listed.position[row]))


def _draw_buttons(feature: Feature, position: int | None) -> None:
    pinned = feature in pins()
    st.button(
        "Unpin" if pinned else "Pin", icon=":material/keep_off:" if pinned else ":material/keep:",
        key="feature_prompt_pin", on_click=toggle_pin, args=(feature,),
    )  # fmt: skip
    st.button(
        "Look at it", icon=":material/search:", key="feature_prompt_open",
        on_click=choose_feature, args=(feature, position, "feature"),
    )  # fmt: skip
    st.button(
        "Intervene", icon=":material/tune:", key="feature_prompt_inject",
        on_click=choose_feature, args=(feature, position, "inject"),
    )  # fmt: skip


def _draw_tokens(result: FeaturesOnPromptResult, listed: Listing, choice: Choice, position: int) -> None:
    from mi_core.exports.feature_prompt import tokens_figure

    def choose(cell: dict[str, Any]) -> None:
        row, at = cell.get("row"), cell.get("position")
        if isinstance(row, int) and isinstance(at, int) and 0 <= row < len(listed):
            choose_feature(listed.named(row), at)

    row, now = _chosen_row(listed), selection().position
    figure = tokens_figure(
        result, listed, choice, st.session_state["feature_rows"], position,
        chosen=None if row is None or now is None else (row, now),
    )  # fmt: skip
    figure_card("feature_tokens_map", figure, on_cell=choose, formula=PROMPT_FORMULA)


def _draw_error(result: FeaturesOnPromptResult, position: int) -> None:
    from mi_core.exports.feature_prompt import error_figure

    with st.expander("Reconstruction error, token by token", icon=":material/troubleshoot:"):
        figure_card("feature_error", error_figure(result, position), formula=PROMPT_FORMULA)
