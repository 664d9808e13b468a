"""The attribution graph drawn: every dot, line and number is the graph's; names and groups survive a link."""

from itertools import combinations
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from mi_core.charts import feature_graph as charts
from mi_core.charts import feature_graph_parts as parts_charts
from mi_core.charts.feature_graph import GraphView
from mi_core.charts.feature_graph_layout import graph_layout
from mi_core.charts.theme import NEGATIVE, POSITIVE, styled
from mi_core.errors import InputError
from mi_core.exports.converter import shared_converter
from mi_core.exports.export import still
from mi_core.exports.feature_graph_tables import connection_table, edge_table, subgraph_table
from mi_core.tokens import Token
from mi_core.transcoders.graph_groups import (
    Group,
    connections,
    edge_shares,
    format_groups,
    grouped_edges,
    parse_groups,
    subgraph_parts,
    with_group,
    without_nodes,
)
from mi_core.transcoders.graph_names import found_nodes, node_label, node_names, parse_nodes
from tests.feature_graphs import EDGES, KINDS, hand_graph

ALL = np.ones(len(KINDS), bool)
NAMES = (
    "L0F4@0", "L0F9@1", "L1F2@1", "L0E@0", "L0E@1", "L1E@0", "L1E@1", "T@0", "T@1", "Y5", "Y6",
)  # fmt: skip


def drawing(view: GraphView | None = None, **more: Any) -> dict[str, Any]:
    result = hand_graph()
    return charts.graph_drawing(result, ALL, result.edges != 0, view, **more)


def crowd(per_cell: int) -> Any:
    """A graph whose cell (layer 0, token 1) has many features, and which has as many logits."""
    n = 2 * per_cell
    kinds = np.array([0] * per_cell + [3] * per_cell)
    return hand_graph(
        node_kind=kinds,
        node_layer=np.where(kinds == 0, 0, 2),
        node_position=np.ones(n, int),
        node_feature=np.arange(n),
        node_activation=np.ones(n),
        node_probability=np.ones(n),
        node_expanded=kinds == 3,
        influence=np.zeros(n),
        edges=np.zeros((per_cell, n), np.float32),
        row_node=np.arange(per_cell, n),
        **dict.fromkeys(("remainder", "row_value", "residual"), np.zeros(per_cell)),
        logit_weights=np.ones(per_cell),
        target_names=("\u00b7a",) * per_cell,
        target_ids=((1,),) * per_cell,
    )


# --- names and groups ---


def test_every_node_has_a_name_of_its_own_and_is_found_by_it() -> None:
    result = hand_graph()
    assert node_names(result) == NAMES
    assert found_nodes(result, [*reversed(NAMES), "L9F9@9", "L0F4@0"]) == ([*range(10, -1, -1)], ["L9F9@9"])
    assert parse_nodes(" L0F4@0, Y5,L1E@0 ,T@1,Y5-6") == ("L0F4@0", "Y5", "L1E@0", "T@1", "Y5-6")
    assert parse_nodes("") == ()


@pytest.mark.parametrize("wrong", ["L0F4", "L0@0", "hello", "L0F4@0;T@1", "Y", "L0F4@-1", "T@\u0664"])
def test_what_names_no_node_costs_one_sentence(wrong: str) -> None:
    with pytest.raises(InputError, match="names no node"):
        parse_nodes(wrong)


def test_a_difference_is_named_after_both_tokens() -> None:
    result = hand_graph(
        target_ids=((5, 6), (6,)), target_names=("\u00b7Paris \u2212 \u00b7Rome", "\u00b7Rome")
    )
    assert node_names(result)[9] == "Y5-6"
    assert node_label(result, 9) == "logit \u00b7Paris \u2212 \u00b7Rome"


@pytest.mark.parametrize("name", ["capital", "a:b;c,d", "<img src=x onerror=1>", "\u9996\u90fd % & ="])
def test_groups_come_back_from_a_link(name: str) -> None:
    groups = (Group(name, ("L0F4@0", "T@1")), Group("say it", ("Y5",)))
    assert parse_groups(format_groups(groups)) == groups


def test_a_node_is_in_one_group_only() -> None:
    groups = parse_groups(f"one:L0F4@0,T@1;{quote('two')}:T@1,Y5")
    assert [group.nodes for group in groups] == [("L0F4@0", "T@1"), ("Y5",)]
    moved = with_group(groups, "three", ["T@1", "Y5"])
    assert [(group.name, group.nodes) for group in moved] == [("one", ("L0F4@0",)), ("three", ("T@1", "Y5"))]
    assert with_group(moved, "one", ["Y5"])[-1] == Group("one", ("L0F4@0", "Y5"))
    assert without_nodes(groups, ["Y5"]) == (groups[0],)


@pytest.mark.parametrize("text", ["x", ":L0F4@0", "x:", "x:nothing", ";".join(["a:T@1"] * 60)])
def test_a_damaged_list_of_groups_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_groups(text)


# --- numbers ---


def test_inputs_and_the_remainder_add_up_to_the_value() -> None:
    result = hand_graph()
    found = connections(result, 2)
    assert found.inputs.tolist() == [1, 0, 3, 8]  # by size: -2, 1, .5, .5
    assert found.input_edges.tolist() == [-2.0, 1.0, 0.5, 0.5]
    assert dict(zip(found.outputs.tolist(), found.output_edges.tolist(), strict=True)) == {9: 3.0, 10: -1.0}
    assert found.input_edges.sum() + found.remainder + found.residual == pytest.approx(found.value)
    assert found.rest(2) == pytest.approx(1.0)
    leaf = connections(result, 7)  # a token has no row
    assert leaf.inputs.size == 0
    assert np.isnan(leaf.value)
    assert leaf.outputs.tolist() == [0, 1]


def test_shares_of_edges_are_those_worked_out_by_hand() -> None:
    shares = edge_shares(hand_graph())
    assert shares[0, 7] == pytest.approx(0.2)  # all of what arrives at L0F4@0
    assert shares[2, 1] == pytest.approx(0.4 * 2 / 4)
    assert shares[3, 2] == pytest.approx(0.7 * 3 / 5)  # a logit has its weight
    np.testing.assert_allclose(shares.sum(1), [0.2, 0.25, 0.4, 0.7, 0.2])


def test_an_edge_between_groups_is_the_sum_of_its_edges() -> None:
    sums = grouped_edges(hand_graph(), [[0, 1], [2], [9, 10], [7]])
    assert sums[1, 0] == pytest.approx(1.0 - 2.0)
    assert sums[2, 1] == pytest.approx(3.0 - 1.0)
    assert sums[2, 0] == pytest.approx(-1.0 + 2.0)
    assert sums[0, 3] == pytest.approx(2.5)
    assert np.diag(sums).tolist() == [0, 0, 0, 0]
    with pytest.raises(InputError, match="two groups"):
        grouped_edges(hand_graph(), [[0], [0]])


# --- the drawing ---


def test_dots_stand_at_their_token_and_layer_and_none_on_another() -> None:
    result = hand_graph()
    layout = graph_layout(result, ALL)
    for node in range(len(KINDS)):
        column = int(result.node_position[node])
        assert layout.columns[column] < layout.x[node] < layout.columns[column + 1]
    assert layout.y[7] == layout.y[8] < layout.y[0] == layout.y[1] == layout.y[3] < layout.y[2] < layout.y[10]
    assert layout.row_names == ("tokens", "L0", "L1", "logits")
    places = {(float(x), float(y)) for x, y in zip(layout.x, layout.y, strict=True)}
    assert len(places) == len(KINDS)


@pytest.mark.parametrize("count", [1, 4, 5, 6, 11, 20, 21, 60])
def test_a_crowd_has_room(count: int) -> None:
    layout = graph_layout(crowd(count), np.ones(2 * count, bool))
    points = list(zip(layout.x.tolist(), layout.y.tolist(), strict=True))
    apart = [max(abs(a - c), abs(b - d) / 15) for (a, b), (c, d) in combinations(points, 2)]
    assert min(apart) >= 0.999
    assert layout.columns[1] <= min(layout.x)
    assert max(layout.x) <= layout.columns[2]
    assert min(layout.y) > 0
    assert max(layout.y) < layout.height
    assert len({y for _, y in points[count:]}) == count  # a line for every logit


def test_lines_are_the_edges_and_join_their_dots() -> None:
    spec = drawing()
    lines = {(line["to"], line["from"]): line for line in spec["datasets"]["edges"]}
    assert {place: line["value"] for place, line in lines.items()} == {
        (target, source): value for target, row in EDGES.items() for source, value in row.items()
    }
    dots = {dot["node"]: (dot["x"], dot["y"]) for dot in spec["datasets"]["nodes"]}
    for (target, source), line in lines.items():
        assert (line["x"], line["y"]) == dots[source]
        assert (line["x2"], line["y2"]) == dots[target]
    touching = spec["datasets"]["touching"]
    assert len(touching) == 2 * len(lines)
    assert all(line["node"] in (line["from"], line["to"]) for line in touching)


def test_a_limit_keeps_the_edges_with_most_influence() -> None:
    result = hand_graph()
    kept = drawing(most_edges=3)["datasets"]["edges"]
    shares = edge_shares(result)
    strongest = np.sort(shares, axis=None)[-3:]
    rows = {node: row for row, node in enumerate(result.row_node.tolist())}
    np.testing.assert_allclose([shares[rows[line["to"]], line["from"]] for line in kept], strongest)
    assert charts.drawn_edges(result, result.edges != 0, 3)[1] == 14


def test_pruned_nodes_and_their_lines_are_left_out_but_pinned_ones_stay() -> None:
    result = hand_graph()
    nodes = ALL.copy()
    nodes[[0, 3, 4, 5, 6]] = False
    spec = charts.graph_drawing(result, nodes, result.edges != 0, GraphView(pinned=(0,)))
    shown = {dot["node"] for dot in spec["datasets"]["nodes"]}
    assert shown == {0, 1, 2, 7, 8, 9, 10}
    assert all({line["from"], line["to"]} <= shown for line in spec["datasets"]["edges"])
    assert [dot["node"] for dot in spec["datasets"]["pinned"]] == [0]


def test_the_chosen_node_colours_what_it_is_connected_to() -> None:
    spec = drawing(GraphView(chosen=2))
    signs = {dot["node"]: dot["sign"] for dot in spec["datasets"]["nodes"]}
    assert signs == {0: 1, 1: -1, 2: 0, 3: 1, 4: 0, 5: 0, 6: 0, 7: 0, 8: 1, 9: 1, 10: -1}
    faded = {dot["node"] for dot in spec["datasets"]["nodes"] if dot["faded"]}
    assert faded == {4, 5, 6, 7}
    assert {(line["from"], line["to"]) for line in spec["datasets"]["chosen_edges"]} == {
        (0, 2), (1, 2), (3, 2), (8, 2), (2, 9), (2, 10),
    }  # fmt: skip
    conditions = spec["layer"][4]["encoding"]["color"]["condition"]
    assert [one["value"] for one in conditions] == [POSITIVE, NEGATIVE]


def test_pointing_and_clicking_find_the_nearest_dot() -> None:
    params = [param for layer in drawing()["layer"] for param in layer.get("params", [])]
    assert {param["name"] for param in params} == {"cell", "hover"}
    assert all(param["select"]["nearest"] for param in params)
    assert [param["select"]["fields"] for param in params] == [["node", "turn"], ["node"]]


def test_texts_of_strangers_stay_text_in_the_picture() -> None:
    view = GraphView(2, (0, 2), {'"];alert(1)//': (0,)}, {2: "<script>\u202e"})
    svg = shared_converter().svg(styled(drawing(view), theme="print", size="text", opaque=True))
    assert "<script>" not in svg
    assert "&lt;script&gt;" in svg
    assert "\u202e" not in svg
    assert "1 \u00b7&lt;b&gt;" in svg


@pytest.mark.parametrize("size", ["screen", "column", "slide"])
def test_it_renders_with_nothing_in_it(size: Any) -> None:
    spec = charts.graph_drawing(hand_graph(), np.zeros(len(KINDS), bool), np.zeros((5, len(KINDS)), bool))
    assert "<svg" in shared_converter().svg(styled(spec, theme="light", size=size))


def test_the_description_tells_the_strongest_edges() -> None:
    result = hand_graph()
    said = charts.describe_graph(result, ALL, result.edges != 0, GraphView(chosen=0))
    assert "3 features, 4 errors, 2 tokens, 2 logits; 14 edges" in said
    assert "L1F2@1 \u00b7<b> \u2192 logit \u00b7Paris 3" in said
    assert "Chosen: L0F4@0" in said


# --- one node and the subgraph ---


def test_bars_of_a_node_are_its_edges_and_add_up() -> None:
    result = hand_graph()
    spec = parts_charts.connection_bars(result, 2, most=2)
    values = [bar["value"] for bar in spec["datasets"]["bars"]]
    assert [*values[:2], *values[5:]] == [-2.0, 1.0, 3.0, -1.0]
    assert sum(values[:4]) == pytest.approx(values[4])
    rows = parts_charts.connection_rows(connections(result, 2), 2)
    assert rows == [("in", 1), ("in", 0), None, None, None, ("out", 9), ("out", 10)]
    assert "L0F9@1" in parts_charts.describe_connections(result, 2)


def test_a_subgraph_draws_groups_once_with_their_summed_edges() -> None:
    result = hand_graph()
    view = GraphView(2, (0, 1, 2, 9), {"both": (0, 1, 8), "empty": (3,)}, {2: "capital"})
    assert subgraph_parts(result, view.pinned, view.groups) == [
        ("both", (0, 1)), (None, (2,)), (None, (9,)),
    ]  # fmt: skip
    spec = parts_charts.subgraph_drawing(result, view)
    names = [dot["name"] for dot in spec["datasets"]["nodes"]]
    assert names == ["both (2)", "L1F2@1 capital", "logit \u00b7Paris"]
    lines = {(line["from"], line["to"]): line["value"] for line in spec["datasets"]["edges"]}
    assert lines == {
        ("both (2)", names[1]): pytest.approx(-1.0),
        (names[1], names[2]): pytest.approx(3.0),
        ("both (2)", names[2]): pytest.approx(-1.0),
    }
    places = {(dot["x"], dot["y"]) for dot in spec["datasets"]["nodes"]}
    assert len(places) == 3
    assert "both (2)" in shared_converter().svg(styled(spec, theme="dark", size="text", opaque=True))
    assert "both (2)" in parts_charts.describe_subgraph(result, view)


def test_tables_have_one_row_per_edge() -> None:
    result = hand_graph()
    table = edge_table(result, result.edges != 0)
    assert len(table) == 14
    assert table["share of influence"].is_monotonic_decreasing
    assert table.iloc[0]["target"] == "Y5"
    node = connection_table(result, 2)
    assert node.loc[node["side"] == "input", "edge"].sum() + result.remainder[2] == pytest.approx(
        float(node.loc[node["side"] == "all", "edge"].iloc[0])
    )
    assert len(subgraph_table(result, GraphView(pinned=(0, 2)))) == 1


def test_pictures_carry_nothing_that_only_a_pointer_needs() -> None:
    spec = drawing(GraphView(chosen=2))
    moving = shared_converter().svg(styled(spec, theme="print", size="text"))
    picture = shared_converter().svg(styled(still(spec), theme="print", size="text"))
    assert "voronoi" in moving
    assert "voronoi" not in picture
    assert picture.count("<path") < moving.count("<path")
    assert still({"height": 3, "hconcat": []}) == {"height": 3, "hconcat": []}


def test_a_file_that_claims_many_layers_gets_rows_for_those_it_uses() -> None:
    layers = hand_graph().node_layer.copy()
    layers[2], layers[9:] = 7_000, 9_000
    layout = graph_layout(hand_graph(n_layers=9_000, node_layer=layers, fvu=np.zeros(9_000)), ALL)
    assert layout.row_names == ("tokens", "L0", "L1", "L7000", "logits")
    assert layout.height < 400
    assert np.isfinite(layout.y).all()
    assert layout.y[2] < layout.y[9]


def test_a_long_prompt_has_columns_where_something_is_shown() -> None:
    count = charts.MOST_COLUMNS + 10
    tokens = tuple(Token(at, at, f"t{at}", at, at + 1, False) for at in range(count))
    position = hand_graph().node_position.copy()
    position[[2, 4, 6, 9, 10]] = count - 1
    result = hand_graph(tokens=tokens, node_position=position)
    nodes = ALL.copy()
    nodes[[1, 8]] = False  # all that stands at token 1
    spec = charts.graph_drawing(result, nodes, result.edges != 0)
    assert len(spec["datasets"]["columns"]) == 1
    assert {dot["node"] for dot in spec["datasets"]["nodes"]} == set(range(11)) - {1, 8}
    pinned = charts.graph_drawing(result, nodes, result.edges != 0, GraphView(pinned=(8,)))
    assert len(pinned["datasets"]["columns"]) == 2
