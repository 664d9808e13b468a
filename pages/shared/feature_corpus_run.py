"""Making features files from the page: a pass over Lantern's own texts, or the command for a larger one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.transcoders.corpus_inputs import CorpusPassInputs
from pages.shared.instant import draw_warnings, instant

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel
    from mi_core.transcoders.corpus_result import CorpusPassResult
    from pages.shared.features_page import FeaturesAsked

_SLOT = "corpus_pass"


def draw_pass(asked: FeaturesAsked) -> None:
    """A button for a small pass, and how to make a large one."""
    about = asked.asked.about
    if about is None:
        return
    inputs = CorpusPassInputs(transcoder=asked.transcoder)
    result = instant(
        _SLOT, inputs, _run, "A pass over Lantern's diverse texts", about=about, seconds=math.nan
    )
    st.caption("For a corpus of your own (a text file of any size), in a terminal:")
    chosen = f" --transcoder {asked.transcoder}" if asked.transcoder else ""
    command = (
        f"python -m mi_core corpus-pass --model {about.spec.name}{chosen} --text FILE --output pass.json"
    )
    st.code(command, language="bash")
    if result is not None:
        draw_warnings(result)


def _run(model: LoadedModel, inputs: CorpusPassInputs, *, on_step: Any) -> CorpusPassResult:
    """Runs on the worker thread."""
    from mi_core.transcoders import corpus_pass

    return corpus_pass(model, inputs, on_step=on_step)
