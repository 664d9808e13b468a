"""The wall around a page: whatever goes wrong inside is told in a sentence, and the frame stays."""

from __future__ import annotations

import logging
import platform
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from mi_core.errors import LanternError
from pages.shared.text import code, plain

logger = logging.getLogger(__name__)

_KINDS_WITH_ICON = {"OutOfMemory": ":material/memory:"}


@contextmanager
def boundary(where: str) -> Iterator[None]:
    """Show an error of the page inside the page; a stop or a rerun passes through (a BaseException).

    Args:
        where: what was being drawn, for the report.
    """
    try:
        yield
    except LanternError as error:
        show_error(error)
    except Exception as error:  # the wall itself: a bug in a page must not take the frame with it
        show_bug(error, where)


def draw_failure(error: BaseException, where: str) -> None:
    """Why a run has no result: it was stopped, it was asked for something impossible, or it broke.

    Args:
        error: what the run ended with.
        where: what was being computed, for the report.
    """
    if isinstance(error, LanternError):
        show_error(error)
    elif isinstance(error, Exception):
        show_bug(error, where)
    else:
        st.info("The run was stopped before there was anything to draw.", icon=":material/stop_circle:")


def show_error(error: LanternError) -> None:
    """A mistake or a limit, in the error's own words. Aligned tokenisations keep their line breaks."""
    head, _, block = str(error).partition("\n\n")
    icon = _KINDS_WITH_ICON.get(type(error).__name__, ":material/error:")
    st.error(plain(head), icon=icon)
    if block.strip():
        st.code(block.strip("\n"), language=None)


def show_bug(error: Exception, where: str) -> None:
    """Something that should not happen: an id for the log, and a report that can be copied."""
    bug_id = uuid.uuid4().hex[:8]
    logger.error("bug %s in %s", bug_id, where, exc_info=error)
    st.error(
        f"Something in {plain(where)} broke ({code(type(error).__name__)}). Your settings are kept. "
        f"The log of the server has the details under {code(bug_id)}.",
        icon=":material/bug_report:",
    )
    with st.expander("Report to copy"):
        st.code(_report(error, where, bug_id), language=None)


def _report(error: Exception, where: str, bug_id: str) -> str:
    """Versions, place and the frames of our own code; no values, which might be somebody's prompt."""
    frames = [f"  {frame.name} line {frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    return "\n".join(
        [
            f"bug {bug_id} in {where}: {type(error).__name__}",
            f"python {platform.python_version()}, streamlit {st.__version__}",
            *frames[-8:],
        ]
    )
