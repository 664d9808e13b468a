"""Which transcoder made a result, as plain values that go into records and captions."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mi_core.analyses.plain_fields import from_plain

if TYPE_CHECKING:
    from mi_core.transcoders.transcoder import Transcoder

KINDS = {"clt": "cross-layer transcoder", "plt": "per-layer transcoder", "sae": "sparse autoencoder"}


@dataclass(frozen=True, slots=True)
class TranscoderLabel:
    """A transcoder without its numbers.

    Attributes:
        name: what it was asked for by; "" = the one bundled with the model.
        kind: "clt", "plt" or "sae".
        fingerprint: identifies its files.
        reads: where it reads, for people.
        writes: where it writes, for people.
        activation: its non-linearity, for people.
    """

    name: str
    kind: str
    fingerprint: str
    reads: str
    writes: str
    activation: str

    @classmethod
    def of(cls, transcoder: "Transcoder") -> "TranscoderLabel":
        """The label of a loaded transcoder."""
        return cls(
            transcoder.name, transcoder.kind, transcoder.fingerprint, transcoder.reads.text,
            transcoder.writes.text, transcoder.activation,
        )  # fmt: skip

    @property
    def sentence(self) -> str:
        """For a caption."""
        kind = KINDS.get(self.kind, "transcoder")
        shown = f" {self.name[:120]}" if self.name else ""
        how = f" ({self.activation})" if self.activation else ""
        return f"Features of the {kind}{shown}{how}, which reads {self.reads} and writes {self.writes}."

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TranscoderLabel":
        """The inverse of `to_dict`.

        Raises:
            ValueError: a missing or unknown field, or no text.
        """
        return from_plain(cls, values)
