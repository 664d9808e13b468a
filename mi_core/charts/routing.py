"""Change of every head's attention to some tokens, as a map."""

from typing import Any

import numpy as np
from jaxtyping import Float

from mi_core.charts.colours import ColourScale, symmetric_bound
from mi_core.charts.heatmap import Axis, Panel, describe, heatmap

Spec = dict[str, Any]


def routing_chart(change: Float[np.ndarray, "layer head"]) -> Spec:
    """Layers down, heads across; edited minus baseline, in shares of attention."""
    panel, rows, columns, colours = _parts(change)
    return heatmap([panel], rows, columns, colours)


def describe_routing(change: Float[np.ndarray, "layer head"]) -> str:
    """The text alternative of `routing_chart`."""
    panel, rows, columns, colours = _parts(change)
    return describe([panel], rows, columns, colours)


def _parts(change: Float[np.ndarray, "layer head"]) -> tuple[Panel, Axis, Axis, ColourScale]:
    n_layers, n_heads = change.shape
    rows = Axis("layer", "Layer", tuple(f"L{layer}" for layer in range(n_layers)))
    columns = Axis("head", "Head", tuple(str(head) for head in range(n_heads)))
    bound = symmetric_bound(float(np.abs(change).max(initial=0)))
    colours = ColourScale("change of attention", "share", (-bound, bound), diverging=True)
    return Panel("routing", "", change), rows, columns, colours
