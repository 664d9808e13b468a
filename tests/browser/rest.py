"""When a page has come to rest: nothing is asked, computed, drawn or moved any more."""

import time
from typing import Any

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

PATIENCE = 300.0
"""Seconds; far more than a slow and busy machine needs."""

CALM = 3
"""How often in a row, a tenth of a second apart, a page has to look the same."""

LOOK = """() => {
  const seen = (element) => element.getClientRects().length > 0
  const app = document.querySelector("[data-testid=stApp]")
  if (!app) return {busy: "no app"}
  const state = app.dataset.testScriptState, connection = app.dataset.testConnectionState
  if (state !== "notRunning" || connection !== "CONNECTED") return {busy: `${state}, ${connection}`}
  const under_way = ["stProgress", "stSpinner", "stSkeleton"].map((name) => `[data-testid=${name}]`)
  for (const selector of [...under_way, "[data-stale=true]"])
    if ([...document.querySelectorAll(selector)].some(seen)) return {busy: selector}
  const charts = [...document.querySelectorAll("[data-testid=stVegaLiteChart]")].filter(seen)
  if (charts.some((chart) => !chart.querySelector("svg, canvas"))) return {busy: "a chart is not drawn"}
  const places = charts.map((chart) => chart.getBoundingClientRect())
  const shape = places.map((place) => [place.x, place.y, place.width, place.height].map(Math.round))
  return {busy: "", shape: JSON.stringify([location.href, document.body.innerText.length, shape])}
}"""
"""What is under way, or else the address and where everything is."""


class Traffic:
    """Whether the server still owes a tab an answer: the page looks idle before the server has begun."""

    def __init__(self, tab: Any) -> None:
        self.waiting = False
        tab.on("websocket", self._listen)

    def _listen(self, socket: Any) -> None:
        self.waiting = False  # a new connection
        socket.on("framesent", self._sent)
        socket.on("framereceived", self._received)

    def _sent(self, frame: Any) -> None:
        if isinstance(frame, bytes) and BackMsg.FromString(frame).WhichOneof("type") == "rerun_script":
            self.waiting = True

    def _received(self, frame: Any) -> None:
        if not isinstance(frame, bytes):
            return
        message = ForwardMsg.FromString(frame)
        kind = message.WhichOneof("type")
        if kind == "new_session":
            self.waiting = True
        elif kind == "script_finished":  # "early" means that the next run begins at once
            self.waiting = message.script_finished == ForwardMsg.FINISHED_EARLY_FOR_RERUN


def at_rest(tab: Any) -> None:
    """Wait until a tab shows what it was asked for and would still show the same a moment later."""
    end = time.monotonic() + PATIENCE
    calm, last = 0, None
    while calm < CALM:
        tab.wait_for_timeout(100)
        now = {"busy": "no answer yet"} if tab.traffic.waiting else tab.evaluate(LOOK)
        calm = calm + 1 if now == last and not now["busy"] else 0
        last = now
        assert time.monotonic() < end, f"the page does not come to rest: {now}"
