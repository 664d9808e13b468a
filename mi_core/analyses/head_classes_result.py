"""What giving classes to heads returns: every number with its band, the labels, the paths between them."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from mi_core.analyses.attribution_inputs import head_name
from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.head_classes_inputs import HeadClassesInputs
from mi_core.analyses.head_classes_rules import QUANTITIES, Band, Label, Verdict, classify, rules
from mi_core.analyses.path_patching_names import LOGITS, Head
from mi_core.analyses.plain import checks_from, damage_told, provenance_from, texts_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/head_classes", 1
INPUTS_OF_HEADS = ("q", "k", "v")


@dataclass(frozen=True, slots=True, eq=False)
class HeadClassesResult:
    """Numbers and labels of all heads.

    Attributes:
        inputs: what was asked for.
        provenance: where the numbers come from.
        n: how many prompts there were.
        baseline: mean logit difference of the clean prompts, and the ends of its 95 % band, logits.
        accuracy: share of clean prompts whose right answer is above the wrong one.
        has_names: whether the task names S1 and S2.
        means: every quantity of every head; NaN = not measured.
        lows: lower ends of the 95 % bands.
        highs: upper ends.
        drawn: heads that are linked by paths, (layer, head) each.
        edges: effect of the path from one of them (first axis) through an input (q, k, v) of another; NaN
            where there is no such path. Mean over prompts, logits.
        edge_lows: lower ends of their bands.
        edge_highs: upper ends.
        outputs: effect of each one's direct path to the logits, in logits; `output_lows`, `output_highs`: its
            band.
        output_lows: see `outputs`.
        output_highs: see `outputs`.
        warnings: sentences to be read before the figure.
        checks: identities tried on these numbers.
        seconds: duration.
        cancelled: whether the user stopped it.
    """

    inputs: HeadClassesInputs
    provenance: Provenance | None
    n: int
    baseline: Float[np.ndarray, "3"]
    accuracy: float
    has_names: bool
    means: Float[np.ndarray, "quantity layer head"]
    lows: Float[np.ndarray, "quantity layer head"]
    highs: Float[np.ndarray, "quantity layer head"]
    drawn: tuple[Head, ...]
    edges: Float[np.ndarray, "drawn drawn input"]
    edge_lows: Float[np.ndarray, "drawn drawn input"]
    edge_highs: Float[np.ndarray, "drawn drawn input"]
    outputs: Float[np.ndarray, " drawn"]
    output_lows: Float[np.ndarray, " drawn"]
    output_highs: Float[np.ndarray, " drawn"]
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Every quantity is there."""
        if self.means.shape[0] != len(QUANTITIES) or self.edges.shape[0] != len(self.drawn):
            raise ValueError(f"means {self.means.shape}, edges {self.edges.shape}")

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return self.means.shape[1]

    @property
    def n_heads(self) -> int:
        """Heads of every layer."""
        return self.means.shape[2]

    @property
    def least_effect(self) -> float:
        """Smallest effect that counts, logits."""
        return self.inputs.least_share * abs(float(self.baseline[0]))

    def band(self, quantity: str, layer: int, head: int) -> Band:
        """A number of a head with its band."""
        index = list(QUANTITIES).index(quantity)
        return Band(*(float(array[index, layer, head]) for array in (self.means, self.lows, self.highs)))

    def verdict(self, layer: int, head: int) -> Verdict:
        """A head's label and the numbers that it rests on."""
        numbers = {name: self.band(name, layer, head) for name in QUANTITIES}
        asked = rules(self.inputs, float(self.baseline[0]), has_names=self.has_names)
        return classify(numbers, asked, self.least_effect)

    def verdicts(self) -> dict[Head, Verdict]:
        """All heads by their place."""
        return {
            (layer, head): self.verdict(layer, head)
            for layer in range(self.n_layers)
            for head in range(self.n_heads)
        }

    def heads_of(self, *labels: Label) -> tuple[Head, ...]:
        """The heads with one of these labels."""
        return tuple(place for place, verdict in self.verdicts().items() if verdict.label in labels)

    def circuit(self) -> tuple[Head, ...]:
        """The heads with a class: neither "none" nor "unclear"."""
        return tuple(
            place for place, verdict in self.verdicts().items() if verdict.label not in ("none", "unclear")
        )

    def to_frame(self) -> "pd.DataFrame":
        """One number per row.

        Columns: layer, head, name, label, habits, quantity, value, low, high (95 % band), unit, into.
        """
        import pandas as pd

        return pd.DataFrame([*self._numbers(), *self._paths()])

    def _numbers(self) -> Iterator[dict[str, Any]]:
        for (layer, head), verdict in self.verdicts().items():
            shared = {"layer": layer, "head": head, "name": head_name(layer, head), "label": verdict.label}
            shared["habits"] = ", ".join(verdict.habits)
            for quantity, (label, unit) in QUANTITIES.items():
                band = self.band(quantity, layer, head)
                yield {
                    **shared,
                    "quantity": label,
                    **_ends(band.mean, band.low, band.high),
                    "unit": unit,
                    "into": "",
                }

    def _paths(self) -> Iterator[dict[str, Any]]:
        verdicts = self.verdicts()
        for index, (layer, head) in enumerate(self.drawn):
            verdict = verdicts[layer, head]
            shared = {"layer": layer, "head": head, "name": head_name(layer, head), "label": verdict.label}
            shared |= {"habits": ", ".join(verdict.habits), "quantity": "path effect", "unit": "logits"}
            ends = _ends(self.outputs[index], self.output_lows[index], self.output_highs[index])
            yield {**shared, **ends, "into": LOGITS}
            for other, part, value, low, high in self.paths_from(index):
                yield {**shared, **_ends(value, low, high), "into": f"{head_name(*other)}.{part}"}

    def paths_from(self, index: int) -> Iterator[tuple[Head, str, float, float, float]]:
        """(receiver, input, mean, low, high) of every path that begins at a drawn head."""
        for at, other in enumerate(self.drawn):
            for number, part in enumerate(INPUTS_OF_HEADS):
                value = float(self.edges[index, at, number])
                if value == value:
                    low, high = self.edge_lows[index, at, number], self.edge_highs[index, at, number]
                    yield other, part, value, float(low), float(high)

    def to_json(self) -> str:
        """The whole result; labels are made again from the numbers when it is read."""
        return dump_record(
            SCHEMA,
            VERSION,
            {
                "inputs": self.inputs.to_dict(),
                "provenance": None if self.provenance is None else self.provenance.to_dict(),
                "n": self.n,
                "accuracy": self.accuracy,
                "has_names": self.has_names,
                "quantities": list(QUANTITIES),
                "labels": [
                    {"head": head_name(*place), "label": verdict.label, "reasons": list(verdict.reasons)}
                    for place, verdict in self.verdicts().items()
                ],
                "drawn": [list(place) for place in self.drawn],
                **{name: encode_array(getattr(self, name)) for name in ARRAYS},
                "warnings": list(self.warnings),
                "checks": [asdict(check) for check in self.checks],
                "seconds": self.seconds,
                "cancelled": self.cancelled,
                "shape": [self.n_layers, self.n_heads],
            },
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> "HeadClassesResult":
        """The inverse of `to_json`.

        Raises:
            InputError: no such record, or a damaged one.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("head classes"):
            layers, heads = (int(size) for size in record["shape"])
            drawn = tuple((int(layer), int(head)) for layer, head in record["drawn"])
            shapes = _shapes(layers, heads, len(drawn))
            return cls(
                inputs=HeadClassesInputs.from_dict(record["inputs"]),
                provenance=provenance_from(record["provenance"]),
                n=int(record["n"]),
                accuracy=float(record["accuracy"]),
                has_names=bool(record["has_names"]),
                drawn=drawn,
                warnings=texts_from(record["warnings"]),
                checks=checks_from(record["checks"]),
                seconds=float(record["seconds"]),
                cancelled=bool(record["cancelled"]),
                **{
                    name: decode_array(record[name], "float64", shape, name) for name, shape in shapes.items()
                },
            )


ARRAYS = (
    "baseline",
    "means",
    "lows",
    "highs",
    "edges",
    "edge_lows",
    "edge_highs",
    "outputs",
    "output_lows",
    "output_highs",
)
"""All arrays of the result."""


def _shapes(layers: int, heads: int, drawn: int) -> dict[str, tuple[int, ...]]:
    numbers = dict.fromkeys(("means", "lows", "highs"), (len(QUANTITIES), layers, heads))
    edges = dict.fromkeys(("edges", "edge_lows", "edge_highs"), (drawn, drawn, len(INPUTS_OF_HEADS)))
    outputs = dict.fromkeys(("outputs", "output_lows", "output_highs"), (drawn,))
    return {"baseline": (3,), **numbers, **edges, **outputs}


def _ends(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": float(value), "low": float(low), "high": float(high)}
