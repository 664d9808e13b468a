"""Conversions by a separate process, started when first needed, replaced when it fails or grows."""

import atexit
import functools
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from mi_core.errors import LanternError
from mi_core.exports.worker import HEADER

TIMEOUT_SECONDS = 60.0
MAX_RENDERS = 300
MAX_RESIDENT_BYTES = 700_000_000
MAX_ANSWER_BYTES = 500_000_000
_ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"""href\s*=\s*["'](?!#|data:image/)""")


class ExportError(LanternError):
    """A figure could not be written."""


class Converter:
    """A worker process and the lock that lets threads take turns with it.

    Args:
        timeout: seconds after which a conversion is given up and its process ended.
        max_renders: conversions after which the process is replaced; its memory only ever grows.
        max_resident_bytes: memory above which it is replaced.
        command: the worker program; tests give others.
    """

    def __init__(
        self,
        *,
        timeout: float = TIMEOUT_SECONDS,
        max_renders: int = MAX_RENDERS,
        max_resident_bytes: int = MAX_RESIDENT_BYTES,
        command: Sequence[str] | None = None,
    ) -> None:
        self.timeout, self.max_renders, self.max_resident_bytes = timeout, max_renders, max_resident_bytes
        self._command = tuple(command or (sys.executable, "-P", "-m", "mi_core.exports.worker"))
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._renders = 0
        self._javascript: str | None = None

    def svg(self, spec: Mapping[str, Any]) -> str:
        """The SVG text of a complete Vega-Lite specification.

        Raises:
            ExportError: Vega refuses the specification, or the worker cannot work.
        """
        return self._ask({"task": "svg", "spec": dict(spec)}).decode()

    def png(self, svg: str, scale: float) -> bytes:
        """A PNG of an SVG text, `scale` pixels per unit.

        Raises:
            ExportError: see `svg`.
        """
        _check_links(svg)
        return self._ask({"task": "png", "svg": svg, "scale": scale})

    def pdf(self, svg: str) -> bytes:
        """A PDF of an SVG text, one point per unit.

        Raises:
            ExportError: see `svg`.
        """
        _check_links(svg)
        return self._ask({"task": "pdf", "svg": svg})

    def javascript(self) -> str:
        """Vega's program with `window.lanternEmbed`, for HTML files that need no network.

        Raises:
            ExportError: see `svg`.
        """
        if self._javascript is None:
            self._javascript = self._ask({"task": "javascript"}).decode()
        return self._javascript

    def warm(self) -> None:
        """Start the worker now (half a second), for example while a page is being drawn."""
        with self._lock:
            self._start()

    def close(self) -> None:
        """End the worker; the next conversion starts another."""
        with self._lock:
            self._stop()

    def _ask(self, request: Mapping[str, Any]) -> bytes:
        line = json.dumps(request, allow_nan=False).encode() + b"\n"
        with self._lock:
            fresh = self._start()
            try:
                return self._exchange(line)
            except (EOFError, OSError) as error:
                self._stop()
                if fresh:
                    raise _broken(error) from error
            # It had died since the last figure, for example from lack of memory; a new one gets one chance.
            self._start()
            try:
                return self._exchange(line)
            except (EOFError, OSError) as error:
                self._stop()
                raise _broken(error) from error

    def _exchange(self, line: bytes) -> bytes:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise EOFError("no worker")
        late = threading.Event()
        watchdog = threading.Timer(self.timeout, _give_up, (process, late))
        watchdog.daemon = True
        watchdog.start()
        try:
            process.stdin.write(line)
            process.stdin.flush()
            failed, resident, length = HEADER.unpack(_read(process.stdout, HEADER.size))
            body = _read(process.stdout, min(length, MAX_ANSWER_BYTES))
        except (EOFError, OSError) as error:
            if late.is_set():
                self._stop()
                raise ExportError(
                    "The figure could not be drawn", why=f"it took more than {self.timeout:g} seconds",
                    fix="Try a smaller figure, or SVG instead of PNG",
                ) from error  # fmt: skip
            raise
        finally:
            watchdog.cancel()
        self._renders += 1
        if (
            self._renders >= self.max_renders
            or resident > self.max_resident_bytes
            or length > MAX_ANSWER_BYTES
        ):
            self._stop()
        if failed or length > MAX_ANSWER_BYTES:
            raise ExportError("The figure could not be drawn", why=_reason(body))
        return body

    def _start(self) -> bool:
        """Make sure that a worker runs; whether it is a new one."""
        if self._process is not None and self._process.poll() is None:
            return False
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        try:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip
        except OSError as error:
            raise ExportError("The program that draws figures cannot be started", why=str(error)) from error
        self._renders = 0
        atexit.register(self._process.kill)
        return True

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        atexit.unregister(process.kill)
        process.kill()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                _close_quietly(stream)
        process.wait()


def _give_up(process: subprocess.Popen[bytes], late: threading.Event) -> None:
    late.set()
    process.kill()


def _close_quietly(stream: IO[bytes]) -> None:
    """Close a pipe to a dead process; flushing into it fails, and that no longer matters."""
    try:
        stream.close()
    except OSError:
        return


def _read(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise EOFError("the worker ended")
    return data


def _broken(error: BaseException) -> ExportError:
    return ExportError(
        "The program that draws figures ended unexpectedly", why=str(error) or type(error).__name__,
        fix="Check that vl-convert-python is installed and that memory is left",
    )  # fmt: skip


def _check_links(svg: str) -> None:
    """Refuse an SVG that would bring in other files: the drawing program reads paths that it finds in one."""
    if _LINK.search(svg):
        raise ExportError("The figure could not be drawn", why="it refers to another file")


def _reason(body: bytes) -> str:
    """What the worker says, without the places in its program."""
    lines = [line.strip() for line in body[:4000].decode(errors="replace").splitlines()]
    told = [line for line in lines if line and not line.startswith("at ")]
    return " ".join(told[:2])[:300] or "no reason was given"


@functools.cache
def shared_converter() -> Converter:
    """The converter of this process."""
    return Converter()
