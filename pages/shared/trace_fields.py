"""What the causal-trace page lets a user choose, as fields of the link."""

from __future__ import annotations

from pages.shared import link

KINDS = ("state", "attn", "mlp", "state_attn_severed", "state_mlp_severed", "head")
METRICS = (
    "probability",
    "log_probability",
    "logit",
    "logit_difference",
    "recovered_probability",
    "recovered_logit_difference",
    "kl_recovery",
    "kl",
    "rank",
    "top1_flip",
)
AVERAGE_METRICS = ("probability", "log_probability", "logit")
POOLINGS = ("tokens", "prompts")
TABS = {"one": "One prompt", "set": "Average over a prompt set"}
"""Word in the link -> label; the tabs' state is the label."""


def _tab() -> link.LinkField:
    words = {label: word for word, label in TABS.items()}
    named = link.choice("trace_tabs", "tab", None, TABS)
    return link.LinkField(
        "trace_tabs", "tab", TABS["one"], lambda raw: TABS[named.parse(raw)], words.__getitem__
    )


FIELDS = [
    link.choice("corruption", "corrupt", "noise", ("noise", "prompt")),
    link.choice("noise", "noise", "gaussian", ("gaussian", "uniform")),
    link.number("noise_level", "level", 3.0, 0, 1e5),
    link.choice("noise_unit", "unit", "sigma", ("sigma", "absolute")),
    link.number("samples", "n", 10, 1, 1000, whole=True),
    link.number("seed", "seed", 0, 0, 2**32 - 1, whole=True),
    link.choice("direction", "dir", "denoising", ("denoising", "noising")),
    link.choices("kinds", "kinds", ("state", "attn", "mlp"), KINDS),
    link.number("window", "w", 1, 1, 1000, whole=True),
    link.choice("window_convention", "wc", "code", ("code", "paper")),
    link.number("head_position", "hp", None, 0, 1_000_000, whole=True),
    link.choice("metric", "metric", "probability", METRICS),
    link.choice("palette", "colours", "cividis", ("cividis", "rome")),
    link.flag("ran", "run"),
    _tab(),
    link.choice("prompt_source", "set", "facts", ("facts", "file")),
    link.number("prompt_count", "prompts", 40, 1, 5000, whole=True),
    link.choice("average_metric", "averaged", "probability", AVERAGE_METRICS),
    link.choice("pooling", "pool", "tokens", POOLINGS),
    link.flag("average_share", "share"),
]
