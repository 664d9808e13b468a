"""What the examples without a stored result promise is true of the bundled model, and their pages open."""

from collections.abc import Callable

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from mi_core.analyses import (
    AblationSweepInputs,
    AttentionInputs,
    AttributionInputs,
    LogitLensInputs,
    NextTokenInputs,
    SteeringInputs,
    ablation_sweep,
    attention_patterns,
    attribution,
    logit_lens,
    next_token,
    steering_dose,
)
from mi_core.engine.holder import load_model
from mi_core.model.model import LoadedModel
from mi_core.transcoders import GraphInputs, attribution_graph
from mi_core.transcoders.planning_presets import PRESETS
from pages.shared.catalogue import all_fields
from pages.shared.examples import LOOKS, example, values_of
from pages.shared.link import write_link
from tests.pages.conftest import assert_sound, texts


@pytest.fixture(scope="module")
def atlas() -> LoadedModel:
    return load_model("atlas")


def test_a_head_copies_what_followed_the_earlier_colour(atlas: LoadedModel) -> None:
    inputs = AttentionInputs(example("repeated_colours").values["prompt"])
    result = attention_patterns(atlas, inputs)
    ids = [token.id for token in result.tokens]
    induction, previous = result.patterns()[4, 3], result.patterns()[2, 0]
    for query in range(6, len(ids)):  # `red` at 1 and `·red` at 5 are different tokens
        after = [key for key in range(1, query) if ids[key - 1] == ids[query]]
        assert induction[query, after].sum() > 0.9, query
        assert previous[query, query - 1] > 0.9, query
    top = next_token(atlas, NextTokenInputs(inputs.prompt)).to_frame().iloc[0]
    assert top["candidate"] == "·green"


def test_the_guess_is_paris_from_layer_2_on(atlas: LoadedModel) -> None:
    values = example("guess_forming").values
    result = logit_lens(atlas, LogitLensInputs(values["prompt"], answer=values["answer"]))
    ranks = result.rank[:, -1]
    assert (ranks[:2] > 1).all()
    assert (ranks[2:] == 1).all()


def test_the_last_layers_speak_for_mary_and_layer_4_for_john(atlas: LoadedModel) -> None:
    values = example("for_and_against").values
    result = attribution(
        atlas, AttributionInputs(values["prompt"], answer=values["answer"], distractor=values["distractor"])
    )
    assert result.attention[0, 4] == result.attention[0].min() < -1
    assert (result.heads[0, 4] < 0).all()
    assert (result.attention[0, 5:] > 0).all()
    assert (result.mlp[0, 5:] > 0).all()
    assert all(check.passed for check in result.checks)


def test_without_one_head_mary_leads_by_less(atlas: LoadedModel) -> None:
    values = example("one_head").values
    answers = {"answer": values["answer"], "distractor": values["distractor"]}
    swept = ablation_sweep(atlas, AblationSweepInputs(values["prompt"], mode="zero", **answers)).to_frame()
    rows = [row for row in swept.to_dict("records") if row["metric"] == "logit_difference"]
    edited = [row for row in rows if row["what"] == "edited"]
    first, second = sorted(edited, key=lambda row: row["effect"])[:2]
    assert first["intervention"] == values["interventions"] == "L0H3:zero"
    assert first["value"] == pytest.approx(4.0, abs=0.05)
    assert first["value"] - first["effect"] == pytest.approx(7.3, abs=0.05)
    assert second["effect"] > first["effect"] / 2


def test_enough_of_a_vector_makes_rome_the_answer_and_random_ones_never_do(atlas: LoadedModel) -> None:
    values = example("paris_to_rome").values
    inputs = SteeringInputs(
        values["prompt"],
        source="sets",
        positive=values["steering_positive"],
        negative=values["steering_negative"],
        layer=values["steering_layer"],
        coefficients=tuple(float(dose) for dose in values["steering_doses"].split(",")),
        answer=values["answer"],
        distractor=values["distractor"],
    )
    result = steering_dose(atlas, inputs)
    assert inputs.controls == 10
    assert result.dose_for(0.5, "probability") is not None
    assert (result.band("probability")[1] < 0.5).all()


def test_the_towers_strongest_feature_leads_to_paris_and_an_error_stands_beside_it(
    atlas: LoadedModel,
) -> None:
    graph = attribution_graph(atlas, GraphInputs(example("fact_as_graph").values["prompt"]))
    features = np.where(graph.node_kind == 0, graph.influence, 0)
    best = int(features.argmax())
    assert graph.tokens[graph.node_position[best]].visible == "·Tower"
    assert graph.node_layer[best] == 0
    paris = graph.edges[list(graph.row_node).index(int(np.flatnonzero(graph.node_kind == 3)[0]))]
    assert paris[best] > 0
    assert paris[best] == paris[graph.node_kind == 0].max()
    here = (graph.node_position == graph.node_position[best]) & (graph.node_layer == 0)
    error = graph.influence[here & (graph.node_kind == 1)]
    assert error == pytest.approx(graph.influence[best], rel=0.3)


def test_the_planned_word_is_the_tested_preset() -> None:
    values, preset = example("planned_word").values, PRESETS["rome"]
    asked = (values["prompt"], values["planning_other"], values["answer"], values["distractor"])
    assert asked == (preset.prompt, preset.other_prompt, preset.answer, preset.distractor)
    assert (values["planning_strength"], values["planning_source"]) == (preset.strength, "pick")


@pytest.mark.parametrize("item", LOOKS, ids=lambda item: item.name)
def test_an_example_opens_with_everything_set(frame: Callable[..., AppTest], item) -> None:
    fields = all_fields()
    state = {field.name: field.default for field in fields} | values_of(item)
    session = frame(item.page, **write_link(state, fields))
    assert_sound(session)
    assert "broke" not in texts(session)
    assert {name: session.session_state[name] for name in item.values} == item.values


def test_the_menu_of_examples_leads_to_the_page(frame: Callable[..., AppTest]) -> None:
    from pages.shared.sidebar import OPEN

    session = frame()
    session.session_state[OPEN] = "logit_lens"
    session.run()
    assert_sound(session)
    assert session.title[0].value == "Logit lens"
