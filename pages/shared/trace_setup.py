"""The causal trace's settings as widgets; `trace_inputs` makes inputs of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from pages.shared.prompt_state import BOS, tokens_of
from pages.shared.trace_fields import KINDS

if TYPE_CHECKING:
    from mi_core.tokens import TokenizedPrompt
    from pages.shared.hub import About

SIGMA = "\N{GREEK SMALL LETTER SIGMA}"

KIND_NAMES = {
    "state": "State",
    "attn": "Attention",
    "mlp": "MLP",
    "state_attn_severed": "State, attention severed",
    "state_mlp_severed": "State, MLP severed",
    "head": "Single heads",
}
DIRECTIONS = {"denoising": "Clean into corrupted", "noising": "Corrupted into clean"}
CORRUPTIONS = {"noise": "Noise on the subject", "prompt": "Swap with a second prompt"}
NOISES = {"gaussian": "Gaussian", "uniform": "Uniform"}
UNITS = {"sigma": f"{SIGMA} of the embeddings", "absolute": "absolute"}
CONVENTIONS = {
    "code": "from l - w/2 to l + w/2 - 1 (ROME's program)",
    "paper": "from l - w/2 + 1 to l + w/2 (ROME's paper)",
}


def draw_setup(about: About | None) -> None:
    """Draw the settings. Values live in the session under the fields' names (`trace_fields`)."""
    tokens, _ = tokens_of(st.session_state["prompt"], about) if st.session_state["prompt"] else (None, "")
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
        draw_corruption()
        st.segmented_control(
            "Patch",
            list(DIRECTIONS),
            format_func=DIRECTIONS.__getitem__,
            key="direction",
            required=True,
            help="Clean values into the corrupted run ask what is enough for the answer (denoising); "
            "corrupted values into the clean run ask what the answer needs (noising).",
        )
    draw_kinds()
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        if st.session_state["corruption"] == "noise":
            draw_noise()
        _window_widget(about)
        if "head" in st.session_state["kinds"]:
            _head_position_widget(tokens)
        with st.popover("More options", icon=":material/tune:"):
            _more_options()


def draw_corruption() -> None:
    """Noise, or another prompt."""
    st.segmented_control(
        "Corrupt by", list(CORRUPTIONS), format_func=CORRUPTIONS.__getitem__, key="corruption", required=True
    )


def draw_kinds(*, heads: bool = True) -> None:
    """What is restored; averages have no heads, and then a chosen head is left out."""
    options = [kind for kind in KINDS if heads or kind != "head"]
    if not heads:
        st.session_state["kinds"] = [kind for kind in st.session_state["kinds"] if kind in options]
    st.pills(
        "Restore",
        options,
        selection_mode="multi",
        format_func=KIND_NAMES.__getitem__,
        key="kinds",
        help="What is put back at one token and one layer. Severed: the token's later attention (or MLP) "
        "outputs stay as in the corrupted run, which shows what carries the effect.",
    )


def draw_noise() -> None:
    """Level and number of samples."""
    absolute = st.session_state["noise_unit"] == "absolute"
    st.number_input(
        "Noise level" if absolute else f"Noise level ({SIGMA})",
        min_value=0.0,
        max_value=1e5,
        step=0.5,
        format="%g",
        key="noise_level",
        width=140,
        help=f"3 {SIGMA} is usual; {SIGMA} is the standard deviation of the model's embedding outputs.",
    )
    st.number_input(
        "Samples",
        min_value=1,
        max_value=1000,
        key="samples",
        width=120,
        help="Draws of the noise; every cell gets the same ones.",
    )


def _window_widget(about: About | None) -> None:
    st.number_input(
        "Window (layers)",
        min_value=1,
        max_value=1000,
        key="window",
        width=140,
        help="How many layers of attention or MLP are restored together. States are restored at one layer.",
    )


def _head_position_widget(tokens: TokenizedPrompt | None) -> None:
    """Where heads are patched; a position that this prompt does not have is given up, and said."""
    count = 0 if tokens is None else len(tokens)
    wanted = st.session_state["head_position"]
    if tokens is not None and wanted is not None and wanted >= count:
        st.session_state["head_position"] = None
        st.toast(f"The prompt has no token {wanted}: heads are patched at all positions.")
    options = list(range(max(count, (wanted or 0) + 1)))

    def label(position: int) -> str:
        return str(position) if tokens is None else f"{position} {tokens.tokens[position].visible}"

    st.selectbox(
        "Heads at",
        options,
        index=None,
        format_func=label,
        key="head_position",
        placeholder="all positions",
        width=180,
    )


def _more_options() -> None:
    if st.session_state["corruption"] == "noise":
        st.segmented_control(
            "Noise", list(NOISES), format_func=NOISES.__getitem__, key="noise", required=True
        )
        st.segmented_control(
            "Unit of the level", list(UNITS), format_func=UNITS.__getitem__, key="noise_unit", required=True
        )
        st.number_input(
            "Seed", min_value=0, max_value=2**32 - 1, key="seed", help="1 gives ROME's very numbers."
        )
    st.radio(
        "Layers of an even window, centre l",
        list(CONVENTIONS),
        format_func=CONVENTIONS.__getitem__,
        key="window_convention",
        help="ROME's program and paper differ by one layer.",
    )
    st.segmented_control("BOS token", BOS, key="bos", required=True, help="auto: as the tokenizer does it.")
