"""Inputs and Result of `prediction_sweep`: what every layer would answer to many prompts.

    appears    = first layer whose top token is the right answer
    stabilises = first layer from which on the top token is the right answer in every layer, to the last
    depth      = stabilises / number of layers, the share of blocks that lie before that one

A prompt whose last layer says something else never stabilises; it is counted, not averaged away.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from jaxtyping import Bool, Float, Int

from mi_core.analyses.cases import Case
from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.logit_lens_inputs import STREAM_SITES, LensSite
from mi_core.analyses.plain import check_choice, check_text, inputs_from_dict, inputs_to_dict
from mi_core.errors import InputError
from mi_core.provenance import Provenance
from mi_core.tokens import Bos

if TYPE_CHECKING:
    import pandas as pd

MAX_CASES = 5000


@dataclass(frozen=True, slots=True)
class PredictionSweepInputs:
    """Which prompts, and where they are read.

    Attributes:
        cases: prompts with their right answers.
        site: the residual stream before (resid_pre), inside (resid_mid) or after (resid_post) every block.
        bos: whether a beginning-of-sequence token is put before the prompts.
        set_name: what to call the set of prompts.
    """

    cases: tuple[Case, ...]
    site: LensSite = "resid_post"
    bos: Bos = "auto"
    set_name: str = "prompts"

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of."""
        if isinstance(self.cases, list):
            object.__setattr__(self, "cases", tuple(self.cases))
        if not 1 <= len(self.cases) <= MAX_CASES:
            raise InputError(f"The set has {len(self.cases)} prompts", fix=f"Give 1 to {MAX_CASES:,}")
        check_choice("site", self.site, STREAM_SITES)
        check_choice("bos", self.bos, get_args(Bos))
        check_text("name of the set", self.set_name, 200)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PredictionSweepInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown field or a value that is refused.
        """
        return inputs_from_dict(cls, values, "sweep")


@dataclass(frozen=True, slots=True)
class SweptCase:
    """A prompt of the sweep.

    Attributes:
        index: its place in `inputs.cases`.
        n_tokens: tokens of the prompt.
        pieces: visible texts of the answer's tokens; the first one is looked for.
    """

    index: int
    n_tokens: int
    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A prompt that could not be read.

    Attributes:
        index: its place in `inputs.cases`.
        reason: a clause.
    """

    index: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class PredictionSweepResult:
    """What every layer says at the end of every prompt.

    Attributes:
        inputs: what was asked for.
        provenance: model and versions; None only for results made without a model.
        n_layers: layers of the model.
        swept: the prompts that were read, in the order of `inputs.cases`.
        left_out: the others, with the reason.
        answer_ids: first token of each prompt's right answer.
        top_ids: top token of each layer.
        top_probabilities: its probability.
        answer_log_probability: of the right answer, nats.
        answer_rank: of the right answer, 1 = top; tied tokens share the best rank.
        output_top_ids: top token of the model itself.
        output_top_probabilities: its probability.
        vocabulary: token id -> visible text, for every id in the result.
        warnings: sentences to be read before the figure.
        checks: identities tried on these numbers.
        seconds: duration.
        cancelled: whether the user stopped it; then `swept` holds what was done.
    """

    inputs: PredictionSweepInputs
    provenance: Provenance | None
    n_layers: int
    swept: tuple[SweptCase, ...]
    left_out: tuple[LeftOut, ...]
    answer_ids: Int[np.ndarray, "case"]
    top_ids: Int[np.ndarray, "layer case"]
    top_probabilities: Float[np.ndarray, "layer case"]
    answer_log_probability: Float[np.ndarray, "layer case"]
    answer_rank: Int[np.ndarray, "layer case"]
    output_top_ids: Int[np.ndarray, "case"]
    output_top_probabilities: Float[np.ndarray, "case"]
    vocabulary: dict[int, str]
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """One column per prompt."""
        for name, shape in sweep_shapes(self.n_layers, len(self.swept)).items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")

    @property
    def n_prompts(self) -> int:
        """Prompts that were read."""
        return len(self.swept)

    @property
    def correct(self) -> Bool[np.ndarray, "layer case"]:
        """Where the top token is the first token of the right answer."""
        return self.top_ids == self.answer_ids

    @property
    def appears(self) -> Float[np.ndarray, "case"]:
        """First layer whose top token is right; NaN = none."""
        return first_true(self.correct)

    @property
    def stabilises(self) -> Float[np.ndarray, "case"]:
        """First layer from which on the top token stays right; NaN = the last layer is wrong."""
        return stays_true(self.correct)

    @property
    def depth(self) -> Float[np.ndarray, "case"]:
        """Crystallisation depth: `stabilises` / number of layers; NaN = never."""
        return self.stabilises / self.n_layers

    def depth_counts(self) -> Int[np.ndarray, "layer"]:
        """Prompts that stabilise at each layer; their sum is the number that stabilise at all."""
        settled = self.stabilises[~np.isnan(self.stabilises)].astype(np.int64)
        return np.bincount(settled, minlength=self.n_layers)

    def median_depth(self) -> float:
        """Median of `depth` over the prompts that stabilise; NaN if none does."""
        settled = self.depth[~np.isnan(self.depth)]
        return float(np.median(settled)) if len(settled) else float("nan")

    @property
    def n_stable(self) -> int:
        """Prompts whose answer stabilises: those that the model gets right."""
        return int((~np.isnan(self.stabilises)).sum())

    @property
    def n_lost(self) -> int:
        """Prompts whose answer is some layer's top token, but not the last layer's."""
        return int((~np.isnan(self.appears) & np.isnan(self.stabilises)).sum())

    @property
    def n_never(self) -> int:
        """Prompts whose answer is no layer's top token."""
        return int(np.isnan(self.appears).sum())

    def visible(self, token_id: int) -> str:
        """Visible text of a token id that occurs in this result."""
        return self.vocabulary.get(token_id, f"#{token_id}")

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table, one row per prompt and layer.

        Columns: case, prompt, answer, layer, top_token, top_probability, answer_probability, answer_rank,
        appears, stabilises, depth (empty = never).
        """
        from mi_core.analyses.prediction_sweep_record import to_frame  # that module imports this one

        return to_frame(self)

    def to_json(self) -> str:
        """JSON text: schema "lantern/prediction_sweep", version, every field; no NaN."""
        from mi_core.analyses.prediction_sweep_record import to_json

        return to_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> "PredictionSweepResult":
        """The inverse of `to_json`.

        Raises:
            InputError: not such a record, or damaged.
        """
        from mi_core.analyses.prediction_sweep_record import from_json

        return from_json(text)


WHOLE = ("answer_ids", "top_ids", "answer_rank", "output_top_ids")
"""Arrays of whole numbers; the others are floats."""


def sweep_shapes(n_layers: int, n_cases: int) -> dict[str, tuple[int, ...]]:
    """Shape of every array of a result, by name."""
    grid, cases = (n_layers, n_cases), (n_cases,)
    return {
        "answer_ids": cases,
        "top_ids": grid,
        "top_probabilities": grid,
        "answer_log_probability": grid,
        "answer_rank": grid,
        "output_top_ids": cases,
        "output_top_probabilities": cases,
    }


def first_true(matrix: Bool[np.ndarray, "layer case"]) -> Float[np.ndarray, "case"]:
    """First layer that is True in each column; NaN where none is."""
    first = matrix.argmax(axis=0) if matrix.shape[1] else np.zeros(0)
    return np.where(matrix.any(axis=0), first, np.nan)


def stays_true(matrix: Bool[np.ndarray, "layer case"]) -> Float[np.ndarray, "case"]:
    """First layer from which on each column stays True; NaN where the last one is False."""
    trailing = np.logical_and.accumulate(matrix[::-1], axis=0).sum(axis=0)
    return np.where(trailing > 0, len(matrix) - trailing, np.nan)
