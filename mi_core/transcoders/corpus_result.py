"""What a pass of a transcoder over a corpus returns: how often and how strongly every feature is active."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.plain import damage_told, outcome, outcome_from, provenance_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.provenance import Provenance
from mi_core.transcoders.corpus_inputs import CorpusPassInputs

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "lantern/corpus_pass"
VERSION = 1
ARRAYS = ("layers", "indices", "counts", "largest")


@dataclass(frozen=True, slots=True, eq=False)
class CorpusPassResult:
    """Every feature over a corpus; examples are in the features files.

    Attributes:
        inputs: what was asked for.
        provenance: model, versions.
        transcoder: its name.
        transcoder_fingerprint: of its files.
        text_digest: tells two texts apart.
        n_tokens: tokens that counted.
        n_rows: rows of the text.
        n_documents: documents of the text.
        layers: [feature] layer of each.
        indices: [feature] number in its layer.
        counts: [feature] tokens at which it is active.
        largest: [feature] largest activation; 0 for a dead one.
        folder: where the features files are; "" = none were written.
        file_bytes: their size.
        warnings: sentences to be read first.
        checks: identities tried on this pass.
        seconds: how long it took.
        cancelled: whether it was stopped; what was done is kept and the next pass goes on from there.
    """

    inputs: CorpusPassInputs
    provenance: Provenance | None
    transcoder: str
    transcoder_fingerprint: str
    text_digest: str
    n_tokens: int
    n_rows: int
    n_documents: int
    layers: Int[np.ndarray, " feature"]
    indices: Int[np.ndarray, " feature"]
    counts: Int[np.ndarray, " feature"]
    largest: Float[np.ndarray, " feature"]
    folder: str = ""
    file_bytes: int = 0
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """One number of each kind per feature."""
        sizes = {getattr(self, name).shape for name in ARRAYS}
        if len(sizes) != 1 or len(next(iter(sizes))) != 1:
            raise ValueError(f"the arrays have shapes {sizes}")

    @property
    def density(self) -> Float[np.ndarray, " feature"]:
        """Share of the tokens at which each feature is active."""
        return self.counts / max(1, self.n_tokens)

    @property
    def dead(self) -> Bool[np.ndarray, " feature"]:
        """Which features were never active."""
        return self.counts == 0

    def active_per_token(self) -> dict[int, float]:
        """Mean number of active features per token (L0), by layer."""
        return {
            int(layer): float(self.density[self.layers == layer].sum()) for layer in np.unique(self.layers)
        }

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table: one row per feature and number."""
        import pandas as pd  # only tables need it

        parts = [
            pd.DataFrame(
                {
                    "layer": self.layers,
                    "feature": self.indices,
                    "quantity": quantity,
                    "value": values.astype(float),
                    "unit": unit,
                    "n": self.n_tokens,
                }
            )
            for quantity, values, unit in (
                ("density", self.density, "share of tokens"),
                ("largest activation", self.largest, "activation"),
            )
        ]
        return pd.concat(parts, ignore_index=True)

    def to_json(self) -> str:
        """The whole result as JSON text."""
        fields: dict[str, Any] = {
            "inputs": self.inputs.to_dict(),
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
            **{name: getattr(self, name) for name in _PLAIN},
            **{name: encode_array(getattr(self, name)) for name in ARRAYS},
            **outcome(self),
        }
        return dump_record(SCHEMA, VERSION, fields)

    @classmethod
    def from_json(cls, text: str | bytes) -> "CorpusPassResult":
        """The inverse of `to_json`.

        Raises:
            InputError: anything that `to_json` would not have written.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("corpus pass"):
            return _build(record)


_TEXTS = ("transcoder", "transcoder_fingerprint", "text_digest", "folder")
_COUNTS = ("n_tokens", "n_rows", "n_documents", "file_bytes")
_PLAIN = (*_TEXTS, *_COUNTS)


def _build(record: Mapping[str, Any]) -> CorpusPassResult:
    n = len(record["layers"])
    named: dict[str, Any] = {name: str(record[name]) for name in _TEXTS}
    named |= {name: int(record[name]) for name in _COUNTS}
    for name in ARRAYS:
        named[name] = decode_array(record[name], "float32" if name == "largest" else "int64", (n,), name)
    return CorpusPassResult(
        inputs=CorpusPassInputs.from_dict(record["inputs"]),
        provenance=provenance_from(record["provenance"]),
        **outcome_from(record),
        **named,
    )
