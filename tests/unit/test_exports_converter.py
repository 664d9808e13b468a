"""The converter's process: replaced when it dies, hangs or grows; threads get their own pictures."""

import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mi_core.exports.converter import Converter, ExportError, shared_converter
from mi_core.exports.png import size_of

SPEC = {
    "$schema": "https://vega.github.io/schema/vega-lite/v6.4.json",
    "width": 50,
    "height": 40,
    "data": {"values": [{"x": 1}]},
    "mark": "point",
    "encoding": {"x": {"field": "x", "type": "quantitative"}},
}
SQUARE = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="{n}" height="10"><rect width="{n}" height="10"/></svg>'
)


@pytest.fixture(scope="module")
def converter():
    return shared_converter()


def fake_worker(tmp_path: Path, body: str) -> Converter:
    """A worker whose answers are written by the test; `serve` and `HEADER` are the true ones."""
    program = tmp_path / "worker.py"
    program.write_text(
        "import os, sys, time\nfrom mi_core.exports.worker import serve\n"
        + textwrap.dedent(body)
        + "\nserve(sys.stdin.buffer, sys.stdout.buffer, answer)\n"
    )
    return Converter(timeout=120.0, command=(sys.executable, str(program)))


def test_the_same_request_gives_the_same_bytes(converter) -> None:
    assert converter.svg(SPEC) == converter.svg(SPEC)
    assert converter.svg(SPEC).startswith("<svg")


def test_a_refused_specification_is_one_sentence_and_the_worker_lives_on(converter) -> None:
    with pytest.raises(ExportError, match="The figure could not be drawn"):
        converter.svg({**SPEC, "mark": "no such mark"})
    assert size_of(converter.png(SQUARE.format(n=20), 1.0)) == (20, 10)


def test_nothing_is_ever_loaded_from_an_address(converter) -> None:
    with pytest.raises(ExportError, match="not allowed"):
        converter.svg({**SPEC, "data": {"url": "https://example.com/data.json"}})
    points = 'aria-roledescription="point"'
    assert points in converter.svg(SPEC)
    assert points not in converter.svg({**SPEC, "data": {"url": Path(__file__).as_uri()}})


@pytest.mark.parametrize("link", ["/etc/passwd", "file:///etc/passwd", "https://example.com/a.png"])
def test_pictures_never_bring_in_other_files(converter, link: str) -> None:
    image = f"<image xlink:href='{link}' width='5' height='5'/></svg>"
    svg = SQUARE.format(n=10).replace("</svg>", image)
    with pytest.raises(ExportError, match="refers to another file"):
        converter.png(svg, 1.0)
    with pytest.raises(ExportError, match="refers to another file"):
        converter.pdf(svg.replace("xlink:href", "href"))


def test_a_killed_worker_is_replaced_without_the_user_noticing() -> None:
    mine = Converter()
    try:
        before = mine.png(SQUARE.format(n=12), 2.0)
        process = mine._process
        assert process is not None
        process.kill()
        process.wait()
        assert mine.png(SQUARE.format(n=12), 2.0) == before
        assert mine._process is not process
    finally:
        mine.close()


def test_a_worker_that_dies_while_it_works_gets_one_more_chance(tmp_path: Path) -> None:
    flag = tmp_path / "died"
    mine = fake_worker(
        tmp_path,
        f"""
        def answer(request):
            if request["svg"] == "warm":
                return b"warm"
            if not os.path.exists({str(flag)!r}):
                open({str(flag)!r}, "w").close()
                os._exit(1)
            return b"second"
        """,
    )
    try:
        assert mine.pdf("warm") == b"warm"
        assert mine.pdf("x") == b"second"
    finally:
        mine.close()


def test_a_worker_that_cannot_start_is_told_once(tmp_path: Path) -> None:
    broken = Converter(command=(sys.executable, "-c", "raise SystemExit(3)"))
    with pytest.raises(ExportError, match="ended unexpectedly"):
        broken.pdf("x")
    missing = Converter(command=(str(tmp_path / "no-such-program"),))
    with pytest.raises(ExportError, match="cannot be started"):
        missing.pdf("x")


def test_a_hanging_worker_is_ended_after_the_timeout(tmp_path: Path) -> None:
    mine = fake_worker(tmp_path, "def answer(request): time.sleep(600)")
    mine.timeout = 0.5
    start = time.monotonic()
    with pytest.raises(ExportError, match=r"more than 0\.5 seconds"):
        mine.pdf("x")
    assert time.monotonic() - start < 60
    assert mine._process is None


def test_a_worker_is_replaced_after_so_many_pictures_or_bytes(tmp_path: Path) -> None:
    mine = fake_worker(tmp_path, "def answer(request): return str(os.getpid()).encode()")
    try:
        mine.max_renders = 2
        first = [mine.pdf("x") for _ in range(4)]
        assert first[0] == first[1] != first[2] == first[3]
        mine.max_renders, mine.max_resident_bytes = 1000, 1
        assert mine.pdf("x") != mine.pdf("x")
    finally:
        mine.close()


def test_four_threads_get_their_own_pictures(converter) -> None:
    widths = [10, 20, 30, 40] * 5
    with ThreadPoolExecutor(4) as pool:
        sizes = list(pool.map(lambda n: size_of(converter.png(SQUARE.format(n=n), 1.0)), widths))
    assert sizes == [(n, 10) for n in widths]


def test_the_worker_ends_when_its_parent_closes_the_pipe() -> None:
    mine = Converter()
    mine.warm()
    process = mine._process
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=300) == 0
    mine.close()


def test_close_leaves_no_process_and_no_thread() -> None:
    before = set(threading.enumerate())  # other tests of this process may have a converter with a timer
    mine = Converter()
    mine.png(SQUARE.format(n=5), 1.0)
    process = mine._process
    assert process is not None
    mine.close()
    assert process.poll() is not None
    mine_now = set(threading.enumerate()) - before
    assert not [t for t in mine_now if isinstance(t, threading.Timer) and t.is_alive()]
