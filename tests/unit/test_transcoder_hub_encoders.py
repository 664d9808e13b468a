"""Encoders of files that hold whole layers: fetched without their decoders, with the numbers of the whole."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mi_core.errors import Cancelled, LanternError, TranscoderError
from mi_core.transcoders import active_features, hub_encoders, hub_inside, reconstruct
from mi_core.transcoders.folder import LocalFolder
from mi_core.transcoders.folder_find import find_folder
from mi_core.transcoders.formats import open_folder
from mi_core.transcoders.hub_listing import known_listing, listing_path
from mi_core.transcoders.hub_plan import Plan, allow_rows, ask_plan, fetch_plan, known_plan
from mi_core.transcoders.hub_reference import parse_reference
from mi_core.transcoders.sizes import folder_of, memory_needed
from mi_core.transcoders.transcoder import Transcoder
from tests.range_hub import RangeHub, serve
from tests.tiny import tiny, tokens
from tests.transcoder_files import (
    write_gemma_scope,
    write_gemma_scope_2,
    write_gemma_scope_2_clt,
    write_plt,
    write_sae_lens,
    write_yaml,
)
from tests.transcoder_numbers import D, F, Numbers, numbers

X = np.random.default_rng(1).normal(size=(4, 6, D))
DECODER = F * D * 4
NAME = "org/gemma-transcoders"
LAYER = 2


def _plt(folder: Path) -> tuple[Path, Numbers]:
    n = numbers(X, clt=False, jump=True, skip=True)
    return write_plt(n, folder, writes="hook_mlp_out"), n


def _plt_top_k(folder: Path) -> tuple[Path, Numbers]:
    n = numbers(X, clt=False, k=3)
    return write_plt(n, folder, writes="hook_mlp_out"), n


def _sae_lens(folder: Path) -> tuple[Path, Numbers]:
    n = numbers(X, clt=False, jump=True, centred=True)
    return write_sae_lens(n, folder), n


def _sae_lens_skip(folder: Path) -> tuple[Path, Numbers]:
    n = numbers(X, clt=False, skip=True)
    write_sae_lens(n, folder, hook="ln2.hook_normalized", architecture="skip_transcoder")
    for path in folder.rglob("cfg.json"):
        cfg = json.loads(path.read_text())
        out = cfg["hook_name"].replace("ln2.hook_normalized", "hook_mlp_out")
        path.write_text(json.dumps({**cfg, "hook_name_out": out, "apply_b_dec_to_input": False}))
    return folder, n


def _gemma_scope(folder: Path) -> tuple[Path, Numbers]:
    n = numbers(X, clt=False, jump=True)
    return write_gemma_scope(n, folder), n


def _gemma_scope_2(folder: Path) -> tuple[Path, Numbers]:
    n = numbers(X, clt=False, jump=True, skip=True)
    return write_gemma_scope_2(n, folder), n


def _gemma_scope_2_clt(folder: Path) -> tuple[Path, Numbers]:
    n = numbers(X, clt=True, jump=True, unused=True)
    return write_gemma_scope_2_clt(n, folder), n


Writer = Callable[[Path], tuple[Path, Numbers]]
FORMATS: tuple[Writer, ...] = (
    _plt, _plt_top_k, _sae_lens, _sae_lens_skip, _gemma_scope, _gemma_scope_2, _gemma_scope_2_clt
)  # fmt: skip


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[RangeHub]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name, folder in (("HF_HUB_CACHE", "hf"), ("XDG_DATA_HOME", "data"), ("XDG_CACHE_HOME", "cache")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    with serve() as hub:
        yield hub


def publish(hub: RangeHub, folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    hub.repos[NAME] = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    return hub.repos[NAME]


def plan_of(hub: RangeHub, name: str = NAME) -> Plan:
    return ask_plan(parse_reference(name), endpoint=hub.address)


def opened(hub: RangeHub, name: str = NAME) -> Transcoder:
    return open_folder(find_folder(name, (), endpoint=hub.address), tiny("gemma2"))


def whole(folder: Path) -> Transcoder:
    """The same from the folder as it was published."""
    return open_folder(LocalFolder(folder, NAME), tiny("gemma2"))


def weights(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name.endswith((".safetensors", ".npz"))}


def decoder_bytes(n: Numbers, write: Writer) -> int:
    """Of the fixtures' layer; Gemma Scope 2's CLT also has the unused targets before it."""
    return DECODER * (n.n_layers if write is _gemma_scope_2_clt else 1)


# --- sizes first ---


@pytest.mark.parametrize("write", FORMATS)
def test_the_sizes_say_how_much_the_encoders_alone_are(write: Writer, hub: RangeHub, tmp_path: Path) -> None:
    folder, n = write(tmp_path / "published")
    files = weights(publish(hub, folder))
    plan = plan_of(hub)
    margin = 1024 if write is _gemma_scope else 0  # an archive's array is told from its first kilobyte
    alone = sum(len(data) - decoder_bytes(n, write) + margin for data in files.values())
    assert plan.bytes("both") == sum(map(len, files.values()))
    assert plan.bytes("encoder") == plan.bytes("encoder", missing=True) == alone
    assert plan.entire == {}
    assert all("bytes=" in line for line in hub.asked)
    asked = len(hub.asked)
    assert plan_of(hub).bytes("encoder") == alone
    assert len(hub.asked) == asked  # what is known is not asked again


def test_a_layer_of_a_plt_takes_half_of_its_file(hub: RangeHub, tmp_path: Path) -> None:
    """Every byte that the server sends is counted, from the first question to the browsing."""
    folder, _ = _plt(tmp_path / "published")
    width, count = D, 4096
    generator = torch.Generator().manual_seed(0)
    for layer in range(4):
        tensors = {
            "W_enc": torch.randn(count, width, generator=generator),
            "W_dec": torch.randn(count, width, generator=generator),
            "b_enc": torch.randn(count, generator=generator), "b_dec": torch.zeros(width),
        }  # fmt: skip
        save_file(tensors, folder / f"layer_{layer}.safetensors")
    files = publish(hub, folder)
    plan = plan_of(hub)
    assert hub.sent < 4 * 1000  # four headers
    size = len(files["layer_2.safetensors"])
    alone = plan.bytes("encoder", (LAYER,))
    assert 0.5 < alone / size < 0.52
    hub.sent = 0
    fetch_plan(plan, ("encoder",), (LAYER,), endpoint=hub.address)
    assert hub.sent == alone + len(files["config.yaml"])
    hub.sent = 0
    transcoder = opened(hub)
    assert transcoder.layers == (LAYER,)
    assert torch.equal(transcoder.encoder(LAYER).W_enc, whole(folder).encoder(LAYER).W_enc)
    assert hub.sent == 0
    allow_rows(plan_of(hub))
    rows = opened(hub).rows(LAYER, torch.tensor([4095]))
    assert torch.equal(rows, whole(folder).rows(LAYER, torch.tensor([4095])))
    assert hub.sent == width * 4


@pytest.mark.parametrize("write", FORMATS)
def test_one_layer_of_any_format_is_browsed_alone(write: Writer, hub: RangeHub, tmp_path: Path) -> None:
    folder, _ = write(tmp_path / "published")
    publish(hub, folder)
    plan = plan_of(hub)
    hub.sent = 0
    fetch_plan(plan, ("encoder",), (LAYER,), endpoint=hub.address)
    settings = sum(one.bytes for one in plan.uses if one.use == "settings" and one.layer in (None, LAYER))
    assert hub.sent == plan.bytes("encoder", (LAYER,)) + settings
    transcoder = opened(hub)
    assert transcoder.layers == (LAYER,)
    assert torch.equal(transcoder.encoder(LAYER).W_enc, whole(folder).encoder(LAYER).W_enc)


# --- the numbers are those of the whole ---


@pytest.mark.parametrize("write", FORMATS)
def test_encoders_alone_are_browsed_with_the_numbers_of_the_whole(
    write: Writer, hub: RangeHub, tmp_path: Path
) -> None:
    folder, _ = write(tmp_path / "published")
    publish(hub, folder)
    fetch_plan(plan_of(hub), ("encoder",), endpoint=hub.address)
    hub.refuse = (500, "")
    transcoder, true = opened(hub), whole(folder)
    assert transcoder.layers == true.layers == (0, 1, 2, 3)
    assert not transcoder.has_decoder
    x = torch.tensor(X, dtype=torch.float32)
    for layer in range(4):
        found, wanted = transcoder.encoder(layer), true.encoder(layer)
        assert torch.equal(found.W_enc, wanted.W_enc)
        assert torch.equal(found.b_enc, wanted.b_enc)
        assert found.k == wanted.k
        for name in ("threshold", "centre"):
            a, b = getattr(found, name), getattr(wanted, name)
            assert (a is None) == (b is None)
            assert a is None or torch.equal(a, b)
        acts = transcoder.activate(layer, transcoder.pre_activations(layer, x[layer]))
        assert torch.equal(acts, true.activate(layer, true.pre_activations(layer, x[layer])))
        assert torch.equal(transcoder.bias(layer), true.bias(layer))
    with pytest.raises(TranscoderError, match="The decoder of layer 1 is not here") as caught:
        transcoder.rows(1, torch.tensor([0]))
    assert caught.value.kind == "no_decoder"
    promised, same = memory_needed(transcoder), memory_needed(true)
    assert promised is not None
    assert same is not None
    assert (promised.encoders, promised.resident) == (same.encoders, same.resident)
    assert promised.promised <= same.promised


@pytest.mark.parametrize("write", FORMATS)
def test_decoder_rows_come_by_range_once_they_are_allowed(
    write: Writer, hub: RangeHub, tmp_path: Path
) -> None:
    folder, n = write(tmp_path / "published")
    publish(hub, folder)
    fetch_plan(plan_of(hub), ("encoder",), endpoint=hub.address)
    before = find_folder(NAME, (), endpoint=hub.address)
    allow_rows(plan_of(hub))
    assert before.changed()
    transcoder, true = opened(hub), whole(folder)
    assert transcoder.has_decoder
    assert not transcoder.local
    hub.sent = 0
    hub.asked.clear()
    at = torch.tensor([9])  # of an archive the first kilobyte of rows came with its header
    assert torch.equal(transcoder.rows(1, at), true.rows(1, at))
    assert hub.sent == decoder_bytes(n, write) // F
    assert len(hub.asked) == 1
    transcoder.rows(1, at)
    assert len(hub.asked) == 1  # from disk
    model, ids = tiny("gemma2"), tokens(1, 6)[0].tolist()
    active = active_features(model, transcoder, ids)
    assert len(active)
    assert torch.equal(reconstruct(model, transcoder, active), reconstruct(model, true, active))
    hub.refuse = (500, "")  # as after a restart, offline
    assert torch.equal(opened(hub).rows(1, at), true.rows(1, at))
    allow_rows(plan_without_network(), False)
    assert not opened(hub).has_decoder


def plan_without_network() -> Plan:
    plan = known_plan(parse_reference(NAME))
    assert plan is not None
    return plan


def test_configs_whose_weights_were_not_fetched_are_left_out(hub: RangeHub, tmp_path: Path) -> None:
    """SAELens has a config per layer; a download that was stopped has them all, and some weights."""
    folder, _ = _sae_lens(tmp_path / "published")
    publish(hub, folder)
    plan = plan_of(hub)
    fetch_plan(plan, (), endpoint=hub.address)
    with pytest.raises(TranscoderError, match="is incomplete"):
        opened(hub)
    fetch_plan(plan, ("encoder",), (1,), endpoint=hub.address)
    assert opened(hub).layers == (1,)
    next(folder.rglob("sae_weights.safetensors")).unlink()
    with pytest.raises(TranscoderError, match="is incomplete"):  # in a folder of one's own it is a mistake
        whole(folder)


@pytest.mark.parametrize("size", [1, 7, 333, 1000])
def test_the_size_of_the_pieces_changes_nothing(
    size: int, hub: RangeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if size == 1:
        monkeypatch.setattr(hub_encoders, "_cut", lambda span: [span])
    monkeypatch.setattr(hub_encoders, "PIECE_BYTES", max(7, size) * 8)
    folder, _ = _plt(tmp_path / "published")
    publish(hub, folder)
    fetch_plan(plan_of(hub), ("encoder",), (LAYER,), endpoint=hub.address)
    transcoder = opened(hub)
    assert torch.equal(transcoder.encoder(LAYER).W_enc, whole(folder).encoder(LAYER).W_enc)
    assert torch.equal(transcoder.bias(LAYER), whole(folder).bias(LAYER))


def test_layers_that_are_here_in_whole_and_in_part_go_together(hub: RangeHub, tmp_path: Path) -> None:
    folder, _ = _plt(tmp_path / "published")
    publish(hub, folder)
    fetch_plan(plan_of(hub), ("both",), (0,), endpoint=hub.address)
    plan = plan_of(hub)
    assert plan.bytes("encoder", (0,), missing=True) == 0
    fetch_plan(plan, ("encoder",), endpoint=hub.address)
    allow_rows(plan_of(hub))
    transcoder = opened(hub)
    assert not transcoder.local
    for layer in range(4):
        assert torch.equal(
            transcoder.rows(layer, torch.tensor([3])), whole(folder).rows(layer, torch.tensor([3]))
        )


def test_the_whole_layer_can_be_fetched_later_and_the_pieces_go(hub: RangeHub, tmp_path: Path) -> None:
    folder, _ = _plt(tmp_path / "published")
    publish(hub, folder)
    fetch_plan(plan_of(hub), ("encoder",), endpoint=hub.address)
    before = opened(hub)
    half = folder_of(before)
    assert half is not None
    assert not half.changed()
    fetch_plan(plan_of(hub), ("both",), endpoint=hub.address)
    assert half.changed()
    assert not [path for path in hub_encoders.encoders_folder().rglob("*") if path.is_file()]
    hub.refuse = (500, "")
    transcoder = opened(hub)
    assert transcoder.local
    assert transcoder.has_decoder
    assert transcoder.fingerprint == before.fingerprint
    assert plan_without_network().bytes("encoder", missing=True) == 0


def test_files_of_another_repository_that_a_config_lists(hub: RangeHub, tmp_path: Path) -> None:
    folder, _ = _gemma_scope(tmp_path / "published")
    paths = sorted(publish(hub, folder))
    write_yaml(
        tmp_path / "list", reads="ln2.hook_normalized", writes="hook_mlp_out",
        transcoders=[f'"hf://{NAME}/{path}"' for path in paths],
    )  # fmt: skip
    hub.repos["org/list"] = {"config.yaml": (tmp_path / "list" / "config.yaml").read_bytes()}
    plan = plan_of(hub, "org/list")
    assert [one.layer for one in plan.uses if one.part] == [0, 1, 2, 3]
    fetch_plan(plan, ("encoder",), endpoint=hub.address)
    allow_rows(plan_of(hub, "org/list"))
    transcoder = opened(hub, "org/list")
    assert transcoder.has_decoder
    assert torch.equal(transcoder.encoder(3).W_enc, whole(folder).encoder(3).W_enc)
    assert torch.equal(transcoder.rows(2, torch.tensor([4])), whole(folder).rows(2, torch.tensor([4])))


# --- what stays whole, and why ---


def test_a_server_without_ranges_gives_one_sentence(hub: RangeHub, tmp_path: Path) -> None:
    publish(hub, _plt(tmp_path / "published")[0])
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
    folder, _ = _plt(tmp_path / "published")
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
    files = publish(hub, _plt(tmp_path / "published")[0])
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
    folder, _ = _plt(tmp_path / "published")
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
    publish(hub, _plt(tmp_path / "published")[0])
    monkeypatch.setattr(hub_inside, "MAX_FILES", 3)
    plan = plan_of(hub)
    assert hub.asked == []
    assert "name one of its folders" in plan.entire["layer_0.safetensors"]


# --- stopping, room, damage ---


def test_a_stopped_download_goes_on_where_it_was(
    hub: RangeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_encoders, "PIECE_BYTES", 500)
    folder, _ = _plt(tmp_path / "published")
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
    publish(hub, _gemma_scope(tmp_path / "published")[0])
    plan = plan_of(hub)
    asked = len(hub.asked)
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 10})())
    with pytest.raises(TranscoderError, match="does not fit on the disk") as caught:
        fetch_plan(plan, ("encoder",), endpoint=hub.address)
    assert caught.value.kind == "too_big"
    assert len(hub.asked) == asked


def test_a_lost_piece_is_noticed_and_fetched_again(hub: RangeHub, tmp_path: Path) -> None:
    folder, _ = _plt(tmp_path / "published")
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
    publish(hub, _plt(tmp_path / "published")[0])
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
