"""What the tab "Intervene" lets a user choose, as fields of the link."""

from __future__ import annotations

from mi_core.errors import InputError
from mi_core.transcoders.inject_inputs import MAX_CONTINUATION, MAX_TOP, check_edit_list
from pages.shared import link

LIST = "feature_edits"
"""Name of the list in the session; its key in the link is `fi`."""
FROZEN = {"nothing": "Nothing", "attention": "Attention", "everything": "Everything"}
FROZEN_HELP = (
    "Nothing: what would really happen. Attention: patterns stay as in the baseline, MLPs answer. "
    "Everything: patterns, norm scales and MLP outputs stay, so only direct effects are left."
)


def _parse_list(raw: str) -> str:
    """A list is read when the transcoder is known; here only what could never be one is refused.

    Raises:
        link.BadValue: too long, or a character that no edit has.
    """
    try:
        check_edit_list(raw)
    except InputError as error:
        raise link.BadValue("which is no list of edits such as L5F102@7:set=3") from error
    return raw


FIELDS = [
    link.LinkField(LIST, "fi", "", _parse_list),
    link.choice("inject_frozen", "fi_frozen", "nothing", FROZEN),
    link.number("inject_steps", "fi_steps", 10, 0, MAX_CONTINUATION, whole=True),
    link.number("inject_top", "fi_top", 5, 1, MAX_TOP, whole=True),
]
