"""A transcoder on the hub: sizes first, only what was asked for, single rows by range, offline after."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mi_core.errors import Cancelled, InputError, LanternError, ModelError, TranscoderError
from mi_core.transcoders import hub_range
from mi_core.transcoders.folder_find import find_folder
from mi_core.transcoders.formats import open_folder
from mi_core.transcoders.formats_names import looks_like_transcoder, use_of
from mi_core.transcoders.hub_cached import cached_transcoders
from mi_core.transcoders.hub_fetch import fetch
from mi_core.transcoders.hub_listing import known_listing
from mi_core.transcoders.hub_plan import Plan, allow_rows, ask_plan, fetch_plan, known_plan, parse_layers
from mi_core.transcoders.hub_range import RemoteFile
from mi_core.transcoders.hub_reference import is_reference, parse_reference
from mi_core.transcoders.transcoder import Transcoder
from tests.range_hub import COMMIT, RangeHub, own_hub
from tests.tiny import tiny
from tests.transcoder_files import write_clt, write_gemma_scope
from tests.transcoder_numbers import D, Numbers, numbers

X = np.random.default_rng(1).normal(size=(4, 6, D))
NAME = "org/clt"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[RangeHub]:
    with own_hub(monkeypatch, tmp_path) as hub:
        yield hub


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def published(hub: RangeHub, tmp_path: Path) -> Numbers:
    n = numbers(X, clt=True, jump=True)
    hub.repos[NAME] = files_of(write_clt(n, tmp_path / "published"))
    hub.repos[NAME] |= {"README.md": b"hello", "evil.py": b"raise", "weights.pt": bytes(50)}
    hub.repos[NAME] |= {"features/layer_0.bin": bytes(range(256)) * 4, "features/index.json.gz": b"zz"}
    return n


def plan_of(hub: RangeHub, name: str = NAME) -> Plan:
    return ask_plan(parse_reference(name), endpoint=hub.address)


def opened(hub: RangeHub, name: str = NAME, family: str = "llama") -> Transcoder:
    return open_folder(find_folder(name, (), endpoint=hub.address), tiny(family))


# --- sizes first ---


def test_sizes_are_told_by_use_before_anything_is_fetched(hub: RangeHub, published: Numbers) -> None:
    plan = plan_of(hub)
    assert hub.asked == []
    encoders = sum(len(data) for name, data in hub.repos[NAME].items() if name.startswith("W_enc"))
    decoders = sum(len(data) for name, data in hub.repos[NAME].items() if name.startswith("W_dec"))
    assert (plan.bytes("encoder"), plan.bytes("decoder")) == (encoders, decoders)
    assert plan.bytes("encoder", (0,)) == len(hub.repos[NAME]["W_enc_0.safetensors"])
    assert plan.bytes("examples") == 1026
    assert plan.bytes("encoder", missing=True) == encoders


def test_only_what_was_asked_for_is_fetched(hub: RangeHub, published: Numbers) -> None:
    plan = plan_of(hub)
    told: list[str] = []
    fetch_plan(
        plan, ("encoder",), (0, 2), on_phase=lambda _, share, text: told.append(text), endpoint=hub.address
    )
    got = {line.split()[1] for line in hub.asked if line.startswith("GET")}
    assert got == {"config.yaml", "W_enc_0.safetensors", "W_enc_2.safetensors"}
    assert told[-1].startswith("fetched")
    again = known_plan(parse_reference(NAME))
    assert again is not None
    assert {one.file for one in again.uses if one.here} == got
    assert again.bytes("encoder", (0, 2), missing=True) == 0


def test_encoders_alone_can_be_browsed_and_rows_are_refused(hub: RangeHub, published: Numbers) -> None:
    fetch_plan(plan_of(hub), ("encoder",), endpoint=hub.address)
    asked = len(hub.asked)
    transcoder = opened(hub)
    assert transcoder.layers == (0, 1, 2, 3)
    assert not transcoder.has_decoder
    torch.testing.assert_close(transcoder.encoder(2).W_enc, torch.tensor(published.enc[2]))
    with pytest.raises(TranscoderError, match="The decoder of layer 1 is not here"):
        transcoder.rows(1, torch.tensor([0]))
    assert len(hub.asked) == asked  # nothing was asked of the hub


def test_nothing_is_read_before_the_user_asks(hub: RangeHub, published: Numbers) -> None:
    with pytest.raises(TranscoderError, match="is not on this machine") as caught:
        opened(hub)
    assert caught.value.kind == "missing"
    assert hub.asked == hub.listed == []


def test_a_plan_fetches_decoders_and_offline_it_is_a_whole_transcoder(
    hub: RangeHub, published: Numbers
) -> None:
    fetch_plan(plan_of(hub), ("encoder", "decoder"), endpoint=hub.address)
    hub.refuse = (500, "")
    transcoder = opened(hub)
    assert transcoder.local
    for layer in range(4):
        rows = transcoder.rows(layer, torch.arange(10))
        assert torch.equal(rows, torch.tensor(published.dec[layer]))
    assert cached_transcoders() == (NAME,)


# --- rows by range ---


def test_one_features_rows_come_by_range_and_only_once(hub: RangeHub, published: Numbers) -> None:
    fetch_plan(plan_of(hub), ("encoder",), endpoint=hub.address)
    allow_rows(plan_of(hub))
    transcoder = opened(hub)
    assert transcoder.has_decoder
    assert not transcoder.local
    hub.asked.clear()
    hub.sent = 0
    rows = transcoder.rows(0, torch.tensor([7]))
    assert torch.equal(rows, torch.tensor(published.dec[0][[7]]))
    row = 4 * D * 4
    assert hub.sent == row
    assert transcoder.rows(0, torch.tensor([7])).equal(rows)
    assert hub.sent == row  # from disk
    transcoder.rows(0, torch.tensor([8, 7, 9]))
    assert hub.sent == 3 * row
    assert len(hub.asked) == 2  # neighbours in one request
    again = opened(hub)  # as after a restart: headers and rows are on disk
    hub.refuse = (500, "")
    assert torch.equal(again.rows(0, torch.tensor([9])), torch.tensor(published.dec[0][[9]]))


def test_permission_can_be_taken_back(hub: RangeHub, published: Numbers) -> None:
    fetch_plan(plan_of(hub), ("encoder",), endpoint=hub.address)
    allow_rows(plan_of(hub))
    folder = find_folder(NAME, (), endpoint=hub.address)
    allow_rows(plan_of(hub), False)
    assert folder.changed()
    assert not opened(hub).has_decoder
    listing = known_listing(NAME)
    assert listing is not None
    assert not listing.by_range


def test_examples_are_read_by_range_too(hub: RangeHub, published: Numbers) -> None:
    fetch_plan(plan_of(hub), ("encoder",), endpoint=hub.address)
    allow_rows(plan_of(hub))
    file = find_folder(NAME, (), endpoint=hub.address).open("features/layer_0.bin")
    assert file.size == 1024
    assert [bytes(part) for part in file.read([(260, 4), (10, 2)])] == [bytes([4, 5, 6, 7]), bytes([10, 11])]


def remote(hub: RangeHub, tmp_path: Path, file: str = "W_dec_0.safetensors") -> RemoteFile:
    size = len(hub.repos[NAME].get(file, b"x" * 100))
    return RemoteFile(NAME, COMMIT, file, size, endpoint=hub.address, folder=tmp_path / "ranges")


@pytest.mark.parametrize(("how", "why"), [
    ("ignored", "cannot be read in parts"), ("shifted", "the hub sent 'bytes 11-20/"),
    ("short", "9 bytes of 10"),
])  # fmt: skip
def test_a_server_that_answers_ranges_wrongly_is_refused(
    how: str, why: str, hub: RangeHub, published: Numbers, tmp_path: Path
) -> None:
    hub.ranges = how
    with pytest.raises(LanternError, match=why):
        remote(hub, tmp_path).read([(10, 10)])
    hub.ranges = "right"  # and nothing wrong was kept
    found = remote(hub, tmp_path).read([(10, 10)])[0]
    assert bytes(found) == hub.repos[NAME]["W_dec_0.safetensors"][10:20]


def test_what_is_no_longer_there_and_no_network_are_sentences(
    hub: RangeHub, published: Numbers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LanternError):
        remote(hub, tmp_path, "W_dec_9.safetensors").read([(0, 4)])
    hub.refuse = (403, "GatedRepo")
    with pytest.raises(LanternError, match="is gated"):
        remote(hub, tmp_path).read([(0, 4)])
    gone = RemoteFile(NAME, COMMIT, "x", 9, endpoint="http://127.0.0.1:9", folder=tmp_path)
    with pytest.raises(ModelError, match="cannot be reached") as caught:
        gone.read([(0, 4)])
    assert caught.value.kind == "offline"


def test_a_large_reading_is_a_download_and_says_so(
    hub: RangeHub, published: Numbers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_range, "MAX_BYTES", 100)
    with pytest.raises(TranscoderError, match="Fetch the file first") as caught:
        remote(hub, tmp_path).read([(0, 101)])
    assert caught.value.kind == "no_decoder"
    assert hub.asked == []
    monkeypatch.setattr(hub_range, "MAX_REQUESTS", 2)
    with pytest.raises(TranscoderError, match="3 pieces"):
        remote(hub, tmp_path).read([(0, 1), (10, 1), (20, 1)])


def test_a_stretch_outside_the_file_is_refused(hub: RangeHub, published: Numbers, tmp_path: Path) -> None:
    file = remote(hub, tmp_path)
    for span in ((file.size, 1), (-1, 2), (0, file.size + 1)):
        with pytest.raises(TranscoderError, match="is damaged"):
            file.read([span])
    assert hub.asked == []


def test_what_is_kept_on_disk_has_a_limit(hub: RangeHub, published: Numbers, tmp_path: Path) -> None:
    file = remote(hub, tmp_path)
    for first in range(0, 50, 10):
        file.read([(first, 10)])
    hub_range._let_go(tmp_path / "ranges", limit=25)
    kept = [path for path in (tmp_path / "ranges").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in kept) <= 25
    assert len(kept) == 2


def test_a_damaged_piece_on_disk_is_asked_for_again(
    hub: RangeHub, published: Numbers, tmp_path: Path
) -> None:
    file = remote(hub, tmp_path)
    right = bytes(file.read([(8, 6)])[0])
    next(path for path in (tmp_path / "ranges").rglob("8-6")).write_bytes(b"xx")
    assert bytes(file.read([(8, 6)])[0]) == right


# --- lists, addresses, cancelling ---


def test_files_of_another_repository_that_a_config_lists(hub: RangeHub, tmp_path: Path) -> None:
    n = numbers(X, clt=False, jump=True)
    hub.repos["goo/gemma-scope-transcoders"] = files_of(write_gemma_scope(n, tmp_path / "p"))
    paths = sorted(hub.repos["goo/gemma-scope-transcoders"])
    listed = "".join(f'  - "hf://goo/gemma-scope-transcoders/{path}"\n' for path in paths)
    hooks = "feature_input_hook: ln2.hook_normalized\nfeature_output_hook: hook_mlp_out\n"
    config = f"model_kind: transcoder_set\n{hooks}transcoders:\n{listed}"
    hub.repos["org/list"] = {"config.yaml": config.encode()}
    plan = plan_of(hub, "org/list")
    assert [part.listing.repo for part in plan.parts] == ["org/list", "goo/gemma-scope-transcoders"]
    assert plan.bytes("both") == sum(map(len, hub.repos["goo/gemma-scope-transcoders"].values()))
    assert all("bytes=" in line for line in hub.asked if "npz" in line)  # headers only
    with pytest.raises(TranscoderError, match="the config lists it, and it was not fetched"):
        opened(hub, "org/list", "gemma2")
    fetch_plan(plan, ("both",), endpoint=hub.address)
    hub.refuse = (500, "")
    transcoder = opened(hub, "org/list", "gemma2")
    assert torch.equal(transcoder.rows(2, torch.tensor([3]))[:, 0], torch.tensor(n.dec[2][[3], 0]))


def test_a_folder_of_a_repository(hub: RangeHub, published: Numbers) -> None:
    hub.repos["org/many"] = {f"small/{path}": data for path, data in hub.repos[NAME].items()}
    hub.repos["org/many"]["other/layer_0.safetensors"] = bytes(100)
    plan = plan_of(hub, "org/many/small")
    assert plan.bytes("both") == 0
    fetch_plan(plan, ("encoder", "decoder"), endpoint=hub.address)
    assert opened(hub, "org/many/small@" + COMMIT).layers == (0, 1, 2, 3)


def test_only_files_of_a_transcoder_are_ever_fetched(hub: RangeHub, published: Numbers) -> None:
    listing = plan_of(hub).listing
    for file in ("evil.py", "weights.pt", "README.md", "nothing", "../x"):
        with pytest.raises(InputError, match="is no file of a transcoder"):
            fetch(listing, [file], endpoint=hub.address)
    assert hub.asked == []


def test_a_download_can_be_stopped_and_goes_on_later(hub: RangeHub, published: Numbers) -> None:
    def stop(phase: str, share: float, text: str) -> None:
        if "W_enc_1" in text:
            raise Cancelled

    with pytest.raises(Cancelled):
        fetch_plan(plan_of(hub), ("encoder",), on_phase=stop, endpoint=hub.address)
    assert opened(hub).layers == (0,) or opened(hub).layers == (0, 1)
    fetch_plan(plan_of(hub), ("encoder",), endpoint=hub.address)
    assert opened(hub).layers == (0, 1, 2, 3)


def test_a_full_disk_is_told_before_anything_is_fetched(
    hub: RangeHub, published: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(hub)
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 10})())
    with pytest.raises(TranscoderError, match="does not fit on the disk") as caught:
        fetch_plan(plan, ("encoder",), endpoint=hub.address)
    assert caught.value.kind == "too_big"
    assert hub.asked == []


def test_addresses() -> None:
    for text, parts in {
        "a/b": ("a/b", "", None), "a/b/c/d@v2": ("a/b", "c/d", "v2"),
        "hf://a/b/layer_0/params.npz": ("a/b", "layer_0/params.npz", None),
        "hf://a/b/x.npz?revision=main": ("a/b", "x.npz", "main"),
    }.items():  # fmt: skip
        found = parse_reference(text)
        assert (found.repo, found.path, found.revision) == parts
    for bad in (
        "",
        "a",
        "a/b/../c",
        "a//b/..",
        "/etc/passwd",
        "a/b@x y",
        "x" * 600,
        "a/b/c\\d",
        "https://a/b",
    ):
        assert not is_reference(bad), bad


def test_layers_are_read_from_a_text() -> None:
    assert parse_layers("") is None
    assert parse_layers(" 0-2, 7 ,1") == (0, 1, 2, 7)
    for bad in ("x", "3-1", "1,,2", "-1", "0-99999"):
        with pytest.raises(InputError):
            parse_layers(bad)


def test_what_a_file_is_for_is_told_from_its_name() -> None:
    assert use_of("W_enc_3.safetensors") == "encoder"
    assert use_of("sub/W_dec_3.safetensors") == "decoder"
    assert use_of("layer_3/width_16k/average_l0_7/params.npz") == "both"
    assert use_of("features/layer_2.bin") == "examples"
    assert (use_of("config.yaml"), use_of("model.bin"), use_of("x.py")) == ("settings", "other", "other")
    assert looks_like_transcoder(["layer_0.safetensors"])
    assert not looks_like_transcoder(["config.json", "model.safetensors", "config.yaml"])


def test_a_strange_kept_list_is_no_list(hub: RangeHub, published: Numbers) -> None:
    from mi_core.transcoders.hub_listing import listing_path

    plan_of(hub)
    path = listing_path(NAME)
    for text in (
        "",
        "[]",
        '{"schema": "x"}',
        path.read_text().replace(NAME, "org/other"),
        path.read_text().replace(COMMIT, "../.."),
    ):
        path.write_text(text)
        assert known_listing(NAME) is None
