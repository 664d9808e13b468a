"""Characters since a line began, counted by hand; wrapping, passages and pieces."""

from itertools import pairwise

import pytest

from mi_core.analyses.character_helix_lines import averaged, character_counts, passages, pieces, wrap
from mi_core.tokens import Token, TokenizedPrompt, tokenize
from tests.line_words import line_tokenizer, some_texts
from tests.words import WORDS


def prompt_of(*parts: str) -> TokenizedPrompt:
    """A prompt whose tokens are these pieces of text, without BOS."""
    tokens, start = [], 0
    for position, part in enumerate(parts):
        tokens.append(Token(position, position, part, start, start + len(part)))
        start += len(part)
    return TokenizedPrompt("".join(parts), tuple(tokens), 0)


def test_counts_by_hand():
    # tab = 1; é as e + combining accent = 2; family emoji = 5 (three people, two joiners); 漢 = 1
    prompt = prompt_of(
        "a", "\tb", "e\u0301", "漢字", "👨\u200d👩\u200d👧", "x", "\n", "y", " z", ".\nq", "r", "\n\n", "s"
    )
    assert character_counts(prompt) == [0, 1, 3, 5, 7, 12, 13, 0, 1, 3, 1, 2, 0]
    # not averaged: the first token, and those that reach over a line break
    assert averaged(prompt) == (-1, 1, 3, 5, 7, 12, -1, 0, 1, -1, 1, -1, 0)


def test_tokens_that_share_a_character_share_its_count_and_bos_has_none():
    tokens = (
        Token(0, 0, "<s>", 0, 0),
        Token(1, 1, "a", 0, 1),
        Token(2, 2, "?", 1, 2),
        Token(3, 3, "?", 1, 2),
    )
    assert character_counts(TokenizedPrompt("a😀", tokens, 1)) == [-1, 0, 1, 1]
    assert averaged(TokenizedPrompt("a😀", tokens, 1)) == (-1, 0, 1, 1)


def test_wrapping_by_hand():
    assert wrap("aa bb cc dd", 5) == ["aa bb", "cc dd"]
    assert wrap("aa\nbb  \n\n cc", 8) == ["aa bb cc"]
    assert wrap("a\tb  c", 6) == ["a\tb  c"]
    assert wrap("a\tb  c", 5) == ["a\tb", "c"]
    assert wrap("abcdefg h", 3) == ["abc", "def", "g h"]
    assert wrap("漢字漢字漢", 2) == ["漢字", "漢字", "漢"]
    assert wrap("ae\u0301ae\u0301", 2) == ["a", "e\u0301", "a", "e\u0301"]  # never before a combining mark
    assert wrap("x👨\u200d👩\u200d👧y", 6) == ["x👨\u200d👩\u200d👧", "y"]
    assert wrap("a\u0301\u0301\u0301", 2) == ["a\u0301", "\u0301\u0301"]  # no shorter line avoids it
    assert wrap("   ", 5) == []


@pytest.mark.parametrize("width", [2, 7, 20, 64])
def test_no_line_is_too_long_and_no_character_is_lost(width):
    text = "Ünïcode e\u0301 漢字漢字 👨\u200d👩\u200d👧 words\tand tabs " * 20
    made = wrap(text, width)
    assert max(map(len, made)) <= width
    assert "".join("".join(made).split()) == "".join(text.split())


def test_greedy_lines_could_not_take_another_word():
    made = wrap(" ".join(WORDS * 3), 20)
    for line, after in pairwise(made):
        assert len(line) + 1 + len(after.split(" ")[0]) > 20


def test_passages_hold_all_words_in_order():
    found = passages(some_texts(), 200)
    assert len(found) > 3
    assert max(map(len, found)) <= 200
    assert " ".join(found).split() == " ".join(text.text for text in some_texts()).split()


@pytest.mark.parametrize("bos", [True, False])
def test_every_piece_starts_at_a_line_start_with_bos_first(bos):
    tokenizer = line_tokenizer(bos=bos)
    settings = {"widths": (9, 30), "limit": 24, "max_tokens": 10**6, "bos": "auto"}
    found, left_out = pieces(tokenizer, some_texts(), **settings)
    assert left_out == 0
    assert len(found) > 10
    lines: dict[tuple[int, int], int] = {}
    for piece in found:
        assert len(piece.ids) <= 24
        assert (piece.ids[:1] == (tokenizer.bos_token_id,)) == bos
        assert piece.counts[:1] == (-1,)
        if bos:
            assert piece.counts[1:2] == (0,)  # the first word of the piece stands at a line's start
        assert max(piece.counts) < piece.width
        assert piece.seen_breaks == piece.breaks
        lines[piece.passage, piece.width] = lines.get((piece.passage, piece.width), 0) + piece.breaks
    for passage, text in enumerate(passages(some_texts())):  # the pieces together are the wrapped passage
        for width in (9, 30):
            assert lines[passage, width] == len(wrap(text, width))
            ids = [
                token
                for piece in found
                if (piece.passage, piece.width) == (passage, width)
                for token in piece.ids[bos:]
                if token > 3
            ]
            assert ids == [token for token in tokenizer(text, add_special_tokens=False).input_ids]


def test_bos_changes_no_count():
    """The same piece with and without BOS: the counts are those of the text, shifted by one token."""
    text = "\n".join(wrap(some_texts()[0].text, 25)[:6]) + "\n"
    with_bos = averaged(tokenize(line_tokenizer(bos=True), text))
    without = averaged(tokenize(line_tokenizer(bos=False), text))
    assert with_bos[2:] == without[1:]
