"""What stays whole on the hub, and why; stopping, room and damage while encoders alone are fetched."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mi_core.errors import Cancelled, LanternError, TranscoderError
from mi_core.transcoders import hub_encoders, hub_inside
from mi_core.transcoders.folder_find import find_folder
from mi_core.transcoders.hub_listing import known_listing, listing_path
from mi_core.transcoders.hub_plan import allow_rows, fetch_plan
from tests.hub_transcoders import (
    LAYER,
    NAME,
    X,
    gemma_scope,
    opened,
    plan_of,
    plan_without_network,
    plt,
    publish,
    weights,
)
from tests.range_hub import RangeHub, own_hub
from tests.transcoder_files import (
    write_gemma_scope,
    write_plt,
)
from tests.transcoder_numbers import numbers


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[RangeHub]:
    with own_hub(monkeypatch, tmp_path) as hub:
        yield hub


def test_a_server_without_ranges_gives_one_sentence(hub: RangeHub, tmp_path: Path) -> None:
    publish(hub, plt(tmp_path / "published")[0])
    hub.ranges = "ignored"
    plan = plan_of(hub)
    assert plan.bytes("encoder") == 0
    assert set(plan.entire.values()) == {"the server sends only whole files"}
    fetch_plan(plan, ("both",), (0,), endpoint=hub.address)
    assert opened(hub).local
    assert len(plan_without_network().entire) == 3
    hub.ranges = "right"  # it may learn it: asking again looks again, at what is not here
    again = plan_of(hub)
    assert again.entire == {}
    assert [one.layer for one in again.uses if one.part] == [1, 2, 3]


@pytest.mark.parametrize(("how", "why"), [
    ("ignored", "layer_2.safetensors cannot be read in parts: the server sends only whole files"),
    ("shifted", "the hub sent 'bytes 1-"), ("short", "bytes of"),
])  # fmt: skip
def test_a_server_that_answers_wrongly_leaves_nothing(
    how: str, why: str, hub: RangeHub, tmp_path: Path
) -> None:
    folder, _ = plt(tmp_path / "published")
    publish(hub, folder)
    plan = plan_of(hub)
    hub.ranges = how
    with pytest.raises(LanternError, match=re.escape(why)):
        fetch_plan(plan, ("encoder",), (LAYER,), endpoint=hub.address)
    assert not [path for path in hub_encoders.encoders_folder().rglob("*") if path.is_file()]
    with pytest.raises(TranscoderError):
        opened(hub)
    hub.ranges = "right"
    fetch_plan(plan, ("encoder",), (LAYER,), endpoint=hub.address)
    assert opened(hub).layers == (LAYER,)


def test_a_gated_repository_says_so_and_its_sizes_stay(hub: RangeHub, tmp_path: Path) -> None:
    files = publish(hub, plt(tmp_path / "published")[0])
    hub.ranges = "gated"
    plan = plan_of(hub)
    assert plan.bytes("both") == sum(map(len, weights(files).values()))
    assert set(plan.entire.values()) == {"its owner must grant access first"}


def test_a_compressed_archive_stays_whole(hub: RangeHub, tmp_path: Path) -> None:
    n = numbers(X, clt=False, jump=True)
    files = publish(hub, write_gemma_scope(n, tmp_path / "published", compressed=True))
    plan = plan_of(hub)
    assert plan.bytes("encoder") == 0
    assert set(plan.entire.values()) == {"its arrays are compressed"}
    assert hub.sent < 0.5 * sum(map(len, files.values()))  # the lists of members, which are long here
    fetch_plan(plan, ("both",), endpoint=hub.address)
    assert opened(hub).local


def test_decoders_with_a_column_per_feature_do_not_come_by_range(hub: RangeHub, tmp_path: Path) -> None:
    """One row would read the whole decoder: that is a download, which is asked for as such."""
    n = numbers(X, clt=False)
    publish(hub, write_plt(n, tmp_path / "published", legacy=True, writes="hook_mlp_out"))
    fetch_plan(plan_of(hub), ("encoder",), endpoint=hub.address)
    allow_rows(plan_of(hub))
    transcoder = opened(hub)
    assert not transcoder.has_decoder
    assert "one column per feature, so their rows cannot be read from the hub" in transcoder.warnings[0]
    assert len(transcoder.warnings) == 1
    assert torch.equal(transcoder.encoder(1).W_enc, torch.tensor(n.enc[1]))
    fetch_plan(plan_of(hub), ("both",), endpoint=hub.address)
    assert torch.equal(opened(hub).rows(1, torch.tensor([2]))[:, 0], torch.tensor(n.dec[1][[2], 0]))


def test_other_files_by_these_names_stay_whole(hub: RangeHub, tmp_path: Path) -> None:
    folder, _ = plt(tmp_path / "published")
    save_file({"W_enc": torch.zeros(3, 2)}, folder / "layer_1.safetensors")
    (folder / "layer_3.safetensors").write_bytes(b"nonsense, but long enough for a length")
    publish(hub, folder)
    entire = plan_of(hub).entire
    assert entire["layer_1.safetensors"] == "it names no W_dec"
    assert "not a safetensors file" in entire["layer_3.safetensors"]
    assert set(entire) == {"layer_1.safetensors", "layer_3.safetensors"}


def test_hundreds_of_files_are_not_looked_into(
    hub: RangeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(hub, plt(tmp_path / "published")[0])
    monkeypatch.setattr(hub_inside, "MAX_FILES", 3)
    plan = plan_of(hub)
    assert hub.asked == []
    assert "name one of its folders" in plan.entire["layer_0.safetensors"]


def test_a_stopped_download_goes_on_where_it_was(
    hub: RangeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_encoders, "PIECE_BYTES", 500)
    folder, _ = plt(tmp_path / "published")
    files = publish(hub, folder)
    plan = plan_of(hub)

    def stop(phase: str, share: float, text: str) -> None:
        if "the encoder of layer_1" in text:
            raise Cancelled

    with pytest.raises(Cancelled):
        fetch_plan(plan, ("encoder",), on_phase=stop, endpoint=hub.address)
    assert opened(hub).layers == (0,)
    first = hub.sent
    fetch_plan(plan, ("encoder",), on_phase=lambda *_: None, endpoint=hub.address)
    assert opened(hub).layers == (0, 1, 2, 3)
    again = plan.bytes("encoder") - plan.bytes("encoder", (0,))
    assert again - 500 <= hub.sent - first <= again + len(files["config.yaml"])
    assert not list(hub_encoders.encoders_folder().rglob("*.part"))


def test_a_full_disk_is_told_before_anything_is_fetched(
    hub: RangeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(hub, gemma_scope(tmp_path / "published")[0])
    plan = plan_of(hub)
    asked = len(hub.asked)
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 10})())
    with pytest.raises(TranscoderError, match="does not fit on the disk") as caught:
        fetch_plan(plan, ("encoder",), endpoint=hub.address)
    assert caught.value.kind == "too_big"
    assert len(hub.asked) == asked


def test_a_lost_piece_is_noticed_and_fetched_again(hub: RangeHub, tmp_path: Path) -> None:
    folder, _ = plt(tmp_path / "published")
    publish(hub, folder)
    plan = plan_of(hub)
    fetch_plan(plan, ("encoder",), endpoint=hub.address)
    half = find_folder(NAME, (), endpoint=hub.address)
    listing = known_listing(NAME)
    assert listing is not None
    for damage in (Path.unlink, lambda path: path.write_bytes(b"short")):
        assert not half.changed()
        damage(max(hub_encoders.encoder_pieces(listing, "layer_1.safetensors").values()))
        assert half.changed()
        assert opened(hub).layers == (0, 2, 3)
        fetch_plan(plan_of(hub), ("encoder",), endpoint=hub.address)
        assert opened(hub).layers == (0, 1, 2, 3)
        half = find_folder(NAME, (), endpoint=hub.address)


def test_a_kept_list_with_strange_insides_knows_none(hub: RangeHub, tmp_path: Path) -> None:
    publish(hub, plt(tmp_path / "published")[0])
    plan_of(hub)
    path = listing_path(NAME)
    values = json.loads(path.read_text())
    for spans in ([], [[-1, 4]], [[0, 10**9]], [[0, 0]]):
        path.write_text(json.dumps({**values, "encoders": {"layer_0.safetensors": spans}}))
        listing = known_listing(NAME)
        assert listing is not None
        assert listing.encoders == {}
    for spans in ("x", [["a", 1]], [[1]], 3):
        path.write_text(json.dumps({**values, "encoders": {"layer_0.safetensors": spans}}))
        assert known_listing(NAME) is None
    path.write_text(json.dumps({k: v for k, v in values.items() if k not in ("encoders", "entire")}))
    assert known_listing(NAME) is not None  # as it was kept before
