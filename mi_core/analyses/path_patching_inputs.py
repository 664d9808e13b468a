"""What a user chooses for path patching."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from mi_core.analyses.path_patching_names import LOGITS, Mlps, parse_receiver
from mi_core.analyses.plain import (
    check_choice,
    inputs_from_dict,
    inputs_to_dict,
)
from mi_core.analyses.task_inputs import PairText, check_task_fields
from mi_core.analyses.tasks import NameOrder, TaskName
from mi_core.errors import InputError
from mi_core.tokens import Bos

MAX_RECEIVERS = 48
Receivers = Literal["together", "apart"]


@dataclass(frozen=True, slots=True)
class PathPatchingInputs:
    """Where paths end, and on which prompts they are patched; they begin at every earlier head.

    Attributes:
        receivers: "logits", or inputs of heads such as "L9H6.q" (query), "L9H6.k" (key), "L9H6.v" (value).
        setting: several receivers are set each by itself ("apart") or all at once ("together").
        task: as in `TaskInputs`.
        n: how many prompts.
        seed: of the prompts.
        templates: ioi only: ABBA, BABA or both.
        pairs: uploaded pairs; only for the task "pairs".
        bos: whether a beginning-of-sequence token is put first.
        mlps: MLPs on the way are "recomputed" (as in Wang et al.) or "frozen" at their clean outputs.
    """

    receivers: tuple[str, ...] = (LOGITS,)
    setting: Receivers = "apart"
    task: TaskName = "ioi"
    n: int = 64
    seed: int = 0
    templates: NameOrder = "both"
    pairs: tuple[PairText, ...] = ()
    bos: Bos = "auto"
    mlps: Mlps = "recomputed"

    def __post_init__(self) -> None:
        """Refuse what names no receiver; whether the model has such a head is checked when it is known."""
        if isinstance(self.receivers, list):  # hashable, whoever wrote [..] in a notebook
            object.__setattr__(self, "receivers", tuple(self.receivers))
        check_task_fields(self)
        check_choice("mlps", self.mlps, get_args(Mlps))
        check_choice("setting", self.setting, get_args(Receivers))
        if not self.receivers:
            raise InputError("No receiver is named", fix="Write logits, or a head's input such as L9H6.q")
        if len(self.receivers) > MAX_RECEIVERS:
            raise InputError(f"{len(self.receivers)} receivers", fix=f"Name at most {MAX_RECEIVERS}")
        named = [parse_receiver(text) for text in self.receivers]
        if len(set(named)) < len(named):
            raise InputError("A receiver was named twice")
        if self.setting == "together" and LOGITS in self.receivers:
            raise InputError("The logits can only be a receiver by themselves", fix='Choose "apart"')

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "PathPatchingInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown field, or a value that `PathPatchingInputs` refuses.
        """
        return inputs_from_dict(cls, values, "path patching")
