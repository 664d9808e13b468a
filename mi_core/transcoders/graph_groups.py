"""A reader's own subgraph: what a node is connected to, supernodes with names, and edges between them.

    share(t <- s) = |A[t, s]| / (sum over s' of |A[t, s']|) * influence[t]

is how much of the output's influence passes one edge: the part of row t that s makes up, times the influence
of t (Ameisen et al., 2025). It orders edges, so that a drawing with a limit shows those that
matter. An edge between two supernodes is the plain sum of the edges between their members: what the source's
members add together to the pre-activations of the target's members, edges inside a supernode left out.

Cost: one pass over the matrix of edges.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import numpy as np
from jaxtyping import Bool, Float, Int

from mi_core.errors import InputError
from mi_core.transcoders.graph_names import format_nodes, parse_nodes
from mi_core.transcoders.graph_scores import shares

if TYPE_CHECKING:
    from mi_core.transcoders.graph_result import GraphResult

MAX_GROUPS = 50
MAX_GROUP_NAME = 80


@dataclass(frozen=True, slots=True)
class Group:
    """A supernode.

    Attributes:
        name: what its maker calls it; text of a stranger when it comes from a link or a file.
        nodes: names of its members.
    """

    name: str
    nodes: tuple[str, ...]

    def __post_init__(self) -> None:
        """A supernode without a name or without members says nothing."""
        if not self.name.strip() or len(self.name) > MAX_GROUP_NAME:
            raise InputError(
                "A group needs a name",
                fix=f"Write 1 to {MAX_GROUP_NAME} characters that say what it stands for",
            )
        if not self.nodes:
            raise InputError(f"The group {self.name!r} has no members", fix="Choose pinned nodes for it")


def parse_groups(text: str) -> tuple[Group, ...]:
    """Groups from `name:node,node;name:node`, names percent-encoded; an empty text gives none.

    A node belongs to one group only; where a text names it twice, the first keeps it.

    Raises:
        InputError: a group without name or members, something that names no node, or too many groups.
    """
    pieces = [piece for piece in text.split(";") if piece.strip()]
    if len(pieces) > MAX_GROUPS:
        raise InputError(f"There are more than {MAX_GROUPS} groups")
    groups: list[Group] = []
    taken: set[str] = set()
    for piece in pieces:
        name, colon, nodes = piece.partition(":")
        if not colon:
            raise InputError(f"{piece[:40]!r} is no group", fix="Write name:node,node")
        members = tuple(node for node in parse_nodes(nodes) if node not in taken)
        taken |= set(members)
        groups.append(Group(unquote(name).strip(), members))
    return tuple(groups)


def format_groups(groups: Sequence[Group]) -> str:
    """The inverse of `parse_groups`."""
    return ";".join(f"{quote(group.name, safe=' ')}:{format_nodes(group.nodes)}" for group in groups)


def with_group(groups: Sequence[Group], name: str, nodes: Sequence[str]) -> tuple[Group, ...]:
    """The groups with one more; its members leave the groups they were in, and empty groups go.

    A group of the same name gets the new members added.
    """
    same = [node for group in groups if group.name == name.strip() for node in group.nodes]
    members = tuple(dict.fromkeys([*same, *nodes]))
    kept = []
    for group in groups:
        rest = tuple(node for node in group.nodes if node not in members)
        if group.name != name.strip() and rest:
            kept.append(Group(group.name, rest))
    return (*kept, Group(name.strip(), members))


def without_nodes(groups: Sequence[Group], nodes: Sequence[str]) -> tuple[Group, ...]:
    """The groups without some nodes; a group that loses all its members goes."""
    rest = [(group.name, tuple(node for node in group.nodes if node not in nodes)) for group in groups]
    return tuple(Group(name, members) for name, members in rest if members)


# --- numbers ---


@dataclass(frozen=True, slots=True, eq=False)
class Connections:
    """What a node is made of and what it does.

    Attributes:
        inputs: indices of the nodes that it reads, strongest first.
        input_edges: their edges: what each adds to this node's pre-activation or logit.
        outputs: indices of the nodes with a row of their own that read it, strongest first.
        output_edges: what this node adds to each of them.
        remainder: what no node explains (biases, masked first token); NaN if the node has no row.
        value: its pre-activation or logit; NaN if the node has no row.
        residual: value minus edges minus remainder; NaN if the node has no row.
    """

    inputs: Int[np.ndarray, "input"]
    input_edges: Float[np.ndarray, "input"]
    outputs: Int[np.ndarray, "output"]
    output_edges: Float[np.ndarray, "output"]
    remainder: float
    value: float
    residual: float

    def rest(self, most: int) -> float:
        """Sum of the inputs after the first `most`."""
        return float(self.input_edges[most:].astype(np.float64).sum())


def connections(
    result: "GraphResult", node: int, edges: Bool[np.ndarray, "row node"] | None = None
) -> Connections:
    """Inputs and outputs of a node.

    Args:
        result: a graph.
        node: its index.
        edges: only these; None = all that are not zero.
    """
    shown = result.edges != 0 if edges is None else edges
    row = result.row_of(node)
    inputs, weights = _strongest(
        np.flatnonzero(shown[row]) if row is not None else np.zeros(0, np.int64),
        result.edges[row] if row is not None else np.zeros(len(result.node_kind), np.float32),
    )
    readers = np.flatnonzero(shown[:, node])
    outputs, effects = _strongest(readers, result.edges[:, node])
    sums = (result.remainder, result.row_value, result.residual)
    remainder, value, residual = (float("nan") if row is None else float(array[row]) for array in sums)
    return Connections(
        inputs, weights, result.row_node[outputs].astype(np.int64), effects, remainder, value, residual
    )


def _strongest(
    indices: Int[np.ndarray, "few"], weights: Float[np.ndarray, "all"]
) -> tuple[Int[np.ndarray, "few"], Float[np.ndarray, "few"]]:
    order = indices[np.argsort(-np.abs(weights[indices]), kind="stable")]
    return order, weights[order]


@lru_cache(maxsize=2)  # one page asks several times
def edge_shares(result: "GraphResult") -> Float[np.ndarray, "row node"]:
    """The share of the output's influence that passes each edge; see the module. Not to be changed."""
    found = shares(result.edges) * result.influence[result.row_node, None]
    found.flags.writeable = False
    return found


def grouped_edges(
    result: "GraphResult", members: Sequence[Sequence[int]]
) -> Float[np.ndarray, "target source"]:
    """Sums of the edges between groups of nodes.

    Args:
        result: a graph.
        members: node indices of each group; none is in two.

    Returns:
        What the source's members add to the target's; zero on the diagonal.

    Raises:
        InputError: a node is in two groups.
    """
    everyone = [node for group in members for node in group]
    if len(set(everyone)) < len(everyone):
        raise InputError("A node is in two groups", fix="Take it out of one of them")
    sums = np.zeros((len(members), len(members)))
    for target, nodes in enumerate(members):
        rows = np.flatnonzero(np.isin(result.row_node, np.asarray(nodes, np.int64)))
        for source, others in enumerate(members):
            if source != target:
                sums[target, source] = result.edges[np.ix_(rows, np.asarray(others, np.int64))].sum()
    return sums


def subgraph_parts(
    result: "GraphResult", pinned: Sequence[int], groups: Mapping[str, Sequence[int]]
) -> list[tuple[str | None, tuple[int, ...]]]:
    """The supernodes with their pinned members, then every other pinned node by itself (name None)."""
    kept = [(name, tuple(node for node in nodes if node in pinned)) for name, nodes in groups.items()]
    grouped = {node for _, nodes in kept for node in nodes}
    alone = [(None, (node,)) for node in pinned if node not in grouped]
    return [*((name, nodes) for name, nodes in kept if nodes), *alone]
