"""What a knock-out returns: the same prompt before and after the edits, at its last position.

Everything is CPU numpy and plain Python. The first axis of the arrays named [run, ...] is the run: 0 is the
baseline, 1 the edited run. Differences are always edited minus baseline. Natural logarithms, nats.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from mi_core.analyses.attribution_result import ReadToken
from mi_core.analyses.before_after import Row, before_after_rows, first_changed_step, logit_difference
from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.knockout_inputs import KnockoutInputs
from mi_core.errors import InputError
from mi_core.provenance import Provenance
from mi_core.tokens import Token

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, eq=False)
class KnockoutResult:
    """Baseline and edited run of one prompt.

    Attributes:
        inputs: what was asked for.
        provenance: model and versions.
        tokens: of the prompt.
        target: the followed token.
        distractor: the token it is compared with, or None.
        interventions: the list, one canonical text each.
        reference_prompts: the prompts that means were taken over; () when nothing is set to a mean.
        mean_by_position: whether means are per position; False = over all positions of all reference prompts.
        logits: [run, read] of target and distractor, every softcap included.
        log_probabilities: [run, read] theirs.
        ranks: [run, read] theirs; 1 = the top token.
        kl: KL(baseline || edited) over the whole vocabulary, in nats.
        changed_ids: [changed] tokens whose probability changes most, largest change first.
        changed_probabilities: [run, changed] theirs.
        baseline_ids: [step] greedy continuation of the baseline.
        edited_ids: [step] greedy continuation of the edited run.
        continued_where: on which tokens the edits without positions act while it is continued: "all", or
            "prompt" where a value exists only for the prompt's tokens.
        vocabulary: token id -> visible text, for every id above.
        window: (start, end) positions that the patterns show.
        patterns: [run, pinned, query, key] attention of the pinned heads.
        cut_rows: [row, 3] layer, head and query of every row of attention that lost all its keys.
        n_layers: of the model.
        n_heads: of the model.
        d_model: of the model.
        warnings: sentences to be read first.
        checks: identities tried on these numbers.
        seconds: duration.
        cancelled: whether the user stopped it (then it has no result: always False).
    """

    inputs: KnockoutInputs
    provenance: Provenance | None
    tokens: tuple[Token, ...]
    target: ReadToken
    distractor: ReadToken | None
    interventions: tuple[str, ...]
    reference_prompts: tuple[str, ...]
    mean_by_position: bool
    logits: Float[np.ndarray, "2 read"]
    log_probabilities: Float[np.ndarray, "2 read"]
    ranks: Int[np.ndarray, "2 read"]
    kl: float
    changed_ids: Int[np.ndarray, " changed"]
    changed_probabilities: Float[np.ndarray, "2 changed"]
    baseline_ids: Int[np.ndarray, " step"]
    edited_ids: Int[np.ndarray, " other_step"]
    continued_where: str
    vocabulary: Mapping[int, str]
    window: tuple[int, int]
    patterns: Float[np.ndarray, "2 pinned query key"]
    cut_rows: Int[np.ndarray, "row 3"]
    n_layers: int
    n_heads: int
    d_model: int
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        read, size = 1 if self.distractor is None else 2, self.window[1] - self.window[0]
        wanted = {
            "logits": (2, read),
            "log_probabilities": (2, read),
            "ranks": (2, read),
            "changed_probabilities": (2, len(self.changed_ids)),
            "patterns": (2, len(self.inputs.pinned_heads), size, size),
            "cut_rows": (len(self.cut_rows), 3),
        }
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                found = getattr(self, name).shape
                raise InputError(f"The knock-out's {name} has shape {found}, expected {shape}")
        ids = [*self.changed_ids.tolist(), *self.baseline_ids.tolist(), *self.edited_ids.tolist()]
        if not set(ids) <= set(self.vocabulary):
            raise InputError("A token of the knock-out has no text")

    @property
    def probabilities(self) -> Float[np.ndarray, "2 read"]:
        """[run, read] of target and distractor."""
        return np.exp(self.log_probabilities)

    @property
    def logit_difference(self) -> Float[np.ndarray, "2"] | None:
        """[run] target minus distractor; None without a distractor."""
        return logit_difference(self)

    @property
    def first_changed_step(self) -> int | None:
        """The first step at which the continuations differ; None if they do not."""
        return first_changed_step(self)

    def rows(self) -> list[Row]:
        """The before/after table: (quantity, token, baseline, edited, unit)."""
        return before_after_rows(self)

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table, one row per number.

        Columns: kind, quantity, token, layer, head, query, key, run, value, unit.
        """
        from mi_core.analyses.knockout_record import to_frame  # that module imports this one

        return to_frame(self)

    def to_json(self) -> str:
        """JSON text: schema "lantern/knockout", version, every field; no NaN."""
        from mi_core.analyses.knockout_record import to_json

        return to_json(self)

    def to_candle_mi(self) -> dict[str, Any]:
        """The result under candle-mi's keys; only for one edge that is cut in all heads of one layer.

        Raises:
            InputError: the list is another one, which these keys cannot say.
        """
        from mi_core.analyses.knockout_record import to_candle_mi

        return to_candle_mi(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> "KnockoutResult":
        """The inverse of `to_json`; numbers come back exactly.

        Raises:
            InputError: not such a record, or damaged.
        """
        from mi_core.analyses.knockout_record import from_json

        return from_json(text)
