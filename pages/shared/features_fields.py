"""What all tabs of the features page share, as fields of the link: tab, transcoder, pins, BOS."""

from __future__ import annotations

from mi_core.errors import InputError
from mi_core.transcoders.names import format_features, parse_features
from pages.shared import link

TABS = {
    "prompt": "This prompt",
    "feature": "One feature",
    "words": "Find by word",
    "inject": "Intervene",
    "steer": "Steer",
    "planning": "Planning",
    "graph": "Graph",
    "probe": "Probe",
}
"""Word in the link -> label; the tabs' state is the label."""

PINS = "feature_pins"
TRANSCODER = "feature_transcoder"
MAX_PINS = 4000


def _parse_pins(raw: str) -> str:
    """Whether a transcoder has these features is seen where they are used.

    Raises:
        link.BadValue: too long, or a piece that names no feature.
    """
    if len(raw) > MAX_PINS:
        raise link.BadValue(f"which is longer than {MAX_PINS:,} characters")
    try:
        return format_features(parse_features(raw))
    except InputError as error:
        raise link.BadValue(f"but {error.what[:1].lower()}{error.what[1:]}") from None


def _switch(name: str, key: str) -> link.LinkField:
    """A switch that is off by default: `1` in the link, or nothing."""

    def parse(raw: str) -> bool:
        if raw not in ("0", "1"):
            raise link.BadValue("which is neither 0 nor 1")
        return raw == "1"

    return link.LinkField(name, key, False, parse, lambda value: "1" if value else "0")


def _tab() -> link.LinkField:
    words = {label: word for word, label in TABS.items()}
    named = link.choice("features_tabs", "ft_tab", None, TABS)
    return link.LinkField(
        "features_tabs", "ft_tab", TABS["prompt"], lambda raw: TABS[named.parse(raw)], words.__getitem__
    )


FIELDS = [
    _tab(),
    link.text(TRANSCODER, "ft_tc", "", limit=500),
    link.LinkField(PINS, "ft_pins", "", _parse_pins),
    _switch("feature_show_bos", "ft_bos"),
]
