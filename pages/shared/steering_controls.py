"""The settings of the steering page, and the inputs that they ask for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.analyses.steering_inputs import MAX_COEFFICIENT, MAX_CONTROLS, SteeringInputs
from mi_core.errors import InputError
from pages.shared.instant import instant
from pages.shared.selection import selection
from pages.shared.steering_fields import EXAMPLE, METRICS, POOLS, QUERIES, SITES, SOURCES, WHERES
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.analyses.steering_vector import SteeringVector
    from mi_core.model.model import LoadedModel
    from pages.shared.hub import About
    from pages.shared.instant import Asked

FILE = "_steering_file"


def draw_vector(about: About) -> None:
    """Where the vector comes from and where it is added."""
    state = st.session_state
    with st.container(border=True, key="steering_vector"):
        with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
            st.selectbox(
                "Vector from",
                list(SOURCES),
                format_func=SOURCES.__getitem__,
                key="steering_source",
                width=240,
            )
            if state["steering_source"] in ("sets", "prompts"):
                st.selectbox(
                    "State of", list(POOLS), format_func=POOLS.__getitem__, key="steering_pool", width=180,
                    help="Which token's state of each of these prompts is taken.",
                )  # fmt: skip
            st.button(
                "Example: from Paris to Rome", icon=":material/lightbulb:", on_click=_load_example,
                key="steering_example", help="Fills prompt, answer and settings with a pair that was tested.",
            )  # fmt: skip
        _draw_source(about)
        with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
            st.selectbox(
                "Added to", list(SITES), format_func=SITES.__getitem__, key="steering_site", width=190
            )
            st.number_input(
                "Layer", min_value=0, max_value=10_000, key="steering_layer", width=160,
                placeholder=f"{about.dims.n_layers // 2} (middle)",
                help="Of the dose curve and the attention figure; the layer sweep goes through all layers.",
            )  # fmt: skip
            st.selectbox("At", list(WHERES), format_func=WHERES.__getitem__, key="steering_where", width=170)
            if state["steering_where"] == "chosen":
                st.text_input("Positions", key="steering_chosen", placeholder="e.g. 3, 4", width=150)


def _load_example() -> None:
    """A callback: the widgets take these values in the next run."""
    for name, value in EXAMPLE.items():
        st.session_state[name] = value


def _draw_source(about: About) -> None:
    source = st.session_state["steering_source"]
    if source == "sets":
        left, right = st.columns(2)
        left.text_area("Towards (one prompt per line)", key="steering_positive", height=110)
        right.text_area("Away from (one prompt per line)", key="steering_negative", height=110)
    elif source == "prompts":
        st.text_input(
            "Away from", key="steering_from", placeholder="the prompt above",
            help="The vector is the state of the second prompt (B, above) minus the state of this one.",
        )  # fmt: skip
        if not st.session_state["second_prompt"]:
            st.info("Type a second prompt (B) above: the vector points to it.", icon=":material/edit:")
    elif source == "file":
        _draw_file(about)
    elif source == "feature":
        st.text_input(
            "Feature", key="steering_feature", placeholder=_selected_feature() or "e.g. L5F102", width=240,
            help="Of each layer the vector is the row that the feature writes there; below its own layer it "
            "is zero. The transcoder is the one of the page Features; several at once: its tab Steer. "
            "Empty: the feature that is selected there.",
        )  # fmt: skip
        st.caption(
            "Coefficients count activations: 1 adds what the feature writes for an activation of 1. Its "
            "largest in a corpus, a natural dose, stands on the page Features under “One feature”."
        )
    else:
        st.text_input(
            "Token", key="steering_token", placeholder="the answer", width=240,
            help="A single token; a space before a word belongs to it. Empty: the answer.",
        )  # fmt: skip


def _feature_vector(asked: Asked) -> SteeringVector | None:
    """The rows of the named or selected feature, read on the worker thread; None while they are not here."""
    state = st.session_state
    named = state["steering_feature"].strip() or _selected_feature()
    if not named or asked.about is None:
        st.info("Name a feature, such as `L5F102`.", icon=":material/edit:")
        return None
    from mi_core.transcoders.store import stamp_of

    name = state["feature_transcoder"]
    return instant(
        "steering_feature", (named, name, stamp_of(name, asked.about.spec)), _read_feature,
        "The feature's vector", about=asked.about,
    )  # fmt: skip


def _read_feature(model: LoadedModel, inputs: tuple[Any, ...], *, on_step: Any) -> SteeringVector:
    """Runs on the worker thread."""
    from mi_core.transcoders import feature_vector

    return feature_vector(model, *inputs[:2])  # the rest is the state of its files


def _selected_feature() -> str:
    """The feature that is selected on the page Features, as text; "" = none."""
    chosen = selection()
    if chosen.layer is None or chosen.feature is None:
        return ""
    return f"L{chosen.layer}F{chosen.feature}"


def _draw_file(about: About) -> None:
    """Numbers are kept beside the widget, which forgets its file when the page changes."""
    from mi_core.analyses.steering_vector import MAX_FILE_BYTES, read_vector

    state = st.session_state
    uploaded = st.file_uploader(
        f"Vector of {about.dims.d_model:,} numbers", type=["npy", "safetensors"], key="steering_upload"
    )
    if uploaded is not None:
        try:
            if uploaded.size > MAX_FILE_BYTES:
                raise InputError("The file is too large", why=f"more than {MAX_FILE_BYTES:,} bytes")
            state[FILE] = (uploaded.name, read_vector(uploaded.getvalue(), uploaded.name, about.dims.d_model))
        except InputError as error:
            state.pop(FILE, None)
            st.error(plain(str(error)), icon=":material/error:")
    elif FILE in state:
        st.caption(plain(f"In use: {state[FILE][0]}"))


def draw_doses() -> None:
    """Which doses are run, and what is looked up."""
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom", key="steering_doses_row"):
        st.text_input("Coefficients", key="steering_doses", width=300)
        st.number_input("Random directions", 0, MAX_CONTROLS, key="steering_controls", width=150)
        st.number_input("Seed", 0, 2**31 - 1, key="steering_seed", width=120)
        st.selectbox(
            "Curve of", list(METRICS), format_func=METRICS.__getitem__, key="steering_metric", width=200
        )
        st.number_input(
            "Wished value", key="steering_wished", width=140, format="%g",
            help="The dose at which the curve has this value is looked up on straight lines between doses.",
        )  # fmt: skip


def draw_one_dose() -> None:
    """The settings of the tab Layers."""
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom", key="steering_one_dose"):
        st.number_input(
            "Coefficient",
            -MAX_COEFFICIENT,
            MAX_COEFFICIENT,
            key="steering_coefficient",
            width=150,
            format="%g",
        )
        st.selectbox(
            "Line of", list(METRICS), format_func=METRICS.__getitem__, key="steering_metric", width=200
        )
        st.number_input(
            "Absorbed from a cosine of", 0.01, 1.0, key="steering_threshold", width=200, format="%g"
        )
        st.selectbox(
            "Attention", list(QUERIES), format_func=QUERIES.__getitem__, key="steering_queries", width=220
        )


def wanted(asked: Asked, *, layer: bool = True) -> SteeringInputs | None:
    """What the widgets ask for, without what only some of the analyses read.

    Args:
        asked: the header's prompt.
        layer: whether the analysis reads the layer.

    Raises:
        InputError: something cannot be used.
    """
    state = st.session_state
    source = state["steering_source"]
    fields: dict[str, Any] = {"source": source}
    if source == "sets":
        fields |= {"positive": state["steering_positive"], "negative": state["steering_negative"]}
    elif source == "prompts":
        if not state["second_prompt"]:
            return None
        fields |= {"positive": state["second_prompt"], "negative": state["steering_from"]}
    elif source == "file":
        if FILE not in state:
            return None
        fields |= {"vector_name": state[FILE][0], "vector": state[FILE][1]}
    elif source == "feature":
        vector = _feature_vector(asked)
        if vector is None:
            return None
        fields |= {"vector_name": vector.made, "vector": tuple(vector.values.ravel().astype(float).tolist())}
    else:
        fields["token"] = state["steering_token"]
    if source in ("sets", "prompts"):
        fields["pool"] = state["steering_pool"]
    if state["steering_where"] == "chosen":
        fields["chosen"] = parse_positions(state["steering_chosen"])
    return SteeringInputs(
        prompt=asked.prompt,
        site=state["steering_site"],
        layer=state["steering_layer"] if layer else None,
        where=state["steering_where"],
        answer=state["answer"] or None,
        distractor=state["distractor"] or None,
        bos=asked.bos,  # type: ignore[arg-type]  # one of the header's three words
        **fields,
    )


def parse_positions(text: str) -> tuple[int, ...]:
    """Token positions as people write them: `3, 4`.

    Raises:
        InputError: anything else.
    """
    words = [word for word in re.split(r"[\s,;]+", text) if word]
    if not words or not all(re.fullmatch(r"\d{1,6}", word) for word in words):
        raise InputError(f"The positions {text!r:.60} cannot be read", fix="Write token numbers such as 3, 4")
    return tuple(int(word) for word in dict.fromkeys(words))


def parse_doses(text: str, what: str = "coefficients") -> tuple[float, ...]:
    """Coefficients as people write them: `-1, 0, 0.5`; sorted, without doubles.

    Args:
        text: the list.
        what: how the page calls them.

    Raises:
        InputError: anything else.
    """
    words = [word for word in re.split(r"[\s,;]+", text.replace("\N{MINUS SIGN}", "-")) if word]
    try:
        return tuple(sorted({float(word) + 0.0 for word in words}))
    except ValueError:
        raise InputError(
            f"The {what} {text!r:.60} cannot be read", fix="Write numbers such as -1, 0, 0.5, 2"
        ) from None
