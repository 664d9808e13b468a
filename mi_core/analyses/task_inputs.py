"""What a user chooses for experiments over a task, and how the choice becomes prompt pairs."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

from mi_core.analyses.plain import check_choice, check_whole, fits, inputs_from_dict, inputs_to_dict
from mi_core.analyses.tasks import GENERATORS, MAX_PROMPTS, NameOrder, Task, TaskName
from mi_core.errors import InputError
from mi_core.tokens import Bos

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel

AblationMode = Literal["zero", "mean", "resample"]
MAX_PAIR_CHARACTERS = 10_000


@dataclass(frozen=True, slots=True)
class PairText:
    """A prompt pair as somebody wrote it down.

    Attributes:
        prompt: ends where the answer begins.
        counterfactual: equally many tokens.
        answer: the right answer, one token.
        wrong: the wrong answer, one token.
        roles: (name, word of the prompt), each of one token; "end" is always there.
    """

    prompt: str
    counterfactual: str
    answer: str
    wrong: str
    roles: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Texts are texts and not endless."""
        for name in ("prompt", "counterfactual", "answer", "wrong"):
            text = getattr(self, name)
            if not isinstance(text, str) or not text.strip():
                raise InputError(f"The {name} of a pair is empty")
            if len(text) > MAX_PAIR_CHARACTERS:
                raise InputError(f"The {name} of a pair has more than {MAX_PAIR_CHARACTERS:,} characters")


@runtime_checkable
class TaskFields(Protocol):
    """The fields with which Inputs name a task."""

    @property
    def task(self) -> TaskName: ...  # noqa: D102
    @property
    def n(self) -> int: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102
    @property
    def templates(self) -> NameOrder: ...  # noqa: D102
    @property
    def pairs(self) -> tuple[PairText, ...]: ...  # noqa: D102
    @property
    def bos(self) -> Bos: ...  # noqa: D102


def check_task_fields(inputs: TaskFields) -> None:
    """Refuse what names no task.

    Raises:
        InputError: saying which.
    """
    check_choice("task", inputs.task, get_args(TaskName))
    check_whole("number of prompts", inputs.n, 2, MAX_PROMPTS)
    check_whole("seed", inputs.seed, 0, 2**32 - 1)
    check_choice("templates", inputs.templates, get_args(NameOrder))
    check_choice("bos", inputs.bos, get_args(Bos))
    if not fits(inputs.pairs, tuple[PairText, ...]):
        raise InputError("The pairs are no tuple of PairText")
    if (inputs.task == "pairs") != bool(inputs.pairs):
        raise InputError(
            "Uploaded pairs belong to the task 'pairs', and it needs them", why=f"the task is {inputs.task!r}"
        )
    if inputs.pairs and not 2 <= len(inputs.pairs) <= MAX_PROMPTS:
        raise InputError(f"There are {len(inputs.pairs):,} pairs", fix=f"Give 2 to {MAX_PROMPTS:,}")


def chosen_task(model: "LoadedModel", inputs: TaskFields) -> Task:
    """The prompt pairs that Inputs name, made for this model's tokenizer.

    Raises:
        InputError: the task cannot be put to this model, or a pair does not fit it.
    """
    if inputs.task == "pairs":
        from mi_core.analyses.tasks_uploaded import uploaded_task

        return uploaded_task(model.tokenizer, inputs.pairs[: inputs.n], bos=inputs.bos)
    options = {"templates": inputs.templates} if inputs.task == "ioi" else {}
    return GENERATORS[inputs.task](model.tokenizer, inputs.n, inputs.seed, bos=inputs.bos, **options)


@dataclass(frozen=True, slots=True)
class TaskInputs:
    """A task.

    Attributes:
        task: ioi, greater-than, induction, subject-verb, or pairs (uploaded ones).
        n: how many prompts; of uploaded pairs the first n.
        seed: of the draw.
        templates: ioi only: whose name comes first: the object's (ABBA), the subject's (BABA), or both kinds.
        pairs: uploaded pairs; only for the task "pairs".
        bos: whether a beginning-of-sequence token is put first; "auto" = as the tokenizer does.
    """

    task: TaskName = "ioi"
    n: int = 64
    seed: int = 0
    templates: NameOrder = "both"
    pairs: tuple[PairText, ...] = ()
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what names no task."""
        check_task_fields(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TaskInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown field, or a value that `TaskInputs` refuses.
        """
        return inputs_from_dict(cls, values, "task")


@dataclass(frozen=True, slots=True)
class HeadAblationInputs:
    """A task, and what every head's output is replaced by.

    Attributes:
        mode: zero; mean = the head's mean over the set's prompts of the same template, position by position;
            resample = its output in the counterfactual prompt of the same pair.
        task: as in `TaskInputs`.
        n: how many prompts.
        seed: of the draw.
        templates: ioi only: ABBA, BABA or both.
        pairs: uploaded pairs; only for the task "pairs".
        bos: whether a beginning-of-sequence token is put first.
    """

    mode: AblationMode = "mean"
    task: TaskName = "ioi"
    n: int = 64
    seed: int = 0
    templates: NameOrder = "both"
    pairs: tuple[PairText, ...] = ()
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what names no task or mode."""
        check_choice("mode", self.mode, get_args(AblationMode))
        check_task_fields(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "HeadAblationInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown field, or a value that `HeadAblationInputs` refuses.
        """
        return inputs_from_dict(cls, values, "head ablation")
