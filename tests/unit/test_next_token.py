"""Next token and surprise: the model's own loss, softmax by hand, mistakes, records."""

import json
import math

import numpy as np
import pytest
import torch

from mi_core import load_model
from mi_core.analyses import NextTokenInputs, NextTokenResult, next_token
from mi_core.analyses.next_token_numbers import surprises_of, table_at
from mi_core.engine import build_model
from mi_core.errors import InputError
from mi_core.model.model import LoadedModel
from tests.tiny import VOCAB, hf_model
from tests.words import word_tokenizer

PROMPT = "The Eiffel Tower is located in the city of"


@pytest.fixture(scope="module")
def atlas() -> LoadedModel:
    return load_model("atlas")


@pytest.fixture(scope="module")
def models() -> dict[str, LoadedModel]:
    """One family with learned positions, one with softcaps and tied embeddings, in float64."""
    return {name: build_model(hf_model(name, torch.float64), word_tokenizer()) for name in ("gpt2", "gemma2")}


def ids_of(result: NextTokenResult) -> torch.Tensor:
    return torch.tensor([[token.id for token in result.tokens]])


def test_surprises_add_up_to_the_models_own_loss(atlas: LoadedModel, models: dict[str, LoadedModel]) -> None:
    for model in (atlas, *models.values()):
        result = next_token(model, NextTokenInputs(PROMPT))
        ids = ids_of(result)
        with torch.no_grad():
            loss = float(model.hf(input_ids=ids, labels=ids).loss)
        assert result.mean_surprise == pytest.approx(loss, rel=1e-5)
        assert result.total_surprise == pytest.approx(loss * (len(result.tokens) - 1), rel=1e-5)
        assert all(check.passed for check in result.checks)


@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
@pytest.mark.parametrize("temperature", [1.0, 0.25, 4.0])
def test_the_table_is_the_softmax_of_the_models_logits(
    models: dict[str, LoadedModel], name: str, temperature: float
) -> None:
    result = next_token(models[name], NextTokenInputs(PROMPT, k=VOCAB, position=4, temperature=temperature))
    with torch.no_grad():
        logits = models[name].hf(ids_of(result)).logits[0, 4].double().numpy()
    heated = np.exp(logits / temperature - (logits / temperature).max())
    expected = heated / heated.sum()
    np.testing.assert_allclose(result.probabilities, expected[result.ids], rtol=1e-6)
    np.testing.assert_allclose(result.logits, logits[result.ids], rtol=1e-6)
    assert result.ids.tolist() == np.argsort(-logits, kind="stable").tolist()
    assert result.probabilities.sum() == pytest.approx(1)
    assert result.ranks.tolist() == list(range(VOCAB))
    assert result.entropy == pytest.approx(-(expected * np.log(expected)).sum(), rel=1e-6)


def test_temperature_changes_the_table_only(models: dict[str, LoadedModel]) -> None:
    cool, own = (next_token(models["gpt2"], NextTokenInputs(PROMPT, temperature=t)) for t in (0.1, 1.0))
    assert cool.probabilities[0] > own.probabilities[0]
    np.testing.assert_array_equal(cool.ids, own.ids)
    np.testing.assert_array_equal(cool.logits, own.logits)
    np.testing.assert_array_equal(cool.surprise, own.surprise)


def test_logits_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]))
    found = surprises_of(logits, [0, 1])
    assert math.isnan(found.log_probabilities[0])
    assert found.log_probabilities[1] == pytest.approx(math.log(0.25))
    assert found.ranks.tolist() == [-1, 1]  # the tie with token 2 does not count against it
    assert found.entropies[1] == pytest.approx(1.5 * math.log(2))
    assert sorted(found.alternative_ids[1].tolist()) == [-1, -1, -1, 0, 2]
    np.testing.assert_allclose(np.exp(found.alternative_log_probabilities[1, :2]), [0.5, 0.25], rtol=1e-6)
    table = table_at(logits[1], 2, 1.0, {"target": 2, "distractor": 0})
    assert table.ids.tolist() == [2, 1, 0]
    assert table.roles == ("target", "top", "distractor")
    assert table.ranks.tolist() == [0, 1, 2]
    np.testing.assert_allclose(np.exp(table.log_probabilities), [0.7, 0.2, 0.1], rtol=1e-6)


def test_blocks_of_positions_are_one_calculation(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, ids = torch.randn(23, 50, dtype=torch.float64), list(range(23))
    whole = surprises_of(logits, ids)
    monkeypatch.setattr("mi_core.analyses.next_token_numbers.CHUNK", 120)
    parts = surprises_of(logits, ids)
    np.testing.assert_array_equal(whole.log_probabilities, parts.log_probabilities)
    np.testing.assert_array_equal(whole.alternative_ids, parts.alternative_ids)


def test_alternatives_never_hold_the_token_itself(atlas: LoadedModel) -> None:
    result = next_token(atlas, NextTokenInputs(PROMPT))
    for position, token in list(enumerate(result.tokens))[1:]:
        assert token.id not in result.alternative_ids[position]
        likelier = result.alternative_log_probabilities[position] > result.token_log_probabilities[position]
        assert likelier.sum() == min(5, result.token_ranks[position])


def test_target_and_distractor_have_rows_wherever_they_rank(atlas: LoadedModel) -> None:
    result = next_token(atlas, NextTokenInputs(PROMPT, k=3, answer="Paris", distractor="Needle"))
    assert len(result.ids) == 4
    assert result.roles == ("target", "top", "top", "distractor")
    assert (result.ranks[0], result.visible(int(result.ids[0]))) == (0, "·Paris")
    assert result.ranks[3] > 3


def test_a_multi_token_target_says_which_token_is_read(atlas: LoadedModel) -> None:
    result = next_token(atlas, NextTokenInputs(PROMPT, answer="Constantinople"))
    assert any("tokens" in warning for warning in result.warnings)
    assert "target" in result.roles


def test_more_tokens_than_the_vocabulary_gives_all(models: dict[str, LoadedModel]) -> None:
    assert len(next_token(models["gpt2"], NextTokenInputs("The", k=1000)).ids) == VOCAB


def test_a_single_token_has_a_table_and_no_surprise(models: dict[str, LoadedModel]) -> None:
    result = next_token(models["gpt2"], NextTokenInputs("The", bos="never"))
    assert len(result.tokens) == 1
    assert np.isnan(result.surprise).all()
    assert result.total_surprise == 0
    assert math.isnan(result.mean_surprise)
    assert any("single token" in warning for warning in result.warnings)
    assert all(check.passed for check in result.checks)
    assert NextTokenResult.from_json(result.to_json()).to_json() == result.to_json()


def test_behind_the_bos_token_alone_a_target_can_be_asked_for(atlas: LoadedModel) -> None:
    result = next_token(atlas, NextTokenInputs(PROMPT, position=0, answer="The"))
    assert result.tokens[0].special
    assert "target" in result.roles


def test_the_same_word_twice_has_two_surprises(models: dict[str, LoadedModel]) -> None:
    result = next_token(models["gpt2"], NextTokenInputs("the city the city the city"))
    assert [token.visible for token in result.tokens].count("·city") == 3
    assert len(set(result.surprise[1:].round(9).tolist())) == 5


@pytest.mark.parametrize("prompt", ["日本語 \N{GRINNING FACE} \n\t", "Paris " * 100])
def test_any_text_is_read(atlas: LoadedModel, prompt: str) -> None:
    result = next_token(atlas, NextTokenInputs(prompt))
    assert np.isfinite(result.surprise[1:]).all()
    assert all(check.passed for check in result.checks)


def test_half_precision_logits_are_read_in_float64() -> None:
    model = build_model(hf_model("llama", torch.bfloat16), word_tokenizer())
    result = next_token(model, NextTokenInputs(PROMPT))
    with torch.no_grad():
        expected = model.hf(ids_of(result)).logits[0].double().log_softmax(-1)
    ids = ids_of(result)[0, 1:, None]
    np.testing.assert_allclose(
        result.token_log_probabilities[1:], expected[:-1].gather(-1, ids)[:, 0].numpy(), atol=0.05
    )
    assert result.logits.dtype == np.float64


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prompt": ""}, "empty"),
        ({"k": 0}, "0 tokens"),
        ({"k": 10_000}, "10000 tokens"),
        ({"k": 2.5}, "k is 2.5"),
        ({"temperature": 0.0}, "temperature is 0"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": "hot"}, "temperature is 'hot'"),
        ({"position": -1}, "position is -1"),
        ({"answer": ""}, "answer is empty"),
        ({"bos": "maybe"}, "bos is 'maybe'"),
        ({"prompt": "x" * 100_001}, "more than 100,000"),
    ],
)
def test_what_a_user_gets_wrong(wrong: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        NextTokenInputs(**{"prompt": "The", **wrong})


def test_a_position_behind_the_prompt_is_refused(models: dict[str, LoadedModel]) -> None:
    with pytest.raises(InputError, match="no token 99"):
        next_token(models["gpt2"], NextTokenInputs("The city", position=99))


def test_a_prompt_beyond_the_models_context_is_refused(models: dict[str, LoadedModel]) -> None:
    with pytest.raises(InputError, match="at most 64"):
        next_token(models["gpt2"], NextTokenInputs("city " * 65))


def test_a_record_comes_back_exactly_and_a_damaged_one_is_refused(atlas: LoadedModel) -> None:
    result = next_token(atlas, NextTokenInputs(PROMPT, answer="Paris"))
    text = result.to_json()
    assert NextTokenResult.from_json(text).to_json() == text
    record = json.loads(text)
    for key, value in (("ranks", [0]), ("roles", ["winner"]), ("tokens", None), ("position", 99)):
        with pytest.raises(InputError):
            NextTokenResult.from_json(json.dumps({**record, key: value}))


def test_the_table_has_one_number_per_row(atlas: LoadedModel) -> None:
    result = next_token(atlas, NextTokenInputs(PROMPT, k=4))
    frame = result.to_frame()
    assert frame["part"].tolist().count("next token") == 4 * 3
    surprise = frame["value"].to_numpy(float)[frame["metric"].to_numpy() == "surprise"]
    assert surprise.sum() == pytest.approx(result.total_surprise)
    assert np.isfinite(frame["value"].to_numpy(float)).all()
    assert set(frame["unit"]) == {"probability", "nats", "logits"}
