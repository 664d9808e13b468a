"""The grid of a sweep: which part is taken out in which cell, in the text form of interventions."""

from dataclasses import dataclass

from mi_core.analyses.ablation_sweep_inputs import AblationSweepInputs
from mi_core.analyses.attribution_inputs import head_name, parse_head
from mi_core.errors import InputError

PLACES = 60  # layers in one piece; the grammar bounds the length of a piece


@dataclass(frozen=True, slots=True)
class Units:
    """One intervention (or several joined by commas) per cell.

    Attributes:
        rows: names of the rows: layers, or heads.
        columns: names of the columns: heads, the two modules, or key positions.
        texts: [row][column] text form of what is done there.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.rows), len(self.columns)

    @property
    def flat(self) -> tuple[str, ...]:
        """All texts, row by row."""
        return tuple(text for row in self.texts for text in row)


def units_of(inputs: AblationSweepInputs, n_layers: int, n_heads: int, n_tokens: int) -> Units:
    """The cells of a sweep.

    Raises:
        InputError: a chosen head is not part of the model.
    """
    layers = tuple(f"L{layer}" for layer in range(n_layers))
    keys = tuple(str(key) for key in range(n_tokens))
    last = n_tokens - 1
    where = f"@{last}" if inputs.positions == "last" else ""
    if inputs.what == "heads":
        heads = tuple(f"H{head}" for head in range(n_heads))
        return _grid(layers, heads, f"{{row}}{{column}}{where}:{inputs.how}")
    if inputs.what == "modules":
        return _grid(layers, ("attn", "mlp"), f"{{row}}{{column}}{where}:{inputs.how}")
    if inputs.what == "edges":
        return _grid(_chosen(inputs, n_layers, n_heads) or layers, keys, f"e{last}-{{column}}@{{row}}")
    return Units(layers, keys, tuple(tuple(_unread(key, layer, layers) for key in keys) for layer in layers))


def _grid(rows: tuple[str, ...], columns: tuple[str, ...], form: str) -> Units:
    texts = tuple(tuple(form.format(row=row, column=column) for column in columns) for row in rows)
    return Units(rows, columns, texts)


def _unread(key: str, first: str, layers: tuple[str, ...]) -> str:
    """Nobody reads a key, from a layer on."""
    after = layers[layers.index(first) :]
    if len(after) == len(layers):
        return f"c{key}@all"
    parts = [after[start : start + PLACES] for start in range(0, len(after), PLACES)]
    return ", ".join(f"c{key}@{'+'.join(part)}" for part in parts)


def _chosen(inputs: AblationSweepInputs, n_layers: int, n_heads: int) -> tuple[str, ...]:
    for layer, head in map(parse_head, inputs.heads):
        if layer >= n_layers or head >= n_heads:
            why = f"it has {n_layers} layers of {n_heads} heads, counted from 0"
            raise InputError(f"This model has no head {head_name(layer, head)}", why=why)
    return inputs.heads


def passes_of(inputs: AblationSweepInputs, n_layers: int, n_heads: int, n_tokens: int) -> float:
    """About how many forward passes a sweep costs; an edit in the middle of the model saves half of one."""
    rows = len(inputs.heads) or n_layers
    columns = {"heads": n_heads, "modules": 2}.get(inputs.what, n_tokens)
    return 3 + rows * columns / 2
