"""The hub's side is played by a small server on this machine; the client is the hub's own library."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from mi_core.errors import Cancelled, InputError, ModelError
from mi_core.model.discovery import find
from mi_core.model.hub import download, hub_size
from tests.disk import save_model
from tests.range_hub import Answering, listening

COMMIT, OTHER = "c" * 40, "d" * 40
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": bytes(3_000_000),
    "tokenizer.json": b"{}",
    "pytorch_model.bin": bytes(1000),
    "modeling_evil.py": b"raise SystemExit",
    "README.md": b"hello",
    "onnx/model.onnx": bytes(1000),
    "consolidated.safetensors": bytes(1000),
}


@dataclass
class Hub:
    """What the server knows and what it was asked."""

    files: dict[str, bytes] = field(default_factory=lambda: dict(FILES))
    commit: str = COMMIT
    moved_to: str | None = None  # main's commit for downloads, when it moves after the listing
    gated: Any = False
    refuse: tuple[int, str] | None = None  # (status, X-Error-Code) of every answer
    refuse_files: tuple[int, str] | None = None
    asked: list[str] = field(default_factory=list)
    address: str = ""


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(Answering):
        def do_GET(self) -> None:
            hub.asked.append(f"{self.command} {self.path}")
            path = self.path.partition("?")[0]
            is_api = path.startswith("/api/models/")
            refusal = hub.refuse or (None if is_api else hub.refuse_files)
            if refusal:
                self.answer(refusal[0], b"{}", X_Error_Code=refusal[1])
            elif is_api:
                self.answer_list("org/m", hub.commit, hub.files, hub.gated)
            else:
                _, _, _, _, revision, name = path.split("/", 5)
                data = hub.files[name]
                commit = (hub.moved_to or hub.commit) if revision == "main" else revision
                etag = hashlib.sha256(name.encode() + data).hexdigest()
                self.answer(200, data, ETag=f'"{etag}"', X_Repo_Commit=commit)

        do_HEAD = do_GET

    return Handler


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    hub = Hub()
    with listening(_handler(hub)) as hub.address:
        yield hub


def refused(hub: Hub, name: str = "org/m", revision: str | None = None) -> ModelError:
    with pytest.raises(ModelError) as caught:
        hub_size(name, revision, endpoint=hub.address)
    assert "\n" not in str(caught.value)
    return caught.value


def test_the_size_is_that_of_what_would_be_fetched_and_nothing_else(hub: Hub) -> None:
    size = hub_size("org/m", endpoint=hub.address)
    assert size.files == (("tokenizer.json", 2), ("model.safetensors", 3_000_000), ("config.json", 23))
    assert (size.bytes, size.commit, size.gated) == (3_000_025, COMMIT, False)
    assert [request for request in hub.asked if "/resolve/" in request] == []


def test_a_sharded_model_has_its_index_and_shards(hub: Hub) -> None:
    del hub.files["model.safetensors"]
    hub.files |= {"model.safetensors.index.json": b"{}", "model-00001-of-00002.safetensors": b"xx"}
    hub.files |= {"model-00002-of-00002.safetensors": b"yyy", "sub/model-00001-of-00001.safetensors": b"z"}
    names = [name for name, _ in hub_size("org/m", endpoint=hub.address).files]
    assert names == [
        "tokenizer.json",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "config.json",
    ]


def test_a_gated_model_is_told_with_its_size(hub: Hub) -> None:
    hub.gated = "manual"
    assert hub_size("org/m", endpoint=hub.address).gated


@pytest.mark.parametrize(
    ("refusal", "kind", "sentence"),
    [
        (
            (403, "GatedRepo"),
            "gated",
            "'org/m' is gated: its owner must grant access first. Ask for access on huggingface.co/org/m, "
            "then run `hf auth login`.",
        ),
        (
            (401, "RepoNotFound"),
            "missing",
            "'org/m' is not on the hub: it does not exist, or it is private. Check the spelling; for a "
            "private model run `hf auth login`.",
        ),
        ((404, "RepoNotFound"), "missing", "'org/m' is not on the hub"),
        (
            (404, "RevisionNotFound"),
            "missing",
            "'org/m@v9' is not on the hub: the model has no such revision. Leave it out.",
        ),
        (
            (503, ""),
            "offline",
            "'org/m' cannot be downloaded: the hub answered with status 503. Check the connection, or choose",
        ),
        ((429, ""), "offline", "the hub answered with status 429"),
    ],
)
def test_refusals_of_the_hub(hub: Hub, refusal: tuple[int, str], kind: str, sentence: str) -> None:
    hub.refuse = refusal
    error = refused(hub, revision="v9" if refusal[1] == "RevisionNotFound" else None)
    assert error.kind == kind
    assert sentence in str(error)


def test_a_hub_that_cannot_be_reached() -> None:
    with pytest.raises(ModelError) as caught:
        hub_size("org/m", endpoint="http://127.0.0.1:9")
    assert caught.value.kind == "offline"
    assert "'org/m' cannot be downloaded: 127.0.0.1:9 cannot be reached. Check the connection" in str(
        caught.value
    )


def test_offline_mode_is_respected(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    error = refused(hub)
    assert error.kind == "offline"
    assert str(error) == (
        "'org/m' cannot be downloaded: HF_HUB_OFFLINE is set. Unset it, or choose a model that is here."
    )
    assert hub.asked == []


@pytest.mark.parametrize(
    ("gone", "kind", "sentence"),
    [
        (
            "config.json",
            "unsupported",
            "'org/m' is not a transformers model: its repository has no config.json.",
        ),
        (
            "model.safetensors",
            "pickle_only",
            "'org/m' has no safetensors weights: its repository has only other formats, and pickles can run "
            "code when they are read. Choose a revision or a copy with safetensors.",
        ),
    ],
)
def test_repositories_without_what_is_needed(hub: Hub, gone: str, kind: str, sentence: str) -> None:
    del hub.files[gone]
    error = refused(hub)
    assert (error.kind, str(error)) == (kind, sentence)


@pytest.mark.parametrize("name", ["../x", "a/b/c", "/etc", "", "a b", "x--y", "http://evil"])
def test_only_hub_ids_are_asked_for(hub: Hub, name: str) -> None:
    for call in (hub_size, download):
        with pytest.raises(InputError, match=r"is no Hugging Face id\. Give it as owner/name\."):
            call(name, endpoint=hub.address)
        with pytest.raises(InputError, match="is not a branch, tag or commit"):
            call("org/m", "../x", endpoint=hub.address)
    assert hub.asked == []


def test_a_download_lands_in_the_cache_and_is_found(hub: Hub, tmp_path: Path) -> None:
    told: list[tuple[str, float, str]] = []
    folder = download("org/m", cache=tmp_path, endpoint=hub.address, on_phase=lambda *step: told.append(step))
    assert folder == tmp_path / "models--org--m" / "snapshots" / COMMIT
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert (tmp_path / "models--org--m" / "refs" / "main").read_text() == COMMIT
    shares = [share for _, share, _ in told]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    assert {phase for phase, _, _ in told} == {"find"}
    assert any("downloading model.safetensors, " in text for _, _, text in told)
    with pytest.raises(ModelError) as caught:  # the server's weights are zeros, and that is all that is wrong
        find("org/m", cache=tmp_path)
    assert caught.value.kind == "unsupported"


def test_a_second_download_fetches_nothing_again(hub: Hub, tmp_path: Path) -> None:
    download("org/m", cache=tmp_path, endpoint=hub.address)
    hub.asked.clear()
    download("org/m", COMMIT, cache=tmp_path, endpoint=hub.address)
    assert [request for request in hub.asked if request.startswith("GET") and "/resolve/" in request] == []


@pytest.mark.parametrize("share", [0.0, 1e-9, 0.5])
def test_a_stopped_download_keeps_the_reference_where_it_was(hub: Hub, tmp_path: Path, share: float) -> None:
    hub.commit = OTHER
    download("org/m", cache=tmp_path, endpoint=hub.address)
    hub.commit, hub.files["model.safetensors"] = COMMIT, bytes(2_000_000)

    def stop(_phase: str, done: float, _text: str) -> None:
        if done >= share:
            raise Cancelled

    with pytest.raises(Cancelled):
        download("org/m", cache=tmp_path, endpoint=hub.address, on_phase=stop)
    assert (tmp_path / "models--org--m" / "refs" / "main").read_text() == OTHER
    assert list(tmp_path.rglob("*.incomplete*")) == []
    assert not [thread for thread in threading.enumerate() if thread.name == "lantern-reader"]


def test_a_gated_file_is_told_even_if_the_listing_is_public(hub: Hub, tmp_path: Path) -> None:
    hub.refuse_files = (403, "GatedRepo")
    with pytest.raises(ModelError) as caught:
        download("org/m", cache=tmp_path, endpoint=hub.address)
    assert caught.value.kind == "gated"


def test_a_branch_that_moves_meanwhile_is_not_mixed(hub: Hub, tmp_path: Path) -> None:
    hub.moved_to = OTHER
    with pytest.raises(ModelError) as caught:
        download("org/m", cache=tmp_path, endpoint=hub.address)
    assert str(caught.value) == "'org/m' changed while it was downloaded. Start the download again."


def test_a_model_is_fetched_loaded_and_told_with_one_command(hub: Hub, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "served", num_hidden_layers=1)
    hub.files = {path.name: path.read_bytes() for path in folder.iterdir()}
    environment = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "mi_core", "info", "org/m", "--download"]
    fetched = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert fetched.returncode == 0, fetched.stderr
    assert fetched.stdout.startswith("org/m · float32 · auto\n")
    assert f"  weights      {COMMIT}\n" in fetched.stdout


def test_a_full_disk_is_told_before_the_download(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _path: type("Usage", (), {"free": 1_000_000})())
    with pytest.raises(ModelError) as caught:
        download("org/m", cache=tmp_path, endpoint=hub.address)
    assert caught.value.kind == "too_big"
    assert str(caught.value) == (
        f"'org/m' does not fit on the disk: the download has 3 MB, 1 MB are free at {tmp_path}. "
        "Free some space, or set HF_HOME to another disk."
    )
    assert [request for request in hub.asked if "/resolve/" in request] == []
