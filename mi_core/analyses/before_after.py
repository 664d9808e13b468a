"""What results share that compare one prompt without and with edits, at its last token.

The first axis of their arrays named [run, ...] is the run: 0 is the baseline, 1 the edited run. Differences
are always edited minus baseline. Natural logarithms, nats; ranks count from 1.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from mi_core.analyses.attribution_result import ReadToken

RUN_NAMES = ("baseline", "edited")
READ_NAMES = ("target", "distractor")
CHANGE = "edited \N{MINUS SIGN} baseline"
Row = tuple[str, str, float, float, str]
"""Quantity, token, baseline, edited, unit."""


@runtime_checkable
class TwoRuns(Protocol):
    """The part of a result that compares the two runs."""

    @property
    def target(self) -> ReadToken:
        """The followed token."""
        ...

    @property
    def distractor(self) -> ReadToken | None:
        """The token it is compared with, or None."""
        ...

    @property
    def logits(self) -> Float[np.ndarray, "2 read"]:
        """[run, read] of target and distractor."""
        ...

    @property
    def log_probabilities(self) -> Float[np.ndarray, "2 read"]:
        """[run, read] theirs."""
        ...

    @property
    def ranks(self) -> Int[np.ndarray, "2 read"]:
        """[run, read] theirs."""
        ...

    @property
    def kl(self) -> float:
        """KL(baseline || edited) over the whole vocabulary."""
        ...

    @property
    def baseline_ids(self) -> Int[np.ndarray, " step"]:
        """[step] greedy continuation of the baseline."""
        ...

    @property
    def edited_ids(self) -> Int[np.ndarray, " other_step"]:
        """[step] greedy continuation of the edited run."""
        ...

    @property
    def vocabulary(self) -> Mapping[int, str]:
        """Token id -> visible text, for every id above."""
        ...


def logit_difference(result: TwoRuns) -> Float[np.ndarray, "2"] | None:
    """[run] target minus distractor; None without a distractor."""
    return None if result.distractor is None else result.logits[:, 0] - result.logits[:, 1]


def first_changed_step(result: TwoRuns) -> int | None:
    """The first step at which the continuations differ, from 0; None if they do not."""
    pairs = zip(result.baseline_ids.tolist(), result.edited_ids.tolist(), strict=False)
    different = next((step for step, (one, other) in enumerate(pairs) if one != other), None)
    if different is None and len(result.baseline_ids) != len(result.edited_ids):
        return min(len(result.baseline_ids), len(result.edited_ids))
    return different


def before_after_rows(result: TwoRuns) -> list[Row]:
    """The before/after table of the followed tokens; KL has no row, since it belongs to no run."""
    rows: list[Row] = []
    read = [result.target, *([] if result.distractor is None else [result.distractor])]
    for index, token in enumerate(read):
        for what, values, unit in (
            ("probability", np.exp(result.log_probabilities), "probability"),
            ("log-probability", result.log_probabilities, "nats"),
            ("logit", result.logits, "logits"),
            ("rank", result.ranks, "rank"),
        ):
            before, after = (float(value) for value in values[:, index])
            rows.append((f"{what} of the {READ_NAMES[index]}", token.visible, before, after, unit))
    difference = logit_difference(result)
    if difference is not None:
        name = "logit difference, target \N{MINUS SIGN} distractor"
        rows.append((name, "", float(difference[0]), float(difference[1]), "logits"))
    return rows


# --- rows of a tidy table ---


def by_run(before: int | float, after: int | float) -> tuple[tuple[str, int | float], ...]:
    """A number's value in both runs and its change, each with its name."""
    return ((RUN_NAMES[0], before), (RUN_NAMES[1], after), (CHANGE, after - before))


def read_records(result: TwoRuns) -> Iterator[dict[str, Any]]:
    """The before/after table, one record per number, and KL."""
    for quantity, token, before, after, unit in before_after_rows(result):
        for run, value in by_run(before, after):
            yield {
                "kind": "token", "quantity": quantity, "token": token, "run": run, "value": value,
                "unit": unit,
            }  # fmt: skip
    yield {"kind": "token", "quantity": "KL(baseline || edited)", "value": result.kl, "unit": "nats"}


def step_records(result: TwoRuns) -> Iterator[dict[str, Any]]:
    """The tokens of both continuations, one record each."""
    for run, ids in zip(RUN_NAMES, (result.baseline_ids, result.edited_ids), strict=True):
        for step, token in enumerate(ids.tolist()):
            yield {
                "kind": "continuation", "quantity": f"token id at step {step}",
                "token": result.vocabulary[token], "run": run, "value": token, "unit": "token id",
            }  # fmt: skip
