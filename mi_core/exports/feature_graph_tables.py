"""The tables of an attribution graph's figures: its edges, one node's edges, the lines of a subgraph."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool

from mi_core.charts import feature_graph_parts as parts_charts
from mi_core.charts.feature_graph import GraphView, drawn_edges
from mi_core.transcoders.graph_groups import connections, edge_shares, grouped_edges, subgraph_parts
from mi_core.transcoders.graph_names import KIND_NAMES, node_label, node_name

if TYPE_CHECKING:
    import pandas as pd

    from mi_core.transcoders.graph_result import GraphResult


def edge_table(result: "GraphResult", edges: Bool[np.ndarray, "row node"]) -> "pd.DataFrame":
    """One row per edge, those with most influence first."""
    import pandas as pd

    lines, _ = drawn_edges(result, edges, edges.size)
    shares = edge_shares(result)
    rows = [
        {
            **_end(result, "source", source), **_end(result, "target", int(result.row_node[row])),
            "edge": float(result.edges[row, source]), "share of influence": float(shares[row, source]),
        }
        for row, source in reversed(lines)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _end(result: "GraphResult", which: str, node: int) -> dict[str, Any]:
    return {
        which: node_name(result, node),
        f"{which} kind": KIND_NAMES[int(result.node_kind[node])],
        f"{which} text": node_label(result, node),
    }


def connection_table(result: "GraphResult", node: int) -> "pd.DataFrame":
    """One row per edge of a node, and what no node explains."""
    import pandas as pd

    found = connections(result, node)
    sides = (
        ("input", found.inputs.tolist(), found.input_edges.tolist()),
        ("output", found.outputs.tolist(), found.output_edges.tolist()),
    )
    rows = [
        {"side": side, "node": node_name(result, other), "text": node_label(result, other), "edge": weight}
        for side, others, weights in sides
        for other, weight in zip(others, weights, strict=True)
    ]
    if np.isfinite(found.value):
        rows += [
            {"side": side, "node": "", "text": "", "edge": value}
            for side, value in (
                ("remainder", found.remainder),
                ("residual", found.residual),
                ("all", found.value),
            )
        ]
    return pd.DataFrame(rows)


def subgraph_table(result: "GraphResult", view: GraphView) -> "pd.DataFrame":
    """One row per line of the subgraph."""
    import pandas as pd

    parts = subgraph_parts(result, view.pinned, view.groups)
    sums = grouped_edges(result, [nodes for _, nodes in parts])
    names = [parts_charts.part_name(result, part, view) for part in parts]
    members = [" ".join(node_name(result, node) for node in nodes) for _, nodes in parts]
    rows = [
        {
            "source": names[source], "source nodes": members[source],
            "target": names[target], "target nodes": members[target],
            "sum of edges": float(sums[target, source]),
        }
        for target, source in zip(*(part.tolist() for part in np.nonzero(sums)), strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows)
