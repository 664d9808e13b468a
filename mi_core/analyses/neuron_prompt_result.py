"""What the leading neurons of a prompt are returned as; see `neuron_prompt_run`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.neuron_inputs import NeuronPromptInputs
from mi_core.analyses.plain import checks_from, damage_told, provenance_from, texts_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "lantern/neuron_prompt"
VERSION = 1
ARRAYS = ("neurons", "values", "sizes")
"""Every array of the result, by its name in the record."""


@dataclass(frozen=True, slots=True, eq=False)
class NeuronPromptResult:
    """Leading neurons by layer and token.

    Attributes:
        inputs: what was asked for.
        provenance: model, versions.
        d_mlp: neurons per layer.
        tokens: visible tokens of the prompt.
        first: first position that counts in surveys (a BOS token, or the first token, comes before it).
        neurons: numbers of the neurons with the largest |activation|, the largest first.
        values: their activations, with sign.
        sizes: Euclidean length of all activations of the layer at the token.
        warnings: sentences to be read before the figure.
        checks: identities tried on this result.
        cancelled: always False: it is one pass.
    """

    inputs: NeuronPromptInputs
    provenance: Provenance | None
    d_mlp: int
    tokens: tuple[str, ...]
    first: int
    neurons: Int[np.ndarray, "layer pos top"]
    values: Float[np.ndarray, "layer pos top"]
    sizes: Float[np.ndarray, "layer pos"]
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Shapes agree with each other."""
        if self.neurons.shape != self.values.shape or self.neurons.shape[:2] != self.sizes.shape:
            raise ValueError(f"shapes {self.neurons.shape}, {self.values.shape}, {self.sizes.shape}")
        if self.sizes.shape[1] != len(self.tokens):
            raise ValueError(f"{len(self.tokens)} tokens but {self.sizes.shape[1]} columns")

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return len(self.neurons)

    @property
    def top(self) -> int:
        """Neurons per cell; fewer than asked for in a narrow MLP."""
        return self.neurons.shape[2]

    @property
    def share(self) -> Float[np.ndarray, "layer pos top"]:
        """Share of the squared length of all activations that each neuron holds; 0 where all are 0."""
        squares = self.sizes[:, :, None] ** 2
        return np.where(squares > 0, self.values**2 / np.where(squares > 0, squares, 1), 0.0)

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table: one row per layer, token and rank."""
        import pandas as pd  # only tables need it

        layers, positions, ranks = np.indices(self.neurons.shape).reshape(3, -1)
        return pd.DataFrame(
            {
                "layer": layers,
                "position": positions,
                "token": [self.tokens[position] for position in positions],
                "rank": ranks,
                "neuron": self.neurons.ravel(),
                "value": self.values.ravel().astype(float),
                "unit": "activation",
                "share": self.share.ravel(),
            }
        )

    def to_json(self) -> str:
        """The whole result as JSON text."""
        fields: dict[str, Any] = {
            "inputs": self.inputs.to_dict(),
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
            "d_mlp": self.d_mlp,
            "tokens": list(self.tokens),
            "first": self.first,
            "shape": list(self.neurons.shape),
            **{name: encode_array(getattr(self, name)) for name in ARRAYS},
            "warnings": list(self.warnings),
            "checks": [asdict(check) for check in self.checks],
            "cancelled": self.cancelled,
        }
        return dump_record(SCHEMA, VERSION, fields)

    @classmethod
    def from_json(cls, text: str | bytes) -> "NeuronPromptResult":
        """The inverse of `to_json`.

        Raises:
            InputError: anything that `to_json` would not have written.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("neurons"):
            return _build(record)


def _build(record: Mapping[str, Any]) -> NeuronPromptResult:
    layers, positions, top = (int(size) for size in record["shape"])
    return NeuronPromptResult(
        inputs=NeuronPromptInputs.from_dict(record["inputs"]),
        provenance=provenance_from(record["provenance"]),
        d_mlp=int(record["d_mlp"]),
        tokens=texts_from(record["tokens"]),
        first=int(record["first"]),
        neurons=decode_array(record["neurons"], "int64", (layers, positions, top), "neurons"),
        values=decode_array(record["values"], "float32", (layers, positions, top), "values"),
        sizes=decode_array(record["sizes"], "float64", (layers, positions), "sizes"),
        warnings=texts_from(record["warnings"]),
        checks=checks_from(record["checks"]),
        cancelled=bool(record["cancelled"]),
    )
