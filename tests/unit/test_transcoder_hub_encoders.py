"""Encoders of files that hold whole layers: fetched without their decoders, with the numbers of the whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mi_core.errors import TranscoderError
from mi_core.transcoders import active_features, hub_encoders, reconstruct
from mi_core.transcoders.folder_find import find_folder
from mi_core.transcoders.hub_plan import allow_rows, fetch_plan
from mi_core.transcoders.sizes import folder_of, memory_needed
from tests.hub_transcoders import (
    FORMATS,
    LAYER,
    NAME,
    Writer,
    X,
    decoder_bytes,
    gemma_scope,
    opened,
    plan_of,
    plan_without_network,
    plt,
    publish,
    sae_lens,
    weights,
    whole,
)
from tests.range_hub import RangeHub, own_hub
from tests.tiny import tiny, tokens
from tests.transcoder_files import (
    write_yaml,
)
from tests.transcoder_numbers import D, F


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[RangeHub]:
    with own_hub(monkeypatch, tmp_path) as hub:
        yield hub


# --- sizes first ---


@pytest.mark.parametrize("write", FORMATS)
def test_the_sizes_say_how_much_the_encoders_alone_are(write: Writer, hub: RangeHub, tmp_path: Path) -> None:
    folder, n = write(tmp_path / "published")
    files = weights(publish(hub, folder))
    plan = plan_of(hub)
    margin = 1024 if write is gemma_scope else 0  # an archive's array is told from its first kilobyte
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
    folder, _ = plt(tmp_path / "published")
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


def test_configs_whose_weights_were_not_fetched_are_left_out(hub: RangeHub, tmp_path: Path) -> None:
    """SAELens has a config per layer; a download that was stopped has them all, and some weights."""
    folder, _ = sae_lens(tmp_path / "published")
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
    folder, _ = plt(tmp_path / "published")
    publish(hub, folder)
    fetch_plan(plan_of(hub), ("encoder",), (LAYER,), endpoint=hub.address)
    transcoder = opened(hub)
    assert torch.equal(transcoder.encoder(LAYER).W_enc, whole(folder).encoder(LAYER).W_enc)
    assert torch.equal(transcoder.bias(LAYER), whole(folder).bias(LAYER))


def test_layers_that_are_here_in_whole_and_in_part_go_together(hub: RangeHub, tmp_path: Path) -> None:
    folder, _ = plt(tmp_path / "published")
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
    folder, _ = plt(tmp_path / "published")
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
    folder, _ = gemma_scope(tmp_path / "published")
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
