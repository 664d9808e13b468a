"""What a look at one neuron returns: its activation at every token of a set, its vocabulary, its contexts."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float, Int

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.neuron_inputs import NeuronInputs
from mi_core.errors import InputError
from mi_core.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd

Sign = Literal["strongest", "positive", "negative"]
SIGNS: tuple[Sign, ...] = ("strongest", "positive", "negative")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What one unit of activation adds to the logits, directly, at one token of the set.

    Attributes:
        promoted_ids: token ids with the largest effects, the largest first.
        promoted: their visible texts.
        promoted_effects: logits (before the softcap) per unit of activation.
        suppressed_ids: token ids with the smallest effects, the smallest first.
        suppressed: their visible texts.
        suppressed_effects: logits per unit of activation.
        mean: mean effect over the vocabulary; adding it to every logit would change no probability.
        deviation: standard deviation over the vocabulary.
        text: place in `inputs.texts` of the text at whose strongest token the norms were frozen.
        position: that token.
        post_norm: whether a norm between MLP and stream was frozen too.
        problem: why there is nothing; empty when there is.
    """

    promoted_ids: Int[np.ndarray, "top"]
    promoted: tuple[str, ...]
    promoted_effects: Float[np.ndarray, "top"]
    suppressed_ids: Int[np.ndarray, "top"]
    suppressed: tuple[str, ...]
    suppressed_effects: Float[np.ndarray, "top"]
    mean: float
    deviation: float
    text: int
    position: int
    post_norm: bool
    problem: str = ""

    @classmethod
    def none(cls, problem: str) -> "Vocabulary":
        """No vocabulary, with the reason."""
        ids, effects = np.zeros(0, np.int64), np.zeros(0)
        return cls(ids, (), effects, ids, (), effects, 0.0, 0.0, -1, -1, False, problem)


@dataclass(frozen=True, slots=True)
class Context:
    """A token at which the neuron is active, and its surroundings.

    Attributes:
        text: place in `inputs.texts`.
        category: its kind.
        position: of the token in the text.
        value: activation there.
        start: position of the first token shown.
        tokens: visible tokens shown.
        values: their activations; NaN where a token does not count.
    """

    text: int
    category: str
    position: int
    value: float
    start: int
    tokens: tuple[str, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class NeuronResult:
    """One neuron over a set of texts.

    The axis `token` runs over all tokens of the set in order, those that do not count included; `text` over
    the texts that were read.

    Attributes:
        inputs: what was asked for.
        provenance: model, versions, seed.
        n_layers: layers of the model.
        d_mlp: neurons per layer.
        gated: whether the MLP multiplies two branches.
        categories: kinds of text.
        text_index: place of each text in `inputs.texts`.
        text_category: number of its kind.
        text_length: its tokens.
        text_first: its first position that counts.
        activations: the neuron's activation at every token.
        tokens: visible texts of these tokens.
        edges: ends of the histogram's bins.
        counts: tokens that count in each bin, by kind of text.
        category_mean: mean activation on each kind; NaN where no token counts.
        category_low: lower end of its 95 % band over texts (bootstrap); NaN for a single text.
        category_high: upper end.
        vocabulary: what it promotes and suppresses.
        warnings: sentences to be read before the figure.
        checks: identities tried on this result.
        seconds: duration.
        cancelled: whether the user stopped it; then `text_index` has the texts read until then.
    """

    inputs: NeuronInputs
    provenance: Provenance | None
    n_layers: int
    d_mlp: int
    gated: bool
    categories: tuple[str, ...]
    text_index: Int[np.ndarray, "text"]
    text_category: Int[np.ndarray, "text"]
    text_length: Int[np.ndarray, "text"]
    text_first: Int[np.ndarray, "text"]
    activations: Float[np.ndarray, "token"]
    tokens: tuple[str, ...]
    edges: Float[np.ndarray, "edge"]
    counts: Int[np.ndarray, "category bin"]
    category_mean: Float[np.ndarray, "category"]
    category_low: Float[np.ndarray, "category"]
    category_high: Float[np.ndarray, "category"]
    vocabulary: Vocabulary
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Shapes agree with each other."""
        texts, kinds, bins = len(self.text_index), len(self.categories), self.inputs.bins
        expected = {
            "text_category": (texts,),
            "text_length": (texts,),
            "text_first": (texts,),
            "activations": (int(self.text_length.sum()),),
            "edges": (bins + 1,),
            "counts": (kinds, bins),
            "category_mean": (kinds,),
            "category_low": (kinds,),
            "category_high": (kinds,),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")
        if len(self.tokens) != len(self.activations):
            raise ValueError(f"{len(self.tokens)} tokens but {len(self.activations)} activations")

    # --- which tokens ---

    @property
    def offsets(self) -> Int[np.ndarray, "text"]:
        """Number of each text's first token on the axis `token`."""
        return np.cumsum(self.text_length) - self.text_length

    @property
    def text_of(self) -> Int[np.ndarray, "token"]:
        """Row of the text that each token belongs to."""
        return np.repeat(np.arange(len(self.text_index)), self.text_length)

    @property
    def position_of(self) -> Int[np.ndarray, "token"]:
        """Position of each token in its text."""
        return np.arange(len(self.activations)) - self.offsets[self.text_of]

    @property
    def counted(self) -> np.ndarray:
        """[token] whether it counts (not the first of its text, no BOS)."""
        return self.position_of >= self.text_first[self.text_of]

    @property
    def token_counts(self) -> Int[np.ndarray, "category"]:
        """Tokens that count, by kind of text."""
        kinds = self.text_category[self.text_of][self.counted]
        return np.bincount(kinds, minlength=len(self.categories))

    @property
    def text_counts(self) -> Int[np.ndarray, "category"]:
        """Texts with a token that counts, by kind."""
        there = self.text_length > self.text_first
        return np.bincount(self.text_category[there], minlength=len(self.categories))

    # --- what they say ---

    @property
    def bound(self) -> float:
        """Largest absolute activation of a token that counts: the fixed end of every colour scale."""
        return float(np.abs(self.activations[self.counted]).max(initial=0.0))

    @property
    def share_active(self) -> float:
        """Share of the tokens that count with an activation above 0."""
        return float((self.activations[self.counted] > 0).mean())

    def contexts(
        self, count: int = 10, *, sign: Sign = "strongest", around: int | None = 16, per_text: bool = True
    ) -> tuple[Context, ...]:
        """The tokens at which the neuron is most active, in descending order; ties by order in the set.

        Args:
            count: how many at most.
            sign: by absolute value, only above 0, or only below.
            around: tokens shown on each side; None = the whole text.
            per_text: at most one token per text, its strongest.

        Raises:
            InputError: an unknown sign.
        """
        if sign not in SIGNS:
            raise InputError(f"The sign is {sign!r}", fix=f"Choose one of {', '.join(SIGNS)}")
        strength = {"strongest": np.abs(self.activations), "positive": self.activations}.get(
            sign, -self.activations
        )
        usable = self.counted if sign == "strongest" else self.counted & (strength > 0)
        candidates = np.flatnonzero(usable)
        order = candidates[np.argsort(-strength[candidates], kind="stable")]
        if per_text:
            rows = self.text_of[order]
            order = order[np.sort(np.unique(rows, return_index=True)[1])]
        return tuple(self._context(int(token), around) for token in order[:count])

    def _context(self, token: int, around: int | None) -> Context:
        row = int(self.text_of[token])
        first, length = int(self.offsets[row]), int(self.text_length[row])
        position = token - first
        start = 0 if around is None else max(0, position - around)
        stop = length if around is None else min(length, position + around + 1)
        shown = slice(first + start, first + stop)
        values = np.where(self.counted[shown], self.activations[shown], np.nan)
        return Context(
            text=int(self.text_index[row]),
            category=self.categories[int(self.text_category[row])],
            position=position,
            value=float(self.activations[token]),
            start=start,
            tokens=self.tokens[shown],
            values=tuple(values.astype(float).tolist()),
        )

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table: one row per token of the set, then kinds, then vocabulary."""
        from mi_core.analyses.neuron_record import to_frame

        return to_frame(self)

    def to_json(self) -> str:
        """The whole result as JSON text."""
        from mi_core.analyses.neuron_record import to_json

        return to_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> "NeuronResult":
        """The inverse of `to_json`.

        Raises:
            InputError: anything that `to_json` would not have written.
        """
        from mi_core.analyses.neuron_record import from_json

        return from_json(text)
