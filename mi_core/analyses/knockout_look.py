"""One pass of a knock-out: the logits of the last token, and of attention only what is shown or checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.causal_trace_parts import Check
from mi_core.engine import Edit, run
from mi_core.model.model import LoadedModel

WINDOW = 128
"""Tokens at the end of a prompt that the patterns of pinned heads show."""


@dataclass(frozen=True, slots=True, eq=False)
class Looked:
    """What is kept of a pass.

    Attributes:
        logits: [d_vocab] of the last token, float64 on the CPU.
        window: (start, end) positions of the patterns.
        patterns: [pinned, query, key] of the pinned heads, float32.
        empty: layer -> [row, 2] head and query of the rows without any weight.
        sum_error: layer -> largest distance of another row's sum from 1.
        masked: layer -> largest weight on an edge that the list cuts.
        edge_weights: (layer, query, key) -> largest weight over the chosen heads, of every single edge that
            the list names.
    """

    logits: Float[Tensor, " d_vocab"]
    window: tuple[int, int]
    patterns: Float[np.ndarray, "pinned query key"]
    empty: dict[int, np.ndarray]
    sum_error: dict[int, float]
    masked: dict[int, float]
    edge_weights: dict[tuple[int, int, int], float]


def look_at_attention(
    model: LoadedModel,
    ids: Sequence[int],
    edits: Sequence[Edit],
    listed: Sequence[Edit],
    pins: Sequence[tuple[int, int]],
) -> Looked:
    """Run the prompt.

    Args:
        model: the loaded model.
        ids: the prompt.
        edits: what acts in this pass.
        listed: the edits of the list, whether they act now or not; baseline and edited run look at the same
            places, so that both take the same way through the same kernels.
        pins: (layer, head) whose patterns are kept.
    """
    by_layer: dict[int, list[Edit]] = {layer: [] for layer, _ in pins}
    for edit in listed:
        if edit.site == "pattern" and edit.layer is not None:
            by_layer.setdefault(edit.layer, []).append(edit)
    start = max(0, len(ids) - WINDOW)

    def keep(place: tuple[str, int | None], value: Tensor) -> dict[str, Any]:
        layer = place[1] or 0
        heads = [head for where, head in pins if where == layer]
        return _kept(value[0], by_layer[layer], heads, start)

    done = run(
        model,
        torch.tensor([list(ids)], dtype=torch.long),
        capture=[("pattern", layer) for layer in sorted(by_layer)],
        edits=edits,
        last=1,
        reduce=keep,
    )
    size = len(ids) - start
    patterns = np.zeros((len(pins), size, size), np.float32)
    for index, (layer, head) in enumerate(pins):
        patterns[index] = done["pattern", layer]["patterns"][head]
    found = {layer: done["pattern", layer] for layer in by_layer}
    return Looked(
        logits=done.logits[0, -1].to("cpu", torch.float64),
        window=(start, len(ids)),
        patterns=patterns,
        empty={layer: one["empty"] for layer, one in found.items()},
        sum_error={layer: one["sum_error"] for layer, one in found.items()},
        masked={layer: one["masked"] for layer, one in found.items() if one["masked"] is not None},
        edge_weights={
            (layer, *edge): weight for layer, one in found.items() for edge, weight in one["edges"].items()
        },
    )


def _kept(
    pattern: Float[Tensor, "head query key"], listed: Sequence[Edit], heads: Sequence[int], start: int
) -> dict[str, Any]:
    """Numbers of one layer; nothing of the square itself but the window of the pinned heads."""
    sums = pattern.float().sum(-1)
    empty = sums == 0
    masked, edges = None, {}
    for edit in listed:
        chosen = _chosen(pattern, edit)
        if edit.operation == "mask":
            masked = max(masked or 0.0, float(chosen.max()))
        if (
            edit.positions is not None
            and edit.keys is not None
            and len(edit.positions) == len(edit.keys) == 1
        ):
            place = (edit.positions[0], edit.keys[0])
            edges[place] = max(edges.get(place, 0.0), float(chosen.max()))
    return {
        "patterns": {head: pattern[head, start:, start:].float().cpu().numpy().copy() for head in heads},
        "empty": empty.nonzero().cpu().numpy(),
        "sum_error": float((sums - 1).abs().masked_fill(empty, 0.0).max()),
        "masked": masked,
        "edges": edges,
    }


def _chosen(pattern: Tensor, edit: Edit) -> Tensor:
    """The weights that an edit is about: [head, query, key]."""
    for axis, indices in ((0, edit.heads), (1, edit.positions), (2, edit.keys)):
        if indices is not None:
            pattern = pattern.index_select(axis, torch.tensor(indices, device=pattern.device))
    return pattern


def cut_rows_of(looked: Looked) -> np.ndarray:
    """[row, 3] layer, head and query of every row without any weight, in order."""
    rows = [
        (layer, int(head), int(query))
        for layer, places in sorted(looked.empty.items())
        for head, query in places
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def attention_checks(edited: Looked, dtype: torch.dtype) -> tuple[Check, ...]:
    """What must hold of the attention of the layers that were looked at."""
    checks = []
    if edited.masked:
        largest = max(edited.masked.values())
        checks.append(
            Check(
                "cut edges have exactly zero attention",
                largest == 0,
                f"{len(edited.masked)} layers; largest weight on a cut edge {largest:g}.",
            )
        )
    if edited.sum_error:
        off = max(edited.sum_error.values())
        limit = 1e-2 if dtype in (torch.float16, torch.bfloat16) else 1e-5
        checks.append(
            Check(
                "rows of attention sum to 1",
                off <= limit,
                f"{len(edited.sum_error)} layers after the edits; largest deviation {off:.1e} (limit "
                f"{limit:g}); {len(cut_rows_of(edited))} fully cut rows are zero and not counted.",
            )
        )
    return tuple(checks)
