"""Lantern's launcher: `streamlit run app.py`.

The frame that draws every page is `pages/shared/frame.py`. It is not this file, because Streamlit takes a
`pages` folder beside the main script for its old multipage layout and would then show a deep link without
the frame.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware
from starlette.routing import Route

# Read when torch is first imported. By default torch's threads spin while they wait for each other: on two
# cores that
# are also busy with a browser, a trace of Atlas took 5 to 10 s that way and 0.7 to 1.6 s with threads that
# sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from pages.shared.server import SecurityHeaders, TokenGate, access_token, health  # noqa: E402


@asynccontextmanager
async def lifespan(app: st.App) -> AsyncIterator[None]:
    """Load the bundled model behind the first page; let go of threads and helpers at the end."""
    from pages.shared import catalogue, header, sidebar  # noqa: F401  # see below
    from pages.shared.preload import start_preload, stop

    # What the frame imports is there before threads import anything else: two threads that read a package
    # and one of its modules at the same time can wait for each other, and Python then refuses one of them.
    start_preload()
    try:
        yield
    finally:
        stop()


app = st.App(
    str(ROOT / "pages" / "shared" / "frame.py"),
    lifespan=lifespan,
    routes=[Route("/api/health", health)],
    middleware=[
        Middleware(SecurityHeaders),
        *([Middleware(TokenGate, token=access_token())] if access_token() else []),
    ],
)
