"""What testing heads on repeated random tokens returns."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from mi_core.analyses.attribution_inputs import head_name
from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.head_scores_inputs import SCORE_NAMES, SCORES, HeadScoresInputs
from mi_core.analyses.plain import checks_from, damage_told, provenance_from, texts_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.errors import InputError
from mi_core.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/head_scores", 1

NO_LABEL = "none"
"""Label of a head that reaches no threshold."""


@dataclass(frozen=True, slots=True, eq=False)
class HeadScoresResult:
    """Scores of all heads.

    Attributes:
        inputs: what was asked for.
        provenance: where the numbers come from.
        length: tokens per copy that were really used.
        bos: whether a BOS token stood in front.
        samples: score of every sequence, in the order of `SCORES`; shares of attention from 0 to 1.
        warnings: sentences to be read before the figure.
        checks: identities tried on these numbers.
        seconds: duration.
        cancelled: whether the user stopped it.
    """

    inputs: HeadScoresInputs
    provenance: Provenance | None
    length: int
    bos: bool
    samples: Float[np.ndarray, "score sample layer head"]
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Every score of every sequence is there."""
        if self.samples.shape[:2] != (len(SCORE_NAMES), self.inputs.samples):
            raise ValueError(f"samples have shape {self.samples.shape}")

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return self.samples.shape[2]

    @property
    def n_heads(self) -> int:
        """Heads of every layer."""
        return self.samples.shape[3]

    def mean(self, score: str) -> Float[np.ndarray, "layer head"]:
        """Mean over sequences."""
        return self.samples[_index(score)].mean(0)

    def spread(self, score: str) -> Float[np.ndarray, "layer head"]:
        """Standard deviation over sequences (n - 1); NaN with a single one."""
        if self.inputs.samples < 2:
            return np.full((self.n_layers, self.n_heads), np.nan)
        return self.samples[_index(score)].std(0, ddof=1)

    def band(self, score: str) -> tuple[Float[np.ndarray, "layer head"], Float[np.ndarray, "layer head"]]:
        """One standard deviation below and above the mean; NaN with a single sequence."""
        mean, spread = self.mean(score), self.spread(score)
        return mean - spread, mean + spread

    def labels(self, layer: int, head: int) -> tuple[str, ...]:
        """Names of the scores that reach the threshold, highest first; ("none",) where none does."""
        means = {name: float(self.mean(name)[layer, head]) for name in SCORE_NAMES}
        found = [name for name, value in means.items() if value >= self.inputs.threshold]
        return tuple(sorted(found, key=lambda name: -means[name])) or (NO_LABEL,)

    def strongest(self, score: str, count: int) -> list[tuple[int, int]]:
        """(layer, head) of the heads with the highest mean, highest first."""
        means = self.mean(score)
        order = np.argsort(-means, axis=None, kind="stable")[:count]
        return [(int(index) // self.n_heads, int(index) % self.n_heads) for index in order]

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table: layer, head, score, value (mean), spread, unit, samples, labels."""
        import pandas as pd

        layers, heads = np.indices((self.n_layers, self.n_heads)).reshape(2, -1)
        labels = [
            ", ".join(self.labels(layer, head))
            for layer, head in zip(layers.tolist(), heads.tolist(), strict=True)
        ]
        parts = [
            pd.DataFrame(
                {
                    "layer": layers,
                    "head": heads,
                    "score": score.name,
                    "value": self.mean(score.name).ravel(),
                    "spread": self.spread(score.name).ravel(),
                    "unit": "share",
                    "samples": self.inputs.samples,
                    "labels": labels,
                }
            )
            for score in SCORES
        ]
        return pd.concat(parts, ignore_index=True)

    def labels_frame(self) -> "pd.DataFrame":
        """One row per head: head, labels, and the mean of every score (shares)."""
        import pandas as pd

        rows = [
            {
                "head": head_name(layer, head),
                "labels": ", ".join(self.labels(layer, head)),
                **{score.label: float(self.mean(score.name)[layer, head]) for score in SCORES},
            }
            for layer in range(self.n_layers)
            for head in range(self.n_heads)
        ]
        return pd.DataFrame(rows)

    def to_json(self) -> str:
        """JSON text: schema "lantern/head_scores", version, every field; no NaN."""
        fields: dict[str, Any] = {
            "inputs": self.inputs.to_dict(),
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
            "length": self.length,
            "bos": self.bos,
            "score_names": list(SCORE_NAMES),
            "unit": "share",
            "n_layers": self.n_layers,
            "n_heads": self.n_heads,
            "samples": encode_array(self.samples),
            "warnings": list(self.warnings),
            "checks": [asdict(check) for check in self.checks],
            "seconds": self.seconds,
            "cancelled": self.cancelled,
        }
        return dump_record(SCHEMA, VERSION, fields)

    @classmethod
    def from_json(cls, text: str | bytes) -> "HeadScoresResult":
        """The inverse of `to_json`.

        Raises:
            InputError: not such a record, or damaged.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("head scores"):
            return _build(record)


def _index(score: str) -> int:
    if score not in SCORE_NAMES:
        raise InputError(f"There is no score {score!r:.60}", fix=f"Choose one of {', '.join(SCORE_NAMES)}")
    return SCORE_NAMES.index(score)


def _build(record: Mapping[str, Any]) -> HeadScoresResult:
    if record["score_names"] != list(SCORE_NAMES):
        raise InputError("The record has other scores than this Lantern")
    inputs = HeadScoresInputs.from_dict(record["inputs"])
    shape = (len(SCORE_NAMES), inputs.samples, int(record["n_layers"]), int(record["n_heads"]))
    return HeadScoresResult(
        inputs=inputs,
        provenance=provenance_from(record["provenance"]),
        length=int(record["length"]),
        bos=bool(record["bos"]),
        samples=decode_array(record["samples"], "float64", shape, "samples"),
        warnings=texts_from(record["warnings"]),
        checks=checks_from(record["checks"]),
        seconds=float(record["seconds"]),
        cancelled=bool(record["cancelled"]),
    )
