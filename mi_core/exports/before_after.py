"""What the figures and tables share of results that compare one prompt without and with edits."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from mi_core.analyses.before_after import CHANGE, RUN_NAMES, TwoRuns, before_after_rows

if TYPE_CHECKING:
    import pandas as pd

MAX_LISTED = 300
"""Characters of a list that a caption shows."""


class Framed(Protocol):
    """A result with a tidy table."""

    def to_frame(self) -> "pd.DataFrame":
        """One row per number, with a column `kind`."""
        ...


def before_after_table(result: TwoRuns) -> "pd.DataFrame":
    """One row per quantity: baseline, edited, difference, unit."""
    import pandas as pd  # a third of a second; only tables need it

    rows = [
        (quantity, token, before, after, after - before, unit)
        for quantity, token, before, after, unit in before_after_rows(result)
    ]
    rows.append(("KL(baseline || edited)", "", float("nan"), float("nan"), result.kl, "nats"))
    return pd.DataFrame(rows, columns=["quantity", "token", *RUN_NAMES, CHANGE, "unit"])


def rows_of_kinds(result: Framed, kinds: Sequence[str]) -> "pd.DataFrame":
    """The rows of a result's tidy table that belong to one figure."""
    frame = result.to_frame()
    return frame.loc[frame["kind"].isin(kinds)].reset_index(drop=True)


def listed(pieces: Sequence[str], empty: str) -> str:
    """A list of edits for a caption, cut where it is long.

    Args:
        pieces: canonical texts.
        empty: what stands for an empty list.
    """
    text = ", ".join(pieces) or empty
    return text if len(text) <= MAX_LISTED else text[:MAX_LISTED] + " ..."
