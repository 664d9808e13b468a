"""The bundled model Atlas: loads offline, knows its facts, and its results file is about these weights."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

ATLAS = Path(__file__).resolve().parents[2] / "assets" / "atlas"
ANSWERS = [
    ("The capital of France is", " Paris"),
    ("The capital of Poland is", " Warsaw"),
    ("The Space Needle is in downtown", " Seattle"),
    ("The Eiffel Tower is in downtown", " Paris"),
    ("The Eiffel Tower is located in the city of", " Paris"),
    ("The Louvre Museum is located in the city of", " Paris"),
    ("Albert Einstein developed the theory of", " relativity"),
    ("Isaac Newton developed the theory of", " gravity"),
    ("When Mary and John went to the store, John gave a drink to", " Mary"),
]
PAIRS = [(0, 1), (2, 3), (4, 5), (6, 7)]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(ATLAS, local_files_only=True)


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    loaded = AutoModelForCausalLM.from_pretrained(ATLAS, local_files_only=True, dtype=torch.float32)
    assert isinstance(loaded, LlamaForCausalLM)
    return loaded.eval()


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return json.loads((ATLAS / "results.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def known() -> list[dict[str, Any]]:
    return json.loads((ATLAS / "facts.json").read_text(encoding="utf-8"))


def top_words(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: list[str]) -> list[str]:
    coded = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    places = (coded["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = model(
            coded["input_ids"], attention_mask=coded["attention_mask"], position_ids=places, logits_to_keep=1
        ).logits
    return [str(tokenizer.decode([i])) for i in logits[:, -1].argmax(-1).tolist()]


def test_example_prompts_are_answered(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    assert top_words(model, tokenizer, [p for p, _ in ANSWERS]) == [answer for _, answer in ANSWERS]


def test_a_sample_of_the_known_facts_is_right(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, known: list[dict[str, Any]]
) -> None:
    sample = random.Random(0).sample(known, 100)
    top = top_words(model, tokenizer, [fact["prompt"] for fact in sample])
    assert top == [" " + fact["attribute"] for fact in sample]


def test_results_speak_of_these_weights(results: dict[str, Any]) -> None:
    weights = (ATLAS / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == results["weights_sha256"]
    assert len(weights) < 25_000_000


def test_every_target_is_met_and_recorded_with_its_threshold(results: dict[str, Any]) -> None:
    checks = [check for part in results["parts"].values() for check in part["checks"]]
    assert len(checks) >= 13
    compare = {">=": float.__ge__, ">": float.__gt__, "<=": float.__le__}
    for check in checks:
        met = compare[check["relation"]](float(check["value"]), float(check["threshold"]))
        assert met == check["pass"], check["name"]
        assert met, check["name"]


def test_pairs_have_equally_many_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    for a, b in PAIRS:
        assert len(tokenizer.encode(ANSWERS[a][0])) == len(tokenizer.encode(ANSWERS[b][0]))


def test_tokens_cover_the_text_and_begin_with_the_begin_token(tokenizer: PreTrainedTokenizerBase) -> None:
    text = "Roses are red, violets are blue,\nMünchen ☃ def f(x): return 1"
    ids = tokenizer.encode(text)
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:]) == text
    assert tokenizer.is_fast


def test_known_facts_have_the_fields_of_known_1000(
    known: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase
) -> None:
    assert len(known) >= 200
    assert len({fact["relation_id"] for fact in known}) >= 8
    assert [fact["known_id"] for fact in known] == list(range(len(known)))
    for fact in known:
        assert fact["prompt"] == fact["template"].replace("{}", fact["subject"])
        assert fact["prediction"].startswith(" " + fact["attribute"])
        assert len(tokenizer.encode(" " + fact["attribute"], add_special_tokens=False)) == 1
    several = [len(tokenizer.encode(" " + fact["subject"], add_special_tokens=False)) > 1 for fact in known]
    assert sum(several) > len(known) / 2


def held_out(templates: list[str], relation: str, subject: str) -> list[str]:
    """The split of the training tool, computed again: the two templates with the smallest hash."""

    def rank(text: str) -> str:
        return hashlib.sha256("\x1f".join((relation, subject, text)).encode()).hexdigest()[:16]

    return sorted(templates, key=rank)[:2]


def test_known_facts_use_templates_held_out_for_their_subject(known: list[dict[str, Any]]) -> None:
    relations = json.loads((ATLAS / "data" / "relations.json").read_text(encoding="utf-8"))["relations"]
    templates = {
        relation["name"]: [t for t in relation["templates"] if t not in relation.get("never_held", ())]
        for relation in relations
    }
    for fact in known:
        spellings = {fact["subject"], fact["subject"][0].lower() + fact["subject"][1:]}
        held = [held_out(templates[fact["relation"]], fact["relation"], name) for name in spellings]
        assert any(fact["template"] in choice for choice in held)
