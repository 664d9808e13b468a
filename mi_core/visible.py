"""What a token looks like on a screen: every character of it can be seen, and nothing in it can act.

A token is bytes, and often not whole characters. Tokenizers write those bytes in three ways, told apart by
their decoder: byte-level BPE maps each byte to a printable letter (`Ġ` is a space), SentencePiece writes `▁`
for a space and `<0xE2>` for a lone byte, WordPiece writes `##` before the rest of a word. The first two come
out alike here (`·Paris`, `↵`, `⇥`, `⟨E2 96⟩`); WordPiece has no bytes and keeps its `##`.
"""

import json
import threading
import unicodedata
import weakref
from dataclasses import dataclass
from typing import Any, Literal

SPACE, NEWLINE, TAB = "·", "↵", "⇥"
EMPTY = "⟨empty⟩"

PieceStyle = Literal["bytes", "metaspace", "plain"]

_SIGNS = {" ": SPACE, "\n": NEWLINE, "\t": TAB, "\x7f": "␡"} | {
    chr(code): chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"
}
# Format characters, separators that are not a plain space, surrogates and private use: no glyph of their own.
_UNSEEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp", "Zs"})
# Unicode gives these a visible category, and fonts draw nothing.
_FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
_UNSEEN = frozenset(_FILLERS) | {chr(code) for code in range(0xFE00, 0xFE10)}


def visible(text: str | bytes) -> str:
    """Text in which spaces, control characters, zero-width characters and partial characters can be seen.

    Args:
        text: characters, or the bytes of a token; bytes that are no whole UTF-8 character are shown like
            `⟨E2 96⟩`.

    Returns:
        `·` for a space, `↵` for a newline, `⇥` for a tab, control pictures for other control characters,
        `⟨U+200B⟩` for what has no glyph, and `⟨empty⟩` for nothing. It is for people, not for parsing, and
        still needs HTML escaping.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", errors="surrogateescape")
    shown: list[str] = []
    broken: list[str] = []
    for character in text:
        if "\udc80" <= character <= "\udcff":  # how surrogateescape carries a byte that is no character
            broken.append(f"{ord(character) - 0xDC00:02X}")
            continue
        shown += _flush(broken)
        shown.append(_visible_character(character, first=not shown))
    shown += _flush(broken)
    return "".join(shown) or EMPTY


def _flush(broken: list[str]) -> list[str]:
    """The collected bytes as one group, and an empty collection."""
    group = [f"⟨{' '.join(broken)}⟩"] if broken else []
    broken.clear()
    return group


def _visible_character(character: str, *, first: bool) -> str:
    sign = _SIGNS.get(character)
    if sign is not None:
        return sign
    category = unicodedata.category(character)
    if character in _UNSEEN or category in _UNSEEN_CATEGORIES:
        return f"⟨U+{ord(character):04X}⟩"
    # A combining mark would be drawn onto whatever stands before the token.
    return "◌" + character if first and category.startswith("M") else character


def _letters_of_bytes() -> dict[str, int]:
    """The letters of byte-level BPE: printable Latin-1 as itself, the other bytes from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


_BYTE_OF_LETTER = _letters_of_bytes()


@dataclass(frozen=True, slots=True)
class PieceReader:
    """Reads the pieces of one tokenizer.

    Attributes:
        style: how its pieces stand for bytes.
        verbatim: ids whose piece is shown as it is written (special and added tokens), with that text.
        special: ids of special tokens.
        size: of the vocabulary when this was made.
    """

    style: PieceStyle
    verbatim: dict[int, str]
    special: frozenset[int]
    size: int

    def visible(self, token_id: int, piece: str | None) -> str:
        """What to show for a token (see `visible`); `⟨id 5⟩` where a padded vocabulary has no piece."""
        if token_id in self.verbatim:
            return visible(self.verbatim[token_id])
        if piece is None:
            return f"⟨id {token_id}⟩"
        if self.style == "bytes" and all(letter in _BYTE_OF_LETTER for letter in piece):
            return visible(bytes(_BYTE_OF_LETTER[letter] for letter in piece))
        if self.style == "metaspace":
            byte = _fallback_byte(piece)
            return visible(piece.replace("▁", " ") if byte is None else byte)
        return visible(piece)

    def text(self, token_id: int, piece: str | None) -> str:
        r"""What a token adds to a text, spaces and line breaks as they are, for files that others read.

        Bytes that are no whole UTF-8 character are written like `\xe2`, as circuit-tracer's viewer joins
        them.
        """
        if token_id in self.verbatim:
            return self.verbatim[token_id]
        if piece is None:
            return ""
        if self.style == "bytes" and all(letter in _BYTE_OF_LETTER for letter in piece):
            return bytes(_BYTE_OF_LETTER[letter] for letter in piece).decode("utf-8", "backslashreplace")
        if self.style == "metaspace":
            byte = _fallback_byte(piece)
            return piece.replace("▁", " ") if byte is None else byte.decode("utf-8", "backslashreplace")
        return piece


def _fallback_byte(piece: str) -> bytes | None:
    """The byte of a piece like `<0xE2>`, or None."""
    if len(piece) != 6 or not piece.startswith("<0x") or not piece.endswith(">"):
        return None
    try:
        return bytes([int(piece[3:5], 16)])
    except ValueError:
        return None


_READERS: "weakref.WeakKeyDictionary[Any, PieceReader]" = weakref.WeakKeyDictionary()
_READERS_LOCK = threading.Lock()


def piece_reader(tokenizer: Any) -> PieceReader:
    """The reader of a fast Hugging Face tokenizer's pieces; kept until the tokenizer goes or grows."""
    size = len(tokenizer)
    with _READERS_LOCK:
        reader = _READERS.get(tokenizer)
    if reader is not None and reader.size == size:
        return reader
    special = frozenset(tokenizer.all_special_ids)
    verbatim = {token_id: str(token) for token_id, token in tokenizer.added_tokens_decoder.items()}
    for token_id in special - verbatim.keys():
        verbatim[token_id] = tokenizer.convert_ids_to_tokens(token_id)
    reader = PieceReader(_style(tokenizer), verbatim, special, size)
    with _READERS_LOCK:
        _READERS[tokenizer] = reader
    return reader


def visible_token(tokenizer: Any, token_id: int) -> str:
    """What to show for a token id, for example `·Paris` (see `visible`)."""
    piece = tokenizer.convert_ids_to_tokens(token_id) if 0 <= token_id < len(tokenizer) else None
    return piece_reader(tokenizer).visible(token_id, piece)


def _style(tokenizer: Any) -> PieceStyle:
    """How pieces stand for bytes, read from the decoder (or, without one, from the pre-tokenizer)."""
    backend = tokenizer.backend_tokenizer
    part = backend.decoder or backend.pre_tokenizer
    if part is None:
        return "plain"
    kinds = str(_types_in(json.loads(part.__getstate__())))
    if "ByteLevel" in kinds:
        return "bytes"
    return "metaspace" if "Metaspace" in kinds or "▁" in kinds or "ByteFallback" in kinds else "plain"


def _types_in(state: Any) -> list[str]:
    """Types and replaced patterns, however deep the sequence of decoders is nested."""
    if isinstance(state, list):
        return [name for part in state for name in _types_in(part)]
    if not isinstance(state, dict):
        return []
    names = [state["type"]] if isinstance(state.get("type"), str) else []
    pattern = state.get("pattern")
    if isinstance(pattern, dict):
        names += [str(value) for value in pattern.values()]
    return names + [name for key in ("decoders", "pretokenizers") for name in _types_in(state.get(key))]
