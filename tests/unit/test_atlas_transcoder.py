"""The bundled transcoder: it is about these weights, small enough, and as good as its card says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mi_core import load_model
from mi_core.engine import Edit, run
from mi_core.model.model import LoadedModel
from mi_core.transcoders import active_features, labels, load_transcoder, parse_feature
from mi_core.transcoders.quality import transcoder_quality

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "atlas" / "transcoders" / "atlas-clt"
MOST_BYTES = 15_000_000
HELD_OUT = (
    "The capital of France is Paris.",
    "The Louvre Museum is located in the city of Paris.",
    "When Mary and John went to the store, John gave a drink to Mary.",
    "Albert Einstein developed the theory of relativity.",
)


@pytest.fixture(scope="module")
def atlas() -> LoadedModel:
    return load_model("atlas")


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    return json.loads((FOLDER / "results.json").read_text(encoding="utf-8"))


def test_the_results_are_of_these_files(record: dict[str, Any]) -> None:
    for name, digest in record["files"].items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest
    assert len(record["files"]) == 16


def test_it_is_small_enough_to_ship() -> None:
    weights = sum(path.stat().st_size for path in FOLDER.glob("*.safetensors"))
    features = sum(path.stat().st_size for path in (FOLDER / "features").iterdir())
    assert 1_000_000 < weights < MOST_BYTES
    assert 100_000 < features < MOST_BYTES


def test_figures_of_the_card_are_met_and_stand_in_the_card(record: dict[str, Any]) -> None:
    every = record["quality"]["all"]
    assert max(every["fvu"]) < 0.25
    assert every["ce_recovered"] > 0.8
    assert every["top1_agreement"] > 0.6
    assert record["features"]["dead_share"] < 0.2
    assert record["graphs"]["largest_sum_rule_residual"] < 1e-4
    passing = [one for one in record["concepts"] if one["passes"]]
    assert len(passing) >= 10
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"**{len(passing)} of {len(record['concepts'])} concepts" in card
    assert all(one["feature"] in card for one in passing[:10])


def test_measured_again_on_a_few_texts_it_is_as_good(atlas: LoadedModel, record: dict[str, Any]) -> None:
    texts = [atlas.tokenizer(text)["input_ids"] for text in HELD_OUT]
    found = transcoder_quality(atlas, load_transcoder(atlas), texts)
    assert found.unexplained_all < 0.25
    assert found.recovered > 0.7
    assert 2 < sum(found.l0) / len(found.l0) < 4 * sum(record["quality"]["all"]["l0"]) / 8


def test_a_tested_feature_fires_and_moves_its_words(atlas: LoadedModel, record: dict[str, Any]) -> None:
    """The capital of a country or another of the tested relations, on a sentence of its own."""
    sentences = {
        "relation: capital of a country": "The capital of Poland is",
        "relation: symbol of an element": "The chemical symbol of gold is",
        "relation: sport of an athlete": "Roger Federer plays the sport of",
        "relation: instrument of a musician": "Miles Davis played the",
        "relation: currency of a country": "The currency of Japan is the",
        "relation: field of a scientist": "Albert Einstein worked in the field of",
    }
    tested = {one["concept"]: one for one in record["concepts"] if one["passes"]}
    shared = sorted(set(sentences) & set(tested))
    assert shared, "none of these concepts has a feature that passes"
    transcoder = load_transcoder(atlas)
    fired = 0
    for concept in shared:
        feature = parse_feature(tested[concept]["feature"])
        ids = atlas.tokenizer(sentences[concept])["input_ids"]
        active = active_features(atlas, transcoder, ids)
        fired += active.value(feature.at(len(ids) - 1)) > 0
    assert 2 * fired > len(shared)
    feature = parse_feature(tested[shared[0]]["feature"])
    rows = transcoder.rows(feature.layer, torch.tensor([feature.index]))[0]
    tokens = torch.tensor([atlas.tokenizer("The Eiffel Tower is located in the city of")["input_ids"]])
    edits = [
        Edit("mlp_out", target, "add", (-1,), value=tested[shared[0]]["injected_at"] * rows[column])
        for column, target in enumerate(transcoder.targets(feature.layer))
    ]
    words = tested[shared[0]]["word_ids"]
    before, after = (
        run(atlas, tokens, edits=e, last=1).logits[0, -1].log_softmax(-1)[words].logsumexp(-1)
        for e in ((), edits)
    )
    assert after - before > 1


def test_the_tested_features_carry_their_names(
    atlas: LoadedModel, record: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels, "user_data_path", lambda *_, **__: tmp_path)  # nobody's own names
    named = labels.labels_of(load_transcoder(atlas).fingerprint, FOLDER)
    tested = [one for one in record["concepts"] if one["passes"]]
    assert set(named) == {one["feature"] for one in tested}
    for one in tested:
        assert one["concept"].removeprefix("relation: ") in named[one["feature"]].text
