"""One feature over a corpus: density, histogram, examples, co-active features; and a text of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.errors import LanternError
from mi_core.transcoders.corpus_view_inputs import FeatureCorpusInputs
from mi_core.transcoders.feature_text_inputs import FeatureTextInputs
from pages.shared.boundary import show_error
from pages.shared.feature_corpus_fields import AROUND, MAX_TEST
from pages.shared.feature_corpus_run import draw_pass
from pages.shared.feature_corpus_text import FORMULA
from pages.shared.feature_source import told
from pages.shared.features_page import choose_feature
from pages.shared.figure_card import figure_card
from pages.shared.instant import draw_warnings, instant, pass_seconds
from pages.shared.selection import selection
from pages.shared.session import hub
from pages.shared.text import code, plain

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel
    from mi_core.transcoders.corpus_view_result import FeatureCorpusResult
    from mi_core.transcoders.feature_text_result import FeatureTextResult
    from mi_core.transcoders.transcoder import Transcoder
    from pages.shared.features_page import FeaturesAsked

_FEW = 20


def chosen_transcoder(asked: FeaturesAsked) -> Transcoder | None:
    """The chosen transcoder once its model is in memory; an error is drawn."""
    about = asked.asked.about
    model = None if about is None else hub().resident(about.spec)
    if model is None:
        return None
    from mi_core.transcoders.store import load_transcoder

    try:
        return load_transcoder(model, asked.transcoder)
    except LanternError as error:
        show_error(error)
        return None


def draw_corpus(asked: FeaturesAsked, layer: int, feature: int) -> None:
    """What a corpus says about a feature, and the feature in the prompt and in the user's own text."""
    about, transcoder = asked.asked.about, chosen_transcoder(asked)
    if about is None or transcoder is None:
        return
    from mi_core.transcoders.corpus_density import files_state

    name = f"L{layer}F{feature}"
    inputs = FeatureCorpusInputs(name, asked.transcoder, _state(asked, files_state(transcoder)))
    result = instant("feature_corpus", inputs, _look, f"{name} over the corpus", about=about)
    if result is None:
        return
    draw_warnings(result, told())
    _draw_numbers(result)
    bound = result.largest if result.found else 0.0
    of_prompt = _draw_prompt(asked, name, bound)
    _draw_test(asked, name, bound)
    if not result.found:
        _draw_nothing(asked, result)
    elif result.dead:
        st.info(
            f"{name} was never active on the corpus: there is nothing to show.",
            icon=":material/visibility_off:",
        )
    else:
        _draw_examples(result)
        _draw_statistics(result, of_prompt)


def _state(asked: FeaturesAsked, local: str) -> str:
    """Changes when features files are made, or when more of a repository may be read."""
    from hashlib import sha256

    from mi_core.transcoders.store import stamp_of

    about = asked.asked.about
    stamp = None if about is None else stamp_of(asked.transcoder, about.spec)
    return f"{local}-{sha256(repr(stamp).encode()).hexdigest()[:8]}"


def _look(model: LoadedModel, inputs: FeatureCorpusInputs, *, on_step: Any) -> FeatureCorpusResult:
    """Runs on the worker thread."""
    from mi_core.transcoders import feature_corpus

    return feature_corpus(model, inputs, on_step=on_step)


def _text(model: LoadedModel, inputs: FeatureTextInputs, *, on_step: Any) -> FeatureTextResult:
    """Runs on the worker thread."""
    from mi_core.transcoders import feature_on_text

    return feature_on_text(model, inputs, on_step=on_step)


def _draw_numbers(result: FeatureCorpusResult) -> None:
    """Density and largest activation, and where they come from."""
    if not result.found:
        return
    from mi_core.charts.text import number

    size = f"{result.n_tokens:,} tokens" if result.n_tokens else "a corpus of unknown size"
    with st.container(horizontal=True, gap="medium", key="corpus_numbers"):
        active = f"{result.n_active:,} of {size}" if result.n_tokens else size
        density = "not told" if result.density != result.density else f"{number(100 * result.density)} %"
        st.metric("Density", density, width="content", help=f"Active at {active}.")
        st.metric(
            "Largest activation",
            number(result.largest),
            width="content",
            help="Over the corpus; colours end there, and it is a natural unit of strength for steering.",
        )
        if result.n_tokens:
            st.metric("Corpus", size, width="content", help=plain(result.text) or "Its name is not told.")
    if 0 < result.n_active < _FEW:
        st.caption(f"Active at {result.n_active} tokens only: what it looks like may be chance.")


def _draw_prompt(asked: FeaturesAsked, name: str, bound: float) -> FeatureTextResult | None:
    """The prompt in the feature's colours."""
    coloured = _coloured("corpus_text_prompt", asked, asked.asked.prompt, name, bound)
    if coloured is not None:
        from mi_core.exports.feature_corpus import text_figure

        figure = text_figure(coloured, f"The prompt in {name}'s colours", chosen=selection().position)
        figure_card("corpus_prompt_text", figure)
    return coloured


def _draw_test(asked: FeaturesAsked, name: str, bound: float) -> None:
    st.text_area(
        "Test text",
        key="feature_test",
        height=70,
        max_chars=MAX_TEST,
        placeholder="Type a text of your own; the colours keep their meaning",
    )
    text = st.session_state["feature_test"]
    if not text.strip():
        return
    coloured = _coloured("corpus_text_test", asked, text, name, bound)
    if coloured is not None:
        from mi_core.exports.feature_corpus import text_figure

        figure_card("corpus_test_text", text_figure(coloured, f"Your text in {name}'s colours"))


def _coloured(
    slot: str, asked: FeaturesAsked, text: str, name: str, bound: float
) -> FeatureTextResult | None:
    about = asked.asked.about
    if about is None:
        return None
    inputs = FeatureTextInputs(
        text, name, asked.transcoder, bound=bound, show_bos=asked.show_bos, bos=st.session_state["bos"]
    )
    return instant(slot, inputs, _text, f"{name} in the text", about=about, seconds=pass_seconds(asked.asked))


def _draw_nothing(asked: FeaturesAsked, result: FeatureCorpusResult) -> None:
    """No files, or nothing in them about this feature: how to get them."""
    if result.place:
        st.info(
            f"The features files in {code(result.place)} hold nothing about this feature: it was never "
            "active there, or it was left out.",
            icon=":material/visibility_off:",
        )
        return
    st.info(
        "Nobody has run this transcoder over a corpus here: density, histogram and examples are not known.",
        icon=":material/menu_book:",
    )
    transcoder = chosen_transcoder(asked)
    if transcoder is not None and transcoder.repo:
        st.caption(
            "Its repository may have features files: allow “Read rows from the hub when needed” above, under "
            "the transcoder."
        )
    draw_pass(asked)


def _draw_examples(result: FeatureCorpusResult) -> None:
    from mi_core.exports.feature_corpus import examples_figure

    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
        st.segmented_control(
            "Shown", list(AROUND), format_func=AROUND.__getitem__, key="feature_around", required=True
        )
        st.number_input("How many", min_value=1, max_value=50, key="feature_examples", width=120)
    state = st.session_state
    around = None if state["feature_around"] == "all" else int(state["feature_around"])
    count = state["feature_examples"]
    if result.groups:
        figure_card("corpus_top", examples_figure(result, strongest=True, around=around, count=count))
    if len(result.groups) > 1:
        figure_card("corpus_range", examples_figure(result, strongest=False, around=around, count=count))


def _draw_statistics(result: FeatureCorpusResult, of_prompt: FeatureTextResult | None) -> None:
    left, right = st.columns(2)
    with left:
        _draw_histogram(result, of_prompt)
    with right:
        _draw_coactive(result)


def _draw_histogram(result: FeatureCorpusResult, of_prompt: FeatureTextResult | None) -> None:
    if not len(result.edges):
        st.caption("The files do not tell the ends of the histogram's bins, so it is not drawn.")
        return
    from mi_core.exports.feature_corpus import histogram_figure

    marks = _marks(of_prompt)
    figure_card("corpus_histogram", histogram_figure(result, marks=marks), formula=FORMULA)
    if of_prompt is not None and not marks:
        st.caption("The prompt has no line in it: the feature is active at none of its tokens.")


def _marks(of_prompt: FeatureTextResult | None) -> tuple[tuple[float, str], ...]:
    """Where the prompt lies in the histogram: the chosen token, or else its strongest."""
    if of_prompt is None or not of_prompt.active:
        return ()
    from mi_core.charts.text import token_label

    position = selection().position
    if position is None or position >= len(of_prompt.tokens) or not of_prompt.activations[position] > 0:
        position = int(of_prompt.activations.argmax())
    return ((float(of_prompt.activations[position]), token_label(position, of_prompt.tokens[position])),)


def _draw_coactive(result: FeatureCorpusResult) -> None:
    if not len(result.coactive_layers):
        st.caption("No feature exceeds chance at this one's tokens, or the files do not tell.")
        return
    from mi_core.exports.feature_corpus import coactive_figure

    def choose(cell: dict[str, Any]) -> None:
        index = cell.get("index")
        if isinstance(index, int) and 0 <= index < len(result.coactive):
            choose_feature(result.coactive[index])

    figure_card("corpus_coactive", coactive_figure(result), on_cell=choose)


def draw_labels(asked: FeaturesAsked, layer: int, feature: int) -> None:
    """The feature's name: the user's own, or one that came with the transcoder."""
    transcoder = chosen_transcoder(asked)
    if transcoder is not None:
        from pages.shared.feature_corpus_labels import draw_label

        draw_label(transcoder, layer, feature)


def draw_dead(asked: FeaturesAsked) -> None:
    """The features that were never active on the corpus, by layer."""
    transcoder = chosen_transcoder(asked)
    if transcoder is not None:
        from pages.shared.feature_corpus_dead import draw_dead_list

        draw_dead_list(transcoder)
