"""What a user can get wrong with a lens, what tokens can look like, and what a record must survive."""

import json
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mi_core.analyses import (
    LogitLensInputs,
    LogitLensResult,
    LogitLensStepsInputs,
    LogitLensStepsResult,
    logit_lens,
    logit_lens_steps,
)
from mi_core.engine import build_model
from mi_core.errors import Cancelled, InputError
from mi_core.model.model import LoadedModel
from tests.tiny import CONFIGS, hf_model
from tests.words import word_tokenizer

PROMPT = "The Eiffel Tower is in the city of"


@lru_cache(maxsize=4)
def model_of(name: str = "llama", bos: bool = True) -> LoadedModel:
    return build_model(hf_model(name), word_tokenizer(bos=bos))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": 3}, "prompt is empty"),
        ({"prompt": "x" * 100_001}, "more than 100,000"),
        ({"site": "q"}, "resid_pre, resid_mid"),
        ({"target": "both"}, "answer, next token"),
        ({"answer": " "}, "answer is empty"),
        ({"tracked": ("Rome", "")}, "tracked word is empty"),
        ({"tracked": tuple("abcdefghi")}, "at most 8"),
        ({"k": 0}, "top tokens is 0"),
        ({"stride": 0}, "stride is 0"),
        ({"positions": ()}, "not in order"),
        ({"positions": (3, 1)}, "not in order"),
        ({"positions": (-1,)}, "position is -1"),
        ({"bos": "sometimes"}, "auto, always, never"),
        ({"lens": 4}, "lens is empty"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        LogitLensInputs(**{"prompt": PROMPT, **wrong})


def test_lists_become_tuples_and_inputs_are_a_cache_key() -> None:
    inputs = LogitLensInputs(PROMPT, tracked=["Rome"], positions=[1, 2])  # type: ignore[arg-type]
    assert hash(inputs) == hash(LogitLensInputs(PROMPT, tracked=("Rome",), positions=(1, 2)))
    assert LogitLensInputs.from_dict(json.loads(json.dumps(inputs.to_dict()))) == inputs


def test_a_position_that_the_prompt_does_not_have() -> None:
    with pytest.raises(InputError, match="Position 40 is not in the prompt: it has 9 tokens"):
        logit_lens(model_of(), LogitLensInputs(PROMPT, positions=(2, 40)))
    with pytest.raises(InputError, match="it has 9 tokens"):
        logit_lens_steps(model_of(), LogitLensStepsInputs(PROMPT, position=9))


def test_a_prompt_of_one_token() -> None:
    result = logit_lens(model_of(bos=False), LogitLensInputs("Paris", target="next token"))
    assert (len(result.tokens), result.positions) == (1, (0,))
    assert result.target_ids.tolist() == [result.answer.id]
    assert result.rank[-1, 0] == 1


def test_a_prompt_of_two_thousand_tokens_is_read_where_it_is_looked_at() -> None:
    config = AutoConfig.for_model("llama", **{**CONFIGS["llama"], "max_position_embeddings": 4096})
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval().double()
    model = build_model(hf, word_tokenizer())
    prompt = " ".join(["the city of Paris is"] * 400)
    result = logit_lens(model, LogitLensInputs(prompt, positions=tuple(range(1990, 2000))))
    assert (len(result.tokens), result.kl.shape) == (2000, (4, 10))
    with torch.inference_mode():
        ids = torch.tensor([[token.id for token in result.tokens]])
        own = hf(input_ids=ids, use_cache=False).logits[0, 1990:].log_softmax(-1)
    np.testing.assert_allclose(result.output_entropy, -(own.exp() * own).sum(-1).numpy(), atol=1e-9)
    np.testing.assert_array_equal(result.top_ids[-1, :, 0], own.argmax(-1).numpy())


def test_equal_tokens_stay_apart() -> None:
    result = logit_lens(model_of(), LogitLensInputs("the the the the"))
    assert result.kl.shape[1] == 5
    frame = result.to_frame()
    shown = frame[(frame["statistic"] == "kl") & (frame["source"] == "lens")]
    assert sorted(set(shown["position"])) == [0, 1, 2, 3, 4]
    assert len(shown) == result.kl.size


def test_a_word_of_several_tokens_is_followed_by_its_first_and_said() -> None:
    result = logit_lens(model_of(), LogitLensInputs(PROMPT, answer="San Francisco", tracked=("Paris Rome",)))
    assert result.answer.pieces == ("·San", "·Francisco")
    assert result.answer.visible == "·San"
    assert sum("only the first" in warning for warning in result.warnings) == 2


def test_a_word_that_is_followed_already_is_followed_once() -> None:
    result = logit_lens(model_of(), LogitLensInputs(PROMPT, answer="Rome", tracked=("Rome", "Oslo", "Oslo")))
    assert [word.visible for word in result.words] == ["·Rome", "·Oslo"]
    assert [word.role for word in result.words] == ["answer", "tracked"]
    assert not result.warnings
    two = logit_lens(model_of(), LogitLensInputs(PROMPT, answer="San", tracked=("San Francisco",)))
    assert [word.visible for word in two.words] == ["·San"]
    assert "followed once: 'San Francisco' and ' San' begin with it" in two.warnings[0]


def test_cancelling_keeps_the_positions_that_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    from mi_core.analyses import logit_lens_statistics

    monkeypatch.setattr(logit_lens_statistics, "CHUNK_BYTES", 97 * 8 * 6 * 10)  # two positions at once

    def stop(step: Any) -> None:
        if step.done >= 4:
            raise Cancelled

    result = logit_lens(model_of(), LogitLensInputs(PROMPT), on_step=stop)
    whole = logit_lens(model_of(), LogitLensInputs(PROMPT))
    assert (result.cancelled, result.positions) == (True, (0, 1, 2, 3))
    np.testing.assert_allclose(result.kl, whole.kl[:, :4], atol=1e-12)
    assert not whole.cancelled


def test_a_lens_that_does_not_exist_is_told() -> None:
    with pytest.raises(InputError):
        logit_lens(model_of(), LogitLensInputs(PROMPT, lens="no such lens"))


@lru_cache(maxsize=1)
def recorded() -> LogitLensResult:
    return logit_lens(model_of(), LogitLensInputs(PROMPT, tracked=("Rome",), distractor="Oslo", stride=2))


def test_a_record_brings_the_same_numbers_back() -> None:
    result = recorded()
    again = LogitLensResult.from_json(result.to_json())
    assert again.to_json() == result.to_json()
    assert (again.inputs, again.words, again.tokens) == (result.inputs, result.words, result.tokens)
    assert again.checks == result.checks
    np.testing.assert_array_equal(again.kl, result.kl)
    assert again.kl.dtype == result.kl.dtype
    steps = logit_lens_steps(model_of(), LogitLensStepsInputs(PROMPT))
    assert LogitLensStepsResult.from_json(steps.to_json()).to_json() == steps.to_json()


@pytest.mark.parametrize(
    "damage",
    [
        {"kl": [[0.0]]},
        {"layers": [0]},
        {"positions": []},
        {"words": []},
        {"words": [{"role": "spy", "text": "", "id": 1, "visible": "", "pieces": [], "chosen_by": "user"}]},
        {"tokens": None},
        {"inputs": {"prompt": "x", "extra": 1}},
        {"rank": "many"},
        {"provenance": {}},
    ],
)
def test_a_damaged_record_is_one_sentence(damage: dict[str, Any]) -> None:
    record = json.loads(recorded().to_json()) | damage
    with pytest.raises(InputError):
        LogitLensResult.from_json(json.dumps(record))


def test_the_table_has_a_number_a_row_with_its_unit() -> None:
    result, frame = recorded(), recorded().to_frame()
    cells = result.kl.size + len(result.positions)
    assert len(frame) == cells * (6 + 2 * len(result.words))
    row = frame[(frame["source"] == "lens") & (frame["layer"] == 3) & (frame["position"] == 4)].set_index(
        "statistic"
    )
    assert row.loc["entropy", "value"] == pytest.approx(result.entropy[-1, 4])
    assert row.loc["rank", "about"] == result.answer.visible
    assert row.loc["top_probability", "about"] == result.visible(int(result.top_ids[-1, 4, 0]))
    assert set(frame["unit"]) == {"probability", "nats", "rank"}
    assert not frame["value"].isna().to_numpy().any()


def test_asking_for_what_was_not_read() -> None:
    with pytest.raises(InputError, match="Layer 0 was not read"):
        recorded().row_of(0)
    with pytest.raises(InputError, match="Position 99"):
        recorded().column_of(99)
    with pytest.raises(InputError, match="no statistic"):
        recorded().statistic("beauty")
