"""What the circuits section of the model page lets a user choose, as fields of the link."""

from __future__ import annotations

import re

from pages.shared import link

CIRCUITS = ("OV", "QK")
KINDS = ("Q", "K", "V")

HeadPair = tuple[tuple[int, int], tuple[int, int]]
"""((layer, head) that writes, (layer, head) that reads)."""


def _parse_pair(raw: str) -> HeadPair:
    match = re.fullmatch(r"L(\d{1,4})H(\d{1,4})-L(\d{1,4})H(\d{1,4})", raw)
    if match is None:
        raise link.BadValue("which is not a pair of heads such as L2H0-L3H1")
    return (int(match[1]), int(match[2])), (int(match[3]), int(match[4]))


def _show_pair(pair: HeadPair) -> str:
    return "-".join(f"L{layer}H{head}" for layer, head in pair)


def _parse_layers(raw: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,4})-(\d{1,4})", raw)
    if match is None:
        raise link.BadValue("which is not a pair of layers such as 2-3")
    return int(match[1]), int(match[2])


FIELDS = [
    link.choice("circuit", "mc_circuit", "OV", CIRCUITS),
    link.number("circuit_directions", "mc_n", 5, 1, 8, whole=True),
    link.number("circuit_tokens", "mc_k", 8, 1, 20, whole=True),
    link.choice("composition_kind", "mc_kind", "K", KINDS),
    link.flag("composition_excess", "mc_excess"),
    link.LinkField("composition_pair", "mc_pair", None, _parse_pair, _show_pair),
    link.LinkField(
        "composition_layers", "mc_layers", None, _parse_layers, lambda layers: f"{layers[0]}-{layers[1]}"
    ),
]
