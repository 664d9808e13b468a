"""The attribution page: settings into inputs, and the figures of the result."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.analyses.attribution_inputs import (
    AttributionInputs,
    head_name,
    neuron_name,
    parse_neuron,
)
from mi_core.errors import InputError
from pages.shared.attribution_fields import COMPARISONS, DRAWINGS
from pages.shared.attribution_view import (
    draw_heads,
    draw_neurons,
    draw_numbers,
    draw_parts,
    draw_sources,
)
from pages.shared.instant import Asked, draw_warnings, instant, page_state, pass_seconds, prompt_inputs
from pages.shared.selection import selection
from pages.shared.session import hub
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.analyses.attribution_result import AttributionResult
    from mi_core.model.model import LoadedModel
    from pages.shared.hub import About

SLOT = "attribution"


def draw_attribution() -> None:
    """The page below its title."""
    asked = prompt_inputs()
    if not page_state(asked) or asked.about is None:
        return
    _draw_settings()
    wanted = _wanted(asked, asked.about)
    for problem in wanted.problems:
        st.warning(plain(problem), icon=":material/warning:")
    if wanted.inputs is None:
        return
    result: AttributionResult | None = instant(
        SLOT, wanted.inputs, _run, "Attribution", about=asked.about, seconds=_seconds(asked)
    )
    if result is not None:
        _draw(result, wanted)


def _draw_settings() -> None:
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom", key="attribution_settings"):
        st.segmented_control(
            "Parts as", list(DRAWINGS), format_func=DRAWINGS.__getitem__, key="attribution_drawing",
            required=True, help="Waterfall: every bar begins where the sum so far ends.",
        )  # fmt: skip
        if st.session_state["second_prompt"]:
            st.segmented_control(
                "Control prompt", list(COMPARISONS), format_func=COMPARISONS.__getitem__,
                key="attribution_compare", required=True,
                help="Difference: the prompt's contributions minus those of the control prompt.",
            )  # fmt: skip
        st.text_input(
            "Neurons", key="attribution_neurons", width=200, placeholder="e.g. L3N102, L5N7",
            help="Neurons that are listed whatever they contribute, besides the largest ones.",
        )  # fmt: skip
        st.number_input(
            "Neurons shown", min_value=1, max_value=60, key="attribution_shown", width=130,
            help="How many neurons the figure has; the table has all that are listed.",
        )  # fmt: skip


@dataclass(frozen=True)
class _Wanted:
    """What the widgets ask for.

    Attributes:
        inputs: None when something essential is wrong.
        head: (layer, head) to split over source tokens, or None.
        problems: what cannot be done, a plain sentence each.
    """

    inputs: AttributionInputs | None
    head: tuple[int, int] | None
    problems: tuple[str, ...]


def _wanted(asked: Asked, about: About) -> _Wanted:
    """Inputs from header, settings and selection; what this model does not have is said and left out."""
    state = st.session_state
    head, problems = _head(about)
    neurons, more = _neurons(about, state["attribution_neurons"])
    problems += more
    try:
        inputs = AttributionInputs(
            prompt=asked.prompt,
            control_prompt=state["second_prompt"] or None,
            answer=state["answer"] or None,
            distractor=state["distractor"] or None,
            split_heads=() if head is None else (head_name(*head),),
            neurons=neurons,
            bos=asked.bos,  # type: ignore[arg-type]  # one of the header's three words
        )
    except InputError as error:
        return _Wanted(None, head, (*problems, str(error)))
    return _Wanted(inputs, head, tuple(problems))


def _head(about: About) -> tuple[tuple[int, int] | None, list[str]]:
    """The selected head, if this model has it and shows its attention."""
    now = selection()
    if now.layer is None or now.head is None:
        return None, []
    if now.layer >= about.dims.n_layers or now.head >= about.dims.n_heads:
        return None, [f"The selected head {head_name(now.layer, now.head)} is not part of this model."]
    model = hub().resident(about.spec)
    missing = {} if model is None else model.structure.missing
    reason = next((missing[site] for site in ("pattern", "v", "z") if site in missing), None)
    if reason is not None:
        return None, [f"Heads cannot be split over source tokens on this model: {reason}."]
    return (now.layer, now.head), []


def _neurons(about: About, text: str) -> tuple[tuple[str, ...], list[str]]:
    """Names of the neurons that were typed or are selected."""
    names, problems = [], []
    for word in dict.fromkeys(word for word in re.split(r"[\s,;]+", text) if word):
        try:
            layer, neuron = parse_neuron(word)
        except InputError as error:
            problems.append(str(error))
            continue
        names.append((layer, neuron))
    now = selection()
    if now.layer is not None and now.neuron is not None:
        names.append((now.layer, now.neuron))
    kept = [one for one in names if one[0] < about.dims.n_layers and one[1] < about.dims.d_mlp]
    problems += [f"This model has no neuron {neuron_name(*one)}." for one in names if one not in kept]
    return tuple(neuron_name(*one) for one in dict.fromkeys(kept)), problems


def _seconds(asked: Asked) -> float | None:
    """Forward passes over both prompts; the products of matrices and vectors take about one more."""
    return pass_seconds(asked, passes=3.0 if st.session_state["second_prompt"] else 2.0)


def _run(model: LoadedModel, inputs: AttributionInputs, *, on_step: Any) -> AttributionResult:
    """Runs on the worker thread."""
    from mi_core.analyses import attribution

    return attribution(model, inputs, on_step=on_step)


def _draw(result: AttributionResult, wanted: _Wanted) -> None:
    compare = st.session_state["attribution_compare"]
    draw_warnings(result)
    draw_numbers(result)
    draw_parts(result, waterfall=st.session_state["attribution_drawing"] == "waterfall", compare=compare)
    if result.n_heads:
        draw_heads(result, wanted.head)
        draw_sources(result, wanted.head)
    if result.has_neurons:
        draw_neurons(result, st.session_state["attribution_shown"], compare=compare)
