"""One forward pass per prompt, shared by everybody who only looks: `observe(model, token_ids, sites)`.

Cost: one forward pass for a prompt that was not seen lately, nothing for one that was. The first request
keeps every site that the pages look at, if their values fit into `MEMO_BYTES`; a prompt too long for that
keeps only the sites that were asked for. Observations live with the model and leave with it.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from mi_core.engine.place import Place
from mi_core.engine.run import expand, run
from mi_core.model.model import LoadedModel

OBSERVED = (
    "embed",
    "v",
    "pattern",
    "z",
    "attn_out",
    "resid_mid",
    "mlp_post",
    "mlp_out",
    "resid_post",
    "final_norm",
    "logits",
)
"""What the first pass over a prompt keeps. `resid_pre` is `embed` or the `resid_post` of the layer before."""

MEMO_BYTES = 768 * 2**20
"""What all remembered observations of a model may hold together."""


@dataclass(frozen=True, eq=False, slots=True)
class Observation:
    """The activations of one prompt.

    Attributes:
        tokens: its token ids.
        values: (site, layer) -> value without a row axis, on the model's device and in its dtype. They are
            shared: torch refuses to change them in place (they were made in inference mode).
    """

    tokens: tuple[int, ...]
    values: Mapping[Place, Tensor]

    def __getitem__(self, place: Place) -> Tensor:
        """The value at (site, layer); layer is None for `embed`, `final_norm` and `logits`.

        Raises:
            KeyError: the site was not asked for.
        """
        return self.values[_kept_as(place)]

    def __contains__(self, place: object) -> bool:
        return isinstance(place, tuple) and _kept_as(place) in self.values

    @property
    def bytes(self) -> int:
        """Memory that the values hold."""
        return sum(value.numel() * value.element_size() for value in self.values.values())


def observe(model: LoadedModel, token_ids: Sequence[int], sites: Sequence[str]) -> Observation:
    """The activations of a prompt at the given sites, all layers (more may be in the answer).

    Args:
        model: the loaded model.
        token_ids: the prompt.
        sites: names from `mi_core.sites`.

    Raises:
        SiteMissing: the model lacks a site.
        InputError: no tokens, too many, or ids outside the vocabulary.
        OutOfMemory: the device is too small.
    """
    tokens = tuple(int(token) for token in token_ids)
    wanted = list(dict.fromkeys(_kept_as(place) for place in expand(model, sites)))
    with model.lock:  # two threads that ask for the same prompt share one pass
        known = model.observations.get(tokens)
        missing = wanted if known is None else [place for place in wanted if place not in known.values]
        if known is None or missing:
            known = _look(model, tokens, missing, known)
            _remember(model.observations, known)
        else:
            model.observations.move_to_end(tokens)
        return known


def _look(
    model: LoadedModel, tokens: tuple[int, ...], missing: list[Place], known: Observation | None
) -> Observation:
    """A pass over the prompt that adds what is missing, and everything else if it fits."""
    places = missing
    if known is None:
        offered = [site for site in OBSERVED if site in model.structure.available()]
        everything = list(dict.fromkeys([*expand(model, offered), *missing]))
        if _bytes(model, everything, len(tokens)) <= MEMO_BYTES:
            places = everything
    done = run(model, torch.tensor([tokens], dtype=torch.long), capture=places, last=1)
    values = {place: value[0] for place, value in done.items()}
    return Observation(tokens, {**({} if known is None else known.values), **values})


def _bytes(model: LoadedModel, places: Sequence[Place], n_pos: int) -> int:
    numbers = sum(prod(model.structure.shape(name, n_pos)) for name, _ in places)
    return numbers * model.dtype.itemsize


def _remember(memo: "OrderedDict[tuple[int, ...], Observation]", seen: Observation) -> None:
    """Keep an observation and let the least recently used ones go; one too big alone is not kept."""
    memo.pop(seen.tokens, None)
    if seen.bytes > MEMO_BYTES:
        return
    memo[seen.tokens] = seen
    while sum(other.bytes for other in memo.values()) > MEMO_BYTES:
        memo.popitem(last=False)


def _kept_as(place: Place) -> Place:
    """The place under which a value is kept: the stream before a block is the stream after the last one."""
    name, layer = place
    if name != "resid_pre" or layer is None:
        return place
    return ("embed", None) if layer == 0 else ("resid_post", layer - 1)
