"""The inspection that the tabs of the model page share, and which part of the model is chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.analyses import InspectInputs
from pages.shared.instant import AUTOMATIC_SECONDS, begin, instant
from pages.shared.model_fields import ENDS
from pages.shared.selection import select, selection
from pages.shared.session import chosen_about, hub

if TYPE_CHECKING:
    from mi_core.analyses import InspectResult
    from mi_core.analyses.inspect_parts import Role
    from pages.shared.hub import About

ONCE = -1
"""Layer of a box that exists once (`mi_core.charts.architecture.ONCE`)."""

PLAIN, SINGULAR = InspectInputs(), InspectInputs(singular_values=True)
BARE = InspectInputs(statistics=False)
"""Everything that is known without reading the weights, for models whose weights take long to read."""

_ROLES: dict[str, tuple[Role, ...]] = {
    "attn": ("attention",),
    "mlp": ("mlp",),
    "norm": ("norm",),
    "final_norm": ("norm",),
    "embed": ("embedding",),
    "unembed": ("unembedding",),
}


@dataclass(frozen=True)
class Part:
    """The chosen part of the model.

    Attributes:
        layer: its layer; None for what exists once, or when nothing is chosen.
        name: "attn", "mlp", "norm", "embed", "final_norm" or "unembed"; None = the whole block, or all.
    """

    layer: int | None = None
    name: str | None = None

    def rows(self, result: InspectResult, *, heads: bool) -> list[int]:
        """Rows of the inspection that belong to it."""
        roles = _ROLES.get(self.name or "", ())
        found = result.rows_of(layer=self.layer, roles=roles, heads=heads)
        if self.name is not None and self.layer is None:
            found = [row for row in found if result.weights[row].layer is None]
        return found


def inspection(about: About | None) -> InspectResult | None:
    """The inspection of a model; None while it is not there, and then the reason has been drawn."""
    from mi_core.analyses import inspect_model

    if about is None:
        st.info("The model is not loaded yet; the sidebar shows how far it is.", icon=":material/hourglass:")
        return None
    inputs = PLAIN if reading_cost(about) <= AUTOMATIC_SECONDS else BARE
    return instant("inspect", inputs, inspect_model, "Inspection", about=about)


def with_numbers(about: About, result: InspectResult) -> InspectResult | None:
    """The same with the numbers of all weights; where reading them takes long, draws a button or progress."""
    from mi_core.analyses import inspect_model

    if result.inputs.statistics:
        return result
    return instant(
        "inspect_numbers", PLAIN, inspect_model, "Numbers of all weights", about=about,
        seconds=reading_cost(about),
    )  # fmt: skip


def with_singular_values(about: About) -> InspectResult | None:
    """The same with largest singular values, if they were asked for and are there; else draws its state."""
    from mi_core.analyses import inspect_model

    if not st.session_state["model_singular"]:
        return None
    return instant(
        "inspect_singular", SINGULAR, inspect_model, "Largest singular values", about=about,
        seconds=singular_cost(about),
    )  # fmt: skip


def start_singular_values() -> None:
    """A button's callback: its label has said the cost, so that even a long run begins at once."""
    from mi_core.analyses import inspect_model

    st.session_state["model_singular"] = True
    about = chosen_about()
    if about is not None and singular_cost(about) > AUTOMATIC_SECONDS:
        begin("inspect_singular", SINGULAR, inspect_model, "Largest singular values", about)


def reading_cost(about: About) -> float:
    """Seconds that it takes to read all weights."""
    from mi_core.analyses.inspect_run import reading_seconds

    return reading_seconds(about.parameters)


def singular_cost(about: About) -> float:
    """Seconds that the largest singular values take; NaN while the model is not in memory to be measured."""
    from mi_core.analyses import inspect_cost

    known = st.session_state.setdefault("_singular_costs", {})
    if about.spec not in known:
        model = hub().resident(about.spec)
        if model is None:
            return math.nan
        known[about.spec] = inspect_cost(model, SINGULAR)  # walks over all weights, so it is done once
    return known[about.spec]


def chosen_part(result: InspectResult) -> Part:
    """What is chosen, by the shared selection and this page's own field; nothing if the model lacks it."""
    now, own = selection(), st.session_state["model_part"]
    if now.layer is None:
        return Part(None, own if own in ENDS and own != "norm" else None)
    if now.layer >= result.architecture.n_layers:
        return Part()
    if now.kind in ("attn", "mlp"):
        return Part(now.layer, now.kind)
    return Part(now.layer, "norm" if own == "norm" else None)


def choose_part(cell: dict[str, Any]) -> None:
    """A click on a box of the drawing."""
    part, layer = cell.get("part"), cell.get("layer")
    if isinstance(part, str) and isinstance(layer, int):
        _choose(None if layer == ONCE else layer, part)


def choose_block(layer: int | None) -> None:
    """A whole block, or with None the whole model (a button's callback)."""
    _choose(layer, None)


def _choose(layer: int | None, part: str | None) -> None:
    kind = part if part in ("attn", "mlp") else None
    select(replace(selection(), layer=layer, kind=kind, head=None))
    st.session_state["model_part"] = part if part in ENDS else None
    st.session_state["model_weight"] = ""
