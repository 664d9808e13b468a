"""The attribution page and the causal trace's preview: their numbers are the library's, links reopen them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df
from streamlit.testing.v1 import AppTest

from mi_core.analyses import AttributionInputs, AttributionResult, attribution
from pages.shared.attribution_view import shown_neurons
from pages.shared.session import default_spec, hub
from tests.page_runs import until_idle
from tests.pages.conftest import assert_sound, settle, texts

PROMPT = "The Louvre Museum is located in the city of"
CONTROL = "The Colosseum is in"


def opened(frame: Callable[..., AppTest], **link: str) -> AppTest:
    """The page, drawn twice: the second run must find what the first one left."""
    session = frame("attribution", **{"prompt": PROMPT, **link})
    settle(session, "attribution")
    session.run()
    assert_sound(session)
    return session


def result_of(session: AppTest) -> AttributionResult:
    return session.session_state["_run_attribution"].result


def charts(session: AppTest) -> list[dict[str, list[dict[str, Any]]]]:
    """The data sets of every drawing, by name, in the order of the page."""
    return [
        {
            data.name: convert_arrow_bytes_to_pandas_df(data.data.data).to_dict("records")
            for data in chart.proto.datasets
        }
        for chart in session.get("vega_lite_chart")
    ]


def test_the_page_shows_the_librarys_numbers(frame: Callable[..., AppTest]) -> None:
    session = opened(frame, vs=" Rome", layer="4", head="0", kind="head")
    model = hub().resident(default_spec())
    assert model is not None
    inputs = AttributionInputs(PROMPT, distractor=" Rome", split_heads=("L4H0",))
    again, result = attribution(model, inputs), result_of(session)
    assert result.inputs == inputs
    np.testing.assert_allclose(result.values, again.values, atol=1e-5)
    drawn = charts(session)
    assert len(drawn) == 4  # parts, heads, sources, neurons
    bars = drawn[0]["bars"]
    np.testing.assert_allclose([bar["value"] for bar in bars], result.values[0])
    heads = {(cell["layer"], cell["head"]): cell["value"] for cell in drawn[1]["cells"]}
    assert heads[4, 0] == pytest.approx(float(result.heads[0, 4, 0]))
    said = texts(session).replace("\\", "")
    assert f"Parts + biases = {result.total[0]:.5f}, logit difference {result.total[0]:.5f}" in said


def test_a_control_prompt_of_another_length_stands_beside_it(frame: Callable[..., AppTest]) -> None:
    session = opened(frame, b=CONTROL, vs=" Rome", dl_as="waterfall", layer="4", head="0")
    result = result_of(session)
    assert result.n_prompts == 2
    drawn = charts(session)
    assert len(drawn) == 5  # a text of sources for each prompt
    bars = drawn[0]["bars"]
    assert {bar["series"] for bar in bars} == {0, 1}
    ends = [bar["end"] for bar in bars if bar["series"] == 1]
    np.testing.assert_allclose(ends, [*result.cumulative[1], result.total[1]])
    assert {cell["kind"] for cell in drawn[1]["cells"]} == {"prompt", "control", "difference"}
    session.segmented_control(key="attribution_compare").set_value("difference").run()
    assert_sound(session)
    bars = charts(session)[0]["bars"]
    assert bars[-1]["value"] == pytest.approx(float(result.total[0] - result.total[1]))


def test_clicks_choose_a_head_and_a_neuron(frame: Callable[..., AppTest]) -> None:
    session = opened(frame)
    assert "Click a head" in texts(session)
    session.selectbox(key="selected_layer").set_value(5).run()
    session.selectbox(key="selected_head").set_value(2).run()
    settle(session, "attribution")
    assert_sound(session)
    assert result_of(session).inputs.split_heads == ("L5H2",)
    assert "Where L5H2 brings it from" in texts(session).replace("\\", "")
    session.button(key="close_head").click().run()
    assert "Click a head" in texts(session)


def test_neurons_that_are_asked_for_are_shown(frame: Callable[..., AppTest]) -> None:
    session = opened(frame, dl_neurons="L3N102, L7N1 L99N0 nonsense", dl_n="3")
    result = result_of(session)
    assert result.inputs.neurons == ("L3N102", "L7N1")
    shown = [result.neuron_name(index) for index in shown_neurons(result, 3)]
    assert len(shown) == 3
    assert {"L3N102", "L7N1"} < set(shown)
    said = [element.value.replace("\\", "") for element in session.warning]
    assert any("no neuron L99N0" in text for text in said)
    assert any("'nonsense' names no neuron" in text for text in said)


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ({"prompt": ""}, "Type a prompt"),
        ({"target": " Paris", "vs": " Paris"}, "begins with the same token as the target"),
        ({"layer": "99", "head": "0"}, "The selected head L99H0 is not part of this model"),
        ({"layer": "0", "head": "99"}, "The selected head L0H99 is not part of this model"),
    ],
)
def test_mistakes_cost_one_sentence(frame: Callable[..., AppTest], link: dict[str, str], said: str) -> None:
    session = frame("attribution", **{"prompt": PROMPT, **link})
    until_idle(session, ["attribution"])
    assert_sound(session)
    shown = [element.value for element in (*session.error, *session.warning, *session.info)]
    assert any(said in text.replace("\\", "") for text in shown)


@pytest.mark.parametrize(
    "prompt", ["Paris", "\U0001f642 \u6771\u4eac \u306f", "the the <b> \n $x$", "word " * 100]
)
def test_odd_prompts_are_attributed(frame: Callable[..., AppTest], prompt: str) -> None:
    session = opened(frame, prompt=prompt, layer="4", head="0")
    result = result_of(session)
    assert all(check.passed for check in result.checks)
    assert len(charts(session)) == 4


# --- the preview on the causal-trace page ---


def test_a_trace_is_estimated_before_it_runs(frame: Callable[..., AppTest]) -> None:
    session = frame("causal_trace", prompt=PROMPT, subject="2-5", n="3", kinds="state,mlp,head")
    settle(session, "attribution_patching")
    assert_sound(session)
    result = session.session_state["_run_attribution_patching"].result
    drawn = charts(session)
    assert len(drawn) == 2  # tokens and heads
    cells = {(cell["kind"], cell["row"], cell["layer"]): cell["value"] for cell in drawn[0]["cells"]}
    grid = result.grid("mlp")
    assert cells["mlp", 5, 0] == pytest.approx(float(grid[5, 0]))
    assert "First-order estimate" in texts(session).replace("\\", "")


def test_after_the_trace_the_estimate_is_compared(frame: Callable[..., AppTest]) -> None:
    session = frame(
        "causal_trace", prompt=PROMPT, subject="2-5", n="3", kinds="state,mlp", run="1", metric="rank"
    )
    settle(session)
    settle(session, "attribution_patching")
    assert_sound(session)
    said = texts(session).replace("\\", "")
    assert "How good was the first-order estimate?" in said
    assert "Pearson" in said
    assert "cells that causality fixes" in said
    assert "effects on P(" in said  # rank has no slope


def test_a_trace_without_a_slope_has_no_preview(frame: Callable[..., AppTest]) -> None:
    session = frame("causal_trace", prompt=PROMPT, subject="2-5", kinds="state_mlp_severed")
    assert_sound(session)
    assert "First-order estimate" not in texts(session).replace("\\", "")
