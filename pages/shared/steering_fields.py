"""What the steering page lets a user choose, as fields of the link."""

from __future__ import annotations

from mi_core.analyses.ablation_sweep_inputs import EFFECT_METRICS
from mi_core.analyses.steering_inputs import COEFFICIENTS, MAX_COEFFICIENT, MAX_CONTROLS
from pages.shared import link

TABS = {"dose": "Vector and dose", "layers": "Layers", "generation": "Generation", "counting": "Counting"}
SOURCES = {
    "sets": "Two sets of prompts",
    "prompts": "Two prompts",
    "unembedding": "A token's unembedding",
    "embedding": "A token's embedding",
    "file": "A file",
    "feature": "A transcoder's feature",
}
POOLS = {"last": "last token", "all": "mean over tokens"}
SITES = {"resid_post": "Residual stream", "attn_out": "Attention output", "mlp_out": "MLP output"}
WHERES = {"last": "last token", "all": "all tokens", "chosen": "chosen tokens"}
QUERIES = {"last": "from the last token", "later": "from later tokens (mean)"}
METRICS = {name: EFFECT_METRICS[name].label for name in ("probability", "logit_difference", "logit", "rank")}

POSITIVE = "The capital city of Italy is\nThe capital of Italy is\nThe government of Italy sits in"
NEGATIVE = POSITIVE.replace("Italy", "France")
EXAMPLE = {
    "prompt": "The Eiffel Tower is located in the city of",
    "answer": " Rome",
    "distractor": " Paris",
    "steering_source": "sets",
    "steering_positive": POSITIVE,
    "steering_negative": NEGATIVE,
    "steering_pool": "last",
    "steering_site": "resid_post",
    "steering_layer": 5,
    "steering_where": "last",
    "steering_doses": ", ".join(f"{dose:g}" for dose in COEFFICIENTS),
    "steering_wished": 0.5,
    "steering_metric": "probability",
}
"""From Paris to Rome: on the bundled model the curve crosses 50 %, and no random direction's (tested)."""


def _tab() -> link.LinkField:
    """The open tab: its word in the link, its label in the session."""
    words = {label: word for word, label in TABS.items()}
    named = link.choice("steering_tabs", "st_tab", None, TABS)
    return link.LinkField(
        "steering_tabs", "st_tab", TABS["dose"], lambda raw: TABS[named.parse(raw)], words.__getitem__
    )


FIELDS = [
    _tab(),
    link.choice("steering_source", "st_from", "sets", SOURCES),
    link.text("steering_positive", "st_plus", POSITIVE, limit=20_000),
    link.text("steering_negative", "st_minus", NEGATIVE, limit=20_000),
    link.text("steering_from", "st_a", "", limit=20_000),
    link.choice("steering_pool", "st_pool", "last", POOLS),
    link.text("steering_token", "st_token", "", limit=1000),
    link.text("steering_feature", "st_feat", "", limit=100),
    link.choice("steering_site", "st_site", "resid_post", SITES),
    link.number("steering_layer", "st_layer", None, 0, 10_000, whole=True),
    link.choice("steering_where", "st_where", "last", WHERES),
    link.text("steering_chosen", "st_pos", "", limit=2000),
    link.text("steering_doses", "st_doses", EXAMPLE["steering_doses"], limit=4000),
    link.number("steering_coefficient", "st_c", 1.0, -MAX_COEFFICIENT, MAX_COEFFICIENT),
    link.number("steering_controls", "st_n", 10, 0, MAX_CONTROLS, whole=True),
    link.number("steering_seed", "st_seed", 0, 0, 2**31 - 1, whole=True),
    link.choice("steering_metric", "st_hp", "probability", METRICS),
    link.number("steering_wished", "st_wish", 0.5, -1e9, 1e9),
    link.number("steering_threshold", "st_thr", 0.95, 0.01, 1.0),
    link.choice("steering_queries", "st_q", "last", QUERIES),
]
