"""What a reader of a knock-out has to know before the numbers."""

from collections.abc import Iterator, Sequence

import numpy as np

from mi_core.analyses.interventions import Intervention, Reference
from mi_core.analyses.knockout_look import Looked, cut_rows_of
from mi_core.tokens import TokenizedPrompt

NAMED_ROWS = 5


def knockout_warnings(
    interventions: Sequence[Intervention],
    reference: Reference,
    passes: Sequence[Looked],
    prompt: TokenizedPrompt,
    where: str,
) -> tuple[str, ...]:
    """One sentence each."""
    return tuple(
        [
            *_cut_rows(cut_rows_of(passes[1])),
            *_idle_edges(passes[0]),
            *_renormalised(interventions),
            *_means(interventions, reference, len(prompt)),
            *_where(interventions, where),
        ]
    )


def _cut_rows(rows: np.ndarray) -> Iterator[str]:
    if len(rows) == 0:
        return
    named = ", ".join(f"L{layer}H{head} token {query}" for layer, head, query in rows[:NAMED_ROWS].tolist())
    more = f" and {len(rows) - NAMED_ROWS} more" if len(rows) > NAMED_ROWS else ""
    yield (
        f"{len(rows)} row{'s' if len(rows) > 1 else ''} of attention lost all keys and give zero instead of "
        f"a mean: {named}{more}. No model was trained for that."
    )


def _idle_edges(baseline: Looked) -> Iterator[str]:
    for (layer, query, key), weight in sorted(baseline.edge_weights.items()):
        if weight == 0:
            yield (
                f"In layer {layer} token {query} gives token {key} no attention at baseline, as outside of a "
                "sliding window: cutting or scaling that edge changes nothing, setting it is beyond what the "
                "model can do."
            )


def _renormalised(interventions: Sequence[Intervention]) -> Iterator[str]:
    modes = {one.mode for one in interventions if one.target in ("edge", "column")}
    if "scale" in modes:
        yield "Scaled edges: the row is divided by its sum afterwards, so its other weights change too."
    if "set" in modes:
        yield "Edges that are set have exactly that weight; the others of the row share what is left."


def _means(interventions: Sequence[Intervention], reference: Reference, n_tokens: int) -> Iterator[str]:
    if not any(one.needs_mean for one in interventions):
        return
    kind = (
        "per token position, because all are as long as the prompt"
        if reference.by_position(n_tokens)
        else "over all positions, because their lengths differ from the prompt's"
    )
    yield f"Means are over {len(reference.mean_ids)} reference prompts, {kind}."


def _where(interventions: Sequence[Intervention], where: str) -> Iterator[str]:
    if interventions and where == "prompt":
        yield (
            "While the text is continued the edits act on the prompt's tokens only: a mean per position and "
            "values of prompt B exist for no other token."
        )
