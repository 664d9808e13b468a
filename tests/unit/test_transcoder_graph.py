"""Attribution graphs as a whole: targets, budget, pruning, scores, head loadings, effects, records."""

import json
from dataclasses import replace
from functools import lru_cache
from typing import Any, cast

import numpy as np
import pytest
import torch

from mi_core.engine import build_model, observe, run
from mi_core.engine.edits import Edit
from mi_core.errors import Cancelled, InputError, TranscoderError
from mi_core.model.model import LoadedModel
from mi_core.transcoders import (
    GraphEffectsInputs,
    GraphInputs,
    GraphResult,
    HeadLoadingsInputs,
    attribution_graph,
    graph_effects,
    head_loadings,
    prune,
    scores,
    subgraph_scores,
)
from mi_core.transcoders.graph_heads import HeadLoadingsResult
from mi_core.transcoders.graph_names import ERROR, FEATURE, LOGIT, TOKEN, node_name
from mi_core.transcoders.graph_removals import predicted_effects
from mi_core.transcoders.graph_removals_result import GraphEffectsResult
from mi_core.transcoders.graph_scores import node_influence
from tests.feature_graphs import hand_graph
from tests.tiny import VOCAB, hf_model
from tests.transcoders import MemorySource, tiny_clt, tiny_plt, use
from tests.words import word_tokenizer

PROMPT = "The capital of France is"


@lru_cache(maxsize=8)
def model_of(name: str = "llama", kind: str = "clt") -> LoadedModel:
    model = build_model(hf_model(name), word_tokenizer(bos=True, size=VOCAB))
    use(model, tiny_clt(model, density=0.4) if kind == "clt" else tiny_plt(model, density=0.4))
    return model


@lru_cache(maxsize=32)
def graph(name: str = "llama", kind: str = "clt", **chosen: Any) -> GraphResult:
    return attribution_graph(model_of(name, kind), GraphInputs(PROMPT, **chosen))


# --- the graph ---


@pytest.mark.parametrize(("name", "kind"), [("llama", "clt"), ("gpt2", "plt"), ("gemma2", "clt")])
def test_rows_add_up_with_the_first_token_masked_and_everything_agrees(name: str, kind: str) -> None:
    result = graph(name, kind)
    assert result.masked == (0,)
    assert result.worst_residual < 1e-5
    assert [check.passed for check in result.checks] == [True, True]
    features, errors = result.nodes_of(FEATURE), result.nodes_of(ERROR)
    assert (result.node_position[features] > 0).all()
    assert len(errors) == 4 * 5
    assert (result.node_position[errors] > 0).all()
    assert len(result.nodes_of(TOKEN)) == 6
    assert result.unexpanded == 0
    assert np.abs(result.remainder).max() > 0.01  # what the MLPs write at <s> is in there


def test_showing_bos_turns_the_remainder_there_into_nodes() -> None:
    shown = graph(show_bos=True)
    assert shown.masked == ()
    assert (shown.node_position == 0).sum() > 4
    assert len(shown.nodes_of(ERROR)) == 4 * 6
    assert shown.worst_residual < 1e-5
    before = {node_name(graph(), node): graph().row_value[row] for row, node in enumerate(graph().row_node)}
    for row, node in enumerate(shown.row_node):
        name = node_name(shown, node)
        assert name not in before or before[name] == pytest.approx(shown.row_value[row], rel=1e-6)


def test_logits_are_the_models_own_minus_their_mean() -> None:
    result, model = graph(targets=(" Rome", " Paris")), model_of()
    logits = observe(model, [token.id for token in result.tokens], ("logits",))["logits", None][-1].double()
    rows = slice(result.n_rows - 2, None)
    own = [float(logits[ids[0]] - logits.mean()) for ids in result.target_ids]
    assert result.row_value[rows] == pytest.approx(own, abs=1e-9)
    chances = logits.softmax(-1)
    assert result.logit_weights == pytest.approx([float(chances[ids[0]]) for ids in result.target_ids])
    assert result.target_names == ("\u00b7Rome", "\u00b7Paris")


def test_a_difference_of_logits_is_the_difference_of_their_rows() -> None:
    both, difference = graph(targets=(" Rome", " Paris")), graph(answer=" Rome", distractor=" Paris")
    assert difference.target_names == ("\u00b7Rome - \u00b7Paris",)
    sources = both.n_nodes - 2
    expected = both.edges[-2, :sources] - both.edges[-1, :sources]
    np.testing.assert_allclose(difference.edges[-1, :sources], expected, atol=2e-5)
    assert difference.row_value[-1] == pytest.approx(both.row_value[-2] - both.row_value[-1], abs=1e-5)
    assert difference.logit_weights.tolist() == [1.0]


def test_salient_tokens_hold_95_percent_or_are_ten() -> None:
    result = graph()
    assert result.target_kind == "salient"
    chances = result.logit_weights
    assert list(chances) == sorted(chances, reverse=True)
    assert len(chances) == 10 or chances.sum() >= 0.95 > chances[:-1].sum()


def test_a_budget_leaves_exact_rows_and_says_what_is_missing() -> None:
    whole, part = graph(answer=" Rome"), graph(answer=" Rome", rows=12)
    assert part.n_rows == 13
    assert part.unexpanded == part.n_features - 12
    assert any("not expanded" in warning for warning in part.warnings)
    for row, node in enumerate(part.row_node):
        same = whole.row_of(int(node))
        assert same is not None
        np.testing.assert_allclose(part.edges[row], whole.edges[same], rtol=1e-5, atol=1e-6)
    # The chosen ones are among the influential.
    chosen = part.row_node[:-1]
    rank = np.argsort(np.argsort(-whole.influence[: whole.n_features]))
    assert rank[chosen].mean() < whole.n_features / 4
    assert scores(part).unexpanded > 0
    assert scores(whole).unexpanded == 0


def test_stopping_early_gives_what_is_done() -> None:
    def stop(step: Any) -> None:
        if step.done >= 3:
            raise Cancelled

    result = attribution_graph(model_of(), GraphInputs(PROMPT, rows=16), on_step=stop)
    assert result.cancelled
    assert 0 < result.n_rows < 20
    assert result.worst_residual < 1e-5


def test_a_transcoder_that_fits_nothing_is_told() -> None:
    model = build_model(hf_model("llama", seed=5), word_tokenizer(bos=True, size=VOCAB))
    good = tiny_clt(model)
    source = cast("MemorySource", good.source)
    wrong = replace(source, biases={layer: 50 + bias for layer, bias in source.biases.items()})
    use(model, replace(good, source=wrong))
    result = attribution_graph(model, GraphInputs(PROMPT, answer=" Rome"))
    assert any("wrong hooks" in warning for warning in result.warnings)
    assert result.worst_residual < 1e-3  # errors make up for it


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"answer": " Rome", "distractor": " Rome"}, "same token"),
        ({"targets": (" Rome", " Rome")}, "same token"),
        ({"targets": (" Rome",), "answer": " Paris"}, "both given"),
        ({"rows": 0}, "rows"),
    ],
)
def test_what_a_user_does_wrong(chosen: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        graph(**chosen)


def test_a_model_without_transcoder_says_so() -> None:
    model = build_model(hf_model("llama"), word_tokenizer(bos=True, size=VOCAB))
    with pytest.raises(TranscoderError, match="no transcoder"):
        attribution_graph(model, GraphInputs(PROMPT))


def test_inputs_and_results_come_back_from_json() -> None:
    result = graph(answer=" Rome", rows=20)
    assert GraphInputs.from_dict(json.loads(json.dumps(result.inputs.to_dict()))) == result.inputs
    again = GraphResult.from_json(result.to_json())
    for name in ("edges", "influence", "row_value", "node_activation", "fvu", "residual"):
        np.testing.assert_array_equal(getattr(again, name), getattr(result, name))
    assert again.target_ids == result.target_ids
    assert again.checks == result.checks
    with pytest.raises(InputError):
        GraphResult.from_json(result.to_json().replace('"row_node": [', '"row_node": [0, 0, ', 1))
    frame = result.to_frame()
    assert set(frame["level"]) == {"node", "edge", "remainder"}
    assert list(frame["level"]).count("edge") == np.count_nonzero(result.edges)


# --- influence, pruning, scores ---


def test_influence_of_a_graph_made_by_hand() -> None:
    """Nodes: f0, f1 (layer 0), f2 (layer 1), errors, tokens 7 and 8, logits 9 (0.7) and 10 (0.2)."""
    found = node_influence(hand_graph())
    f2 = 0.7 * 3 / 5 + 0.2 * 1 / 4
    f0 = 0.2 * 2 / 4 + f2 * 1 / 4
    f1 = 0.7 * 1 / 5 + f2 * 2 / 4
    tokens = f0 + f1 * 0.5 / 2, 0.7 * 0.5 / 5 + f2 * 0.5 / 4 + f1 * 1.5 / 2
    assert found[[0, 1, 2]] == pytest.approx([f0, f1, f2])
    assert found[[7, 8]] == pytest.approx(tokens)
    errors = [f2 * 0.5 / 4, 0.0, 0.2 * 1 / 4, 0.7 * 0.5 / 5]
    assert found[3:7] == pytest.approx(errors)
    told = scores(hand_graph())
    assert told.replacement == pytest.approx(sum(tokens) / (sum(tokens) + sum(errors)))
    weights = np.zeros(11)
    weights[9:] = 0.7, 0.2
    complete = np.ones(11)
    complete[[2, 9, 10]] = 1 - 0.5 / 4, 1 - 0.5 / 5, 1 - 1 / 4
    arriving = found + weights
    assert told.completeness == pytest.approx((complete * arriving).sum() / arriving.sum())


def test_scores_of_a_subgraph_count_what_was_left_out_as_error() -> None:
    result = hand_graph()
    everything = subgraph_scores(result, [0, 1, 2])
    assert everything == scores(result)
    without = subgraph_scores(result, [0, 1])
    # f2 is an error now: what went through it no longer reaches tokens.
    tokens = 0.2 * 2 / 4 + 0.7 * 1 / 5 + 0.7 * 0.5 / 5
    errors = (0.7 * 3 / 5 + 0.2 * 1 / 4) + 0.2 * 1 / 4 + 0.7 * 0.5 / 5
    assert without.replacement == pytest.approx(tokens / (tokens + errors))
    assert without.completeness < everything.completeness
    assert subgraph_scores(result, []).replacement < without.replacement


def test_influence_is_the_sum_over_all_paths() -> None:
    result = graph(answer=" Rome", distractor=" Paris")
    matrix = np.zeros((result.n_nodes, result.n_nodes))
    matrix[result.row_node] = np.abs(result.edges)
    matrix /= np.maximum(matrix.sum(1, keepdims=True), 1e-10)
    weights = np.where(result.node_kind == LOGIT, 1.0, 0.0)
    expected, step = np.zeros(result.n_nodes), weights
    for _ in range(result.n_layers + 2):
        step = step @ matrix
        expected += step
    np.testing.assert_allclose(node_influence(result), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(result.influence, expected + weights, rtol=1e-9, atol=1e-12)


def test_pruning_keeps_what_matters_and_nothing_loose() -> None:
    result = graph()
    all_of_it = prune(result, 1.0, 1.0)
    reached = node_influence(result) > 0
    assert all_of_it.nodes[reached].all()
    pruned = prune(result)
    found = node_influence(result)
    kept = pruned.nodes
    assert kept[result.node_kind >= TOKEN].all()
    assert kept.sum() < all_of_it.nodes.sum()
    assert found[kept & (result.node_kind < TOKEN)].min() >= found[~kept].min()
    assert pruned.edges.sum() < np.count_nonzero(result.edges)
    rows = result.row_node
    assert not pruned.edges[~kept[rows]].any()
    assert not pruned.edges[:, ~kept].any()
    inner = np.flatnonzero(kept & (result.node_kind < TOKEN))
    assert pruned.edges[:, inner].any(axis=0).all()
    features = [row for row, node in enumerate(rows) if kept[node] and result.node_kind[node] == FEATURE]
    assert pruned.edges[features].any(axis=1).all()
    order = np.argsort(-found, kind="stable")
    assert (np.diff(pruned.influence[order]) >= -1e-12).all()
    assert pruned.influence.max() == pytest.approx(1.0)
    smaller = prune(result, 0.5, 0.9)
    assert not (smaller.nodes & ~kept).any()
    with pytest.raises(InputError, match="threshold"):
        prune(result, 1.2)


# --- heads ---


@pytest.mark.parametrize(("name", "kind"), [("llama", "clt"), ("gemma2", "clt"), ("gpt2", "plt")])
def test_head_loadings_add_up_to_the_edge_in_both_manners(name: str, kind: str) -> None:
    result = graph(name, kind, answer=" Rome", distractor=" Paris")
    rows, columns = np.nonzero(np.abs(result.edges) > 0.02)
    generator = np.random.default_rng(0)
    for pick in generator.choice(len(rows), 4, replace=False):
        source = node_name(result, int(columns[pick]))
        target = node_name(result, int(result.row_node[rows[pick]]))
        inputs = HeadLoadingsInputs(PROMPT, answer=" Rome", distractor=" Paris", source=source, target=target)
        split = head_loadings(model_of(name, kind), inputs)
        edge = result.edges[rows[pick], columns[pick]]
        assert split.edge == pytest.approx(edge, abs=1e-5)
        for part in (split.loadings, split.departures):
            assert part.shape == (4, 4)
            assert split.direct + part.sum() == pytest.approx(edge, abs=1e-5)
        assert all(check.passed for check in split.checks)
        same = result.node_position[columns[pick]] == result.node_position[result.row_node[rows[pick]]]
        assert same or split.direct == 0
        again = HeadLoadingsResult.from_json(split.to_json())
        np.testing.assert_array_equal(again.loadings, split.loadings)
        assert again.inputs == inputs
        assert len(split.to_frame()) == 2 + 2 * 16


def test_one_layer_of_heads_is_split_as_attention_itself_is() -> None:
    """Between neighbouring layers the only heads on the way are one layer's: first and last are the same."""
    result = graph()
    features = result.nodes_of(FEATURE)
    source = next(n for n in features if result.node_layer[n] == 1 and result.node_position[n] == 2)
    target = next(n for n in features if result.node_layer[n] == 2 and result.node_position[n] == 4)
    split = head_loadings(
        model_of(),
        HeadLoadingsInputs(PROMPT, source=node_name(result, source), target=node_name(result, target)),
    )
    np.testing.assert_allclose(split.loadings, split.departures, atol=1e-9)
    assert not split.loadings[[0, 1, 3]].any()
    assert split.direct == 0
    assert np.abs(split.loadings[2]).max() > 0


def test_an_edge_between_things_that_are_not_there_is_refused() -> None:
    for source, target, message in [
        ("L0F63@2", "L2F1@4", "no node"), ("T@1", "T@2", "no inputs"), ("", "T@2", "missing"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=message):
            head_loadings(model_of(), HeadLoadingsInputs(PROMPT, source=source, target=target))


# --- effects ---


def test_predicted_effects_of_a_graph_made_by_hand() -> None:
    """Removing f1 takes -2 from f2's 3: f2 falls (rises) by +2/3 of itself, and with it its edge of 3."""
    predicted, direct = predicted_effects(hand_graph(), [1, 2, 7])
    f2 = 2.0 / 3.0
    assert direct == pytest.approx([1.0, -3.0, 0.0])
    assert predicted[0] == pytest.approx(1.0 + 3.0 * f2)
    assert predicted[1] == pytest.approx(-3.0)
    f0, f1 = -2.0 / 2.0, -0.5 / 1.5  # token 7 gone
    f2 = (1.0 * f0 - 2.0 * f1) / 3.0
    assert predicted[2] == pytest.approx(3.0 * f2 - 1.0 * f1)


def test_actual_effects_are_those_of_the_model_with_the_writes_subtracted() -> None:
    result, model = graph(answer=" Rome", distractor=" Paris"), model_of()
    feature = int(result.nodes_of(FEATURE)[5])
    error, token = int(result.nodes_of(ERROR)[4]), int(result.nodes_of(TOKEN)[3])
    names = tuple(node_name(result, node) for node in (feature, error, token))
    inputs = GraphEffectsInputs(PROMPT, answer=" Rome", distractor=" Paris", nodes=names)
    effects = graph_effects(model, inputs)
    assert effects.checks[0].passed
    ids = torch.tensor([[one.id for one in result.tokens]])
    layer, position = int(result.node_layer[feature]), int(result.node_position[feature])
    rows = model.transcoders[""].rows(layer, torch.tensor([int(result.node_feature[feature])]))[0]
    edits = [
        Edit("mlp_out", layer + shift, "add", positions=(position,),
             value=-float(result.node_activation[feature]) * row.double()[None, None])
        for shift, row in enumerate(rows)
    ]  # fmt: skip
    first, second = result.target_ids[0]

    def read(edits: list[Edit]) -> float:
        logits = run(model, ids, edits=edits).logits[0, -1]
        return float(logits[first] - logits[second])

    assert effects.actual[0] == pytest.approx(read(edits) - read([]), abs=1e-6)
    gone = [Edit("embed", None, "zero", positions=(3,))]
    assert effects.actual[2] == pytest.approx(read(gone) - read([]), abs=1e-6)
    assert effects.direct == pytest.approx(-result.edges[-1, [feature, error, token]], abs=1e-6)
    held = graph_effects(model, replace(inputs, freeze="attention"))
    assert not np.allclose(held.actual, effects.actual)
    again = GraphEffectsResult.from_json(effects.to_json())
    np.testing.assert_array_equal(again.actual, effects.actual)
    assert again.inputs == inputs


def test_in_the_last_layer_only_the_final_norm_is_between_prediction_and_truth() -> None:
    """A small part of the last write at the last token: prediction and truth agree to first order."""
    result = graph(answer=" Rome", distractor=" Paris")
    last = [
        node for node in result.nodes_of(FEATURE)
        if result.node_layer[node] == 3 and result.node_position[node] == 5
    ]  # fmt: skip
    assert last
    names = tuple(node_name(result, node) for node in last)
    effects = graph_effects(
        model_of(), GraphEffectsInputs(PROMPT, answer=" Rome", distractor=" Paris", nodes=names)
    )
    np.testing.assert_allclose(effects.predicted, effects.direct, atol=1e-6)
    assert np.abs(effects.predicted - effects.actual).max() < 0.5 * np.abs(effects.actual).max()


def test_effects_can_be_stopped_and_refuse_what_makes_no_sense() -> None:
    result = graph()
    names = tuple(node_name(result, node) for node in result.nodes_of(FEATURE))

    def stop(step: Any) -> None:
        if step.done:
            raise Cancelled

    partial = graph_effects(model_of(), GraphEffectsInputs(PROMPT, nodes=names), on_step=stop)
    assert partial.cancelled == (len(names) > 32)
    assert np.isfinite(partial.actual[:32]).all()
    assert np.isnan(partial.actual[32:]).all()
    for nodes, message in [((), "No node"), (("T@1", "T@1"), "twice"), (("Y345",), "no node")]:
        with pytest.raises(InputError, match=message):
            graph_effects(model_of(), GraphEffectsInputs(PROMPT, nodes=nodes))
