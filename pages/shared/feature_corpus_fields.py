"""What the corpus part of a feature's page lets a user choose, as fields of the link."""

from __future__ import annotations

from pages.shared import link

AROUND = {"5": "5 tokens around", "16": "16 tokens around", "all": "all that is stored"}
MAX_TEST = 5000

FIELDS = [
    link.choice("feature_around", "fc_around", "16", AROUND),
    link.number("feature_examples", "fc_examples", 10, 1, 50, whole=True),
    link.text("feature_test", "fc_test", "", limit=MAX_TEST),
]
