"""The tab "Head circuits": a task, what heads do on it, their classes, the circuit and its test, paths."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.analyses.attribution_inputs import head_name
from mi_core.analyses.circuit_test_inputs import CircuitTestInputs
from mi_core.analyses.head_classes_inputs import HeadClassesInputs
from mi_core.analyses.head_classes_rules import QUANTITIES
from mi_core.analyses.path_patching_inputs import PathPatchingInputs
from mi_core.errors import InputError
from pages.shared.boundary import show_error
from pages.shared.circuit_fields import ABLATIONS, MLPS, NUMBERS, SETTINGS
from pages.shared.circuit_text import CLASSES_FORMULA, PATHS_FORMULA, TEST_FORMULA
from pages.shared.figure_card import figure_card
from pages.shared.instant import draw_warnings, instant
from pages.shared.selection import select, selection
from pages.shared.session import chosen_about, hub
from pages.shared.task_page import draw_task_choice, draw_task_sections

if TYPE_CHECKING:
    from mi_core.analyses.circuit_test_result import CircuitTestResult
    from mi_core.analyses.head_classes_result import HeadClassesResult
    from mi_core.analyses.path_patching_result import PathPatchingResult
    from mi_core.analyses.task_inputs import TaskInputs
    from mi_core.model.model import LoadedModel
    from pages.shared.hub import About


def draw_circuit_tab() -> None:
    """The tab."""
    about = chosen_about()
    if about is None:
        st.info("The model is not loaded yet; the sidebar shows how far it is.", icon=":material/edit:")
        return
    task = draw_task_choice(about)
    if task is None:
        return
    draw_task_sections(about, task)
    classes = _draw_classes(about, task)
    _draw_test(about, task, classes)
    _draw_paths(about, task)


# --- classes and the circuit ---


def _draw_classes(about: About, task: TaskInputs) -> HeadClassesResult | None:
    st.subheader("Which head does what?")
    st.caption(
        "A head gets a class only if every number that the class asks for holds with its whole 95 % band; "
        "otherwise it is unclear, or none."
    )
    st.segmented_control(
        "Ablate with",
        list(ABLATIONS),
        format_func=ABLATIONS.__getitem__,
        key="circuit_ablation",
        required=True,
        help="mean: over the counterfactual prompts of the same form. resample: the head's output in the "
        "prompt's own counterfactual. zero: nothing.",
    )
    inputs = HeadClassesInputs(**_task_fields(task), ablation=st.session_state["circuit_ablation"])
    result: HeadClassesResult | None = instant(
        "head_classes", inputs, _run_classes, "Classes of heads", about=about,
        seconds=_seconds(about, "head_classes_seconds", inputs), draw_partial=_draw_table,
    )  # fmt: skip
    if result is None:
        return None
    draw_warnings(result)
    _draw_found(result)
    return result


def _draw_found(result: HeadClassesResult) -> None:
    from mi_core.exports.circuit import circuit_figure, quantity_figure

    chosen = _chosen_head()
    if result.drawn:
        figure_card(
            "circuit", circuit_figure(result, chosen=chosen), on_cell=_choose_head, formula=CLASSES_FORMULA
        )
    _draw_table(result)
    st.selectbox(
        "Number of all heads", NUMBERS, format_func=lambda name: QUANTITIES[name][0], key="circuit_number",
        width=320,
    )  # fmt: skip
    figure = quantity_figure(result, st.session_state["circuit_number"], chosen=chosen)
    figure_card("circuit_numbers", figure, on_cell=_choose_head, formula=CLASSES_FORMULA)


def _draw_table(result: HeadClassesResult) -> None:
    """Heads with a label and the numbers that it rests on."""
    from mi_core.exports.circuit import class_table

    table = class_table(result)
    if table.empty:
        st.info("No head has a class, and none matters by itself.", icon=":material/search_off:")
        return
    st.dataframe(
        table,
        hide_index=True,
        width="stretch",
        column_config={"rests on": st.column_config.TextColumn(width="large")},
        alt="Heads with their classes and the numbers that these rest on",
    )


# --- the test ---


def _draw_test(about: About, task: TaskInputs, classes: HeadClassesResult | None) -> None:
    st.subheader("Is it the circuit?")
    st.text_input(
        "Heads of the circuit",
        key="circuit_heads",
        placeholder="e.g. L0H3, L2H1; empty = all heads that are drawn above",
        help="All other heads are ablated, then these; embeddings and MLPs never are.",
    )
    names = tuple(_words(st.session_state["circuit_heads"]))
    if not names and classes is not None:
        names = tuple(head_name(*place) for place in classes.drawn)
    if not names:
        st.caption("Find the classes above first, or name heads.")
        return
    try:
        inputs = CircuitTestInputs(names, **_task_fields(task), ablation=st.session_state["circuit_ablation"])
    except InputError as error:
        show_error(error)
        return
    result: CircuitTestResult | None = instant(
        "circuit_test", inputs, _run_test, "Test of the circuit", about=about,
        seconds=_seconds(about, "circuit_test_seconds", inputs),
    )  # fmt: skip
    if result is None:
        return
    from mi_core.exports.circuit import completeness_figure, trial_figure

    draw_warnings(result)
    figure_card("circuit_trial", trial_figure(result), formula=TEST_FORMULA)
    if result.subsets:
        figure_card("circuit_complete", completeness_figure(result), formula=TEST_FORMULA)


# --- path patching ---


def _draw_paths(about: About, task: TaskInputs) -> None:
    st.subheader("Who tells whom?")
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom", key="circuit_paths"):
        st.text_input(
            "Receivers",
            key="circuit_receivers",
            width=320,
            help="logits, or what enters a head: L5H1.q (query), L5H1.k (key), L5H1.v (value).",
        )
        st.segmented_control(
            "Several receivers", list(SETTINGS), format_func=SETTINGS.__getitem__, key="circuit_setting",
            required=True,
        )  # fmt: skip
        st.segmented_control(
            "MLPs on the way", list(MLPS), format_func=MLPS.__getitem__, key="circuit_mlps", required=True,
            help="recomputed, as in Wang et al.: a head may speak through MLPs; frozen: only directly.",
        )  # fmt: skip
    state = st.session_state
    try:
        inputs = PathPatchingInputs(
            tuple(_words(state["circuit_receivers"])),
            setting=state["circuit_setting"],
            mlps=state["circuit_mlps"],
            **_task_fields(task),
        )
    except InputError as error:
        show_error(error)
        return
    result: PathPatchingResult | None = instant(
        "path_patching", inputs, _run_paths, "Path patching", about=about,
        seconds=_seconds(about, "path_patching_seconds", inputs),
    )  # fmt: skip
    if result is None:
        return
    from mi_core.exports.circuit import path_figure

    draw_warnings(result)
    for index in range(len(result.names)):
        figure = path_figure(result, index, chosen=_chosen_head())
        figure_card(f"circuit_path_{index}", figure, on_cell=_choose_head, formula=PATHS_FORMULA)


# --- small things ---


def _task_fields(task: TaskInputs) -> dict[str, Any]:
    """The fields with which all Inputs here name the task, as they are."""
    return {name: getattr(task, name) for name in asdict(task)}


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\s,;]+", text) if word]


def _chosen_head() -> tuple[int, int] | None:
    now = selection()
    return None if now.layer is None or now.head is None else (now.layer, now.head)


def _choose_head(cell: dict[str, Any]) -> None:
    """A click on a head selects it, here and on the other pages."""
    layer, head = cell.get("layer"), cell.get("head")
    if isinstance(layer, int) and isinstance(head, int):
        now = selection()
        select(replace(now, layer=layer, head=head))


def _seconds(about: About, cost: str, inputs: Any) -> float | None:
    """About how long it takes; unknown until the model's speed has been measured."""
    from mi_core import analyses

    model = hub().resident(about.spec)
    return float("nan") if model is None else getattr(analyses, cost)(model, inputs)


def _run_classes(model: LoadedModel, inputs: HeadClassesInputs, *, on_step: Any) -> HeadClassesResult:
    """Runs on the worker thread."""
    from mi_core.analyses import head_classes

    return head_classes(model, inputs, on_step=on_step)


def _run_test(model: LoadedModel, inputs: CircuitTestInputs, *, on_step: Any) -> CircuitTestResult:
    """Runs on the worker thread."""
    from mi_core.analyses import circuit_test

    return circuit_test(model, inputs, on_step=on_step)


def _run_paths(model: LoadedModel, inputs: PathPatchingInputs, *, on_step: Any) -> PathPatchingResult:
    """Runs on the worker thread."""
    from mi_core.analyses import path_patching

    return path_patching(model, inputs, on_step=on_step)
