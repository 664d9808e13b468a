from typing import Any

import pytest

from mi_core.errors import InputError
from mi_core.tokens import (
    LengthMismatch,
    Token,
    TokenizedPrompt,
    align,
    find_span,
    find_spans,
    prompt_warnings,
    require_equal_length,
    tokenize,
    visible,
    visible_token,
)
from tests.disk import byte_level, sentencepiece_bpe, unigram, word_piece

STYLES = {
    "byte-level": byte_level,
    "byte-level, trimmed offsets": lambda: byte_level(trim=True),
    "byte-level, letters": lambda: byte_level(merges=0),
    "sentencepiece": sentencepiece_bpe,
    "unigram": unigram,
    "wordpiece": word_piece,
}
TEXTS = [
    "The Space Needle is in downtown",
    "the the the",
    "naïve café 日本 ▖ x",
    "👩‍🚀 e\u0301a",
    "\ttab\n\nParis ",
    " two  spaces",
    "<s> and <|end|> typed",
]


@pytest.fixture(params=STYLES)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return STYLES[request.param]()


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("bos", ["auto", "never"])
def test_spans_cover_the_text_in_order(tokenizer: Any, text: str, bos: Any) -> None:
    prompt = tokenize(tokenizer, text, bos=bos)
    assert prompt.ids[prompt.bos :] == tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert [token.position for token in prompt.tokens] == list(range(len(prompt)))
    starts = [token.start for token in prompt.tokens]
    assert starts == sorted(starts)
    covered = {place for token in prompt.tokens for place in range(token.start, token.end)}
    assert {place for place, character in enumerate(text) if character.isalnum()} <= covered
    assert all(token.start == token.end == 0 for token in prompt.tokens[: prompt.bos])


@pytest.mark.parametrize("text", TEXTS)
def test_every_occurrence_is_covered_exactly(tokenizer: Any, text: str) -> None:
    """A span holds a token exactly if it has a character of the word; the oracle is the offset mapping."""
    prompt = tokenize(tokenizer, text)
    for word in {"the", "Space Needle", "naïve", "日", "本", "Paris", "x"}:
        places = [place for place in range(len(text)) if text.startswith(word, place)]
        spans = find_spans(prompt, word)
        if not places:
            assert spans == ()
            continue
        for place, (start, end) in zip(places, spans, strict=True):
            letters = set(range(place, place + len(word)))
            touching = [t.position for t in prompt.tokens if letters & set(range(t.start, t.end))]
            assert (start, end) == (touching[0], touching[-1] + 1)
            assert word in prompt.text_of(start, end)


def test_byte_level_spans_by_hand() -> None:
    prompt = tokenize(byte_level(), "The Space Needle is")
    assert [token.visible for token in prompt.tokens][:2] == ["The", "·"] or prompt.tokens[
        1
    ].visible.startswith("·")
    start, end = find_span(prompt, "Space Needle")
    assert prompt.text_of(start, end) == " Space Needle"
    assert "".join(token.visible for token in prompt.tokens[start:end]) == "·Space·Needle"


def test_a_bos_moves_the_span_and_is_never_in_it() -> None:
    tokenizer = byte_level()
    without, with_bos = (tokenize(tokenizer, "the cat", bos=bos) for bos in ("never", "always"))
    assert with_bos.ids == (tokenizer.bos_token_id, *without.ids)
    assert with_bos.tokens[0].visible == "<|end|>"
    assert with_bos.tokens[0].special
    start, end = find_span(without, "the")
    assert find_span(with_bos, "the") == (start + 1, end + 1)


def test_bos_rules() -> None:
    llama, gpt2 = sentencepiece_bpe(), byte_level()
    assert tokenize(llama, "the", bos="auto").bos == 1
    assert tokenize(llama, "the", bos="always").ids == tokenize(llama, "the", bos="auto").ids
    assert tokenize(llama, "the", bos="never").bos == 0
    assert tokenize(gpt2, "the", bos="auto").bos == 0
    assert tokenize(gpt2, "the", bos="always").ids[0] == gpt2.bos_token_id
    assert tokenize(gpt2, "<|end|>the", bos="always").ids[0] == gpt2.bos_token_id
    assert tokenize(gpt2, "<|end|>the", bos="always").bos == 0


def test_closing_tokens_are_never_put_behind_the_prompt() -> None:
    for tokenizer in (unigram(), word_piece()):
        assert len(tokenizer("Paris")["input_ids"]) == len(tokenize(tokenizer, "Paris")) + 1
        assert tokenize(tokenizer, "Paris").tokens[0].special


def test_a_character_spread_over_tokens_is_shown_as_bytes() -> None:
    prompt = tokenize(byte_level(merges=0), "a▖")
    assert [token.visible for token in prompt.tokens] == ["a", "⟨E2⟩", "⟨96⟩", "⟨96⟩"]
    assert {(token.start, token.end) for token in prompt.tokens[1:]} == {(1, 2)}
    assert find_span(prompt, "▖") == (1, 4)
    llama = tokenize(sentencepiece_bpe(), "日")
    assert [token.visible for token in llama.tokens[-3:]] == ["⟨E6⟩", "⟨97⟩", "⟨A5⟩"]
    assert find_span(llama, "日")[1] == len(llama)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" Paris", "·Paris"),
        ("\n", "↵"),
        ("\t\r", "⇥␍"),
        ("\x00\x1b\x7f", "␀␛␡"),
        ("", "⟨empty⟩"),
        ("a\u200bb", "a⟨U+200B⟩b"),
        ("\u202egnp.exe", "⟨U+202E⟩gnp.exe"),
        ("\xa0\u3000", "⟨U+00A0⟩⟨U+3000⟩"),
        ("\u0301a\u0301", "◌\u0301a\u0301"),
        ("❤\ufe0f", "❤⟨U+FE0F⟩"),
        ("\ue000", "⟨U+E000⟩"),
        ("<b>", "<b>"),
        (b" \xe2\x96", "·⟨E2 96⟩"),
        (b"\x96\x96 caf\xc3\xa9\xff", "⟨96 96⟩·café⟨FF⟩"),
    ],
)
def test_nothing_in_a_token_stays_invisible(text: str | bytes, shown: str) -> None:
    assert visible(text) == shown


def test_a_token_alone_is_shown_like_in_a_prompt(tokenizer: Any) -> None:
    prompt = tokenize(tokenizer, "The Space Needle 日 is", bos="auto")
    assert [visible_token(tokenizer, token.id) for token in prompt.tokens] == [
        t.visible for t in prompt.tokens
    ]


def test_ids_without_a_piece_have_a_name() -> None:
    tokenizer = byte_level()
    assert visible_token(tokenizer, len(tokenizer) + 5) == f"⟨id {len(tokenizer) + 5}⟩"
    assert visible_token(tokenizer, -1) == "⟨id -1⟩"


def test_added_tokens_are_shown_as_written_even_after_they_were_added() -> None:
    tokenizer = byte_level.__wrapped__()
    before = visible_token(tokenizer, len(tokenizer))
    tokenizer.add_tokens(["<think Ġ>"])
    assert before.startswith("⟨id ")
    assert visible_token(tokenizer, len(tokenizer) - 1) == "<think·Ġ>"


def test_pieces_are_told_apart_by_style() -> None:
    assert "·Paris" in [token.visible for token in tokenize(sentencepiece_bpe(), "the Paris").tokens]
    assert any(token.visible.startswith("##") for token in tokenize(word_piece(), "downtowner").tokens)


@pytest.mark.parametrize(
    ("text", "occurrence", "span_text"),
    [
        ("the", 0, "the"),
        ("the", 1, " the"),
        ("the", -1, " the"),
        (" the ", 0, " the"),
        ("the the", 1, " the the"),
    ],
)
def test_the_user_chooses_the_occurrence(text: str, occurrence: int, span_text: str) -> None:
    prompt = tokenize(byte_level(), "the the the")
    assert prompt.text_of(*find_span(prompt, text, occurrence)).rstrip() == span_text


@pytest.mark.parametrize(
    ("text", "occurrence", "sentence"),
    [
        ("Rome", 0, "'Rome' is not in the prompt. Copy it from the prompt, or choose tokens."),
        ("paris", 0, "'paris' is not in the prompt: it has 'Paris', in another case. Copy it"),
        ("", 0, "'' is not in the prompt"),
        ("  ", 0, "'  ' is not in the prompt"),
        ("Paris", 1, "'Paris' occurs once in the prompt: occurrence 1 was asked for, counted from 0."),
        ("i", 9, "'i' occurs 3 times in the prompt: occurrence 9"),
    ],
)
def test_words_that_are_not_there(text: str, occurrence: int, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        find_span(tokenize(byte_level(), "This is Paris"), text, occurrence)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"tokenizer": None, "text": "a"},
            "This model has no tokenizer. Load it with one, or give token ids.",
        ),
        ({"text": ""}, "The prompt is empty. Type a sentence that ends before its answer."),
        (
            {"text": "\u200b", "tokenizer": "wordpiece"},
            "The prompt has no token that this tokenizer knows. Type a word.",
        ),
        ({"text": "aaaa", "limit": 3}, "The prompt has 4 tokens; this model reads at most 3. Shorten it."),
        (
            {"text": "a", "bos": "always", "tokenizer": "wordpiece"},
            "This tokenizer has no BOS token. Set BOS to auto",
        ),
    ],
)
def test_prompts_that_cannot_be_read(arguments: dict[str, Any], sentence: str) -> None:
    tokenizer = arguments.pop("tokenizer", "byte-level, letters")
    with pytest.raises(InputError) as caught:
        tokenize(STYLES[tokenizer]() if tokenizer else None, **arguments)
    assert sentence in str(caught.value)


def test_warnings_name_what_spoils_a_prompt() -> None:
    gpt2, llama, uni = byte_level(), sentencepiece_bpe(), unigram()
    assert prompt_warnings(tokenize(gpt2, "The capital"), gpt2) == ()
    (trailing,) = prompt_warnings(tokenize(gpt2, "The capital "), gpt2)
    assert trailing.startswith("The prompt ends with a space or line break")
    (doubled,) = prompt_warnings(tokenize(llama, "<s>the"), llama)
    assert doubled == "The prompt starts with two BOS tokens: one is typed in it. Set BOS to never."
    (unknown,) = prompt_warnings(tokenize(uni, "the ü", bos="never"), uni)
    assert "does not know the characters at token " in unknown


def test_alignment_shows_where_prompts_differ() -> None:
    tokenizer = word_piece()
    first, second = (tokenize(tokenizer, text, bos="never") for text in ("the cat is", "the Seattle is"))
    alignment = align(first, second)
    assert alignment.rows[0] == (0, 0)
    assert alignment.rows[-1] == (len(first) - 1, len(second) - 1)
    clean, corrupted, marks = alignment.text.splitlines()
    assert clean.index("| is") == corrupted.index("| is")
    assert "^" in marks
    assert "the" not in marks
    assert alignment.summary == "clean has cat where corrupted has seattle"


def test_alignment_of_wide_characters_keeps_columns() -> None:
    first, second = (
        TokenizedPrompt("", tuple(Token(n, hash(word), word, 0, 0) for n, word in enumerate(words)))
        for words in (
            ("日本", "x"),
            ("ab", "x"),
        )
    )
    assert align(first, second, ("A", "B")).text == "A | 日本 | x\nB | ab   | x\n  | ^^^^"


def test_equal_prompts_align_without_a_mark() -> None:
    prompt = tokenize(byte_level(), "the cat")
    alignment = align(prompt, prompt)
    assert alignment.rows == tuple((position, position) for position in range(len(prompt)))
    assert "^" not in alignment.text
    assert alignment.summary == "they are equal"


def test_prompts_of_unequal_length_are_refused_with_both_shown() -> None:
    tokenizer = byte_level(merges=0)
    rome, paris = (tokenize(tokenizer, text) for text in ("in Rome", "in Paris"))
    with pytest.raises(LengthMismatch) as caught:
        require_equal_length(rome, paris)
    message = str(caught.value)
    assert message.startswith(
        "The prompts differ in length, 7 and 8 tokens: clean has R o m e where corrupted has P a"
    )
    assert message.endswith("Change words until both have as many tokens.")
    assert "\n" not in message
    assert caught.value.alignment.text.count("\n") == 2
    same = require_equal_length(rome, tokenize(tokenizer, "in Bonn"))
    assert len(same.rows) == 7
