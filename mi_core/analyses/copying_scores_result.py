"""Does a head copy? The eigenvalues of its full OV circuit, one score per head: inputs and result.

    M = W_E OV W_U                           what reading token a adds to the logit of token b
    score = sum Re(lambda) / sum |lambda|    over the eigenvalues of M

A positive eigenvalue means a mixture of tokens that raises itself. +1: all eigenvalues are positive, the head
raises what it reads (copying); -1: it lowers what it reads; random weights give values near 0. The score says
nothing about the strength; `totals` does. (Elhage et al. 2021, "A Mathematical Framework for Transformer
Circuits", section on copying heads.) M has the eigenvalues of a small matrix and zeros:

    OV = A B,  F = final norm's gain and centring:  eig(W_E A B F W_U) = eig(B (F W_U W_E) A), 0, 0, ...

so the score is exact. Folded in: the norm before the heads, the sandwich norm, the final norm, Gemma's
embedding scale. Left out: the norms' scales (positive, one per token), biases, position embeddings, MLPs,
softcap. In later layers the stream is no longer W_E alone: read the score as "if it read the token itself".

Cost: 2 d_vocab d_model^2 floating-point operations for W_U W_E, once, and 2 d_model^3 per layer, in float64.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.plain import checks_from, damage_told, inputs_from_dict, provenance_from, texts_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/copying_scores", 1
ARRAYS = ("scores", "totals")
"""Names of the arrays, in the result and in its record."""


@dataclass(frozen=True, slots=True)
class CopyingScoresInputs:
    """All heads of the model; there is nothing to choose."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return {}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "CopyingScoresInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: there are fields.
        """
        return inputs_from_dict(cls, values, "copying scores")


@dataclass(frozen=True, slots=True, eq=False)
class CopyingScoresResult:
    """A copying score for every head.

    Attributes:
        inputs: what was asked for.
        provenance: model and versions.
        scores: from -1 to 1; NaN for a head whose circuit is zero, or that was not reached.
        totals: sum of |eigenvalues|, in logits at scale 1 of the norms; NaN where not reached.
        warnings: sentences to be read before the figure.
        checks: identities tried on these numbers.
        seconds: duration.
        cancelled: whether the user stopped it.
    """

    inputs: CopyingScoresInputs
    provenance: Provenance | None
    scores: Float[np.ndarray, "layer head"]
    totals: Float[np.ndarray, "layer head"]
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Both arrays have one number per head."""
        if self.scores.ndim != 2 or self.scores.shape != self.totals.shape:
            raise ValueError(f"scores have shape {self.scores.shape}, totals {self.totals.shape}")

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return self.scores.shape[0]

    @property
    def n_heads(self) -> int:
        """Heads per layer."""
        return self.scores.shape[1]

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table: one row per head and quantity."""
        import pandas as pd  # only tables need it

        layers, heads = (axis.ravel() for axis in np.indices(self.scores.shape))
        of_heads = {"layer": layers, "head": heads}
        return pd.concat(
            [
                pd.DataFrame({**of_heads, "quantity": name, "value": values.ravel(), "unit": unit})
                for name, values, unit in (
                    ("copying score", self.scores, "share"),
                    ("sum of |eigenvalues|", self.totals, "logits"),
                )
            ],
            ignore_index=True,
        )

    def to_json(self) -> str:
        """The whole result as JSON text."""
        record: dict[str, Any] = {
            "inputs": self.inputs.to_dict(),
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
            "n_layers": self.n_layers,
            "n_heads": self.n_heads,
            **{name: encode_array(getattr(self, name)) for name in ARRAYS},
            "warnings": list(self.warnings),
            "checks": [asdict(check) for check in self.checks],
            "seconds": self.seconds,
            "cancelled": self.cancelled,
        }
        return dump_record(SCHEMA, VERSION, record)

    @classmethod
    def from_json(cls, text: str | bytes) -> "CopyingScoresResult":
        """The inverse of `to_json`.

        Raises:
            InputError: anything that `to_json` would not have written.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("copying scores"):
            return _build(record)


def _build(record: Mapping[str, Any]) -> CopyingScoresResult:
    shape = int(record["n_layers"]), int(record["n_heads"])
    return CopyingScoresResult(
        inputs=CopyingScoresInputs.from_dict(record["inputs"]),
        provenance=provenance_from(record["provenance"]),
        **{name: decode_array(record[name], "float64", shape, name) for name in ARRAYS},
        warnings=texts_from(record["warnings"]),
        checks=checks_from(record["checks"]),
        seconds=float(record["seconds"]),
        cancelled=bool(record["cancelled"]),
    )
