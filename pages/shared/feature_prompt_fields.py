"""What the tab "This prompt" lets a user choose, as fields of the link."""

from __future__ import annotations

from pages.shared import link

SORTS = {
    "activation": "Largest activation",
    "sum": "Sum over the tokens",
    "effect": "Effect on the target",
}
MAX_LISTED = 500


def _numbers(name: str, key: str, what: str) -> link.LinkField:
    """Several numbers, separated by commas: `3,5`; empty = all."""

    def parse(raw: str) -> list[int]:
        parts = [part for part in raw.split(",") if part]
        if len(parts) > MAX_LISTED or not all(part.isascii() and part.isdigit() for part in parts):
            raise link.BadValue(f"which is no list of {what} such as 3,5")
        if any(len(part) > 7 for part in parts):
            raise link.BadValue(f"in which a number is too large for {what}")
        return list(dict.fromkeys(int(part) for part in parts))

    return link.LinkField(name, key, [], parse, lambda value: ",".join(map(str, value)))


FIELDS = [
    link.choice("feature_sort", "fq_sort", "activation", SORTS),
    _numbers("feature_tokens", "fq_tokens", "token positions"),
    _numbers("feature_layers", "fq_layers", "layers"),
    link.number("feature_densest", "fq_dense", None, 0, 100),
    link.number("feature_rows", "fq_n", 20, 5, 60, whole=True),
]
