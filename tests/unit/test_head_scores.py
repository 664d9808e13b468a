"""Head scores: hand-made patterns, sequences without artefacts, Atlas' known heads, labels, records."""

import dataclasses
import json
from functools import lru_cache

import numpy as np
import pytest
import torch

from mi_core import load_model
from mi_core.analyses import HeadScoresInputs, HeadScoresResult, head_scores
from mi_core.analyses.head_scores_inputs import SCORE_NAMES
from mi_core.analyses.head_scores_sequences import pattern_scores, repeated_tokens, usable_tokens
from mi_core.engine import run
from mi_core.errors import InputError
from mi_core.visible import visible_token
from tests.attention_models import model_of
from tests.tiny import tiny
from tests.two_passes import agree
from tests.words import word_tokenizer

LENGTH = 5


@lru_cache(maxsize=1)
def atlas_scores() -> HeadScoresResult:
    return head_scores(load_model("atlas"), HeadScoresInputs())


def scores(keys: list[int], length: int = LENGTH) -> dict[str, float]:
    """Scores of a head whose query q reads only keys[q]."""
    pattern = torch.nn.functional.one_hot(torch.tensor(keys), len(keys)).float()[None, None]
    return dict(zip(SCORE_NAMES, pattern_scores(pattern, length)[:, 0, 0].tolist(), strict=True))


BOS_SEQUENCE = 1 + 2 * LENGTH


def test_an_exact_induction_head_scores_1_and_nothing_else() -> None:
    got = scores([0] * (1 + LENGTH) + list(range(2, 2 + LENGTH)))
    assert got["induction"] == 1
    assert got["duplicate_token"] == got["current_token"] == 0
    assert got["previous_token"] == 0


def test_an_exact_duplicate_token_head() -> None:
    got = scores([0] * (1 + LENGTH) + list(range(1, 1 + LENGTH)))
    assert got["duplicate_token"] == 1
    assert got["induction"] == got["previous_token"] == 0


def test_an_exact_previous_token_head() -> None:
    got = scores([0, *range(BOS_SEQUENCE - 1)])
    assert got["previous_token"] == 1
    assert got["induction"] == got["duplicate_token"] == 0
    assert got["first_token"] == pytest.approx(1 / (BOS_SEQUENCE - 1))


def test_a_resting_head_is_nothing_but_resting() -> None:
    """Its first word reads position 0, which is the token before: that is no previous-token attention."""
    got = scores([0] * BOS_SEQUENCE)
    assert got.pop("first_token") == 1
    assert set(got.values()) == {0.0}


def test_without_bos_too_position_0_counts_for_no_score_but_its_own() -> None:
    got = scores([0] * (2 * LENGTH))
    assert got.pop("first_token") == 1
    assert set(got.values()) == {0.0}
    assert scores([0] * LENGTH + [0, 1, 2, 3, 4])["duplicate_token"] == 1
    assert scores([0] * LENGTH + [1, 2, 3, 4, 5])["induction"] == 1
    assert scores(list(range(2 * LENGTH)))["current_token"] == 1


@pytest.mark.parametrize("bos", [True, False])
def test_sequences_are_the_same_ordinary_tokens_twice(bos: bool) -> None:
    tokenizer = word_tokenizer(bos=bos)
    usable = usable_tokens(tokenizer, 97)
    drawn = repeated_tokens(usable, 0 if bos else None, 20, seed=3)
    body = drawn[1:] if bos else drawn
    assert body[:20] == body[20:]
    assert len(set(body[:20])) == 20, "a token that occurs twice in one copy has two earlier copies"
    assert not set(body) & {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    assert drawn != repeated_tokens(usable, 0 if bos else None, 20, seed=4)


def test_tokens_without_a_visible_letter_are_left_out() -> None:
    model = load_model("atlas")
    usable = set(usable_tokens(model.tokenizer, model.dims.d_vocab).tolist())
    shown = {token: visible_token(model.tokenizer, token) for token in range(model.dims.d_vocab)}
    empty = {token for token, text in shown.items() if not text.strip("·↵⇥") or "⟨" in text}
    assert empty
    assert not usable & empty
    assert len(usable) > 3000


def test_the_known_heads_of_atlas_are_found() -> None:
    result = atlas_scores()
    assert result.length == 50
    assert result.bos
    assert result.labels(2, 0) == ("previous_token",)
    assert result.labels(4, 0) == ("induction",)
    assert result.labels(7, 3) == ("none",)
    assert (result.spread("induction") < 0.15).all()
    assert result.strongest("previous_token", 2) == [(2, 0), (2, 1)]


def test_a_score_is_the_mean_of_single_sequences_taken_by_hand() -> None:
    model, result = load_model("atlas"), atlas_scores()
    usable = usable_tokens(model.tokenizer, model.dims.d_vocab)
    ids = repeated_tokens(usable, model.tokenizer.bos_token_id, 50, seed=2)
    pattern = run(model, torch.tensor([ids]), capture=[("pattern", 4)])["pattern", 4][0, 0]
    by_hand = float(np.mean([pattern[q, q - 50 + 1] for q in range(51, 101)]))
    assert result.samples[SCORE_NAMES.index("induction"), 2, 4, 0] == pytest.approx(by_hand, abs=1e-6)


def test_equal_seeds_give_equal_scores_and_later_seeds_continue() -> None:
    model = model_of("llama")
    both = head_scores(model, HeadScoresInputs(length=9, samples=2, seed=5))
    again = head_scores(model, HeadScoresInputs(length=9, samples=2, seed=5))
    np.testing.assert_array_equal(both.samples, again.samples)
    second = head_scores(model, HeadScoresInputs(length=9, samples=1, seed=6))
    np.testing.assert_allclose(both.samples[:, 1], second.samples[:, 0], atol=1e-12)
    assert np.isnan(second.spread("induction")).all()


def test_a_short_context_gets_shorter_sequences_and_says_so() -> None:
    result = head_scores(model_of("gpt2"), HeadScoresInputs(length=50, samples=2))
    assert result.length == 31  # 1 + 2 * 31 = 63 of 64
    assert "31 tokens, not the 50" in result.warnings[0]


def test_a_model_without_a_tokenizer_is_tested_without_bos() -> None:
    result = head_scores(tiny("qwen3"), HeadScoresInputs(length=10, samples=2))
    assert not result.bos
    assert "no BOS" in result.warnings[-1]
    assert [check.passed for check in result.checks] == [True]


def test_testing_changes_nothing_in_the_model() -> None:
    model = model_of("mistral")
    tokens = torch.tensor([[0, 5, 6, 7, 5, 6]])
    before = run(model, tokens).logits
    head_scores(model, HeadScoresInputs(length=8, samples=2))
    assert agree(run(model, tokens).logits, before)
    assert model.modules_with_hooks() == 0


@pytest.mark.parametrize(
    "wrong", [{"length": 1}, {"samples": 0}, {"seed": -1}, {"threshold": 0.0}, {"threshold": float("nan")}]
)
def test_what_cannot_be_tested_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        HeadScoresInputs(**wrong)  # type: ignore[arg-type]


def test_the_table_and_the_record_have_every_number() -> None:
    result = atlas_scores()
    frame = result.to_frame()
    assert len(frame) == 5 * 8 * 4
    row = frame[(frame["layer"] == 4) & (frame["head"] == 0) & (frame["score"] == "induction")]
    assert row["value"].item() == result.mean("induction")[4, 0]
    again = HeadScoresResult.from_json(result.to_json())
    np.testing.assert_array_equal(again.samples, result.samples)
    assert dataclasses.replace(again, samples=result.samples).to_json() == result.to_json()
    assert len(result.labels_frame()) == 32


def test_a_damaged_record_is_refused() -> None:
    record = json.loads(atlas_scores().to_json())
    for change in ({"samples": [1]}, {"score_names": ["x"]}, {"inputs": {"length": "many"}}):
        with pytest.raises(InputError):
            HeadScoresResult.from_json(json.dumps({**record, **change}))
