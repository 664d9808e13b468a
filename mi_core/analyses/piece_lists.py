"""Lists of edits in one line of text, with commas between the pieces."""

from collections.abc import Callable
from typing import Protocol, TypeVar, runtime_checkable

from mi_core.errors import InputError


@runtime_checkable
class Written(Protocol):
    """What has one canonical text."""

    @property
    def text(self) -> str:
        """As it stands in a list."""
        ...


Piece = TypeVar("Piece", bound=Written)


def parse_pieces(text: str, parse: Callable[[str], Piece], limit: int, what: str) -> tuple[Piece, ...]:
    """Read a list; spaces around pieces are ignored, an empty text is an empty list.

    Args:
        text: the list.
        parse: reads one piece; raises InputError.
        limit: at most so many pieces.
        what: plural word for them, such as "edits".

    Raises:
        InputError: naming the first piece that cannot be read, or that is there twice.
    """
    pieces = [piece.strip() for piece in text.split(",", limit + 1)]
    pieces = [piece for piece in pieces if piece]
    if len(pieces) > limit:
        raise InputError("The list is too long", fix=f"Give at most {limit} {what}")
    found: list[Piece] = []
    for piece in pieces:
        one = parse(piece)
        if one in found:
            raise InputError(f"{one.text[:80]} is in the list twice", fix="Remove one of the two")
        found.append(one)
    return tuple(found)
