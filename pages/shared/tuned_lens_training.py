"""Training a tuned lens, and measuring one: what is asked for, what it takes, and the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from mi_core.errors import LanternError
from pages.shared import running
from pages.shared.boundary import show_error
from pages.shared.instant import step_reporter
from pages.shared.running import duration
from pages.shared.session import chosen_about, hub, waiter
from pages.shared.text import code, plain
from pages.shared.tuned_lens_fields import OPTIMIZERS, SOURCES

if TYPE_CHECKING:
    from mi_core.analyses.tuned_lens_inputs import TunedLensSaveInputs
    from mi_core.analyses.tuned_lens_result import TunedLensTrainResult
    from mi_core.model.model import LoadedModel
    from pages.shared.hub import About
    from pages.shared.job import Job

SLOT = "tuned_lens"
_UPLOADED = "_tuned_text"
PROBLEM = "_tuned_problem"
"""Session key of why a lens was not measured; shown once."""


def draw_training(about: About) -> None:
    """The training panel."""
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


def measure(lens: str) -> None:
    """Compare a lens with the plain one; what keeps it from that is said beside the lenses."""
    about = chosen_about()
    inputs, problem = _asked(start=lens)
    st.session_state[PROBLEM] = problem
    if about is not None and inputs is not None:
        _start(about, inputs)
