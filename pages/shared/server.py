"""What stands between the network and the pages: headers, an optional access token, a health answer."""

from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_OPEN_PATHS = ("/_stcore/health", "/api/health")

_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"referrer-policy", b"no-referrer"),  # links carry prompts; a click on a paper must not hand them over
]


def access_token() -> str:
    """The access token that `LANTERN_TOKEN` asks for; empty means that no token is needed."""
    return os.environ.get("LANTERN_TOKEN", "")


async def health(request: Request) -> JSONResponse:
    """Whether the server answers and whether the bundled model is ready."""
    from pages.shared.preload import preload_state

    return JSONResponse({"ok": True, "model": preload_state()})


class SecurityHeaders:
    """Adds the headers that Streamlit leaves out; plain ASGI, so that it also sees what is streamed."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


class TokenGate:
    """Lets in who knows the token, from `?token=` once and from a cookie afterwards."""

    def __init__(self, app: Any, token: str) -> None:
        self.app = app
        self.token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request or websocket."""
        if scope["type"] not in ("http", "websocket") or scope["path"] in _OPEN_PATHS:
            return await self.app(scope, receive, send)
        connection = HTTPConnection(scope)
        given = connection.query_params.get("token") or connection.cookies.get("lantern_token", "")
        if hmac.compare_digest(given.encode(), self.token.encode()):
            return await self.app(scope, receive, self._with_cookie(send, "token" in connection.query_params))
        if scope["type"] == "websocket":
            await receive()
            return await send({"type": "websocket.close", "code": 1008})
        await send(
            {"type": "http.response.start", "status": 401, "headers": [(b"content-type", b"text/plain")]}
        )
        return await send({"type": "http.response.body", "body": b"Open the address that ends in ?token=..."})

    def _with_cookie(self, send: Send, set_cookie: bool) -> Send:
        cookie = f"lantern_token={self.token}; HttpOnly; SameSite=Strict; Path=/".encode()

        async def send_cookie(message: MutableMapping[str, Any]) -> None:
            if set_cookie and message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), (b"set-cookie", cookie)]}
            await send(message)

        return send_cookie
