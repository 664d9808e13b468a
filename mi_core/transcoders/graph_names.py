"""Names of the nodes of an attribution graph: one text per node, the same in links, pins, options and tables.

``L5F102@7`` is feature 102 of layer 5 at token position 7; ``L5E@7`` the error of layer 5's reconstruction at
that token; ``T@7`` the token itself; ``Y345`` the logit of token id 345, ``Y345-12`` a difference of two. No
two nodes of a graph share a name (in Neuronpedia's files an error and a feature of layer 0 may).
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from mi_core.errors import InputError
from mi_core.transcoders.names import FeatureAt

if TYPE_CHECKING:
    from mi_core.transcoders.graph_result import GraphResult

FEATURE, ERROR, TOKEN, LOGIT = range(4)
"""The values of `GraphResult.node_kind`."""
KIND_NAMES = ("feature", "error", "token", "logit")
MAX_NAMES = 2_000
_NAME = re.compile(r"L\d{1,5}F\d{1,9}@\d{1,7}|L\d{1,5}E@\d{1,7}|T@\d{1,7}|Y\d{1,9}(?:-\d{1,9})?", re.ASCII)


def node_name(result: "GraphResult", index: int) -> str:
    """The name of a node.

    Args:
        result: a graph.
        index: of the node.
    """
    kind, layer = int(result.node_kind[index]), int(result.node_layer[index])
    position, feature = int(result.node_position[index]), int(result.node_feature[index])
    if kind == FEATURE:
        return FeatureAt(layer, feature, position).text
    if kind == ERROR:
        return f"L{layer}E@{position}"
    if kind == TOKEN:
        return f"T@{position}"
    return "Y" + "-".join(str(one) for one in result.target_ids[index - first_logit(result)])


def first_logit(result: "GraphResult") -> int:
    """Index of the first logit: they are the last nodes."""
    return len(result.node_kind) - int((result.node_kind == LOGIT).sum())


@lru_cache(maxsize=4)  # one page asks several times
def node_names(result: "GraphResult") -> tuple[str, ...]:
    """The names of all nodes, in their order."""
    return tuple(node_name(result, index) for index in range(len(result.node_kind)))


def node_label(result: "GraphResult", index: int) -> str:
    """The name with what a reader wants to know: the token's text, or what the logit speaks for."""
    name = node_name(result, index)
    if result.node_kind[index] == LOGIT:
        return f"logit {result.target_names[index - first_logit(result)]}"
    token = result.tokens[int(result.node_position[index])].visible
    if result.node_kind[index] == TOKEN:
        return f"token {int(result.node_position[index])} {token}"
    return f"{name} {token}"


def found_nodes(result: "GraphResult", names: Iterable[str]) -> tuple[list[int], list[str]]:
    """Indices of named nodes, and the names that this graph lacks; each once, in the order given."""
    places = {name: index for index, name in enumerate(node_names(result))}
    wanted = list(dict.fromkeys(names))
    return [places[name] for name in wanted if name in places], [n for n in wanted if n not in places]


def parse_nodes(text: str) -> tuple[str, ...]:
    """Names from a list with commas, each once; an empty text gives none.

    Raises:
        InputError: one of them names no node, or there are more than `MAX_NAMES`.
    """
    pieces = list(dict.fromkeys(piece.strip() for piece in text.split(",") if piece.strip()))
    if len(pieces) > MAX_NAMES:
        raise InputError(f"The list has more than {MAX_NAMES:,} nodes")
    for piece in pieces:
        if _NAME.fullmatch(piece) is None:
            raise InputError(
                f"{piece[:40]!r} names no node of a graph",
                fix="Write features as L5F102@7, errors as L5E@7, tokens as T@7, logits as Y345",
            )
    return tuple(pieces)


def format_nodes(names: Sequence[str]) -> str:
    """The inverse of `parse_nodes`."""
    return ",".join(names)
