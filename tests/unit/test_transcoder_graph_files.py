"""Neuronpedia's graph JSON: what is written, read back, and read from files as circuit-tracer writes them."""

import json
from typing import Any

import numpy as np
import pytest

from mi_core.errors import InputError
from mi_core.transcoders import neuronpedia_json, prune, read_neuronpedia
from mi_core.transcoders.graph_files import cantor
from mi_core.transcoders.graph_files_read import uncantor
from mi_core.transcoders.graph_names import node_names
from mi_core.transcoders.graph_result import GraphResult
from tests.feature_graphs import hand_graph

REQUIRED = {"node_id", "feature", "layer", "ctx_idx", "feature_type", "jsNodeId", "clerp"}


def written(**chosen: Any) -> dict[str, Any]:
    result = hand_graph()
    return json.loads(neuronpedia_json(result, prune(result, 1.0, 1.0), **chosen))


def test_cantor_numbers_are_circuit_tracers() -> None:
    """The first ones by hand, and there and back."""
    assert [cantor(0, 0), cantor(1, 0), cantor(0, 1), cantor(2, 0), cantor(1, 1)] == [0, 1, 2, 3, 4]
    for pair in [(0, 0), (5, 102), (25, 16_383), (31, 131_071), (0, 7)]:
        assert uncantor(cantor(*pair)) == pair


def test_what_is_written_has_all_that_the_schema_requires_and_no_id_twice() -> None:
    made = written(pinned=[0, 10], groups={"capital": [1, 2]}, labels={2: "a country"}, slug="mine")
    assert made["metadata"]["schema_version"] == 1
    assert {"slug", "scan", "prompt_tokens", "prompt"} <= set(made["metadata"])
    assert made["metadata"]["slug"] == "mine"
    ids = [node["node_id"] for node in made["nodes"]]
    assert len(ids) == len(set(ids))
    assert len({node["jsNodeId"] for node in made["nodes"]}) == len(ids)
    assert all(set(node) >= REQUIRED for node in made["nodes"])
    by_id = {node["node_id"]: node for node in made["nodes"]}
    feature = by_id["1_2_1"]
    assert feature["feature"] == cantor(1, 2)
    assert (feature["layer"], feature["ctx_idx"], feature["clerp"]) == ("1", 1, "a country")
    assert by_id["0_-1_0"]["feature_type"] == "mlp reconstruction error"
    assert by_id["E_8_1"]["layer"] == "E"
    logit = by_id["3_5_1"]
    assert (logit["is_target_logit"], logit["token_prob"]) == (True, 0.7)
    assert logit["clerp"] == 'Output "\u00b7Paris" (p=0.700)'
    assert made["qParams"]["pinnedIds"] == ["0_4_0", "3_6_1"]
    assert made["qParams"]["supernodes"] == [["capital", "0_9_1", "1_2_1"]]
    weights = {(link["source"], link["target"]): link["weight"] for link in made["links"]}
    assert weights["0_9_1", "1_2_1"] == -2.0
    assert len(weights) == np.count_nonzero(hand_graph().edges)


def test_only_kept_nodes_and_pinned_ones_are_written() -> None:
    result = hand_graph()
    pruned = prune(result, 0.3, 0.5)
    dropped = int(np.flatnonzero(~pruned.nodes)[0])
    made = json.loads(neuronpedia_json(result, pruned, pinned=[dropped]))
    assert len(made["nodes"]) == pruned.nodes.sum() + 1
    assert made["metadata"]["pruning_settings"] == {"node_threshold": 0.3, "edge_threshold": 0.5}


def test_a_graph_comes_back_with_its_names_edges_pins_groups_and_labels() -> None:
    result = hand_graph()
    text = json.dumps(written(pinned=[2, 9], groups={"g": [0, 1]}, labels={0: "first"}))
    read = read_neuronpedia(text)
    assert isinstance(read.result, GraphResult)
    assert set(node_names(read.result)) == set(node_names(result)) - {"L0E@1"}  # nothing leaves it
    names, again = node_names(result), node_names(read.result)
    for row, node in enumerate(result.row_node):
        other = read.result.row_of(again.index(names[node]))
        assert other is not None
        for column in np.flatnonzero(result.edges[row]):
            assert read.result.edges[other, again.index(names[column])] == result.edges[row, column]
    assert [again[index] for index in read.pinned] == [names[2], names[9]]
    assert [again[index] for index in read.groups["g"]] == [names[0], names[1]]
    assert {again[index]: label for index, label in read.labels.items()} == {names[0]: "first"}
    assert read.result.n_layers == 2
    assert np.isnan(read.result.remainder).all()
    assert any("read from a file" in warning for warning in read.result.warnings)
    assert GraphResult.from_json(read.result.to_json()).n_nodes == result.n_nodes - 1


def upstream(**changes: Any) -> dict[str, Any]:
    """A small graph with the ids of older circuit-tracer files: the error 0_1_0 has a feature's id."""

    def node(name: str, feature: int, layer: str, position: int, kind: str, **more: Any) -> dict[str, Any]:
        return {"node_id": name, "feature": feature, "layer": layer, "ctx_idx": position,
                "feature_type": kind, "jsNodeId": name, "clerp": "", "influence": 0.5, **more}  # fmt: skip

    nodes = [
        node("3_42_1", 42, "3", 1, "logit", token_prob=0.9, clerp='Output " <b>x" (p=0.900)'),
        node("E_7_0", 0, "E", 0, "embedding"),
        node("E_8_1", 1, "E", 1, "embedding"),
        node("0_1_0", cantor(0, 1), "0", 0, "cross layer transcoder", activation=2.5, clerp="<script>"),
        node("0_1_0", -1, "1", 0, "mlp reconstruction error"),
    ]
    links = [
        {"source": "E_7_0", "target": "0_1_0", "weight": 1.5},
        {"source": "0_1_0", "target": "3_42_1", "weight": -0.5},
        {"source": "gone", "target": "3_42_1", "weight": 1.0},
    ]
    metadata = {"slug": "s", "scan": "gemma-2-2b", "prompt_tokens": ["<bos>", " a"], "prompt": "a"}
    parameters = {"pinnedIds": ["0_1_0", "?"]}
    return {"metadata": metadata, "qParams": parameters, "nodes": nodes, "links": links, **changes}


def test_an_older_file_with_one_id_twice_is_read_and_says_so() -> None:
    read = read_neuronpedia(json.dumps(upstream()))
    assert node_names(read.result) == ("L0F1@0", "L1E@0", "T@0", "T@1", "Y42")
    assert read.result.edges[read.result.row_of(4) or 0, 0] == -0.5
    assert any("cannot be told apart" in warning for warning in read.result.warnings)
    assert read.pinned == (0,)
    assert read.labels == {0: "<script>"}  # kept as it is; pages show it as text
    assert read.result.target_names == ("\u00b7<b>x",)
    assert read.result.node_activation[0] == 2.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "no attribution graph"),
        ("{", "not a JSON file"),
        (json.dumps({"metadata": {}, "nodes": [], "links": []}), "no attribution graph"),
        (json.dumps(upstream(metadata={"schema_version": 9})), "schema version"),
        (json.dumps(upstream(nodes=[{"node_id": "x"}])), "damaged"),
        (json.dumps(upstream(nodes=upstream()["nodes"] * 2)), "twice"),
        (json.dumps(upstream(links=[{"source": "3_42_1", "target": "0_1_0", "weight": 1}])), "damaged"),
        (json.dumps(upstream()).replace('"weight": 1.5', '"weight": 1' + 400 * "0"), "damaged"),
        (json.dumps(upstream()).replace('"3", "ctx_idx"', '"3000000000", "ctx_idx"'), "damaged"),
        (json.dumps(upstream()).replace("E_7_0", "E_" + 30 * "7" + "_0"), "damaged"),
    ],
)
def test_a_damaged_file_is_one_error(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_neuronpedia(text)
