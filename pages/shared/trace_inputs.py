"""What the causal trace's widgets ask for: inputs, mistakes, cost, and what changed since a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.analyses.causal_trace_inputs import KIND_LABELS, CausalTraceInputs
from mi_core.errors import InputError, LanternError
from pages.shared.link import show_span
from pages.shared.prompt_state import subject_span, tokens_of
from pages.shared.running import duration
from pages.shared.session import hub
from pages.shared.text import code, plain
from pages.shared.trace_fields import KINDS

if TYPE_CHECKING:
    from pages.shared.hub import About

TIMES = "\N{MULTIPLICATION SIGN}"

MAX_PLANNED_CELLS = 12_000
"""Above this, planning takes a second by itself, and a page should not wait for it."""

MAX_CELLS = 200_000

INPUT_NAMES = {
    "prompt": "prompt",
    "corrupted_prompt": "second prompt",
    "subject": "subject",
    "noise": "kind of noise",
    "noise_level": "noise level",
    "noise_unit": "unit of the noise",
    "samples": "samples",
    "seed": "seed",
    "direction": "direction",
    "kinds": "what is restored",
    "window": "window",
    "window_convention": "place of the window",
    "head_position": "position of the heads",
    "answer": "target",
    "distractor": "compared token",
    "bos": "BOS token",
}


@dataclass(frozen=True)
class Asked:
    """What the widgets ask for right now.

    Attributes:
        inputs: the trace; None when something is missing or wrong.
        problem: what is missing or wrong, a plain sentence.
    """

    inputs: CausalTraceInputs | None
    problem: str = ""


def asked(about: About | None) -> Asked:
    """Make the inputs from the widgets; a mistake becomes one sentence and nothing is lost.

    Args:
        about: the model, for what depends on it; None while it is unknown.
    """
    state = st.session_state
    span, problem = subject_span()
    if problem:
        return Asked(None, problem)
    if not state["prompt"]:
        return Asked(None, "Type a prompt that ends just before its answer.")
    swap = state["corruption"] == "prompt"
    if swap and not state["second_prompt"]:
        return Asked(None, "Type the second prompt: the same sentence with another subject.")
    if not swap and span is None:
        return Asked(None, "Choose the subject: click its first and its last token above.")
    try:
        inputs = _inputs(span, swap)
    except InputError as error:
        return Asked(None, str(error))
    problem = "" if about is None else _too_long(about, inputs)
    return Asked(None if problem else inputs, problem)


def _too_long(about: About, inputs: CausalTraceInputs) -> str:
    """What does not fit the model or anybody's patience, a plain sentence."""
    tokens, problem = tokens_of(inputs.prompt, about)
    if tokens is None:
        return problem
    cells = _cells(about, inputs)
    if cells > MAX_CELLS:
        return f"The trace has more than {MAX_CELLS:,} cells. Shorten the prompt or restore fewer kinds."
    return ""


def _cells(about: About, inputs: CausalTraceInputs) -> int:
    tokens, _ = tokens_of(inputs.prompt, about)
    return (0 if tokens is None else len(tokens)) * about.dims.n_layers * len(inputs.kinds)


def _inputs(span: tuple[int, int] | None, swap: bool) -> CausalTraceInputs:
    state = st.session_state
    noise: dict[str, Any] = (
        {}
        if swap
        else {name: state[name] for name in ("noise", "noise_unit", "samples", "seed")}
        | {"noise_level": float(state["noise_level"])}
    )
    return CausalTraceInputs(
        prompt=state["prompt"],
        corrupted_prompt=state["second_prompt"] if swap else None,
        subject=span,
        direction=state["direction"],
        kinds=tuple(kind for kind in KINDS if kind in state["kinds"]),
        window=state["window"],
        window_convention=state["window_convention"],
        head_position=state["head_position"] if "head" in state["kinds"] else None,
        answer=state["answer"] or None,
        distractor=state["distractor"] or None,
        bos=state["bos"],
        **noise,
    )


def restore(inputs: CausalTraceInputs) -> None:
    """Put the settings of a finished run back into the widgets (a button's callback)."""
    state = st.session_state
    swap = inputs.corrupted_prompt is not None
    state.update(
        prompt=inputs.prompt,
        corruption="prompt" if swap else "noise",
        subject=show_span(inputs.subject),
        direction=inputs.direction,
        kinds=list(inputs.kinds),
        window=inputs.window,
        window_convention=inputs.window_convention,
        head_position=inputs.head_position,
        answer=inputs.answer or "",
        distractor=inputs.distractor or "",
        bos=inputs.bos,
    )
    if swap:
        state["second_prompt"] = inputs.corrupted_prompt
    else:
        for name in ("noise", "noise_level", "noise_unit", "samples", "seed"):
            state[name] = getattr(inputs, name)


def changed(old: CausalTraceInputs, new: CausalTraceInputs) -> list[str]:
    """Names of the settings in which two traces differ."""
    return [name for field, name in INPUT_NAMES.items() if getattr(old, field) != getattr(new, field)]


def cost_line(about: About | None, inputs: CausalTraceInputs) -> str:
    """What a run will cost, as Markdown.

    Raises:
        LanternError: when the trace cannot be run (bad span, unequal prompts, missing site).
    """
    if about is None or hub().resident(about.spec) is None:
        return "The cost is known when the model is loaded."
    plan = _plan(about, inputs)
    if plan is None:
        return f"{_cells(about, inputs):,} cells: this will take long; Cancel keeps what is done."
    kinds = ", ".join(KIND_LABELS[kind] for kind in inputs.kinds)
    samples = f" {TIMES} {plan.rows} samples" if plan.rows > 1 else ""
    time = "time unknown until something has run"
    if not math.isnan(plan.seconds):
        time = f"about **{duration(plan.seconds)}**"
    return f"{plan.variants:,} patched runs{samples} ({kinds}) · {time} on {code(about.device)}"


def expected_seconds(about: About, inputs: CausalTraceInputs) -> float | None:
    """How long a run will take; None when the model is not in memory or the trace is very large.

    Raises:
        LanternError: see `cost_line`.
    """
    plan = _plan(about, inputs)
    return None if plan is None else plan.seconds


def _plan(about: About, inputs: CausalTraceInputs) -> Any:
    """The plan of the last inputs is remembered: a rerun for another reason must not pay for it again."""
    from mi_core.analyses import causal_trace_plan

    model = hub().resident(about.spec)
    if model is None or _cells(about, inputs) > MAX_PLANNED_CELLS:
        return None
    key = (about.spec, inputs)
    known = st.session_state.get("_trace_plan")
    if known is None or known[0] != key:
        try:
            known = (key, causal_trace_plan(model, inputs), None)
        except LanternError as error:
            known = (key, None, error)
        st.session_state["_trace_plan"] = known
    if known[2] is not None:
        raise known[2]
    return known[1]


def sentence(problem: str) -> str:
    """A problem as Markdown that shows it literally (first line only; a block after it is for `st.code`)."""
    return plain(problem.partition("\n\n")[0])
