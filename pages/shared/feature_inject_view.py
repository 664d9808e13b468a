"""What an intervention on features changed: from -> to, numbers before and after, tokens, features, text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.errors import LanternError
from pages.shared.boundary import show_error
from pages.shared.feature_inject_text import INJECT_FORMULA
from pages.shared.features_page import choose_feature
from pages.shared.figure_card import figure_card
from pages.shared.session import chosen_about, hub
from pages.shared.text import code, plain

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
        _draw_continuation(result)
        return
    figure_card("inject_top", top_figure(result), formula=INJECT_FORMULA)
    _draw_continuation(result)
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
                f"{len(frame)} activations{told} of transcoder {result.transcoder}; "
                f"{FROZEN[result.inputs.frozen]}. From: what the encoder says once the edits of earlier "
                "layers act. Rows added: to \N{MINUS SIGN} from, how many times the decoder rows are added. "
                "||delta|| / ||residual||: the largest of that token over the layers, with all edits there."
            )
        )


def _done(frame: pd.DataFrame) -> pd.DataFrame:
    """The table of edited features with from and to in one column, and without what is not known."""
    from mi_core.exports.feature_inject import LARGEST

    shown = _written(frame, frame.columns[2:7])
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
    from mi_core.exports.feature_inject import before_after_table, top_table

    frame, top = before_after_table(result), top_table(result)
    with st.container(border=True, key="inject_table"):
        st.markdown("**Before and after, at the last token**")
        left, right = st.columns([7, 5])
        left.dataframe(_written(frame, frame.columns[2:5]), hide_index=True, alt="Target before and after")
        right.dataframe(_ranked(top), hide_index=True, alt="Top tokens before and after")
        said = f"Target: {result.target.visible}"
        if result.target.chosen_by == "model":
            said += ", the baseline's top token"
        if result.distractor is not None:
            said += f"; distractor: {result.distractor.visible}"
        st.caption(
            plain(
                f"{said}. One prompt; differences are edited \N{MINUS SIGN} baseline, 0 = no change; ranks "
                f"count from 1. KL(baseline || edited) = {number(result.kl)} nats."
            )
        )
        if not result.edits:
            _draw_checks(result)
        _draw_downloads(result)


def _ranked(top: pd.DataFrame) -> pd.DataFrame:
    """The top tokens with both ranks in one column."""
    shown = _written(top, top.columns[3:6])
    both = shown["rank before"].astype(str) + " → " + shown["rank after"].astype(str)
    shown = shown.drop(columns=["rank before", "rank after"])
    shown.insert(1, "rank", both)
    return shown


def _written(frame: pd.DataFrame, columns: Any) -> pd.DataFrame:
    """The table with its numbers as people write them; nothing where there is none."""
    from mi_core.charts.text import number

    shown = frame.copy()
    for name in columns:
        shown[name] = [number(value) if value == value else "" for value in frame[name]]  # not NaN
    return shown


def _draw_checks(result: InjectResult) -> None:
    for check in result.checks:
        if not check.passed:
            st.error(plain(f"Check failed: {check.name}. {check.detail} Do not trust these numbers."))
    if all(check.passed for check in result.checks):
        st.caption(plain("Checked: an empty list gives the baseline bit for bit."))


def _draw_downloads(result: InjectResult) -> None:
    from mi_core.exports.feature_inject import before_after_table, edited_table

    with st.container(horizontal=True, gap="xsmall", key="inject_downloads"):
        for label, name, make in (
            ("CSV", "inject.csv", lambda: before_after_table(result).to_csv(index=False).encode()),
            ("Edits, CSV", "inject-edits.csv", lambda: edited_table(result).to_csv(index=False).encode()),
            ("JSON", "inject.json", lambda: result.to_json().encode()),
        ):
            st.download_button(
                label, make, file_name=name, key=f"download_{name}", on_click="ignore",
                icon=":material/download:", type="tertiary",
            )  # fmt: skip


def _draw_continuation(result: InjectResult) -> None:
    if not len(result.baseline_ids):
        return
    with st.container(border=True, key="inject_continuation"):
        st.markdown("**Greedy continuation**")
        left, right = st.columns(2)
        for column, name, ids in (
            (left, "Baseline", result.baseline_ids.tolist()),
            (right, "Edited", result.edited_ids.tolist()),
        ):
            with column:
                st.caption(name)
                st.markdown(code("".join(result.vocabulary[token] for token in ids), 2000))
        first = result.first_changed_step
        if result.edits:
            st.caption(
                "Both say the same."
                if first is None
                else f"They differ from token {first + 1} of the continuation on."
            )


def _choose(result: InjectResult, cell: dict[str, Any]) -> None:
    """A click on a bar selects that feature and its token."""
    index = cell.get("index")
    if isinstance(index, int) and 0 <= index < len(result.feature_names):
        at = result.feature_names[index]
        choose_feature(at.feature, at.position)
