"""A small Hugging Face hub on this machine that knows byte ranges, for tests of what is fetched."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

COMMIT = "a" * 40
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


@dataclass
class RangeHub:
    """What the server holds and what it was asked.

    Attributes:
        repos: "owner/name" -> path -> content.
        ranges: how it answers ranges: "right", "ignored" (the whole file), "shifted", "short" or "gated".
        refuse: (status, X-Error-Code) of every answer; None = none is refused.
        asked: method, path and range of every request for a file.
        listed: names of the repositories whose lists were asked for.
        sent: bytes of all bodies of files.
        address: where it listens.
    """

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    ranges: str = "right"
    refuse: tuple[int, str] | None = None
    asked: list[str] = field(default_factory=list)
    listed: list[str] = field(default_factory=list)
    sent: int = 0
    address: str = ""


class Answering(BaseHTTPRequestHandler):
    """Answers without a word on the terminal."""

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def answer_list(self, repo: str, commit: str, files: Mapping[str, bytes], gated: Any = False) -> None:
        """The hub's description of a repository."""
        siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
        info = {"id": repo, "modelId": repo, "sha": commit, "gated": gated, "siblings": siblings}
        self.answer(200, json.dumps(info).encode(), Content_Type="application/json")


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server that is up inside the `with` block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(hub: RangeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(Answering):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if hub.refuse is not None:
                self.answer(hub.refuse[0], b"{}", X_Error_Code=hub.refuse[1])
            elif path.startswith("/api/models/"):
                self.list(path.removeprefix("/api/models/"))
            else:
                self.file(path.strip("/"))

        do_HEAD = do_GET

        def list(self, path: str) -> None:
            repo = "/".join(path.split("/")[:2])
            hub.listed.append(repo)
            if repo not in hub.repos:
                return self.answer(404, b"{}", X_Error_Code="RepoNotFound")
            return self.answer_list(repo, COMMIT, hub.repos[repo])

        def file(self, path: str) -> None:
            owner, name, _, commit, file = path.split("/", 4)
            assert commit == COMMIT
            wanted = self.headers.get("Range")
            hub.asked.append(f"{self.command} {file} {wanted or ''}".strip())
            data = hub.repos[f"{owner}/{name}"].get(file)
            if data is None:
                return self.answer(404, b"", X_Error_Code="EntryNotFound")
            found = _RANGE.fullmatch(wanted or "")
            if found is not None and hub.ranges == "gated":
                return self.answer(403, b"", X_Error_Code="GatedRepo")
            etag = hashlib.sha256(file.encode() + data).hexdigest()
            if found is None or hub.ranges == "ignored":
                hub.sent += len(data) if self.command == "GET" else 0
                return self.answer(200, data, ETag=f'"{etag}"', X_Repo_Commit=COMMIT)
            first, last = int(found[1]), int(found[2])
            shift = 1 if hub.ranges == "shifted" else 0
            body = data[first + shift : last + 1 + shift]
            body = body[:-1] if hub.ranges == "short" else body
            hub.sent += len(body)
            told = f"bytes {first + shift}-{last + shift}/{len(data)}"
            return self.answer(206, body, Content_Range=told, ETag=f'"{etag}"')

    return Handler


@contextmanager
def own_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[RangeHub]:
    """A hub for one test, on a machine whose caches are empty and the test's own."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name, folder in (("HF_HUB_CACHE", "hf"), ("XDG_DATA_HOME", "data"), ("XDG_CACHE_HOME", "cache")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    with serve() as hub:
        yield hub


@contextmanager
def serve() -> Iterator[RangeHub]:
    """A hub that is up inside the `with` block."""
    hub = RangeHub()
    with listening(_handler(hub)) as hub.address:
        yield hub
