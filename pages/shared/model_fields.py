"""What the model page lets a user choose, as fields of the link."""

from __future__ import annotations

from mi_core.analyses.inspect_result import STATISTICS
from mi_core.analyses.inspect_weight_inputs import MAX_NAME
from mi_core.analyses.next_token_inputs import MAX_TEMPERATURE, MAX_TOP, MIN_TEMPERATURE
from pages.shared import link

TABS = {
    "weights": "Architecture and weights",
    "next": "Next token",
    "sites": "Sites and proofs",
    "config": "Config and memory",
    "circuits": "Circuits",
}
"""Word in the link -> label; the tabs' state is the label."""

ENDS = ("embed", "norm", "final_norm", "unembed")
"""Parts of the drawing that no shared selection can name: attention and MLP are kinds there."""

GROUPS = ("attention", "mlp", "norm")


def _tab() -> link.LinkField:
    words = {label: word for word, label in TABS.items()}
    named = link.choice("model_tabs", "md_tab", None, TABS)
    return link.LinkField(
        "model_tabs", "md_tab", TABS["weights"], lambda raw: TABS[named.parse(raw)], words.__getitem__
    )


FIELDS = [
    _tab(),
    link.choice("model_part", "md_part", None, ENDS),
    link.flag("model_heads", "md_heads"),
    link.flag("model_singular", "md_sv"),
    link.text("model_weight", "md_weight", "", limit=MAX_NAME),
    link.choice("model_statistic", "md_stat", "frobenius", STATISTICS),
    link.choice("model_group", "md_lines", "attention", GROUPS),
    link.number("next_count", "md_k", 10, 1, MAX_TOP, whole=True),
    link.number("next_temperature", "md_temp", 1.0, MIN_TEMPERATURE, MAX_TEMPERATURE),
]
