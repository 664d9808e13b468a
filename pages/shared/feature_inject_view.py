"""What an intervention on features changed: from -> to, numbers before and after, tokens, features, text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.errors import LanternError
from pages.shared.before_after_view import (
    draw_continuation,
    draw_downloads,
    draw_empty_checks,
    followed,
    written,
)
from pages.shared.boundary import show_error
from pages.shared.feature_inject_text import INJECT_FORMULA
from pages.shared.features_page import choose_feature
from pages.shared.figure_card import figure_card
from pages.shared.session import chosen_about, hub
from pages.shared.text import plain

if TYPE_CHECKING:
    import pandas as pd

    from mi_core.transcoders.inject_result import InjectResult


def draw_result(result: InjectResult) -> None:
    """Everything, from what was done to what the model says then."""
    from mi_core.charts.feature_inject import shown_tokens
    from mi_core.exports.feature_inject import features_figure, push_figure, top_figure

    if result.edits:
        _draw_edited(result)
    _draw_table(result)
    if not result.edits:
        draw_continuation(result, "inject_continuation", result.edits)
        return
    figure_card("inject_top", top_figure(result), formula=INJECT_FORMULA)
    if result.inputs.frozen == "everything" and result.inputs.continuation:
        st.info(
            "No continuation with everything frozen: a new token has no baseline to be frozen at. Freeze "
            "attention, or nothing, to see what the model goes on to say; here the top tokens above are all "
            "that the direct effects give.",
            icon=":material/info:",
        )
    draw_continuation(result, "inject_continuation", result.edits)
    if len(result.feature_layers):
        figure_card(
            "inject_features",
            features_figure(result),
            on_cell=lambda cell: _choose(result, cell),
            formula=INJECT_FORMULA,
        )
    else:
        st.caption(plain("No other feature changes."))
    if shown_tokens(result):
        figure_card("inject_push", push_figure(result), formula=INJECT_FORMULA)


def _draw_edited(result: InjectResult) -> None:
    from mi_core.exports.feature_inject import FROZEN, edited_table, n_idle

    frame, hidden = edited_table(result, idle=False, labels=_labels(result)), n_idle(result)
    with st.container(border=True, key="inject_edited"):
        st.markdown("**What is done**")
        told = f" ({hidden} more are 0 before and after)" if hidden else ""
        st.dataframe(_done(frame), hide_index=True, alt="Activations from and to")
        st.caption(
            plain(
                f"{len(frame)} activation{'' if len(frame) == 1 else 's'}{told} of transcoder "
                f"{result.transcoder}; {FROZEN[result.inputs.frozen]}. From: what the encoder says once the "
                "edits of earlier layers act. Rows added: to \N{MINUS SIGN} from, how many times the decoder "
                "rows are added; edits of one activation stand one after the other. ||delta|| / "
                "||residual||: the largest of that token over the layers, with all edits there; added up: "
                "the same with all that was added up to a layer."
            )
        )


def _done(frame: pd.DataFrame) -> pd.DataFrame:
    """The table of edited features with from and to in one column, and without what is not known."""
    from mi_core.exports.feature_inject import LARGEST

    shown = written(frame, frame.columns[2:8])
    arrow = [f"{before} → {after}" for before, after in zip(shown["from"], shown["to"], strict=True)]
    unknown = [] if any(shown[LARGEST]) else [LARGEST]
    shown = shown.drop(columns=["from", "to", *unknown])
    shown.insert(2, "from → to", arrow)
    return shown


def _labels(result: InjectResult) -> dict[str, str]:
    """The names that the user (or the transcoder's folder) gives to the edited features."""
    from mi_core.transcoders.labels import labels_of

    about = chosen_about()
    model = None if about is None else hub().resident(about.spec)
    opened = [] if model is None else list(model.transcoders.values())
    folder = next((one.folder for one in opened if one.fingerprint == result.fingerprint), None)
    try:
        known = labels_of(result.fingerprint, folder)
    except LanternError as error:
        show_error(error)
        return {}
    edited = {at.feature.text for at in result.edited_names}
    return {name: label.text for name, label in known.items() if name in edited}


def _draw_table(result: InjectResult) -> None:
    from mi_core.charts.text import number
    from mi_core.exports.before_after import before_after_table
    from mi_core.exports.feature_inject import top_table

    frame, top = before_after_table(result), top_table(result)
    with st.container(border=True, key="inject_table"):
        st.markdown("**Before and after, at the last token**")
        left, right = st.columns([8, 5])
        left.dataframe(written(frame, frame.columns[2:5]), hide_index=True, alt="Target before and after")
        right.dataframe(_ranked(top), hide_index=True, alt="Top tokens before and after")
        st.caption(
            plain(
                f"{followed(result)}. One prompt; differences are edited \N{MINUS SIGN} baseline, 0 = no "
                f"change; ranks count from 1. KL(baseline || edited) = {number(result.kl)} nats."
            )
        )
        if not result.edits:
            draw_empty_checks(result.checks)
        _draw_downloads(result)


def _ranked(top: pd.DataFrame) -> pd.DataFrame:
    """The top tokens with both ranks in one column."""
    shown = written(top, top.columns[3:6])
    both = shown["rank before"].astype(str) + " → " + shown["rank after"].astype(str)
    shown = shown.drop(columns=["rank before", "rank after"])
    shown.insert(1, "rank", both)
    return shown


def _draw_downloads(result: InjectResult) -> None:
    from mi_core.exports.before_after import before_after_table
    from mi_core.exports.feature_inject import edited_table

    draw_downloads(
        "inject_downloads",
        (
            ("CSV", "inject.csv", lambda: before_after_table(result).to_csv(index=False).encode()),
            ("Edits, CSV", "inject-edits.csv", lambda: edited_table(result).to_csv(index=False).encode()),
            ("JSON", "inject.json", lambda: result.to_json().encode()),
        ),
    )


def _choose(result: InjectResult, cell: dict[str, Any]) -> None:
    """A click on a bar selects that feature and its token."""
    index = cell.get("index")
    if isinstance(index, int) and 0 <= index < len(result.feature_names):
        at = result.feature_names[index]
        choose_feature(at.feature, at.position)
