"""What a look at one neuron in one text returns; see `neuron_text_run`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.neuron_inputs import NeuronTextInputs
from mi_core.analyses.plain import checks_from, damage_told, provenance_from, texts_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "lantern/neuron_text"
VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class NeuronTextResult:
    """A neuron's activation at every token of a text.

    Attributes:
        inputs: what was asked for.
        provenance: model, versions.
        tokens: visible tokens.
        first: first position that counts; those before it are not coloured.
        activations: the neuron's activation at every token.
        warnings: sentences to be read before the figure.
        checks: identities tried on this result.
        cancelled: always False: it is one pass.
    """

    inputs: NeuronTextInputs
    provenance: Provenance | None
    tokens: tuple[str, ...]
    first: int
    activations: Float[np.ndarray, "pos"]
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    cancelled: bool = False

    def __post_init__(self) -> None:
        """An activation per token."""
        if self.activations.shape != (len(self.tokens),):
            raise ValueError(f"{len(self.tokens)} tokens, activations have shape {self.activations.shape}")

    @property
    def shown(self) -> Float[np.ndarray, "pos"]:
        """Activations, NaN at positions that do not count."""
        return np.where(np.arange(len(self.tokens)) >= self.first, self.activations, np.nan)

    @property
    def bound(self) -> float:
        """End of the colour scale: the fixed one, or this text's own largest |activation|."""
        counted = np.abs(self.activations[self.first :])
        return self.inputs.bound or float(counted.max(initial=0.0))

    @property
    def clipped(self) -> float:
        """Share of the tokens that count whose activation lies beyond the scale; 0 for none."""
        counted = np.abs(self.activations[self.first :])
        return float((counted > self.bound * (1 + 1e-6)).mean()) if len(counted) else 0.0

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table: one row per token."""
        import pandas as pd  # only tables need it

        return pd.DataFrame(
            {
                "layer": self.inputs.layer,
                "neuron": self.inputs.neuron,
                "position": np.arange(len(self.tokens)),
                "token": list(self.tokens),
                "value": self.activations.astype(float),
                "unit": "activation",
                "counted": np.arange(len(self.tokens)) >= self.first,
            }
        )

    def to_json(self) -> str:
        """The whole result as JSON text."""
        fields: dict[str, Any] = {
            "inputs": self.inputs.to_dict(),
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
            "tokens": list(self.tokens),
            "first": self.first,
            "activations": encode_array(self.activations),
            "warnings": list(self.warnings),
            "checks": [asdict(check) for check in self.checks],
            "cancelled": self.cancelled,
        }
        return dump_record(SCHEMA, VERSION, fields)

    @classmethod
    def from_json(cls, text: str | bytes) -> "NeuronTextResult":
        """The inverse of `to_json`.

        Raises:
            InputError: anything that `to_json` would not have written.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("neuron"):
            return _build(record)


def _build(record: Mapping[str, Any]) -> NeuronTextResult:
    tokens = texts_from(record["tokens"])
    return NeuronTextResult(
        inputs=NeuronTextInputs.from_dict(record["inputs"]),
        provenance=provenance_from(record["provenance"]),
        tokens=tokens,
        first=int(record["first"]),
        activations=decode_array(record["activations"], "float32", (len(tokens),), "activations"),
        warnings=texts_from(record["warnings"]),
        checks=checks_from(record["checks"]),
        cancelled=bool(record["cancelled"]),
    )
