"""What a user chooses when a circuit is tested."""

from dataclasses import dataclass
from typing import Any, get_args

from mi_core.analyses.attribution_inputs import MAX_NAMED, parse_head
from mi_core.analyses.head_classes_inputs import Ablation
from mi_core.analyses.plain import check_choice, check_whole, inputs_from_dict, inputs_to_dict
from mi_core.analyses.task_inputs import PairText, check_task_fields
from mi_core.analyses.tasks import NameOrder, TaskName
from mi_core.errors import InputError
from mi_core.tokens import Bos


@dataclass(frozen=True, slots=True)
class CircuitTestInputs:
    """A circuit of heads and the task it should do.

    Attributes:
        heads: names such as "L9H6".
        task: as in `TaskInputs`.
        n: how many prompts.
        seed: of the prompts and of the draws of subsets and random circuits.
        templates: ioi only: ABBA, BABA or both.
        pairs: uploaded pairs; only for the task "pairs".
        bos: whether a beginning-of-sequence token is put first.
        ablation: what an ablated head's output becomes: "mean" over the counterfactual prompts of one form,
            "resample" = its own counterfactual prompt's, or "zero".
        subsets: how many random parts of the circuit are taken out, for completeness.
        controls: how many random circuits of the same size are tried.
    """

    heads: tuple[str, ...]
    task: TaskName = "ioi"
    n: int = 64
    seed: int = 0
    templates: NameOrder = "both"
    pairs: tuple[PairText, ...] = ()
    bos: Bos = "auto"
    ablation: Ablation = "mean"
    subsets: int = 12
    controls: int = 20

    def __post_init__(self) -> None:
        """Refuse what is no circuit; whether the model has these heads is checked when it is known."""
        if isinstance(self.heads, list):  # hashable, whoever wrote [..] in a notebook
            object.__setattr__(self, "heads", tuple(self.heads))
        check_task_fields(self)
        check_choice("ablation", self.ablation, get_args(Ablation))
        check_whole("number of subsets", self.subsets, 0, 200)
        check_whole("number of random circuits", self.controls, 0, 200)
        if not self.heads:
            raise InputError("The circuit has no heads", fix="Name at least one, such as L9H6")
        places = [parse_head(name) for name in self.heads]
        if len(set(places)) < len(places):
            raise InputError("A head was named twice")
        if len(places) > MAX_NAMED:
            raise InputError(f"{len(places)} heads were named", fix=f"Name at most {MAX_NAMED}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "CircuitTestInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown field, or a value that `CircuitTestInputs` refuses.
        """
        return inputs_from_dict(cls, values, "circuit test")
