"""What a user chooses for an attribution graph."""

from dataclasses import dataclass, fields
from typing import Any, get_args

from mi_core.analyses.plain import check_choice, check_text, check_whole, inputs_from_dict, inputs_to_dict
from mi_core.errors import InputError
from mi_core.tokens import Bos
from mi_core.transcoders.prompt_inputs import check_transcoder

MAX_PROMPT_CHARACTERS = 20_000
MAX_TARGETS = 50
DEFAULT_ROWS = 2048
MAX_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class GraphInputs:
    """A prompt, and which logits its graph explains.

    With an answer and a distractor: the difference of their logits. With an answer, or with targets: these
    tokens. With a distractor alone: the top token minus it. With none of them: the smallest set of tokens
    that holds 95 % of the probability, at most 10.

    Attributes:
        prompt: ends just before its answer.
        transcoder: the bundled one (empty), a folder, or a Hugging Face id in the cache.
        answer: text whose first token is explained.
        distractor: text whose first token's logit is subtracted.
        targets: texts whose first tokens are explained, each by its own node; not with answer or distractor.
        rows: for how many features the inputs are computed, the most influential ones; the others' outputs
            are exact too, but their inputs are "not expanded".
        show_bos: whether features and errors at leading special tokens are nodes; else they are part of the
            remainder.
        bos: whether a beginning-of-sequence token is put first; "auto" = as the tokenizer does.
    """

    prompt: str
    transcoder: str = ""
    answer: str | None = None
    distractor: str | None = None
    targets: tuple[str, ...] = ()
    rows: int = DEFAULT_ROWS
    show_bos: bool = False
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of; what depends on the model is checked when it is known."""
        check_text(
            "prompt", self.prompt, MAX_PROMPT_CHARACTERS, "Type a sentence that ends before its answer"
        )
        check_transcoder(self.transcoder)
        if isinstance(self.targets, list):  # hashable, whoever wrote [..] in a notebook
            object.__setattr__(self, "targets", tuple(self.targets))
        for name, text in (("answer", self.answer), ("distractor", self.distractor)):
            if text is not None:
                check_text(name, text, 1000, "Leave it out to have none")
        for text in self.targets:
            check_text("target", text, 1000, "Leave it out")
        if len(self.targets) > MAX_TARGETS:
            raise InputError(f"{len(self.targets)} targets are asked for", fix=f"Give at most {MAX_TARGETS}")
        if self.targets and (self.answer is not None or self.distractor is not None):
            raise InputError(
                "Targets and an answer are both given",
                why="the graph explains either a list of tokens, or an answer (minus a distractor)",
                fix="Leave one of them out",
            )
        check_whole("number of rows", self.rows, 1, MAX_ROWS)
        check_choice("show bos", self.show_bos, (False, True))
        check_choice("bos", self.bos, get_args(Bos))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "GraphInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that is refused.
        """
        return inputs_from_dict(cls, values, "attribution graph")


def graph_inputs_of(inputs: Any) -> GraphInputs:
    """The graph that other Inputs are about, which have all fields of its Inputs and more."""
    return GraphInputs(**{field.name: getattr(inputs, field.name) for field in fields(GraphInputs)})
