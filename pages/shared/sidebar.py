"""The sidebar below the navigation: which model, how it is doing, and examples to start from."""

from __future__ import annotations

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from mi_core.errors import LanternError, ModelError
from mi_core.model.discovery import FoundModel, discover, find
from mi_core.model.hub_cache import is_hub_id
from mi_core.model.memory import free_bytes
from mi_core.model.progress import format_bytes, format_count
from mi_core.model.spec import DTYPES, ModelSpec
from pages.shared.boundary import show_error
from pages.shared.catalogue import PAGES, fields_of, sections
from pages.shared.examples import EXAMPLES, Example, values_of
from pages.shared.hub import About, ModelState, explain
from pages.shared.link import new_visit
from pages.shared.prompt_state import SPREAD
from pages.shared.session import chosen_spec, default_spec, hub, waiter
from pages.shared.text import code, plain

OPEN = "_open_page"
"""Session key: the page that the next run is to show instead of its own."""

_LOOK_EVERY = 0.5
_DEVICES = ("auto", "cpu", "cuda", "mps", SPREAD)


def draw_navigation(pages: dict[str, StreamlitPage]) -> None:
    """Draw links to all pages, by section."""
    with st.container(gap="xsmall", key="navigation"):
        for section, cards in sections().items():
            if section:
                st.caption(section)
            for card in cards:
                st.page_link(
                    pages[card.name], label=card.title, icon=card.icon, help=card.question, width="stretch"
                )


def draw_sidebar() -> None:
    """Draw the model panel and the examples."""
    st.subheader("Model")
    _draw_choice()
    _draw_model()
    st.subheader("Examples")
    st.menu_button(
        "Load an example",
        EXAMPLES,
        format_func=lambda item: item.title,
        key="example",
        icon=":material/lightbulb:",
        width="stretch",
        on_click=_load_example,
        help="Sets prompt and settings, and opens the page that the example is about.",
    )


def _load_example() -> None:
    """Set everything that the example sets; the rest of its page goes back to its defaults."""
    item = st.session_state["example"]
    if not isinstance(item, Example):
        return
    card = next(page for page in PAGES if page.name == item.page)
    kept = ("dtype", "device", "attention")
    defaults = {field.name: field.default for field in fields_of(card) if field.name not in kept}
    st.session_state.update({**defaults, **values_of(item), "ran": False, OPEN: item.page})
    new_visit()


def _draw_model() -> None:
    try:
        spec = chosen_spec()
    except LanternError as error:
        show_error(error)
        return
    state = hub().state(spec)
    if state.phase == "absent" and _is_bundled(spec):
        hub().load(spec, waiter())
        state = hub().state(spec)
    if state.phase in ("queued", "loading"):
        _watch_loading(spec)
    elif state.about is not None and state.phase != "failed":
        _draw_ready(spec, state)
    else:
        _draw_absent(spec, state)


@st.cache_data(ttl=20, show_spinner=False)
def _found_models() -> list[FoundModel]:
    """Models on this machine; looked up again after a while, because folders and the cache change."""
    return discover()


def _draw_choice() -> None:
    found = {model.name: model for model in _found_models()}
    names = [name for name, model in found.items() if model.usable]
    current = st.session_state["model"]
    options = names if current in names else [*names, current]

    def label(name: str) -> str:
        model = found.get(name)
        return name if model is None or name == current else model.describe()

    with st.container(horizontal=True, vertical_alignment="bottom", gap="xsmall"):
        st.selectbox(
            "Model",
            options,
            format_func=label,
            key="model",
            accept_new_options=True,
            label_visibility="collapsed",
            placeholder="Folder or Hugging Face id",
            help="Models on this machine. You can also type the path of a folder, or a Hugging Face id "
            "(owner/name, with @revision if you like).",
            width="stretch",
        )
        with st.popover("", icon=":material/tune:", help="Number format, device, attention"):
            st.selectbox("Number format", DTYPES, key="dtype")
            device = st.session_state["device"]
            devices = _DEVICES if device in _DEVICES else (*_DEVICES, device)
            st.selectbox(
                "Device",
                devices,
                key="device",
                format_func=lambda name: "spread over all devices" if name == SPREAD else name,
            )
            st.segmented_control(
                "Attention",
                ("fast", "eager"),
                key="attention",
                required=True,
                help="eager: always the plain kernel.",
            )


def _is_bundled(spec: ModelSpec) -> bool:
    return spec == default_spec() or any(
        model.name == spec.name and model.source == "bundled" for model in _found_models()
    )


# --- states ---


@st.fragment(run_every=_LOOK_EVERY)
def _watch_loading(spec: ModelSpec) -> None:
    state = hub().state(spec)
    if state.phase not in ("queued", "loading"):
        st.rerun(scope="app")
    text = (
        f"{state.ahead} run{'s' if state.ahead > 1 else ''} ahead of it"
        if state.phase == "queued"
        else state.text
    )
    st.progress(state.fraction, plain(f"Loading: {text or 'starting'}"))
    if hub().loads_alone(spec, waiter()):
        st.button(
            "Cancel",
            key="cancel_load",
            icon=":material/stop_circle:",
            on_click=hub().cancel_load,
            args=(spec, waiter()),
        )


def _draw_ready(spec: ModelSpec, state: ModelState) -> None:
    about = state.about
    if about is None:
        return
    if state.phase == "away":
        st.warning("Another tab has loaded a different model. The next run brings this one back first.")
        _load_button("Load again", spec)
    with st.container(key="model_facts", gap=None):
        dims = about.dims
        st.caption(
            f"{dims.n_layers} layers · {dims.n_heads} heads · width {dims.d_model} · "
            f"{format_count(about.parameters)} parameters"
        )
        st.caption(
            f"{about.device} · {about.dtype} · {format_bytes(about.bytes)} · "
            f"{format_bytes(free_bytes(about.device))} free"
        )
    _draw_report(about)


def _draw_report(about: About) -> None:
    report = about.report
    failed = sum(not check.passed for check in report.checks)
    label = (
        f"{len(report.checks)} checks passed"
        if not failed
        else f"{failed} of {len(report.checks)} checks failed"
    )
    with st.expander(label, icon=":material/verified:" if not failed else ":material/warning:"):
        for check in report.checks:
            mark = ":green[:material/check:]" if check.passed else ":orange[:material/close:]"
            off = f" Switched off: {plain(', '.join(check.switched_off))}." if check.switched_off else ""
            st.markdown(f"{mark} **{plain(check.name)}**  \n{plain(check.detail)}{off}")
        st.caption(f"Weights {code(about.fingerprint[:16])}, loaded in {about.load_seconds:.1f} s.")


def _draw_absent(spec: ModelSpec, state: ModelState) -> None:
    if state.error is not None:
        st.error(plain(explain(state.error)), icon=":material/error:")
        _load_button("Try again", spec)
        return
    try:
        found = find(spec.name, spec.revision)
    except ModelError as error:
        show_error(error)
        if error.kind == "missing" and is_hub_id(spec.name):
            _offer_download(spec)
        return
    except LanternError as error:
        show_error(error)
        return
    need = found.need(spec.dtype)
    st.caption(
        f"{plain(found.describe())}  \nNeeds about {format_bytes(need.total)} in {spec.dtype}; "
        f"{format_bytes(free_bytes('cpu'))} are free in memory."
    )
    _load_button("Load", spec)


def _offer_download(spec: ModelSpec) -> None:
    """The only place where the network is touched: first the size, when asked for, then the download."""
    sizes = st.session_state.setdefault("_hub_sizes", {})
    size = sizes.get(spec.text)
    if size is None:
        if st.button(
            "Look it up on Hugging Face", key="look_up", icon=":material/travel_explore:", width="stretch"
        ):
            from mi_core.model.hub import hub_size

            try:
                with st.spinner("Asking Hugging Face for its size"):
                    sizes[spec.text] = hub_size(spec.name, spec.revision)
            except LanternError as error:
                show_error(error)
                return
            st.rerun()
        st.caption("This asks huggingface.co for the size of its files. Nothing is downloaded yet.")
        return
    st.caption(f"{len(size.files)} files, {format_bytes(size.bytes)}, commit {code(size.commit[:12])}.")
    if st.button(f"Download {format_bytes(size.bytes)} and load", key="download_model", width="stretch"):
        hub().load(spec, waiter(), allow_download=True)
        st.rerun()


def _load_button(label: str, spec: ModelSpec) -> None:
    if st.button(label, key="load_model", icon=":material/download_done:", width="stretch"):
        hub().load(spec, waiter())
        st.rerun()
