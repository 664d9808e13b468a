"""What a logit lens returns: statistics at every layer and position, and of the model's own output."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float, Int

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.logit_lens_inputs import STATISTICS, LogitLensInputs
from mi_core.errors import InputError
from mi_core.provenance import Provenance
from mi_core.tokens import Token

if TYPE_CHECKING:
    import pandas as pd

PLAIN = "logit lens"
ChosenBy = Literal["user", "model", "prompt"]
WordRole = Literal["answer", "distractor", "tracked"]


@dataclass(frozen=True, slots=True)
class LensWord:
    """A token that is followed over the layers.

    Attributes:
        role: why: it is the answer, what the answer is compared with, or a word that the user named.
        text: what was typed, or the text of the model's top token.
        id: the token; of a word of several tokens, the first.
        visible: its visible text.
        pieces: visible texts of all tokens of the word.
        chosen_by: "user", "model" (its top token) or "prompt" (the token that really comes next).
    """

    role: WordRole
    text: str
    id: int
    visible: str
    pieces: tuple[str, ...]
    chosen_by: ChosenBy = "user"


@dataclass(frozen=True, slots=True, eq=False)
class LogitLensResult:
    """A lens over layers and positions; arrays have the axes [layer, position] in the order of the tuples.

    Attributes:
        inputs: what was asked for.
        provenance: model and versions; None only for results made without a model.
        tokens: all tokens of the prompt.
        positions: the positions that were read, ascending.
        layers: the layers that were read, ascending; the last one of the model is among them.
        n_layers: layers of the model.
        words: the answer first, then the distractor if there is one, then the tracked words.
        target_ids: token whose probability and rank are read at each position.
        top_ids: most probable tokens of each cell, most probable first.
        top_probabilities: their probabilities.
        log_probability: of the position's target, nats.
        rank: of the position's target, 1 = top.
        entropy: nats.
        kl: KL(final output || lens) at the same position, nats.
        word_log_probability: of each word, nats.
        word_rank: of each word, 1 = top.
        output_top_ids: most probable tokens of the model's own output.
        output_top_probabilities: their probabilities.
        output_log_probability: of the position's target in the model's output, nats.
        output_rank: of the position's target in the model's output.
        output_entropy: of the model's output, nats.
        output_word_log_probability: of each word in the model's output, nats.
        output_word_rank: of each word in the model's output.
        vocabulary: token id -> visible text, for every id in the result.
        lens: how vectors are brought to the final norm: "logit lens" = as they are; otherwise the name of the
            tuned lens.
        lens_fingerprint: identifies the tuned lens' weights; "" for the plain lens.
        warnings: sentences to be read before the figure.
        checks: identities tried on these numbers.
        seconds: duration.
        cancelled: whether the user stopped it; then `positions` are those that were done.
    """

    inputs: LogitLensInputs
    provenance: Provenance | None
    tokens: tuple[Token, ...]
    positions: tuple[int, ...]
    layers: tuple[int, ...]
    n_layers: int
    words: tuple[LensWord, ...]
    target_ids: Int[np.ndarray, "position"]
    top_ids: Int[np.ndarray, "layer position top"]
    top_probabilities: Float[np.ndarray, "layer position top"]
    log_probability: Float[np.ndarray, "layer position"]
    rank: Int[np.ndarray, "layer position"]
    entropy: Float[np.ndarray, "layer position"]
    kl: Float[np.ndarray, "layer position"]
    word_log_probability: Float[np.ndarray, "layer position word"]
    word_rank: Int[np.ndarray, "layer position word"]
    output_top_ids: Int[np.ndarray, "position top"]
    output_top_probabilities: Float[np.ndarray, "position top"]
    output_log_probability: Float[np.ndarray, "position"]
    output_rank: Int[np.ndarray, "position"]
    output_entropy: Float[np.ndarray, "position"]
    output_word_log_probability: Float[np.ndarray, "position word"]
    output_word_rank: Int[np.ndarray, "position word"]
    vocabulary: Mapping[int, str] = field(default_factory=dict)
    lens: str = PLAIN
    lens_fingerprint: str = ""
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Every array has the axes that its name promises."""
        n_top = self.top_ids.shape[-1]
        for name, shape in array_shapes(
            len(self.layers), len(self.positions), n_top, len(self.words)
        ).items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")
        if not self.layers or self.layers[-1] != self.n_layers - 1:
            raise ValueError(f"layers {self.layers} do not end with the last of {self.n_layers}")
        if not self.positions or self.positions[-1] >= len(self.tokens):
            raise ValueError(f"positions {self.positions} lie outside the {len(self.tokens)} tokens")
        if not self.words or self.words[0].role != "answer":
            raise ValueError("the first word must be the answer")

    @property
    def answer(self) -> LensWord:
        """The word that the prompt asks for."""
        return self.words[0]

    def row_of(self, layer: int) -> int:
        """Index of a layer on the first axis.

        Raises:
            InputError: it was not read.
        """
        return _index("Layer", layer, self.layers)

    def column_of(self, position: int) -> int:
        """Index of a position on the second axis.

        Raises:
            InputError: it was not read.
        """
        return _index("Position", position, self.positions)

    def statistic(self, name: str) -> Float[np.ndarray, "layer position"]:
        """One number per cell, see `STATISTIC_INFO`."""
        if name not in STATISTICS:
            raise InputError(
                f"A lens has no statistic {name!r:.80}", fix=f"Choose one of {', '.join(STATISTICS)}"
            )
        if name == "probability":
            return np.exp(self.log_probability)
        if name == "top_probability":
            return self.top_probabilities[..., 0]
        return np.asarray(getattr(self, name), dtype=self.entropy.dtype)

    def output_statistic(self, name: str) -> Float[np.ndarray, "position"]:
        """The same number of the model's own output; its KL from itself is 0."""
        if name == "probability":
            return np.exp(self.output_log_probability)
        if name == "top_probability":
            return self.output_top_probabilities[..., 0]
        if name == "kl":
            return np.zeros_like(self.output_entropy)
        return np.asarray(getattr(self, f"output_{name}"), dtype=self.output_entropy.dtype)

    def visible(self, token_id: int) -> str:
        """Visible text of a token id that occurs in this result."""
        return self.vocabulary.get(token_id, f"#{token_id}")

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table, one number per row.

        Columns: source ("lens" or "model output"), layer, position, token (at that position), statistic,
        about (the token that the number is about; none for entropy and KL), value, unit.
        """
        from mi_core.analyses.logit_lens_record import to_frame  # that module imports this one

        return to_frame(self)

    def to_json(self) -> str:
        """JSON text: schema "lantern/logit_lens", version, every field; no NaN."""
        from mi_core.analyses.logit_lens_record import to_json

        return to_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> "LogitLensResult":
        """The inverse of `to_json`.

        Raises:
            InputError: not such a record, or damaged.
        """
        from mi_core.analyses.logit_lens_record import from_json

        return from_json(text)


def array_shapes(layers: int, positions: int, top: int, words: int) -> dict[str, tuple[int, ...]]:
    """Shape of every array of a result, by name."""
    grid = (layers, positions)
    return {
        "target_ids": (positions,),
        "top_ids": (*grid, top),
        "top_probabilities": (*grid, top),
        "log_probability": grid,
        "rank": grid,
        "entropy": grid,
        "kl": grid,
        "word_log_probability": (*grid, words),
        "word_rank": (*grid, words),
        "output_top_ids": (positions, top),
        "output_top_probabilities": (positions, top),
        "output_log_probability": (positions,),
        "output_rank": (positions,),
        "output_entropy": (positions,),
        "output_word_log_probability": (positions, words),
        "output_word_rank": (positions, words),
    }


WHOLE = ("target_ids", "top_ids", "rank", "word_rank", "output_top_ids", "output_rank", "output_word_rank")
"""Arrays of whole numbers; the others are floats."""


def _index(name: str, wanted: int, among: tuple[int, ...]) -> int:
    if wanted not in among:
        raise InputError(f"{name} {wanted} was not read", why=f"this lens has {among[0]} to {among[-1]}")
    return among.index(wanted)
