"""Edits of features in a text that grows: what each token's edits write is known once that token is there.

    token p is read:   present_f = what the encoder says of p while all edits of p and before it act
                       delta_m[p] = sum over the edited features f of (new_f - present_f) * W_dec_f,m
                       y_m[p] -> y_m[p] + delta_m[p]

No later token changes what an edit found, by causality. So every step is a whole pass over the text so far
with the same list at all its tokens, and a key-value cache stays exact (tests compare the logits).

Cost per new token: one whole pass for each source layer of set, scale and ablate; none for add and suppress.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.engine import Edit
from mi_core.model.model import LoadedModel
from mi_core.transcoders.feature_edits import FeatureEdit
from mi_core.transcoders.feature_edits_compile import Compiled, Placed, compile_placed
from mi_core.transcoders.transcoder import Transcoder


class GrowingFeatureEdits:
    """A list of edits at every token from some token on; `generate(..., growing=this)`. One per text.

    Args:
        model: the loaded model.
        transcoder: of that model.
        edits: the list; their own positions are not looked at.
        first: the first token that they act on.
        end: one past the last; None = every token that comes.
        prior: engine edits that act already, with explicit positions.
    """

    def __init__(
        self,
        model: LoadedModel,
        transcoder: Transcoder,
        edits: Sequence[FeatureEdit],
        first: int,
        end: int | None = None,
        prior: Sequence[Edit] = (),
    ) -> None:
        self._model, self._transcoder, self._edits = model, transcoder, tuple(edits)
        self._first, self._end, self._prior = first, end, tuple(prior)
        self._n_read = 0
        self._added: dict[int, list[tuple[tuple[int, ...], Tensor]]] = {}
        self._found: dict[tuple[int, int], float] = {}

    def __call__(self, tokens: Sequence[int]) -> list[Edit]:
        """All edits of a pass over the text so far; its new tokens are compiled now."""
        end = len(tokens) if self._end is None else min(self._end, len(tokens))
        new = range(max(self._first, self._n_read), end)
        acting = (*self._prior, *self._merged())
        self._n_read = max(self._n_read, len(tokens))
        if not new:
            return list(acting)
        placed = [
            Placed(piece, edit.feature.at(position), edit)
            for piece, edit in enumerate(self._edits)
            for position in new
        ]
        compiled = compile_placed(self._model, self._transcoder, tokens, placed, prior=acting)
        self._keep(compiled)
        return list(compiled.edits)

    def present(self, n_pos: int) -> Float[np.ndarray, "edit token"]:
        """Activation that each edit found; NaN where it did not act, or does not depend on one."""
        found = np.full((len(self._edits), n_pos), np.nan)
        for (piece, position), value in self._found.items():
            if position < n_pos:
                found[piece, position] = value
        return found

    def _keep(self, compiled: Compiled) -> None:
        for target, delta in compiled.deltas.items():
            self._added.setdefault(target, []).append((compiled.positions, delta))
        for one, value in zip(compiled.placed, compiled.present.tolist(), strict=True):
            self._found[one.piece, one.at.position] = value

    def _merged(self) -> list[Edit]:
        """What was added so far: one edit per layer, however long the text is."""
        site, merged = self._transcoder.writes.site, []
        for target, parts in sorted(self._added.items()):
            where = tuple(position for positions, _ in parts for position in positions)
            delta = torch.cat([part for _, part in parts])
            self._added[target] = [(where, delta)]
            merged.append(Edit(site, target, "add", where, value=delta))
        return merged
