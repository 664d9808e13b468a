"""What all tabs of the features page share: the prompt, the transcoder, and how well it fits."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

import streamlit as st

from pages.shared.features_fields import PINS, TABS, TRANSCODER
from pages.shared.instant import Asked, page_state, prompt_inputs
from pages.shared.selection import select, selection

if TYPE_CHECKING:
    from mi_core.transcoders.names import Feature

_DRAW = {
    "prompt": ("pages.shared.feature_prompt", "draw_prompt_tab"),
    "feature": ("pages.shared.feature_one", "draw_feature_tab"),
    "words": ("pages.shared.feature_words", "draw_words_tab"),
    "inject": ("pages.shared.feature_inject", "draw_inject_tab"),
    "steer": ("pages.shared.feature_generation", "draw_feature_generation_tab"),
    "planning": ("pages.shared.feature_planning", "draw_planning_tab"),
    "graph": ("pages.shared.feature_graph", "draw_graph_tab"),
    "probe": ("pages.shared.feature_probe", "draw_probe_tab"),
}
_ASKED = "_features_asked"


@dataclass(frozen=True)
class FeaturesAsked:
    """The header's prompt and the chosen transcoder.

    Attributes:
        asked: prompt, tokens and model; ready.
        transcoder: what to put into an Inputs' `transcoder`.
        show_bos: whether leading special tokens count.
    """

    asked: Asked
    transcoder: str
    show_bos: bool


def draw_features() -> None:
    """Chooser and fit above, then the open tab."""
    st.session_state[_ASKED] = _draw_top()
    words = [word for word in TABS if find_spec(_DRAW[word][0]) is not None]
    if not words:
        return
    tabs = st.tabs([TABS[word] for word in words], key="features_tabs", on_change="rerun")
    for word, tab in zip(words, tabs, strict=True):
        with tab:
            if tab.open:
                module, function = _DRAW[word]
                getattr(import_module(module), function)()


def _draw_top() -> FeaturesAsked | None:
    asked = prompt_inputs()
    if not page_state(asked):
        return None
    if find_spec("pages.shared.feature_source") is not None:
        from pages.shared.feature_source import draw_source

        if not draw_source(asked):
            return None
    return FeaturesAsked(asked, st.session_state[TRANSCODER], st.session_state["feature_show_bos"])


def features_asked() -> FeaturesAsked | None:
    """What the tabs work on; None while there is no prompt or no usable transcoder (which is said above)."""
    return st.session_state.get(_ASKED)


def chosen_feature() -> Feature | None:
    """The selected feature, if one is."""
    from mi_core.transcoders.names import Feature

    chosen = selection()
    if chosen.layer is None or chosen.feature is None:
        return None
    return Feature(chosen.layer, chosen.feature)


def choose_feature(feature: Feature, position: int | None = None, tab: str = "") -> None:
    """Select a feature (a button's callback); optionally its token, and the tab that opens."""
    from dataclasses import replace

    chosen = replace(selection(), layer=feature.layer, feature=feature.index)
    select(chosen if position is None else replace(chosen, position=position))
    if tab:
        st.session_state["features_tabs"] = TABS[tab]


def pins() -> tuple[Feature, ...]:
    """The pinned features; what cannot be read is left out."""
    from mi_core.errors import InputError
    from mi_core.transcoders.names import parse_features

    try:
        return parse_features(st.session_state[PINS])
    except InputError:
        return ()


def toggle_pin(feature: Feature) -> None:
    """Pin a feature, or take its pin away (a button's callback)."""
    from mi_core.transcoders.names import format_features

    now = pins()
    kept = tuple(one for one in now if one != feature)
    st.session_state[PINS] = format_features(kept if feature in now else (*now, feature))
