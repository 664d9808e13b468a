import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from mi_core.answers import AnswerChoice, answer_choices, answer_warnings, choose_answer, score_answer
from mi_core.engine import Edit, run
from mi_core.errors import InputError
from mi_core.tokens import tokenize
from tests.disk import byte_level, sentencepiece_bpe, unigram, word_piece
from tests.tiny import VOCAB, tiny
from tests.words import word_tokenizer

STYLES = {
    "byte-level": byte_level,
    "letters": lambda: byte_level(merges=0),
    "sentencepiece": sentencepiece_bpe,
    "unigram": unigram,
    "wordpiece": word_piece,
}


@pytest.fixture(params=STYLES)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return STYLES[request.param]()


@pytest.mark.parametrize("bos", ["auto", "never"])
@pytest.mark.parametrize("answer", ["Paris", "San Francisco"])
def test_prompt_and_answer_are_what_the_whole_text_is(tokenizer: Any, answer: str, bos: Any) -> None:
    """Identity: prompt ids + answer ids = ids of prompt and answer as one text, wherever that can be."""
    prompt = tokenize(tokenizer, "The capital of France is", bos=bos)
    for choice in answer_choices(tokenizer, prompt, answer):
        whole = tokenize(tokenizer, prompt.text + choice.text, bos=bos)
        assert (prompt.ids + choice.ids == whole.ids) == choice.joint
        assert choice.single_token == (len(choice.ids) == 1)
        assert choice.leading_space == choice.text.startswith(" ")
        assert len(choice.pieces) == len(choice.ids)
    assert choose_answer(tokenizer, prompt, answer).joint


def test_both_forms_are_offered_and_shown() -> None:
    tokenizer = byte_level()
    spaced, bare = answer_choices(tokenizer, tokenize(tokenizer, "capital is"), "Paris")
    assert ("".join(spaced.pieces), "".join(bare.pieces)) == ("·Paris", "Paris")
    assert (spaced.leading_space, bare.leading_space) == (True, False)


def test_a_word_alone_gets_no_second_space_before_it() -> None:
    """SentencePiece puts a space before every text: " Paris" alone would become two spaces and "Paris"."""
    tokenizer = sentencepiece_bpe()
    spaced, bare = answer_choices(tokenizer, tokenize(tokenizer, "the capital is"), "Paris")
    assert spaced.pieces == ("·Paris",)
    assert bare.pieces == ("Paris",)


def test_no_word_is_lost_behind_an_anchor_that_the_tokenizer_does_not_know() -> None:
    tokenizer = word_tokenizer()  # `.` and `.Paris` are both <unk> to it
    forms = answer_choices(tokenizer, tokenize(tokenizer, "in the city of"), "Paris Rome")
    assert {form.pieces for form in forms} == {("·Paris", "·Rome")}


def test_word_piece_has_one_form_behind_a_space() -> None:
    tokenizer = word_piece()
    prompt = tokenize(tokenizer, "the capital of france is")
    spaced, *rest = answer_choices(tokenizer, prompt, "Paris")
    assert spaced.pieces == ("paris",)
    assert all(choice.ids != spaced.ids for choice in rest)


@pytest.mark.parametrize(
    ("prompt", "answer", "leading"),
    [
        ("The capital is", "Paris", True),
        ("The capital is", " Paris", True),
        ("The capital is ", "Paris", False),
        ("The capital is\n", "Paris", False),
        ('He said "', "Paris", False),
        ("f(", "x", False),
        ("The capital is Paris", ".", False),
        ("The capital is ", " Paris", True),
    ],
)
def test_the_usual_form_comes_first(prompt: str, answer: str, leading: bool) -> None:
    tokenizer = byte_level(merges=0)
    assert choose_answer(tokenizer, tokenize(tokenizer, prompt), answer).leading_space == leading


def test_a_merge_across_the_boundary_is_seen_and_avoided() -> None:
    tokenizer = byte_level()
    prompt = tokenize(tokenizer, "The capital is ")
    choice = choose_answer(tokenizer, prompt, "Paris")
    assert tokenize(tokenizer, prompt.text + "Paris").ids[: len(prompt)] != prompt.ids
    assert not choice.joint
    assert "".join(choice.pieces) == "Paris"
    (warning,) = [text for text in answer_warnings(choice) if "merge" in text]
    assert warning.startswith(
        "Behind this prompt the tokenizer would merge the answer with the prompt's end; "
    )


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ("", "The answer is empty. Type a word, or leave it out to use the model's own top token."),
        ("   ", "The answer is empty"),
        ("x" * 1001, "The answer has 1,001 characters. Give at most 1,000."),
    ],
)
def test_answers_that_are_none(answer: str, sentence: str) -> None:
    tokenizer = byte_level()
    with pytest.raises(InputError) as caught:
        answer_choices(tokenizer, tokenize(tokenizer, "is"), answer)
    assert sentence in str(caught.value)


def choice(*pieces: str) -> AnswerChoice:
    ids = tuple(hash(piece) for piece in pieces)
    return AnswerChoice(
        "".join(pieces).replace("·", " "), ids, pieces, pieces[0].startswith("·"), len(pieces) == 1
    )


@pytest.mark.parametrize(
    ("answer", "distractor", "sentences"),
    [
        (choice("·Paris"), None, []),
        (choice("·Paris"), choice("·Rome"), []),
        (
            choice("·San", "·Francisco"),
            None,
            ["The answer is 2 tokens (·San ·Francisco); what reads one token reads ·San, which other words"],
        ),
        (
            choice("·San", "·Francisco"),
            choice("·San", "·Diego"),
            [
                "The answer is 2",
                "The distractor is 2",
                "Answer and distractor begin with the same token ·San: ",
            ],
        ),
        (
            choice("·Paris"),
            choice("·Paris"),
            ["Answer and distractor are the same tokens: their difference is zero."],
        ),
    ],
)
def test_the_first_token_shortcut_is_flagged(
    answer: AnswerChoice, distractor: AnswerChoice | None, sentences: list[str]
) -> None:
    found = answer_warnings(answer, distractor)
    assert len(found) == len(sentences)
    assert all(text.startswith(start) for text, start in zip(found, sentences, strict=True))


def tiny_choice(*ids: int) -> AnswerChoice:
    return AnswerChoice("x", ids, tuple(str(token_id) for token_id in ids), False, len(ids) == 1)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
@pytest.mark.parametrize("ids", [(5,), (5, 6, 5, 90)])
def test_one_forward_pass_equals_step_by_step(family: str, ids: tuple[int, ...]) -> None:
    model, prompt = tiny(family), tokenize(byte_level(merges=0), "abc")
    prompt = replace(prompt, tokens=tuple(replace(t, id=t.id % VOCAB) for t in prompt.tokens))
    score = score_answer(model, prompt, tiny_choice(*ids))
    so_far, expected = list(prompt.ids), []
    for token_id in ids:
        logits = run(model, torch.tensor([so_far])).logits[0, -1]
        expected.append(float(logits.log_softmax(-1)[token_id]))
        so_far.append(token_id)
    assert score.per_token == pytest.approx(expected, abs=1e-9)
    assert score.log_probability == pytest.approx(sum(expected), abs=1e-9)
    first = run(model, torch.tensor([list(prompt.ids)])).logits[0, -1]
    assert score.first_rank == 1 + int(first.argsort(descending=True).tolist().index(ids[0]))


def test_probabilities_of_all_tokens_add_up_to_one_and_edits_change_them() -> None:
    model, prompt = tiny("llama"), tokenize(byte_level(merges=0), "ab")
    prompt = replace(prompt, tokens=tuple(replace(t, id=t.id % VOCAB) for t in prompt.tokens))
    total = sum(math.exp(score_answer(model, prompt, tiny_choice(n)).log_probability) for n in range(VOCAB))
    assert total == pytest.approx(1, abs=1e-9)
    edited = score_answer(model, prompt, tiny_choice(5), edits=[Edit("mlp_out", 1, "zero")])
    assert edited.log_probability != score_answer(model, prompt, tiny_choice(5)).log_probability
