"""A feature's relatives: features that read or write alike, and those that it feeds or is fed by."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.plain import damage_told, outcome_from, provenance_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.provenance import Provenance
from mi_core.transcoders.names import Feature
from mi_core.transcoders.weights_inputs import FeatureNeighboursInputs

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/feature_neighbours", 1
ALIKE = ("reads alike", "writes alike")
WHERE = ("same layer", "other layers")
DIRECTIONS = ("upstream", "downstream")
ENDS = ("+", "\u2212")
VIRTUAL_UNIT = "pre-activation per unit of activation"


@dataclass(frozen=True, slots=True)
class Relative:
    """One related feature.

    Attributes:
        relation: one of `ALIKE` or `DIRECTIONS`.
        group: one of `WHERE` (cosines) or `ENDS` (virtual weights).
        rank: from 1.
        feature: which.
        value: cosine, or virtual weight.
        word: the word that it promotes most; "" where that is not known.
    """

    relation: str
    group: str
    rank: int
    feature: Feature
    value: float
    word: str


@dataclass(frozen=True, slots=True, eq=False)
class FeatureNeighboursResult:
    """Relatives of one feature, from the weights alone.

    Lists that are shorter than `rank` end in -1 and NaN.

    Attributes:
        inputs: what was asked for.
        provenance: model and versions.
        transcoder_name: what the transcoder is called.
        transcoder_fingerprint: of its files.
        n_compared: features that it was compared with.
        alike_layers: layers of the features that [0] read and [1] write alike, in [0] the same layer and [1]
            other layers.
        alike_indices: their numbers.
        alike_cosines: cosines of encoder rows; of decoder rows, summed over target layers.
        virtual_layers: layers of the features [0] upstream and [1] downstream with [0] the largest positive
            and [1] the largest negative virtual weights.
        virtual_indices: their numbers.
        virtual_weights: what one unit of activation of the upstream feature adds to the pre-activation of the
            downstream one, straight through the stream, norms at scale 1.
        words: feature -> the word that it promotes most.
        warnings: sentences to be read before the figure.
        checks: identities tried on these numbers.
        seconds: duration.
        cancelled: whether the user stopped it; then only the layers done until then were compared.
    """

    inputs: FeatureNeighboursInputs
    provenance: Provenance | None
    transcoder_name: str
    transcoder_fingerprint: str
    n_compared: int
    alike_layers: Int[np.ndarray, "relation where rank"]
    alike_indices: Int[np.ndarray, "relation where rank"]
    alike_cosines: Float[np.ndarray, "relation where rank"]
    virtual_layers: Int[np.ndarray, "direction end rank"]
    virtual_indices: Int[np.ndarray, "direction end rank"]
    virtual_weights: Float[np.ndarray, "direction end rank"]
    words: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """All lists have one length."""
        shape = (2, 2, self.inputs.count)
        for name in ARRAYS:
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")

    @property
    def feature(self) -> Feature:
        """The feature."""
        return self.inputs.chosen

    def alike(self) -> tuple[Relative, ...]:
        """Features that read or write alike, list by list."""
        arrays = self.alike_layers, self.alike_indices, self.alike_cosines
        return tuple(self._relatives(*arrays, ALIKE, WHERE))

    def virtual(self) -> tuple[Relative, ...]:
        """Features that feed it or that it feeds, list by list."""
        arrays = self.virtual_layers, self.virtual_indices, self.virtual_weights
        return tuple(self._relatives(*arrays, DIRECTIONS, ENDS))

    def _relatives(
        self,
        layers: np.ndarray,
        indices: np.ndarray,
        values: np.ndarray,
        relations: tuple[str, ...],
        groups: tuple[str, ...],
    ) -> Iterator[Relative]:
        for (relation, group, rank), layer in np.ndenumerate(layers):
            if layer >= 0:
                feature = Feature(int(layer), int(indices[relation, group, rank]))
                value = float(values[relation, group, rank])
                word = self.words.get(feature.text, "")
                yield Relative(relations[relation], groups[group], rank + 1, feature, value, word)

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table: one row per relative."""
        return self.frame_of((*self.alike(), *self.virtual()))

    def frame_of(self, relatives: tuple[Relative, ...]) -> "pd.DataFrame":
        """Tidy table of some relatives."""
        import pandas as pd  # only tables need it

        rows = [
            {"feature": self.feature.text, "quantity": one.relation, "group": one.group, "rank": one.rank,
             "other": one.feature.text, "layer": one.feature.layer, "index": one.feature.index,
             "value": one.value, "unit": "cosine" if one.relation in ALIKE else VIRTUAL_UNIT,
             "word": one.word}
            for one in relatives
        ]  # fmt: skip
        names = ("feature", "quantity", "group", "rank", "other", "layer", "index", "value", "unit", "word")
        return pd.DataFrame(rows, columns=list(names))

    def to_json(self) -> str:
        """The whole result as JSON text."""
        record: dict[str, Any] = {
            "inputs": self.inputs.to_dict(),
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
            **{name: getattr(self, name) for name in _PLAIN},
            **{name: encode_array(getattr(self, name)) for name in ARRAYS},
            "words": dict(self.words),
            "warnings": list(self.warnings),
            "checks": [asdict(check) for check in self.checks],
        }
        return dump_record(SCHEMA, VERSION, record)

    @classmethod
    def from_json(cls, text: str | bytes) -> "FeatureNeighboursResult":
        """The inverse of `to_json`.

        Raises:
            InputError: anything that `to_json` would not have written.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("feature's neighbours"):
            return _build(record)


ARRAYS = (
    "alike_layers",
    "alike_indices",
    "alike_cosines",
    "virtual_layers",
    "virtual_indices",
    "virtual_weights",
)
"""Names of the arrays, in the result and in its record."""
_PLAIN = ("transcoder_name", "transcoder_fingerprint", "n_compared", "seconds", "cancelled")


def _build(record: Mapping[str, Any]) -> FeatureNeighboursResult:
    inputs = FeatureNeighboursInputs.from_dict(record["inputs"])
    shape = (2, 2, inputs.count)
    return FeatureNeighboursResult(
        inputs=inputs,
        provenance=provenance_from(record["provenance"]),
        transcoder_name=str(record["transcoder_name"]),
        transcoder_fingerprint=str(record["transcoder_fingerprint"]),
        n_compared=int(record["n_compared"]),
        **{
            name: decode_array(
                record[name], "int64" if name.endswith(("layers", "indices")) else "float64", shape, name
            )
            for name in ARRAYS
        },
        words={str(name): str(word) for name, word in record["words"].items()},
        **outcome_from(record),
    )
