"""What the tuned-lens tab lets a user choose, as fields of the link."""

from __future__ import annotations

from pages.shared import link

SOURCES = {"bundled": "Bundled texts", "file": "A text file of yours"}
OPTIMIZERS = {"sgd": "SGD, Nesterov momentum", "adam": "Adam"}

FIELDS = [
    link.choice("tuned_source", "ll_tset", "bundled", SOURCES),
    link.number("tuned_steps", "ll_tsteps", 250, 1, 1_000_000, whole=True),
    link.number("tuned_batch", "ll_tbatch", 1024, 16, 4_000_000, whole=True),
    link.choice("tuned_optimizer", "ll_topt", "sgd", OPTIMIZERS),
    link.number("tuned_rate", "ll_trate", None, 1e-9, 100),
    link.number("tuned_context", "ll_tcontext", 128, 4, 100_000, whole=True),
    link.number("tuned_seed", "ll_tseed", 0, 0, 2**32 - 1, whole=True),
    link.text("tuned_name", "ll_tname", "my-lens", limit=60),
    link.flag("tuned_without_first", "ll_tskip"),
]
