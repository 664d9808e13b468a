"""Inputs and Result of `logit_lens_steps`: a token's log-probability after every half block."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from jaxtyping import Float

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.logit_lens_inputs import MAX_PROMPT_CHARACTERS, LensTarget, check_prompt, check_word
from mi_core.analyses.logit_lens_record import read_word
from mi_core.analyses.logit_lens_result import LensWord
from mi_core.analyses.plain import (
    check_choice,
    check_whole,
    checks_from,
    damage_told,
    inputs_from_dict,
    inputs_to_dict,
    provenance_from,
    texts_from,
    tokens_from,
)
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.provenance import Provenance
from mi_core.tokens import Bos, Token

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/logit_lens_steps", 1

SERIAL, PARALLEL = ("attention", "MLP"), ("attention and MLP",)
"""Components of a block in the order in which they write; a parallel block writes all at once."""


@dataclass(frozen=True, slots=True)
class LogitLensStepsInputs:
    """What to follow, and where.

    Attributes:
        prompt: the text that the model reads.
        position: token position to look at; None = the last one.
        answer: text of the answer, of which the first token is followed; None = the model's own top token at
            the end of the prompt.
        distractor: text of a token to compare with, or None.
        target: "answer" = follow the answer, or "next token" = the token that really comes next (the answer
            at the last position).
        bos: whether a beginning-of-sequence token is put first; "auto" = as the tokenizer does.
    """

    prompt: str
    position: int | None = None
    answer: str | None = None
    distractor: str | None = None
    target: LensTarget = "answer"
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of."""
        check_prompt(self.prompt)
        check_choice("target", self.target, get_args(LensTarget))
        check_choice("bos", self.bos, get_args(Bos))
        check_word("answer", self.answer)
        check_word("distractor", self.distractor)
        if self.position is not None:
            check_whole("position", self.position, 0, MAX_PROMPT_CHARACTERS)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LogitLensStepsInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that is refused.
        """
        return inputs_from_dict(cls, values, "steps")


@dataclass(frozen=True, slots=True, eq=False)
class LogitLensStepsResult:
    """Log-probabilities along the residual stream of one position.

    Attributes:
        inputs: what was asked for.
        provenance: model and versions; None only for results made without a model.
        tokens: all tokens of the prompt.
        position: where the stream was read.
        n_layers: layers of the model.
        components: what writes between two steps of a block, in order.
        words: the target first, then the distractor if there is one.
        log_probability: of each word, nats; step 0 is what enters block 0, then one step per component.
        output_log_probability: of each word in the model's own output, nats.
        warnings: sentences to be read before the figure.
        checks: identities tried on these numbers.
        seconds: duration.
        cancelled: always False; there is nothing to stop.
    """

    inputs: LogitLensStepsInputs
    provenance: Provenance | None
    tokens: tuple[Token, ...]
    position: int
    n_layers: int
    components: tuple[str, ...]
    words: tuple[LensWord, ...]
    log_probability: Float[np.ndarray, "step word"]
    output_log_probability: Float[np.ndarray, "word"]
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """One step per component and layer, and the one before them."""
        steps = 1 + self.n_layers * len(self.components)
        if self.log_probability.shape != (steps, len(self.words)):
            raise ValueError(
                f"{self.log_probability.shape} numbers for {steps} steps, {len(self.words)} words"
            )
        if self.output_log_probability.shape != (len(self.words),):
            raise ValueError(f"the output has shape {self.output_log_probability.shape}")
        if not 0 <= self.position < len(self.tokens):
            raise ValueError(f"position {self.position} lies outside the {len(self.tokens)} tokens")

    def change(self) -> Float[np.ndarray, "layer component word"]:
        """Change of each word's log-probability by each component of each layer, nats."""
        changes = np.diff(self.log_probability, axis=0)
        return changes.reshape(self.n_layers, len(self.components), len(self.words))

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table: layer, component, word, role, change, log_probability (after it), unit."""
        import pandas as pd  # only tables need it

        change = self.change()
        after = self.log_probability[1:].reshape(change.shape)
        index = list(np.ndindex(change.shape))
        return pd.DataFrame(
            {
                "layer": [layer for layer, _, _ in index],
                "component": [self.components[component] for _, component, _ in index],
                "word": [self.words[word].visible for _, _, word in index],
                "role": [self.words[word].role for _, _, word in index],
                "change": change.ravel(),
                "log_probability": after.ravel(),
                "unit": "nats",
            }
        )

    def to_json(self) -> str:
        """JSON text: schema "lantern/logit_lens_steps", version, every field; no NaN."""
        fields_of: dict[str, Any] = {
            "inputs": self.inputs.to_dict(),
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
            "tokens": [asdict(token) for token in self.tokens],
            "position": self.position,
            "n_layers": self.n_layers,
            "components": list(self.components),
            "words": [{**asdict(word), "pieces": list(word.pieces)} for word in self.words],
            "log_probability": encode_array(self.log_probability),
            "output_log_probability": encode_array(self.output_log_probability),
            "warnings": list(self.warnings),
            "checks": [asdict(check) for check in self.checks],
            "seconds": self.seconds,
            "cancelled": self.cancelled,
        }
        return dump_record(SCHEMA, VERSION, fields_of)

    @classmethod
    def from_json(cls, text: str | bytes) -> "LogitLensStepsResult":
        """The inverse of `to_json`.

        Raises:
            InputError: not such a record, or damaged.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("steps"):
            return _build(record)


def _build(record: Mapping[str, Any]) -> LogitLensStepsResult:
    words = tuple(read_word(value) for value in record["words"])
    components, n_layers = tuple(str(one) for one in record["components"]), int(record["n_layers"])
    if components not in (SERIAL, PARALLEL):
        raise ValueError(f"unknown components {components}")
    steps = 1 + n_layers * len(components)
    return LogitLensStepsResult(
        inputs=LogitLensStepsInputs.from_dict(record["inputs"]),
        provenance=provenance_from(record["provenance"]),
        tokens=tokens_from(record["tokens"]),
        position=int(record["position"]),
        n_layers=n_layers,
        components=components,
        words=words,
        log_probability=decode_array(
            record["log_probability"], "float64", (steps, len(words)), "log_probability"
        ),
        output_log_probability=decode_array(
            record["output_log_probability"], "float64", (len(words),), "output_log_probability"
        ),
        warnings=texts_from(record["warnings"]),
        checks=checks_from(record["checks"]),
        seconds=float(record["seconds"]),
        cancelled=bool(record["cancelled"]),
    )
