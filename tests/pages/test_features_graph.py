"""The graph tab: its numbers are the library's, clicks and pins are in the link, files come in and go out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df
from streamlit.testing.v1 import AppTest

from mi_core.transcoders.graph_groups import connections
from mi_core.transcoders.graph_inputs import GraphInputs
from mi_core.transcoders.graph_names import FEATURE, node_name
from mi_core.transcoders.graph_removals import graph_effects
from mi_core.transcoders.graph_result import GraphResult
from mi_core.transcoders.graph_run import attribution_graph
from mi_core.transcoders.graph_scores import prune, scores, subgraph_scores
from pages.shared.feature_graph_fields import FIELDS
from pages.shared.link import read_link, write_link
from pages.shared.session import default_spec, hub
from tests.feature_graphs import write_densities
from tests.page_runs import until_idle
from tests.pages.conftest import assert_sound, settle, texts

PROMPT = "The Louvre Museum is located in the city of"

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
    "gr_on": "Y345-12",
    "gr_dense": "2.5",
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
        ("gr_rows", "0"), ("gr_on", "345"), ("gr_on", "L5F102@7"),
    ],
)  # fmt: skip
def test_a_bad_value_in_a_link_is_told_and_left_out(key: str, raw: str) -> None:
    values, problems = read_link({key: raw}, FIELDS)
    assert values == {}
    assert len(problems) == 1


def opened(frame: Callable[..., AppTest], **link: str) -> AppTest:
    """The tab, drawn twice: the second run must find what the first one left."""
    session = frame("features", **{"prompt": PROMPT, "ft_tab": "graph", **link})
    settle(session, "feature_graph")
    session.run()
    assert_sound(session)
    return session


def result_of(session: AppTest) -> GraphResult:
    return session.session_state["_run_feature_graph"].result


def charts(session: AppTest) -> list[dict[str, list[dict[str, Any]]]]:
    """The data sets of every drawing, by name, in the order of the page."""
    return [
        {
            data.name: convert_arrow_bytes_to_pandas_df(data.data.data).to_dict("records")
            for data in chart.proto.datasets
        }
        for chart in session.get("vega_lite_chart")
    ]


def said(session: AppTest) -> str:
    return texts(session).replace("\\", "")


def metrics(session: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in session.metric}


def strong_features(result: GraphResult, count: int) -> list[int]:
    """The features with most influence."""
    order = np.argsort(-result.influence, kind="stable")
    return [int(node) for node in order if result.node_kind[node] == FEATURE][:count]


def test_the_tab_shows_the_librarys_graph(frame: Callable[..., AppTest]) -> None:
    session = opened(frame, gr_nodes="0.7", gr_edges="0.9")
    model = hub().resident(default_spec())
    assert model is not None
    again, result = attribution_graph(model, GraphInputs(PROMPT)), result_of(session)
    assert result.inputs == again.inputs
    np.testing.assert_allclose(result.edges, again.edges, atol=1e-5)
    pruned, drawn = prune(result, 0.7, 0.9), charts(session)[0]
    assert {dot["node"] for dot in drawn["nodes"]} == set(np.flatnonzero(pruned.nodes).tolist())
    edges = {(line["to"], line["from"]): line["value"] for line in drawn["edges"]}
    rows = {node: row for row, node in enumerate(result.row_node.tolist())}
    assert edges
    for (target, source), value in edges.items():
        assert pruned.edges[rows[target], source]
        assert value == pytest.approx(float(result.edges[rows[target], source]))
    assert float(metrics(session)["Replacement score"]) == pytest.approx(scores(result).replacement, rel=0.01)
    assert "Sum rule: edges + biases = pre-activation" in said(session)


def test_a_node_is_chosen_pinned_and_grouped(frame: Callable[..., AppTest]) -> None:
    session = opened(frame)
    result = result_of(session)
    first, second = strong_features(result, 2)
    names = [node_name(result, node) for node in (first, second)]
    session.selectbox(key="graph_node").set_value(names[0]).run()
    settle(session, "feature_graph")
    assert_sound(session)
    assert session.session_state["selected_layer"] == int(result.node_layer[first])
    assert session.session_state["selected_feature"] == int(result.node_feature[first])
    bars = [bar["value"] for bar in charts(session)[1]["bars"]]
    assert bars[0] == pytest.approx(float(connections(result, first).input_edges[0]))
    session.button(key="graph_pin").click().run()
    session.selectbox(key="graph_node").set_value(names[1]).run()
    session.button(key="graph_pin").click().run()
    assert_sound(session)
    assert session.query_params["gr_pins"] == ",".join(names)
    mine = subgraph_scores(result, [first, second])
    shown = float(metrics(session)["Replacement score of mine"])
    assert shown == pytest.approx(mine.replacement, rel=0.01)
    session.multiselect(key="graph_group_nodes").set_value(names)
    session.text_input(key="graph_group_name").set_value("<b>the city</b>")
    session.button(key="graph_make_group").click().run()
    assert_sound(session)
    assert "%3Cb%3Ethe city%3C%2Fb%3E:" in session.query_params["gr_groups"]
    group = [dot for dot in charts(session)[-1]["nodes"] if "the city" in dot["name"]]
    assert len(group) == 1
    session.button(key="graph_unpin").click().run()
    session.button(key="graph_ungroup_0").click().run()
    assert_sound(session)
    assert "gr_groups" not in session.query_params
    assert session.query_params["gr_pins"] == names[0]


def test_pinned_features_are_in_the_subgraph_at_every_token(frame: Callable[..., AppTest]) -> None:
    result = result_of(opened(frame))
    node = strong_features(result, 1)[0]
    layer, feature = int(result.node_layer[node]), int(result.node_feature[node])
    session = opened(frame, ft_pins=f"L{layer}F{feature}")
    here = (result.node_kind == FEATURE) & (result.node_layer == layer) & (result.node_feature == feature)
    assert metrics(session)["Pinned nodes"] == str(int(here.sum()))
    session.button(key="graph_unpin_all").click().run()
    assert_sound(session)
    assert "ft_pins" not in session.query_params


def test_the_difference_of_two_answers_is_one_node(frame: Callable[..., AppTest]) -> None:
    session = opened(frame, gr_t="difference", target=" Paris", vs=" Rome", gr_rows="8")
    result = result_of(session)
    assert result.target_kind == "difference"
    assert result.n_targets == 1
    assert result.unexpanded > 0
    assert metrics(session)["Not expanded"] == f"{result.unexpanded:,}"


def test_effects_are_read_on_any_target_of_the_graph(frame: Callable[..., AppTest]) -> None:
    asked = {"gr_t": "tokens", "gr_tokens": "Paris, Rome", "gr_rows": "16", "gr_nodes": "0.3", "gr_test": "1"}
    session = opened(frame, **asked)
    settle(session, "graph_effects")
    result, menu = result_of(session), session.selectbox(key="graph_effect_on")
    second, difference = f"Y{result.target_ids[1][0]}", "-".join(
        ("Y" if not index else "") + str(ids[0]) for index, ids in enumerate(result.target_ids)
    )  # fmt: skip
    assert menu.options == [
        "\u00b7Paris", "\u00b7Rome", "weighted sum of 2 logits", "\u00b7Paris - \u00b7Rome",
    ]  # fmt: skip
    assert "gr_on" not in session.query_params
    model = hub().resident(default_spec())
    assert model is not None
    found = {}
    for on in ("", second, "sum", difference):
        session.selectbox(key="graph_effect_on").set_value(on).run()
        settle(session, "graph_effects")
        assert_sound(session)
        effects = session.session_state["_run_graph_effects"].result
        again = graph_effects(model, effects.inputs)
        assert effects.inputs.effect_on == on
        assert session.query_params.get("gr_on", "") == on
        points = charts(session)[-1]["points"]
        assert [point["y"] for point in points] == pytest.approx(again.actual.tolist(), abs=1e-4)
        assert [point["x"] for point in points] == pytest.approx(again.predicted.tolist(), abs=1e-4)
        found[on] = again
    np.testing.assert_allclose(found[difference].actual, found[""].actual - found[second].actual, atol=1e-4)
    assert "Change of the logit difference \u00b7Paris - \u00b7Rome" in said(session)


def test_dense_features_are_hidden_and_nothing_else_moves(
    frame: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    whole = opened(frame)
    before, numbers, result = charts(whole)[0], metrics(whole), result_of(whole)
    assert "Hidden of these" not in said(whole)
    write_densities(result.transcoder_fingerprint, {layer: range(1024) for layer in range(8)}, 1024)
    session = opened(frame, gr_dense="50")
    gone = {dot["node"] for dot in before["nodes"]} - {dot["node"] for dot in charts(session)[0]["nodes"]}
    assert gone
    dense = (result.node_kind == FEATURE) & (result.node_feature > 512)
    assert gone == {dot["node"] for dot in before["nodes"] if dense[dot["node"]]}
    assert metrics(session) == {**numbers, "Hidden as dense": str(len(gone))}
    assert f"active on more than 50 % of a corpus' tokens: {len(gone)} feature" in said(session)
    node = min(gone)
    session = opened(frame, gr_dense="49.5", gr_node=node_name(result, node))
    assert session.select_slider(key="graph_densest").value == 49.5
    assert node in {dot["node"] for dot in charts(session)[0]["nodes"]}


def test_where_no_density_is_known_none_is_hidden_and_that_is_said(
    frame: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    result = result_of(opened(frame))
    write_densities(result.transcoder_fingerprint, {layer: [1] * 3 for layer in range(8)}, 10)  # another size
    session = opened(frame, gr_dense="1")
    assert "No density is known here, so no feature is hidden." in said(session)
    assert session.select_slider(key="graph_densest").disabled
    assert "Hidden of these" not in said(session)


def test_one_target_needs_no_menu_and_a_strange_one_is_told(frame: Callable[..., AppTest]) -> None:
    asked = {"gr_rows": "8", "gr_nodes": "0.2", "gr_t": "difference", "target": " Paris", "vs": " Rome"}
    session = opened(frame, gr_test="1", **asked)
    settle(session, "graph_effects")
    assert_sound(session)
    assert "graph_effect_on" not in [box.key for box in session.selectbox]
    assert "Change of the logit difference" in said(session)
    session = opened(frame, gr_test="1", gr_on="Y1", **asked)
    assert "Y1 is not explained by this graph" in said(session)
    session.selectbox(key="graph_effect_on").set_value("").run()
    settle(session, "graph_effects")
    assert_sound(session)
    assert "Change of the logit difference" in said(session)


@pytest.mark.parametrize(
    ("link", "told"),
    [
        ({"gr_t": "difference"}, "Name a token to compare with"),
        ({"gr_t": "tokens"}, "Name one or more tokens"),
        ({"gr_node": "L0F999999@3"}, "L0F999999@3 is not in this graph"),
        ({"gr_pins": "L0F999999@3"}, "Not in this graph, so left out: L0F999999@3"),
    ],
)
def test_mistakes_cost_one_sentence(frame: Callable[..., AppTest], link: dict[str, str], told: str) -> None:
    session = frame("features", **{"prompt": PROMPT, "ft_tab": "graph", **link})
    until_idle(session, ["feature_graph"])
    assert_sound(session)
    assert told in said(session)


@pytest.mark.parametrize("prompt", ["a", "\U0001f600 \u6f22\u5b57 <b>$x$ [y](z)", "\n\n", "the the the the"])
def test_any_prompt_gives_a_graph(frame: Callable[..., AppTest], prompt: str) -> None:
    session = opened(frame, prompt=prompt, gr_rows="20")
    result = result_of(session)
    drawn = charts(session)[0]
    assert sum(dot["kind"] == "2" for dot in drawn["nodes"]) == len(result.tokens)


def test_without_a_prompt_a_file_can_still_be_opened(frame: Callable[..., AppTest]) -> None:
    session = frame("features", prompt="", ft_tab="graph")
    assert_sound(session)
    assert "Neuronpedia graph files" in [expander.label for expander in session.expander]


def test_a_label_typed_at_a_node_names_it_in_the_drawing(
    frame: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    result = result_of(opened(frame))
    node = strong_features(result, 1)[0]
    session = opened(frame, gr_node=node_name(result, node), gr_pins=node_name(result, node))
    session.text_input(key="_feature_label").set_value("the <b>Louvre").run()
    session.run()
    assert_sound(session)
    dots = {dot["node"]: dot for dot in charts(session)[0]["nodes"]}
    assert dots[node]["label"] == dots[node]["beside"] == "the <b>Louvre"
