"""What measuring a model on a task returns."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.plain import checks_from, damage_told, provenance_from, texts_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.analyses.task_bands import mean_with_band, share_with_band
from mi_core.analyses.task_inputs import TaskInputs
from mi_core.analyses.task_notes import task_from_dict, task_to_dict
from mi_core.analyses.tasks import Task
from mi_core.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/task_baseline", 1
FLOATS = (
    "answer_logits", "wrong_logits", "answer_probabilities", "wrong_probabilities",
    "counterfactual_differences",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class TaskBaselineResult:
    """A task's prompts and what the model says to them.

    Attributes:
        inputs: what was asked for.
        provenance: where the numbers come from.
        task: the pairs.
        answer_logits: of the right answer at the last token.
        wrong_logits: of the wrong answer.
        answer_probabilities: of the right answer.
        wrong_probabilities: of the wrong answer.
        counterfactual_differences: the same logit difference in the counterfactual prompt.
        top_ids: the model's likeliest token.
        top_tokens: its text.
        warnings: sentences to be read before the figure.
        checks: identities tried on these numbers.
        seconds: duration.
        cancelled: never; stopping gives no result.
    """

    inputs: TaskInputs
    provenance: Provenance | None
    task: Task
    answer_logits: Float[np.ndarray, " prompt"]
    wrong_logits: Float[np.ndarray, " prompt"]
    answer_probabilities: Float[np.ndarray, " prompt"]
    wrong_probabilities: Float[np.ndarray, " prompt"]
    counterfactual_differences: Float[np.ndarray, " prompt"]
    top_ids: Int[np.ndarray, " prompt"]
    top_tokens: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """One number per prompt everywhere."""
        wrong = [name for name in (*FLOATS, "top_ids") if getattr(self, name).shape != (self.n,)]
        if wrong or len(self.top_tokens) != self.n:
            raise ValueError(f"not one number per prompt: {wrong or 'top_tokens'}")

    @property
    def n(self) -> int:
        """Prompts."""
        return len(self.task)

    @property
    def differences(self) -> Float[np.ndarray, " prompt"]:
        """Logit difference of every prompt."""
        return self.answer_logits - self.wrong_logits

    def accuracy(self) -> tuple[float, float, float]:
        """Share of prompts with a difference above 0, and its Wilson 95 % band."""
        return share_with_band(int((self.differences > 0).sum()), self.n)

    def said(self) -> tuple[float, float, float]:
        """Share of prompts whose likeliest token of all is the right answer, and its band."""
        right = [
            top == pair.answer_id for top, pair in zip(self.top_ids.tolist(), self.task.pairs, strict=True)
        ]
        return share_with_band(sum(right), self.n)

    def difference(self) -> tuple[float, float, float]:
        """Mean logit difference and its 95 % band."""
        mean, low, high = mean_with_band(self.differences)
        return float(mean), float(low), float(high)

    def control(self) -> tuple[float, float, float]:
        """Mean difference in the counterfactual prompts and its 95 % band."""
        mean, low, high = mean_with_band(self.counterfactual_differences)
        return float(mean), float(low), float(high)

    def by_template(self) -> list[tuple[str, int, float, float, float]]:
        """(template, n, mean difference, low, high), in order of appearance."""
        names = np.array([pair.template for pair in self.task.pairs])
        found = []
        for name in self.task.templates:
            own = self.differences[names == name]
            mean, low, high = mean_with_band(own)
            found.append((name, len(own), float(mean), float(low), float(high)))
        return found

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table: one row per prompt and number."""
        import pandas as pd

        numbers = (
            ("logit difference", self.differences, "logits"),
            ("right answer's logit", self.answer_logits, "logits"),
            ("wrong answer's logit", self.wrong_logits, "logits"),
            ("right answer's probability", self.answer_probabilities, "probability"),
            ("wrong answer's probability", self.wrong_probabilities, "probability"),
            ("logit difference in the counterfactual", self.counterfactual_differences, "logits"),
        )
        rows = [
            {
                "prompt": pair.prompt, "template": pair.template, "answer": pair.answer, "wrong": pair.wrong,
                "says": self.top_tokens[index], "quantity": name, "value": float(values[index]), "unit": unit,
            }
            for index, pair in enumerate(self.task.pairs)
            for name, values, unit in numbers
        ]  # fmt: skip
        return pd.DataFrame(rows)

    def to_json(self) -> str:
        """JSON text: schema "lantern/task_baseline", version, every field; no NaN."""
        fields: dict[str, Any] = {
            "inputs": self.inputs.to_dict(),
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
            "task": task_to_dict(self.task),
            **{name: encode_array(getattr(self, name)) for name in FLOATS},
            "top_ids": encode_array(self.top_ids),
            "top_tokens": list(self.top_tokens),
            "unit": "logits",
            "warnings": list(self.warnings),
            "checks": [asdict(check) for check in self.checks],
            "seconds": self.seconds,
            "cancelled": self.cancelled,
        }
        return dump_record(SCHEMA, VERSION, fields)

    @classmethod
    def from_json(cls, text: str | bytes) -> "TaskBaselineResult":
        """The inverse of `to_json`.

        Raises:
            InputError: not such a record, or damaged.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("task baseline"):
            return _build(record)


def _build(record: Mapping[str, Any]) -> TaskBaselineResult:
    task = task_from_dict(record["task"])
    shape = (len(task),)
    return TaskBaselineResult(
        inputs=TaskInputs.from_dict(record["inputs"]),
        provenance=provenance_from(record["provenance"]),
        task=task,
        **{name: decode_array(record[name], "float64", shape, name) for name in FLOATS},
        top_ids=decode_array(record["top_ids"], "int64", shape, "top_ids"),
        top_tokens=texts_from(record["top_tokens"]),
        warnings=texts_from(record["warnings"]),
        checks=checks_from(record["checks"]),
        seconds=float(record["seconds"]),
        cancelled=bool(record["cancelled"]),
    )
