"""Names of heads' inputs, where patched paths end."""

from dataclasses import dataclass
from typing import Literal, get_args

from mi_core.analyses.attribution_inputs import head_name, parse_head
from mi_core.errors import InputError

Part = Literal["q", "k", "v"]
Mlps = Literal["recomputed", "frozen"]
Head = tuple[int, int]
LOGITS = "logits"


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where a path ends.

    Attributes:
        layer: of the head; None for the logits.
        head: of the receiver.
        part: its query, key or value.
    """

    layer: int | None = None
    head: int = 0
    part: Part = "q"

    @property
    def text(self) -> str:
        """As it is typed: "L9H6.q" or "logits"."""
        return LOGITS if self.layer is None else f"{head_name(self.layer, self.head)}.{self.part}"


def parse_receiver(text: str) -> Receiver:
    """The inverse of `Receiver.text`.

    Raises:
        InputError: the text names no receiver.
    """
    if text == LOGITS:
        return Receiver()
    name, _, part = text.partition(".")
    if part not in get_args(Part):
        raise InputError(
            f"{text[:40]!r} names no receiver",
            fix="Write a head and what enters it, such as L9H6.q (query), L9H6.k or L9H6.v, or: logits",
        )
    layer, head = parse_head(name)
    return Receiver(layer, head, part)  # type: ignore[arg-type]  # one of the three letters
