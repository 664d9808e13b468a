"""Classes of all heads on a task, and the test of the circuit that they make: both at once, for one command.

The circuit that is tested is the heads that are drawn: those with a class, and those that matter without one.
Cost: that of `head_classes` and of `circuit_test`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mi_core.analyses.attribution_inputs import head_name
from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.circuit_test_inputs import CircuitTestInputs
from mi_core.analyses.circuit_test_result import CircuitTestResult
from mi_core.analyses.circuit_test_run import circuit_test
from mi_core.analyses.head_classes_inputs import HeadClassesInputs
from mi_core.analyses.head_classes_result import HeadClassesResult
from mi_core.analyses.head_classes_run import head_classes
from mi_core.analyses.plain import damage_told
from mi_core.analyses.records import dump_record, load_record
from mi_core.errors import Cancelled
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance

SCHEMA, VERSION = "lantern/head_circuit", 1
SAME = ("task", "n", "seed", "templates", "pairs", "bos", "ablation")
"""Fields that both parts share."""


@dataclass(frozen=True, slots=True, eq=False)
class HeadCircuitResult:
    """Both parts.

    Attributes:
        classes: numbers and labels of all heads.
        test: of the heads that are drawn; None where there are none, or when it was stopped before.
    """

    classes: HeadClassesResult
    test: CircuitTestResult | None

    @property
    def inputs(self) -> HeadClassesInputs:
        """What was asked for."""
        return self.classes.inputs

    @property
    def provenance(self) -> Provenance | None:
        """Where the numbers come from."""
        return self.classes.provenance

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences to be read first."""
        return self.classes.warnings + (() if self.test is None else self.test.warnings)

    @property
    def checks(self) -> tuple[Check, ...]:
        """Identities tried on the numbers."""
        return self.classes.checks + (() if self.test is None else self.test.checks)

    @property
    def cancelled(self) -> bool:
        """Whether the user stopped it."""
        return self.classes.cancelled or (self.test is None and bool(self.classes.drawn))

    def to_frame(self) -> Any:
        """The table of the classes; that of the test is in `test.to_frame()`."""
        return self.classes.to_frame()

    def to_json(self) -> str:
        """Both records in one."""
        test = None if self.test is None else json.loads(self.test.to_json())
        return dump_record(SCHEMA, VERSION, {"classes": json.loads(self.classes.to_json()), "test": test})

    @classmethod
    def from_json(cls, text: str | bytes) -> "HeadCircuitResult":
        """The inverse of `to_json`.

        Raises:
            InputError: no such record, or a damaged one.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("head circuit"):
            test = record["test"]
            return cls(
                HeadClassesResult.from_json(json.dumps(record["classes"])),
                None if test is None else CircuitTestResult.from_json(json.dumps(test)),
            )


def head_circuit(
    model: LoadedModel, inputs: HeadClassesInputs, *, on_step: Callable[[Step], None] | None = None
) -> HeadCircuitResult:
    """Label all heads, then test the circuit.

    Args:
        model: a loaded model.
        inputs: the task and the thresholds.
        on_step: told of progress; may raise `Cancelled` to stop, which keeps what is done.

    Raises:
        InputError: there is no such task, or it cannot be made for this tokenizer.
        SiteMissing: the model's heads cannot be seen or changed.
        ModelError: its weights cannot be read as circuits.
    """
    classes = head_classes(model, inputs, on_step=on_step)
    if classes.cancelled or not classes.drawn:
        return HeadCircuitResult(classes, None)
    names = tuple(head_name(*place) for place in classes.drawn)
    asked = CircuitTestInputs(names, **{name: getattr(inputs, name) for name in SAME})
    try:
        return HeadCircuitResult(classes, circuit_test(model, asked, on_step=on_step))
    except Cancelled:
        return HeadCircuitResult(classes, None)
