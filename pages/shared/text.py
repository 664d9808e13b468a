"""Text from tokens, files and links, made safe for Streamlit's Markdown."""

import re

_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:&=^])")


def plain(text: str) -> str:
    """Text that Markdown shows as it is: every character that means something there is escaped.

    Args:
        text: anything, from anywhere.
    """
    one_line = " ".join(text.split())
    return _SPECIAL.sub(r"\\\1", one_line)


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
