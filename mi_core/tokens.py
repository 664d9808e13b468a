"""Prompts as tokens: which characters each token covers, where a word stands, and how two prompts line up.

Spans come from the tokenizer's offset mapping, never from decoding: decoding drops spaces, merges partial
characters and cannot tell two equal words apart. All of it is text from a model or a user, so it is shown
through `visible`.
"""

import difflib
import re
import unicodedata
from dataclasses import dataclass
from typing import Any, Literal

from mi_core.errors import InputError
from mi_core.visible import piece_reader, visible, visible_token

__all__ = [
    "Alignment",
    "Bos",
    "LengthMismatch",
    "Token",
    "TokenizedPrompt",
    "align",
    "find_span",
    "find_spans",
    "prompt_warnings",
    "require_equal_length",
    "tokenize",
    "visible",
    "visible_token",
]

Bos = Literal["auto", "always", "never"]


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a prompt.

    Attributes:
        position: index in the prompt, the BOS token included.
        id: token id.
        visible: what to show, for example `·Paris` (see `mi_core.visible`).
        start: first character of the prompt that it covers.
        end: one past the last; equal to `start` where it covers none (an added BOS). Several tokens cover the
            same character when that character is spread over them.
        special: whether it is a special token of the tokenizer.
    """

    position: int
    id: int
    visible: str
    start: int
    end: int
    special: bool = False


@dataclass(frozen=True, slots=True)
class TokenizedPrompt:
    """A prompt and its tokens.

    Attributes:
        text: what the user wrote.
        tokens: in order; what the model reads.
        bos: number of leading tokens that are not from the text.
    """

    text: str
    tokens: tuple[Token, ...]
    bos: int = 0

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def ids(self) -> tuple[int, ...]:
        """Token ids, in order."""
        return tuple(token.id for token in self.tokens)

    def text_of(self, start: int, end: int) -> str:
        """The characters under the tokens [start, end)."""
        covered = [token for token in self.tokens[start:end] if token.end > token.start]
        return self.text[covered[0].start : max(token.end for token in covered)] if covered else ""


def tokenize(tokenizer: Any, text: str, *, bos: Bos = "auto", limit: int | None = None) -> TokenizedPrompt:
    """Split a prompt into tokens.

    Args:
        tokenizer: fast Hugging Face tokenizer.
        text: the prompt.
        bos: "auto" = leading special tokens as the tokenizer itself adds them; "always" = a BOS token is put
            first if none is there; "never" = nothing is added. Closing tokens (`</s>`, `[SEP]`) are never
            added: the question is always what comes next.
        limit: the longest prompt that the model reads, in tokens.

    Returns:
        The prompt with its tokens.

    Raises:
        InputError: no tokenizer, an empty prompt, a BOS token asked for where there is none, or a prompt
            above `limit`.
    """
    if tokenizer is None:
        raise InputError("This model has no tokenizer", fix="Load it with one, or give token ids")
    if not text:
        raise InputError("The prompt is empty", fix="Type a sentence that ends before its answer")
    coded = tokenizer(
        text, add_special_tokens=bos != "never", return_offsets_mapping=True, return_special_tokens_mask=True,
        return_attention_mask=False, truncation=False, verbose=False,
    )  # fmt: skip
    ids, spans, added = coded["input_ids"], coded["offset_mapping"], coded["special_tokens_mask"]
    while added and added[-1]:
        ids, spans, added = ids[:-1], spans[:-1], added[:-1]
    leading = next((index for index, flag in enumerate(added) if not flag), len(added))
    if bos == "always" and (not ids or ids[0] != _bos_id(tokenizer)):
        ids, spans, leading = [_bos_id(tokenizer), *ids], [(0, 0), *spans], leading + 1
    if leading == len(ids):
        raise InputError("The prompt has no token that this tokenizer knows", fix="Type a word")
    if limit is not None and len(ids) > limit:
        raise InputError(
            f"The prompt has {len(ids):,} tokens; this model reads at most {limit:,}", fix="Shorten it"
        )
    return TokenizedPrompt(text, _tokens(tokenizer, ids, spans), leading)


def _bos_id(tokenizer: Any) -> int:
    token_id = tokenizer.bos_token_id
    if token_id is None:
        raise InputError("This tokenizer has no BOS token", fix="Set BOS to auto or never")
    return int(token_id)


def _tokens(tokenizer: Any, ids: list[int], spans: list[tuple[int, int]]) -> tuple[Token, ...]:
    reader, pieces = piece_reader(tokenizer), tokenizer.convert_ids_to_tokens(ids)
    return tuple(
        Token(position, token_id, reader.visible(token_id, piece), start, end, token_id in reader.special)
        for position, (token_id, piece, (start, end)) in enumerate(zip(ids, pieces, spans, strict=True))
    )


def find_spans(prompt: TokenizedPrompt, text: str) -> tuple[tuple[int, int], ...]:
    """Token spans [start, end) of every occurrence of `text`, in order; empty when it does not occur.

    A span holds every token that covers one of the characters, so it may reach beyond them: `Needle` in
    `·Needles`. Occurrences may overlap. Spaces around `text` count only if the prompt has them there, and one
    at its end never draws in the next word.
    """
    wanted = text if text in prompt.text else text.strip()
    if not wanted:
        return ()
    found, place = [], prompt.text.find(wanted)
    length = len(wanted.rstrip()) or len(wanted)  # most tokenizers give a space to the word behind it
    while place >= 0:
        found.append(_covering(prompt, place, place + length))
        place = prompt.text.find(wanted, place + 1)
    return tuple(span for span in found if span is not None)


def _covering(prompt: TokenizedPrompt, first: int, stop: int) -> tuple[int, int] | None:
    """The span of tokens that cover a character in [first, stop), or None if no token does."""
    positions = [token.position for token in prompt.tokens if token.start < stop and token.end > first]
    return (positions[0], positions[-1] + 1) if positions else None


def find_span(prompt: TokenizedPrompt, text: str, occurrence: int = 0) -> tuple[int, int]:
    """Token span [start, end) of one occurrence of `text` (see `find_spans`).

    Args:
        prompt: where to look.
        text: what to look for; case counts.
        occurrence: which one, from 0; negative counts from the last.

    Raises:
        InputError: it does not occur, or not that often.
    """
    spans = find_spans(prompt, text)
    if not spans:
        similar = re.search(re.escape(text.strip()), prompt.text, re.IGNORECASE) if text.strip() else None
        why = f"it has {similar[0]!r}, in another case" if similar else ""
        fix = "Copy it from the prompt, or choose tokens"
        raise InputError(f"{text!r} is not in the prompt", why=why, fix=fix)
    if not -len(spans) <= occurrence < len(spans):
        times = "once" if len(spans) == 1 else f"{len(spans)} times"
        why = f"occurrence {occurrence} was asked for, counted from 0"
        raise InputError(f"{text!r} occurs {times} in the prompt", why=why)
    return spans[occurrence]


def prompt_warnings(prompt: TokenizedPrompt, tokenizer: Any) -> tuple[str, ...]:
    """What often spoils an experiment, a sentence each: trailing space, doubled BOS, unknown characters."""
    warnings = []
    if prompt.text[-1].isspace():
        warnings.append(
            "The prompt ends with a space or line break; most tokenizers join the space to the next word, "
            "so the model rarely saw this."
        )
    bos_id = tokenizer.bos_token_id
    if bos_id is not None and prompt.ids[:2] == (bos_id, bos_id):
        warnings.append("The prompt starts with two BOS tokens: one is typed in it. Set BOS to never.")
    # GPT-2 has one token for BOS, EOS and unknown, and its byte-level pieces leave nothing unknown.
    unknown_id = tokenizer.unk_token_id if tokenizer.unk_token_id != bos_id else None
    unknown = [str(token.position) for token in prompt.tokens if token.id == unknown_id]
    if unknown:
        warnings.append(
            f"The tokenizer does not know the characters at token {', '.join(unknown)}; "
            "the model sees a placeholder there."
        )
    return tuple(warnings)


@dataclass(frozen=True, slots=True)
class Alignment:
    """Two prompts side by side.

    Attributes:
        rows: (position in the first, position in the second); None where that prompt has no partner.
        text: both tokenisations, one line each, partners under each other, differences marked (monospaced).
        summary: the differences in one clause, for example "clean has ·France where corrupted has ·Po land".
    """

    rows: tuple[tuple[int | None, int | None], ...]
    text: str
    summary: str


class LengthMismatch(InputError):
    """Two prompts that must have as many tokens have not.

    Args:
        clean: number of tokens of the first prompt.
        corrupted: number of tokens of the second.
        alignment: both, side by side; kept as `alignment` for a page to show.
    """

    def __init__(self, clean: int, corrupted: int, alignment: Alignment) -> None:
        super().__init__(
            f"The prompts differ in length, {clean} and {corrupted} tokens",
            why=alignment.summary,
            fix="Change words until both have as many tokens",
        )
        self.alignment = alignment


def align(
    first: TokenizedPrompt, second: TokenizedPrompt, names: tuple[str, str] = ("clean", "corrupted")
) -> Alignment:
    """Line up two prompts by their longest common runs of tokens (difflib over ids).

    Args:
        first: one prompt.
        second: the other.
        names: what to call them.

    Returns:
        Pairs of positions, and texts that show them.
    """
    matcher = difflib.SequenceMatcher(a=first.ids, b=second.ids, autojunk=False)
    rows: list[tuple[int | None, int | None]] = []
    differences: list[str] = []
    for kind, a, a_stop, b, b_stop in matcher.get_opcodes():
        for step in range(max(a_stop - a, b_stop - b)):
            rows.append((a + step if a + step < a_stop else None, b + step if b + step < b_stop else None))
        if kind != "equal":
            one, other = _shown(first, a, a_stop), _shown(second, b, b_stop)
            differences.append(f"{names[0]} has {one} where {names[1]} has {other}")
    summary = "; ".join(differences) or "they are equal"
    return Alignment(tuple(rows), _side_by_side(first, second, rows, names), summary)


def _shown(prompt: TokenizedPrompt, start: int, end: int) -> str:
    return " ".join(token.visible for token in prompt.tokens[start:end]) or "nothing"


def _side_by_side(
    first: TokenizedPrompt,
    second: TokenizedPrompt,
    rows: list[tuple[int | None, int | None]],
    names: tuple[str, str],
) -> str:
    width = max(_width(name) for name in names)
    lines = [name + " " * (width - _width(name)) for name in (*names, "")]
    for a, b in rows:
        one = "" if a is None else first.tokens[a].visible
        other = "" if b is None else second.tokens[b].visible
        same = a is not None and b is not None and first.tokens[a].id == second.tokens[b].id
        width = max(_width(one), _width(other), 1)
        cells = (one, other, "" if same else "^" * width)
        padded = (cell + " " * (width - _width(cell)) for cell in cells)
        lines = [f"{line} | {cell}" for line, cell in zip(lines, padded, strict=True)]
    return "\n".join(line.rstrip(" |") for line in lines)


def _width(text: str) -> int:
    """Columns in a monospaced font: two for East Asian wide characters, none for combining marks."""
    return sum(
        0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in "WF")
        for character in text
    )


def require_equal_length(
    clean: TokenizedPrompt, corrupted: TokenizedPrompt, names: tuple[str, str] = ("clean", "corrupted")
) -> Alignment:
    """Line up two prompts that must have as many tokens.

    Raises:
        LengthMismatch: they have not; the message says where, and the error carries the alignment.
    """
    alignment = align(clean, corrupted, names)
    if len(clean) != len(corrupted):
        raise LengthMismatch(len(clean), len(corrupted), alignment)
    return alignment
