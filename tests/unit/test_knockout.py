"""Knock-out: before and after, against numbers worked out from the bare model, and what its result keeps."""

import json
from functools import lru_cache

import numpy as np
import pytest
import torch

from mi_core.analyses import KnockoutInputs, KnockoutResult, knockout
from mi_core.analyses.knockout_presets import candle_mi_edge
from mi_core.engine import build_model
from mi_core.errors import Cancelled, InputError
from mi_core.exports.before_after import before_after_table
from mi_core.exports.knockout import (
    attention_figure,
    before_after_latex,
    candle_mi_json,
    changed_figure,
)
from mi_core.model.model import LoadedModel
from tests.engine.oracle import Oracle
from tests.tiny import VOCAB, hf_model
from tests.words import word_tokenizer

PROMPT = "The capital of France is"  # five tokens
INPUTS = KnockoutInputs(
    PROMPT, "L1H2:zero,e4-1@L2H3", answer=" Paris", distractor=" Rome", pinned_heads=("L2H3", "L3H0"),
    continuation=5, top=4,
)  # fmt: skip


@lru_cache(maxsize=16)
def model_of(name: str = "llama", dtype: torch.dtype = torch.float64) -> LoadedModel:
    return build_model(hf_model(name, dtype), word_tokenizer(size=VOCAB))


@lru_cache(maxsize=16)
def result_of(name: str = "llama") -> KnockoutResult:
    return knockout(model_of(name), INPUTS)


def ids_of(text: str) -> list[int]:
    return word_tokenizer(size=VOCAB)(text)["input_ids"]


class Bare:
    """The untouched model with head 2 of layer 1 zeroed before its projection and one edge forbidden."""

    def __init__(self, name: str, *, edited: bool) -> None:
        self.name, self.edited = name, edited
        self.attention: dict[int, torch.Tensor] = {}

    @staticmethod
    def _cut(s: torch.Tensor, allowed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        allowed = allowed.clone()
        allowed[:, 3, 4, 1] = False
        return s, allowed

    def logits(self, ids: list[int]) -> torch.Tensor:
        oracle = Oracle(hf_model(self.name))  # the last one made is the one that transformers calls
        oracle.shape = (1, len(ids))
        self.attention = {}
        for layer in (2, 3):
            oracle.probability[layer] = lambda p, layer=layer: self.attention.setdefault(layer, p)
        if self.edited:
            oracle.square[2] = self._cut

        def zero(x: torch.Tensor) -> torch.Tensor:
            width = x.shape[-1] // 4
            x[..., 2 * width : 3 * width] = 0
            return x

        return oracle.logits(torch.tensor([ids]), [("z", 1, zero)] if self.edited else [])[0, -1]

    def continued(self, ids: list[int], steps: int) -> list[int]:
        grown, end = list(ids), hf_model(self.name).config.eos_token_id
        for _ in range(steps):
            grown.append(int(self.logits(grown).argmax()))
            if grown[-1] == end:
                break
        return grown[len(ids) :]


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_before_and_after_are_those_of_the_bare_model(name: str) -> None:
    result, ids = result_of(name), ids_of(PROMPT)
    runs = [Bare(name, edited=edited) for edited in (False, True)]
    logits = np.stack([run.logits(ids).numpy() for run in runs])
    read = [ids_of(PROMPT + word)[-1] for word in (" Paris", " Rome")]
    assert [result.target.id, result.distractor and result.distractor.id] == read
    p = np.exp(logits - np.log(np.exp(logits).sum(1, keepdims=True)))
    near = {"atol": 1e-6 if name == "gemma2" else 1e-9, "rtol": 0}
    np.testing.assert_allclose(result.logits, logits[:, read], **near)
    np.testing.assert_allclose(result.probabilities, p[:, read], **near)
    np.testing.assert_allclose(result.kl, float((p[0] * np.log(p[0] / p[1])).sum()), **near)
    order = np.argsort(-np.abs(p[1] - p[0]))[:4]
    assert result.changed_ids.tolist() == order.tolist()
    np.testing.assert_allclose(result.changed_probabilities, p[:, order], **near)
    assert result.ranks.tolist() == [[1 + int((row > row[token]).sum()) for token in read] for row in logits]
    assert result.logit_difference is not None
    np.testing.assert_allclose(result.logit_difference, logits[:, read[0]] - logits[:, read[1]], **near)
    for number, run in enumerate(runs):
        for pinned, (layer, head) in enumerate(((2, 3), (3, 0))):
            expected = run.attention[layer][0, head].numpy()
            np.testing.assert_allclose(result.patterns[number, pinned], expected, atol=1e-6)
    assert result.patterns[1, 0, 4, 1] == 0
    assert result.patterns[0, 0, 4, 1] > 0
    assert [check.passed for check in result.checks] == [True] * 3
    assert result.warnings == ()


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_continuations_are_those_of_the_bare_model(name: str) -> None:
    result, ids = result_of(name), ids_of(PROMPT)
    assert result.baseline_ids.tolist() == Bare(name, edited=False).continued(ids, 5)
    assert result.edited_ids.tolist() == Bare(name, edited=True).continued(ids, 5)
    both = list(zip(result.baseline_ids.tolist(), result.edited_ids.tolist(), strict=False))
    different = [one != other for one, other in both]
    assert result.first_changed_step == (different.index(True) if True in different else None)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_an_empty_list_is_the_baseline_bit_for_bit(dtype: torch.dtype) -> None:
    result = knockout(
        model_of("llama", dtype), KnockoutInputs(PROMPT, distractor=" Rome", pinned_heads=("L1H1",))
    )
    assert np.array_equal(result.logits[0], result.logits[1])
    assert np.array_equal(result.patterns[0], result.patterns[1])
    assert result.kl == 0
    assert result.baseline_ids.tolist() == result.edited_ids.tolist()
    assert result.first_changed_step is None
    assert result.checks[0].name == "an empty list is the baseline, bit for bit"
    assert all(check.passed for check in result.checks)
    assert result.target.chosen_by == "model"
    assert result.ranks[0, 0] == 1


@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_a_fully_cut_row_is_flagged(name: str) -> None:
    """Under Gemma 2's softcap too."""
    result = knockout(model_of(name), KnockoutInputs(PROMPT, "r4@L1H2", continuation=0))
    assert result.cut_rows.tolist() == [[1, 2, 4]]
    assert "1 row of attention lost all keys" in result.warnings[0]
    assert "L1H2 token 4" in result.warnings[0]
    assert all(check.passed for check in result.checks)
    assert len(result.baseline_ids) == 0


def test_the_order_of_the_list_does_not_matter() -> None:
    pieces = ["L1H2:zero", "e4-1@L2H3", "L1H1:mean", "L3mlp:scale=0.5", "e4-2@L2H3:scale=2", "c3@L0"]
    one, other = (
        knockout(model_of(), KnockoutInputs(PROMPT, ",".join(order))) for order in (pieces, pieces[::-1])
    )
    assert np.array_equal(one.logits, other.logits)
    assert one.kl == other.kl > 0
    assert one.edited_ids.tolist() == other.edited_ids.tolist()


def test_means_and_weights_are_said() -> None:
    given = tuple(f"The capital of {place} is" for place in ("France", "Poland", "Italy", "Spain")) * 2
    result = knockout(
        model_of(),
        KnockoutInputs(PROMPT, "L1H2:mean,e4-1@L2:scale=2,e4-2@L1H1:set=0.5", reference_prompts=given),
    )
    assert result.mean_by_position
    assert result.reference_prompts == given
    said = " ".join(result.warnings)
    for words in ("over 8 reference prompts, per token position", "divided by its sum", "exactly that weight",
                  "on the prompt's tokens only"):  # fmt: skip
        assert words in said
    bundled = knockout(model_of(), KnockoutInputs(PROMPT, "L1H2:mean", reference="facts"))
    assert len(bundled.reference_prompts) == 12
    assert "over all positions" in " ".join(bundled.warnings)
    assert bundled.continued_where == "all"


def test_an_edge_outside_of_the_window_is_said_to_do_nothing() -> None:
    result = knockout(model_of("mistral"), KnockoutInputs(PROMPT + " in the city", "e7-0@L1", continuation=0))
    assert "token 7 gives token 0 no attention at baseline" in " ".join(result.warnings)
    assert result.kl == 0


def test_every_way_out_has_the_same_numbers() -> None:
    result = result_of()
    again = KnockoutResult.from_json(result.to_json())
    assert again.to_json() == result.to_json()
    assert np.array_equal(again.logits, result.logits)
    frame = result.to_frame()
    target = frame[(frame["quantity"] == "logit of the target")]["value"].tolist()
    assert target[:2] == result.logits[:, 0].tolist()
    assert target[2] == target[1] - target[0]
    table = before_after_table(result)
    assert table["baseline"][2] == result.logits[0, 0]
    tex = before_after_latex(result)
    assert tex.count(r"\\") == len(table) + 1
    assert "_" not in tex.replace(r"\_", "")
    for figure in (
        changed_figure(result),
        attention_figure(result),
        attention_figure(result, difference=True),
    ):
        assert len(figure.frame())
        json.loads(figure.record_json())
        assert "edited" in figure.description or "difference" in figure.description
        assert "knockout" in figure.recipe


def test_candle_mis_keys_are_there_for_candle_mis_knock_out_only() -> None:
    edge = candle_mi_edge(4, 5)
    assert edge == "e4-0@L2"
    result = knockout(model_of(), KnockoutInputs(PROMPT, edge, answer=" Paris"))
    record = json.loads(candle_mi_json(result))
    assert list(record) == [
        "model_id", "prompt", "n_layers", "n_heads", "hidden_size", "target_layer", "knockout_edge",
        "kl_divergence", "paris_logit_diff", "top_changed",
    ]  # fmt: skip
    assert (record["target_layer"], record["knockout_edge"], record["hidden_size"]) == (2, [4, 0], 32)
    assert record["paris_logit_diff"] == result.logits[0, 0] - result.logits[1, 0]
    first = record["top_changed"][0]
    assert first["rank"] == 1
    assert first["abs_diff"] == abs(first["ablated_prob"] - first["baseline_prob"])
    with pytest.raises(InputError, match="candle-mi's keys"):
        result_of().to_candle_mi()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"interventions": "L9H1:zero"}, "L9H1:zero does not fit"),
        ({"interventions": "e1-3@L1"}, "from the future"),
        ({"interventions": "L1H2:resample"}, "needs prompt B"),
        ({"interventions": "L1H2:resample", "second_prompt": "The city of"}, "prompt B 3"),
        ({"interventions": "nothing"}, "'nothing' is not an intervention"),
        ({"interventions": "<b>"}, "has the character '<'"),
        ({"reference_prompts": ("a",)}, "There are 1 reference prompts"),
        ({"pinned_heads": ("L9H0",)}, "no head L9H0 to pin"),
        ({"pinned_heads": ("L1H0", "L1H0")}, "pinned twice"),
        ({"distractor": " Paris"}, "begins with the same token"),
        ({"top": 0}, "number of changed tokens"),
    ],
)
def test_what_a_user_does_wrong_is_named(changes, match) -> None:
    with pytest.raises(InputError, match=match):
        knockout(model_of(), KnockoutInputs(PROMPT, **{"answer": " Paris", **changes}))


def test_a_value_that_the_format_cannot_hold_is_refused() -> None:
    with pytest.raises(InputError, match="The edited run gives no numbers"):
        knockout(model_of("llama", torch.float16), KnockoutInputs(PROMPT, "L3N10:1000000"))


def test_an_answer_of_several_tokens_is_said_and_a_stop_passes() -> None:
    result = knockout(model_of(), KnockoutInputs(PROMPT, "L1H2:zero", answer=" San Francisco"))
    assert "The answer is 2 tokens" in result.warnings[0]

    def stop(step) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        knockout(model_of(), INPUTS, on_step=stop)
