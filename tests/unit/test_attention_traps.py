"""What a user of the attention page does wrong, odd texts, and records."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mi_core import load_model
from mi_core.analyses import AttentionInputs, AttentionResult, attention_patterns
from mi_core.analyses import attention_record as records
from mi_core.charts.attention_heads import View
from mi_core.engine import build_model
from mi_core.errors import Cancelled, InputError, SiteMissing
from mi_core.exports import attention as figures
from mi_core.tokens import LengthMismatch
from tests.attention_models import OTHER, PROMPT, model_of
from tests.tiny import hf_model
from tests.words import word_tokenizer

NASTY = "a `</script>` “<b>” \u202eright\u202c \u200b$x^2$ 日本語 🙂 [l](http://x)\n=1+1 a"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"prompt": ""}, "empty"),
        ({"second_prompt": ""}, "empty"),
        ({"show": "everything"}, "Choose one of weights"),
        ({"bos": "sometimes"}, "bos"),
        ({"window": 0}, "window"),
        ({"window": 5000}, "window"),
        ({"window_start": -1}, "window start"),
        ({"answer": ""}, "answer"),
    ],
)
def test_inputs_that_make_no_sense_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        AttentionInputs(**{"prompt": PROMPT, **wrong})


def test_prompts_of_different_length_are_refused_with_their_alignment() -> None:
    with pytest.raises(LengthMismatch) as caught:
        attention_patterns(model_of("llama"), AttentionInputs(PROMPT, second_prompt="The Tower is"))
    assert "differ in length" in str(caught.value)
    assert "Eiffel" in caught.value.alignment.text


def test_a_window_behind_the_prompt_is_refused() -> None:
    with pytest.raises(InputError, match="tokens 0 to 11"):
        attention_patterns(model_of("llama"), AttentionInputs(PROMPT, window_start=12))


def test_a_prompt_beyond_the_context_is_refused() -> None:
    with pytest.raises(InputError, match="at most"):
        attention_patterns(model_of("gpt2"), AttentionInputs("the " * 100))


def test_a_distractor_that_is_the_target_is_refused() -> None:
    with pytest.raises(InputError, match="zero"):
        attention_patterns(model_of("llama"), AttentionInputs(PROMPT, answer=" Paris", distractor=" Paris"))


def test_a_model_whose_attention_cannot_be_seen_is_refused_with_the_reason() -> None:
    model = build_model(hf_model("llama"), word_tokenizer())
    model.structure.missing["pattern"] = "attention sinks"
    with pytest.raises(SiteMissing, match="attention sinks"):
        attention_patterns(model, AttentionInputs(PROMPT))


def test_without_a_way_to_the_logits_only_the_effect_is_missing() -> None:
    model = build_model(hf_model("llama"), word_tokenizer())
    model.structure.missing["final_norm"] = "not where it should be"
    result = attention_patterns(model, AttentionInputs(PROMPT))
    assert np.isnan(result.metric("effect")).all()
    assert "not where it should be" in result.warnings[0]
    assert result.answer is None
    with pytest.raises(SiteMissing):
        attention_patterns(model, AttentionInputs(PROMPT, show="contribution"))
    assert AttentionResult.from_json(result.to_json()).answer is None


def test_stopping_passes_through_and_leaves_no_hook() -> None:
    model = model_of("llama")

    def stop(step: object) -> None:
        raise Cancelled

    for window in (256, 5):  # inside the pass, too
        with pytest.raises(Cancelled):
            attention_patterns(model, AttentionInputs(PROMPT, window=window), on_step=stop)
    assert model.modules_with_hooks() == 0


def test_odd_tokens_are_shown_and_never_act() -> None:
    result = attention_patterns(load_model("atlas"), AttentionInputs(NASTY, show="contribution"))
    assert all(check.passed for check in result.checks)
    view = View("a", mask_first=True)
    for figure in (
        figures.pattern_figure(result, [(4, 0)], [view]),
        figures.text_figure(result, (4, 0), view, 3, "to"),
        figures.pairs_figure(result, (4, 0), view),
        figures.sums_figure(result, (4, 0), [view]),
        figures.heads_figure(result, "induction", view),
    ):
        text = json.dumps(figure.spec, ensure_ascii=False) + figure.caption + figure.description
        assert "\u202e" not in text
        assert "\u200b" not in text
        assert figure.frame() is not None
        json.dumps(figure.spec, allow_nan=False)


def test_equal_tokens_keep_their_own_rows_and_columns() -> None:
    result = attention_patterns(model_of("llama"), AttentionInputs("the the the the"))
    spec = figures.pattern_figure(result, [(0, 0)]).spec
    cells = {(cell["query"], cell["key"]) for cell in spec["datasets"]["cells"]}
    assert cells == {(query, key) for query in range(5) for key in range(query + 1)}
    assert spec["datasets"]["missing"] == []


def test_the_record_brings_everything_back() -> None:
    inputs = AttentionInputs(PROMPT, second_prompt=OTHER, show="contribution", answer=" Rome", window=6)
    result = attention_patterns(model_of("gemma2"), inputs)
    again = AttentionResult.from_json(result.to_json())
    assert again.inputs == inputs
    assert again.to_json() == result.to_json()
    np.testing.assert_array_equal(again.second_values, result.second_values)  # type: ignore[arg-type]
    assert again.tokens == result.tokens
    assert again.answer == result.answer
    record = json.loads(result.to_json())
    for name in (*records.ARRAYS, *(f"second_{name}" for name in records.ARRAYS)):
        assert np.shape(record[name]) == getattr(result, name).shape, "the recipe compares them by name"


@pytest.mark.parametrize(
    "change",
    [
        {"values": [[1]]},
        {"window": [3, 2]},
        {"metric_names": ["x"]},
        {"tokens": []},
        {"answer": {"text": "x"}},
        {"inputs": {"prompt": 3}},
    ],
)
def test_a_damaged_record_is_refused(change: dict[str, Any]) -> None:
    record = json.loads(attention_patterns(model_of("llama"), AttentionInputs(PROMPT)).to_json())
    with pytest.raises(InputError):
        AttentionResult.from_json(json.dumps({**record, **change}))


def test_a_record_that_nothing_could_read_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    result = attention_patterns(model_of("llama"), AttentionInputs(PROMPT))
    monkeypatch.setattr(records, "MAX_WRITTEN", 100)
    with pytest.raises(InputError, match="smaller window"):
        result.to_json()


def test_the_table_of_heads_has_one_row_per_number() -> None:
    result = attention_patterns(model_of("llama"), AttentionInputs(PROMPT, second_prompt=OTHER))
    frame = result.to_frame()
    assert len(frame) == 2 * 2 * 7 * 4 * 4
    assert set(frame["unit"]) == {"nats", "tokens", "share", "logits"}
    row = frame[
        (frame["prompt"] == "B") & (frame["metric"] == "entropy") & ~frame["first_token_masked"]
        & (frame["layer"] == 2) & (frame["head"] == 1)
    ]  # fmt: skip
    assert row["value"].item() == result.metric("entropy", "b")[2, 1]
    with pytest.raises(InputError, match="Choose one of"):
        result.metric("luck")


def test_the_captions_say_what_is_masked_windowed_and_compared() -> None:
    model = model_of("llama")
    both = attention_patterns(model, AttentionInputs(PROMPT, second_prompt=OTHER, window=6))
    view = View("difference", mask_first=True)
    caption = figures.pattern_figure(both, [(0, 1), (1, 1)], [view]).caption
    assert "A minus B" in caption
    assert "One scale" in caption or "one scale" in caption
    assert "Tokens 6 to 11 of 12" in caption
    assert "first token" in caption
    with pytest.raises(ValueError, match="different scales"):
        figures.pattern_figure(both, [(0, 1)], [view, replace(view, side="a")])
