"""What looking at every head at the last token of a task's prompts returns."""

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
from mi_core.analyses.task_inputs import TaskInputs
from mi_core.analyses.task_notes import task_from_dict, task_to_dict
from mi_core.analyses.tasks import Task
from mi_core.errors import InputError
from mi_core.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/task_heads", 1
DIRECT = "direct"


@dataclass(frozen=True, slots=True, eq=False)
class TaskHeadsResult:
    """Attention to the roles and direct effect of all heads on all prompts.

    Attributes:
        inputs: what was asked for.
        provenance: where the numbers come from.
        task: the pairs; `task.role_names` are the roles in the order of `attention`.
        attention: weight from the last token to each role, a share.
        direct: what a head writes into the logit difference, in logits before a softcap.
        differences: the whole logit difference of every prompt, in the same unit.
        warnings: sentences to be read before the figure.
        checks: identities tried on these numbers.
        seconds: duration.
        cancelled: never; stopping gives no result.
    """

    inputs: TaskInputs
    provenance: Provenance | None
    task: Task
    attention: Float[np.ndarray, "role layer head prompt"]
    direct: Float[np.ndarray, "layer head prompt"]
    differences: Float[np.ndarray, " prompt"]
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """One number per role, head and prompt."""
        n = len(self.task)
        fits = self.direct.shape[2:] == (n,) and self.differences.shape == (n,)
        if not fits or self.attention.shape != (len(self.task.role_names), *self.direct.shape):
            raise ValueError(f"shapes {self.attention.shape} and {self.direct.shape}, for {n} prompts")

    @property
    def n(self) -> int:
        """Prompts."""
        return len(self.task)

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return self.direct.shape[0]

    @property
    def n_heads(self) -> int:
        """Heads of every layer."""
        return self.direct.shape[1]

    def values(self, what: str) -> Float[np.ndarray, "layer head prompt"]:
        """The direct effect ("direct"), or the attention to a role.

        Raises:
            InputError: the task has no such role.
        """
        if what == DIRECT:
            return self.direct
        if what not in self.task.role_names:
            raise InputError(f"This task has no role {what!r:.40}")
        return self.attention[self.task.role_names.index(what)]

    def band(self, what: str) -> Band:
        """Mean over prompts and its 95 % band, each [layer, head]."""
        return mean_with_band(self.values(what))

    def strongest(self, what: str, count: int) -> list[tuple[int, int]]:
        """(layer, head) of the heads with the largest mean either way, largest first."""
        order = np.argsort(-np.abs(self.band(what)[0]), axis=None, kind="stable")[:count]
        return [(int(index) // self.n_heads, int(index) % self.n_heads) for index in order]

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table: one row per head and quantity: mean, low, high, unit, n."""
        import pandas as pd

        layers, heads = np.indices(self.direct.shape[:2]).reshape(2, -1)
        names = [head_name(*place) for place in zip(layers.tolist(), heads.tolist(), strict=True)]
        parts = []
        for what in (DIRECT, *self.task.role_names):
            mean, low, high = (part.ravel() for part in self.band(what))
            parts.append(
                pd.DataFrame(
                    {
                        "layer": layers,
                        "head": heads,
                        "name": names,
                        "quantity": "direct effect"
                        if what == DIRECT
                        else f"attention from the end to {what}",
                        "value": mean,
                        "low": low,
                        "high": high,
                        "unit": "logits" if what == DIRECT else "share",
                        "n": self.n,
                    }
                )
            )
        return pd.concat(parts, ignore_index=True)

    def to_json(self) -> str:
        """JSON text: schema "lantern/task_heads", version, every field; no NaN."""
        fields: dict[str, Any] = {
            "inputs": self.inputs.to_dict(),
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
            "task": task_to_dict(self.task),
            "roles": list(self.task.role_names),
            "n_layers": self.n_layers,
            "n_heads": self.n_heads,
            "attention": encode_array(self.attention),
            "direct": encode_array(self.direct),
            "differences": encode_array(self.differences),
            "units": {"attention": "share", "direct": "logits", "differences": "logits"},
            "warnings": list(self.warnings),
            "checks": [asdict(check) for check in self.checks],
            "seconds": self.seconds,
            "cancelled": self.cancelled,
        }
        return dump_record(SCHEMA, VERSION, fields)

    @classmethod
    def from_json(cls, text: str | bytes) -> "TaskHeadsResult":
        """The inverse of `to_json`.

        Raises:
            InputError: not such a record, or damaged.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("task heads"):
            return _build(record)


def _build(record: Mapping[str, Any]) -> TaskHeadsResult:
    task = task_from_dict(record["task"])
    shape = (int(record["n_layers"]), int(record["n_heads"]), len(task))
    roles = (len(task.role_names), *shape)
    return TaskHeadsResult(
        inputs=TaskInputs.from_dict(record["inputs"]),
        provenance=provenance_from(record["provenance"]),
        task=task,
        attention=decode_array(record["attention"], "float64", roles, "attention"),
        direct=decode_array(record["direct"], "float64", shape, "direct"),
        differences=decode_array(record["differences"], "float64", shape[2:], "differences"),
        warnings=texts_from(record["warnings"]),
        checks=checks_from(record["checks"]),
        seconds=float(record["seconds"]),
        cancelled=bool(record["cancelled"]),
    )
