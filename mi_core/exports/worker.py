"""The program that turns specifications into pictures, in a process of its own.

vl-convert holds Python's interpreter lock for a whole conversion, which would freeze every browser tab, and
its memory grows with use. `mi_core.exports.converter` starts this program, sends one JSON request per line
and reads one answer each: a header (`HEADER`: 0 or 1 for an error, resident bytes, length) and the bytes.
It ends when its input does.
"""

import json
import os
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

HEADER = struct.Struct(">BQQ")
VEGA_LITE = "6.4"
FONT_FOLDERS = (Path(__file__).parents[2] / "assets" / "fonts",)  # beside the fonts that the system has
BUNDLE_SNIPPET = "window.lanternEmbed = vegaEmbed;"


def convert(request: dict[str, Any]) -> bytes:
    """Answer one request.

    Args:
        request: "task" is "svg" (of "spec"), "png" (of "svg", at "scale"), "pdf" (of "svg") or "javascript".

    Returns:
        The picture, or Vega's program for HTML files.
    """
    import vl_convert

    task = request["task"]
    if task == "svg":
        # An empty list would mean any address; this one cannot exist, so a specification can load nothing.
        nowhere = ["https://nothing.invalid/"]
        return vl_convert.vegalite_to_svg(
            request["spec"], vl_version=VEGA_LITE, allowed_base_urls=nowhere
        ).encode()
    if task == "png":
        return vl_convert.svg_to_png(request["svg"], scale=request["scale"])
    if task == "pdf":
        return vl_convert.svg_to_pdf(request["svg"])
    if task == "javascript":
        return vl_convert.javascript_bundle(snippet=BUNDLE_SNIPPET, vl_version=VEGA_LITE).encode()
    raise ValueError(f"unknown task {task!r}")


def resident_bytes() -> int:
    """Memory of this process; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def serve(requests: BinaryIO, answers: BinaryIO, answer: Callable[[dict[str, Any]], bytes] = convert) -> None:
    """Answer requests until there are no more."""
    for line in requests:
        failed = 0
        try:
            body = answer(json.loads(line))
        except (ValueError, TypeError, KeyError, RuntimeError, OSError) as error:  # told; the next is drawn
            failed, body = 1, (str(error) or type(error).__name__).encode()
        answers.write(HEADER.pack(failed, resident_bytes(), len(body)) + body)
        answers.flush()


def main() -> None:
    """Serve the parent process."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is meant for the parent, which then closes our input
    # Nothing else may write into the stream of answers, so what prints goes to stderr.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    import vl_convert

    for folder in FONT_FOLDERS:
        if folder.is_dir():
            vl_convert.register_font_directory(str(folder))
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
