"""Text and size inside PNG files: chunks are written and read here, without an imaging library.

A PNG is a signature and a list of chunks: length, type, data, CRC-32.
"""

import struct
import zlib
from collections.abc import Iterator

from mi_core.errors import InputError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
RECORD_KEY = "lantern-figure"
METRES_PER_INCH = 0.0254


def with_record(png: bytes, *, dpi: float, texts: dict[str, str]) -> bytes:
    """The same picture with its physical size and texts.

    Args:
        png: a picture.
        dpi: pixels per inch.
        texts: keyword (Latin, at most 79 characters) -> text; ASCII becomes a tEXt chunk, other text iTXt.
    """
    pixels_per_metre = round(dpi / METRES_PER_INCH)
    extra = [_chunk(b"pHYs", struct.pack(">IIB", pixels_per_metre, pixels_per_metre, 1))]
    extra += [_text_chunk(key, text) for key, text in texts.items()]
    out = [SIGNATURE]
    for kind, data in chunks(png):
        if kind == b"pHYs":
            continue
        out.append(_chunk(kind, data))
        if kind == b"IHDR":
            out += extra
    return b"".join(out)


def texts(png: bytes) -> dict[str, str]:
    """Keywords and texts of the uncompressed text chunks.

    Raises:
        InputError: the file is damaged.
    """
    found: dict[str, str] = {}
    for kind, data in chunks(png):
        key, _, rest = data.partition(b"\0")
        if kind == b"tEXt":
            found[key.decode("latin-1")] = rest.decode("latin-1")
        elif kind == b"iTXt" and rest[:1] == b"\0":  # not compressed
            found[key.decode("latin-1")] = rest[2:].split(b"\0", 2)[-1].decode("utf-8", errors="replace")
    return found


def chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, data) of every chunk.

    Raises:
        InputError: not a PNG, cut off, or a chunk whose checksum is wrong.
    """
    if not png.startswith(SIGNATURE):
        raise InputError("This is no PNG file")
    place = len(SIGNATURE)
    while place < len(png):
        if place + 12 > len(png):
            raise InputError("The PNG file is cut off")
        length, kind = struct.unpack(">I4s", png[place : place + 8])
        end = place + 8 + length
        if end + 4 > len(png):
            raise InputError("The PNG file is cut off")
        data = png[place + 8 : end]
        if struct.unpack(">I", png[end : end + 4])[0] != zlib.crc32(kind + data):
            raise InputError("The PNG file is damaged", why=f"checksum of chunk {kind.decode('latin-1')!r}")
        yield kind, data
        if kind == b"IEND":
            return
        place = end + 4
    raise InputError("The PNG file is cut off")


def size_of(png: bytes) -> tuple[int, int]:
    """Width and height in pixels.

    Raises:
        InputError: the file is damaged.
    """
    kind, data = next(chunks(png))
    if kind != b"IHDR" or len(data) < 8:
        raise InputError("The PNG file is damaged", why="it does not begin with its size")
    width, height = struct.unpack(">II", data[:8])
    return width, height


def _text_chunk(key: str, text: str) -> bytes:
    if text.isascii():
        return _chunk(b"tEXt", key.encode("latin-1") + b"\0" + text.encode())
    return _chunk(b"iTXt", key.encode("latin-1") + b"\0\0\0\0\0" + text.encode())


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
