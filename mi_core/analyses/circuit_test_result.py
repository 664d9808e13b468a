"""What testing a circuit returns: logit differences of the model, the circuit, the rest, and controls."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.circuit_test_inputs import CircuitTestInputs
from mi_core.analyses.head_classes_rules import Band
from mi_core.analyses.path_patching_bands import mean_band
from mi_core.analyses.plain import checks_from, damage_told, provenance_from, texts_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/circuit_test", 1
RUNS = ("whole model", "circuit alone", "model without circuit", "no heads")
"""First axis of `scores`."""


@dataclass(frozen=True, slots=True, eq=False)
class CircuitTestResult:
    """Logit differences, per prompt, logits.

    Attributes:
        inputs: what was asked for.
        provenance: where the numbers come from.
        n_model_heads: heads of the model.
        scores: of the runs in `RUNS`.
        subsets: the parts of the circuit that were taken out, names of heads.
        subset_circuit: circuit alone without each part; F(C without K).
        subset_model: model without each part; F(M without K).
        controls: random circuits of the same size alone.
        control_rests: the model without each of them.
        warnings: sentences to be read before the figure.
        checks: identities tried on these numbers.
        seconds: duration.
        cancelled: whether the user stopped it.
    """

    inputs: CircuitTestInputs
    provenance: Provenance | None
    n_model_heads: int
    scores: Float[np.ndarray, "run prompt"]
    subsets: tuple[tuple[str, ...], ...]
    subset_circuit: Float[np.ndarray, "subset prompt"]
    subset_model: Float[np.ndarray, "subset prompt"]
    controls: Float[np.ndarray, "control prompt"]
    control_rests: Float[np.ndarray, "control prompt"]
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """One score per run and prompt."""
        if len(self.scores) != len(RUNS) or len(self.subset_circuit) != len(self.subsets):
            raise ValueError(f"scores {self.scores.shape}, subsets {self.subset_circuit.shape}")

    @property
    def n(self) -> int:
        """Prompts."""
        return self.scores.shape[1]

    def band(self, run: str) -> Band:
        """Mean logit difference of a run of `RUNS` with its 95 % band over prompts."""
        return _band(self.scores[RUNS.index(run)])

    @property
    def faithfulness(self) -> float:
        """Logit difference of the circuit alone as a share of the model's; NaN where the model has none."""
        model, alone = self.band("whole model").mean, self.band("circuit alone").mean
        return alone / model if model > 0 else float("nan")

    @property
    def incompleteness(self) -> Band:
        """F(M without C) - F(no heads), paired over prompts: what works without the circuit."""
        return _band(self.scores[RUNS.index("model without circuit")] - self.scores[RUNS.index("no heads")])

    def control_band(self, rests: bool = False) -> Band:
        """Mean of the random circuits (or of the model without them), band over random circuits."""
        values = (self.control_rests if rests else self.controls).mean(-1)
        return _band(values) if len(values) else Band(float("nan"), float("nan"), float("nan"))

    def to_frame(self) -> "pd.DataFrame":
        """One number per row.

        Columns: run, heads, value, low, high (95 % band over prompts), unit, prompts.
        """
        import pandas as pd

        columns = ["run", "heads", "value", "low", "high", "unit", "prompts"]
        return pd.DataFrame(list(self._rows()), columns=columns)

    def _rows(self) -> Iterator[dict[str, Any]]:
        named = [(run, "", scores) for run, scores in zip(RUNS, self.scores, strict=True)]
        for label, rows in (
            ("circuit without", self.subset_circuit),
            ("model without", self.subset_model),
        ):
            named += [(label, " ".join(part), row) for part, row in zip(self.subsets, rows, strict=True)]
        named += [("random circuit alone", str(index), row) for index, row in enumerate(self.controls)]
        named += [
            ("model without random circuit", str(index), row) for index, row in enumerate(self.control_rests)
        ]
        for run, heads, scores in named:
            band = _band(scores)
            ends = {"value": band.mean, "low": band.low, "high": band.high}
            yield {"run": run, "heads": heads, **ends, "unit": "logits", "prompts": len(scores)}

    def to_json(self) -> str:
        """The whole result."""
        return dump_record(
            SCHEMA,
            VERSION,
            {
                "inputs": self.inputs.to_dict(),
                "provenance": None if self.provenance is None else self.provenance.to_dict(),
                "n_model_heads": self.n_model_heads,
                "runs": list(RUNS),
                "prompts": self.n,
                "subsets": [list(part) for part in self.subsets],
                "n_controls": len(self.controls),
                **{name: encode_array(getattr(self, name)) for name in ARRAYS},
                "warnings": list(self.warnings),
                "checks": [asdict(check) for check in self.checks],
                "seconds": self.seconds,
                "cancelled": self.cancelled,
            },
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> "CircuitTestResult":
        """The inverse of `to_json`.

        Raises:
            InputError: no such record, or a damaged one.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("circuit test"):
            prompts, subsets, controls = int(record["prompts"]), record["subsets"], int(record["n_controls"])
            sizes = dict(
                zip(ARRAYS, (len(RUNS), len(subsets), len(subsets), controls, controls), strict=True)
            )
            return cls(
                inputs=CircuitTestInputs.from_dict(record["inputs"]),
                provenance=provenance_from(record["provenance"]),
                n_model_heads=int(record["n_model_heads"]),
                subsets=tuple(texts_from(part) for part in subsets),
                warnings=texts_from(record["warnings"]),
                checks=checks_from(record["checks"]),
                seconds=float(record["seconds"]),
                cancelled=bool(record["cancelled"]),
                **{
                    name: decode_array(record[name], "float64", (size, prompts), name)
                    for name, size in sizes.items()
                },
            )


ARRAYS = ("scores", "subset_circuit", "subset_model", "controls", "control_rests")
"""All arrays of the result."""


def _band(samples: np.ndarray) -> Band:
    mean, low, high = mean_band(samples)
    return Band(float(mean), float(low), float(high))
