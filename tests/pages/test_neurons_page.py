"""The neurons page in a session: survey, prompt, one neuron, uploads, mistakes in links."""

import json
from typing import Any

import pytest

from pages.shared import running
from pages.shared.selection import Selection
from pages.shared.session import hub
from tests.page_runs import until_idle
from tests.pages.conftest import assert_sound, texts

SURVEY, MAP, CELL = (
    "**Leading neurons of every layer**",
    "**Leading neurons of the prompt**",
    "**Leading neurons of layer",
)
NEURON = (
    "**The prompt in this neuron's colours**",
    "**Top contexts**",
    "**Activations over the texts**",
    "**Which kinds of text fire it**",
    "**What it promotes and suppresses**",
)
TEST = "**Your text in this neuron's colours**"


SLOTS = ("neuron_survey", "neuron_prompt", "neuron", "neuron_text_prompt", "neuron_text_test")


@pytest.fixture
def opened(frame: Any) -> Any:
    """Opens the page and waits for everything on it; a busy machine takes longer than the page's patience."""
    return lambda **link: ready(frame("neurons", **link))


def ready(session: Any) -> Any:
    """Wait until no run of the page is under way."""
    return until_idle(session, SLOTS)


def shown(session: Any, title: str) -> bool:
    """Whether a figure card with this title is on the page."""
    return title in texts(session)


def test_the_page_surveys_by_itself_and_says_how_to_go_on(opened):
    session = opened()
    for _ in range(2):
        assert_sound(session)
        assert "No neuron is chosen" in texts(session)
        assert "4,235 tokens in 52 passes" in texts(session)
        assert "of statistics are kept" in texts(session)
        assert shown(session, SURVEY)
        ready(session.run())


def test_a_link_opens_neuron_and_test_text(opened):
    session = opened(layer="2", neuron="382", nn_test="7 + 5 = 12 🎉 日本", nn_by="selectivity")
    for _ in range(2):
        assert_sound(session)
        for title in (SURVEY, *NEURON, TEST):
            assert shown(session, title), title
        assert [heading.value for heading in session.subheader if "L2N382" in heading.value]
        ready(session.run())


def test_the_prompt_leads_to_its_neurons(opened):
    session = opened(layer="2", neuron="382", pos="5", nn_tab="prompt", nn_around="5")
    assert_sound(session)
    for title in (MAP, CELL, *NEURON):
        assert shown(session, title), title
    assert not shown(session, SURVEY)
    drawn = [json.loads(chart.proto.spec) for chart in session.get("vega_lite_chart")]
    assert any("chosen" in json.dumps(spec) for spec in drawn)


def test_a_link_to_a_neuron_that_is_not_there_is_told(opened, monkeypatch):
    monkeypatch.setattr(running, "PATIENCE_SECONDS", 0.0)  # a slow machine: the survey comes with a later run
    hub().results.clear()
    session = opened(layer="99", neuron="5000", nn_kind="poems", nn_by="selectivity")
    assert_sound(session)
    said = texts(session)
    assert "There is no layer 99 in this model; it has layers 0 to 7" in said
    assert "There is no neuron 5000" in said
    assert "no kind called “poems”" in said
    assert "No neuron is chosen" in said


@pytest.mark.parametrize("prompt", ["", "a", "🎉", "the " * 200])
def test_empty_and_odd_prompts(opened, prompt):
    session = opened(prompt=prompt, layer="0", neuron="1", nn_tab="prompt", bos="never")
    assert_sound(session)
    if prompt:
        assert shown(session, MAP)
        assert shown(session, NEURON[0])
    else:
        assert "Type a prompt above" in texts(session)
    assert shown(session, NEURON[1])


def test_without_a_file_the_page_asks_for_one(opened):
    session = opened(nn_set="file")
    assert_sound(session)
    assert "Choose a file of texts" in texts(session)
    session.file_uploader[0].upload("set.json", b"{not json", "application/json")
    ready(session.run())
    assert_sound(session)
    assert "not a JSON file" in texts(session)
    rows = [{"text": f"The capital of France is Paris. {n}", "category": "a b"[n % 2 * 2]} for n in range(8)]
    session.file_uploader[0].upload("set.json", json.dumps(rows).encode(), "application/json")
    ready(session.run())
    assert_sound(session)
    assert "8 texts of 2 kinds" in texts(session)
    assert shown(session, SURVEY)


def test_clicks_select(monkeypatch):
    from pages.shared import neuron_find as page

    chosen: list[Selection] = []
    monkeypatch.setattr(page, "select", chosen.append)
    monkeypatch.setattr(page, "selection", Selection)
    from mi_core.analyses import NeuronPromptInputs, NeuronSurveyInputs, neuron_prompt, neuron_survey
    from tests.neuron_oracle import some_texts, worded

    survey = neuron_survey(worded("llama"), NeuronSurveyInputs(some_texts(), top=3))
    page._choose_rank(survey, "peak", None, {"layer": 1, "rank": 2})
    page._choose_rank(survey, "peak", None, {"layer": 1, "rank": 7})
    page._choose_rank(survey, "peak", None, {"layer": "x"})
    prompt = neuron_prompt(worded("llama"), NeuronPromptInputs("Mary gave"))
    page._choose_token(prompt, {"layer": 3, "position": 1})
    page._choose_token(prompt, {"layer": 3, "position": 9})
    assert chosen == [
        Selection(layer=1, neuron=int(survey.neurons[survey.ranking("peak", 1)[2]])),
        Selection(layer=3, neuron=int(prompt.neurons[3, 1, 0]), position=1),
    ]
