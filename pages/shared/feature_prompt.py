"""The tab "This prompt": settings into inputs and a choice, and the figures of the result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.errors import InputError
from mi_core.transcoders.prompt_inputs import FeaturesOnPromptInputs
from mi_core.transcoders.prompt_view import Choice
from pages.shared.feature_prompt_fields import SORTS
from pages.shared.feature_prompt_view import draw_result
from pages.shared.feature_source import told
from pages.shared.features_page import FeaturesAsked, features_asked
from pages.shared.instant import draw_warnings, instant, pass_seconds
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel
    from mi_core.transcoders.prompt_result import FeaturesOnPromptResult

SLOT = "features_on_prompt"

_MISSING = {
    "tokens": "which this prompt does not have, or which do not count",
    "layers": "of which this transcoder has no features",
}


def draw_prompt_tab() -> None:
    """The tab."""
    wanted = features_asked()
    if wanted is None or wanted.asked.about is None:
        return
    st.segmented_control(
        "Sort by", list(SORTS), format_func=SORTS.__getitem__, key="feature_sort", required=True,
        help="Effect: how much each feature adds to the logit of the target above, to first order.",
    )  # fmt: skip
    try:
        inputs = _inputs(wanted)
    except InputError as error:
        st.warning(plain(str(error)), icon=":material/warning:")
        return
    result: FeaturesOnPromptResult | None = instant(
        SLOT, inputs, _run, "Features of the prompt", about=wanted.asked.about,
        seconds=pass_seconds(wanted.asked, passes=4.0 if inputs.effects else 2.0),
    )  # fmt: skip
    if result is None:
        return
    draw_warnings(result, told())
    draw_result(result, _draw_choice(result))


def _inputs(wanted: FeaturesAsked) -> FeaturesOnPromptInputs:
    """Target and distractor belong to the question only where effects are wanted."""
    state = st.session_state
    effects = state["feature_sort"] == "effect"
    return FeaturesOnPromptInputs(
        prompt=wanted.asked.prompt,
        transcoder=wanted.transcoder,
        show_bos=wanted.show_bos,
        effects=effects,
        answer=(state["answer"] or None) if effects else None,
        distractor=(state["distractor"] or None) if effects else None,
        bos=wanted.asked.bos,  # type: ignore[arg-type]  # one of the header's three words
    )


def _run(model: LoadedModel, inputs: FeaturesOnPromptInputs, *, on_step: Any) -> FeaturesOnPromptResult:
    """Runs on the worker thread."""
    from mi_core.transcoders import features_on_prompt

    return features_on_prompt(model, inputs, on_step=on_step)


def _draw_choice(result: FeaturesOnPromptResult) -> Choice:
    """Tokens, layers and density as widgets; what a link asks for and this prompt lacks is left out."""
    from mi_core.charts.text import token_label

    state = st.session_state
    for name, known in (("tokens", result.counting), ("layers", result.layers)):
        lost = [one for one in state[f"feature_{name}"] if one not in known]
        if lost:
            st.info(f"Left out: {name} {', '.join(map(str, lost[:12]))}, {_MISSING[name]}.")
            state[f"feature_{name}"] = [one for one in state[f"feature_{name}"] if one in known]
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom", key="feature_prompt_row"):
        st.multiselect(
            "Tokens", result.counting, key="feature_tokens", placeholder="all", width=280,
            format_func=lambda at: plain(token_label(at, result.tokens[at].visible)),
            help="Features that are active at one of these tokens; activations are summed over them.",
        )  # fmt: skip
        st.multiselect(
            "Layers", result.layers, key="feature_layers", placeholder="all", width=180,
            format_func="L{}".format,
        )  # fmt: skip
        st.number_input(
            "Hide features on more than … % of a corpus", min_value=0.0, max_value=100.0, step=1.0,
            key="feature_densest", placeholder="hide none", width=290, disabled=not result.has_density,
            help="How dense a feature is comes from a corpus pass."
            + ("" if result.has_density else " None was made for this transcoder."),
        )  # fmt: skip
        st.number_input("Features shown", min_value=5, max_value=60, key="feature_rows", width=130)
    if state["feature_densest"] is not None and not result.has_density:
        st.info("No density is known here, so no feature is hidden.", icon=":material/info:")
    densest = state["feature_densest"] if result.has_density else None
    return Choice(
        sort=state["feature_sort"],
        positions=tuple(sorted(state["feature_tokens"])),
        layers=tuple(sorted(state["feature_layers"])),
        densest=None if densest is None else densest / 100,
    )
