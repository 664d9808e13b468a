"""Nodes of a graph by name, on the model: where they stand, what they write, what they read."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.errors import InputError
from mi_core.transcoders.graph_parts import GraphParts
from mi_core.transcoders.names import FeatureAt

PlaceKind = Literal["feature", "error", "token", "logit"]


@dataclass(frozen=True, slots=True)
class Place:
    """A node.

    Attributes:
        name: as in links and tables.
        kind: what it is.
        index: in the order of the graph's nodes.
        layer: -1 for tokens, the number of layers for logits.
        position: its token.
    """

    name: str
    kind: PlaceKind
    index: int
    layer: int
    position: int


def places(parts: GraphParts) -> dict[str, Place]:
    """All nodes of a graph by name."""
    active, n_layers = parts.active, parts.frozen.n_layers
    listed = zip(active.layer.tolist(), active.position.tolist(), active.feature.tolist(), strict=True)
    found = [
        Place(FeatureAt(layer, feature, position).text, "feature", index, layer, position)
        for index, (layer, position, feature) in enumerate(listed)
    ]
    for layer in range(n_layers):
        for position in parts.unmasked:
            found.append(Place(f"L{layer}E@{position}", "error", len(found), layer, position))
    for position in range(parts.frozen.n_pos):
        found.append(Place(f"T@{position}", "token", len(found), -1, position))
    for target in parts.targets:
        name = "Y" + "-".join(map(str, target.ids))
        found.append(Place(name, "logit", len(found), n_layers, parts.frozen.n_pos - 1))
    return {place.name: place for place in found}


def find_place(known: dict[str, Place], name: str) -> Place:
    """A node by name.

    Raises:
        InputError: this graph has no such node.
    """
    if name not in known:
        raise InputError(
            f"{name} is no node of this graph",
            why="a feature is a node only at tokens where it is active, a logit only if it is a target",
        )
    return known[name]


def writing(
    parts: GraphParts, place: Place
) -> tuple[dict[int, Float[Tensor, "1 pos d_model"]], Float[Tensor, "1 pos d_model"] | None]:
    """What a node adds: to the MLP outputs by layer, and to the embedding (tokens only)."""
    embed = parts.frozen.embed
    if place.kind == "token":
        alone = torch.zeros_like(embed)[None]
        alone[0, place.position] = embed[place.position]
        return {}, alone
    found = {}
    for layer in range(max(place.layer, 0), parts.frozen.n_layers):
        writes = parts.writes[layer]
        mine = writes.columns[place.position] == place.index
        if bool(mine.any()) and place.kind != "logit":
            delta = torch.zeros_like(embed)[None]
            delta[0, place.position] = writes.vectors[place.position][mine].sum(0)
            found[layer] = delta
    return found, None


def reading(parts: GraphParts, place: Place) -> Float[Tensor, " d_model"]:
    """The gradient of a feature's pre-activation at the read site, or of a logit after the last block."""
    if place.kind == "logit":
        return parts.logit_read[place.index - parts.first_logit]
    return parts.read[place.index]
