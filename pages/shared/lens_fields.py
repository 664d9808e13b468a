"""What the logit-lens page lets a user choose, as fields of the link."""

from __future__ import annotations

from pages.shared import link

SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
STREAM = ("resid_pre", "resid_mid", "resid_post")
STATISTICS = ("probability", "log_probability", "rank", "top_probability", "entropy", "kl")
TARGETS = {"answer": "the answer, everywhere", "next": "the token that comes next"}
MEASURES = ("rank", "probability", "log_probability")
SOURCES = {"facts": "Facts of Atlas", "five": "Five questions", "file": "A file of yours"}
TABS = {"one": "One prompt", "set": "Over a prompt set", "tuned": "Tuned lens"}
"""Word in the link -> label; the tabs' state is the label."""


def _tab() -> link.LinkField:
    words = {label: word for word, label in TABS.items()}
    named = link.choice("lens_tabs", "ll_tab", None, TABS)
    return link.LinkField(
        "lens_tabs", "ll_tab", TABS["one"], lambda raw: TABS[named.parse(raw)], words.__getitem__
    )


FIELDS = [
    _tab(),
    link.choice("lens_site", "ll_site", "resid_post", SITES),
    link.choice("lens_statistic", "ll_stat", "probability", STATISTICS),
    link.choice("lens_target", "ll_of", "answer", TARGETS),
    link.text("lens_tracked", "ll_words", "", limit=500),
    link.text("lens_file", "ll_lens", "", limit=500),
    link.number("lens_stride", "ll_every", 1, 1, 1000, whole=True),
    link.number("lens_columns", "ll_cols", 24, 4, 64, whole=True),
    link.number("lens_first", "ll_from", None, 0, 1_000_000, whole=True),
    link.choice("lens_measure", "ll_line", "rank", MEASURES),
    link.flag("lens_from_one", "ll_skip0"),
    link.choice("sweep_source", "ll_set", "facts", SOURCES),
    link.number("sweep_count", "ll_n", 40, 1, 5000, whole=True),
    link.choice("sweep_site", "ll_stream", "resid_post", STREAM),
    link.number("sweep_first", "ll_col", 0, 0, 5000, whole=True),
    link.number("sweep_case", "ll_case", None, 0, 5000, whole=True),
]
