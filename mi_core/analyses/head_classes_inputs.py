"""What a user chooses when heads are given classes on a task."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from mi_core.analyses.plain import check_choice, check_whole, fits, inputs_from_dict, inputs_to_dict
from mi_core.analyses.task_inputs import PairText, check_task_fields
from mi_core.analyses.tasks import NameOrder, TaskName
from mi_core.errors import InputError
from mi_core.tokens import Bos

Ablation = Literal["mean", "resample", "zero"]


@dataclass(frozen=True, slots=True)
class HeadClassesInputs:
    """The task, and from where on a number counts.

    Attributes:
        task: as in `TaskInputs`.
        n: how many prompts.
        seed: of the prompts and of the random sequences that habits are tested on.
        templates: ioi only: ABBA, BABA or both.
        pairs: uploaded pairs; only for the task "pairs".
        bos: whether a beginning-of-sequence token is put first.
        ablation: what an ablated head's output becomes: "mean" over the counterfactual prompts of one form,
            "resample" = its own counterfactual prompt's, or "zero".
        least_share: smallest effect that counts, as a share of the mean logit difference.
        least_attention: smallest attention from token to token that counts.
        least_copying: smallest copying score that counts.
        least_habit: smallest score on repeated random tokens that counts.
        habit_length: tokens in one copy of the random sequences; less where the model has no room.
        most_drawn: how many heads at most are linked by paths.
    """

    task: TaskName = "ioi"
    n: int = 64
    seed: int = 0
    templates: NameOrder = "both"
    pairs: tuple[PairText, ...] = ()
    bos: Bos = "auto"
    ablation: Ablation = "mean"
    least_share: float = 0.05
    least_attention: float = 0.1
    least_copying: float = 0.5
    least_habit: float = 0.4
    habit_length: int = 24
    most_drawn: int = 12

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        check_task_fields(self)
        check_choice("ablation", self.ablation, get_args(Ablation))
        for name in ("least_share", "least_attention", "least_copying", "least_habit"):
            value = getattr(self, name)
            if not fits(value, float) or not 0 < value < 1:
                raise InputError(
                    f"The {name.replace('_', ' ')} is {value!r:.40}", fix="Give a share between 0 and 1"
                )
        check_whole("length of the random sequences", self.habit_length, 2, 500)
        check_whole("number of heads that are linked", self.most_drawn, 0, 40)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "HeadClassesInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown field, or a value that `HeadClassesInputs` refuses.
        """
        return inputs_from_dict(cls, values, "head classes")
