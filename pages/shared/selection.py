"""The one selection that all pages share: layer, token positions, head, neuron, feature and kind of site."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import streamlit as st

from pages.shared import link

FIELDS = [
    link.number("selected_layer", "layer", None, 0, 10_000, whole=True),
    link.number("selected_position", "pos", None, 0, 1_000_000, whole=True),
    link.number("selected_key", "key", None, 0, 1_000_000, whole=True),
    link.number("selected_head", "head", None, 0, 10_000, whole=True),
    link.number("selected_neuron", "neuron", None, 0, 10_000_000, whole=True),
    link.number("selected_feature", "feature", None, 0, 100_000_000, whole=True),
    link.choice(
        "selected_kind",
        "kind",
        None,
        ("state", "attn", "mlp", "state_attn_severed", "state_mlp_severed", "head"),
    ),
]


@dataclass(frozen=True)
class Selection:
    """What is selected; None where nothing is.

    Attributes:
        layer: layer number from 0.
        position: token position from 0; of attention, the query.
        key: position of attention's key, from 0.
        head: head number from 0.
        neuron: number of an MLP's neuron, from 0.
        feature: number of a transcoder's feature within the layer, from 0.
        kind: kind of site, in the words of the causal trace.
    """

    layer: int | None = None
    position: int | None = None
    key: int | None = None
    head: int | None = None
    neuron: int | None = None
    feature: int | None = None
    kind: str | None = None


def selection() -> Selection:
    """The session's selection."""
    return Selection(**{name: st.session_state.get(f"selected_{name}") for name in asdict(Selection())})


def select(chosen: Selection) -> None:
    """Replace the selection; the address bar follows at the end of the run."""
    for name, value in asdict(chosen).items():
        st.session_state[f"selected_{name}"] = value
