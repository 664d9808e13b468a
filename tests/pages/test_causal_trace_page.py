"""The causal-trace page: set-up, run, cell, stale marks, cancel, averages; its numbers are the library's."""

import json
import threading
from collections.abc import Callable

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from mi_core.analyses import CausalTraceInputs, CausalTraceResult, causal_trace
from mi_core.errors import Cancelled
from pages.shared import running, trace_page
from pages.shared.charts import picked
from pages.shared.examples import TRACES, stored
from pages.shared.job import Job
from pages.shared.session import default_spec, hub
from pages.shared.token_strip import next_span
from tests.page_runs import PATIENCE, until_idle
from tests.pages.conftest import assert_sound, open_frame, session_on, settle, texts

PROMPT = "The Louvre Museum is located in the city of"
SWAP = {
    "prompt": "The Space Needle is in downtown",
    "b": "The Eiffel Tower is in downtown",
    "corrupt": "prompt",
}


def run_trace(session: AppTest) -> CausalTraceResult:
    session.button(key="run_trace").click().run()
    settle(session)
    assert_sound(session)
    return session.session_state["_run_causal_trace"].result


def specs(session: AppTest) -> list[dict]:
    return [json.loads(chart.proto.spec) for chart in session.get("vega_lite_chart")]


def test_run_gives_the_librarys_numbers(frame: Callable[..., AppTest]) -> None:
    session = frame("causal_trace", prompt=PROMPT, subject="2-5", n="3", seed="5")
    assert "patched runs" in texts(session)
    result = run_trace(session)
    model = hub().resident(default_spec())
    assert model is not None
    again = causal_trace(model, CausalTraceInputs(PROMPT, subject=(2, 6), samples=3, seed=5))
    for kind in again.grids:
        np.testing.assert_allclose(result.grid(kind), again.grid(kind), atol=1e-6)
    assert len(specs(session)) == 3  # panels, curve, comparison with the estimate


def test_a_cell_opens_from_its_link_and_says_the_grids_number(frame: Callable[..., AppTest]) -> None:
    from mi_core.charts.text import number

    session = frame(
        "causal_trace", prompt=PROMPT, subject="2-5", n="3", run="1", kind="mlp", layer="1", pos="5"
    )
    settle(session)
    assert_sound(session)
    result = session.session_state["_run_causal_trace"].result
    row = result.grids["mlp"].row_of(5)
    assert number(result.grid("mlp")[row, 1]) in [metric.value for metric in session.metric]
    assert "MLP, layer 1" in texts(session).replace("\\", "")
    assert len(specs(session)) == 5  # and the cell's two


def test_a_link_to_a_cell_that_is_not_there_says_so(frame: Callable[..., AppTest]) -> None:
    session = frame(
        "causal_trace", prompt=PROMPT, subject="2-5", n="2", run="1", kind="mlp", layer="99", pos="5"
    )
    settle(session)
    assert_sound(session)
    assert any("not part of this trace" in element.value for element in session.warning)


def test_a_click_selects_a_cell(frame: Callable[..., AppTest]) -> None:
    session = frame("causal_trace", prompt=PROMPT, subject="2-5", n="2")
    run_trace(session)
    event = {"selection": {"cell": [{"kind": "state", "row": 11, "layer": 6}]}}
    assert picked(event) == {"kind": "state", "row": 11, "layer": 6}
    assert picked({"selection": {}}) is None
    session.session_state["selected_kind"] = "state"
    session.session_state["selected_position"] = 11
    session.session_state["selected_layer"] = 6
    session.run()
    assert "state, layer 6" in texts(session).replace("\\", "")
    session.button(key="close_cell").click().run()
    assert session.session_state["selected_layer"] is None
    assert "Click a cell" in texts(session)


def test_changed_settings_mark_the_figure_and_can_be_restored(frame: Callable[..., AppTest]) -> None:
    session = frame("causal_trace", prompt=PROMPT, subject="2-5", n="2")
    run_trace(session)
    assert not session.get("badge")
    session.number_input(key="noise_level").set_value(5.0).run()
    session.text_input(key="answer").set_value(" Rome").run()
    assert "noise level, target changed since this ran" in texts(session)
    session.button(key="restore_trace").click().run()
    assert session.number_input(key="noise_level").value == 3.0
    assert "changed since this ran" not in texts(session)


def test_an_equal_run_is_not_computed_again(frame: Callable[..., AppTest]) -> None:
    first = frame("causal_trace", prompt=PROMPT, subject="2-5", n="4", seed="77")
    result = run_trace(first)
    second = open_frame("causal_trace", prompt=PROMPT, subject="2-5", n="4", seed="77")
    assert second.session_state["_run_causal_trace"].result is result


def test_stored_examples_belong_to_the_bundled_model(frame: Callable[..., AppTest]) -> None:
    """When this fails, the bundled model is newer than the examples: run `python assets/presets/make.py`."""
    about = hub().about(default_spec())
    assert about is not None
    for item in TRACES:
        known = stored(item.name)
        assert known is not None, item.name
        assert known.result.provenance is not None
        assert known.result.provenance.fingerprint == about.fingerprint, "run python assets/presets/make.py"
        assert all(check.passed for check in known.result.checks)


@pytest.mark.parametrize("item", TRACES, ids=lambda item: item.name)
def test_an_example_shows_its_stored_result_at_once(frame: Callable[..., AppTest], item) -> None:
    from pages.shared.catalogue import all_fields
    from pages.shared.examples import values_of
    from pages.shared.link import write_link

    fields = all_fields()
    state = {field.name: field.default for field in fields} | values_of(item) | {"ran": True}
    session = frame(item.page, **write_link(state, fields))
    assert_sound(session)
    assert not session.warning
    known = stored(item.name)
    assert known is not None
    shown = session.session_state["_run_causal_trace"].result
    assert shown.inputs == known.result.inputs
    assert shown is known.result


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ({"prompt": PROMPT}, "Choose the subject"),
        ({"prompt": PROMPT, "subject": "2-50"}, "tokens"),
        ({**SWAP, "b": ""}, "Type the second prompt"),
        ({**SWAP, "b": "The Eiffel Tower is in"}, "differ in length"),
        ({"prompt": "", "subject": "1"}, "Type a prompt"),
        ({"prompt": "word " * 3999, "subject": "1"}, "at most"),
        ({"prompt": PROMPT, "subject": "2-5", "target": "x" * 300}, ""),
    ],
)
def test_mistakes_cost_one_sentence_and_nothing_else(
    frame: Callable[..., AppTest], link: dict[str, str], said: str
) -> None:
    session = frame("causal_trace", **link)
    assert_sound(session)
    if said:
        assert said in texts(session).replace("\\", "")
        assert session.button(key="run_trace").disabled
    assert session.text_input(key="prompt").value == link["prompt"]


def test_unequal_prompts_are_shown_aligned(frame: Callable[..., AppTest]) -> None:
    session = frame("causal_trace", **{**SWAP, "b": "The Eiffel Tower is in"})
    assert any("downtown" in block.value and "^" in block.value for block in session.code)


def test_a_metric_that_needs_a_distractor_is_given_up_aloud(frame: Callable[..., AppTest]) -> None:
    session = frame("causal_trace", prompt=PROMPT, subject="2-5", n="2", metric="logit_difference", run="1")
    settle(session)
    assert_sound(session)
    assert session.session_state["metric"] == "probability"


def test_cancel_keeps_what_is_done_and_leaves_no_hook(frame: Callable[..., AppTest]) -> None:
    """The trace is stopped from inside its own progress, at a moment that is surely mid-way."""
    model = hub().resident(default_spec())
    assert model is not None
    before = model.modules_with_hooks()
    inputs = CausalTraceInputs(PROMPT, subject=(2, 6), samples=4, seed=123)
    hub_job: list[Job] = []

    def stop_after_a_while(job: Job) -> None:
        report = job.report

        def report_and_stop(*args: object, **kwargs: object) -> None:
            if len(hub_job) > 2:
                job.cancel()
            hub_job.append(job)
            report(*args, **kwargs)  # type: ignore[arg-type]  # passed through

        job.report = report_and_stop  # type: ignore[method-assign]  # a test's tap on this one job

    def work(model, job: Job) -> CausalTraceResult:
        stop_after_a_while(job)
        return trace_page.trace(model, inputs, job)

    job = hub().run(default_spec(), ("cancelled", 1), "test", work, "Causal trace")
    assert job.wait(PATIENCE)
    result = job.value()
    assert result.cancelled
    assert model.modules_with_hooks() == before
    assert hub().result(default_spec(), ("cancelled", 1)) is None  # half a result is not kept for others


def test_cancel_button_keeps_the_partial_figure(frame: Callable[..., AppTest]) -> None:
    """The session's own Cancel, while the worker is held inside the trace."""
    frame("home")  # the model is in memory from here on
    session = session_on("causal_trace", prompt=PROMPT, subject="2-5", n="3", seed="321").run()
    until_idle(session)
    model = hub().resident(default_spec())
    assert model is not None
    going, may_go = threading.Event(), threading.Event()

    def hold(job: Job) -> None:
        going.set()
        may_go.wait(PATIENCE)

    blocker = hub().worker.submit("hold", "somebody else", hold)
    assert going.wait(PATIENCE)
    inputs = CausalTraceInputs(PROMPT, subject=(2, 6), samples=3, seed=321)
    about = hub().about(default_spec())
    assert about is not None
    steps: list[int] = []

    def work(model, job: Job) -> CausalTraceResult:
        report = job.report

        def counted(*args, **kwargs) -> None:
            steps.append(1)
            if len(steps) == 4:
                hub().worker.stop(job, "me")  # what the button's callback does
            report(*args, **kwargs)

        job.report = counted  # type: ignore[method-assign]  # a test's tap on this one job
        return trace_page.trace(model, inputs, job)

    job = hub().run(default_spec(), ("held", 1), "me", work, "Causal trace")
    session.session_state["_run_causal_trace"] = running.Run(default_spec(), inputs, job)
    session.run()
    assert "1 run ahead of you" in session.get("progress")[0].proto.text
    may_go.set()
    assert blocker.wait(PATIENCE)
    settle(session)
    assert_sound(session)
    assert session.session_state["_run_causal_trace"].result.cancelled
    assert "stopped early" in texts(session)
    assert specs(session)


def test_stopping_before_anything_is_drawn_says_so(frame: Callable[..., AppTest]) -> None:
    session = frame("causal_trace", prompt=PROMPT, subject="2-5")

    def cancelled(job: Job) -> None:
        raise Cancelled

    job = hub().worker.submit("stopped", "me", cancelled)
    assert job.wait(PATIENCE)
    inputs = CausalTraceInputs(PROMPT, subject=(2, 6))
    session.session_state["_run_causal_trace"] = running.Run(default_spec(), inputs, job)
    session.run()
    assert_sound(session)
    assert "stopped before there was anything" in texts(session)


def test_average_over_facts(frame: Callable[..., AppTest]) -> None:
    session = frame("causal_trace", tab="set", prompts="4", n="2")
    assert_sound(session)
    session.button(key="run_average").click().run()
    settle(session, "causal_trace_average")
    assert_sound(session)
    result = session.session_state["_run_causal_trace_average"].result
    assert result.n_prompts + len(result.skipped) == 4
    assert len(specs(session)) == 2
    session.toggle(key="average_share").set_value(True).run()
    assert_sound(session)


def test_average_over_an_uploaded_file(frame: Callable[..., AppTest]) -> None:
    session = frame("causal_trace", tab="set", set="file", n="2")
    assert session.button(key="run_average").disabled
    rows = "prompt,subject,answer\n" + "The capital of France is,France,Paris\n" * 2
    session.file_uploader(key="prompt_file").upload("mine.csv", rows.encode(), "text/csv").run()
    assert_sound(session)
    assert "2 rows" in texts(session)
    assert not session.button(key="run_average").disabled


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"", b"a,b\n1,2\n", b'prompt,subject,answer\n"open', b"=cmd()\n"]
)
def test_a_bad_file_is_one_sentence(frame: Callable[..., AppTest], content: bytes) -> None:
    session = frame("causal_trace", tab="set", set="file")
    session.file_uploader(key="prompt_file").upload("<script>.csv", content, "text/csv").run()
    assert_sound(session)
    assert len(session.error) == 1
    assert session.button(key="run_average").disabled


@pytest.mark.parametrize(
    ("current", "pending", "position", "extend", "span", "then"),
    [
        (None, None, 3, False, (3, 4), 3),
        ((3, 4), 3, 5, False, (3, 6), None),
        ((3, 4), 3, 1, False, (1, 4), None),
        ((3, 6), None, 8, False, (8, 9), 8),
        ((3, 6), None, 8, True, (3, 9), None),
        ((3, 4), 3, 3, False, (3, 4), None),
    ],
)
def test_clicks_make_spans(current, pending, position, extend, span, then) -> None:
    assert next_span(current, pending, position, extend) == (span, then)
