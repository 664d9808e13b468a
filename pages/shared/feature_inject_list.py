"""The one list of edits of features, which any page can add to."""

from __future__ import annotations

from pages.shared.edit_list import add_to
from pages.shared.feature_inject_fields import LIST


def add(*more: str) -> None:
    """Add to the session's list; for callbacks of buttons."""
    add_to(LIST, *more)
