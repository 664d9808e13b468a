"""What a user chooses for picking the features that make a prompt say its word, and what comes back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from jaxtyping import Float, Int

from mi_core.analyses.attribution_result import ReadToken
from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.generation_inputs import check_number
from mi_core.analyses.plain import (
    check_choice,
    check_text,
    check_whole,
    damage_told,
    inputs_from_dict,
    inputs_to_dict,
    outcome_from,
    provenance_from,
    result_to_dict,
    tokens_from,
)
from mi_core.analyses.records import decode_array, dump_record, load_record
from mi_core.provenance import Provenance
from mi_core.tokens import Bos, Token

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/planning_pick", 1
ARRAYS = ("layers", "indices", "positions", "activations", "effects")
_INTEGERS = ("layers", "indices", "positions")
MAX_COUNT = 100


@dataclass(frozen=True, slots=True)
class PlanningPickInputs:
    """A prompt, its word and another one.

    Attributes:
        prompt: ends just before its word.
        answer: its word (first token); None = the prompt's top token.
        distractor: the word that it is told from; None = none.
        count: how many features at most.
        share: of the strongest feature's effect that each must have; 0 = any effect above 0.
        transcoder: "" = the one bundled with the model; else a folder or a Hugging Face id.
        bos: whether a beginning-of-sequence token is put first; "auto" = as the tokenizer does.
    """

    prompt: str
    answer: str | None = None
    distractor: str | None = None
    count: int = 12
    share: float = 0.25
    transcoder: str = ""
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of."""
        check_text("prompt", self.prompt, 100_000, "Type a text that ends before its next word")
        for name in ("answer", "distractor"):
            if getattr(self, name) is not None:
                check_text(name, getattr(self, name), 1000, "Leave it out to have none")
        check_whole("number of features", self.count, 1, MAX_COUNT)
        check_number("share", self.share, 0.0, 1.0)
        check_choice("bos", self.bos, get_args(Bos))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PlanningPickInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that is refused.
        """
        return inputs_from_dict(cls, values, "choice of features")


@dataclass(frozen=True, slots=True, eq=False)
class PlanningPickResult:
    """Features, the strongest first.

    Attributes:
        inputs: what was asked for.
        provenance: model and versions.
        tokens: of the prompt.
        answer: the word's token.
        distractor: the other word's token, or None.
        layers: of each feature.
        indices: of each feature within its layer.
        positions: token at which its effect is largest.
        activations: its activation there.
        effects: its effect from there, in logits.
        warnings: sentences to be read first.
        checks: none are possible to first order.
        seconds: duration.
        cancelled: always False.
    """

    inputs: PlanningPickInputs
    provenance: Provenance | None
    tokens: tuple[Token, ...]
    answer: ReadToken
    distractor: ReadToken | None
    layers: Int[np.ndarray, "feature"]
    indices: Int[np.ndarray, "feature"]
    positions: Int[np.ndarray, "feature"]
    activations: Float[np.ndarray, "feature"]
    effects: Float[np.ndarray, "feature"]
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """One entry per feature."""
        if len({getattr(self, name).shape for name in ARRAYS}) != 1 or self.layers.ndim != 1:
            raise ValueError("arrays of different lengths")

    @property
    def names(self) -> tuple[str, ...]:
        """The features as text, such as "L5F102"."""
        return tuple(f"L{layer}F{index}" for layer, index in zip(self.layers, self.indices, strict=True))

    def to_frame(self) -> "pd.DataFrame":
        """One row per feature: feature, position, token, activation, value (effect), unit."""
        import pandas as pd  # a third of a second; only tables need it

        return pd.DataFrame({
            "feature": self.names,
            "position": self.positions,
            "token": [self.tokens[int(position)].visible for position in self.positions],
            "activation": self.activations,
            "value": self.effects,
            "unit": "logits",
        })  # fmt: skip

    def to_json(self) -> str:
        """JSON text: schema "lantern/planning_pick", version, every field; no NaN."""
        return dump_record(SCHEMA, VERSION, result_to_dict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "PlanningPickResult":
        """The inverse of `to_json`.

        Raises:
            InputError: not such a record, or damaged.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("planning-features"):
            count, other = len(record["layers"]), record["distractor"]
            arrays = {
                name: decode_array(record[name], "int64" if name in _INTEGERS else "float64", (count,), name)
                for name in ARRAYS
            }
            return cls(
                inputs=PlanningPickInputs.from_dict(record["inputs"]),
                provenance=provenance_from(record["provenance"]),
                tokens=tokens_from(record["tokens"]),
                answer=ReadToken.from_dict(record["answer"]),
                distractor=None if other is None else ReadToken.from_dict(other),
                **arrays,
                **outcome_from(record),
            )
