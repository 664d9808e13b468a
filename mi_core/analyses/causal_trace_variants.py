"""A causal trace as engine variants: one per cell, all kinds in one list.

    state             resid_post of (l, t) := source run's
    attn, mlp         what the sub-module adds at t, in every layer of the window around l := source run's
    state_*_severed   the state as above, and what the sub-module adds at t in all later layers := base run's
    head              z of one head of layer l, at one position or at all that can differ := source run's

Severing needs no edit in earlier layers, which have not changed, nor in layer l, whose output is overwritten.
"Source" is the clean run when denoising and the corrupted run when noising; "base" is the other one.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from mi_core.analyses.causal_trace_inputs import CausalTraceInputs, Kind
from mi_core.engine import Edit, Variant
from mi_core.errors import InputError

SITE_OF: dict[Kind, str] = {
    "state": "resid_post",
    "attn": "attn_out",
    "mlp": "mlp_out",
    "state_attn_severed": "resid_post",
    "state_mlp_severed": "resid_post",
    "head": "z",
}
SEVERED_SITE: dict[Kind, str] = {"state_attn_severed": "attn_out", "state_mlp_severed": "mlp_out"}

Values = Callable[[str, int], Tensor | float]
"""(site, layer) -> a run's values there, [row, pos, ...]; a plain number when only the cost is asked for."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Where a variant's numbers belong.

    Attributes:
        kind: grid.
        row: index into the grid's rows.
        layer: column.
    """

    kind: Kind
    row: int
    layer: int


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes that the list of cells depends on.

    Attributes:
        n_layers: layers.
        n_heads: query heads.
        n_prompt: tokens of the prompt.
        n_tokens: tokens of the run: the prompt, and the answer's but the last.
        first_difference: first position at which the runs differ.
    """

    n_layers: int
    n_heads: int
    n_prompt: int
    n_tokens: int
    first_difference: int


def window_layers(layer: int, window: int, n_layers: int, convention: str) -> range:
    """Layers that are patched together around `layer`, clipped at both ends.

    Args:
        layer: centre.
        window: how many.
        n_layers: layers of the model.
        convention: for even windows "code" reaches one further down ([l-5, l+4] for 10: ROME's program),
            "paper" one further up ([l-4, l+5]: arXiv 2202.05262, B.2). Odd windows are symmetric in both.
    """
    below = window // 2 if convention == "code" else (window - 1) // 2
    return range(max(0, layer - below), min(n_layers, layer - below + window))


def rows_of(kind: Kind, inputs: CausalTraceInputs, shape: Shape) -> tuple[int, ...]:
    """What the rows of a grid stand for: heads, or the positions asked for.

    Raises:
        InputError: a position outside the prompt.
    """
    if kind == "head":
        if inputs.head_position is not None:
            _check_positions((inputs.head_position,), shape)
        return tuple(range(shape.n_heads))
    if inputs.positions is None:
        return tuple(range(shape.n_prompt))
    _check_positions(inputs.positions, shape)
    return tuple(sorted(set(inputs.positions)))


def _check_positions(positions: tuple[int, ...], shape: Shape) -> None:
    bad = [position for position in positions if not 0 <= position < shape.n_prompt]
    if bad or not positions:
        what = f"Token {bad[0]} cannot be traced" if bad else "No token was chosen to be traced"
        raise InputError(what, why=f"the prompt's tokens are 0 to {shape.n_prompt - 1}")


def is_fixed(kind: Kind, row: int, inputs: CausalTraceInputs, shape: Shape) -> bool:
    """Whether causality makes all of a row equal the base run: both runs agree at its position."""
    position = inputs.head_position if kind == "head" else row
    return position is not None and position < shape.first_difference


def build_variants(
    inputs: CausalTraceInputs, shape: Shape, source: Values, base: Values
) -> tuple[list[Cell], list[Variant]]:
    """All cells that need computing, and the variant of each.

    Args:
        inputs: what was asked for.
        shape: sizes.
        source: values to patch in.
        base: values of the run that is patched into; used by the severed kinds only.
    """
    builder = _Builder(inputs, shape, source, base)
    cells = [
        Cell(kind, index, layer)
        for kind in inputs.kinds
        for index, row in enumerate(rows_of(kind, inputs, shape))
        if not is_fixed(kind, row, inputs, shape)
        for layer in range(shape.n_layers)
    ]
    rows = {kind: rows_of(kind, inputs, shape) for kind in inputs.kinds}
    return cells, [
        Variant(edits=builder.edits(cell.kind, rows[cell.kind][cell.row], cell.layer)) for cell in cells
    ]


def for_cost(variants: list[Variant]) -> list[Variant]:
    """The variants by their first edit alone: it has the first position and layer, and those fix the cost."""
    return [Variant(edits=variant.edits[:1]) for variant in variants]


class _Builder:
    """Makes edits; equal ones are made once and shared: windows of ten layers repeat each ten times."""

    def __init__(self, inputs: CausalTraceInputs, shape: Shape, source: Values, base: Values) -> None:
        self.inputs, self.shape = inputs, shape
        self._values = {"source": source, "base": base}
        self._made: dict[tuple[str, str, int, int], Edit] = {}

    def edits(self, kind: Kind, row: int, layer: int) -> tuple[Edit, ...]:
        n_layers, site = self.shape.n_layers, SITE_OF[kind]
        if kind == "head":
            return (self._head(row, layer),)
        if kind in ("attn", "mlp"):
            layers = window_layers(layer, self.inputs.window, n_layers, self.inputs.window_convention)
            return tuple(self._edit("source", site, each, row) for each in layers)
        severed = SEVERED_SITE.get(kind)
        frozen = () if severed is None else range(layer + 1, n_layers)
        return (
            self._edit("source", site, layer, row),
            *(self._edit("base", str(severed), each, row) for each in frozen),
        )

    def _edit(self, run: str, site: str, layer: int, position: int) -> Edit:
        key = (run, site, layer, position)
        if key not in self._made:
            self._made[key] = self._make(*key)
        return self._made[key]

    def _make(self, run: str, site: str, layer: int, position: int) -> Edit:
        values = self._values[run](site, layer)
        value = values[:, position : position + 1] if isinstance(values, Tensor) else values
        return Edit(site, layer, positions=(position,), value=value)

    def _head(self, head: int, layer: int) -> Edit:
        one = self.inputs.head_position
        first, stop = (self.shape.first_difference, self.shape.n_tokens) if one is None else (one, one + 1)
        values = self._values["source"]("z", layer)
        value = values[:, first:stop, head : head + 1] if isinstance(values, Tensor) else values
        return Edit("z", layer, positions=tuple(range(first, stop)), heads=(head,), value=value)
