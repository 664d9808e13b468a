"""The shared sweep: all variants of a chunk continue the base run together, one call per layer.

Rows enter a growing packed batch at the first layer that they touch, and hold only the tokens from their
first edited position on; earlier tokens are read from the base run's keys and values. In the last layer only
the read positions need queries, so its keys and values are computed first (the layer is left as soon as they
are known) and the layer is then run on the read positions.

Cost per variant and base row: (n_pos - first) * (n_layers - entry) token-layers, of which the last layer is
mostly saved.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.engine.continuation import Continuation, KeysReady, RowKeys
from mi_core.engine.edits import Edit
from mi_core.engine.layout import Layout, packed_layout
from mi_core.engine.place import Place, Placed, apply_flat
from mi_core.engine.replay import BaseRun, call_block, tail
from mi_core.engine.session import Session
from mi_core.engine.variants import Placing, after_blocks, canonical, comes_first
from mi_core.errors import EditError
from mi_core.model.model import LoadedModel


@dataclass(slots=True)
class _Block:
    """The rows of one group of variants with the same first position."""

    first: int
    waiting: list[Placing]
    live: list[Placing] = field(default_factory=list)
    entered: int = 0
    rows: Tensor | None = None


class Chunk:
    """One chunk of variants on its way through the layers.

    Args:
        model: the model.
        base: the base run.
        placings: variants, sorted by (first, entry).
        read: read positions, ascending.
        tick: called after every layer; may raise Cancelled.
    """

    def __init__(
        self,
        model: LoadedModel,
        base: BaseRun,
        placings: Sequence[Placing],
        read: Sequence[int],
        tick: Callable[[], None],
    ) -> None:
        self.model, self.base, self.read, self.tick = model, base, list(read), tick
        self.n_layers, self.start = model.dims.n_layers, min(read)
        self.stream_edit: dict[int, Edit] = {}  # by id of an edit: the same written as `resid_pre`
        self.base_acts = self._by_layer(base.edits)
        self.acts = {placing.index: self._by_layer(placing.edits) for placing in placings}
        self.late = [p for p in placings if p.entry == self.n_layers]
        self.blocks: list[_Block] = []
        for placing in placings:
            if placing.entry == self.n_layers:
                continue
            if not self.blocks or self.blocks[-1].first != placing.first:
                self.blocks.append(_Block(placing.first, []))
            self.blocks[-1].waiting.append(placing)
        self.order = [p for block in self.blocks for p in block.waiting] + self.late

    def run(self) -> Float[Tensor, "variant row read d_model"]:
        """Run all layers; return the last block's output at the read positions, variants in `self.order`."""
        entries = [p.entry for block in self.blocks for p in block.waiting]
        for layer in range(min(entries, default=self.n_layers), self.n_layers):
            self._enter(layer)
            if layer == self.n_layers - 1 and any(b.first < self.start for b in self.blocks):
                self._last_layer(layer)
            else:
                self._layer(layer)
            self.tick()
        return self._finish()

    def _enter(self, layer: int) -> None:
        """Append the rows whose first edit is here, with the base's stream as it enters the layer."""
        stream = self.base.entering[layer]
        for block in self.blocks:
            block.entered = len(block.live)
            new = [p for p in block.waiting if p.entry == layer]
            if not new:
                continue
            block.live += new
            rows = stream[:, block.first :].repeat(len(new), 1, 1)
            block.rows = rows if block.rows is None else torch.cat([block.rows, rows.to(block.rows.device)])

    def _live(self) -> list[tuple[_Block, Tensor]]:
        return [(block, block.rows) for block in self.blocks if block.rows is not None]

    def _layout(self, start: int = 0) -> Layout:
        """Layout of the live rows, from their first position or from `start`, whichever is later."""
        return packed_layout(self.base.n_pos, [(max(b.first, start), len(rows)) for b, rows in self._live()])

    def _placed(self, layer: int) -> list[Placed]:
        """Edits of the live rows in this layer, in the order of a whole pass; base before variant."""
        n_base, placed, row = self.base.n_rows, [], 0
        shared = self.base_acts.get(layer, [])
        # A row that enters here starts from the base's stream, which has its `resid_post` edits already.
        unseen = [edit for edit in shared if edit.site != "resid_post"]
        for block, _ in self._live():
            for number, placing in enumerate(block.live):
                base_edits = shared if number < block.entered else unseen
                edits = [*base_edits, *self.acts[placing.index].get(layer, ())]
                edits.sort(key=comes_first, reverse=True)  # stable: otherwise the order stays
                placed += [Placed(self.stream_edit.get(id(edit), edit), row, n_base) for edit in edits]
                row += n_base
        return placed

    def _by_layer(self, edits: Sequence[Edit]) -> dict[int | None, list[Edit]]:
        """Edits by the layer in whose call they act, its input included; without those after the blocks."""
        acts: dict[int | None, list[Edit]] = {}
        for edit in edits:
            if after_blocks(edit, self.n_layers):
                continue
            acting = canonical(edit)
            if acting is not edit:
                self.stream_edit[id(edit)] = acting
            acts.setdefault(acting.layer, []).append(edit)
        return acts

    def _session(
        self,
        layout: Layout,
        placed: list[Placed],
        *,
        stop_at_keys: bool = False,
        key_rows: list[RowKeys] | None = None,
    ) -> Session:
        base = self.base
        continuation = Continuation(base.prefix, base.masks, base.n_rows, stop_at_keys, key_rows)
        return Session(self.model, layout, placed, continuation=continuation)

    def _pack(self) -> Tensor:
        live = self._live()
        device = live[0][1].device
        return torch.cat([rows.flatten(0, 1).to(device) for _, rows in live]).unsqueeze(0)

    def _unpack(self, out: Tensor, layout: Layout) -> None:
        for (block, _), group in zip(self._live(), layout.groups, strict=True):
            own = out[0, group.token : group.token + group.n_tokens]
            block.rows = own.unflatten(0, (group.n_rows, group.length))

    def _layer(self, layer: int) -> None:
        layout, placed = self._layout(), self._placed(layer)
        session = self._session(layout, placed)
        with torch.inference_mode(), session:
            out = call_block(self.model, self.base, layer, self._pack(), layout)
        _check(placed, session)
        self._unpack(out, layout)

    def _last_layer(self, layer: int) -> None:
        """Keys and values of all tokens first, then the layer itself on the read positions only."""
        layout, placed = self._layout(), self._placed(layer)
        first_pass = self._session(layout, placed, stop_at_keys=True)
        with torch.inference_mode(), first_pass, suppress(KeysReady):
            call_block(self.model, self.base, layer, self._pack(), layout)
        short = self._layout(self.start)
        for block, rows in self._live():
            block.rows = rows[:, max(0, self.start - block.first) :]
        second_pass = self._session(short, placed, key_rows=first_pass.joined)
        with torch.inference_mode(), second_pass:
            out = call_block(self.model, self.base, layer, self._pack(), short)
        _check(placed, first_pass, second_pass)
        self._unpack(out, short)

    def _finish(self) -> Tensor:
        """Collect [variant, row, read, d_model]; positions before a row's first are the base's."""
        base, parts = self.base, []
        final = base.streams[self.n_layers][:, self.start :]
        for block, rows in self._live():
            missing = max(0, block.first - self.start)
            past = final[:, :missing].repeat(len(block.live), 1, 1).to(rows.device)
            parts.append(torch.cat([past, rows], 1))
        if self.late:
            parts.append(final.repeat(len(self.late), 1, 1))
        device = parts[0].device
        return torch.cat([part.to(device) for part in parts]).unflatten(0, (len(self.order), base.n_rows))

    def logits(self, hidden: Tensor, part: slice) -> Float[Tensor, "variant row read d_vocab"]:
        """Logits at the read positions for a part of `self.order`; `hidden` is what `run` returned."""
        chosen, n_base = self.order[part], self.base.n_rows
        layout = packed_layout(self.base.n_pos, [(self.start, len(chosen) * n_base)])
        placed = self._late_edits(chosen)
        flat = hidden[part].flatten(0, 1)
        streams = [item for item in placed if item.edit.site == "resid_post"]
        if streams:
            flat = apply_flat(flat.flatten(0, 1), streams, layout)[0].unflatten(0, flat.shape[:2])
        rest = [item for item in placed if item.edit.site != "resid_post"]
        out = tail(self.model, flat, rest, last_position=self.base.n_pos - 1)
        wanted = [position - self.start for position in self.read]
        return out[:, wanted].unflatten(0, (len(chosen), n_base))

    def _late_edits(self, chosen: Sequence[Placing]) -> list[Placed]:
        n_base, placed = self.base.n_rows, []
        shared = [edit for edit in self.base.edits if after_blocks(edit, self.n_layers)]
        for number, placing in enumerate(chosen):
            own = [edit for edit in placing.edits if after_blocks(edit, self.n_layers)]
            late = placing.entry == self.n_layers
            kept = [edit for edit in shared if not (late and edit.site == "resid_post")]
            placed += [Placed(edit, number * n_base, n_base) for edit in (*kept, *own)]
        return placed


def _check(placed: Sequence[Placed], *sessions: Session) -> None:
    """Every place with edits must have been reached by a hook (a base edit may lie before all live tokens).

    Raises:
        EditError: naming the first that was not.
    """
    places: set[Place] = {(item.edit.site, item.edit.layer) for item in placed}
    for place in sorted(places, key=str):
        if not any(place in session.visited for session in sessions):
            raise EditError(
                f"An edit at {place[0]!r}, layer {place[1]}, never took effect", why="its hook did not fire"
            )
