"""What looking at attention returns: patterns of every head, numbers per head, for one prompt or two.

Everything is CPU numpy and plain Python; nothing here needs torch or a model.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float

from mi_core.analyses.attention_inputs import METRIC_NAMES, SHOW_INFO, AttentionInputs
from mi_core.analyses.causal_trace_parts import AnswerTokens, Check
from mi_core.errors import InputError
from mi_core.provenance import Provenance
from mi_core.tokens import Token

if TYPE_CHECKING:
    import pandas as pd

Side = Literal["a", "b", "difference"]
"""Which prompt: the first, the second, or first minus second."""

Patterns = Float[np.ndarray, "layer head query key"]
Outside = Float[np.ndarray, "layer head query"]
Metrics = Float[np.ndarray, "metric layer head"]


@dataclass(frozen=True, slots=True, eq=False)
class AttentionResult:
    """The attention of a prompt.

    Attributes:
        inputs: what was asked for.
        provenance: where the numbers come from; None only for results made without a model.
        tokens: of the whole prompt A.
        second_tokens: of the whole prompt B; empty without one.
        window: first position kept and one past the last; all arrays of patterns count from its start.
        answer: the target; None where the model's logits cannot be read.
        distractor: what it is compared with, or None.
        values: what `inputs.show` says, float32; 0 where the key lies after the query; NaN in layers that
            were not reached when the user stopped.
        outside: the rest of every row: the same quantity summed over the keys before the window.
        metrics: in the order of `HEAD_METRICS`, float64, over all queries of the whole prompt, always of the
            weights; NaN where nothing counts.
        masked_metrics: the same with key 0 left out (not renormalised).
        second_values, second_outside, second_metrics, second_masked_metrics: of prompt B, or None.
        warnings: sentences to be read before the figure.
        checks: identities tried on these numbers.
        seconds: duration.
        cancelled: whether the user stopped it.
    """

    inputs: AttentionInputs
    provenance: Provenance | None
    tokens: tuple[Token, ...]
    second_tokens: tuple[Token, ...]
    window: tuple[int, int]
    answer: AnswerTokens | None
    distractor: AnswerTokens | None
    values: Patterns
    outside: Outside
    metrics: Metrics
    masked_metrics: Metrics
    second_values: Patterns | None = None
    second_outside: Outside | None = None
    second_metrics: Metrics | None = None
    second_masked_metrics: Metrics | None = None
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """All arrays are about the same heads and tokens; B is complete or absent."""
        start, end = self.window
        if not 0 <= start < end <= len(self.tokens):
            raise ValueError(f"the window {self.window} does not lie in {len(self.tokens)} tokens")
        layers, heads = self.values.shape[:2]
        square, numbers = (layers, heads, end - start, end - start), (len(METRIC_NAMES), layers, heads)
        if self.values.shape != square or self.outside.shape != square[:3]:
            raise ValueError(f"patterns {self.values.shape} and {self.outside.shape}, expected {square}")
        if self.metrics.shape != numbers or self.masked_metrics.shape != numbers:
            raise ValueError(f"metrics {self.metrics.shape}, expected {numbers}")
        second = (
            self.second_values,
            self.second_outside,
            self.second_metrics,
            self.second_masked_metrics,
        )
        first = self.values, self.outside, self.metrics, self.masked_metrics
        if any((other is None) != (not self.second_tokens) for other in second):
            raise ValueError("prompt B is neither complete nor absent")
        if self.second_tokens and any(
            a.shape != b.shape for a, b in zip(first, second, strict=True) if b is not None
        ):
            raise ValueError("the arrays of A and B differ in shape")

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return self.values.shape[0]

    @property
    def n_heads(self) -> int:
        """Heads of every layer."""
        return self.values.shape[1]

    @property
    def compared(self) -> bool:
        """Whether there is a prompt B."""
        return bool(self.second_tokens)

    @property
    def windowed(self) -> bool:
        """Whether only a part of the prompt is kept."""
        return self.window != (0, len(self.tokens))

    @property
    def starts_with_bos(self) -> bool:
        """Whether position 0 is a token that the tokenizer adds, not one of the text."""
        return self.tokens[0].special

    @property
    def unit(self) -> str:
        """Of `values` and `outside`."""
        return SHOW_INFO[self.inputs.show].unit

    def tokens_of(self, side: Side) -> tuple[Token, ...]:
        """The tokens whose texts stand at a figure of that side."""
        return self.second_tokens if side == "b" else self.tokens

    def patterns(self, side: Side = "a") -> Patterns:
        """Patterns of A, of B, or A minus B.

        Raises:
            InputError: there is no B.
        """
        return _of(side, self.values, self.second_values)

    def outsides(self, side: Side = "a") -> Outside:
        """`outside` of A, of B, or A minus B.

        Raises:
            InputError: there is no B.
        """
        return _of(side, self.outside, self.second_outside)

    def metric(
        self, name: str, side: Side = "a", *, mask_first: bool = False
    ) -> Float[np.ndarray, "layer head"]:
        """One number per head.

        Args:
            name: one of `HEAD_METRICS`.
            side: A, B or A minus B.
            mask_first: leave key 0 out.

        Raises:
            InputError: no such metric, or no B.
        """
        if name not in METRIC_NAMES:
            raise InputError(
                f"Heads have no number {name!r:.60}", fix=f"Choose one of {', '.join(METRIC_NAMES)}"
            )
        first, second = self.metrics, self.second_metrics
        if mask_first:
            first, second = self.masked_metrics, self.second_masked_metrics
        return _of(side, first, second)[METRIC_NAMES.index(name)]

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table of the numbers per head: prompt, layer, head, metric, value, unit, first_token_masked.

        Patterns have tables of their own (`mi_core.analyses.attention_view.cells_frame`).
        """
        from mi_core.analyses.attention_record import to_frame  # that module imports this one

        return to_frame(self)

    def to_json(self) -> str:
        """JSON text: schema "lantern/attention", version, every field; no NaN.

        Raises:
            InputError: so many numbers that no program would read the file.
        """
        from mi_core.analyses.attention_record import to_json

        return to_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> "AttentionResult":
        """The inverse of `to_json`; numbers come back exactly.

        Raises:
            InputError: not such a record, or damaged.
        """
        from mi_core.analyses.attention_record import from_json

        return from_json(text)


def _of(side: Side, first: np.ndarray, second: np.ndarray | None) -> np.ndarray:
    if side == "a":
        return first
    if second is None:
        raise InputError("There is no second prompt to compare with", fix="Type one of equal length")
    return second if side == "b" else first - second
