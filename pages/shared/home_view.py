"""What Home shows: a stored figure at once, cards that lead to pages with everything set, a start."""

from __future__ import annotations

import streamlit as st

from pages.shared.catalogue import PAGES, fields_of, streamlit_pages
from pages.shared.charts import draw_chart
from pages.shared.examples import EXAMPLES, Example, Stored, stored, values_of
from pages.shared.link import write_link
from pages.shared.text import plain


def draw_first_figure() -> None:
    """The first example's stored result, drawn before any model is there."""
    first = stored(EXAMPLES[0].name)
    if first is None:
        st.info("The stored examples are missing; run `python assets/presets/make.py` to make them.")
        return
    with st.container(border=True, key="card_first"):
        _draw_stored(first)


def _draw_stored(item: Stored) -> None:
    from mi_core.charts.causal_trace import describe_trace, trace_heatmap

    metric = item.values.get("metric", "probability")
    st.subheader(item.example.question)
    st.markdown(item.example.see)
    draw_chart(
        trace_heatmap(item.result, metric),
        key=f"home_{item.example.name}",
        alt=describe_trace(item.result, metric),
    )
    provenance = item.result.provenance
    made = (
        ""
        if provenance is None
        else f" Stored result of {plain(provenance.model)}, {provenance.created[:10]}."
    )
    st.caption(
        "Each cell: the subject is spoilt with noise, and one piece is put back at one token and layer. "
        "Bright: the answer "
        f"{plain(''.join(item.result.answer.visible))} returns.{made}"
    )
    _open_link(item.example, "Open it, click cells, change it", ":material/open_in_full:")


def draw_cards() -> None:
    """The other examples."""
    st.subheader("Start with a question")
    columns = st.grid(2, min_column_width=280)
    for item in EXAMPLES[1:]:
        with columns, st.container(border=True, key=f"card_{item.name}", height="stretch"):
            st.markdown(f"#### {item.title}\n\n{item.question}")
            st.caption(item.see)
            _open_link(item, "Open", ":material/arrow_forward:")


def _open_link(item: Example, label: str, icon: str) -> None:
    card = next(page for page in PAGES if page.name == item.page)
    fields = fields_of(card)
    defaults = {field.name: field.default for field in fields}
    query = write_link({**defaults, **values_of(item), "ran": True}, fields)
    st.page_link(streamlit_pages()[item.page], label=label, icon=icon, query_params=query)


def draw_start() -> None:
    """How to go on with one's own prompt and model."""
    st.subheader("Then try your own")
    st.markdown(
        "1. **Type a prompt** above. It should end just before its answer; the chips show what the model "
        "reads.\n"
        "2. **Pick a question** at the left. The pages under Look answer at once; Causal trace wants to know "
        "the subject: click its first and its last token.\n"
        "3. **Click** cells, heads, bars and tokens: they lead on. The address bar always holds a link to "
        "exactly what you see.\n\n"
        "Atlas, the bundled model, is small and made for learning: it knows about two thousand facts. In the "
        "sidebar you can choose any model in your Hugging Face cache or type the path of a folder. Nothing "
        "leaves this machine."
    )
