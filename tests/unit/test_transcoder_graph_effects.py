"""Effects of removals on any target: a logit, a difference, a weighted sum; made again by hand, old files."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

import numpy as np
import pytest
import torch

from mi_core.engine import build_model, observe, run
from mi_core.engine.edits import Edit
from mi_core.errors import InputError
from mi_core.model.model import LoadedModel
from mi_core.transcoders import (
    GraphEffectsInputs,
    GraphEffectsResult,
    GraphInputs,
    GraphResult,
    attribution_graph,
    graph_effects,
)
from mi_core.transcoders.graph_names import ERROR, FEATURE, TOKEN, node_name
from mi_core.transcoders.graph_removals import predicted_effects
from mi_core.transcoders.graph_removals_target import effect_target, effect_targets
from tests.feature_graphs import hand_graph
from tests.tiny import VOCAB, hf_model
from tests.transcoders import tiny_clt, use
from tests.words import word_tokenizer

PROMPT = "The capital of France is"
SEVERAL: dict[str, Any] = {"targets": (" Rome", " Paris", " Berlin")}
DIFFERENCE: dict[str, Any] = {"answer": " Rome", "distractor": " Paris"}
KINDS = ("first", "other", "difference of two", "sum", "graph of a difference", "salient sum")


@lru_cache(maxsize=1)
def model_of() -> LoadedModel:
    model = build_model(hf_model("llama"), word_tokenizer(bos=True, size=VOCAB))
    use(model, tiny_clt(model, density=0.4))
    return model


@lru_cache(maxsize=8)
def graph(**chosen: Any) -> GraphResult:
    return attribution_graph(model_of(), GraphInputs(PROMPT, **chosen))


@cache
def asked(kind: str) -> tuple[dict[str, Any], str]:
    """(inputs of the graph, what effects are read on) of each kind of target."""
    names = [f"Y{ids[0]}" for ids in graph(**SEVERAL).target_ids]
    return {
        "first": (SEVERAL, ""),
        "other": (SEVERAL, names[1]),
        "difference of two": (SEVERAL, f"{names[2]}-{names[0][1:]}"),
        "sum": (SEVERAL, "sum"),
        "graph of a difference": (DIFFERENCE, ""),
        "salient sum": ({}, "sum"),
    }[kind]


def value_by_hand(kind: str, logits: torch.Tensor) -> float:
    """The target's value, from a run's logits."""
    wide = logits.double()
    several, salient = (graph(**chosen) for chosen in (SEVERAL, {}))
    first, second, third = (wide[ids[0]] for ids in several.target_ids)
    chances = observed_logits().double().softmax(-1)

    def weighed(result: GraphResult) -> float:
        return sum(float(chances[ids[0]] * (wide[ids[0]] - wide.mean())) for ids in result.target_ids)

    return {
        "first": lambda: float(first - wide.mean()),
        "other": lambda: float(second - wide.mean()),
        "difference of two": lambda: float(third - first),
        "sum": lambda: weighed(several),
        "graph of a difference": lambda: float(first - second),
        "salient sum": lambda: weighed(salient),
    }[kind]()


def observed_logits() -> torch.Tensor:
    return observe(model_of(), ids_of(), ("logits",))["logits", None][-1]


def ids_of() -> list[int]:
    return [token.id for token in graph(**SEVERAL).tokens]


@cache
def removed() -> tuple[int, ...]:
    """A feature of a low layer, one of a high layer, an error and a token, the same in all graphs."""
    result = graph(**SEVERAL)
    features = result.nodes_of(FEATURE)
    return tuple(
        int(node)
        for node in (features[3], features[-4], result.nodes_of(ERROR)[6], result.nodes_of(TOKEN)[3])
    )


@cache
def effects(kind: str) -> GraphEffectsResult:
    chosen, on = asked(kind)
    names = tuple(node_name(graph(**SEVERAL), node) for node in removed())
    return graph_effects(model_of(), GraphEffectsInputs(PROMPT, nodes=names, effect_on=on, **chosen))


# --- what a node writes, read from the transcoder itself ---


def written(node: int) -> dict[int, torch.Tensor]:
    """[pos, d_model] by layer that a feature or an error adds to the MLP outputs."""
    result, model = graph(**SEVERAL), model_of()
    layer, position = int(result.node_layer[node]), int(result.node_position[node])
    found: dict[int, torch.Tensor] = {}
    for target, row in rows_of(layer, int(result.node_feature[node])) if layer >= 0 else ():
        found[target] = torch.zeros(len(ids_of()), model.dims.d_model, dtype=torch.float64)
        found[target][position] = float(result.node_activation[node]) * row
    return found


def rows_of(layer: int, feature: int) -> list[tuple[int, torch.Tensor]]:
    rows = model_of().transcoders[""].rows(layer, torch.tensor([feature]))[0]
    return [(layer + shift, row.double()) for shift, row in enumerate(rows)]


def error_of(node: int) -> tuple[int, int, torch.Tensor]:
    """(layer, position, what all active features and b_dec leave of the MLP output there)."""
    result, transcoder = graph(**SEVERAL), model_of().transcoders[""]
    layer, position = int(result.node_layer[node]), int(result.node_position[node])
    rest = observe(model_of(), ids_of(), ("mlp_out",))["mlp_out", layer][position].double()
    rest = rest - transcoder.bias(layer).double()
    for other in result.nodes_of(FEATURE):
        if result.node_position[other] == position and result.node_layer[other] <= layer:
            rest = rest - written(int(other))[layer][position]
    return layer, position, rest


def removal(node: int) -> dict[int, torch.Tensor]:
    if graph(**SEVERAL).node_kind[node] == FEATURE:
        return {layer: -delta for layer, delta in written(node).items()}
    if graph(**SEVERAL).node_kind[node] == TOKEN:
        return {}
    layer, position, error = error_of(node)
    delta = torch.zeros(len(ids_of()), model_of().dims.d_model, dtype=torch.float64)
    delta[position] = -error
    return {layer: delta}


def token_edits(node: int) -> list[Edit]:
    result = graph(**SEVERAL)
    if result.node_kind[node] != TOKEN:
        return []
    return [Edit("embed", None, "zero", positions=(int(result.node_position[node]),))]


# --- actual effects ---


@pytest.mark.parametrize("kind", KINDS)
def test_actual_effects_are_those_of_plain_runs_with_edits_written_by_hand(kind: str) -> None:
    tokens, clean = torch.tensor([ids_of()]), value_by_hand(kind, observed_logits())
    found = effects(kind)
    assert all(check.passed for check in found.checks)
    assert len(found.checks) == 2
    for index, node in enumerate(removed()):
        edits = [Edit("mlp_out", at, "add", value=delta[None]) for at, delta in removal(node).items()]
        logits = run(model_of(), tokens, edits=[*edits, *token_edits(node)]).logits[0, -1]
        assert found.actual[index] == pytest.approx(value_by_hand(kind, logits) - clean, abs=1e-6)


@contextmanager
def norms_held() -> Iterator[None]:
    """Every norm keeps the scale that it has in the next run, in all runs after it."""
    scales: dict[Any, torch.Tensor] = {}

    def hold(module: Any, given: tuple[torch.Tensor, ...], _: torch.Tensor) -> torch.Tensor:
        x = given[0]
        if module not in scales:
            scales[module] = (x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon).rsqrt()
        return module.weight * x * scales[module]

    norms = [module for module in model_of().hf.modules() if type(module).__name__.endswith("RMSNorm")]
    assert len(norms) == 2 * 4 + 1
    handles = [norm.register_forward_hook(hold) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def held_logits(node: int, *, features_answer: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (clean, without a node) with patterns, norm scales and errors held, run after run by hand.

    Features keep their activation, or answer along their encoders whatever their sign, each in its turn.
    """
    model, result, tokens = model_of(), graph(**SEVERAL), torch.tensor([ids_of()])
    with norms_held():
        clean = run(model, tokens, capture=["pattern", "mlp_out", "resid_mid"])
        layers = range(model.dims.n_layers)
        patterns = [Edit("pattern", at, "set", value=clean["pattern", at]) for at in layers]
        mlp = {at: clean["mlp_out", at].clone() for at in layers}
        for at, delta in removal(node).items():
            mlp[at] += delta[None]

        def go(capture: list[str]) -> Any:
            edits = [Edit("mlp_out", at, "set", value=mlp[at]) for at in layers]
            return run(model, tokens, edits=[*patterns, *edits, *token_edits(node)], capture=capture)

        for layer in layers if features_answer else ():
            moved = (go(["resid_mid"])["resid_mid", layer] - clean["resid_mid", layer])[0]
            encoder = model.transcoders[""].encoder(layer)
            for other in result.nodes_of(FEATURE)[result.node_layer[result.nodes_of(FEATURE)] == layer]:
                position, feature = int(result.node_position[other]), int(result.node_feature[other])
                change = float(encoder.W_enc[feature].double() @ moved[position])
                for target, row in rows_of(layer, feature) if other != node else ():
                    mlp[target][0, position] += change * row
        return clean.logits[0, -1], go([]).logits[0, -1]


@lru_cache(maxsize=16)
def held(node: int, features_answer: bool) -> tuple[torch.Tensor, torch.Tensor]:
    return held_logits(node, features_answer=features_answer)


@pytest.mark.parametrize("kind", KINDS)
def test_with_everything_held_the_model_does_what_the_edges_say(kind: str) -> None:
    for index, node in enumerate(removed()):
        clean, edited = held(node, False)
        change = value_by_hand(kind, edited) - value_by_hand(kind, clean)
        assert effects(kind).direct[index] == pytest.approx(change, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_with_all_but_the_features_held_the_model_does_what_is_predicted(kind: str) -> None:
    for index, node in enumerate(removed()):
        clean, edited = held(node, True)
        change = value_by_hand(kind, edited) - value_by_hand(kind, clean)
        assert effects(kind).predicted[index] == pytest.approx(change, abs=1e-4)
    assert np.abs(effects(kind).predicted - effects(kind).direct).max() > 1e-2  # paths matter here


# --- the sum rule of any target ---


@pytest.mark.parametrize("kind", KINDS)
def test_the_targets_row_adds_up_to_its_value(kind: str) -> None:
    chosen, on = asked(kind)
    result = graph(**chosen)
    target = effect_target(result, on)
    every = list(range(result.n_nodes))
    _, direct = predicted_effects(result, every, target)
    remainder = float(target.weights @ result.remainder[-result.n_targets :])
    value = value_by_hand(kind, observed_logits())
    assert -direct.sum() + remainder == pytest.approx(value, abs=1e-4)
    assert effects(kind).checks[0].name.startswith("edges + remainder")
    assert effects(kind).checks[0].passed


def test_effects_on_a_difference_are_the_difference_of_the_effects() -> None:
    names = [f"Y{ids[0]}" for ids in graph(**SEVERAL).target_ids]
    result, every = graph(**SEVERAL), list(range(graph(**SEVERAL).n_nodes - 3))
    single = [predicted_effects(result, every, effect_target(result, name))[0] for name in names]
    both, _ = predicted_effects(result, every, effect_target(result, f"{names[0]}-{names[1][1:]}"))
    np.testing.assert_allclose(both, single[0] - single[1], atol=1e-12)
    weighed, _ = predicted_effects(result, every, effect_target(result, "sum"))
    np.testing.assert_allclose(weighed, result.logit_weights @ np.stack(single), atol=1e-12)
    # The graph that was made for the difference says the same of every node.
    own, _ = predicted_effects(graph(**DIFFERENCE), every)
    np.testing.assert_allclose(own, both, atol=1e-4)
    # And so does the real model.
    names_of = tuple(node_name(result, node) for node in removed())
    inputs = GraphEffectsInputs(PROMPT, nodes=names_of, freeze="attention", **SEVERAL)
    one, other = (graph_effects(model_of(), replace(inputs, effect_on=name)).actual for name in names[:2])
    for_it = graph_effects(
        model_of(), GraphEffectsInputs(PROMPT, nodes=names_of, freeze="attention", **DIFFERENCE)
    )
    np.testing.assert_allclose(for_it.actual, one - other, atol=1e-9)


# --- what is offered and refused ---


def test_a_menu_has_every_logit_their_sum_and_the_first_minus_each_other() -> None:
    offered = effect_targets(hand_graph())
    assert [target.name for target in offered] == ["Y5", "Y6", "sum", "Y5-6"]
    assert [target.label for target in offered] == [
        "\u00b7Paris", "\u00b7Rome", "weighted sum of 2 logits", "\u00b7Paris - \u00b7Rome",
    ]  # fmt: skip
    weights = [target.weights.tolist() for target in offered]
    assert weights == [[1, 0], [0, 1], [0.7, 0.2], [1, -1]]
    assert [target.name for target in effect_targets(graph(**DIFFERENCE))] == [
        "Y" + "-".join(str(one) for one in graph(**DIFFERENCE).target_ids[0])
    ]
    assert effect_target(hand_graph()).name == "Y5"
    assert effect_target(hand_graph(), "Y6-5").weights.tolist() == [-1, 1]


@pytest.mark.parametrize("name", ["Y7", "Y5-7", "Y7-5", "Y5-5", "Y5-"])
def test_what_the_graph_does_not_explain_is_refused_with_what_it_does(name: str) -> None:
    with pytest.raises(InputError, match=r"Y5 \(\u00b7Paris\), Y6 \(\u00b7Rome\)"):
        effect_target(hand_graph(), name)


@pytest.mark.parametrize("name", ["Paris", "L5F102@7", "Y", "all", "Y1-2-3", "Y-1", "sum "])
def test_what_is_no_target_of_any_graph_is_refused_at_once(name: str) -> None:
    with pytest.raises(InputError, match="nothing that effects could be read on"):
        GraphEffectsInputs(PROMPT, nodes=("T@1",), effect_on=name)


# --- records ---


@pytest.mark.parametrize("kind", KINDS)
def test_records_come_back_and_say_what_counts(kind: str) -> None:
    result = effects(kind)
    again = GraphEffectsResult.from_json(result.to_json())
    assert again.inputs == result.inputs
    assert (again.target_name, again.logit_names) == (result.target_name, result.logit_names)
    for name in ("predicted", "direct", "actual", "logit_weights"):
        np.testing.assert_array_equal(getattr(again, name), getattr(result, name))
    assert set(result.to_frame()["target"]) == {result.target_name}
    assert set(result.to_frame()["unit"]) == {"logits"}


def test_a_file_from_before_is_about_the_first_logit() -> None:
    result = effects("first")
    record = json.loads(result.to_json())
    record["version"] = 1
    del record["inputs"]["effect_on"], record["logit_names"], record["logit_weights"]
    again = GraphEffectsResult.from_json(json.dumps(record))
    assert again.inputs == result.inputs
    assert again.inputs.effect_on == ""
    assert again.logit_names == (result.target_name,)
    assert again.logit_weights.tolist() == [1.0]
    np.testing.assert_array_equal(again.actual, result.actual)
    record["version"] = 2
    with pytest.raises(InputError, match="damaged"):
        GraphEffectsResult.from_json(json.dumps(record))


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.update(logit_weights=[1.0]),
        lambda record: record.update(logit_names=[], logit_weights=[]),
        lambda record: record.update(predicted=record["predicted"][:-1]),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(change: Callable[[dict[str, Any]], None]) -> None:
    record = json.loads(effects("sum").to_json())
    change(record)
    with pytest.raises(InputError):
        GraphEffectsResult.from_json(json.dumps(record))
