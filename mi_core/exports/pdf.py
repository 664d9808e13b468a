"""Document information inside PDF files, added as an incremental update.

The converter's bytes stay as they are; an update appends new objects, a cross-reference section for them and
a trailer that points to the previous section.
"""

import re

from mi_core.errors import InputError

RECORD_KEY = "LanternFigure"


def with_record(pdf: bytes, *, title: str, subject: str, record_json: str) -> bytes:
    """The same document with title, subject and the record in its information dictionary.

    Args:
        pdf: a document with a classic cross-reference table, as the converter writes it.
        title: shown by viewers.
        subject: the caption.
        record_json: kept as hexadecimal text, which no reader needs to parse cleverly.

    Raises:
        ValueError: the document has no classic trailer.
    """
    trailer = re.search(rb"trailer\s*<<(.*?)>>\s*startxref\s+(\d+)\s+%%EOF\s*$", pdf, re.DOTALL)
    size = re.search(rb"/Size\s+(\d+)", trailer[1]) if trailer else None
    root = re.search(rb"/Root\s+\d+\s+\d+\s+R", trailer[1]) if trailer else None
    if trailer is None or size is None or root is None:
        raise ValueError("the PDF has no classic trailer")
    number = int(size[1])
    entries = {
        "Title": _text(title), "Subject": _text(subject), "Creator": _text("Lantern"),
        "Producer": _text("Lantern, vl-convert, svg2pdf"), RECORD_KEY: _hex(record_json.encode()),
    }  # fmt: skip
    information = b"".join(b"/" + key.encode() + b" " + value + b"\n" for key, value in entries.items())
    body = pdf if pdf.endswith(b"\n") else pdf + b"\n"
    placed = body + b"%d 0 obj\n<<\n%s>>\nendobj\n" % (number, information)
    # Some readers want every section to begin with object 0, the head of the list of free objects.
    table = b"xref\n0 1\n0000000000 65535 f\r\n%d 1\n%010d 00000 n\r\n" % (number, len(body))
    end = b"trailer\n<<\n/Size %d\n%s\n/Info %d 0 R\n/Prev %d\n>>\nstartxref\n%d\n%%%%EOF\n" % (
        number + 1, root[0], number, int(trailer[2]), len(placed),
    )  # fmt: skip
    return placed + table + end


def record_of(pdf: bytes) -> str:
    """JSON text of the record.

    Raises:
        InputError: there is none, for example because another program wrote the file anew.
    """
    mark = f"/{RECORD_KEY} <".encode()
    start = pdf.rfind(mark)
    end = pdf.find(b">", start)
    if start < 0 or end < 0:
        raise InputError(
            "This PDF says nothing about where it comes from",
            why="it was not made here, or another program has saved it since",
        )
    try:
        return bytes.fromhex(pdf[start + len(mark) : end].decode()).decode()
    except ValueError as error:
        raise InputError("The PDF's record is damaged") from error


def _text(text: str) -> bytes:
    """A PDF text string for any characters: UTF-16 with its mark, in hexadecimal."""
    return _hex(b"\xfe\xff" + text.encode("utf-16-be", errors="replace"))


def _hex(data: bytes) -> bytes:
    return b"<" + data.hex().encode() + b">"
