"""The tuned-lens tab: lenses that are there, training one, and how good it is beside the plain lens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from mi_core.errors import LanternError
from pages.shared import running
from pages.shared.boundary import draw_failure, show_error
from pages.shared.figure_card import figure_card
from pages.shared.instant import draw_warnings, step_reporter
from pages.shared.running import Run, duration
from pages.shared.session import chosen_about, chosen_spec, hub, waiter
from pages.shared.text import code, plain
from pages.shared.tuned_lens_fields import OPTIMIZERS, SOURCES
from pages.shared.tuned_lens_text import FORMULA

if TYPE_CHECKING:
    from mi_core.analyses.tuned_lens_inputs import TunedLensSaveInputs
    from mi_core.analyses.tuned_lens_result import TunedLensTrainResult
    from mi_core.analyses.tuned_lens_store import FoundLens
    from mi_core.model.model import LoadedModel
    from pages.shared.hub import About
    from pages.shared.job import Job

SLOT = "tuned_lens"
CHOSEN = "lens_file"
"""Session key of the lens that the grid is drawn with; "" = plain."""

_UPLOADED = "_tuned_text"


def draw_tuned_tab() -> None:
    """Lenses of this model, the training panel, and what came out."""
    about = chosen_about()
    st.caption(
        "The plain lens reads an early layer with the last layer's words, which it may not speak yet. A "
        "tuned lens first translates: one affine map per layer, trained so that the reading comes close to "
        "what the model says in the end."
    )
    if about is None:
        st.info("The model is not loaded yet; the sidebar shows how far it is.", icon=":material/hourglass:")
        return
    _draw_found(about)
    _draw_training(about)
    run = running.current(SLOT)
    if run is None:
        return
    if not running.settle(run):
        running.follow(SLOT, lambda partial: None)
        return
    _draw_outcome(run)


# --- lenses that are there
# --------------------------------------------------------------------------------------------------------


def _draw_found(about: About) -> None:
    from mi_core.analyses.tuned_lens_store import lenses_of

    found = lenses_of(about)
    with st.container(border=True, key="tuned_found"):
        st.markdown("**Lenses of this model**")
        if not found:
            st.markdown(
                "There is none yet. Train one below, or put a folder with `config.json` and "
                "`params.safetensors` into `lenses/` of the model's folder."
            )
        for index, lens in enumerate(found):
            _draw_lens(index, lens)
        _draw_path()
        problem = st.session_state.pop("_tuned_problem", "")
        if problem:
            st.warning(plain(problem), icon=":material/info:")


def _draw_lens(index: int, lens: FoundLens) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        used = st.session_state.get(CHOSEN) == lens.name
        mark = ":green[:material/check_circle:] " if used else ""
        st.markdown(f"{mark}{code(lens.name, 60)}", width="content")
        st.caption(_about_lens(lens), width="stretch", help=f"{_HOW_FAR} {code(lens.folder, 200)}")
        if lens.problem:
            return _told(lens.problem)
        st.button(
            "In use" if used else "Use in the grid",
            key=f"tuned_use_{index}",
            disabled=used,
            on_click=_use,
            args=(lens.name,),
        )
        st.button("Measure", key=f"tuned_measure_{index}", on_click=_measure, args=(lens.name,), help=_HELP)
    return None


def _about_lens(lens: FoundLens) -> str:
    from mi_core.charts.text import number

    place = "in your data folder" if lens.place == "your data folder" else lens.place
    if lens.plain_kl is None or lens.tuned_kl is None:
        return place
    return (
        f"{place} · {number(lens.tuned_kl)} nats per token from the model's output "
        f"(plain lens {number(lens.plain_kl)})"
    )


_HOW_FAR = "Mean over layers, on the text that its own training held out."
_HELP = "Compare it with the plain lens on the held-out part of the text that is chosen below."


def _told(problem: str) -> None:
    st.badge("cannot be used", icon=":material/block:", color="orange", help=plain(problem))


def _draw_path() -> None:
    """A lens anywhere on this machine, by its folder."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.text_input(
            "Another folder",
            key="tuned_path",
            placeholder="/path/to/a/tuned/lens",
            help="A folder in the layout of the tuned-lens package, with params.safetensors. Pickles "
            "(params.pt) are not read, because they can run code.",
        )
        path = st.session_state["tuned_path"].strip()
        st.button("Use in the grid", key="tuned_use_path", disabled=not path, on_click=_use, args=(path,))
        st.button("Measure", key="tuned_measure_path", disabled=not path, on_click=_measure, args=(path,))
        if st.session_state.get(CHOSEN):
            st.button("Back to the plain lens", key="tuned_plain", on_click=_use, args=("",))


def _use(name: str) -> None:
    st.session_state[CHOSEN] = name


# --- training
# --------------------------------------------------------------------------------------------------------


def _draw_training(about: About) -> None:
    with st.container(border=True, key="tuned_training"):
        st.markdown("**Train one**")
        with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
            st.segmented_control(
                "Text", list(SOURCES), format_func=SOURCES.__getitem__, key="tuned_source", required=True
            )
            st.number_input("Steps", min_value=1, max_value=1_000_000, key="tuned_steps", width=130)
            st.number_input(
                "Tokens per step", min_value=16, max_value=4_000_000, key="tuned_batch", width=150
            )
            _draw_more()
        _draw_upload()
        with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
            st.text_input("Name", key="tuned_name", width=220)
            st.checkbox("Replace a lens of this name", key="tuned_replace")
        _draw_run_row(about)


def _draw_more() -> None:
    with st.popover("More options", icon=":material/tune:"):
        st.selectbox("Optimizer", list(OPTIMIZERS), format_func=OPTIMIZERS.__getitem__, key="tuned_optimizer")
        st.number_input(
            "Learning rate",
            min_value=1e-9,
            max_value=100.0,
            format="%g",
            key="tuned_rate",
            placeholder="usual",
            help="Empty = 1 for SGD, 0.001 for Adam. It falls in a line to zero.",
        )
        st.number_input("Context (tokens)", min_value=4, max_value=100_000, key="tuned_context")
        st.number_input("Seed", min_value=0, max_value=2**32 - 1, key="tuned_seed")


def _draw_upload() -> None:
    """The uploaded text; it is kept in the session, because an upload is gone after a page change."""
    if st.session_state["tuned_source"] != "file":
        return
    file = st.file_uploader(
        "Text file",
        type=["txt", "md"],
        max_upload_size=20,
        key="tuned_file",
        help="UTF-8. Blank lines separate documents; ten or more of them make the best held-out part.",
    )
    if file is not None:
        from mi_core.analyses.tuned_lens_inputs import documents_of

        try:
            st.session_state[_UPLOADED] = (file.name, documents_of(file.getvalue()))
        except LanternError as error:
            st.session_state.pop(_UPLOADED, None)
            show_error(error)
    known = st.session_state.get(_UPLOADED)
    if known is not None:
        st.caption(f"{code(known[0], 60)}: {len(known[1]):,} documents")


def _texts() -> tuple[str, tuple[str, ...]] | None:
    """Name and documents of the chosen text; None while there is none."""
    if st.session_state["tuned_source"] == "file":
        return st.session_state.get(_UPLOADED)
    from mi_core.batch.texts import bundled_texts

    bundled = bundled_texts()
    return bundled.name, tuple(text.text for text in bundled.texts)


def _asked(*, start: str = "") -> tuple[TunedLensSaveInputs | None, str]:
    """The training that the widgets ask for, or what is wrong; with `start`, only measuring that lens."""
    from mi_core.analyses.tuned_lens_inputs import TunedLensSaveInputs

    state = st.session_state
    try:
        texts = _texts()
        if texts is None:
            return None, "Upload a text file."
        return TunedLensSaveInputs(
            texts=texts[1],
            text_name=texts[0],
            steps=0 if start else state["tuned_steps"],
            optimizer=state["tuned_optimizer"],
            learning_rate=state["tuned_rate"],
            batch_tokens=state["tuned_batch"],
            context=state["tuned_context"],
            start=start,
            seed=state["tuned_seed"],
            bos=state["bos"],
            save_as=state["tuned_name"].strip(),
            replace=bool(state.get("tuned_replace")),
        ), ""
    except LanternError as error:
        return None, str(error)


def _draw_run_row(about: About) -> None:
    inputs, problem = _asked()
    if inputs is not None:
        problem = _name_problem(about, inputs)
    ours = problem and inputs is not None and _just_saved(inputs.save_as)
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        pressed = st.button(
            "Train",
            type="primary",
            icon=":material/model_training:",
            disabled=bool(problem),
            key="train_tuned",
        )
        if ours:
            st.caption("This lens has been trained. Another one needs another name.")
        elif problem:
            st.markdown(f":orange[:material/info: {plain(problem)}]")
        elif inputs is not None:
            st.caption(_cost(about, inputs))
    if pressed and inputs is not None:
        _start(about, inputs)


def _just_saved(name: str) -> bool:
    """Whether the last run saved a lens of this name: then the name is taken, and that is no mistake."""
    run = running.current(SLOT)
    result: TunedLensTrainResult | None = None if run is None else run.result
    return result is not None and result.lens is not None and bool(name) and result.lens.name == name


def _name_problem(about: About, inputs: TunedLensSaveInputs) -> str:
    """Why the lens could not be saved under its name, said before it is trained."""
    from mi_core.analyses.tuned_lens_store import check_free

    if not inputs.save_as:
        return "Give the lens a name; it is saved beside the model."
    try:
        check_free(about, inputs.save_as, replace=inputs.replace)
    except LanternError as error:
        return str(error)
    return ""


def _cost(about: About, inputs: TunedLensSaveInputs) -> str:
    from mi_core.analyses.tuned_lens_cost import training_cost
    from mi_core.analyses.tuned_lens_store import save_folder
    from mi_core.model.progress import format_bytes

    place = f"saved to {code(str(save_folder(about, inputs.save_as)), 90)}"
    model = hub().resident(about.spec)
    if model is None:
        return place
    cost = training_cost(model, inputs)
    time = "" if cost.seconds is None else f" · about **{duration(cost.seconds)}** on {code(about.device)}"
    return (
        f"{cost.tokens:,} tokens at {model.dims.n_layers} layers, {cost.d_vocab:,} logits each · "
        f"{format_bytes(cost.bytes)} of memory{time} · {place}"
    )


def _start(about: About, inputs: TunedLensSaveInputs) -> None:
    """Train and save; a file is written, so an earlier result is never taken instead."""
    key = ("tuned_lens_train", about.fingerprint, inputs)
    job = hub().run(about.spec, key, waiter(), lambda model, job: _train(model, inputs, job), "Tuned lens")
    running.begin(SLOT, about.spec, inputs, job)


def _train(model: LoadedModel, inputs: TunedLensSaveInputs, job: Job) -> TunedLensTrainResult:
    """Runs on the worker thread."""
    from mi_core.analyses import tuned_lens_train, tuned_lens_train_and_save

    if not inputs.steps:
        return tuned_lens_train(model, inputs.training, on_step=step_reporter(job))
    return tuned_lens_train_and_save(model, inputs, on_step=step_reporter(job))


def _measure(lens: str) -> None:
    about = chosen_about()
    inputs, problem = _asked(start=lens)
    st.session_state["_tuned_problem"] = problem
    if about is not None and inputs is not None:
        _start(about, inputs)


# --- what came out
# --------------------------------------------------------------------------------------------------------


def _draw_outcome(run: Run) -> None:
    if run.error is not None:
        draw_failure(run.error, "the training")
        return
    result: TunedLensTrainResult = run.result
    if run.spec != chosen_spec():
        st.badge("of another model", icon=":material/history:", color="orange")
    if result.saved_to:
        st.success(
            f"Saved to {code(result.saved_to, 120)}. Choose it above to draw the grid with it.",
            icon=":material/save:",
        )
    draw_warnings(result)
    _draw_figures(result)


def _draw_figures(result: TunedLensTrainResult) -> None:
    from mi_core.exports.tuned_lens import course_figure, quality_figure

    without = st.toggle(
        "Leave out layer 0",
        key="tuned_without_first",
        help="The embeddings themselves: the plain lens is often so far off there that the other layers "
        "cannot be seen.",
        disabled=result.n_layers < 2,
    )
    first = 1 if without and result.n_layers > 1 else 0
    figure_card("tuned_quality", quality_figure(result, from_layer=first), formula=FORMULA)
    if len(result.checked_steps) > 1:
        figure_card("tuned_course", course_figure(result))
