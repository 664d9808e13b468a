"""The graph tab: its numbers are the library's, clicks and pins are in the link, files come in and go out."""

import pytest

from pages.shared.feature_graph_fields import FIELDS
from pages.shared.link import read_link, write_link

GOOD = {
    "gr_t": "difference",
    "gr_tokens": "Paris, Rome",
    "gr_rows": "64",
    "gr_nodes": "0.5",
    "gr_edges": "0.9",
    "gr_node": "L5F102@7",
    "gr_edge": "L5F102@7>Y345",
    "gr_pins": "L5F102@7,T@3,L2E@1",
    "gr_groups": "a capital:L5F102@7;%3Cb%3E:T@3",
    "gr_test": "1",
    "gr_freeze": "attention",
}


def test_every_choice_survives_its_link() -> None:
    values, problems = read_link(GOOD, FIELDS)
    assert problems == []
    assert len(values) == len(FIELDS) == len(GOOD)
    assert write_link(values, FIELDS) == GOOD


@pytest.mark.parametrize(
    ("key", "raw"),
    [
        ("gr_node", "L5F102"), ("gr_node", "T@1,T@2"), ("gr_edge", "T@1"), ("gr_edge", "T@1>"),
        ("gr_pins", "<script>"), ("gr_groups", "x:<script>"), ("gr_pins", "T@1," * 5000), ("gr_nodes", "2"),
        ("gr_rows", "0"),
    ],
)  # fmt: skip
def test_a_bad_value_in_a_link_is_told_and_left_out(key: str, raw: str) -> None:
    values, problems = read_link({key: raw}, FIELDS)
    assert values == {}
    assert len(problems) == 1
