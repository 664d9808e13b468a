"""Which features a list of edits changes at which tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

from mi_core.errors import InputError
from mi_core.model.model import LoadedModel
from mi_core.transcoders.encode import masked_positions
from mi_core.transcoders.feature_edits import FeatureEdit
from mi_core.transcoders.names import FeatureAt
from mi_core.transcoders.transcoder import Transcoder

MAX_PLACED = 20_000
"""Features times tokens that one list may edit."""


@dataclass(frozen=True, slots=True)
class Placed:
    """One edited feature at one token.

    Attributes:
        piece: which edit of the list it comes from.
        at: feature and token.
        edit: that edit.
    """

    piece: int
    at: FeatureAt
    edit: FeatureEdit


def place(
    model: LoadedModel,
    transcoder: Transcoder,
    token_ids: Sequence[int],
    edits: Sequence[FeatureEdit],
    *,
    show_bos: bool = False,
) -> tuple[Placed, ...]:
    """Every edited feature at every token that it is edited at.

    Raises:
        InputError: a feature or token is not there, or two edits give one activation two values.
    """
    n_pos, masked = len(token_ids), () if show_bos else masked_positions(model, token_ids)
    taken: dict[FeatureAt, FeatureEdit] = {}
    placed = []
    for piece, edit in enumerate(edits):
        transcoder.check(edit.feature.layer, edit.feature.index)
        for position in _positions(edit, n_pos, masked):
            at = edit.feature.at(position)
            other = taken.setdefault(at, edit)
            if other is not edit and (edit.needs_present or other.needs_present):
                raise InputError(
                    f"{other.text[:80]} and {edit.text[:80]} both change {at.text}",
                    why="the result would depend on which comes first; only add and suppress add up",
                    fix="Remove one of them",
                )
            placed.append(Placed(piece, at, edit))
    if len(placed) > MAX_PLACED:
        raise InputError(
            f"The list edits {len(placed):,} activations",
            fix=f"Edit at most {MAX_PLACED:,}: fewer features, or fewer tokens",
        )
    return tuple(placed)


def _positions(edit: FeatureEdit, n_pos: int, masked: tuple[int, ...]) -> tuple[int, ...]:
    if edit.positions is None:
        found = tuple(position for position in range(n_pos) if position not in masked)
        if not found:
            raise InputError(
                f"{edit.text[:80]} acts on no token",
                why="the prompt has only special tokens, which are left out",
            )
        return found
    bad = next((position for position in edit.positions if not -n_pos <= position < n_pos), None)
    if bad is not None:
        raise InputError(f"{edit.text[:80]} names token {bad}", why=f"the prompt has tokens 0 to {n_pos - 1}")
    found = tuple(position % n_pos for position in edit.positions)
    if len(set(found)) < len(found):
        raise InputError(f"{edit.text[:80]} names a token twice", why=f"the prompt has {n_pos} tokens")
    return found
