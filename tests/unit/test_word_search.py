"""Word search: every score again by loops, ranks over the whole vocabulary, planted words, mistakes."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mi_core.cli import main
from mi_core.engine import build_model
from mi_core.errors import Cancelled, InputError, TranscoderError
from mi_core.exports.word_search import hits_figure, layers_figure
from mi_core.model.model import LoadedModel
from mi_core.transcoders import (
    Feature,
    FeatureNeighboursResult,
    FeatureWeightsResult,
    Hook,
    Transcoder,
    WordSearchInputs,
    WordSearchResult,
    transcoder,
    word_search,
)
from mi_core.transcoders.weights_cost import search_cost
from mi_core.transcoders.words_direction import known_spreads
from mi_core.transcoders.words_inputs import RANKS, SIDES, RankBy, Side
from tests.feature_oracle import all_features, embedding, encoder_of, rows_of, unembedding
from tests.tiny import hf_model
from tests.transcoders import tiny_clt, tiny_plt, use
from tests.words import word_tokenizer

PARIS = 17
MODELS: dict[str, LoadedModel] = {}


def model_of(name: str = "llama") -> LoadedModel:
    """A tiny model with a tokenizer of words."""
    if name not in MODELS:
        MODELS[name] = build_model(hf_model(name))
        MODELS[name].tokenizer = word_tokenizer()
    return MODELS[name]


def search(
    made: Transcoder, side: Side = "writes", rank_by: RankBy = "deviations", *, word: str = "Paris",
    count: int = 10, name: str = "llama",
) -> WordSearchResult:  # fmt: skip
    """A search in a transcoder in memory."""
    model = model_of(name)
    use(model, made, made.name)
    return word_search(model, WordSearchInputs(word, side, made.name, rank_by, count))


def score_of(rows: np.ndarray, words: np.ndarray, rank_by: str) -> tuple[float, int, int]:
    """Best score of a feature's rows for Paris, its column, the rank of the word there."""
    readings = rows @ words
    readings = readings - readings.mean(1, keepdims=True)
    direction = words[:, PARIS] - words.mean(1)
    scores = {
        "effect": readings[:, PARIS],
        "deviations": readings[:, PARIS] / readings.std(1),
        "cosine": rows @ direction / np.linalg.norm(rows, axis=1) / np.linalg.norm(direction),
    }[rank_by]
    column = int(scores.argmax())
    return float(scores[column]), column, 1 + int((readings[column] > readings[column, PARIS]).sum())


@pytest.mark.parametrize("rank_by", RANKS)
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_every_score_again_by_loops(name: str, side: Side, rank_by: RankBy) -> None:
    model, made = model_of(name), tiny_clt(model_of(name))
    result = search(made, side, rank_by, count=48, name=name)
    words = unembedding(model) if side == "writes" else embedding(model).T
    wanted = {}
    for feature in all_features(made):
        rows = rows_of(made, feature) if side == "writes" else encoder_of(made, feature)[None]
        wanted[feature] = score_of(rows, words, rank_by)
    order = sorted(wanted, key=lambda one: -wanted[one][0])
    assert list(result.features) == order
    for hit in result.hits():
        score, column, rank = wanted[hit.feature]
        assert hit.score == pytest.approx(score, rel=1e-4, abs=1e-5)
        assert getattr(hit, rank_by) == pytest.approx(score, rel=1e-5, abs=1e-9)
        assert hit.target == (hit.feature.layer + column if side == "writes" else hit.feature.layer)
        assert hit.word_rank == rank
        rows = rows_of(made, hit.feature) if side == "writes" else encoder_of(made, hit.feature)[None]
        direction = words[:, PARIS] - words.mean(1)
        assert hit.total == pytest.approx(float(rows.sum(0) @ direction), rel=1e-5, abs=1e-7)
    assert all(check.passed for check in result.checks)
    assert result.n_searched == 48
    assert result.searched == ("·Paris",)


def test_the_grid_has_the_best_of_every_pair_of_layers() -> None:
    model, made = model_of(), tiny_clt(model_of())
    result = search(made)
    words = unembedding(model)
    for i, source in enumerate(range(4)):
        for j, target in enumerate(range(4)):
            if target < source:
                assert np.isnan(result.best[i, j])
                continue
            rows = [rows_of(made, Feature(source, f))[target - source] for f in range(12)]
            wanted = max(score_of(row[None], words, "deviations")[0] for row in rows)
            assert result.best[i, j] == pytest.approx(wanted, rel=1e-4)
    assert np.nanmax(result.best) == pytest.approx(result.scores[0])


@pytest.mark.parametrize("side", SIDES)
def test_a_planted_feature_comes_first(side: Side) -> None:
    model, made = model_of(), tiny_clt(model_of())
    source = made.source
    words = unembedding(model)
    source.decoders[1][4, 2] = 0.01 * torch.tensor(words[:, PARIS] - words.mean(1))  # type: ignore[attr-defined]
    row = embedding(model)
    source.encoders[1].stored[4] = 0.01 * torch.tensor(row[PARIS] - row.mean(0)).float()  # type: ignore[attr-defined]
    for rank_by in ("deviations", "cosine"):
        result = search(made, side, rank_by)
        assert result.features[0] == Feature(1, 4)
        assert result.targets[0] == (3 if side == "writes" else 1)
        assert result.ranks[0] == 1
    assert search(made, side, "cosine").cosines[0] == pytest.approx(1)


def test_behind_a_norm_words_are_read_through_it() -> None:
    model = model_of()
    made = dataclasses.replace(tiny_plt(model), reads=Hook("mlp_in"), name="behind")
    result = search(made, "reads", "effect", count=48)
    assert all(check.passed for check in result.checks)
    for hit in result.hits()[:5]:
        block: Any = model.structure.blocks[hit.feature.layer]
        norm = block.post_attention_layernorm
        words = (embedding(model) * norm.weight.detach().double().numpy()).T
        score, _, rank = score_of(encoder_of(made, hit.feature)[None], words, "effect")
        assert hit.effect == pytest.approx(score, rel=1e-5)
        assert hit.word_rank == rank


def test_copies_of_one_direction_are_listed_once() -> None:
    made = tiny_clt(model_of())
    words = unembedding(model_of())
    for index in (2, 5, 9):
        row = torch.tensor(words[:, PARIS] - words.mean(1)) * (1 + index)
        made.source.decoders[0][index, 1] = row  # type: ignore[attr-defined]
    result = search(made, rank_by="cosine")
    assert [one for one in result.features if one.layer == 0 and one.index in (2, 5, 9)] == [
        result.features[0]
    ]
    assert result.copies[0] == 2
    assert "and 2 more" in result.warnings[0]


def test_what_is_kept_with_the_model_changes_nothing() -> None:
    made = tiny_clt(model_of())
    first, again = search(made), search(made)
    known_spreads(model_of()).clear()
    fresh = search(made)
    np.testing.assert_array_equal(first.scores, again.scores)
    np.testing.assert_array_equal(first.scores, fresh.scores)
    assert len(known_spreads(model_of())) == 1
    search(made, "reads", "cosine")
    assert len(known_spreads(model_of())) == 2


def test_the_cost_counts_what_is_read() -> None:
    made = tiny_clt(model_of())
    plain, wide = (search_cost(made, "writes", by, 97) for by in ("effect", "deviations"))
    assert (plain.encoder_bytes, plain.decoder_bytes) == (0, 4 * 32 * 12 * 10)
    assert wide.operations == 2 * 32 * (32 * 120 + 32 * 97)
    assert plain.seconds < wide.seconds


def test_pieces_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tiny_clt(model_of())
    for side in SIDES:
        whole = search(made, side)
        with monkeypatch.context() as patch:
            for module in (transcoder, __import__("mi_core.transcoders.words_run", fromlist=["_"])):
                patch.setattr(module, "CHUNK_BYTES", 7 * 4 * 32)
            pieces = search(made, side)
        assert pieces.features == whole.features
        np.testing.assert_allclose(pieces.best, whole.best, rtol=1e-5)


# --- words ---


def test_a_visible_space_is_read_and_both_forms_are_searched() -> None:
    made = tiny_clt(model_of())
    assert search(made, word="·Paris").searched == ("·Paris",)
    with pytest.raises(InputError, match="no word of this tokenizer"):
        search(made, word="Zanzibar")


def test_a_word_of_several_tokens_is_told() -> None:
    result = search(tiny_clt(model_of()), word="San Francisco")
    assert result.searched == ("·San",)
    assert "is 2 tokens" in result.warnings[0]


@pytest.mark.parametrize("word", ["", "   ", "x" * 200])
def test_no_word_is_refused(word: str) -> None:
    with pytest.raises(InputError):
        WordSearchInputs(word)


def test_a_model_without_tokenizer_is_told() -> None:
    from tests.tiny import tiny

    use(tiny("llama"), tiny_clt(tiny("llama")), "clt")
    with pytest.raises(InputError, match="no tokenizer"):
        word_search(tiny("llama"), WordSearchInputs("Paris", transcoder="clt"))


# --- what is not there ---


def test_without_decoders_readers_are_still_found() -> None:
    made = dataclasses.replace(tiny_clt(model_of()), has_decoder=False, name="encoders")
    assert len(search(made, "reads").features) == 10
    with pytest.raises(TranscoderError, match="Only the encoders"):
        search(made)


def test_decoders_elsewhere_are_not_fetched() -> None:
    made = dataclasses.replace(tiny_clt(model_of()), local=False, decoder_bytes=26_500_000_000, name="far")
    with pytest.raises(TranscoderError, match=r"26\.5 GB"):
        search(made)
    assert len(search(made, "reads").features) == 10


def test_a_layer_whose_file_is_missing_is_left_out_and_told() -> None:
    made = tiny_clt(model_of())
    chunk = made.source.chunk

    def partial(layer: int, start: int, stop: int) -> torch.Tensor:
        if layer == 2:
            raise TranscoderError("W_dec_2 is not here", kind="missing")
        return chunk(layer, start, stop)

    made.source.chunk = partial  # type: ignore[method-assign]
    result = search(made, count=48)
    assert "decoders are not here: L2" in result.warnings[0]
    assert result.n_searched == 36
    assert not any(feature.layer == 2 for feature in result.features)


def test_it_can_be_stopped_half_way() -> None:
    seen = []

    def stop(step: object) -> None:
        seen.append(step)
        if len(seen) == 3:
            raise Cancelled

    model = model_of()
    use(model, tiny_clt(model), "clt")
    result = word_search(model, WordSearchInputs("Paris", transcoder="clt"), on_step=stop)
    assert result.cancelled
    assert result.n_searched == 24
    assert {feature.layer for feature in result.features} <= {0, 1}


def test_records_tables_and_figures() -> None:
    result = search(tiny_clt(model_of()))
    again = WordSearchResult.from_json(result.to_json())
    assert again.hits() == result.hits()
    np.testing.assert_array_equal(again.best, result.best)
    assert len(result.to_frame()) == 5 * 10
    assert len(result.grid_frame()) == 10
    for figure in (hits_figure(result, chosen=1), layers_figure(result)):
        assert "NaN" not in json.dumps(figure.spec)
        assert figure.recipe.count("from mi_core.transcoders import WordSearchInputs, word_search")
    broken = json.loads(result.to_json()) | {"scores": ["x"]}
    with pytest.raises(InputError):
        WordSearchResult.from_json(json.dumps(broken))
    for bad in ({"side": "eats"}, {"rank_by": "luck"}, {"count": 0}):
        with pytest.raises(InputError):
            WordSearchInputs("Paris", **bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("command", "options", "kind"),
    [
        ("feature", ("--feature", "5:10"), FeatureWeightsResult),
        ("feature-neighbours", ("--feature", "L5F10", "--count", "2"), FeatureNeighboursResult),
        ("word-search", ("--word", "king", "--side", "reads"), WordSearchResult),
    ],
)
def test_commands_write_what_the_library_reads(
    tmp_path: Path, command: str, options: tuple[str, ...], kind: Any
) -> None:
    out = tmp_path / "result.json"
    assert main([command, "--model", "atlas", *options, "--output", str(out)]) == 0
    result = kind.from_json(out.read_text(encoding="utf-8"))
    assert all(check.passed for check in result.checks)
    assert len(result.to_frame()) > 0
