"""The figures of an attribution graph: the graph, one node, a reader's own subgraph."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mi_core.charts import feature_graph as charts
from mi_core.charts import feature_graph_parts as parts_charts
from mi_core.charts.feature_graph import GraphView
from mi_core.charts.text import legible, number
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.captions import model_sentence, quoted
from mi_core.exports.feature_graph_tables import connection_table, edge_table, subgraph_table
from mi_core.exports.figure import Figure
from mi_core.transcoders.graph_groups import connections, subgraph_parts
from mi_core.transcoders.graph_names import node_label, node_name

if TYPE_CHECKING:
    from mi_core.transcoders.graph_density import Dense
    from mi_core.transcoders.graph_result import GraphResult
    from mi_core.transcoders.graph_scores import Pruned, Scores

REFERENCES = ("ameisen2025circuit", "dunefsky2024transcoders")
ARRAYS = ("edges", "remainder", "row_value", "influence")

GRAPH_READING = (
    "Every dot is something that the transcoder sees at one token: an active feature, what the transcoder "
    "misses (error), the token itself, or a logit. With attention patterns and the scales of all norms "
    "held at their values on this prompt, the model between two dots is linear, so each dot adds a "
    "definite amount to the pre-activation of every dot above it: that is the edge. Edges into a dot, the "
    "biases and what the masked first token adds make up its pre-activation exactly. Lines are as wide as "
    "the share of the output's influence that passes them; larger dots have more influence. Point anywhere "
    "to see the edges of the nearest dot; click to keep them: blue adds, orange takes away. Pruning leaves "
    "out what carries little; it changes no number. A graph says what the replacement model does on this "
    "prompt, with attention taken as given: why a head attends where it does is not in it (Ameisen et al., "
    "2025)."
)
NODE_READING = (
    "What the node gets: the edges from other nodes into it, which together with the biases are its "
    "pre-activation (features) or its logit, taken from the mean over the vocabulary. What it gives: its "
    "edges into nodes that were expanded. Nothing is normalised; 0 = it adds nothing. Click a bar to see "
    "through which heads an edge goes."
)
SUBGRAPH_READING = (
    "Only pinned nodes; those of a group stand as one. A line is the sum of the edges from the members of "
    "one to the members of the other; edges inside a group are left out. The two scores ask how much of "
    "the output is explained when every feature that is not pinned counts as error. Replacement: the share "
    "of paths from the logits that end at tokens instead of errors. Completeness: how much of the inputs "
    "of each node, by influence, is not error."
)


def graph_figure(
    result: "GraphResult",
    pruned: "Pruned",
    view: GraphView,
    *,
    thresholds: tuple[float, float],
    scores: "Scores | None" = None,
    dense: "Dense | None" = None,
) -> Figure:
    """The graph after pruning.

    Args:
        result: a graph.
        pruned: what is kept.
        view: chosen, pinned, grouped and named nodes.
        thresholds: of nodes and of edges.
        scores: of the whole graph, for the caption.
        dense: features that are only not drawn; chosen and pinned ones are.
    """
    hidden = np.zeros_like(pruned.nodes) if dense is None else dense.hidden(pruned.nodes, view.looked_at)
    nodes, edges = pruned.nodes & ~hidden, pruned.edges & ~hidden & ~hidden[result.row_node][:, None]
    densest = {} if dense is None else {"densest": dense.densest}
    return _figure(
        result,
        "Attribution graph",
        charts.graph_drawing(result, nodes, edges, view),
        {"figure": "graph", "thresholds": list(thresholds), **densest, **_view(result, view)},
        caption=[
            _counts(result, pruned, thresholds),
            "" if dense is None else _hidden(dense, int(hidden.sum()), int((pruned.edges & ~edges).sum())),
            _not_drawn(int(edges.sum())),
            _columns(result),
            _sum_rule(result),
            "" if scores is None else _scores("The whole graph", scores),
        ],
        reading=GRAPH_READING,
        description=charts.describe_graph(result, nodes, edges, view),
        frame=lambda: edge_table(result, pruned.edges),
    )


def node_figure(result: "GraphResult", node: int, *, label: str = "", chosen: int | None = None) -> Figure:
    """Inputs and outputs of one node; arguments as in `charts.feature_graph_parts.connection_bars`."""
    found = connections(result, node)
    name = node_label(result, node) + (f" \u201c{label}\u201d" if label else "")
    sums = ""
    if np.isfinite(found.value):
        sums = (
            f"Inputs + biases = {found.value - found.residual:.6g}, value {found.value:.6g}, residual "
            f"{number(found.residual)}."
        )
    missing = "" if result.row_of(node) is not None else "Its inputs were not computed, or it has none."
    return _figure(
        result,
        f"What {legible(name)} gets and gives",
        parts_charts.connection_bars(result, node, chosen=chosen),
        {"figure": "node", "node": node_name(result, node)},
        caption=[
            f"Edges of {legible(name)}: {len(found.inputs):,} inputs, {len(found.outputs):,} outputs; the "
            f"{parts_charts.LISTED} strongest of each have a bar. 0 = adds nothing.",
            sums, missing,
        ],
        reading=NODE_READING,
        description=parts_charts.describe_connections(result, node),
        frame=lambda: connection_table(result, node),
    )  # fmt: skip


def subgraph_figure(result: "GraphResult", view: GraphView, scores: "Scores | None") -> Figure:
    """The reader's own subgraph."""
    parts = subgraph_parts(result, view.pinned, view.groups)
    groups = sum(name is not None for name, _ in parts)
    return _figure(
        result,
        "My subgraph",
        parts_charts.subgraph_drawing(result, view),
        {"figure": "subgraph", **_view(result, view)},
        caption=[
            f"{len(view.pinned)} nodes, the targets included, in {len(parts)} places ({groups} "
            f"{'group' if groups == 1 else 'groups'}); lines: sums of the edges between them, 0 = not drawn.",
            "" if scores is None else _scores("With every other feature counted as error", scores),
        ],
        reading=SUBGRAPH_READING,
        description=parts_charts.describe_subgraph(result, view),
        frame=lambda: subgraph_table(result, view),
    )


# --- words ---


def _counts(result: "GraphResult", pruned: "Pruned", thresholds: tuple[float, float]) -> str:
    kept, everyone = int(pruned.nodes.sum()), len(result.node_kind)
    edges, all_edges = int(pruned.edges.sum()), int((result.edges != 0).sum())
    rest = int(((result.node_kind == 0) & ~result.node_expanded).sum())
    budget = f" {rest:,} features were not expanded: their inputs were not computed." if rest else ""
    return (
        f"Shown: {kept:,} of {everyone:,} nodes ({100 * thresholds[0]:.4g} % of the influence) and "
        f"{edges:,} of {all_edges:,} edges ({100 * thresholds[1]:.4g} %).{budget}"
    )


def _hidden(dense: "Dense", nodes: int, edges: int) -> str:
    features = "1 feature" if nodes == 1 else f"{nodes:,} features"
    return (
        f"Hidden of these, because active on more than {100 * dense.densest:.4g} % of a corpus' tokens: "
        f"{features} with {edges:,} edges; pruning, scores and the table keep them."
    )


def _not_drawn(total: int) -> str:
    most = charts.MOST_EDGES
    return (
        "" if total <= most else f"Only the {most:,} edges with most influence are drawn; the table has all."
    )


def _columns(result: "GraphResult") -> str:
    if len(result.tokens) <= charts.MOST_COLUMNS:
        return ""
    return "Of this long prompt, tokens at which nothing else is shown have no column."


def _sum_rule(result: "GraphResult") -> str:
    if not np.isfinite(result.residual).any():
        return "The file has no biases and no values, so that the sum rule cannot be checked."
    sizes = np.maximum(np.abs(result.row_value), 1e-12)
    worst = float(np.abs(result.residual).max(initial=0.0))
    relative = float((np.abs(result.residual) / sizes).max(initial=0.0))
    return (
        f"Sum rule: edges + biases = pre-activation in {len(result.row_node):,} rows, largest residual "
        f"{number(worst)} ({number(relative)} of the value)."
    )


def _scores(what: str, scores: "Scores") -> str:
    return (
        f"{what}: replacement score {number(scores.replacement)}, completeness {number(scores.completeness)} "
        "(1 = no error)."
    )


def _view(result: "GraphResult", view: GraphView) -> dict[str, Any]:
    return {
        "chosen": None if view.chosen is None else node_name(result, view.chosen),
        "pinned": [node_name(result, node) for node in view.pinned],
        "groups": {name: [node_name(result, node) for node in nodes] for name, nodes in view.groups.items()},
        "labels": {
            node_name(result, node): text for node, text in view.labels.items() if node in view.pinned
        },
    }


def _what(result: "GraphResult") -> str:
    targets = ", ".join(legible(name) for name in result.target_names[:5])
    more = "" if len(result.target_names) <= 5 else f" and {len(result.target_names) - 5} more"
    return (
        f"Attribution graph of {quoted(result.inputs.prompt)} for {targets}{more} at the last token, n = 1 "
        "prompt; attention patterns and norm scales frozen, edges in units of the pre-activation or logit "
        "they add to."
    )


def _figure(
    result: "GraphResult",
    title: str,
    spec: Mapping[str, Any],
    view: Mapping[str, Any],
    *,
    caption: Sequence[str],
    reading: str,
    description: str,
    frame: Any,
) -> Figure:
    said = [_what(result), *caption, model_sentence(result.provenance)]
    return analysis_figure(
        result,
        analysis="attribution_graph",
        title=title,
        spec=spec,
        view=view,
        caption=" ".join(one for one in said if one),
        how_to_read=reading,
        description=description,
        frame=frame,
        references=REFERENCES,
        function="attribution_graph",
        arrays=ARRAYS,
    )
