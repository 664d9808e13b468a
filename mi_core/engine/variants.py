"""Variants of a base run, and where each of them begins to differ from it.

A variant whose first edited position is p, first edited layer l, equals the base run at all positions before
p and in all layers before l. What cannot reach the read positions by causality costs nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from mi_core.engine.edits import Edit, first_position, normalise
from mi_core.errors import EditError
from mi_core.model.structure import Structure

_QUERY_SIDE = {
    "q",
    "rot_q",
    "attn_scores",
    "pattern",
    "z",
    "result",
    "attn_out",
    "resid_mid",
    "mlp_in",
    "mlp_pre",
    "mlp_post",
    "mlp_out",
    "resid_post",
}  # in the last layer these reach the output at their own position only
_AFTER_BLOCKS = {"final_norm", "logits"}


@dataclass(frozen=True, eq=False, slots=True)
class Base:
    """The run that all variants start from.

    Attributes:
        tokens: token ids; several rows (noise samples) run side by side, and every variant is run on each of
            them.
        edits: edits of the base itself (noise, steering); they hold in every variant, before the variant's
            own.
    """

    tokens: Int[Tensor, "row pos"]
    edits: tuple[Edit, ...] = ()


@dataclass(frozen=True, eq=False, slots=True)
class Variant:
    """One deviation from the base run; the row axis of its values is the base's rows (or 1)."""

    edits: tuple[Edit, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Placing:
    """A variant that has to be computed.

    Attributes:
        index: its place among the variants that were given.
        edits: those that can reach the read positions, normalised.
        first: first position that differs from the base.
        entry: first layer that must be recomputed; `n_layers` when only what follows the blocks is edited.
    """

    index: int
    edits: tuple[Edit, ...]
    first: int
    entry: int


def place_variants(
    variants: Sequence[Variant], structure: Structure, n_pos: int, read: Sequence[int]
) -> tuple[list[Placing], list[int]]:
    """Find where each variant begins, and which variants equal the base by causality.

    Returns:
        Variants to compute, sorted by first position, then entry; and the indices of those that equal the
        base.

    Raises:
        EditError: a variant has no edits, or an edit does not fit the model or prompt.
        SiteMissing: an edit's site does not exist here.
    """
    n_layers, placings, equal = structure.dims.n_layers, [], []
    for index, variant in enumerate(variants):
        if not variant.edits:
            raise EditError(f"Variant {index} has no edits")
        edits = [normalise(edit, structure, n_pos) for edit in variant.edits]
        edits = [edit for edit in edits if reaches(edit, n_layers, read)]
        if not edits:
            equal.append(index)
            continue
        entry = min(
            n_layers if after_blocks(edit, n_layers) else canonical(edit).layer or 0 for edit in edits
        )
        placings.append(Placing(index, tuple(edits), min(map(first_position, edits)), entry))
    return sorted(placings, key=lambda p: (p.first, p.entry, p.index)), equal


def canonical(edit: Edit) -> Edit:
    """Between two blocks there is one stream: write every edit of it as `resid_pre` of the later block.

    The order of a whole pass must be kept beside it (`comes_first`). Not for edits `after_blocks`.
    """
    if edit.site == "embed":
        return replace(edit, site="resid_pre", layer=0)
    if edit.site == "resid_post" and edit.layer is not None:
        return replace(edit, site="resid_pre", layer=edit.layer + 1)
    return edit


def comes_first(edit: Edit) -> bool:
    """Whether a whole pass makes this edit of the stream before those at `resid_pre` of the next block."""
    return edit.site in ("embed", "resid_post")


def after_blocks(edit: Edit, n_layers: int) -> bool:
    """Whether an edit acts after the last block."""
    return edit.site in _AFTER_BLOCKS or (edit.site == "resid_post" and edit.layer == n_layers - 1)


def reaches(edit: Edit, n_layers: int, read: Sequence[int]) -> bool:
    """Whether an edit can change what is read, by causality."""
    if edit.positions is None:
        return True
    if edit.site in _AFTER_BLOCKS or (edit.site in _QUERY_SIDE and edit.layer == n_layers - 1):
        return any(position in read for position in edit.positions)
    return min(edit.positions) <= max(read)


def changes_nothing(placing: Placing, stream: Tensor, base_edits: Sequence[Edit]) -> bool:
    """Whether a variant only sets the stream at its entry to the values it already has (bit for bit).

    Args:
        placing: the variant.
        stream: the base's `resid_pre` at the variant's entry, after its edits, [row, pos, d_model].
        base_edits: the base's own; one at `resid_pre` would still act on what an earlier edit has set.
    """
    later = any(edit.site == "resid_pre" and edit.layer == placing.entry for edit in base_edits)
    if len(placing.edits) != 1 or (later and comes_first(placing.edits[0])):
        return False
    edit = canonical(placing.edits[0])
    plain = edit.site == "resid_pre" and edit.operation == "set" and edit.units is None
    if not plain or edit.positions is None or not isinstance(edit.value, Tensor):
        return False
    old = stream[:, list(edit.positions)]
    return torch.equal(edit.value.to(old.device, old.dtype).expand_as(old), old)
