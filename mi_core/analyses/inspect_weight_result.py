"""One weight closely: the histogram of its entries and its singular values, as table and JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.inspect_parts import WeightInfo
from mi_core.analyses.inspect_weight_inputs import InspectWeightInputs
from mi_core.analyses.plain_fields import from_plain
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.errors import InputError
from mi_core.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/inspect_weight", 1


@dataclass(frozen=True, slots=True, eq=False)
class InspectWeightResult:
    """A weight.

    Attributes:
        inputs: what was asked for.
        provenance: model and versions.
        info: name, role, shape.
        frobenius, mean, std: of all entries, in units of the weights.
        edges: of the histogram's bins.
        counts: entries per bin.
        singular_values: largest first; empty for a vector, or where they were not asked for.
        warnings: sentences to be read first.
        checks: identities tried on these numbers.
        seconds: duration.
        cancelled: whether the user stopped it (there is nothing to keep then: always False).
    """

    inputs: InspectWeightInputs
    provenance: Provenance | None
    info: WeightInfo
    frobenius: float
    mean: float
    std: float
    edges: Float[np.ndarray, "edge"]
    counts: Int[np.ndarray, "bin"]
    singular_values: Float[np.ndarray, "rank"]
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """A bin between every two edges; as many singular values as the shorter side."""
        if len(self.counts) != len(self.edges) - 1:
            raise ValueError(f"{len(self.counts)} bins, {len(self.edges)} edges")
        if len(self.singular_values) not in (0, min(self.info.shape)):
            raise ValueError(f"{len(self.singular_values)} singular values of shape {self.info.shape}")

    @property
    def stable_rank(self) -> float:
        """Squared Frobenius norm over squared largest singular value: 1 = one direction; NaN if not known."""
        if not len(self.singular_values) or self.singular_values[0] == 0:
            return float("nan")
        return float(self.frobenius / self.singular_values[0]) ** 2

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table, one row per number: weight, metric, index, low, high, value, unit."""
        import pandas as pd

        bins = [
            {"metric": "entries", "index": i, "low": low, "high": high, "value": count, "unit": "count"}
            for i, (low, high, count) in enumerate(
                zip(self.edges[:-1], self.edges[1:], self.counts.tolist(), strict=True)
            )
        ]
        values = [
            {"metric": "singular value", "index": i, "value": value, "unit": "weight"}
            for i, value in enumerate(self.singular_values.tolist())
        ]
        frame = pd.DataFrame(
            [*values, *bins], columns=pd.Index(["metric", "index", "low", "high", "value", "unit"])
        )
        frame.insert(0, "weight", self.info.full_name)
        return frame

    def to_json(self) -> str:
        """JSON text: schema "lantern/inspect_weight", version, every field; no NaN."""
        provenance = self.provenance
        return dump_record(SCHEMA, VERSION, {
            "inputs": self.inputs.to_dict(),
            "provenance": None if provenance is None else provenance.to_dict(),
            "info": asdict(self.info),
            "frobenius": self.frobenius,
            "mean": self.mean,
            "std": self.std,
            "edges": encode_array(self.edges),
            "counts": encode_array(self.counts),
            "singular_values": encode_array(self.singular_values),
            "warnings": list(self.warnings),
            "checks": [asdict(check) for check in self.checks],
            "seconds": self.seconds,
            "cancelled": self.cancelled,
        })  # fmt: skip

    @classmethod
    def from_json(cls, text: str | bytes) -> "InspectWeightResult":
        """The inverse of `to_json`; numbers come back exactly.

        Raises:
            InputError: not such a record, or damaged.
        """
        record = load_record(text, SCHEMA, VERSION)
        try:
            return _build(record)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise InputError(
                "The weight's record is damaged", why=f"{type(error).__name__}: {error}"
            ) from error


def _build(record: Mapping[str, Any]) -> InspectWeightResult:
    provenance = record["provenance"]
    kinds = {"edges": "float64", "counts": "int64", "singular_values": "float64"}
    arrays: dict[str, Any] = {
        name: decode_array(record[name], kind, (len(record[name]),), name) for name, kind in kinds.items()
    }
    return InspectWeightResult(
        inputs=InspectWeightInputs.from_dict(record["inputs"]),
        provenance=None if provenance is None else Provenance.from_dict(provenance),
        info=from_plain(WeightInfo, record["info"]),
        frobenius=float(record["frobenius"]),
        mean=float(record["mean"]),
        std=float(record["std"]),
        **arrays,
        warnings=tuple(str(warning) for warning in record["warnings"]),
        checks=tuple(from_plain(Check, one) for one in record["checks"]),
        seconds=float(record["seconds"]),
        cancelled=bool(record["cancelled"]),
    )
