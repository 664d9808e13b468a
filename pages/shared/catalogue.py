"""The list of pages, read by navigation, Home, links and tests; a new page is one row and one file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from pages.shared import (
    ablation_sweep_fields,
    attention_fields,
    attribution_fields,
    circuit_fields,
    feature_corpus_fields,
    feature_generation_fields,
    feature_graph_fields,
    feature_inject_fields,
    feature_one_fields,
    feature_planning_fields,
    feature_probe_fields,
    feature_prompt_fields,
    features_fields,
    generation_fields,
    helix_fields,
    knockout_fields,
    lens_fields,
    model_circuits_fields,
    model_fields,
    neuron_fields,
    prompt_state,
    selection,
    steering_fields,
    task_fields,
    trace_fields,
    tuned_lens_fields,
)
from pages.shared.link import LinkField

FOLDER = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class PageCard:
    """One page.

    Attributes:
        name: file name without `.py`; the address too, except for Home, which is `/`.
        title: in the navigation.
        section: heading above it; empty for the first ones.
        icon: Material symbol.
        question: what the page answers, one sentence.
        fields: what its link carries besides the frame's fields.
        header: whether the prompt stands above it.
        subject: whether a click on a token chooses the subject; else it chooses the token that is looked at.
        second: whether it can compare with a second prompt, and whether that must have as many tokens.
    """

    name: str
    title: str
    section: str
    icon: str
    question: str
    fields: tuple[LinkField, ...] = ()
    header: bool = True
    subject: bool = False
    second: Literal["no", "any", "equal"] = "no"

    @property
    def path(self) -> Path:
        """The page's file."""
        return FOLDER / f"{self.name}.py"


PAGES = (
    PageCard(
        "home", "Home", "", ":material/home:", "What can be seen here, and where to start?", subject=True
    ),
    PageCard(
        "model",
        "Model",
        "Look",
        ":material/account_tree:",
        "What is the model made of, and what does it say next?",
        (*model_fields.FIELDS, *model_circuits_fields.FIELDS),
    ),
    PageCard(
        "attention",
        "Attention",
        "Look",
        ":material/blur_on:",
        "Which tokens does each head read, and what does it move?",
        tuple(attention_fields.FIELDS),
        second="equal",
    ),
    PageCard(
        "logit_lens",
        "Logit lens",
        "Look",
        ":material/layers:",
        "What would the model say if it stopped at this layer?",
        (*lens_fields.FIELDS, *tuned_lens_fields.FIELDS),
    ),
    PageCard(
        "neurons",
        "Neurons",
        "Look",
        ":material/scatter_plot:",
        "What makes single neurons fire, and what do they write?",
        tuple(neuron_fields.FIELDS),
    ),
    PageCard(
        "attribution",
        "Attribution",
        "Look",
        ":material/stacked_bar_chart:",
        "Which parts of the model write the answer's logit?",
        tuple(attribution_fields.FIELDS),
        second="any",
    ),
    PageCard(
        "causal_trace",
        "Causal trace",
        "Intervene",
        ":material/grid_on:",
        "Where does the model keep what it needs for its answer?",
        tuple(trace_fields.FIELDS),
        subject=True,
        second="equal",
    ),
    PageCard(
        "knockout",
        "Knock-out",
        "Intervene",
        ":material/content_cut:",
        "What changes when heads, edges, neurons or layers are taken away?",
        (
            *knockout_fields.FIELDS,
            *ablation_sweep_fields.FIELDS,
            *task_fields.FIELDS,
            *circuit_fields.FIELDS,
        ),
        second="equal",
    ),
    PageCard(
        "steering",
        "Steering",
        "Intervene",
        ":material/explore:",
        "Which direction changes the answer, and how much of it is needed?",
        (*steering_fields.FIELDS, *generation_fields.FIELDS, *helix_fields.FIELDS),
        second="any",
    ),
    PageCard(
        "features",
        "Features",
        "Features",
        ":material/hub:",
        "Which features does a transcoder see here, and what do they do?",
        (
            *features_fields.FIELDS,
            *feature_prompt_fields.FIELDS,
            *feature_probe_fields.FIELDS,
            *feature_inject_fields.FIELDS,
            *feature_one_fields.FIELDS,
            *feature_corpus_fields.FIELDS,
            *feature_planning_fields.FIELDS,
            *feature_generation_fields.FIELDS,
            *feature_graph_fields.FIELDS,
        ),
    ),
    PageCard(
        "help", "Help", "Learn", ":material/help:", "What do the figures mean, and what are their limits?"
    ),
)

FRAME_FIELDS: list[LinkField] = [*prompt_state.FIELDS, *selection.FIELDS]


def all_fields() -> list[LinkField]:
    """Every field of the frame and of all pages."""
    return [*FRAME_FIELDS, *(field for card in PAGES for field in card.fields)]


def fields_of(card: PageCard) -> list[LinkField]:
    """The fields that stand in the address while a page is shown."""
    return [*FRAME_FIELDS, *card.fields]


def streamlit_pages() -> dict[str, StreamlitPage]:
    """Page name -> Streamlit's page object, made anew for every run.

    They have no icon: Streamlit makes a page's icon the tab's icon, and fetches that from fonts.gstatic.com.
    """
    return {
        card.name: st.Page(
            card.path,
            title=card.title,
            url_path=None if card.name == "home" else card.name,
            default=card.name == "home",
            help=card.question,
        )
        for card in PAGES
    }


def sections() -> dict[str, list[PageCard]]:
    """The navigation: section -> pages, in the order of the list."""
    grouped: dict[str, list[PageCard]] = {}
    for card in PAGES:
        grouped.setdefault(card.section, []).append(card)
    return grouped
