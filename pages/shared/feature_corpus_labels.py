"""A feature's name on the page: typed, saved, exported, imported; Neuronpedia's only when asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import streamlit as st

from mi_core.errors import LanternError
from mi_core.transcoders.labels import MAX_LABEL, NEURONPEDIA, YOU
from pages.shared.boundary import show_error
from pages.shared.text import code, plain

if TYPE_CHECKING:
    from mi_core.transcoders.labels import Label
    from mi_core.transcoders.transcoder import Transcoder

_TYPED, _SHOWN = "_feature_label", "_feature_label_of"
_PROBLEM, _SAID = "_feature_label_problem", "_feature_label_said"
_FOUND = "_feature_explanations"


def draw_label(transcoder: Transcoder, layer: int, feature: int) -> None:
    """The label box, and what can be done with all labels."""
    from mi_core.transcoders.labels import labels_of

    try:
        labels = labels_of(transcoder.fingerprint, transcoder.folder)
    except LanternError as error:
        show_error(error)
        return
    name = f"L{layer}F{feature}"
    label = labels.get(name)
    _show_typed(transcoder, name, label)
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        st.text_input(
            "My label",
            key=_TYPED,
            max_chars=MAX_LABEL,
            placeholder=f"What is {name}? Enter saves it on this computer",
            on_change=_save,
            args=(transcoder, layer, feature),
        )
        with st.popover("Labels", icon=":material/label:"):
            _draw_all(transcoder, labels, layer, feature)
    if label is not None and label.source != YOU:
        st.caption(f"This label comes from {plain(label.source)}; a label of yours goes before it.")
    _draw_said()


def _show_typed(transcoder: Transcoder, name: str, label: Label | None) -> None:
    """The box shows the label of the feature that is on screen."""
    shown = (transcoder.fingerprint, name, "" if label is None else label.text)
    if st.session_state.get(_SHOWN) != shown:
        st.session_state[_SHOWN] = shown
        st.session_state[_TYPED] = shown[2]
    elif _TYPED not in st.session_state:
        st.session_state[_TYPED] = shown[2]


def _save(transcoder: Transcoder, layer: int, feature: int) -> None:
    from mi_core.transcoders.labels import save_label

    _try(
        lambda: save_label(
            transcoder.fingerprint, layer, feature, st.session_state[_TYPED], transcoder=transcoder.name
        )
    )


def _try(work: Callable[[], None]) -> None:
    """A callback cannot draw: what went wrong is drawn in the run that follows."""
    st.session_state[_PROBLEM] = None
    try:
        work()
    except LanternError as error:
        st.session_state[_PROBLEM] = error


def _draw_said() -> None:
    problem = st.session_state.pop(_PROBLEM, None)
    if problem is not None:
        show_error(problem)
    for sentence in st.session_state.pop(_SAID, ()):
        st.caption(plain(sentence))


def _draw_all(transcoder: Transcoder, labels: dict[str, Label], layer: int, feature: int) -> None:
    from mi_core.transcoders.labels import export_labels

    many = "1 feature has" if len(labels) == 1 else f"{len(labels):,} features have"
    st.caption(f"{many} a label.")
    file_name = f"{transcoder.name}-labels.json".replace("/", "-")
    st.download_button(
        "Export all (JSON)",
        export_labels(transcoder.fingerprint, transcoder.name, transcoder.folder),
        file_name=file_name,
        mime="application/json",
        icon=":material/download:",
        key="feature_labels_export",
        on_click="ignore",
    )
    file = st.file_uploader("Import (JSON)", type=["json"], max_upload_size=50, key="feature_labels_file")
    st.checkbox("Replace labels of mine", key="feature_labels_replace")
    st.button(
        "Import",
        icon=":material/upload:",
        key="feature_labels_import",
        disabled=file is None,
        on_click=_import,
        args=(transcoder, None if file is None else file.getvalue()),
    )
    _draw_neuronpedia(transcoder, layer, feature)


def _import(transcoder: Transcoder, data: bytes | None) -> None:
    from mi_core.transcoders.labels import import_labels

    def work() -> None:
        replace = st.session_state["feature_labels_replace"]
        done = import_labels(data or b"", transcoder.fingerprint, transcoder=transcoder.name, replace=replace)
        kept = f" {done.kept} of yours stayed as they are." if done.kept else ""
        taken = "1 label" if done.taken == 1 else f"{done.taken:,} labels"
        st.session_state[_SAID] = (f"{taken} imported.{kept}", *done.warnings)

    _try(work)


def _draw_neuronpedia(transcoder: Transcoder, layer: int, feature: int) -> None:
    """Nothing is fetched before the button is pressed, and it says what will be."""
    from mi_core.transcoders.labels_neuronpedia import address, guess_source

    st.divider()
    st.markdown("**Neuronpedia**")
    model, source = guess_source(transcoder.repo or transcoder.name)
    st.session_state.setdefault("feature_np_model", model)
    st.session_state.setdefault("feature_np_source", source)
    st.text_input("Its model", key="feature_np_model", max_chars=80, placeholder="gemma-2-2b")
    st.text_input(
        "Its source",
        key="feature_np_source",
        max_chars=120,
        placeholder="{layer}-gemmascope-transcoder-16k",
        help="{layer} stands for the layer.",
    )
    named = st.session_state["feature_np_model"], st.session_state["feature_np_source"]
    if not all(named):
        st.caption("Give both to ask for explanations of this feature. Nothing is fetched unless you ask.")
        return
    try:
        url = address(*named, layer, feature)
    except LanternError as error:
        show_error(error)
        return
    st.caption(f"The button fetches {code(url, 160)} (at most a few MB); nothing else is sent.")
    st.button(
        "Fetch explanations",
        icon=":material/cloud_download:",
        key="feature_np_fetch",
        on_click=_fetch,
        args=(url,),
    )
    for number, one in enumerate(st.session_state.get(_FOUND, {}).get(url, ())):
        st.markdown(plain(one.text) + (f" ({plain(one.by)})" if one.by else ""))
        st.button(
            "Take as label",
            key=f"feature_np_take_{number}",
            on_click=_take,
            args=(transcoder, layer, feature, one.text),
        )


def _fetch(url: str) -> None:
    from mi_core.transcoders.labels_neuronpedia import fetch_explanations

    def work() -> None:
        found = fetch_explanations(url)
        st.session_state[_FOUND] = {url: found}
        if not found:
            st.session_state[_SAID] = ("Neuronpedia has no explanation of this feature.",)

    _try(work)


def _take(transcoder: Transcoder, layer: int, feature: int, text: str) -> None:
    from mi_core.transcoders.labels import save_label

    _try(
        lambda: save_label(
            transcoder.fingerprint, layer, feature, text, source=NEURONPEDIA, transcoder=transcoder.name
        )
    )
