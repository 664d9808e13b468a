"""What path patching returns: effects of every head's paths into the receivers, per prompt."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from mi_core.analyses.attribution_inputs import head_name
from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.path_patching_bands import mean_band
from mi_core.analyses.path_patching_inputs import PathPatchingInputs
from mi_core.analyses.plain import checks_from, damage_told, provenance_from, texts_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/path_patching", 1
Ends = tuple[
    Float[np.ndarray, "receiver layer head"],
    Float[np.ndarray, "receiver layer head"],
    Float[np.ndarray, "receiver layer head"],
]


@dataclass(frozen=True, slots=True, eq=False)
class PathPatchingResult:
    """Effects on the logit difference.

    Attributes:
        inputs: what was asked for.
        provenance: where the numbers come from.
        clean: logit difference of every clean prompt, logits.
        counterfactual: that of the counterfactual prompts, for the clean answers.
        effects: patched minus clean, for the path from every head; NaN where a head is no sender (not earlier
            than the receiver) or was not reached. First axis: the receivers, or one for all together.
        warnings: sentences to be read before the figure.
        checks: identities tried on these numbers.
        seconds: duration.
        cancelled: whether the user stopped it.
    """

    inputs: PathPatchingInputs
    provenance: Provenance | None
    clean: Float[np.ndarray, " prompt"]
    counterfactual: Float[np.ndarray, " prompt"]
    effects: Float[np.ndarray, "receiver layer head prompt"]
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """One effect per receiver and prompt."""
        if (self.effects.shape[0], self.effects.shape[-1]) != (len(self.names), len(self.clean)):
            raise ValueError(f"effects have shape {self.effects.shape}")

    @property
    def names(self) -> tuple[str, ...]:
        """The receivers of the first axis."""
        together = self.inputs.setting == "together"
        return (" + ".join(self.inputs.receivers),) if together else self.inputs.receivers

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return self.effects.shape[1]

    @property
    def n_heads(self) -> int:
        """Heads of every layer."""
        return self.effects.shape[2]

    def bands(self) -> Ends:
        """Mean over prompts, and the ends of its 95 % band."""
        return mean_band(np.moveaxis(self.effects, -1, 0))

    def to_frame(self) -> "pd.DataFrame":
        """One number per row.

        Columns: receiver, layer, head, name, value, low, high (95 % band over prompts), unit, prompts.
        """
        import pandas as pd

        columns = ["receiver", "layer", "head", "name", "value", "low", "high", "unit", "prompts"]
        return pd.DataFrame(list(self._rows()), columns=columns)

    def _rows(self) -> Iterator[dict[str, Any]]:
        mean, low, high = self.bands()
        for index, receiver in enumerate(self.names):
            for layer, head in np.argwhere(np.isfinite(mean[index])).tolist():
                place = index, layer, head
                ends = {"value": float(mean[place]), "low": float(low[place]), "high": float(high[place])}
                shared = {"receiver": receiver, "layer": layer, "head": head, "name": head_name(layer, head)}
                yield {**shared, **ends, "unit": "logits", "prompts": len(self.clean)}

    def to_json(self) -> str:
        """The whole result."""
        return dump_record(
            SCHEMA,
            VERSION,
            {
                "inputs": self.inputs.to_dict(),
                "provenance": None if self.provenance is None else self.provenance.to_dict(),
                "names": list(self.names),
                "shape": [self.n_layers, self.n_heads, len(self.clean)],
                "clean": encode_array(self.clean),
                "counterfactual": encode_array(self.counterfactual),
                "effects": encode_array(self.effects),
                "warnings": list(self.warnings),
                "checks": [asdict(check) for check in self.checks],
                "seconds": self.seconds,
                "cancelled": self.cancelled,
            },
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> "PathPatchingResult":
        """The inverse of `to_json`.

        Raises:
            InputError: no such record, or a damaged one.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("path patching"):
            layers, heads, prompts = (int(size) for size in record["shape"])
            shape = (len(record["names"]), layers, heads, prompts)
            return cls(
                inputs=PathPatchingInputs.from_dict(record["inputs"]),
                provenance=provenance_from(record["provenance"]),
                clean=decode_array(record["clean"], "float64", (prompts,), "clean"),
                counterfactual=decode_array(
                    record["counterfactual"], "float64", (prompts,), "counterfactual"
                ),
                effects=decode_array(record["effects"], "float64", shape, "effects"),
                warnings=texts_from(record["warnings"]),
                checks=checks_from(record["checks"]),
                seconds=float(record["seconds"]),
                cancelled=bool(record["cancelled"]),
            )
