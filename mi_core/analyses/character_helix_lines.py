"""Texts wrapped into lines, cut into pieces that start at a line's start, and every token's character count.

A character is a Unicode code point: a letter with a combining accent is two, a family emoji is several, a tab
is one. Bytes and screen columns play no part. The count of a token is the number of characters between the
start of its line and its own start, where the tokenizer's offsets put it (most tokenizers count the space
before a word to the word); tokens that share a character share its count, and a token that begins before a
line break and reaches beyond it belongs to the line in which it begins.

Tokens that reach over a line break have a count but are not averaged: they stand only at the ends of lines,
just below the chosen widths, and would bend the curve there. Nor is the first token of a pass, where many
models put massive activations.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mi_core.analyses.texts import Text
from mi_core.tokens import Bos, TokenizedPrompt, tokenize

PASSAGE = 2000
"""Characters wrapped together, at every width, before the next ones: a stop finds the widths balanced."""

_BREAK = re.compile(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*")
_PART = re.compile(r"(\s*)(\S+)")
_JOINER = "\u200d"


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of wrapped text in tokens: one forward pass.

    Attributes:
        passage: number of the passage that it is from.
        width: of its lines, in characters.
        ids: token ids.
        counts: characters since the line's start, per token; -1 where a token is not averaged.
        breaks: line breaks in it.
        seen_breaks: those that some token covers; a tokenizer that drops them hides the lines.
    """

    passage: int
    width: int
    ids: tuple[int, ...]
    counts: tuple[int, ...]
    breaks: int
    seen_breaks: int


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` characters, filled greedily.

    Line breaks of the text, with the white space around them, become one space first; other white space stays
    as it is inside a line and is dropped where a line ends. A word longer than a line is broken, but not
    before a combining mark or inside a joined emoji as long as a shorter line avoids it.

    Args:
        text: any text.
        width: most characters (code points) per line, at least 1.
    """
    lines, line = [], ""
    for gap, word in _PART.findall(_BREAK.sub(" ", text.strip())):
        if line and len(line) + len(gap) + len(word) <= width:
            line += gap + word
            continue
        if line:
            lines.append(line)
        line = word
        while len(line) > width:
            at = _place_to_break(line, width)
            lines.append(line[:at])
            line = line[at:]
    return [*lines, line] if line else lines


def _place_to_break(word: str, width: int) -> int:
    """The last place at or before `width` that does not part what is drawn as one character."""
    for at in range(width, 0, -1):
        if word[at - 1] != _JOINER and not _clings(word[at]):
            return at
    return width


def _clings(character: str) -> bool:
    """Whether it is drawn with the character before it: marks, joiners, variation selectors, skin tones."""
    return unicodedata.category(character) in ("Mn", "Me", "Mc", "Cf") or 0x1F3FB <= ord(character) <= 0x1F3FF


def passages(texts: Sequence[Text], size: int = PASSAGE) -> list[str]:
    """All texts joined by spaces, and cut at white space into passages of about `size` characters."""
    parts = _PART.findall(_BREAK.sub(" ", " ".join(text.text.strip() for text in texts)))
    made, passage = [], ""
    for gap, word in parts:
        if passage and len(passage) + len(gap) + len(word) > size:
            made.append(passage)
            passage = ""
        passage += (gap if passage else "") + word
    return [*made, passage] if passage else made


def character_counts(prompt: TokenizedPrompt) -> list[int]:
    """Characters since the line's start of every token; -1 where a token has no character of the text."""
    return [
        -1 if token.end <= token.start
        else token.start - (prompt.text.rfind("\n", 0, token.start) + 1)
        for token in prompt.tokens
    ]  # fmt: skip


def averaged(prompt: TokenizedPrompt) -> tuple[int, ...]:
    """The counts of the tokens that are averaged; -1 for the others (see the module)."""
    first = max(1, prompt.bos)
    return tuple(
        -1 if token.position < first or "\n" in prompt.text[token.start : token.end] else count
        for token, count in zip(prompt.tokens, character_counts(prompt), strict=True)
    )


def pieces(
    tokenizer: Any, texts: Sequence[Text], *, widths: Sequence[int], limit: int, max_tokens: int, bos: Bos
) -> tuple[list[Piece], int]:
    """Passage by passage, and in it width by width, the pieces that are run.

    Args:
        tokenizer: fast Hugging Face tokenizer.
        texts: joined first.
        widths: of the lines.
        limit: most tokens per piece.
        max_tokens: stop before the passage that would exceed this, but not before the first one.
        bos: see `mi_core.tokens.tokenize`.

    Returns:
        The pieces, and the number of passages that were left out.

    Raises:
        InputError: no tokenizer, or no BOS token where one is asked for.
    """
    found, total = passages(texts), 0
    made: list[Piece] = []
    for number, passage in enumerate(found):
        new = [
            piece
            for width in widths
            for piece in _of_lines(tokenizer, wrap(passage, width), number, width, limit, bos)
        ]
        size = sum(len(piece.ids) for piece in new)
        if made and total + size > max_tokens:
            return made, len(found) - number
        made, total = made + new, total + size
    return made, 0


def _of_lines(
    tokenizer: Any, lines: Sequence[str], passage: int, width: int, limit: int, bos: Bos
) -> Iterator[Piece]:
    """Pieces of as many whole lines as fit; a line that does not fit alone is cut at its end."""
    for start, end in _spans(tokenizer, lines, limit, bos):
        text = "\n".join(lines[start:end]) + "\n"
        prompt = tokenize(tokenizer, text, bos=bos)
        kept = TokenizedPrompt(text, prompt.tokens[:limit], prompt.bos)
        reached = kept.tokens[-1].end
        breaks = [place for place, letter in enumerate(text[:reached]) if letter == "\n"]
        seen = {place for token in kept.tokens for place in range(token.start, token.end)}
        yield Piece(passage, width, kept.ids, averaged(kept), len(breaks), len(seen & {*breaks}))


def _spans(tokenizer: Any, lines: Sequence[str], limit: int, bos: Bos) -> Iterator[tuple[int, int]]:
    """First line and end of every piece; tokens per line are counted in the whole passage."""
    text = "\n".join(lines) + "\n"
    prompt = tokenize(tokenizer, text, bos=bos)
    sizes, line, end = [0] * len(lines), 0, len(lines[0])
    for token in prompt.tokens[prompt.bos :]:
        while token.start > end and line + 1 < len(lines):
            line += 1
            end += 1 + len(lines[line])
        sizes[line] += 1
    # One token less: the first word of a piece may split otherwise than inside the passage.
    room, start, used = limit - prompt.bos - 1, 0, 0
    for index, size in enumerate(sizes):
        if index > start and used + size > room:
            yield start, index
            start, used = index, 0
        used += size
    yield start, len(lines)
