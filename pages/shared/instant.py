"""Pages that only look: settings in, result out, no button, as long as the answer comes at once.

A change of the settings runs the analysis again by itself. What would take longer than `AUTOMATIC_SECONDS`
says its cost and waits for a button; what is under way shows its progress and can be cancelled; what was
asked before, in any tab, is there at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import streamlit as st

from pages.shared import running
from pages.shared.boundary import draw_failure
from pages.shared.prompt_state import tokens_of
from pages.shared.running import Run, duration
from pages.shared.session import chosen_about, hub, waiter
from pages.shared.text import code, plain

if TYPE_CHECKING:
    from mi_core.analyses import Step
    from mi_core.model.model import LoadedModel
    from mi_core.tokens import TokenizedPrompt
    from pages.shared.hub import About
    from pages.shared.job import Job

AUTOMATIC_SECONDS = 3.0
"""What is expected to take longer waits for a button."""


@dataclass(frozen=True)
class Asked:
    """The header's prompt as a page needs it.

    Attributes:
        prompt: the text.
        bos: "auto", "always" or "never".
        tokens: its tokens; None while there are none.
        about: the chosen model; None while nothing is known about it.
        problem: why the page cannot go on, a plain sentence; empty when it can.
    """

    prompt: str
    bos: str
    tokens: TokenizedPrompt | None
    about: About | None
    problem: str = ""

    @property
    def ready(self) -> bool:
        """Whether there is a prompt to look at."""
        return self.tokens is not None and self.about is not None


def prompt_inputs() -> Asked:
    """The prompt above the page, or why there is none."""
    return _asked(st.session_state["prompt"])


def second_prompt_inputs() -> Asked | None:
    """The second prompt, if one is typed."""
    text = st.session_state["second_prompt"]
    return _asked(text) if text else None


def _asked(text: str) -> Asked:
    bos, about = st.session_state["bos"], chosen_about()
    if about is None:
        return Asked(text, bos, None, None, "The model is not loaded yet; the sidebar shows how far it is.")
    if not text:
        return Asked(text, bos, None, about, "Type a prompt above, or pick an example in the sidebar.")
    tokens, problem = tokens_of(text, about)
    return Asked(text, bos, tokens, about, problem)


def page_state(asked: Asked) -> bool:
    """Whether the page can go on; if not, the reason is drawn."""
    if asked.ready:
        return True
    head, _, block = asked.problem.partition("\n\n")
    st.info(plain(head), icon=":material/edit:")
    if block.strip():
        st.code(block.strip("\n"), language=None)
    return False


def pass_seconds(asked: Asked, *, passes: float = 1.0) -> float | None:
    """How long forward passes over the prompt will take; None while the model's speed is unknown.

    Args:
        asked: the prompt.
        passes: how many of them.
    """
    model = None if asked.about is None else hub().resident(asked.about.spec)
    if model is None or not model.token_layers_per_second or asked.tokens is None:
        return None
    return passes * len(asked.tokens) * model.dims.n_layers / model.token_layers_per_second


def instant(
    slot: str,
    inputs: Hashable,
    function: Callable[..., Any],
    label: str,
    *,
    about: About,
    seconds: float | None = None,
    draw_partial: Callable[[Any], None] | None = None,
) -> Any | None:
    """The result of an analysis for the settings of this moment.

    Args:
        slot: short name of the analysis on this page; its last run is remembered under it.
        inputs: frozen Inputs; with the model they are the cache key.
        function: `(model, inputs, *, on_step) -> Result`, called on the worker thread.
        label: what is shown while it runs.
        about: the model.
        seconds: how long it is expected to take; None = short.
        draw_partial: draws a partial result while the rest is computed.

    Returns:
        The result; or None, and then progress, an error or a button with the cost has been drawn.
    """
    run = _run_for(slot, inputs, about)
    if run is None:
        if (
            seconds is not None
            and not seconds <= AUTOMATIC_SECONDS
            and not _wanted(slot, label, about, seconds)
        ):
            return None
        run = begin(slot, inputs, function, label, about)
    if not running.settle(run):
        running.follow(slot, draw_partial or (lambda partial: None))
        return None
    if run.error is not None:
        draw_failure(run.error, label)
        _again(slot, "Try again")
        return None
    if getattr(run.result, "cancelled", False):
        st.badge("stopped early: this is what was done", icon=":material/stop_circle:", color="orange")
        _again(slot, "Run again")
    return run.result


def _run_for(slot: str, inputs: Hashable, about: About) -> Run | None:
    """The slot's run if it is for these settings, or a result that is in memory."""
    run, question = running.current(slot), _question(inputs, about)
    if run is not None and run.spec == about.spec and run.inputs == question:
        return run
    known = hub().result(about.spec, (slot, about.fingerprint, question))
    return None if known is None else running.finished(slot, about.spec, question, known)


def _question(inputs: Hashable, about: About) -> Hashable:
    """What a result depends on: the Inputs, and the state of a transcoder's files, which can be made anew."""
    name = getattr(inputs, "transcoder", None)
    if name is None:
        return inputs
    from mi_core.transcoders.store import stamp_of

    return (inputs, stamp_of(name, about.spec))


def begin(slot: str, inputs: Hashable, function: Callable[..., Any], label: str, about: About) -> Run:
    """Start an analysis on the worker thread; equal questions of other tabs share the run."""
    question = _question(inputs, about)

    def work(model: LoadedModel, job: Job) -> Any:
        return function(model, inputs, on_step=step_reporter(job))

    job = hub().run(about.spec, (slot, about.fingerprint, question), waiter(), work, label)
    return running.begin(slot, about.spec, question, job)


def step_reporter(job: Job, what: str = "") -> Callable[[Step], None]:
    """An analysis' `on_step` that tells a job how far it is; stops the analysis when nobody waits any more.

    Args:
        job: what the page waits for.
        what: the things that the analysis counts, such as "cells".
    """

    def on_step(step: Step) -> None:
        job.report(
            step.done / max(1, step.total),
            f"{step.text}, {step.done:,} of {step.total:,} {what}".rstrip() if step.total > 1 else step.text,
            seconds_left=step.seconds_left,
            partial=step.partial,
        )

    return on_step


def _wanted(slot: str, label: str, about: About, seconds: float) -> bool:
    """A button with the cost; True in the run in which it was pressed."""
    time = "a time that is not known yet" if math.isnan(seconds) else f"about **{duration(seconds)}**"
    with st.container(horizontal=True, vertical_alignment="center", gap="medium", key=f"ask_{slot}"):
        pressed = st.button("Run", type="primary", icon=":material/play_arrow:", key=f"start_{slot}")
        st.caption(f"{plain(label)}: {time} on {code(about.device)}")
    return pressed


def _again(slot: str, label: str) -> None:
    st.button(label, icon=":material/refresh:", key=f"again_{slot}", on_click=running.forget, args=(slot,))


def draw_warnings(result: Any, told: Collection[str] = ()) -> None:
    """What has to be known before a figure is read; what stands on the page already is left out."""
    for warning in (one for one in result.warnings if one not in told):
        st.warning(plain(warning), icon=":material/warning:")
