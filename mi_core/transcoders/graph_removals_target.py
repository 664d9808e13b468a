"""On what the effects of removals are read: a logit of the graph, the difference of two, or all of them.

Every one of them is a weighted sum of the graph's logits, so its row of edges, its remainder and its value
are the same weighted sum of theirs, and the sum rule holds for it as it does for them:

    row = sum over logits k of weight[k] * edges[k]
    one logit: 1 for it; a difference: 1 and -1; "sum": what the graph weighs each by (its probability)
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from mi_core.errors import InputError
from mi_core.transcoders.graph_names import LOGIT, first_logit, node_name

if TYPE_CHECKING:
    from mi_core.transcoders.graph_result import GraphResult

SUM = "sum"
_NAME = re.compile(r"Y\d{1,9}(?:-\d{1,9})?", re.ASCII)
_LISTED = 12


@dataclass(frozen=True, slots=True, eq=False)
class EffectTarget:
    """What effects are read on.

    Attributes:
        name: as in options and links: `Y345`, `Y345-12` or `sum`.
        label: what to show, for example `·Paris`, `·Paris - ·Rome`, `weighted sum of 10 logits`.
        weights: [logit] how much each logit of the graph counts.
    """

    name: str
    label: str
    weights: Float[np.ndarray, " logit"]


def check_effect_on(text: str) -> None:
    """Refuse what can name no target of any graph; empty = the first logit.

    Raises:
        InputError: saying how targets are written.
    """
    if text and text != SUM and _NAME.fullmatch(text) is None:
        raise InputError(
            f"{text[:40]!r} is nothing that effects could be read on",
            fix=f"Write a logit as Y345, a difference of two as Y345-12, all of them as {SUM}",
        )


def effect_target(graph: "GraphResult", name: str = "") -> EffectTarget:
    """The target of that name.

    Args:
        graph: an attribution graph.
        name: a logit of the graph, the difference of two of them, or `sum`; empty = the first logit.

    Raises:
        InputError: the graph does not explain it; the message lists what it explains.
    """
    names = _logits(graph)
    if name == SUM:
        counted = graph.logit_weights.astype(np.float64)
        logits = "1 logit" if len(names) == 1 else f"{len(names)} logits"
        return EffectTarget(SUM, f"weighted sum of {logits}", counted)
    unit = np.eye(len(names))
    if not name or name in names:
        index = names.index(name) if name else 0
        return EffectTarget(names[index], graph.target_names[index], unit[index])
    first, minus, second = name.partition("-")
    if minus and first in names and f"Y{second}" in names and second != first[1:]:
        one, other = names.index(first), names.index(f"Y{second}")
        label = f"{graph.target_names[one]} - {graph.target_names[other]}"
        return EffectTarget(name, label, unit[one] - unit[other])
    known = ", ".join(
        f"{logit} ({text})" for logit, text in list(zip(names, graph.target_names, strict=True))[:_LISTED]
    )
    more = "" if len(names) <= _LISTED else f" and {len(names) - _LISTED} more"
    raise InputError(
        f"{name[:40]} is not explained by this graph",
        why=f"it explains {known}{more}",
        fix="Choose one of these, a difference of two, or make the graph for another target",
    )


def effect_targets(graph: "GraphResult") -> tuple[EffectTarget, ...]:
    """What a menu offers: every logit, their weighted sum, and the first minus each other."""
    names = _logits(graph)
    if len(names) == 1:
        return (effect_target(graph),)
    differences = [
        f"{names[0]}-{other[1:]}" for other in names[1:] if "-" not in names[0] and "-" not in other
    ]
    return tuple(effect_target(graph, name) for name in (*names, SUM, *differences))


def _logits(graph: "GraphResult") -> list[str]:
    first = first_logit(graph)
    return [node_name(graph, first + index) for index in range(int((graph.node_kind == LOGIT).sum()))]
