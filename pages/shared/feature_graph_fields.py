"""What the graph tab lets a user choose, as fields of the link."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mi_core.errors import InputError
from mi_core.transcoders.graph_groups import format_groups, parse_groups
from mi_core.transcoders.graph_inputs import DEFAULT_ROWS
from mi_core.transcoders.graph_names import format_nodes, parse_nodes
from mi_core.transcoders.graph_removals_target import check_effect_on
from pages.shared import link

TARGETS = {
    "likely": "Likely tokens",
    "answer": "The answer",
    "difference": "Answer \u2212 compared",
    "tokens": "These tokens",
}
FREEZES = {"nothing": "Nothing frozen", "attention": "Attention frozen"}

TARGET, TOKENS, ROWS = "graph_target", "graph_tokens", "graph_rows"
NODE_SHARE, EDGE_SHARE = "graph_node_share", "graph_edge_share"
NODE, EDGE, PINS, GROUPS = "graph_node", "graph_edge", "graph_pins", "graph_groups"
DENSEST, HIDE_NONE = "graph_densest", 100.0
TEST, FREEZE, EFFECT_ON = "graph_test", "graph_freeze", "graph_effect_on"
MOST_ROWS = 20_000
MAX_TEXT = 8_000


def _checked(name: str, key: str, default: Any, read: Callable[[str], str]) -> link.LinkField:
    """A field whose text must be readable by one of the library's parsers."""

    def parse(raw: str) -> str:
        if len(raw) > MAX_TEXT:
            raise link.BadValue(f"which is longer than {MAX_TEXT:,} characters")
        try:
            return read(raw)
        except InputError as error:
            raise link.BadValue(f"but {error.what[:1].lower()}{error.what[1:]}") from None

    return link.LinkField(name, key, default, parse)


def _one_node(raw: str) -> str:
    names = parse_nodes(raw)
    if len(names) != 1:
        raise InputError("There must be one node")
    return names[0]


def _one_edge(raw: str) -> str:
    return edge_text(*(_one_node(part) for part in raw.split(">", 1))) if ">" in raw else _one_node("")


def _effect_on(raw: str) -> str:
    check_effect_on(raw)
    return raw


def edge_text(source: str, target: str) -> str:
    """An edge in a link."""
    return f"{source}>{target}"


FIELDS = [
    link.choice(TARGET, "gr_t", "likely", TARGETS),
    link.text(TOKENS, "gr_tokens", "", limit=500),
    link.number(ROWS, "gr_rows", DEFAULT_ROWS, 1, MOST_ROWS, whole=True),
    link.number(NODE_SHARE, "gr_nodes", 0.8, 0.1, 1.0),
    link.number(EDGE_SHARE, "gr_edges", 0.98, 0.1, 1.0),
    link.number(DENSEST, "gr_dense", HIDE_NONE, 0.0, 100.0),
    _checked(NODE, "gr_node", None, _one_node),
    _checked(EDGE, "gr_edge", None, _one_edge),
    _checked(PINS, "gr_pins", "", lambda raw: format_nodes(parse_nodes(raw))),
    _checked(GROUPS, "gr_groups", "", lambda raw: format_groups(parse_groups(raw))),
    link.flag(TEST, "gr_test"),
    link.choice(FREEZE, "gr_freeze", "nothing", FREEZES),
    _checked(EFFECT_ON, "gr_on", "", _effect_on),
]
