"""The dead list: features that were never active on the corpus."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from mi_core.errors import LanternError
from pages.shared.boundary import show_error
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.transcoders.transcoder import Transcoder


def draw_dead_list(transcoder: Transcoder) -> None:
    """How many features of every layer are dead, and which."""
    from mi_core.transcoders.corpus_density import fitting_summary

    try:
        summary = fitting_summary(transcoder)
    except LanternError as error:
        show_error(error)
        return
    if summary is None:
        st.caption("Which features are dead is known after a corpus pass of Lantern's.")
        return
    rows, names = summary.dead_table(), summary.dead_names()
    st.caption(
        f"Never active at any of {summary.n_tokens:,} tokens of {plain(summary.text)} "
        f"({summary.n_documents:,} documents): {len(names):,} of {summary.n_features:,} features. On another "
        "text they may be active."
    )
    st.dataframe(rows, hide_index=True, width="stretch", alt="Dead features by layer")
    st.download_button(
        "Dead list (TXT)",
        "\n".join(names) + "\n",
        file_name=f"{transcoder.name}-dead.txt".replace("/", "-"),
        mime="text/plain",
        icon=":material/download:",
        key="feature_dead_download",
        on_click="ignore",
        disabled=not names,
    )
