"""The frame around every page: navigation, model, prompt, then the page inside its error boundary.

This is the script that Streamlit runs (see `app.py`); the page files run inside it, on the first visit of a
deep link too.
"""

import sys
from pathlib import Path

import streamlit as st

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # tests run this file without the launcher
    sys.path.insert(0, str(ROOT))

from pages.shared import catalogue, link  # noqa: E402
from pages.shared.boundary import boundary  # noqa: E402
from pages.shared.examples import EXAMPLES, values_of  # noqa: E402
from pages.shared.header import draw_header  # noqa: E402
from pages.shared.sidebar import OPEN, draw_navigation, draw_sidebar  # noqa: E402
from pages.shared.theme import ASSETS, apply_style  # noqa: E402


def _draw_problems() -> None:
    """What the link asked for and did not get."""
    problems = link.link_problems()
    if problems:
        with st.container(horizontal=True, vertical_alignment="center", key="link_problems"):
            st.warning("  \n".join(problems), icon=":material/link_off:")
            st.button("Dismiss", on_click=link.dismiss_problems, key="dismiss_problems")


def _run() -> None:
    pages = catalogue.streamlit_pages()
    chosen = st.navigation(list(pages.values()), position="hidden")  # the sidebar draws it, see `catalogue`
    card = next(c for c in catalogue.PAGES if pages[c.name].title == chosen.title)
    st.set_page_config(
        page_title="Lantern" if card.name == "home" else f"{card.title} · Lantern",
        page_icon=str(ASSETS / "icons" / "lantern.svg"),
        layout="wide",
    )
    if link.take_link(catalogue.all_fields(), card.name):
        st.session_state.update(values_of(EXAMPLES[0]))  # a first visit starts with something to see
    wanted = st.session_state.pop(OPEN, card.name)
    if wanted != card.name:
        st.switch_page(pages[wanted])
    apply_style()
    st.logo(
        str(ASSETS / "icons" / "lantern_wordmark.svg"),
        icon_image=str(ASSETS / "icons" / "lantern.svg"),
        size="large",
    )
    with st.sidebar, boundary("the sidebar"):
        draw_navigation(pages)
        draw_sidebar()
    _draw_problems()
    if card.header:
        with boundary("the header"):
            draw_header(card)
    with boundary(f"the page “{card.title}”"):
        chosen.run()
    link.put_link(catalogue.fields_of(card))


_run()
