"""One step of a text that grows: a hooked pass over new tokens that reads the keys and values of old ones.

The cache is transformers' own `DynamicCache` with every key kept (no window is cut off: sliding windows are
in the mask), filled by hooked passes, so that keys and values hold the edits they were made under. Edits of
rotated keys act after the cache; they are made again at every step, at all their positions.

Whether this is exact for a model is proved on that very model, once (`why_not_cached`).
"""

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mi_core.engine.attention import Call
from mi_core.engine.edits import Edit
from mi_core.engine.layout import dense_layout, packed_layout
from mi_core.engine.place import Placed
from mi_core.engine.run import can_keep, memory_errors, run
from mi_core.engine.session import Session
from mi_core.model.model import LoadedModel
from mi_core.model.structure import text_config

_proved: WeakKeyDictionary[LoadedModel, str] = WeakKeyDictionary()


class StepSession(Session):
    """A pass over the tokens of one row from `first` on; attention gets the keys of all positions."""

    def __init__(self, model: LoadedModel, first: int, n_pos: int, edits: Sequence[Edit]) -> None:
        layout = dense_layout(1, n_pos) if first == 0 else packed_layout(n_pos, [(first, 1)])
        super().__init__(model, layout, [Placed(edit, 0, 1) for edit in edits])

    def attend(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, call: Call) -> Tensor:
        """Attention of one layer: [row, query, head, d_head]; `key` and `value` cover every position."""
        layer = self.model.structure.layer_of[id(module)]
        query = self._visit_heads(("rot_q", layer), query)
        own, self.layout = self.layout, dense_layout(1, key.shape[2])
        key = self._visit_heads(("rot_k", layer), key)
        self.layout = own
        out = self._kernel(layer, own.groups[0], query, key, value, call)
        return out.transpose(1, 2).contiguous()


class Growing:
    """A sequence that is read token by token, with its key-value cache.

    Args:
        model: the loaded model.
    """

    def __init__(self, model: LoadedModel) -> None:
        from transformers import DynamicCache

        self.model, self.n_read, self.cut_rows = model, 0, 0
        self._cache: Any = DynamicCache()

    def read(self, tokens: Sequence[int], edits: Sequence[Edit]) -> tuple[Float[Tensor, " d_vocab"], Session]:
        """Read more tokens; return the logits after the last and the session, for what acted.

        Args:
            tokens: the new tokens.
            edits: all edits of the sequence so far, with explicit positions (`live_edits`).
        """
        first, n_pos = self.n_read, self.n_read + len(tokens)
        # Edits at positions that were read before are in the cache; only rotated keys come back to them.
        due = [e for e in edits if e.site == "rot_k" or e.positions is None or max(e.positions) >= first]
        session = StepSession(self.model, first, n_pos, due)
        ids = torch.tensor([list(tokens)], dtype=torch.long, device=self.model.device)
        place = ("logits", None)
        keep = {"logits_to_keep": 1} if place not in session.edits and can_keep(self.model.hf) else {}
        with torch.inference_mode(), memory_errors(self.model), session:
            out = self.model.hf(input_ids=ids, past_key_values=self._cache, use_cache=True, **keep)
            logits = out.logits
            if place in session.edits:
                new = session.visit(place, logits.reshape(-1, logits.shape[-1]))
                logits = logits if new is None else new.reshape(logits.shape)
        self.n_read, self.cut_rows = n_pos, self.cut_rows + session.cut_rows
        return logits[0, -1], session


def why_not_cached(model: LoadedModel, n_total: int) -> str:
    """Why a key-value cache would not be exact for this model and length; "" when it is.

    A proof on the model itself, remembered: seven tokens read as 4 + 1 + 1 + 1 must give the logits that
    whole passes give, up to the rounding of the model's dtype. Cost: a few short passes, once per model.
    """
    reason = _length_dependent(model, n_total)
    if reason:
        return reason
    if model not in _proved:
        _proved[model] = _prove(model)
    return _proved[model]


def _prove(model: LoadedModel) -> str:
    tokens = torch.randint(0, model.dims.d_vocab, (7,), generator=torch.Generator().manual_seed(0)).tolist()
    grown = Growing(model)
    rounding = torch.finfo(model.dtype).eps ** 0.5  # a wrong position or mask is far above it in any dtype
    for end in (4, 5, 6, 7):
        try:
            logits, _ = grown.read(tokens[grown.n_read : end], ())
        except (TypeError, AttributeError, ValueError, IndexError) as error:  # families without this cache
            return f"its forward does not take a plain key-value cache ({type(error).__name__})"
        whole = run(model, torch.tensor([tokens[:end]]), last=1).logits[0, -1].double()
        error = float((logits.double() - whole).abs().max())
        if not error <= rounding * max(1.0, float(whole.abs().max())):
            return f"a cached step differs from a whole pass by {error:.2g} logits"
    return ""


def _length_dependent(model: LoadedModel, n_total: int) -> str:
    """Rotary tables that depend on the length of the text make old keys wrong once it grows."""
    config = text_config(model.hf.config)
    given = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in given.values() if isinstance(value, dict)] or [given]
    for rope in nested:
        kind = str(rope.get("rope_type", "default"))
        trained = rope.get("original_max_position_embeddings") or getattr(
            config, "max_position_embeddings", 0
        )
        if kind in ("dynamic", "longrope") and n_total > int(trained or 0):
            return f"its rotary tables ({kind}) change with the length of the text beyond {trained} tokens"
    return ""
