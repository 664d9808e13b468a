"""Edits: the one form in which every intervention reaches the model.

An `Edit` says site, layer, which positions / heads / units, and what happens to the value there. Knock-out,
patching, noise, steering and feature injection are lists of edits. Edits without a tensor have a text form
for links and search boxes:

    L5H2:zero             zero head 2 of layer 5 (its `z`) at all positions
    L5H2@3,4:scale=0.5    halve it at positions 3 and 4
    L4attn:zero  L4mlp@7:zero     what attention / the MLP adds to the stream
    L4R@7:zero                    the stream after layer 4 (`resid_post`)
    L3N102:0              hold neuron 102 of layer 3 (`mlp_post`) at 0
    e14-2@L5H2  e14-2@L5  cut the edge from query 14 to key 2, in one head / in all heads of a layer
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from mi_core.errors import EditError
from mi_core.model.structure import Structure
from mi_core.sites import site

Operation = Literal["set", "add", "scale", "zero", "mean", "mask", "clamp", "scale_edges", "set_edges"]
Value = Tensor | float | tuple[float, float] | None

_NEEDS_VALUE = {"set", "add", "scale", "mean", "clamp", "scale_edges", "set_edges"}
_SQUARE_SITES = {"attn_scores", "pattern"}


@dataclass(frozen=True, eq=False, slots=True)
class Edit:
    """One change to one activation.

    Attributes:
        site: site name, see `mi_core.sites`.
        layer: layer, or None for a model site (`embed`, `final_norm`, `logits`).
        operation: "set" to `value`; "add" `value`; "scale" by `value`; "zero"; "mean": set to `value`, a
            mean over reference
            prompts; "clamp" between `value` = (low, high); "mask": cut attention edges before the softmax
            (`pattern` or `attn_scores` only). At `pattern` only, with keys: "scale_edges": multiply the
            chosen edges by `value`, then divide each of their rows by its sum; "set_edges": the chosen edges
            get exactly `value`, the others of the row are multiplied by one factor so that it sums to 1.
        positions: token positions, negative from the end; queries for attention squares; None for all.
        heads: heads (kv heads at `k`, `v`, `rot_k`), None for all; only at sites with heads.
        units: indices on the last axis (neurons at `mlp_post`), None for all; not at attention squares.
        keys: key positions of attention squares, None for all.
        value: number, or tensor that broadcasts to [row, position, (head,) width] of what is selected, for
            squares to [row, head, query, key]. A row axis of 1 serves all rows.

    Raises:
        EditError: operation, selection and value do not fit together.
    """

    site: str
    layer: int | None = None
    operation: Operation = "set"
    positions: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    units: tuple[int, ...] | None = None
    keys: tuple[int, ...] | None = None
    value: Value = field(default=None, repr=False)

    def __post_init__(self) -> None:
        found = site(self.site)
        square = self.site in _SQUARE_SITES
        if self.operation not in get_args(Operation):
            raise EditError(
                f"Unknown operation {self.operation!r}", fix=f"Use one of {', '.join(get_args(Operation))}"
            )
        if self.operation == "mask" and not square:
            raise EditError("Only attention edges can be masked", why=f"the edit is at {self.site!r}")
        if self.operation in _NEEDS_VALUE and self.value is None:
            raise EditError(f"Operation {self.operation!r} at {self.site!r} needs a value")
        if self.operation in ("scale_edges", "set_edges"):
            self._check_edges()
        if (self.operation == "clamp") != isinstance(self.value, tuple):
            raise EditError(
                "A pair (low, high) belongs to the operation 'clamp'", why=f"got {self.operation!r}"
            )
        if self.keys is not None and not square:
            raise EditError(
                "Keys can only be chosen at attn_scores and pattern", why=f"the edit is at {self.site!r}"
            )
        if self.units is not None and square:
            raise EditError("Attention squares have no units", fix="Choose positions (queries) and keys")
        if self.heads is not None and not found.by_head:
            raise EditError(f"Site {self.site!r} has no heads")
        if (self.layer is None) == found.per_layer:
            raise EditError(f"Site {self.site!r} {'needs' if found.per_layer else 'takes no'} layer")

    def _check_edges(self) -> None:
        """Weights of edges are shares: not negative, and those that are set leave a row at most its whole."""
        if self.site != "pattern" or self.keys is None:
            raise EditError(f"Operation {self.operation!r} needs the site 'pattern' and keys")
        numbers = torch.as_tensor(self.value, dtype=torch.float64)
        if not bool(torch.isfinite(numbers).all()) or bool((numbers < 0).any()):
            raise EditError(f"Operation {self.operation!r} needs numbers that are not negative")
        if self.operation == "set_edges":
            wide = numbers.dim() > 0 and numbers.shape[-1] == len(self.keys)
            whole = numbers.sum(-1) if wide else numbers * len(self.keys)
            if bool((whole > 1 + 1e-9).any()):
                raise EditError(
                    "The edges of a row were set to more than 1 in all", why="a row of attention sums to 1"
                )

    @property
    def square(self) -> bool:
        """Whether the edit is at an attention square [head, query, key]."""
        return self.site in _SQUARE_SITES


def normalise(edit: Edit, structure: Structure, n_pos: int) -> Edit:
    """Check an edit against the model and the prompt, and make every index non-negative.

    Raises:
        SiteMissing: the model does not have the site or layer.
        EditError: an index is out of range, or the value's shape does not fit.
    """
    structure.require(edit.site, edit.layer)
    sizes = dict(zip(site(edit.site).axes, structure.shape(edit.site, n_pos), strict=True))
    n_heads = sizes.get("head", sizes.get("kv_head", 0))
    width = structure.shape(edit.site, n_pos)[-1]
    fixed = Edit(
        edit.site,
        edit.layer,
        edit.operation,
        _indices(edit.positions, n_pos, "position"),
        _indices(edit.heads, n_heads, "head"),
        _indices(edit.units, width, "unit"),
        _indices(edit.keys, n_pos, "key"),
        edit.value,
    )
    if isinstance(edit.value, Tensor):
        _check_shape(fixed, structure.shape(edit.site, n_pos), n_pos)
    return fixed


def _indices(chosen: tuple[int, ...] | None, size: int, what: str) -> tuple[int, ...] | None:
    if chosen is None:
        return None
    if not chosen:
        raise EditError(f"No {what} is selected")
    bad = [index for index in chosen if not -size <= index < size]
    if bad:
        raise EditError(f"There is no {what} {bad[0]}", why=f"{what}s run from 0 to {size - 1}")
    fixed = tuple(index % size for index in chosen)
    if len(set(fixed)) < len(fixed):
        raise EditError(f"A {what} is selected twice", why=f"{fixed}")
    return fixed


def _check_shape(edit: Edit, shape: tuple[int, ...], n_pos: int) -> None:
    """The value must broadcast to what is selected, whatever the number of rows."""
    assert_value = edit.value
    if not isinstance(assert_value, Tensor):
        return
    wanted = list(shape)
    if edit.square:
        wanted[0] = len(edit.heads) if edit.heads is not None else shape[0]
        wanted[1] = len(edit.positions) if edit.positions is not None else n_pos
        wanted[2] = len(edit.keys) if edit.keys is not None else n_pos
    else:
        wanted[0] = len(edit.positions) if edit.positions is not None else n_pos
        if len(wanted) == 3 and edit.heads is not None:
            wanted[1] = len(edit.heads)
        if edit.units is not None:
            wanted[-1] = len(edit.units)
    got = list(assert_value.shape)
    core = got[-len(wanted) :] if len(got) > len(wanted) else got
    if len(got) > len(wanted) + 1 or any(
        g not in (1, w) for g, w in zip(reversed(core), reversed(wanted), strict=False)
    ):
        raise EditError(
            f"The value of the edit at {edit.site!r} has the wrong shape",
            why=f"{tuple(got)} does not broadcast to [row, {', '.join(map(str, wanted))}]",
        )


def first_position(edit: Edit) -> int:
    """The first position whose value an edit can change, by causality."""
    return 0 if edit.positions is None else min(edit.positions)


_EDGE = re.compile(r"e(\d+)-(\d+)@L(\d+)(?:H(\d+))?")
_PART = re.compile(
    r"L(\d+)(?:H(\d+)|N(\d+)|(attn|mlp|R))(?:@(\d+(?:,\d+)*))?:(zero|scale=)?(-?\d+(?:\.\d+)?)?"
)
_WHOLE = {"attn": "attn_out", "mlp": "mlp_out", "R": "resid_post"}
"""Word in the text form -> site, of what is neither a head nor a neuron."""


def parse_edit(text: str) -> Edit:
    """Read the text form of an edit (see the module docstring).

    Raises:
        EditError: the text is not of this form.
    """
    edge = _EDGE.fullmatch(text.strip())
    if edge:
        query, key, layer, head = edge.groups()
        heads = None if head is None else (int(head),)
        return Edit("pattern", int(layer), "mask", (int(query),), heads, keys=(int(key),))
    part = _PART.fullmatch(text.strip())
    if part is None or (part[6] == "zero") == (part[7] is not None):
        raise EditError(
            f"{text!r:.80} is not an intervention",
            fix="Write for example L5H2:zero, L4mlp@7:zero or e14-2@L5H2",
        )
    layer, head, neuron, half, where, kind, number = part.groups()
    positions = None if where is None else tuple(int(p) for p in where.split(","))
    name = _WHOLE[half] if half else "z" if head is not None else "mlp_post"
    operation: Operation = "zero" if kind == "zero" else "scale" if kind else "set"
    return Edit(
        name,
        int(layer),
        operation,
        positions,
        None if head is None else (int(head),),
        None if neuron is None else (int(neuron),),
        value=None if kind == "zero" else float(number),
    )


def format_edit(edit: Edit) -> str:
    """Text form of an edit, the inverse of `parse_edit`.

    Raises:
        EditError: the edit holds a tensor or a selection that the text form cannot say.
    """
    if (
        edit.operation == "mask"
        and edit.positions
        and edit.keys
        and len(edit.positions) == len(edit.keys) == 1
    ):
        head = "" if edit.heads is None else f"H{edit.heads[0]}"
        return f"e{edit.positions[0]}-{edit.keys[0]}@L{edit.layer}{head}"
    names = {site: text for text, site in _WHOLE.items()}
    one_head, one_unit = edit.heads and len(edit.heads) == 1, edit.units and len(edit.units) == 1
    if edit.site == "z" and one_head and edit.units is None:
        what = f"H{(edit.heads or (0,))[0]}"
    elif edit.site == "mlp_post" and one_unit:
        what = f"N{(edit.units or (0,))[0]}"
    elif edit.site in names and edit.units is None:
        what = names[edit.site]
    else:
        raise EditError(f"An edit at {edit.site!r} with this selection has no text form")
    if edit.operation not in ("zero", "scale", "set") or isinstance(edit.value, Tensor):
        raise EditError(f"An edit with operation {edit.operation!r} and this value has no text form")
    where = "" if edit.positions is None else "@" + ",".join(map(str, edit.positions))
    prefix = {"zero": "zero", "scale": "scale=", "set": ""}[edit.operation]
    return f"L{edit.layer}{what}{where}:{prefix}{'' if edit.value is None else f'{edit.value:g}'}"


def combine(old: Tensor, operation: Operation, value: Value) -> Tensor:
    """The value after an edit; `value` is already of the shape of `old` or broadcasts to it."""
    if operation == "zero":
        return torch.zeros_like(old)
    if operation == "clamp" and isinstance(value, tuple):
        return old.clamp(*value)
    if isinstance(value, tuple) or value is None:
        raise EditError(f"Operation {operation!r} cannot use the value {value!r}")
    given = (
        value.to(old.device, old.dtype)
        if isinstance(value, Tensor)
        else torch.tensor(value, dtype=old.dtype, device=old.device)
    )
    if operation == "add":
        return old + given
    if operation == "scale":
        return old * given
    return given.expand_as(old)


def edits_at(edits: Sequence[Edit], name: str, layer: int | None) -> list[Edit]:
    """The edits of a list that act at one place, in order."""
    return [edit for edit in edits if edit.site == name and edit.layer == layer]
