"""A task on the page: which prompts, how well the model does them, which heads it needs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.analyses.tasks import TASK_LABELS
from mi_core.errors import InputError, LanternError
from pages.shared.boundary import show_error
from pages.shared.figure_card import figure_card
from pages.shared.instant import draw_warnings, instant
from pages.shared.selection import select, selection
from pages.shared.session import hub
from pages.shared.task_fields import MODES, MOST_PROMPTS, ORDERS
from pages.shared.text import plain

if TYPE_CHECKING:
    from mi_core.analyses import (
        HeadAblationInputs,
        HeadAblationResult,
        PairText,
        TaskBaselineResult,
        TaskHeadsResult,
        TaskInputs,
    )
    from mi_core.model.model import LoadedModel
    from pages.shared.hub import About

_UPLOADED = "_task_pairs"

ABLATION_FORMULA = (
    r"$\mathrm{effect}_h = \big(\ell_{right} - \ell_{wrong}\big)_{z_h \to \tilde z_h} - "
    r"\big(\ell_{right} - \ell_{wrong}\big)$, mean over prompts; $\tilde z_h$ is 0, the set's mean, or the "
    r"counterfactual's."
)
DIRECT_FORMULA = (
    r"$z_h W_O^h \cdot (W_U[right] - W_U[wrong])$ through the final norm, its scale held; mean over prompts."
)


def draw_task_choice(about: About) -> TaskInputs | None:
    """The widgets of a task.

    Args:
        about: the model.

    Returns:
        The task that they ask for; None when something is missing, and then it has been said.
    """
    with st.container(border=True, key="task_setup"):
        with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
            st.selectbox(
                "Task", list(TASK_LABELS), format_func=TASK_LABELS.__getitem__, key="task_name", width=260
            )
            st.number_input("Prompts", min_value=2, max_value=MOST_PROMPTS, key="task_count", width=120)
            if st.session_state["task_name"] != "pairs":
                st.number_input("Seed", min_value=0, max_value=2**32 - 1, key="task_seed", width=130)
            if st.session_state["task_name"] == "ioi":
                st.segmented_control(
                    "Names", list(ORDERS), format_func=ORDERS.__getitem__, key="task_order", required=True,
                    help="ABBA: the name that must come next stands first; BABA: it stands second.",
                )  # fmt: skip
        try:
            return _inputs(_uploaded() if st.session_state["task_name"] == "pairs" else ())
        except LanternError as error:
            show_error(error)
            return None


def _uploaded() -> tuple[PairText, ...]:
    """The uploaded pairs, kept in the session: the widget forgets its file on a page change."""
    from mi_core.importers.pair_files import read_pair_file

    file = st.file_uploader(
        "CSV or JSON", type=["csv", "json"], max_upload_size=10, key="task_file",
        help="Columns prompt, counterfactual, answer, wrong; roles if you like: IO=Mary; S1=John; S2=John#2.",
    )  # fmt: skip
    if file is not None:
        st.session_state[_UPLOADED] = read_pair_file(file.getvalue(), file.name)
    return st.session_state.get(_UPLOADED, ())


def _inputs(pairs: tuple[PairText, ...]) -> TaskInputs | None:
    from mi_core.analyses import TaskInputs

    state = st.session_state
    if state["task_name"] == "pairs" and not pairs:
        st.info(
            "Upload pairs: prompt, counterfactual, right and wrong answer in every row.",
            icon=":material/upload_file:",
        )
        return None
    return TaskInputs(
        task=state["task_name"],
        n=state["task_count"],
        seed=0 if pairs else state["task_seed"],
        templates=state["task_order"] if state["task_name"] == "ioi" else "both",
        pairs=pairs,
        bos=state["bos"],
    )


def draw_task_sections(about: About, inputs: TaskInputs) -> bool:
    """Baseline, ablation of every head, and what heads do at the last token.

    Returns:
        Whether the task could be put to the model; if not, or not yet, nothing below makes sense.
    """
    baseline: TaskBaselineResult | None = instant(
        "task_baseline", inputs, _baseline, "Baseline", about=about, seconds=_passes(about, inputs, 2)
    )
    if baseline is None:
        return False
    draw_warnings(baseline)
    _draw_baseline(baseline)
    _draw_ablation(about, inputs)
    _draw_look(about, inputs)
    return True


def _draw_baseline(result: TaskBaselineResult) -> None:
    from mi_core.charts.text import number
    from mi_core.exports.tasks import baseline_figure

    share, mean, said = result.accuracy(), result.difference(), result.said()
    with st.container(horizontal=True, gap="large", key="task_numbers"):
        st.metric("Prompts", result.n, width="content")
        st.metric(
            "Right above wrong", f"{share[0]:.0%}", width="content",
            help=f"Share of prompts; 95 % Wilson band {share[1]:.1%} to {share[2]:.1%}.",
        )  # fmt: skip
        st.metric(
            "Logit difference", number(mean[0]), width="content",
            help=f"Mean; 95 % band {number(mean[1])} to {number(mean[2])}.",
        )  # fmt: skip
        st.metric(
            "Says the right answer", f"{said[0]:.0%}", width="content",
            help="Share of prompts whose likeliest token of all is the right answer.",
        )  # fmt: skip
    first = result.task.pairs[0]
    st.caption(
        f"For example: {plain(first.prompt[:200])} \N{RIGHTWARDS ARROW} {plain(first.answer)}, not "
        f"{plain(first.wrong)}. Counterfactual: {plain(first.counterfactual[:200])}"
    )
    figure_card("task_baseline", baseline_figure(result))


def _draw_ablation(about: About, inputs: TaskInputs) -> None:
    from mi_core.analyses import HeadAblationInputs
    from mi_core.exports.tasks import ablation_figure

    st.subheader("Which heads does the task need?")
    st.segmented_control(
        "Replace each head's output by",
        list(MODES),
        format_func=MODES.__getitem__,
        key="task_mode",
        required=True,
    )
    wanted = HeadAblationInputs(
        mode=st.session_state["task_mode"], task=inputs.task, n=inputs.n, seed=inputs.seed,
        templates=inputs.templates, pairs=inputs.pairs, bos=inputs.bos,
    )  # fmt: skip
    result: HeadAblationResult | None = instant(
        "head_ablation", wanted, _ablation, "Ablation of every head",
        about=about, seconds=_ablation_seconds(about, wanted),
    )  # fmt: skip
    if result is None:
        return
    draw_warnings(result)
    places, shape = result.strongest(12), (result.n_layers, result.n_heads)
    chosen = _selected(shape)
    figure_card(
        "head_ablation", ablation_figure(result, chosen=chosen), on_cell=_choose, formula=ABLATION_FORMULA
    )
    figure_card(
        "head_ablation_ranked",
        ablation_figure(result, ranked=True, chosen=chosen),
        on_cell=lambda cell: _choose_ranked(cell, places),
        formula=ABLATION_FORMULA,
    )


def _draw_look(about: About, inputs: TaskInputs) -> None:
    from mi_core.charts.tasks import heads_label
    from mi_core.exports.tasks import heads_figure

    st.subheader("What do heads do at the last token?")
    result: TaskHeadsResult | None = instant(
        "task_heads",
        inputs,
        _heads,
        "Attention and direct effects",
        about=about,
        seconds=_passes(about, inputs, 2),
    )
    if result is None:
        return
    draw_warnings(result)
    offered = ["direct", *result.task.role_names]
    if st.session_state["task_look"] not in offered:
        st.session_state["task_look"] = "direct"  # a role of another task
    st.selectbox(
        "Show", offered, format_func=lambda what: plain(heads_label(what)), key="task_look", width=330
    )
    what, chosen = st.session_state["task_look"], _selected((result.n_layers, result.n_heads))
    places = result.strongest(what, 12)
    figure_card(
        "task_heads", heads_figure(result, what, chosen=chosen), on_cell=_choose, formula=DIRECT_FORMULA
    )
    figure_card(
        "task_heads_ranked",
        heads_figure(result, what, ranked=True, chosen=chosen),
        on_cell=lambda cell: _choose_ranked(cell, places),
        formula=DIRECT_FORMULA,
    )


def _selected(shape: tuple[int, int]) -> tuple[int, int] | None:
    now = selection()
    if now.layer is None or now.head is None or now.layer >= shape[0] or now.head >= shape[1]:
        return None
    return now.layer, now.head


def _choose(cell: dict[str, Any]) -> None:
    layer, head = cell.get("layer"), cell.get("head")
    if isinstance(layer, int) and isinstance(head, int):
        select(replace(selection(), layer=layer, head=head, neuron=None, kind="head"))


def _choose_ranked(cell: dict[str, Any], places: list[tuple[int, int]]) -> None:
    index = cell.get("index")
    if isinstance(index, int) and 0 <= index < len(places):
        _choose({"layer": places[index][0], "head": places[index][1]})


# --- on the worker thread ---


def _baseline(model: LoadedModel, inputs: TaskInputs, *, on_step: Any) -> TaskBaselineResult:
    from mi_core.analyses import task_baseline

    return task_baseline(model, inputs, on_step=on_step)


def _ablation(model: LoadedModel, inputs: HeadAblationInputs, *, on_step: Any) -> HeadAblationResult:
    from mi_core.analyses import head_ablation

    return head_ablation(model, inputs, on_step=on_step)


def _heads(model: LoadedModel, inputs: TaskInputs, *, on_step: Any) -> TaskHeadsResult:
    from mi_core.analyses import task_heads

    return task_heads(model, inputs, on_step=on_step)


# --- how long it will take ---


def _passes(about: About, inputs: TaskInputs, passes: int) -> float | None:
    """Seconds of some passes over the set; None while the speed is unknown, or the task cannot be put."""
    from mi_core.analyses.task_heads_run import task_seconds

    model = hub().resident(about.spec)
    try:
        return None if model is None else task_seconds(model, inputs, passes=passes)
    except InputError:
        return None  # the run itself will say why


def _ablation_seconds(about: About, inputs: HeadAblationInputs) -> float | None:
    from mi_core.analyses import head_ablation_seconds

    model = hub().resident(about.spec)
    return None if model is None else head_ablation_seconds(model, inputs)
