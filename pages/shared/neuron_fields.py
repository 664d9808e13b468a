"""What the neurons page lets a user choose, as fields of the link."""

from __future__ import annotations

from pages.shared import link

SOURCES = {"diverse": "Lantern's diverse texts", "file": "A file of yours"}
MEASURES = ("peak", "mean_absolute", "share_active", "selectivity")
AROUND = {"5": "5 tokens around", "16": "16 tokens around", "all": "whole text"}
SIGNS = {"strongest": "largest |activation|", "positive": "above 0", "negative": "below 0"}
TABS = {"texts": "Over the texts", "prompt": "On this prompt"}
"""Word in the link -> label; the tabs' state is the label."""

MAX_TEST = 5000


def _tab() -> link.LinkField:
    words = {label: word for word, label in TABS.items()}
    named = link.choice("neuron_tabs", "nn_tab", None, TABS)
    return link.LinkField(
        "neuron_tabs", "nn_tab", TABS["texts"], lambda raw: TABS[named.parse(raw)], words.__getitem__
    )


FIELDS = [
    _tab(),
    link.choice("neuron_source", "nn_set", "diverse", SOURCES),
    link.number("neuron_max_tokens", "nn_max", 256, 2, 4096, whole=True),
    link.choice("neuron_measure", "nn_by", "peak", MEASURES),
    link.text("neuron_category", "nn_kind", "", limit=40),
    link.choice("neuron_around", "nn_around", "16", AROUND),
    link.choice("neuron_sign", "nn_sign", "strongest", SIGNS),
    link.number("neuron_contexts", "nn_contexts", 10, 1, 50, whole=True),
    link.text("neuron_test", "nn_test", "", limit=MAX_TEST),
]
