"""The corpus pass: equal to a slow second way, read by circuit-tracer's viewer, resumed, trimmed, refused."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mi_core.errors import Cancelled, InputError
from mi_core.transcoders import CorpusPassInputs, CorpusPassResult, corpus_pass
from mi_core.transcoders.corpus_checkpoint import checkpoint_file
from mi_core.transcoders.corpus_density import densities, largest, local_folders, save_folder, summary_of
from mi_core.transcoders.corpus_state import (
    N_BINS,
    Best,
    LayerState,
    bin_edges,
    bins_of,
    draw,
    prefix_numbers,
)
from mi_core.transcoders.feature_files import LocalPlace, open_feature_files
from tests.corpus_oracle import TEXT, Viewer, naive, pair, split_rows, worded
from tests.transcoders import tiny_plt, use

ROW = 9


@pytest.fixture
def text(tmp_path: Path) -> str:
    file = tmp_path / "text.txt"
    file.write_text(TEXT, encoding="utf-8")
    return str(file)


def settings(text: str, tmp_path: Path, **changed: Any) -> CorpusPassInputs:
    values: dict[str, Any] = {"text": text, "save_to": str(tmp_path / "features"), "row": ROW, "top": 4}
    values |= {"around": 3, "sampled": 400, "words": 3, **changed}
    return CorpusPassInputs(**values)


# --- identities, against the slow way ---


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_streaming_is_the_slow_way(family, text, tmp_path):
    model = worded(family)
    result = corpus_pass(model, settings(text, tmp_path))
    rows = split_rows(model, TEXT, ROW)
    slow = naive(model, rows)
    assert all(check.passed for check in result.checks), result.checks
    assert len(result.checks) == 4
    assert (result.n_rows, result.n_tokens) == (len(rows), sum(len(row) - 1 for row in rows))
    assert result.n_documents == 7
    for layer, per_row in slow.items():
        joined = np.concatenate([values[1:] for values in per_row])
        mine = result.layers == layer
        np.testing.assert_array_equal(result.counts[mine], (joined > 0).sum(0))
        np.testing.assert_allclose(result.largest[mine], joined.max(0), rtol=1e-4)
        np.testing.assert_allclose(result.density[mine], (joined > 0).mean(0))
    assert result.active_per_token()[1] == pytest.approx(
        np.concatenate([values[1:] > 0 for values in slow[1]]).sum(1).mean()
    )


def test_the_viewer_reads_what_the_slow_way_finds(text, tmp_path):
    model = worded()
    inputs = settings(text, tmp_path)
    corpus_pass(model, inputs)
    viewer, rows = Viewer(tmp_path / "features"), split_rows(model, TEXT, ROW)
    slow, names = naive(model, rows), model.tokenizer.convert_ids_to_tokens
    for layer in slow:
        for feature in range(12):
            card = viewer.load(pair(layer, feature))
            joined = np.concatenate([values[1:, feature] for values in slow[layer]])
            active = joined[joined > 0]
            assert card["activation_frequency"] == pytest.approx(len(active) / len(joined))
            assert card["act_max"] == pytest.approx(joined.max(), rel=1e-4)
            assert (card["act_min"], card["index"]) == (0.0, feature)
            if not len(active):
                assert card["examples_quantiles"] == []
                continue
            counts, _ = np.histogram(active, card["histogram_edges"])
            np.testing.assert_array_equal(card["histogram"], counts)
            top = card["examples_quantiles"][0]
            best = {}  # strongest distinct beginning of every row
            for row, values in zip(rows, slow[layer], strict=True):
                at = int(values[:, feature].argmax())
                if values[at, feature] > 0:
                    best[tuple(row[: at + 1])] = values[at, feature]
            expected = sorted(best.values(), reverse=True)[:4]
            found = [one["tokens_acts_list"][one["train_token_ind"]] for one in top["examples"]]
            np.testing.assert_allclose(found, expected, rtol=1e-3)
            for group in card["examples_quantiles"]:
                for one in group["examples"]:
                    assert occurs(one, rows, slow[layer], feature, names), one


def occurs(one, rows, values, feature, names) -> bool:
    """Whether an example is a window of the text with these very activations, BOS left out."""
    width, peak = len(one["tokens"]), one["train_token_ind"]
    for row, active in zip(rows, values, strict=True):
        for start in range(1, len(row) - width + 1):
            tokens = [name.replace("▁", " ") for name in names(row[start : start + width])]
            same = np.allclose(active[start : start + width, feature], one["tokens_acts_list"], rtol=1e-3)
            whole = (peak == 3 or start == 1) and (width - peak == 4 or start + width == len(row))
            if tokens == one["tokens"] and same and whole:
                return True
    return False


def test_co_active_features_are_counted_exactly_when_every_active_token_is_drawn(text, tmp_path):
    model = worded()
    result = corpus_pass(model, settings(text, tmp_path))
    files = open_feature_files(LocalPlace(tmp_path / "features"))
    assert files is not None
    slow = naive(model, split_rows(model, TEXT, ROW))
    active = {
        (layer, feature): np.concatenate([values[1:, feature] > 0 for values in per_row])
        for layer, per_row in slow.items()
        for feature in range(12)
    }
    compared = 0
    for (layer, feature), mine in active.items():
        record = files.record(layer, feature)
        assert record is not None
        assert record.coactive_tokens == mine.sum() == record.n_active
        excess = [one.share - one.density for one in record.coactive]
        np.testing.assert_allclose(excess, sorted(excess, reverse=True), atol=1e-3)
        for one in record.coactive:
            other = active[one.layer, one.index]
            assert one.share == pytest.approx(other[mine].mean(), rel=1e-3)
            assert one.density == pytest.approx(other.mean(), rel=1e-3)
            compared += 1
        if len(record.coactive) == 10:
            listed = {(one.layer, one.index) for one in record.coactive}
            rest = [
                other[mine].mean() - other.mean()
                for key, other in active.items()
                if key not in listed and key != (layer, feature) and (other & mine).sum() > 1
            ]
            assert max(rest, default=0.0) <= excess[-1] + 1e-3
    assert compared > 100
    assert result.n_tokens == len(next(iter(active.values())))


def test_dead_features_are_listed_and_still_have_a_record(text, tmp_path):
    model = worded()
    result = corpus_pass(model, settings(text, tmp_path))
    assert bool(result.dead[(result.layers == 0) & (result.indices == 3)][0])
    card = Viewer(tmp_path / "features").load(pair(0, 3))
    assert (card["act_max"], card["activation_frequency"], card["histogram"]) == (0.0, 0.0, [])
    files = open_feature_files(LocalPlace(tmp_path / "features"))
    assert files is not None
    record = files.record(0, 3)
    assert record is not None
    assert record.dead


def test_words_are_the_ends_of_what_the_rows_write(text, tmp_path):
    model = worded()
    corpus_pass(model, settings(text, tmp_path))
    transcoder = model.transcoders[""]
    written = transcoder.source.decoders[1][5].sum(0).double()
    gain = model.hf.model.norm.weight.double()
    effects = (gain * written) @ model.hf.lm_head.weight.double().T
    names = model.tokenizer.convert_ids_to_tokens
    card = Viewer(tmp_path / "features").load(pair(1, 5))
    order = effects.argsort(descending=True).tolist()
    assert card["top_logits"] == [name.replace("▁", " ") for name in names(order[:3])]
    assert card["bottom_logits"] == [name.replace("▁", " ") for name in names(order[::-1][:3])]


def test_densities_of_all_features_at_once(text, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    model = worded()
    assert densities(model) is None
    result = corpus_pass(model, settings(text, tmp_path, save_to=""))
    transcoder = model.transcoders[""]
    assert Path(result.folder) == save_folder(transcoder) == local_folders(transcoder)[0]
    known, peaks = densities(model), largest(model)
    assert known is not None
    assert peaks is not None
    for layer in range(4):
        np.testing.assert_allclose(known[layer], result.density[result.layers == layer], rtol=1e-6)
        np.testing.assert_allclose(peaks[layer], result.largest[result.layers == layer], rtol=1e-6)
    summary = summary_of(transcoder)
    assert summary is not None
    assert "L0F3" in summary.dead_names()
    assert summary.dead_table()[0]["dead"] == len(summary.dead(0))
    use(model, tiny_plt(model), "other")
    assert densities(model, "other") is None, "another transcoder's files"


# --- the running state ---


def state_of(order: list[np.ndarray], top: int = 3, sampled: int = 5) -> LayerState:
    rng = np.random.default_rng(0)
    n = 400
    features, rows = rng.integers(0, 6, n), np.repeat(np.arange(40), 10)
    positions = np.tile(np.arange(10), 40)
    values = rng.integers(1, 60, n).astype(np.float32)  # many ties
    prefixes = rng.integers(0, 90, n)
    state = LayerState.empty(2, 6, top, sampled, 7)
    for part in order:
        inside = np.isin(rows, part)
        state.add(
            features[inside], values[inside], rows[inside].astype(np.int32),
            positions[inside].astype(np.int32), prefixes[inside],
        )  # fmt: skip
    return state


def test_the_state_does_not_depend_on_the_batches():
    whole = state_of([np.arange(40)])
    parts = state_of([np.arange(30, 40), np.array([5]), np.setdiff1d(np.arange(30), [5])])
    for name in ("counts", "largest", "histogram"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))
    for name in ("keys", "values", "rows", "positions", "prefixes"):
        np.testing.assert_array_equal(getattr(whole.sample, name), getattr(parts.sample, name))
    np.testing.assert_array_equal(whole.top.keys, parts.top.keys)


def test_the_best_are_the_best_and_distinct():
    best = Best.empty(1, 3, distinct=True)
    zeros = np.zeros(5, np.int64)
    rows = np.arange(5, dtype=np.int32)
    keys = np.array([1.0, 5.0, 5.0, 4.0, 3.0])
    best.add(zeros, keys, keys.astype(np.float32), rows, rows, np.array([1, 2, 2, 3, 4]))
    assert best.keys[0].tolist() == [5.0, 4.0, 3.0]
    assert best.rows[0].tolist() == [1, 3, 4]
    best.add(zeros[:1], np.array([6.0]), np.array([6.0], np.float32), rows[:1], rows[:1], np.array([3]))
    assert best.keys[0].tolist() == [6.0, 5.0, 3.0], "a stronger one with the same beginning replaces it"


def test_the_draw_is_even_and_repeatable():
    rows = np.arange(20_000)
    first = draw(3, 1, np.full(20_000, 7), rows, rows % 50)
    np.testing.assert_array_equal(first, draw(3, 1, np.full(20_000, 7), rows, rows % 50))
    assert abs(first.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.02
    assert not np.array_equal(first, draw(4, 1, np.full(20_000, 7), rows, rows % 50))


def test_bins_and_beginnings():
    edges = bin_edges()
    values = np.array([1e-9, 2.0**-12, 1.0, 1.09, 3.0, 1e9], np.float32)
    bins = bins_of(values)
    assert bins[0] == bins[1] == 0
    assert bins[-1] == N_BINS - 1
    assert all(edges[b] <= value < edges[b + 1] for value, b in zip(values[1:-1], bins[1:-1], strict=True))
    numbers = prefix_numbers(np.array([[0, 5, 6], [0, 5, 7], [5, 0, 6]]))
    assert numbers[0, 1] == numbers[1, 1]
    assert len(set(numbers.ravel().tolist())) == 7


# --- stopping, going on, size ---


def stop_after(n: int):
    def on_step(step):
        if step.text.startswith(stage[0]):
            stage[1] -= 1
            if stage[1] < 0:
                raise Cancelled

    stage = ["reading", n]
    return on_step


def test_a_stopped_pass_goes_on_and_ends_with_the_same_files(text, tmp_path, monkeypatch):
    model = worded()
    monkeypatch.setattr("mi_core.transcoders.corpus_encode.BATCH_TOKENS", 20)
    whole = corpus_pass(model, settings(text, tmp_path, save_to=str(tmp_path / "whole")))
    inputs = settings(text, tmp_path)
    stopped = corpus_pass(model, inputs, on_step=stop_after(2))
    assert stopped.cancelled
    assert 0 < stopped.n_tokens < whole.n_tokens
    assert "goes on from here" in stopped.warnings[-1]
    assert not (tmp_path / "features").exists()
    assert checkpoint_file(tmp_path / "features").is_file()
    seen = []
    done = corpus_pass(model, inputs, on_step=lambda step: seen.append(step.text))
    assert seen[0].startswith(f"reading, {stopped.n_tokens}")
    assert not checkpoint_file(tmp_path / "features").exists()
    np.testing.assert_array_equal(done.counts, whole.counts)
    for file in sorted((tmp_path / "whole").iterdir()):
        assert file.read_bytes() == (tmp_path / "features" / file.name).read_bytes(), file.name


def test_another_passs_checkpoint_is_not_taken(text, tmp_path, monkeypatch):
    model = worded()
    monkeypatch.setattr("mi_core.transcoders.corpus_encode.BATCH_TOKENS", 20)
    corpus_pass(model, settings(text, tmp_path), on_step=stop_after(2))
    seen = []
    other = corpus_pass(model, settings(text, tmp_path, seed=5), on_step=lambda step: seen.append(step.text))
    assert seen[0].startswith("reading, 0 ")
    assert other.n_tokens == sum(len(row) - 1 for row in split_rows(model, TEXT, ROW))


def test_a_damaged_checkpoint_costs_the_work_only(text, tmp_path):
    checkpoint_file(tmp_path / "features").write_bytes(b"PK\x03\x04 rubbish")
    assert corpus_pass(worded(), settings(text, tmp_path)).n_tokens > 0


def test_stopped_before_anything_is_nothing(text, tmp_path):
    with pytest.raises(Cancelled):
        corpus_pass(worded(), settings(text, tmp_path), on_step=stop_after(0))
    assert not list(tmp_path.glob(".features*"))


def test_the_files_stay_within_the_size(text, tmp_path):
    model = worded()
    large = corpus_pass(model, settings(text, tmp_path))
    small = corpus_pass(model, settings(text, tmp_path, max_bytes=int(0.8 * large.file_bytes)))
    assert small.file_bytes <= 0.8 * large.file_bytes
    assert "examples were cut" in small.warnings[-1]
    on_disk = sum(file.stat().st_size for file in (tmp_path / "features").iterdir())
    assert on_disk == small.file_bytes
    np.testing.assert_array_equal(small.counts, large.counts)


def test_a_limit_of_tokens(text, tmp_path):
    limited = corpus_pass(worded(), settings(text, tmp_path, max_tokens=10))
    assert 10 <= limited.n_tokens < 10 + ROW


# --- what a user does wrong ---


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"text": "the city"}\nnot json\n', "Line 2 of the text is no JSON"),
        ("a.jsonl", b'{"words": "the city"}\n', "has no document"),
        ("a.txt", b"\xff\xfe\x00bad", "no text in UTF-8"),
        ("a.txt", b"\n\n  \n", "No token of this text counts"),
    ],
)
def test_a_text_that_cannot_be_used(name, content, said, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        corpus_pass(worded(), settings(str(tmp_path / name), tmp_path))


def test_a_text_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        corpus_pass(worded(), settings(str(tmp_path / "none.txt"), tmp_path))


def test_json_lines_keep_their_blank_lines(tmp_path):
    lines = [json.dumps({"text": "the city\n\nof Paris"}), json.dumps("Mary and John")]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    result = corpus_pass(worded(), settings(str(tmp_path / "a.jsonl"), tmp_path))
    assert result.n_documents == 2


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"text": ""}, "No text is given"),
        ({"row": 1}, "length of a row"),
        ({"top": 0}, "strongest examples"),
        ({"sampled": 10_000}, "sampled tokens"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_that_make_no_sense(changed, said):
    with pytest.raises(InputError, match=said):
        CorpusPassInputs(**changed)


def test_what_would_not_fit_is_refused_before_anything_runs(text, tmp_path, monkeypatch):
    monkeypatch.setattr("mi_core.transcoders.corpus_run.MAX_STATE_BYTES", 1000)
    with pytest.raises(InputError, match="would hold"):
        corpus_pass(worded(), settings(text, tmp_path))


def test_a_folder_that_cannot_be_written_is_told_first(text, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        corpus_pass(worded(), settings(text, tmp_path, save_to=str(tmp_path / "file" / "features")))


@pytest.mark.parametrize("held", ["W_enc_0.safetensors", "letter.txt", "layer_0.bin/photo.jpg"])
def test_a_folder_with_anything_else_in_it_is_never_replaced(held, text, tmp_path):
    """A pass replaces its folder as a whole, so a home or a transcoder's own folder would be lost."""
    kept = tmp_path / "mine" / held
    kept.parent.mkdir(parents=True)
    kept.write_text("mine")
    (tmp_path / "mine" / "index.json.gz").write_bytes(b"")
    with pytest.raises(InputError, match="would be lost"):
        corpus_pass(worded(), settings(text, tmp_path, save_to=str(tmp_path / "new" / ".." / "mine")))
    assert kept.read_text() == "mine"


def test_features_files_are_replaced(text, tmp_path):
    first = corpus_pass(worded(), settings(text, tmp_path))
    again = corpus_pass(worded(), settings(text, tmp_path, top=2))
    assert first.folder == again.folder
    files = {one.name for one in Path(again.folder).iterdir()}
    assert {"index.json.gz", "lantern.json.gz", "layer_0.bin"} <= files


# --- records ---


def test_the_result_comes_back_from_json(text, tmp_path):
    result = corpus_pass(worded(), settings(text, tmp_path))
    again = CorpusPassResult.from_json(result.to_json())
    assert again.to_json() == result.to_json()
    assert again.inputs == result.inputs
    frame = result.to_frame()
    assert Counter(frame["quantity"]) == {"density": 48, "largest activation": 48}
