"""Which transcoder: the chooser, one line that says how well it fits here, and what it takes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import streamlit as st

from mi_core.errors import TranscoderError
from mi_core.model.progress import format_bytes
from mi_core.transcoders.hub_cached import cached_transcoders
from mi_core.transcoders.hub_reference import is_reference, local_folder
from mi_core.transcoders.store import found_transcoders, stamp_of
from pages.shared import running
from pages.shared.feature_source_hub import draw_hub
from pages.shared.features_fields import TRANSCODER
from pages.shared.instant import Asked, draw_warnings, instant
from pages.shared.text import code, plain

if TYPE_CHECKING:
    from collections.abc import Hashable

    from mi_core.model.model import LoadedModel
    from mi_core.model.spec import ModelSpec
    from mi_core.transcoders.formats_check_result import TranscoderCheckResult
    from pages.shared.hub import About

SLOT = "feature_source"
_TOLD = "_feature_source_told"

_LAYERS_IN_A_ROW = 13

_KINDS = {
    "clt": "cross-layer transcoder",
    "plt": "per-layer transcoder",
    "sae": "sparse autoencoder",
}
_WRITES = {"mlp_out": "of what the MLPs write", "resid_post": "of the stream", "attn_out": "of attention"}


def draw_source(asked: Asked) -> bool:
    """Chooser, fit and facts; whether there is a transcoder that can be used.

    Args:
        asked: the prompt and the model; ready.
    """
    about = asked.about
    if about is None:
        return False
    _draw_choice(about.spec)
    name = st.session_state[TRANSCODER]
    result = _checked(asked, about, name)
    if result is None:
        _draw_offer(name)
        return False
    _draw_fit(result)
    draw_warnings(result)
    st.session_state[_TOLD] = _said(result)
    _draw_facts(result, name)
    return True


def told() -> tuple[str, ...]:
    """What stands above the tabs already, so that no tab says it again."""
    return st.session_state.get(_TOLD, ())


def _said(result: TranscoderCheckResult) -> tuple[str, ...]:
    from mi_core.transcoders.prompt_parts import bad_fit

    return (*result.warnings, bad_fit(result.unexplained_all)) if result.wrong else result.warnings


def _draw_choice(spec: ModelSpec) -> None:
    """The transcoders beside the model and in the cache; anything else can be typed."""
    beside = [found.name for found in found_transcoders(spec)]
    chosen = st.session_state[TRANSCODER]
    options = list(dict.fromkeys(["", *beside[1:], *_cached(), chosen]))

    def label(name: str) -> str:
        if name:
            return name
        return f"{beside[0]} (beside the model)" if beside else "none beside this model"

    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium", key="feature_source"):
        st.selectbox(
            "Transcoder",
            options,
            format_func=label,
            key=TRANSCODER,
            accept_new_options=True,
            help="Transcoders beside the model and in the Hugging Face cache. You can also type the path of "
            "a folder, or an address on the hub: owner/name, with /folder and @revision if wanted. Formats: "
            "circuit-tracer's CLT and PLT folders, Gemma Scope, SAELens.",
            width="stretch",
        )
        st.toggle(
            "Show BOS",
            key="feature_show_bos",
            help="Leading special tokens are left out: thousands of features answer to them, and no "
            "answer means anything.",
        )


@st.cache_data(ttl=20, show_spinner=False)
def _cached() -> tuple[str, ...]:
    """Looked up again after a while, because the cache changes."""
    return cached_transcoders()


def _checked(asked: Asked, about: About, name: str) -> TranscoderCheckResult | None:
    from mi_core.transcoders.formats_check_result import TranscoderCheckInputs

    inputs = TranscoderCheckInputs(
        asked.prompt,
        name,
        st.session_state["feature_show_bos"],
        asked.bos,  # type: ignore[arg-type]  # one of the header's three words
    )
    # The files are part of the question: the same name can hold more, or other numbers, a moment later.
    return instant(SLOT, (inputs, stamp_of(name, about.spec)), _check, "Transcoder", about=about)


def _check(model: LoadedModel, asked: tuple[Any, Hashable], *, on_step: Any) -> TranscoderCheckResult:
    from mi_core.transcoders.formats_check import transcoder_check

    return transcoder_check(model, asked[0], on_step=on_step)


def _draw_offer(name: str) -> None:
    """Where a transcoder is not here but could be: what the hub has of it."""
    run = running.current(SLOT)
    missing = run is not None and isinstance(run.error, TranscoderError) and run.error.kind == "missing"
    if missing and name and is_reference(name) and local_folder(name) is None:
        draw_hub(name)


# --- how well it fits ---


def _draw_fit(result: TranscoderCheckResult) -> None:
    """The line that is always there."""
    if result.wrong:
        st.error(
            "**Wrong hooks or wrong model.** On this prompt its reconstruction is worse than the mean at "
            f"{_layers(result)}: it leaves {_most(result)} times the variance unexplained, and the mean "
            f"leaves 1. What its features say there cannot be trusted. {_made_for(result)}"
            f"{_other_reason(result)}",
            icon=":material/error:",
        )
        return
    if not result.has_fit:
        st.caption(f"{_what(result)} · fit not measured")
        return
    where = f"layer {result.worst}, {_percent(_most_unexplained(result))}"
    if math.isnan(result.unexplained_all):
        st.markdown(f"Fit measured at some layers only; worst: {where} explained · {_what(result)}")
        return
    st.markdown(
        f"Explains **{_percent(result.unexplained_all)}** {_WRITES.get(result.writes, '')} on this prompt "
        f"(worst: {where}) · {_what(result)}"
    )


def _made_for(result: TranscoderCheckResult) -> str:
    """The model that the files name: often the answer."""
    return f"Its files say that it was made for {code(result.model_name, 60)}. " if result.model_name else ""


def _other_reason(result: TranscoderCheckResult) -> str:
    """What else makes a share above 1, which another prompt or one switch would show."""
    if result.inputs.show_bos:
        return "But BOS is counted, and transcoders are not made for it: switch “Show BOS” off to be sure."
    return (
        "If another prompt, of ordinary text, fits well, then it is this prompt: one that repeats itself, or "
        "that is unlike the text it was trained on."
    )


def _what(result: TranscoderCheckResult) -> str:
    counts = sorted(set(result.n_features.tolist()))
    features = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    return (
        f"{_KINDS.get(result.kind, 'transcoder')}, {plain(result.activation)}, {len(result.layers)} "
        f"layer{'s' if len(result.layers) != 1 else ''} of {features} features"
    )


def _layers(result: TranscoderCheckResult) -> str:
    """The layers at which it is wrong, in words."""
    if len(result.wrong) == len(result.targets) > 1:
        return "all its layers"
    shown = ", ".join(map(str, result.wrong[:8])) + (" and more" if len(result.wrong) > 8 else "")
    return f"layer{'s' if len(result.wrong) > 1 else ''} {shown}"


def _most_unexplained(result: TranscoderCheckResult) -> float:
    """The share of the worst layer."""
    return max(value for value in result.unexplained.tolist() if not math.isnan(value))


def _most(result: TranscoderCheckResult) -> str:
    most = f"{_most_unexplained(result):.2g}"
    return f"up to {most}" if len(result.wrong) > 1 else most


def _percent(unexplained: float) -> str:
    """What is explained, from what is not."""
    return f"{1 - unexplained:.0%}"


def _cell(unexplained: float) -> str:
    """A share of a layer; red where it is worse than the mean."""
    if math.isnan(unexplained):
        return "?"
    return f":red[**{unexplained:.3g}**]" if unexplained > 1 else f"{unexplained:.3f}"


# --- what it is and takes ---


def _draw_facts(result: TranscoderCheckResult, name: str) -> None:
    with st.expander("About this transcoder", icon=":material/info:"):
        left, right = st.columns(2, gap="large")
        with left:
            _draw_identity(result)
        with right:
            _draw_memory(result)
        if result.has_fit:
            _draw_layers(result)
        if name and is_reference(name) and local_folder(name) is None:
            draw_hub(name)


def _draw_identity(result: TranscoderCheckResult) -> None:
    made_for = code(result.model_name, 60) if result.model_name else "not said"
    rows = {
        "Name": code(result.name, 60),
        "Format": plain(result.format),
        "Made for": made_for,
        "Reads": plain(result.reads),
        "Writes": plain(result.writes),
        "Files": code(result.fingerprint),
    }
    st.markdown("  \n".join(f"{label}: {value}" for label, value in rows.items()))


def _draw_memory(result: TranscoderCheckResult) -> None:
    rows = {
        "Encoders": format_bytes(result.encoder_bytes),
        "Decoders": format_bytes(result.decoder_bytes) if result.decoder_bytes else "not here",
        "One feature's rows": format_bytes(result.row_bytes) if result.row_bytes else "not here",
        "Memory, at most": format_bytes(result.promised_bytes),
        "Encoders in memory": format_bytes(result.resident_bytes),
        "Read so far": format_bytes(result.read_bytes),
    }
    st.markdown("  \n".join(f"{label}: {value}" for label, value in rows.items()))
    st.caption("Decoders are never loaded whole: rows are read when a feature needs them.")


def _draw_layers(result: TranscoderCheckResult) -> None:
    """Share of variance unexplained, layer by layer; what is worse than the mean in red."""
    st.markdown("**Share of variance that it leaves unexplained on this prompt**")
    told = list(zip(result.targets.tolist(), result.unexplained.tolist(), strict=True))
    for start in range(0, len(told), _LAYERS_IN_A_ROW):
        part = told[start : start + _LAYERS_IN_A_ROW]
        head = "| Layer | " + " | ".join(str(layer) for layer, _ in part) + " |"
        line = "|---|" + "---|" * len(part)
        st.markdown(
            f"{head}\n{line}\n| Unexplained | " + " | ".join(_cell(value) for _, value in part) + " |"
        )
    st.caption(
        "0 = everything is explained, 1 = no better than the mean over the prompt's tokens. Above 1 on "
        "ordinary text, the transcoder reads or writes the wrong place, or was made for another model."
    )
