"""What a user chooses for the dose curve of an attention edge."""

import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mi_core.analyses.ablation_sweep_inputs import EFFECT_METRICS, check_asked
from mi_core.analyses.plain import check_choice, check_whole, inputs_from_dict, inputs_to_dict
from mi_core.errors import InputError
from mi_core.tokens import Bos

DoseKind = Literal["scale", "set"]
LEVELS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 6.0)
SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
MAX_LEVELS = 100


@dataclass(frozen=True, slots=True)
class AttentionDoseInputs:
    """How much one token reads another, turned up and down.

    Attributes:
        prompt: ends just before its answer.
        key: position of the token that is read.
        query: position of the token that reads; None = the last one.
        layer: where; None = in all layers.
        head: which head of the layer; None = all heads.
        kind: "scale" = the attention is multiplied by each level, "set" = it becomes the level; either way
            after the softmax, and the rest of the row is scaled so that the row sums to 1.
        levels: factors, or shares of attention; ascending. Empty = 0 to 6, or 0 to 1.
        answer: text whose first token is read; None = the prompt's top token.
        distractor: text whose first token's logit is compared with the answer's; None = none.
        metric: whose effect `wished` is.
        wished: effect (edited minus baseline) that the dose is looked up for; None = no wish.
        bos: whether a beginning-of-sequence token is put first; "auto" = as the tokenizer does.
    """

    prompt: str
    key: int = 0
    query: int | None = None
    layer: int | None = None
    head: int | None = None
    kind: DoseKind = "scale"
    levels: tuple[float, ...] = ()
    answer: str | None = None
    distractor: str | None = None
    metric: str = "logit"
    wished: float | None = None
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of; what depends on the model is checked when it is known."""
        check_asked(self)
        check_choice("kind", self.kind, get_args(DoseKind))
        check_choice("metric", self.metric, tuple(EFFECT_METRICS))
        check_whole("key", self.key, 0, 1_000_000)
        for name in ("query", "layer", "head"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 0, 1_000_000)
        if self.head is not None and self.layer is None:
            raise InputError("A head needs its layer", fix="Give the layer too, or leave the head out")
        if self.wished is not None and not math.isfinite(self.wished):
            raise InputError("The wished effect is not a number")
        levels = tuple(float(level) for level in self.levels) or (LEVELS if self.kind == "scale" else SHARES)
        object.__setattr__(self, "levels", levels)
        _check_levels(levels, self.kind)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "AttentionDoseInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that `AttentionDoseInputs` refuses.
        """
        return inputs_from_dict(cls, values, "attention dose")


def _check_levels(levels: tuple[float, ...], kind: DoseKind) -> None:
    largest = 1.0 if kind == "set" else 1e6
    if len(levels) > MAX_LEVELS:
        raise InputError(f"There are {len(levels)} levels", fix=f"Give at most {MAX_LEVELS}")
    bad = [level for level in levels if not 0 <= level <= largest]
    if bad:
        raise InputError(f"The level {bad[0]:g} cannot be used", fix=f"Levels lie between 0 and {largest:g}")
    if any(after <= before for before, after in itertools.pairwise(levels)):
        raise InputError("The levels do not ascend", fix="Give each level once, the smallest first")
