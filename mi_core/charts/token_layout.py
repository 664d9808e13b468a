"""Where the tokens of a text stand: in lines that flow, measured in letters of a monospaced font.

The same text breaks in the same places on every screen and on paper, and a token is as wide as its text.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

LINE_BREAK = "↵"
CUT = "…"


@dataclass(frozen=True, slots=True)
class Box:
    """Place of one token.

    Attributes:
        index: of the token, counted from 0.
        text: what fits of it.
        line: counted from 0.
        start: left end in letters.
        end: right end in letters.
    """

    index: int
    text: str
    line: int
    start: int
    end: int


def letters(text: str) -> int:
    """Width of a text; Chinese, Japanese, Korean and emoji take two letters, combining marks none."""
    return sum(_letters(character) for character in text)


def _letters(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def cut(text: str, limit: int) -> str:
    """The text, or its beginning and an ellipsis, in at most `limit` letters."""
    if letters(text) <= limit:
        return text
    kept, room = "", limit - 1
    for character in text:
        room -= _letters(character)
        if room < 0:
            break
        kept += character
    return kept + CUT


def flow(texts: Sequence[str], columns: int, *, least: Sequence[int] = ()) -> list[Box]:
    """Tokens in lines of at most `columns` letters; a token is never split, and a line ends after `↵`.

    Args:
        texts: visible texts of the tokens.
        columns: letters per line; a longer token is cut.
        least: smallest width of every token, such as that of its position.
    """
    boxes: list[Box] = []
    line = start = 0
    for index, text in enumerate(texts):
        shown = cut(text, columns)
        width = max(letters(shown), least[index] if least else 1)
        if start and start + width > columns:
            line, start = line + 1, 0
        boxes.append(Box(index, shown, line, start, start + width))
        start += width
        if LINE_BREAK in text:
            line, start = line + 1, 0
    return boxes


def in_view(texts: Sequence[str], centre: int, columns: int) -> range:
    """The tokens around a centre that fit into one line: as many after it as before it, where there are.

    Args:
        texts: visible texts of the tokens, at least one.
        centre: index of the token that always stays.
        columns: letters that there is room for.
    """
    first, after = centre, centre + 1
    room = columns - letters(texts[centre])
    while True:
        grown = False
        if first > 0 and letters(texts[first - 1]) <= room:
            first -= 1
            room -= letters(texts[first])
            grown = True
        if after < len(texts) and letters(texts[after]) <= room:
            room -= letters(texts[after])
            after += 1
            grown = True
        if not grown:
            return range(first, after)
