"""Who is asking: the browser session, its model and the process-wide hub."""

from __future__ import annotations

import functools
import threading
import uuid
from dataclasses import replace

import streamlit as st
from streamlit.runtime import Runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

from mi_core.errors import InputError
from mi_core.model.spec import ModelSpec
from pages.shared.hub import About, ModelHub
from pages.shared.jobs import Worker
from pages.shared.prompt_state import SPREAD

BUNDLED = "atlas"

_lock = threading.Lock()


def hub() -> ModelHub:
    """The hub of this process."""
    with _lock:
        return _hub()


@functools.cache
def _hub() -> ModelHub:
    return ModelHub(alive=_alive)


@functools.cache
def downloads() -> Worker:
    """The worker that fetches files: a download of hours must not keep everybody's runs waiting."""
    return Worker("fetch-worker", alive=_alive)


def _alive(waiter: str) -> bool:
    """Whether the browser session that a waiter belongs to is still connected."""
    try:
        return Runtime.instance().is_active_session(waiter.split("/")[0])
    except RuntimeError:  # no server: a script or a test
        return True


def waiter() -> str:
    """Name of this session towards the worker."""
    if "_waiter" not in st.session_state:
        context = get_script_run_ctx()
        st.session_state["_waiter"] = f"{context.session_id if context else 'none'}/{uuid.uuid4().hex}"
    return st.session_state["_waiter"]


def default_spec() -> ModelSpec:
    """The bundled model, as it is first loaded."""
    return ModelSpec(BUNDLED)


def chosen_spec() -> ModelSpec:
    """The model that this session has chosen in the sidebar or by its link.

    Raises:
        InputError: what was typed cannot name a model.
    """
    state = st.session_state
    named = ModelSpec.from_text(state["model"])
    spread = state["device"] == SPREAD
    return replace(
        named,
        dtype=state["dtype"],
        device="auto" if spread else state["device"],
        attention=state["attention"],
        device_map="auto" if spread else None,
    )


def chosen_about() -> About | None:
    """What is known about the chosen model; None while it was never loaded, or cannot be."""
    try:
        return hub().about(chosen_spec())
    except InputError:
        return None
