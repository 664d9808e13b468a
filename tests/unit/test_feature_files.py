"""Features files of others, and damaged or hostile ones; one feature's page of the corpus from them."""

import gzip
import json
import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mi_core.errors import InputError
from mi_core.transcoders import CorpusPassInputs, FeatureCorpusInputs, FeatureCorpusResult, corpus_pass
from mi_core.transcoders import feature_corpus as look
from mi_core.transcoders.feature_files import LocalPlace, open_feature_files
from mi_core.transcoders.feature_files_json import cantor, inflate, pack_record, short, unpack_record
from mi_core.transcoders.feature_files_places import FolderPlace
from mi_core.transcoders.feature_files_record import Coactive, ExampleGroup, FeatureExample, FeatureRecord
from mi_core.transcoders.folder import LocalFolder
from mi_core.transcoders.hub_folder import HubFolder
from mi_core.transcoders.hub_listing import ask_listing
from mi_core.transcoders.hub_reference import parse_reference
from mi_core.visible import piece_reader
from tests.corpus_oracle import TEXT, worded, write_as_others
from tests.range_hub import serve

EXAMPLE = {
    "tokens": ["The", " capital", " of", " France"],
    "tokens_acts_list": [0, 0, 0.5, 2],
    "train_token_ind": 3,
    "is_repeated_datapoint": False,
}


def others(**changed: Any) -> dict[str, Any]:
    """A record as another program writes it."""
    return {
        "transcoder_id": "theirs",
        "index": 1,
        "examples_quantiles": [{"quantile_name": "Top", "examples": [EXAMPLE]}],
        "top_logits": [" Paris", [" Lyon", 0.3]],
        "bottom_logits": ["x"],
        "act_min": 0,
        "act_max": 2.0,
        "quantile_values": [0.1, 2],
        "histogram": [3, 4],
        "activation_frequency": 0.25,
    } | changed


def packed(values: Any) -> bytes:
    body = gzip.compress(json.dumps(values).encode(), mtime=0)
    return len(body).to_bytes(4, "little") + body


# --- back and forth ---


def test_a_record_comes_back():
    record = FeatureRecord(
        layer=2, index=5, density=0.125, largest=3.2518734,
        groups=(
            ExampleGroup("Top activations", (FeatureExample((" a", "\n", "\\xe2"), (0.0, 3.25, 1e-7), 1),)),
            ExampleGroup("Active tokens, 0 to 20 %", (FeatureExample(("é",), (0.5,), 0, repeated=True),)),
        ),
        top_logits=(" Paris",), bottom_logits=('"quoted"',), quantile_values=(0.5, 3.25),
        histogram=(1.0, 3.0), edges=(0.5, 1.0, 4.0), n_tokens=32, n_active=4,
        coactive=(Coactive(1, 7, 0.75, 0.01),), coactive_tokens=4, transcoder="ours",
    )  # fmt: skip
    data = pack_record(record)
    assert unpack_record(data + b"the next record's byte", 2, 5) == record
    assert pack_record(record) == data, "the same record gives the same bytes"
    assert gzip.decompress(data[4:]), "tools that only read gzip can read it"
    assert int.from_bytes(data[:4], "little") == len(data) - 4


def test_numbers_are_short():
    assert [short(value) for value in (0.0, 1.23456, 123456.0, 1.23456e-9)] == [0, 1.235, 123500, 1.235e-9]


@pytest.mark.parametrize("as_list", [False, True])
def test_files_of_another_program(as_list, tmp_path):
    second = others(index=cantor(1, 2), histogram=[1, 2, 3])
    folder = write_as_others(
        tmp_path / "f", {0: [others(index=0), None], 1: [None, others(), second]}, as_list=as_list
    )
    files = open_feature_files(LocalPlace(folder))
    assert files is not None
    record = files.record(1, 1)
    assert record is not None
    assert (record.density, record.largest, record.n_tokens, record.edges) == (0.25, 2.0, None, ())
    assert record.top_logits == (" Paris", " Lyon")
    assert record.groups[0].examples[0].peak == 3
    assert record.problem == ""
    assert files.record(0, 1) is None, "nothing was written for it"
    named = files.record(1, 2)
    assert named is not None
    assert named.problem == "", "files may name a feature by its one number"


def test_a_record_of_another_feature_is_told():
    record = unpack_record(packed(others(index=7)), 1, 1)
    assert "says that it is of feature 7, not 1" in record.problem


def test_a_repository_is_read_through_the_same_door(tmp_path):
    write_as_others(tmp_path / "features", {0: [others(index=0), others()]}, as_list=False)
    place = FolderPlace(LocalFolder(tmp_path))
    files = open_feature_files(place)
    assert files is not None
    record = files.record(0, 1)
    assert record is not None
    assert record.index == 1
    assert place.whole("none.json") is None
    assert len(place.part("part0.bin", 0, 10**9)) == (tmp_path / "features" / "part0.bin").stat().st_size


def test_a_record_of_the_hub_costs_its_own_bytes(tmp_path):
    written = write_as_others(tmp_path / "f", {0: [others(index=i) for i in range(300)]}, as_list=False)
    held = {f"sub/features/{file.name}": file.read_bytes() for file in written.iterdir()}
    with serve() as hub:
        hub.repos["user/repo"] = held
        reference = parse_reference("user/repo/sub")
        listing = replace(ask_listing(reference, endpoint=hub.address), by_range=True)
        folder = HubFolder(reference, listing, tmp_path / "cache", hub.address, tmp_path / "ranges")
        files = open_feature_files(FolderPlace(folder))
        assert files is not None
        before = hub.sent
        record = files.record(0, 123)
        assert record is not None
        assert record.index == 123
        where = files.layers[0].offsets
        assert hub.asked[-1] == f"GET sub/features/part0.bin bytes={where[123]}-{where[124] - 1}"
        assert hub.sent - before == where[124] - where[123] < 500
        again = open_feature_files(
            FolderPlace(HubFolder(reference, listing, tmp_path / "cache", hub.address, tmp_path / "ranges"))
        )
        assert again is not None
        assert again.record(0, 123) == record
        assert hub.sent - before < 500, "kept on disk"
        closed = HubFolder(reference, replace(listing, by_range=False), tmp_path / "cache", hub.address)
        assert open_feature_files(FolderPlace(closed)) is None, "nothing is fetched before it is allowed"


# --- hostile ones ---


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x01\x00", "cut off"),
        ((100).to_bytes(4, "little") + b"short", "100 bytes are told, 5 there"),
        (b"\x05\x00\x00\x00hello", "damaged"),
        (packed({"examples_quantiles": "no list"}), "damaged"),
        (packed(others(act_max="large")), "damaged"),
        (packed(others(histogram=[True])), "damaged"),
        (packed(others(examples_quantiles=[{"examples": [{"tokens": ["a"]}]}])), "damaged"),
        (packed(others(examples_quantiles=[{"examples": [EXAMPLE | {"tokens_acts_list": [1]}]}])), "damaged"),
        (packed(others(examples_quantiles=[{}] * 101)), "damaged"),
    ],
)
def test_damaged_records(data, said):
    with pytest.raises(InputError, match=said):
        unpack_record(data, 1, 1)


def test_a_number_that_is_none_is_refused():
    body = zlib.compress(json.dumps(others()).replace("0.25", "NaN").encode())
    with pytest.raises(InputError, match="NaN is not JSON"):
        unpack_record(len(body).to_bytes(4, "little") + body, 1, 1)


def test_a_bomb_is_not_unpacked(monkeypatch):
    monkeypatch.setattr("mi_core.transcoders.feature_files_json.MAX_RECORD_BYTES", 1000)
    body = zlib.compress(b" " * 100_000)
    with pytest.raises(InputError, match="larger than"):
        unpack_record(len(body).to_bytes(4, "little") + body, 1, 1)
    with pytest.raises(ValueError, match="larger than"):
        inflate(body, 1000)


def test_a_peak_that_is_nowhere_becomes_the_strongest_token():
    values = others(examples_quantiles=[{"examples": [EXAMPLE | {"train_token_ind": 99}]}])
    assert unpack_record(packed(values), 1, 1).groups[0].examples[0].peak == 3


@pytest.mark.parametrize(
    "index",
    [
        {"0": {"filename": "../../etc/passwd", "offsets": [0, 5]}},
        {"0": {"filename": "/etc/passwd", "offsets": [0, 5]}},
        {"0": {"filename": "..\\x", "offsets": [0, 5]}},
        {"0": {"filename": "a.bin", "offsets": [5, 0]}},
        {"0": {"filename": "a.bin", "offsets": [-5, 0]}},
        {"0": {"filename": "a.bin", "offsets": []}},
        {"0": {"filename": "a.bin"}},
        {"zero": {"filename": "a.bin", "offsets": [0]}},
        "nothing",
    ],
)
def test_damaged_indices(index, tmp_path):
    (tmp_path / "index.json.gz").write_bytes(gzip.compress(json.dumps(index).encode()))
    with pytest.raises(InputError, match="index of the features files"):
        open_feature_files(LocalPlace(tmp_path))


def test_what_the_index_does_not_know(tmp_path):
    assert open_feature_files(LocalPlace(tmp_path)) is None
    files = open_feature_files(
        LocalPlace(write_as_others(tmp_path / "f", {0: [others(index=0)]}, as_list=False))
    )
    assert files is not None
    for layer, index in ((0, 1), (1, 0), (0, -1)):
        with pytest.raises(InputError, match="do not know feature"):
            files.record(layer, index)


# --- one feature's page of the corpus ---


@pytest.fixture
def model(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return worded()


def run_pass(tmp_path: Path, model: Any) -> None:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    corpus_pass(model, CorpusPassInputs(str(tmp_path / "text.txt"), row=9, words=2))


def test_no_files_is_no_error(model):
    result = look(model, FeatureCorpusInputs("l1f2"))
    assert (result.place, result.found, result.inputs.feature) == ("", False, "L1F2")
    assert FeatureCorpusResult.from_json(result.to_json()).to_json() == result.to_json()


def test_what_the_files_say_comes_out_with_checks(model, tmp_path):
    run_pass(tmp_path, model)
    result = look(model, FeatureCorpusInputs("L1F2"))
    assert result.found
    assert not result.dead
    assert len(result.checks) == 3
    assert all(check.passed for check in result.checks), result.checks
    assert result.histogram.sum() == result.n_active == round(result.density * result.n_tokens)
    assert result.text == "text.txt"
    again = FeatureCorpusResult.from_json(result.to_json())
    assert again.to_json() == result.to_json()
    np.testing.assert_array_equal(again.edges, result.edges)
    frame = result.to_frame()
    assert {"density", "histogram", "co-active", "by chance", "example"} <= set(frame["quantity"])
    examples = frame[frame["quantity"] == "example"]
    assert min(examples.loc[examples["position"] == 0, "value"]) > 0


def test_files_for_other_weights_are_told(model, tmp_path, monkeypatch):
    run_pass(tmp_path, model)
    monkeypatch.setattr(model.transcoders[""], "fingerprint", "retrained")
    assert not look(model, FeatureCorpusInputs("L1F2")).found
    monkeypatch.undo()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    summary = next((tmp_path / "data").rglob("lantern.json.gz"))
    values = json.loads(gzip.decompress(summary.read_bytes()))
    summary.write_bytes(gzip.compress(json.dumps(values | {"fingerprint": "another"}).encode()))
    assert "made for other weights" in look(model, FeatureCorpusInputs("L1F2")).warnings[0]


def test_a_file_that_contradicts_itself_fails_its_checks(model, tmp_path):
    run_pass(tmp_path, model)
    folder = next((tmp_path / "data").rglob("index.json.gz")).parent
    wrong = others(index=0, n_tokens=100, n_active=7, histogram_edges=[0.1, 1, 3], act_max=0.1)
    index = {"0": {"filename": "layer_0.bin", "offsets": [0, len(packed(wrong))]}}
    (folder / "layer_0.bin").write_bytes(packed(wrong))
    (folder / "index.json.gz").write_bytes(gzip.compress(json.dumps(index).encode()))
    result = look(model, FeatureCorpusInputs("L0F0"))
    assert [check.passed for check in result.checks] == [False, True, False]


def test_a_feature_that_is_not_there(model):
    with pytest.raises(InputError, match="no feature 99"):
        look(model, FeatureCorpusInputs("L1F99"))


def test_tokens_for_files_join_to_the_text():
    from mi_core import load_model

    tokenizer = load_model("atlas").tokenizer
    text = "Größe — naïve 日本 🙂\n\tdef f(x):  return x"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    reader, pieces = piece_reader(tokenizer), tokenizer.convert_ids_to_tokens(ids)
    told = "".join(reader.text(token, piece) for token, piece in zip(ids, pieces, strict=True))
    raw = b"".join(
        part.encode() if not part.startswith("\\x") else bytes.fromhex(part[2:])
        for part in re.split(r"(\\x[0-9a-f]{2})", told)
    )
    assert raw.decode() == text
