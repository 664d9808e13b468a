"""What the tabs of a failed test showed, for its report."""

import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Error

LONGEST = 6000
"""Characters of a page's text."""


def told(tab: Any) -> str:
    """A tab's address, state, complaints and text, and where its picture is."""
    picture = Path(tempfile.mkdtemp(prefix="lantern-failed-")) / "tab.png"
    said = [f"address: {tab.url}", f"waits for the server: {tab.traffic.waiting}"]
    try:
        tab.screenshot(path=picture, timeout=10_000)
        said.append(f"picture: {picture}")
        state = tab.locator("[data-testid=stApp]").first.evaluate("app => ({...app.dataset})", timeout=10_000)
        text = tab.locator("body").inner_text(timeout=10_000)
    except Error as error:
        return "\n".join([*said, *tab.said, f"the tab does not answer: {error.message}"])
    return "\n".join([*said, f"state: {state}", *(f"console: {line}" for line in tab.said), text[:LONGEST]])
