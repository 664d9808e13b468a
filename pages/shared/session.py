"""Who is asking: the browser session, its model and the process-wide hub."""

from __future__ import annotations

import functools
import threading
import uuid
from typing import TYPE_CHECKING

import streamlit as st
from streamlit.runtime import Runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

from pages.shared.hub import ModelHub

if TYPE_CHECKING:
    from mi_core.model.spec import ModelSpec

BUNDLED = "atlas"

_lock = threading.Lock()


def hub() -> ModelHub:
    """The hub of this process."""
    with _lock:
        return _hub()


@functools.cache
def _hub() -> ModelHub:
    return ModelHub(alive=_alive)


def _alive(waiter: str) -> bool:
    """Whether the browser session that a waiter belongs to is still connected."""
    if not Runtime.exists():
        return True
    return Runtime.instance().is_active_session(waiter.split("/")[0])


def waiter() -> str:
    """Name of this session towards the worker."""
    if "_waiter" not in st.session_state:
        context = get_script_run_ctx()
        st.session_state["_waiter"] = f"{context.session_id if context else 'none'}/{uuid.uuid4().hex}"
    return st.session_state["_waiter"]


def default_spec() -> ModelSpec:
    """The bundled model, as it is first loaded."""
    from mi_core.model.spec import ModelSpec

    return ModelSpec(name=BUNDLED)


def chosen_spec() -> ModelSpec:
    """The model that this session has chosen in the sidebar or by its link."""
    from mi_core.model.spec import ModelSpec

    state = st.session_state
    return ModelSpec(
        name=state["model"], revision=state["revision"] or None, dtype=state["dtype"], device=state["device"]
    )
