"""Exact path patching of heads: what a head sends to a receiver directly, not through other heads.

    pass 1   z of the sender := its value in the counterfactual run; z of every other head := its clean value;
             MLPs are computed anew ("recomputed") or held at their clean outputs ("frozen"), all else anew;
             what then arrives at a receiver's query (key, value) is kept
    pass 2   clean run with only that query (key, value) := what was kept;  all else computed as usual
    effect   logit difference of pass 2 - logit difference of the clean run      [logits]

For the receiver "logits" pass 1 itself is read. Sources: Wang et al. 2022 (arXiv 2211.00593, section 3.1 and
appendix B; MLPs are recomputed there), Goldowsky-Dill et al. 2023 (arXiv 2304.05969, section 2).

With every head frozen no token can reach another one, so for what is read at the last token only the sender's
last position matters; that is exact and not an approximation. Queries are set at the last token (as in the
paper), keys and values at all tokens.

Cost: per sender one pass of the group for all head receivers together, and a sweep of a variant per sender
and receiver; for "logits" a sweep that runs one token per sender.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.attribution_inputs import head_name
from mi_core.analyses.path_patching_names import Head, Mlps, Part, Receiver
from mi_core.analyses.path_patching_rows import ROWS_AT_ONCE, Group, heads_written
from mi_core.engine import Base, Edit, Variant, run, sweep
from mi_core.errors import Cancelled
from mi_core.model.model import LoadedModel

Tick = Callable[[str], None]
"""Told of every part of the work that is done; may raise Cancelled."""


def kv_group(model: LoadedModel, receiver: Receiver) -> tuple[Head, ...]:
    """The heads that a receiver's edit reaches: grouped heads share their keys and values."""
    if receiver.layer is None:
        return ()
    size = 1 if receiver.part == "q" else model.dims.n_heads // model.dims.n_kv_heads
    first = receiver.head // size * size
    return tuple((receiver.layer, first + offset) for offset in range(size))


@dataclass(slots=True)
class Paths:
    """One group's clean and counterfactual runs, and the paths that are patched between them.

    Attributes:
        model: the loaded model.
        group: prompts.
        mlps: whether MLPs answer to the patch or are held.
        clean: what every head wrote in the clean prompts, per layer.
        other: the same in the counterfactual prompts.
        mlp_outputs: clean outputs of the MLPs, where they are frozen.
    """

    model: LoadedModel
    group: Group
    mlps: Mlps = "recomputed"
    clean: list[Tensor] = field(init=False)
    other: list[Tensor] = field(init=False)
    mlp_outputs: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        """Run both prompts once."""
        self.clean = heads_written(self.model, self.group.tokens)
        self.other = heads_written(self.model, self.group.counterfactual)
        self.mlp_outputs = []
        if self.mlps == "frozen":
            parts = [
                run(self.model, part, capture=["mlp_out"], last=1)
                for part in self.group.tokens.split(ROWS_AT_ONCE)
            ]
            layers = range(self.model.dims.n_layers)
            self.mlp_outputs = [torch.cat([part["mlp_out", layer] for part in parts]) for layer in layers]

    # --- receiver: logits ---

    def into_logits(self, senders: Sequence[Head], tick: Tick) -> Float[np.ndarray, "sender row"]:
        """Effects of every sender's direct path to the logits."""
        variants = [Variant(tuple(self._direct(layer, head))) for layer, head in senders]
        return self._swept(variants, tick)

    def _direct(self, layer: int, head: int) -> Iterator[Edit]:
        """The sender changes at the last token; all later heads (and frozen MLPs) stay as they were."""
        last = self.group.n_pos - 1
        yield Edit("z", layer, "set", (last,), (head,), value=self.other[layer][:, last:, head : head + 1])
        for later in range(layer, self.model.dims.n_layers):
            if later > layer:
                yield Edit("z", later, "set", (last,), value=self.clean[later][:, last:])
            if self.mlp_outputs:
                yield Edit("mlp_out", later, "set", (last,), value=self.mlp_outputs[later][:, last:])

    # --- receivers: heads ---

    def into_heads(
        self, senders: Sequence[Head], receivers: Sequence[Receiver], tick: Tick, *, together: bool
    ) -> Float[np.ndarray, "receiver sender row"]:
        """Effects through heads' inputs; NaN where the sender is not in an earlier layer.

        Args:
            senders: where paths begin.
            receivers: heads' inputs.
            tick: told of progress.
            together: set all receivers at once (one path set, first axis 1), as the paper does for the
                queries of all name movers.
        """
        sets = [tuple(receivers)] if together else [(receiver,) for receiver in receivers]
        effects = np.full((len(sets), len(senders), len(self.group)), np.nan)
        reach = [max(receiver.layer or 0 for receiver in one) for one in sets]
        for number, (layer, head) in enumerate(senders):
            if layer >= max(reach, default=0):
                continue
            arrived = self._arriving(layer, head, receivers)
            places = [index for index, highest in enumerate(reach) if highest > layer]
            variants = [Variant(tuple(self._received(arrived, sets[index], layer))) for index in places]
            effects[places, number] = self._swept(variants, lambda text: None)
            tick(head_name(layer, head))
        return effects

    def _arriving(self, layer: int, head: int, receivers: Sequence[Receiver]) -> dict[Receiver, Tensor]:
        """What reaches the inputs of receivers in later layers, [row, pos, 1, d_head] each."""
        later = [one for one in receivers if one.layer is not None and one.layer > layer]
        wanted = sorted({(one.part, one.layer) for one in later}, key=str)
        highest = max(one.layer or 0 for one in later)
        parts = [
            run(
                self.model,
                self.group.tokens[rows],
                edits=tuple(self._frozen(layer, head, highest, rows)),
                capture=wanted,
                last=1,
            )
            for rows in _slices(len(self.group))
        ]
        found: dict[Receiver, Tensor] = {}
        for one in later:
            own = self._own(one)
            found[one] = torch.cat([part[one.part, one.layer][:, :, own : own + 1] for part in parts])
        return found

    def _frozen(self, layer: int, head: int, highest: int, rows: slice) -> Iterator[Edit]:
        """All heads below `highest` held at their clean values but for the sender."""
        for at in range(layer, highest):
            value = self.clean[at][rows]
            if at == layer:
                value = value.clone()
                value[:, :, head] = self.other[at][rows][:, :, head]
            yield Edit("z", at, "set", value=value)
            if self.mlp_outputs:
                yield Edit("mlp_out", at, "set", value=self.mlp_outputs[at][rows])

    def _received(
        self, arrived: dict[Receiver, Tensor], receivers: Sequence[Receiver], layer: int
    ) -> Iterator[Edit]:
        """A clean run in which only these inputs are what arrived; earlier receivers get nothing new."""
        last = self.group.n_pos - 1
        done: set[tuple[Part, int | None, int]] = set()
        for one in receivers:
            place = (one.part, one.layer, self._own(one))
            if one.layer is None or one.layer <= layer or place in done:
                continue
            done.add(place)
            positions = (last,) if one.part == "q" else None
            value = arrived[one][:, last:] if one.part == "q" else arrived[one]
            yield Edit(one.part, one.layer, "set", positions, (self._own(one),), value=value)

    def _own(self, receiver: Receiver) -> int:
        """Index of a receiver on its site's head axis: keys and values count key/value heads."""
        size = 1 if receiver.part == "q" else self.model.dims.n_heads // self.model.dims.n_kv_heads
        return receiver.head // size

    def _swept(self, variants: Sequence[Variant], tick: Tick) -> Float[np.ndarray, "variant row"]:
        """Logit differences of the variants minus those of the clean run."""
        found = sweep(
            self.model,
            Base(self.group.tokens),
            variants,
            read=self.group.read,
            on_tick=lambda share: tick("logits"),
        )
        if found.cancelled:
            raise Cancelled
        return found.values["difference"] - found.base["difference"]


def _slices(n_rows: int) -> list[slice]:
    return [slice(start, start + ROWS_AT_ONCE) for start in range(0, n_rows, ROWS_AT_ONCE)]
