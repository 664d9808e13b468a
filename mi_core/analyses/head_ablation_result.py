"""What ablating every head over a task returns."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from mi_core.analyses.attribution_inputs import head_name
from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.plain import checks_from, damage_told, provenance_from, texts_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.analyses.task_bands import Band, mean_with_band
from mi_core.analyses.task_inputs import HeadAblationInputs
from mi_core.analyses.task_notes import task_from_dict, task_to_dict
from mi_core.analyses.tasks import Task
from mi_core.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/head_ablation", 1


@dataclass(frozen=True, slots=True, eq=False)
class HeadAblationResult:
    """Effects of all heads on all prompts.

    Attributes:
        inputs: what was asked for.
        provenance: where the numbers come from.
        task: the pairs.
        baseline: logit difference of every prompt, nothing changed.
        effects: ablated minus baseline logit difference, in logits.
        warnings: sentences to be read before the figure.
        checks: identities tried on these numbers.
        seconds: duration.
        cancelled: never; stopping gives no result.
    """

    inputs: HeadAblationInputs
    provenance: Provenance | None
    task: Task
    baseline: Float[np.ndarray, " prompt"]
    effects: Float[np.ndarray, "layer head prompt"]
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """One number per head and prompt."""
        if self.baseline.shape != (self.n,) or self.effects.shape[2:] != (self.n,):
            raise ValueError(f"effects have shape {self.effects.shape}, for {self.n} prompts")

    @property
    def n(self) -> int:
        """Prompts."""
        return len(self.task)

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return self.effects.shape[0]

    @property
    def n_heads(self) -> int:
        """Heads of every layer."""
        return self.effects.shape[1]

    def band(self) -> Band:
        """Mean effect over prompts, and its 95 % band, each [layer, head]."""
        return mean_with_band(self.effects)

    def baseline_band(self) -> tuple[float, float, float]:
        """Mean logit difference, nothing changed, and its 95 % band."""
        mean, low, high = mean_with_band(self.baseline)
        return float(mean), float(low), float(high)

    def strongest(self, count: int) -> list[tuple[int, int]]:
        """(layer, head) of the heads with the largest mean effect either way, largest first."""
        order = np.argsort(-np.abs(self.band()[0]), axis=None, kind="stable")[:count]
        return [(int(index) // self.n_heads, int(index) % self.n_heads) for index in order]

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table: one row per head: layer, head, mean effect, low, high, unit, n."""
        import pandas as pd

        layers, heads = np.indices(self.effects.shape[:2]).reshape(2, -1)
        mean, low, high = (part.ravel() for part in self.band())
        return pd.DataFrame(
            {
                "layer": layers,
                "head": heads,
                "name": [head_name(*place) for place in zip(layers.tolist(), heads.tolist(), strict=True)],
                "quantity": f"{self.inputs.mode} ablation: change of the logit difference",
                "value": mean,
                "low": low,
                "high": high,
                "unit": "logits",
                "n": self.n,
            }
        )

    def to_json(self) -> str:
        """JSON text: schema "lantern/head_ablation", version, every field; no NaN."""
        fields: dict[str, Any] = {
            "inputs": self.inputs.to_dict(),
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
            "task": task_to_dict(self.task),
            "n_layers": self.n_layers,
            "n_heads": self.n_heads,
            "baseline": encode_array(self.baseline),
            "effects": encode_array(self.effects),
            "unit": "logits",
            "warnings": list(self.warnings),
            "checks": [asdict(check) for check in self.checks],
            "seconds": self.seconds,
            "cancelled": self.cancelled,
        }
        return dump_record(SCHEMA, VERSION, fields)

    @classmethod
    def from_json(cls, text: str | bytes) -> "HeadAblationResult":
        """The inverse of `to_json`.

        Raises:
            InputError: not such a record, or damaged.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("head ablation"):
            return _build(record)


def _build(record: Mapping[str, Any]) -> HeadAblationResult:
    task = task_from_dict(record["task"])
    shape = (int(record["n_layers"]), int(record["n_heads"]), len(task))
    return HeadAblationResult(
        inputs=HeadAblationInputs.from_dict(record["inputs"]),
        provenance=provenance_from(record["provenance"]),
        task=task,
        baseline=decode_array(record["baseline"], "float64", shape[2:], "baseline"),
        effects=decode_array(record["effects"], "float64", shape, "effects"),
        warnings=texts_from(record["warnings"]),
        checks=checks_from(record["checks"]),
        seconds=float(record["seconds"]),
        cancelled=bool(record["cancelled"]),
    )
