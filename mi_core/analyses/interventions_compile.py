"""Interventions compiled to engine edits, checked against the model and the prompt.

    mean:      value = mean over the reference prompts, per position if all of them have as many tokens as the
               prompt, else over all their positions
    resample:  value = what prompt B has at the same position (as many tokens as the prompt)

The edits do not depend on the order of the list: cuts act before the softmax, then factors, then values; two
interventions that give the same activation a value are refused. Cost: one pass per reference prompt and one
for prompt B, both remembered with the model (`mi_core.engine.observe`).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mi_core.analyses.interventions_grammar import ATTENTION_TARGETS, Intervention
from mi_core.engine.edits import Edit
from mi_core.engine.observe import observe
from mi_core.errors import InputError

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel

MIN_REFERENCE = 8
_SITES = {
    "head": "z", "attention": "attn_out", "mlp": "mlp_out", "neuron": "mlp_post", "residual": "resid_post",
}  # fmt: skip
_ORDER = {"mask": 0, "scale_edges": 1, "scale": 1, "set_edges": 2, "zero": 2, "mean": 2, "set": 2}


@dataclass(frozen=True, slots=True)
class Reference:
    """What mean and resample take their values from.

    Attributes:
        mean_ids: token ids of each reference prompt, at least `MIN_REFERENCE` of them.
        resample_ids: token ids of prompt B, or None.
    """

    mean_ids: tuple[tuple[int, ...], ...] = ()
    resample_ids: tuple[int, ...] | None = None

    def by_position(self, n_pos: int) -> bool:
        """Whether means are taken per position: every reference prompt is as long as the prompt."""
        return bool(self.mean_ids) and all(len(ids) == n_pos for ids in self.mean_ids)


def compile_edits(
    model: "LoadedModel",
    tokens: Sequence[int],
    interventions: Sequence[Intervention],
    reference: Reference | None = None,
) -> list[Edit]:
    """Edits that do what a list of interventions says.

    Args:
        model: the loaded model.
        tokens: token ids of the prompt (of one row; every row of a batch of this length gets the same).
        interventions: in any order; the result does not depend on it.
        reference: for mean and resample.

    Raises:
        InputError: naming the intervention that does not fit the model, the prompt or another one.
        SiteMissing: the model does not have what is to be changed.
    """
    n_pos = len(tokens)
    given = reference or Reference()
    for one in interventions:
        check_intervention(model, n_pos, one, given)
    _check_values(interventions, n_pos)
    edits = [edit for one in interventions for edit in _edits(model, n_pos, one, given)]
    for edit in _set_edges(model, [one for one in interventions if one.mode == "set"]):
        _check_not_cut(edit, edits)
        edits.append(edit)
    return sorted(edits, key=_key)


def _key(edit: Edit) -> tuple[object, ...]:
    parts = (edit.positions, edit.heads, edit.units, edit.keys)
    return (
        _ORDER[edit.operation],
        edit.site,
        edit.layer or 0,
        *(() if part is None else part for part in parts),
        edit.value if isinstance(edit.value, float) else 0.0,
    )


def check_intervention(model: "LoadedModel", n_pos: int, one: Intervention, reference: Reference) -> None:
    """Refuse what the model or the prompt does not have.

    Raises:
        InputError: naming the intervention and the part that does not exist.
    """
    dims = model.dims
    bounds = [("layer", layer, dims.n_layers) for layer, _ in one.places]
    bounds += [("head", head, dims.n_heads) for _, head in one.places if head is not None]
    bounds += [("token", position, n_pos) for position in one.positions or ()]
    bounds += [("query", one.query or 0, n_pos), ("key", one.key or 0, n_pos)]
    bounds += [("neuron", one.neuron or 0, max(1, dims.d_mlp))]
    for what, index, size in bounds:
        if not 0 <= index < size:
            why = f"there is no {what} {index}; they run from 0 to {size - 1}"
            raise InputError(f"{one.text[:80]} does not fit", why=why, fix="Change or remove it")
    if one.target == "edge" and (one.key or 0) > (one.query or 0):
        raise InputError(
            f"{one.text[:80]} is an edge from the future",
            why=f"token {one.query} cannot read token {one.key}, which comes later",
            fix="Write the query first, then an earlier key",
        )
    if one.mode == "set" and one.query == 0 and one.value != 1:
        raise InputError(f"{one.text[:80]} cannot be set", why="token 0 reads only itself, so its edge is 1")
    _check_reference(one, n_pos, reference)


def _check_reference(one: Intervention, n_pos: int, reference: Reference) -> None:
    if one.needs_mean and len(reference.mean_ids) < MIN_REFERENCE:
        raise InputError(
            f"{one.text[:80]} needs reference prompts",
            why=f"a mean over {len(reference.mean_ids)} prompts says little",
            fix=f"Give at least {MIN_REFERENCE}",
        )
    if one.needs_second_prompt and reference.resample_ids is None:
        raise InputError(f"{one.text[:80]} needs prompt B", fix="Type a second prompt with as many tokens")
    if one.needs_second_prompt and len(reference.resample_ids or ()) != n_pos:
        raise InputError(
            f"{one.text[:80]} needs prompts of equal length",
            why=f"the prompt has {n_pos} tokens, prompt B {len(reference.resample_ids or ())}",
            fix="Change words of prompt B until it has as many tokens",
        )


def _check_values(interventions: Sequence[Intervention], n_pos: int) -> None:
    """Two values for one activation would make the result depend on the order of the list.

    Raises:
        InputError: naming both.
    """
    taken: dict[tuple[object, ...], Intervention] = {}
    for one in interventions:
        if one.target in ATTENTION_TARGETS or one.mode == "scale":
            continue
        for position in range(n_pos) if one.positions is None else one.positions:
            slot = (one.target, one.places, one.neuron, position)
            other = taken.setdefault(slot, one)
            if other is not one:
                raise InputError(
                    f"{other.text[:80]} and {one.text[:80]} give the same activation two values",
                    fix="Remove one of them",
                )


def _edits(model: "LoadedModel", n_pos: int, one: Intervention, reference: Reference) -> list[Edit]:
    if one.target in ATTENTION_TARGETS:
        return [] if one.mode == "set" else _edge_edits(model, one)
    layer, head = one.places[0]
    site = _SITES[one.target]
    model.structure.require(site, layer)
    heads = None if head is None else (head,)
    units = None if one.neuron is None else (one.neuron,)
    if one.mode == "zero":
        return [Edit(site, layer, "zero", one.positions, heads, units)]
    if one.mode in ("scale", "hold"):
        operation = "scale" if one.mode == "scale" else "set"
        return [Edit(site, layer, operation, one.positions, heads, units, value=one.value)]
    if one.mode == "mean":
        value = mean_value(model, site, layer, n_pos, reference)
    else:
        value = observe(model, reference.resample_ids or (), [site])[site, layer]
    return [Edit(site, layer, "set", one.positions, heads, units, value=_selected(value, one, heads, units))]


def mean_value(model: "LoadedModel", site: str, layer: int, n_pos: int, reference: Reference) -> Tensor:
    """Mean of an activation over the reference prompts.

    Returns:
        [pos or 1, ...] in the model's dtype; 1 = the mean over all positions, where lengths differ.
    """
    by_position = reference.by_position(n_pos)
    total, count = None, 0
    for ids in reference.mean_ids:
        value = observe(model, ids, [site])[site, layer].to("cpu", torch.float64)
        part = value if by_position else value.sum(0, keepdim=True)
        total = part.clone() if total is None else total + part
        count += 1 if by_position else len(ids)
    if total is None:
        raise InputError("There are no reference prompts", fix=f"Give at least {MIN_REFERENCE}")
    return (total / count).to(model.dtype)


def _selected(
    value: Tensor, one: Intervention, heads: tuple[int, ...] | None, units: tuple[int, ...] | None
) -> Tensor:
    """The part of [pos or 1, (head,) width] that an edit sets."""
    if one.positions is not None and len(value) > 1:
        value = value[list(one.positions)]
    if heads is not None:
        value = value[:, list(heads)]
    return value if units is None else value[..., list(units)]


def _by_layer(model: "LoadedModel", one: Intervention) -> dict[int, tuple[int, ...] | None]:
    """Heads of each layer that an edge is about; None = all heads."""
    chosen: dict[int, tuple[int, ...] | None] = {}
    for layer, head in one.places or [(layer, None) for layer in range(model.dims.n_layers)]:
        model.structure.require("pattern", layer)
        known = chosen.get(layer, ())
        chosen[layer] = None if head is None or known is None else tuple(sorted({*known, head}))
    return chosen


def _edge_edits(model: "LoadedModel", one: Intervention) -> list[Edit]:
    """An edge, row or column, cut before the softmax or scaled after it."""
    # A column has no query: earlier ones read nothing of the key anyway, later ones may still be generated.
    queries = None if one.query is None else (one.query,)
    keys = tuple(range((one.query or 0) + 1)) if one.key is None else (one.key,)
    cut = one.mode == "cut" or one.value == 0  # no weight and the rest rescaled is what a cut is
    operation = "mask" if cut else "scale_edges"
    return [
        Edit("pattern", layer, operation, queries, heads, keys=keys, value=None if cut else one.value)
        for layer, heads in _by_layer(model, one).items()
    ]


def _check_not_cut(wanted: Edit, edits: Sequence[Edit]) -> None:
    """An edge cannot be cut and have a weight.

    Raises:
        InputError: naming the edge.
    """
    for edit in edits:
        if edit.operation == "mask" and edit.layer == wanted.layer and _overlap(edit, wanted):
            query, head = (wanted.positions or (0,))[0], (wanted.heads or (0,))[0]
            key = next(key for key in wanted.keys or () if key in (edit.keys or ()))
            raise InputError(
                f"e{query}-{key}@L{wanted.layer}H{head} is cut and set at once", fix="Remove one of them"
            )


def _overlap(a: Edit, b: Edit) -> bool:
    pairs = ((a.positions, b.positions), (a.heads, b.heads), (a.keys, b.keys))
    return all(one is None or other is None or set(one) & set(other) for one, other in pairs)


def _set_edges(model: "LoadedModel", interventions: Sequence[Intervention]) -> list[Edit]:
    """One edit per row of attention with all its edges that are set, so that each gets exactly its value.

    Raises:
        InputError: an edge is set twice, or a row is set to more than 1 in all.
    """
    rows: dict[tuple[int, int, int], dict[int, Intervention]] = defaultdict(dict)
    for one in interventions:
        for layer, heads in _by_layer(model, one).items():
            for head in range(model.dims.n_heads) if heads is None else heads:
                row = rows[layer, head, one.query or 0]
                other = row.setdefault(one.key or 0, one)
                if other is not one:
                    raise InputError(
                        f"{other.text[:80]} and {one.text[:80]} set the same edge", fix="Remove one of them"
                    )
    edits = []
    for (layer, head, query), row in sorted(rows.items()):
        keys = tuple(sorted(row))
        shares = [row[key].value or 0.0 for key in keys]
        if sum(shares) > 1 + 1e-9:
            named = ", ".join(row[key].text[:60] for key in keys)
            raise InputError(f"A row of attention cannot be set to {sum(shares):g} in all", why=named)
        value = torch.tensor(shares, dtype=torch.float64).view(1, 1, 1, -1)
        edits.append(Edit("pattern", layer, "set_edges", (query,), (head,), keys=keys, value=value))
    return edits
