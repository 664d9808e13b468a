"""Averages of causal traces over a prompt set: which prompts, what it costs, roles by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from mi_core.analyses.cases import PromptSet
from mi_core.analyses.causal_trace_average_types import CausalTraceAverageInputs, CausalTraceAverageResult
from mi_core.errors import LanternError
from pages.shared import running
from pages.shared.boundary import draw_failure, show_error
from pages.shared.figure_card import figure_card
from pages.shared.method_text import AVERAGE_FORMULA
from pages.shared.running import Run, duration
from pages.shared.session import chosen_about, chosen_spec, hub, waiter
from pages.shared.text import code, plain
from pages.shared.trace_fields import AVERAGE_METRICS, POOLINGS
from pages.shared.trace_setup import draw_corruption, draw_kinds, draw_noise

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel
    from pages.shared.hub import About
    from pages.shared.job import Job

SLOT = "causal_trace_average"
SOURCES = {"facts": "Facts of Atlas", "file": "A file of yours"}
METRIC_NAMES = {"probability": "P(answer)", "log_probability": "log P(answer)", "logit": "answer logit"}
POOLING_NAMES = {"tokens": "tokens (as ROME)", "prompts": "prompts"}

_UPLOADED = "_prompt_set"


def draw_average_tab() -> None:
    """Set-up, cost, Run, and what came out."""
    about = chosen_about()
    with st.container(border=True, key="average_setup"):
        prompts = _draw_set()
        draw_corruption()
        draw_kinds(heads=False)
        with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
            _draw_settings()
        inputs, problem = _asked(prompts)
        _draw_run_row(about, inputs, problem)
    run = running.current(SLOT)
    if run is None:
        st.info(
            "Single prompts differ. An average over many shows what holds for all: six roles of tokens by "
            "layer, with 95 % bands over prompts.",
            icon=":material/stacked_line_chart:",
        )
    elif not running.settle(run):
        running.follow(SLOT, _draw_partial)
    else:
        _draw_outcome(run, inputs)


def _draw_set() -> PromptSet | None:
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
        st.segmented_control(
            "Prompts", list(SOURCES), format_func=SOURCES.__getitem__, key="prompt_source", required=True
        )
        st.number_input(
            "At most",
            min_value=1,
            max_value=5000,
            key="prompt_count",
            width=130,
            help="Drawn evenly from the kinds of facts; prompts that the model gets wrong are left out.",
        )
    try:
        prompts = _uploaded_set() if st.session_state["prompt_source"] == "file" else _bundled_set()
    except LanternError as error:
        show_error(error)
        return None
    if prompts is None:
        return None
    used = prompts.sample(st.session_state["prompt_count"], st.session_state["seed"])
    st.caption(f"{plain(prompts.name)}: {plain(prompts.note)}. Using {len(used.cases)}.")
    return used


def _bundled_set() -> PromptSet:
    from mi_core.batch.prompt_sets import bundled_facts

    return bundled_facts()


def _uploaded_set() -> PromptSet | None:
    """The uploaded set; it is kept in the session, because an upload is gone after a page change."""
    from mi_core.importers.prompt_files import read_prompt_file

    file = st.file_uploader(
        "CSV or JSON",
        type=["csv", "json"],
        max_upload_size=10,
        key="prompt_file",
        help="Columns prompt, subject, answer; or ROME's known_1000; or CounterFact pairs.",
    )
    if file is not None:
        st.session_state[_UPLOADED] = read_prompt_file(file.getvalue(), file.name)
    return st.session_state.get(_UPLOADED)


def _draw_settings() -> None:
    if st.session_state["corruption"] == "noise":
        draw_noise()
    st.number_input("Window (layers)", min_value=1, max_value=1000, key="window", width=140)
    st.selectbox(
        "Averaged",
        AVERAGE_METRICS,
        format_func=METRIC_NAMES.__getitem__,
        key="average_metric",
        width=160,
    )
    st.selectbox(
        "Counts once",
        POOLINGS,
        format_func=POOLING_NAMES.__getitem__,
        key="pooling",
        width=180,
        help="tokens: a subject with four middle tokens counts four times, as in ROME's program. "
        "prompts: every prompt counts once.",
    )


def _asked(prompts: PromptSet | None) -> tuple[CausalTraceAverageInputs | None, str]:
    state = st.session_state
    if prompts is None:
        return None, "Choose or upload prompts."
    swap = state["corruption"] == "prompt"
    if swap and not prompts.has_pairs:
        return None, "These prompts have no corrupted partners: choose noise, or upload pairs."
    kinds = tuple(kind for kind in state["kinds"] if kind != "head")
    try:
        return CausalTraceAverageInputs(
            cases=prompts.cases,
            corruption="tokens" if swap else "noise",
            metric=state["average_metric"],
            pooling=state["pooling"],
            kinds=kinds,
            window=state["window"],
            window_convention=state["window_convention"],
            noise=state["noise"],
            noise_level=float(state["noise_level"]),
            noise_unit=state["noise_unit"],
            samples=state["samples"],
            seed=state["seed"],
            bos=state["bos"],
            set_name=prompts.name,
        ), ""
    except LanternError as error:
        return None, str(error)


def _draw_run_row(about: About | None, inputs: CausalTraceAverageInputs | None, problem: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        ready = about is not None and inputs is not None
        pressed = st.button(
            "Run",
            type="primary",
            icon=":material/play_arrow:",
            shortcut="Ctrl+Enter",
            disabled=not ready,
            key="run_average",
        )
        if problem:
            st.markdown(f":orange[:material/info: {plain(problem)}]")
        elif about is None or inputs is None:
            st.caption("The cost is known when the model is loaded.")
        else:
            st.caption(_cost(about, inputs))
    if pressed and about is not None and inputs is not None:
        _start(about, inputs)


def _cost(about: About, inputs: CausalTraceAverageInputs) -> str:
    """The cost of the first prompts that can be traced, times their number."""
    seconds = _seconds_of_one(about, inputs)
    count = len(inputs.cases)
    if seconds is None:
        return f"{count} prompts, one trace each"
    return f"{count} prompts, one trace each · about **{duration(seconds * count)}** on {code(about.device)}"


def _seconds_of_one(about: About, inputs: CausalTraceAverageInputs) -> float | None:
    from mi_core.analyses import causal_trace_plan
    from mi_core.tokens import find_spans, tokenize

    model = hub().resident(about.spec)
    if model is None:
        return None
    for case in inputs.cases[:5]:
        try:
            spans = find_spans(tokenize(about.tokenizer, case.prompt, bos=inputs.bos), case.subject)
            if not spans and inputs.corruption == "noise":
                continue
            span = spans[0] if spans else None
            seconds = causal_trace_plan(model, inputs.trace_inputs(case, span)).seconds
        except LanternError:
            continue
        return seconds if seconds == seconds else None
    return None


def _start(about: About, inputs: CausalTraceAverageInputs) -> None:
    key = ("causal_trace_average", about.fingerprint, inputs)
    known = hub().result(about.spec, key)
    if known is not None:
        running.finished(SLOT, about.spec, inputs, known)
        return
    job = hub().run(about.spec, key, waiter(), lambda model, job: _average(model, inputs, job), "Average")
    running.begin(SLOT, about.spec, inputs, job)


def _average(model: LoadedModel, inputs: CausalTraceAverageInputs, job: Job) -> CausalTraceAverageResult:
    """Runs on the worker thread."""
    from mi_core.analyses import Step, causal_trace_average

    def on_step(step: Step[CausalTraceAverageResult]) -> None:
        job.report(
            step.done / max(1, step.total), step.text, seconds_left=step.seconds_left, partial=step.partial
        )

    return causal_trace_average(model, inputs, on_step=on_step)


def _draw_partial(result: CausalTraceAverageResult) -> None:
    from mi_core.charts.causal_trace_average import role_heatmap
    from pages.shared.charts import draw_chart

    st.caption(f"Prompts so far: {result.n_prompts}.")
    draw_chart(role_heatmap(result), key="partial_roles", alt="The average so far.")


def _draw_outcome(run: Run, inputs: CausalTraceAverageInputs | None) -> None:
    if run.error is not None:
        draw_failure(run.error, "the average")
        return
    result: CausalTraceAverageResult | None = run.result
    if result is None or not result.used:
        st.info("No prompt went into the average.", icon=":material/stop_circle:")
        if result is not None:
            _draw_skipped(result)
        return
    _draw_state(run, result, inputs)
    for warning in result.warnings:
        st.warning(plain(warning), icon=":material/warning:")
    _draw_figures(result)
    _draw_skipped(result)


def _draw_state(run: Run, result: CausalTraceAverageResult, inputs: CausalTraceAverageInputs | None) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key="average_state"):
        if result.cancelled:
            st.badge(
                f"stopped early: {result.n_prompts} prompts", icon=":material/stop_circle:", color="orange"
            )
        if inputs != result.inputs or run.spec != chosen_spec():
            st.badge("settings changed since this ran", icon=":material/history:", color="orange")


def _draw_figures(result: CausalTraceAverageResult) -> None:
    from mi_core.charts.text import number
    from mi_core.exports.causal_trace_average import role_heatmap_figure, role_lines_figure

    low, high = result.total_effect_interval()
    with st.container(horizontal=True, gap="large", vertical_alignment="bottom", key="average_numbers"):
        share = st.toggle("As a share of the total effect", key="average_share")
        st.metric("Prompts", result.n_prompts, width="content")
        st.metric(
            "Total effect",
            number(result.total_effect),
            width="content",
            help=f"Mean of clean minus corrupted; 95 % {number(low)} to {number(high)}.",
        )
    figure_card("average_roles", role_heatmap_figure(result, share=share), formula=AVERAGE_FORMULA)
    figure_card("average_lines", role_lines_figure(result, share=share), formula=AVERAGE_FORMULA)


def _draw_skipped(result: CausalTraceAverageResult) -> None:
    if not result.skipped:
        return
    cases = result.inputs.cases
    with st.expander(f"{len(result.skipped)} prompts were left out", icon=":material/filter_alt_off:"):
        st.dataframe(
            {
                "prompt": [cases[case.index].prompt for case in result.skipped],
                "answer": [cases[case.index].answer for case in result.skipped],
                "why": [case.reason for case in result.skipped],
            },
            hide_index=True,
            alt="Prompts that were left out, and why.",
        )
