"""The model's config.json with who reads each key, memory, and how long loading took."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from pages.shared.model_inspection import inspection
from pages.shared.running import duration
from pages.shared.session import chosen_about
from pages.shared.text import code, plain

if TYPE_CHECKING:
    from mi_core.analyses import InspectResult
    from pages.shared.hub import About


def draw_config_tab() -> None:
    """Memory and load time, then the configuration."""
    about = chosen_about()
    result = inspection(about)
    if about is None or result is None:
        return
    _draw_memory(about, result)
    _draw_config(result)


def _draw_memory(about: About, result: InspectResult) -> None:
    from mi_core.model.progress import format_bytes

    st.subheader("Memory")
    with st.container(horizontal=True, gap="medium", key="memory_facts"):
        st.metric("Loaded in", duration(result.load_seconds), width="content")
        st.metric("Weights", format_bytes(sum(one.weights for one in result.memory)), width="content")
        st.metric("Number format", plain(about.dtype), width="content")
        st.metric("Device", plain(about.device), width="content")
    st.dataframe(
        {
            "device": [one.device for one in result.memory],
            "weights of this model": [format_bytes(one.weights) for one in result.memory],
            "free": ["unknown" if one.free is None else format_bytes(one.free) for one in result.memory],
            "peak": ["unknown" if one.peak is None else format_bytes(one.peak) for one in result.memory],
        },
        hide_index=True,
        alt="Memory per device.",
    )
    st.caption(
        "As it was when the model was inspected. Peak: the most that this process has held since it started "
        "(on a GPU: that torch has held there). Fingerprint of the weights: " + code(about.fingerprint)
    )


def _draw_config(result: InspectResult) -> None:
    st.subheader("config.json")
    unread = result.unread_keys()
    for key in unread:
        st.warning(
            f"Nothing here reads {code(key.key)} = {code(key.value)}. If it changes how the model computes, "
            "what runs here is not quite the model that was published.",
            icon=":material/warning:",
        )
    if not unread:
        st.caption("Every key is read, by Lantern or by transformers, which runs the model.")
    shown = result.config
    st.dataframe(
        {
            "key": [key.key for key in shown],
            "value": [key.value for key in shown],
            "read by": [key.reader for key in shown],
            "is the default": [key.default for key in shown],
            "note": [key.note for key in shown],
        },
        hide_index=True,
        height="content",
        alt="Keys of the configuration and who reads them.",
    )
