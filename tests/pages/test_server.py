"""What stands before the pages: headers on every answer, and the token gate for HTTP and websockets."""

import asyncio
from typing import Any

import pytest

from pages.shared.server import SecurityHeaders, TokenGate, access_token

Messages = list[dict[str, Any]]


async def page(scope: Any, receive: Any, send: Any) -> None:
    """The application behind: says that it was reached."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"reached"})


def ask(app: Any, path: str = "/", query: str = "", cookie: str = "", kind: str = "http") -> Messages:
    sent: Messages = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": f"{kind}.connect"}

    scope = {
        "type": kind,
        "path": path,
        "query_string": query.encode(),
        "headers": [(b"cookie", cookie.encode())] if cookie else [],
    }
    asyncio.run(app(scope, receive, send))
    return sent


def test_headers_are_on_every_answer() -> None:
    headers = dict(ask(SecurityHeaders(page))[0]["headers"])
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert headers[b"x-frame-options"] == b"SAMEORIGIN"
    assert headers[b"referrer-policy"] == b"no-referrer"


def test_websockets_pass_the_headers_by() -> None:
    assert ask(SecurityHeaders(page), kind="websocket") == [{"type": "websocket.accept"}]


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    ("query", "cookie", "let_in"),
    [
        ("", "", False),
        ("token=wrong", "", False),
        ("token=", "", False),
        ("token=secret", "", True),
        ("", "lantern_token=secret", True),
        ("", "lantern_token=secre", False),
    ],
)
def test_the_gate(kind: str, query: str, cookie: str, let_in: bool) -> None:
    sent = ask(TokenGate(page, token="secret"), query=query, cookie=cookie, kind=kind)
    if kind == "http":
        assert sent[0]["status"] == (200 if let_in else 401)
    else:
        assert sent[0]["type"] == ("websocket.accept" if let_in else "websocket.close")


def test_the_gate_sets_a_cookie_only_for_the_token_in_the_address() -> None:
    gate = TokenGate(page, token="secret")
    cookies = dict(ask(gate, query="token=secret")[0]["headers"])
    assert b"HttpOnly" in cookies[b"set-cookie"]
    assert b"SameSite=Strict" in cookies[b"set-cookie"]
    assert ask(gate, cookie="lantern_token=secret")[0]["headers"] == []


@pytest.mark.parametrize("path", ["/_stcore/health", "/api/health"])
def test_health_is_open(path: str) -> None:
    assert ask(TokenGate(page, token="secret"), path=path)[0]["status"] == 200


def test_no_token_is_asked_for_unless_the_environment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LANTERN_TOKEN", raising=False)
    assert access_token() == ""
    monkeypatch.setenv("LANTERN_TOKEN", "secret")
    assert access_token() == "secret"
