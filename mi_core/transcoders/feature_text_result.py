"""What a look at one feature in one text returns; see `feature_text_run`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.plain import checks_from, damage_told, provenance_from, texts_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.provenance import Provenance
from mi_core.transcoders.feature_text_inputs import FeatureTextInputs
from mi_core.transcoders.names import Feature, parse_feature

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/feature_text", 1
ARRAYS = ("activations", "pre_activations")


@dataclass(frozen=True, slots=True, eq=False)
class FeatureTextResult:
    """A feature at every token of a text.

    Attributes:
        inputs: what was asked for.
        provenance: model, versions.
        transcoder: its name.
        tokens: visible tokens.
        first: first position that counts; those before it are not coloured.
        activations: [pos] the feature's activation; 0 where it is not active or does not count.
        pre_activations: [pos] what goes into the activation function.
        threshold: of a JumpReLU; 0 for ReLU.
        top_k: whether a feature is also switched off by stronger ones at the same token.
        bound: end of the colour scale.
        bound_from: "you", "corpus" or "text".
        warnings: sentences to be read before the figure.
        checks: identities tried on this result.
        cancelled: always False: it is one pass.
    """

    inputs: FeatureTextInputs
    provenance: Provenance | None
    transcoder: str
    tokens: tuple[str, ...]
    first: int
    activations: Float[np.ndarray, " pos"]
    pre_activations: Float[np.ndarray, " pos"]
    threshold: float
    top_k: bool
    bound: float
    bound_from: str
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    cancelled: bool = False

    def __post_init__(self) -> None:
        """An activation per token."""
        for name in ARRAYS:
            if getattr(self, name).shape != (len(self.tokens),):
                raise ValueError(f"{len(self.tokens)} tokens, {name} {getattr(self, name).shape}")

    @property
    def feature(self) -> Feature:
        """The feature."""
        return parse_feature(self.inputs.feature)

    @property
    def shown(self) -> Float[np.ndarray, " pos"]:
        """Activations, NaN at positions that do not count."""
        return np.where(np.arange(len(self.tokens)) >= self.first, self.activations, np.nan)

    @property
    def active(self) -> int:
        """Tokens at which it is active."""
        return int((self.activations[self.first :] > 0).sum())

    @property
    def clipped(self) -> int:
        """Tokens whose activation lies beyond the colour scale."""
        return int((self.activations[self.first :] > self.bound * (1 + 1e-6)).sum())

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table: one number per row."""
        import pandas as pd  # only tables need it

        parts = [
            pd.DataFrame(
                {
                    "feature": self.inputs.feature,
                    "position": np.arange(len(self.tokens)),
                    "token": list(self.tokens),
                    "quantity": name.rstrip("s").replace("_", "-"),
                    "value": getattr(self, name).astype(float),
                    "unit": "activation",
                    "counted": np.arange(len(self.tokens)) >= self.first,
                }
            )
            for name in ARRAYS
        ]
        return pd.concat(parts, ignore_index=True)

    def to_json(self) -> str:
        """The whole result as JSON text."""
        fields: dict[str, Any] = {
            "inputs": self.inputs.to_dict(),
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
            **{name: getattr(self, name) for name in _PLAIN},
            "tokens": list(self.tokens),
            **{name: encode_array(getattr(self, name)) for name in ARRAYS},
            "warnings": list(self.warnings),
            "checks": [asdict(check) for check in self.checks],
        }
        return dump_record(SCHEMA, VERSION, fields)

    @classmethod
    def from_json(cls, text: str | bytes) -> "FeatureTextResult":
        """The inverse of `to_json`.

        Raises:
            InputError: anything that `to_json` would not have written.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("feature's text"):
            return _build(record)


_PLAIN = ("transcoder", "first", "threshold", "top_k", "bound", "bound_from", "cancelled")


def _build(record: Mapping[str, Any]) -> FeatureTextResult:
    tokens = texts_from(record["tokens"])
    return FeatureTextResult(
        inputs=FeatureTextInputs.from_dict(record["inputs"]),
        provenance=provenance_from(record["provenance"]),
        transcoder=str(record["transcoder"]),
        tokens=tokens,
        first=int(record["first"]),
        **{name: decode_array(record[name], "float32", (len(tokens),), name) for name in ARRAYS},
        threshold=float(record["threshold"]),
        top_k=bool(record["top_k"]),
        bound=float(record["bound"]),
        bound_from=str(record["bound_from"]),
        warnings=texts_from(record["warnings"]),
        checks=checks_from(record["checks"]),
        cancelled=bool(record["cancelled"]),
    )
