"""What a file says about itself comes back, and a file that lies or breaks is refused in words."""

import json
import struct
import zlib

import pytest

from mi_core.analyses import CausalTraceInputs
from mi_core.errors import InputError
from mi_core.exports import pdf, png
from mi_core.exports.causal_trace import heatmap_figure
from mi_core.exports.export import export
from mi_core.exports.read_back import MAX_RECORD_CHARACTERS, read_provenance
from tests.examples import example_provenance, example_result

CARRIERS = ("png", "svg", "pdf", "html", "json")
CHOSEN = ("state", 4, 3)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    figure = heatmap_figure(example_result(), chosen=CHOSEN)
    return {format: export(figure, format, preset="column", dpi=72) for format in CARRIERS}  # type: ignore[arg-type]


@pytest.mark.parametrize("format", CARRIERS)
def test_every_picture_brings_back_inputs_view_and_origin(files, format: str) -> None:
    found = read_provenance(files[format])
    assert found.analysis == "causal_trace"
    assert CausalTraceInputs.from_dict(found.inputs) == example_result().inputs
    assert found.view["chosen"] == list(CHOSEN)
    assert found.provenance == example_provenance()
    assert (found.result_json is not None) == (format in ("html", "json"))


def record(**changes) -> dict:
    found = heatmap_figure(example_result()).record()
    return {**found, **changes}


def as_png(text: str) -> bytes:
    """A one-pixel PNG that carries a record."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    bare = png.SIGNATURE + header + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")
    return png.with_record(bare, dpi=72, texts={png.RECORD_KEY: text})


def test_a_record_survives_any_text() -> None:
    strange = 'quotes " < > & \\ ]]> \u202e 日本 \n'
    assert read_provenance(as_png(json.dumps(record(title=strange)))).title == strange
    assert read_provenance(as_png(json.dumps(record(title=strange), ensure_ascii=False))).title == strange


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "not JSON"),
        ("[1]", "not an object"),
        ('{"schema": "x"}', "another kind"),
        (json.dumps(record(version=99)), "version 99"),
        (json.dumps(record(inputs=[1])), "inputs is no object"),
        (json.dumps(record(title=3)), "title is no text"),
        (json.dumps(record(provenance={"model": "x"})), "provenance is damaged"),
        (json.dumps(record()).replace('"causal_trace"', "NaN", 1), "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("x" * (MAX_RECORD_CHARACTERS + 1), "too large"),
    ],
)
def test_records_that_are_not_ours_are_refused(text: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        read_provenance(as_png(text))


def test_damaged_pictures_are_refused(files) -> None:
    data = files["png"]
    flipped = bytearray(data)
    flipped[data.index(png.RECORD_KEY.encode()) + 40] ^= 1
    with pytest.raises(InputError, match="damaged"):
        read_provenance(bytes(flipped))
    for cut in (9, 40, len(data) - 3):
        with pytest.raises(InputError, match=r"cut off|says nothing"):
            read_provenance(data[:cut])


@pytest.mark.parametrize(
    "data",
    [
        b"", b"GIF89a", b"\x00" * 50, b"<html><body>", b"%PDF-1.7\nnothing here", b"{}", b"\x89PNG\r\n\x1a\n",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>',
        b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a "b"><!ENTITY c "&a;&a;">]><svg>&c;</svg>',
    ],
)  # fmt: skip
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        read_provenance(data)


def test_a_long_hostile_file_is_read_quickly() -> None:
    """No pattern may backtrack: a megabyte of almost-metadata takes no longer than reading it."""
    import time

    start = time.thread_time()
    for data in (b"<svg " + b'<metadata id="' * 80_000, b"%PDF-" + b"/LanternFigure <" * 60_000):
        with pytest.raises(InputError):
            read_provenance(data)
    assert time.thread_time() - start < 2


def test_the_last_record_of_a_pdf_counts() -> None:
    data = export(heatmap_figure(example_result()), "pdf")
    newer = pdf.with_record(data, title="x", subject="y", record_json=json.dumps(record(title="newer")))
    assert read_provenance(newer).title == "newer"
    with pytest.raises(InputError, match="damaged"):
        read_provenance(data + b"\n% /LanternFigure <zz>\n")
