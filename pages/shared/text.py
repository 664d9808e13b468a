"""Text from tokens, files and links, made safe for Streamlit's Markdown."""

import re

_TURNING = re.compile("[\u202a-\u202e]")
_TURNING_IF_OPEN = re.compile("[\u2066-\u2069]")
"""Characters that turn the direction of what follows; isolates do no harm when each one is closed."""
_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:&=^])")


def plain(text: str) -> str:
    """Text that Markdown shows as it is: every character that means something there is escaped.

    What would write the rest of the line backwards, numbers included, is shown as its name.

    Args:
        text: anything, from anywhere.
    """
    one_line = _TURNING.sub(_name, " ".join(text.split()))
    if sum(one_line.count(mark) for mark in "\u2066\u2067\u2068") != one_line.count("\u2069"):
        one_line = _TURNING_IF_OPEN.sub(_name, one_line)
    return _SPECIAL.sub(r"\\\1", one_line)


def _name(found: re.Match[str]) -> str:
    return f"⟨U+{ord(found[0]):04X}⟩"


def code(text: str, limit: int = 80) -> str:
    """Text as a Markdown code span, shortened; line breaks and backticks cannot end the span.

    Args:
        text: anything, from anywhere.
        limit: characters to show at most.
    """
    shown = text if len(text) <= limit else text[: limit - 1] + "…"
    shown = "".join("↵" if c == "\n" else (c if c.isprintable() else "·") for c in shown)
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if shown.startswith("`") or shown.endswith("`") or not shown.strip() else ""
    return f"{fence}{pad}{shown or ' '}{pad}{fence}"
