"""Figures of attribution graphs: captions say n, unit and zero, files are written, tables have numbers."""

import runpy
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from mi_core.charts.feature_graph import GraphView
from mi_core.engine import build_model
from mi_core.errors import InputError
from mi_core.exports.export import export
from mi_core.exports.feature_graph import graph_figure, node_figure, subgraph_figure
from mi_core.exports.feature_graph_model import effects_figure, loadings_figure
from mi_core.exports.figure import Figure
from mi_core.exports.references import BIBTEX
from mi_core.exports.tables import result_json
from mi_core.transcoders import GraphInputs, attribution_graph, graph_effects
from mi_core.transcoders.graph_density import dense_nodes, node_densities
from mi_core.transcoders.graph_heads import HeadLoadingsInputs, HeadLoadingsResult
from mi_core.transcoders.graph_names import FEATURE
from mi_core.transcoders.graph_removals import GraphEffectsInputs, GraphEffectsResult
from mi_core.transcoders.graph_scores import prune, scores, subgraph_scores
from tests.feature_graphs import hand_graph, write_densities
from tests.tiny import VOCAB, hf_model
from tests.transcoders import tiny_clt, use
from tests.words import word_tokenizer

VIEW = GraphView(2, (0, 1, 2), {"both": (0, 1)}, {2: "a capital"})
LOADINGS = HeadLoadingsResult(
    HeadLoadingsInputs("The <b>", source="L0F4@0", target="L1F2@1"), None, 1.0, 0.25,
    np.array([[0.0, 0.5], [0.5, -0.25]]), np.array([[0.75, 0.0], [0.0, 0.0]]), "pre-activation",
)  # fmt: skip
EFFECTS = GraphEffectsResult(
    GraphEffectsInputs("The <b>", nodes=("L0F4@0", "L0E@1", "T@0")), None, "\u00b7Paris",
    np.array([-1.0, 0.5, -2.0]), np.array([-1.0, 0.5, 0.0]), np.array([-0.9, 0.25, np.nan]),
    ("\u00b7Paris", "\u00b7Rome"), np.array([1.0, 0.0]), cancelled=True,
)  # fmt: skip


@cache
def figures() -> dict[str, Figure]:
    result = hand_graph()
    pruned = prune(result, 0.9, 0.98)
    return {
        "graph": graph_figure(result, pruned, VIEW, thresholds=(0.9, 0.98), scores=scores(result)),
        "node": node_figure(result, 2, label="a capital", chosen=0),
        "leaf": node_figure(result, 7),
        "subgraph": subgraph_figure(result, VIEW, subgraph_scores(result, VIEW.pinned)),
        "loadings": loadings_figure(LOADINGS),
        "effects": effects_figure(EFFECTS),
    }


NAMES = ("graph", "node", "leaf", "subgraph", "loadings", "effects")


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_says_n_and_zero_and_has_its_papers(name: str) -> None:
    figure = figures()[name]
    assert "n = " in figure.caption
    assert "0 = " in figure.caption or name == "graph"
    assert set(figure.references) <= set(BIBTEX)
    assert len(figure.frame())
    assert figure.description
    assert export(figure, "svg").lstrip().startswith(b"<svg")
    assert export(figure, "pdf").startswith(b"%PDF")


def test_the_graphs_caption_has_thresholds_scores_and_the_sum_rule() -> None:
    caption = figures()["graph"].caption
    assert "of 11 nodes (90 % of the influence)" in caption
    assert "of 14 edges (98 %)" in caption
    assert "Sum rule: edges + biases = pre-activation in 5 rows, largest residual 0 " in caption
    assert "replacement score" in caption


def test_dense_features_are_only_not_drawn_and_the_caption_says_how_many() -> None:
    result = hand_graph()
    pruned, density = prune(result, 1.0, 1.0), np.full(11, np.nan)
    density[:3] = 0.5, 0.02, 0.5
    dense = dense_nodes(density, 0.1)
    assert dense.nodes.tolist() == [True, False, True, *[False] * 8]
    whole = graph_figure(result, pruned, GraphView(), thresholds=(1.0, 1.0), scores=scores(result))
    assert "Hidden" not in whole.caption

    def drawn(figure: Figure) -> tuple[set[int], int]:
        data = figure.spec["datasets"]
        return {dot["node"] for dot in data["nodes"]}, len(data["edges"])

    less = graph_figure(
        result, pruned, GraphView(), thresholds=(1.0, 1.0), scores=scores(result), dense=dense
    )
    assert drawn(whole)[0] - drawn(less)[0] == {0, 2}
    assert drawn(whole)[1] - drawn(less)[1] == 8  # 1 + 4 edges into them, 3 to logits
    assert "active on more than 10 % of a corpus' tokens: 2 features with 8 edges" in less.caption
    counts = whole.caption.split("Sum rule")[0]
    assert counts.split("Shown: ")[1] in less.caption  # what pruning keeps is the same
    assert whole.frame().equals(less.frame())
    assert "1 features" in less.description
    kept = graph_figure(result, pruned, GraphView(2, (0,)), thresholds=(1.0, 1.0), dense=dense)
    assert drawn(kept)[0] == drawn(whole)[0]  # what is chosen or pinned stays
    assert "0 features with 0 edges" in kept.caption
    one = graph_figure(result, pruned, GraphView(2), thresholds=(1.0, 1.0), dense=dense)
    assert ": 1 feature with " in one.caption
    with pytest.raises(InputError, match="density"):
        dense_nodes(density, 5.0)


def test_densities_are_those_of_a_pass_over_these_very_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    model = build_model(hf_model("llama"), word_tokenizer(bos=True, size=VOCAB))
    use(model, tiny_clt(model, density=0.4))
    transcoder = model.transcoders[""]
    graph = attribution_graph(model, GraphInputs("The capital of France is", rows=4))
    assert node_densities(model, transcoder, graph) is None
    counts = {layer: range(10 * layer, 10 * layer + 12) for layer in (0, 1, 3)}  # none of layer 2
    write_densities(transcoder.fingerprint, counts, 200)
    found, features = node_densities(model, transcoder, graph), graph.nodes_of(FEATURE)
    assert found is not None
    assert np.isnan(np.delete(found, features)).all()
    for node in features:
        layer, feature = int(graph.node_layer[node]), int(graph.node_feature[node])
        expected = np.nan if layer == 2 else (10 * layer + feature) / 200
        assert found[node] == pytest.approx(expected, nan_ok=True)
    assert set(graph.node_layer[features]) == {0, 1, 2, 3}
    assert set(graph.node_layer[dense_nodes(found, 0.11).nodes]) == {3}
    assert node_densities(model, transcoder, replace(graph, transcoder_fingerprint="another")) is None


def test_a_file_without_biases_says_that_no_sum_can_be_checked() -> None:
    nothing = np.full(5, np.nan)
    result = hand_graph(remainder=nothing, row_value=nothing, residual=nothing)
    caption = graph_figure(result, prune(result), GraphView(), thresholds=(1.0, 1.0)).caption
    assert "cannot be checked" in caption
    assert "nan" not in caption
    assert "smaller inputs" not in str(node_figure(result, 2).spec["datasets"]["bars"])


def test_a_node_without_inputs_says_so() -> None:
    assert "were not computed, or it has none" in figures()["leaf"].caption
    assert "Inputs + biases = 0.2 - 0.4" not in figures()["node"].caption
    assert "residual 0" in figures()["node"].caption


def test_loadings_show_both_splits_and_the_sum() -> None:
    cells = figures()["loadings"].spec["datasets"]["cells"]
    assert sum(cell["value"] for cell in cells if cell["kind"] == "arrives") == pytest.approx(0.75)
    assert sum(cell["value"] for cell in cells if cell["kind"] == "departs") == pytest.approx(0.75)
    assert "Edge 1 = heads 0.75 + no head 0.25" in figures()["loadings"].caption
    assert "[pre-activation]" in figures()["loadings"].caption


def test_effects_are_points_and_what_was_not_run_is_told() -> None:
    figure = figures()["effects"]
    points = figure.spec["datasets"]["points"]
    assert [(point["x"], point["y"]) for point in points] == [(-1.0, -0.9), (0.5, 0.25)]
    assert "n = 2 of 3, stopped early" in figure.caption
    assert "edited \u2212 baseline, in logits" in figure.caption
    assert "logit of \u00b7Paris (minus the mean logit)" in figure.caption


def drawn_for(on: str, name: str, weights: list[float], **graph: str) -> Figure:
    inputs = replace(EFFECTS.inputs, effect_on=on, **graph)
    return effects_figure(replace(EFFECTS, inputs=inputs, target_name=name, logit_weights=np.array(weights)))


@pytest.mark.parametrize(
    ("on", "name", "weights", "told"),
    [
        ("Y6", "\u00b7Rome", [0.0, 1.0], "the logit of \u00b7Rome (minus the mean logit)"),
        ("Y5-6", "\u00b7Paris - \u00b7Rome", [1.0, -1.0], "the logit difference \u00b7Paris - \u00b7Rome"),
        (
            "sum", "weighted sum of 2 logits", [0.2, 0.7],
            "the weighted sum of 2 logits (0.7 \u00b7Rome + 0.2 \u00b7Paris; weights as in the graph)",
        ),
    ],
)  # fmt: skip
def test_the_target_of_effects_stands_in_title_axes_and_caption(
    on: str, name: str, weights: list[float], told: str
) -> None:
    figure = drawn_for(on, name, weights)
    assert f"Change of {told} when a node is taken away" in figure.caption
    assert figure.title.endswith(f"on the {name}" if on == "sum" else f"on {name}")
    assert name in figure.description
    drawn = str(figure.spec)
    assert f"predicted change of {name} [logits]" in drawn
    assert f"actual change of {name} [logits]" in drawn
    assert set(figure.frame()["target"]) == {name}


def test_a_difference_that_the_graph_was_made_for_is_called_one() -> None:
    name = "\u00b7Paris - \u00b7Rome"
    figure = drawn_for("", name, [1.0, 0.0], answer=" Paris", distractor=" Rome")
    assert f"the logit difference {name}" in figure.caption


def test_a_targets_long_name_is_cut_on_axes_and_whole_in_the_caption() -> None:
    name = "\u00b7" + "x" * 60
    figure = drawn_for("", name, [1.0, 0.0])
    assert name in figure.caption
    assert name not in str(figure.spec)


@pytest.mark.parametrize("on", ["second", "sum"])
def test_the_recipe_makes_effects_on_any_target_again(on: str, tmp_path: Path) -> None:
    from mi_core import ModelSpec, load_model

    model = load_model(ModelSpec("atlas"))
    prompt, targets = "The Louvre Museum is located in the city of", (" Paris", " Rome")
    graph = attribution_graph(model, GraphInputs(prompt, targets=targets, rows=4))
    inputs = GraphEffectsInputs(
        prompt, nodes=("T@3", "L2E@5"), targets=targets, rows=4,
        effect_on=f"Y{graph.target_ids[1][0]}" if on == "second" else on,
    )  # fmt: skip
    figure = effects_figure(graph_effects(model, inputs))
    assert inputs.effect_on in figure.recipe
    (tmp_path / "data.json").write_bytes(result_json(figure))
    (tmp_path / "recipe.py").write_text(figure.recipe, encoding="utf-8")
    runpy.run_path(str(tmp_path / "recipe.py"))
