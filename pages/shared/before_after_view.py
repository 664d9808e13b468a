"""What pages show of one prompt without and with edits: numbers, checks, files, continuations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import streamlit as st

from pages.shared.text import code, plain

if TYPE_CHECKING:
    import pandas as pd

    from mi_core.analyses.before_after import TwoRuns
    from mi_core.analyses.causal_trace_parts import Check


def written(frame: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """The table with the numbers of some columns as people write them; nothing where there is none."""
    from mi_core.charts.text import number

    shown = frame.copy()
    for name in columns:
        shown[name] = [number(value) if value == value else "" for value in frame[name]]  # not NaN
    return shown


def followed(result: TwoRuns) -> str:
    """Which tokens the numbers are of, and who chose them."""
    said = f"Target: {result.target.visible}"
    if result.target.chosen_by == "model":
        said += ", the baseline's top token"
    if result.distractor is not None:
        said += f"; distractor: {result.distractor.visible}"
    return said


def draw_empty_checks(checks: Sequence[Check]) -> None:
    """The checks of an empty list, which has no figure that could show them."""
    for check in checks:
        if not check.passed:
            st.error(plain(f"Check failed: {check.name}. {check.detail} Do not trust these numbers."))
    if all(check.passed for check in checks):
        st.caption(plain("Checked: an empty list gives the baseline bit for bit."))


def draw_downloads(key: str, files: Iterable[tuple[str, str, Callable[[], bytes]]]) -> None:
    """A row of buttons that save files.

    Args:
        key: of the row.
        files: label, file name, and what makes the file once it is asked for.
    """
    with st.container(horizontal=True, gap="xsmall", key=key):
        for label, name, make in files:
            st.download_button(
                label, make, file_name=name, key=f"download_{name}", on_click="ignore",
                icon=":material/download:", type="tertiary",
            )  # fmt: skip


def draw_continuation(result: TwoRuns, key: str, edits: Sequence[str]) -> None:
    """Both greedy continuations side by side; nothing where nothing was continued.

    Args:
        result: the two runs.
        key: of the card.
        edits: the list; without any, there is nothing to compare.
    """
    from mi_core.analyses.before_after import first_changed_step

    if not len(result.baseline_ids):
        return
    with st.container(border=True, key=key):
        st.markdown("**Greedy continuation**")
        left, right = st.columns(2)
        for column, name, ids in (
            (left, "Baseline", result.baseline_ids.tolist()),
            (right, "Edited", result.edited_ids.tolist()),
        ):
            with column:
                st.caption(name)
                st.markdown(code("".join(result.vocabulary[token] for token in ids) or "(nothing)", 2000))
        if not edits:
            return
        first = first_changed_step(result)
        st.caption(
            "Both say the same."
            if first is None
            else f"They differ from token {first + 1} of the continuation on."
        )
