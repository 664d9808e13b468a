"""Figures of neurons: what is drawn is what was computed, captions say n and scale, tokens cannot act."""

import json
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from mi_core.analyses import (
    NeuronInputs,
    NeuronPromptInputs,
    NeuronPromptResult,
    NeuronResult,
    NeuronSurveyInputs,
    NeuronSurveyResult,
    NeuronTextInputs,
    NeuronTextResult,
    neuron,
    neuron_prompt,
    neuron_survey,
    neuron_text,
)
from mi_core.analyses.neuron_inputs import MEASURES
from mi_core.analyses.texts import Text
from mi_core.charts.grid import window
from mi_core.charts.neuron_prompt import WINDOW
from mi_core.charts.text import number
from mi_core.exports import neurons as figures
from mi_core.exports.export import export
from mi_core.exports.figure import Figure
from tests.neuron_oracle import some_texts, worded

EVIL = '</script><b>"\\\u202e\n'


@lru_cache(maxsize=1)
def results() -> tuple[NeuronSurveyResult, NeuronResult, NeuronTextResult, NeuronPromptResult]:
    model, texts = worded("llama"), some_texts()
    one = neuron(model, NeuronInputs(1, 3, texts, "some texts"))
    return (
        neuron_survey(model, NeuronSurveyInputs(texts, "some texts", top=6)),
        one,
        neuron_text(model, NeuronTextInputs("Mary gave John a drink", 1, 3, one.bound / 2)),
        neuron_prompt(model, NeuronPromptInputs("the the the Paris")),
    )


def every_figure(
    survey: NeuronSurveyResult, one: NeuronResult, text: NeuronTextResult, prompt: NeuronPromptResult
) -> list[Figure]:
    return [
        *(figures.survey_figure(survey, measure, chosen=(1, 3)) for measure in MEASURES),
        figures.survey_figure(survey, "selectivity", "verse"),
        figures.layers_figure(survey, chosen=2),
        figures.map_figure(prompt, 2, chosen=(0, 2)),
        figures.cell_figure(prompt, 0, 2, chosen=int(prompt.neurons[0, 2, 1])),
        figures.text_figure(text, "A text", chosen=1),
        figures.contexts_figure(one, sign="negative", around=None),
        figures.histogram_figure(one, marks=((0.0, "zero"),)),
        figures.categories_figure(one),
        figures.vocabulary_figure(one),
    ]


def test_every_figure_can_leave():
    for figure in every_figure(*results()):
        assert json.loads(figure.record_json())["caption"] == figure.caption
        assert len(figure.frame())
        assert figure.description
        assert figure.how_to_read
        assert figure.references
        compile(figure.recipe, "recipe.py", "exec")
    assert export(every_figure(*results())[0], "svg").startswith(b"<svg")


def test_captions_say_n_scale_and_what_does_not_count():
    survey, one, text, prompt = results()
    said = figures.survey_figure(survey, "selectivity", "verse").caption
    assert f"n = {survey.n_tokens:,} tokens" in said
    assert "selectivity on verse against all other kinds [standard deviations]" in said
    assert "First".lower() in said
    assert "of the tokens lie beyond it" in figures.text_figure(text, "t").caption or text.clipped == 0
    for figure in (figures.histogram_figure(one), figures.categories_figure(one)):
        assert f"n = {int(one.token_counts.sum()):,} tokens of {len(one.text_index)} texts" in figure.caption
    assert "frozen at the neuron's strongest token" in figures.vocabulary_figure(one).caption
    assert "95 % bootstrap over texts" in figures.categories_figure(one).caption
    assert "Hatched" in figures.map_figure(prompt, 2).caption


@pytest.mark.parametrize("sign", ["strongest", "positive", "negative"])
def test_a_context_frames_the_token_it_is_about(sign):
    one = results()[1]
    contexts = one.contexts(5, sign=sign, around=None)
    spec: Any = figures.contexts_figure(one, count=5, sign=sign, around=None).spec
    framed = {record["row"]: record for record in spec["datasets"]["strongest"]}
    for row, context in enumerate(contexts):
        assert framed[row]["position"] == context.position
        assert framed[row]["value"] == pytest.approx(context.value)
        assert spec["datasets"]["heads"][row]["value"] == number(context.value)


def test_cells_of_the_survey_are_the_ranking():
    survey = results()[0]
    spec: Any = figures.survey_figure(survey, "peak").spec
    cells = {(cell["layer"], cell["rank"]): cell for cell in spec["datasets"]["cells"]}
    for layer in range(survey.n_layers):
        for rank, kept in enumerate(survey.ranking("peak", layer)):
            cell = cells[(layer, rank)]
            assert cell["value"] == pytest.approx(float(survey.peak[kept]))
            assert str(int(survey.neurons[kept])) in json.dumps(cell)


def test_equal_tokens_stay_apart():
    prompt = results()[3]
    spec: Any = figures.map_figure(prompt, 1).spec
    positions = {cell["position"] for cell in spec["datasets"]["cells"]}
    assert positions == set(range(1, len(prompt.tokens)))


def test_a_long_prompt_shows_a_window():
    assert window(5, 4, WINDOW) == range(5)
    assert window(2000, 1000, WINDOW) == range(1000 - WINDOW // 2, 1000 + WINDOW // 2)
    assert window(2000, 0, WINDOW) == range(WINDOW)
    assert window(2000, 1999, WINDOW) == range(2000 - WINDOW, 2000)
    prompt = results()[3]
    long = replace(
        prompt,
        tokens=prompt.tokens[:1] * 2000,
        neurons=np.repeat(prompt.neurons[:, :1], 2000, axis=1),
        values=np.repeat(prompt.values[:, :1], 2000, axis=1),
        sizes=np.repeat(prompt.sizes[:, :1], 2000, axis=1),
    )
    assert f"Tokens 988 to {988 + WINDOW - 1} of 2000 are shown" in figures.map_figure(long, 1000).caption


def test_tokens_cannot_act():
    survey, one, text, prompt = results()
    evil = (
        replace(survey, tokens={index: (EVIL,) * len(t) for index, t in survey.tokens.items()}),
        replace(
            one,
            tokens=(EVIL,) * len(one.tokens),
            vocabulary=replace(one.vocabulary, promoted=(EVIL,) * len(one.vocabulary.promoted)),
        ),
        replace(text, tokens=(EVIL,) * len(text.tokens)),
        replace(prompt, tokens=(EVIL,) * len(prompt.tokens)),
    )
    for figure in every_figure(*evil):
        drawn = json.dumps(figure.spec, ensure_ascii=False)
        assert "\u202e" not in drawn
        assert "\\n" not in json.dumps(figure.spec["datasets"])
        assert "\u202e" not in figure.caption + figure.description


def test_a_silent_neuron_can_be_drawn():
    _, one, text, _ = results()
    silent = replace(one, activations=np.zeros_like(one.activations))
    figures.contexts_figure(silent)
    assert figures.contexts_figure(silent, sign="positive").description == "No token has such an activation."
    quiet = replace(
        text,
        activations=np.zeros_like(text.activations),
        inputs=NeuronTextInputs("Mary", 1, 3, 0.0),
    )
    assert "0 to 0" in figures.text_figure(quiet, "t").caption


def test_a_picture_does_not_carry_a_library():
    survey = results()[0]
    texts = tuple(Text("long", "Mary gave " * 500) for _ in range(100))
    large = replace(survey, inputs=NeuronSurveyInputs(texts, top=6))
    figure = figures.survey_figure(large)
    assert set(figure.inputs["texts"]) == {"characters", "sha256"}
    assert len(figure.record_json()) < 20_000
    assert len(json.loads(figure.result_json())["inputs"]["texts"]) == 100
