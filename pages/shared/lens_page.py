"""The logit lens of one prompt: controls, grid, chosen cell, followed tokens, attention against MLP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.errors import LanternError
from pages.shared.boundary import show_error
from pages.shared.instant import draw_warnings, instant, page_state, prompt_inputs
from pages.shared.lens_controls import (
    draw_controls,
    draw_window,
    lens_version,
    target,
    tracked_words,
    window_positions,
)
from pages.shared.lens_view import chosen_position, draw_cell, draw_grid, draw_steps, draw_words
from pages.shared.session import hub

if TYPE_CHECKING:
    from mi_core.analyses import LogitLensInputs, LogitLensResult, LogitLensStepsInputs, LogitLensStepsResult
    from mi_core.model.model import LoadedModel
    from pages.shared.instant import Asked


def draw_lens_tab() -> None:
    """Everything about the header's prompt."""
    asked = prompt_inputs()
    draw_controls(asked.about)
    if not page_state(asked) or asked.about is None or asked.tokens is None:
        return
    draw_window(len(asked.tokens))
    positions = window_positions(len(asked.tokens))
    try:
        inputs = _inputs(asked, positions)
    except LanternError as error:
        show_error(error)
        return
    result = instant(
        f"logit_lens{lens_version(asked.about)}", inputs, _lens, "Logit lens",
        about=asked.about, seconds=_seconds(asked, len(positions)),
    )  # fmt: skip
    if result is None:
        return
    draw_warnings(result)
    draw_grid(result)
    draw_cell(result)
    draw_words(result)
    _draw_steps(asked, result)


def _inputs(asked: Asked, positions: tuple[int, ...]) -> LogitLensInputs:
    from mi_core.analyses import LogitLensInputs

    state = st.session_state
    whole = asked.tokens is not None and len(positions) == len(asked.tokens)
    return LogitLensInputs(
        prompt=asked.prompt,
        site=state["lens_site"],
        answer=state["answer"] or None,
        distractor=state["distractor"] or None,
        target=target(),
        tracked=tracked_words(),
        stride=state["lens_stride"],
        positions=None if whole else positions,
        lens=state["lens_file"],
        bos=asked.bos,  # type: ignore[arg-type]  # the header offers only legal words
    )


def _lens(model: LoadedModel, inputs: LogitLensInputs, *, on_step: Any) -> LogitLensResult:
    """Runs on the worker thread."""
    from mi_core.analyses import logit_lens

    return logit_lens(model, inputs, on_step=on_step)


def _seconds(asked: Asked, columns: int) -> float | None:
    from mi_core.analyses.logit_lens_cost import lens_seconds

    model = None if asked.about is None else hub().resident(asked.about.spec)
    if model is None or asked.tokens is None:
        return None
    return lens_seconds(model, len(asked.tokens), columns * model.dims.n_layers)


def _draw_steps(asked: Asked, result: LogitLensResult) -> None:
    """Attention against MLP at the selected position."""
    from mi_core.analyses import LogitLensStepsInputs

    if asked.about is None:
        return
    inputs = LogitLensStepsInputs(
        prompt=result.inputs.prompt,
        position=chosen_position(result),
        answer=result.inputs.answer,
        distractor=result.inputs.distractor,
        target=result.inputs.target,
        bos=result.inputs.bos,
    )
    steps = instant("logit_lens_steps", inputs, _steps, "Attention against MLP", about=asked.about)
    if steps is not None:
        draw_steps(steps)


def _steps(model: LoadedModel, inputs: LogitLensStepsInputs, *, on_step: Any) -> LogitLensStepsResult:
    """Runs on the worker thread."""
    from mi_core.analyses import logit_lens_steps

    return logit_lens_steps(model, inputs, on_step=on_step)
