"""Interventions as text: the list that links, search boxes and the command line share.

Pieces are separated by commas. On top of the engine's forms (`mi_core.engine.edits`), with positions joined
by `+` because the comma separates pieces:

    L1H2:zero  L1H2@3+4:mean  L1H2:resample  L1H2:scale=0.5    a head's output (`z`)
    L4attn:zero  L4mlp:mean  L4R@5:resample                    what a layer adds, the stream after a layer
    L3N102:0  L3N102:mean                                      a neuron, held at a value or at its mean
    e14-2@L1H2  e14-2@L1H2+L1H3  e14-2@L1  e14-2@all           an edge of attention, cut before the softmax
    r14@L1H2  c2@all                                           a query that reads nothing, a key nobody reads
    e14-2@L1H2:scale=2  e14-2@L1H2:set=0.7                     an edge after the softmax (its row sums to 1)
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from mi_core.analyses.piece_lists import parse_pieces
from mi_core.engine.edits import Edit, parse_edit
from mi_core.errors import EditError, InputError

Target = Literal["head", "attention", "mlp", "neuron", "residual", "edge", "row", "column"]
Mode = Literal["zero", "scale", "hold", "mean", "resample", "cut", "set"]
Place = tuple[int, int | None]
"""(layer, head); the head is None where all heads or no head is meant."""

MAX_INTERVENTIONS = 200
MAX_PIECE_CHARACTERS = 400
MAX_VALUE = 1e6

ATTENTION_TARGETS = ("edge", "row", "column")
MODES: dict[str, tuple[Mode, ...]] = {
    "head": ("zero", "scale", "mean", "resample"),
    "attention": ("zero", "scale", "mean", "resample"),
    "mlp": ("zero", "scale", "mean", "resample"),
    "neuron": ("zero", "scale", "hold", "mean", "resample"),
    "residual": ("zero", "scale", "mean", "resample"),
    "edge": ("cut", "scale", "set"),
    "row": ("cut",),
    "column": ("cut", "scale"),
}
"""What can be done to each target."""

_SITES: dict[str, Target] = {
    "z": "head", "attn_out": "attention", "mlp_out": "mlp", "mlp_post": "neuron", "resid_post": "residual",
}  # fmt: skip
_HALVES = {"attention": "attn", "mlp": "mlp", "residual": "R"}
_FORMS = "Write for example L1H2:zero, L4mlp:mean, L3N102:0, e14-2@L1H2 or c2@all"


@dataclass(frozen=True, slots=True)
class Intervention:
    """One thing done to the model.

    Attributes:
        target: what is changed; "attention" and "mlp" are what these add to the stream, "residual" is the
            stream after the layer.
        mode: what is done; "hold" and "set" need a value, "scale" a factor. Edges that are scaled or set
            change after the softmax, and their rows are made to sum to 1 again.
        places: (layer, head) pairs; one pair unless the target is of attention, where none means all layers.
        value: number of "scale", "hold" and "set".
        positions: token positions of the prompt; None = all. Not for edges, rows and columns.
        query: query position of an edge or a row.
        key: key position of an edge or a column.
        neuron: index of a neuron.

    Raises:
        InputError: the parts do not fit together.
    """

    target: Target
    mode: Mode
    places: tuple[Place, ...] = ()
    value: float | None = None
    positions: tuple[int, ...] | None = None
    query: int | None = None
    key: int | None = None
    neuron: int | None = None

    def __post_init__(self) -> None:
        problem = _problem(self)
        if problem:
            raise InputError("This is not an intervention", why=problem, fix=_FORMS)

    @property
    def text(self) -> str:
        """The text form, the inverse of `parse_interventions`."""
        if self.target in ATTENTION_TARGETS:
            where = "+".join(map(_place_text, self.places)) or "all"
            return f"{self._corner()}@{where}{_mode_text(self)}"
        layer, head = self.places[0]
        what = {"head": f"H{head}", "neuron": f"N{self.neuron}"}.get(self.target) or _HALVES[self.target]
        where = "" if self.positions is None else "@" + "+".join(map(str, self.positions))
        return f"L{layer}{what}{where}{_mode_text(self)}"

    def _corner(self) -> str:
        if self.target == "edge":
            return f"e{self.query}-{self.key}"
        return f"r{self.query}" if self.target == "row" else f"c{self.key}"

    @property
    def needs_mean(self) -> bool:
        """Whether reference prompts are needed."""
        return self.mode == "mean"

    @property
    def needs_second_prompt(self) -> bool:
        """Whether prompt B is needed."""
        return self.mode == "resample"


def _mode_text(one: Intervention) -> str:
    if one.mode == "cut":
        return ""
    number = "" if one.value is None else np.format_float_positional(one.value, trim="-")
    return f":{number}" if one.mode == "hold" else f":{one.mode}={number}" if number else f":{one.mode}"


def _place_text(place: Place) -> str:
    return f"L{place[0]}" + ("" if place[1] is None else f"H{place[1]}")


def _problem(one: Intervention) -> str:
    """What is wrong with the parts of an intervention; empty when nothing is."""
    attention = one.target in ATTENTION_TARGETS
    if one.target not in get_args(Target):
        return f"there is no target {one.target!r:.40}"
    if one.mode not in MODES[one.target]:
        return f"{one.target} takes {', '.join(MODES[one.target])}, not {one.mode!r:.40}"
    if (one.value is not None) != (one.mode in ("scale", "hold", "set")):
        return f"mode {one.mode!r} and value {one.value!r:.40} do not fit together"
    if one.value is not None and not abs(one.value) <= MAX_VALUE:
        return f"its value is beyond {MAX_VALUE:,.0f}"
    if attention and one.value is not None and one.value < 0:
        return "attention cannot be negative"
    if one.mode == "set" and one.value is not None and one.value > 1:
        return "attention cannot be more than 1"
    if len(set(one.places)) < len(one.places) or (not attention and len(one.places) != 1):
        return "it needs one place, or several different ones for attention"
    heads = [head for _, head in one.places]
    if (one.target == "head" and None in heads) or (
        one.target in ("attention", "mlp", "neuron", "residual") and heads != [None]
    ):
        return "head and target do not fit together"
    wanted = {"edge": (True, True), "row": (True, False), "column": (False, True)}
    if (one.query is not None, one.key is not None) != wanted.get(one.target, (False, False)):
        return "query, key and target do not fit together"
    if (one.neuron is not None) != (one.target == "neuron") or (attention and one.positions is not None):
        return "neuron or positions do not fit the target"
    if one.positions is not None and (not one.positions or len(set(one.positions)) < len(one.positions)):
        return "no position, or one position twice"
    numbers = [layer for layer, _ in one.places] + [head for head in heads if head is not None]
    numbers += [*(one.positions or ()), one.query or 0, one.key or 0, one.neuron or 0]
    return "an index is negative" if min(numbers, default=0) < 0 else ""


def parse_interventions(text: str) -> tuple[Intervention, ...]:
    """Read a list of interventions; spaces around pieces are ignored, an empty text is an empty list.

    Raises:
        InputError: naming the first piece that cannot be read, or that is there twice.
    """
    return parse_pieces(text, _parse, MAX_INTERVENTIONS, "interventions")


def format_interventions(interventions: tuple[Intervention, ...] | list[Intervention]) -> str:
    """The inverse of `parse_interventions`."""
    return ",".join(one.text for one in interventions)


def _parse(piece: str) -> Intervention:
    if len(piece) > MAX_PIECE_CHARACTERS:
        raise InputError(f"{piece[:40]!r} and so on is too long for an intervention", fix=_FORMS)
    body, _, doing = piece.partition(":")
    try:
        return _of_attention(body, doing) if piece[0] in "erc" else _of_part(body, doing)
    except (EditError, InputError, ValueError) as error:
        why = error.why if isinstance(error, InputError) else ""
        raise InputError(f"{piece[:80]!r} is not an intervention", why=why, fix=_FORMS) from error


def _of_part(body: str, doing: str) -> Intervention:
    """A head, a layer's attention or MLP, a neuron, or the stream: the engine's form with more modes."""
    named = doing in ("mean", "resample")
    what, at, where = body.partition("@")
    if "," in where:
        raise ValueError(where)
    edit = parse_edit(f"{what}{at}{where.replace('+', ',')}:{'zero' if named else doing}")
    mode: Mode = "hold" if edit.operation == "set" else "scale" if edit.operation == "scale" else "zero"
    target = _SITES[edit.site]
    if mode == "hold" and target != "neuron":
        raise InputError("This cannot be done", why=f"only a neuron can be held at a number, not {target}")
    return Intervention(
        target,
        mode if not named else "mean" if doing == "mean" else "resample",
        ((_layer(edit), edit.heads[0] if edit.heads else None),),
        float(edit.value) if isinstance(edit.value, float) else None,
        edit.positions,
        neuron=edit.units[0] if edit.units else None,
    )


def _of_attention(body: str, doing: str) -> Intervention:
    """An edge, a row or a column: the engine's edge form, with more places and modes."""
    corner, _, where = body.partition("@")
    wanted = {"e": corner, "r": f"e{corner[1:]}-0", "c": f"e0-{corner[1:]}"}[corner[0]]
    edits = [parse_edit(f"{wanted}@{place}") for place in ([] if where == "all" else where.split("+"))]
    named = parse_edit(f"{wanted}@L0")
    query, key = (named.positions or (0,))[0], (named.keys or (0,))[0]
    mode, value = _edge_mode(doing)
    target: Target = "edge" if corner[0] == "e" else "row" if corner[0] == "r" else "column"
    places = tuple((_layer(edit), edit.heads[0] if edit.heads else None) for edit in edits)
    return Intervention(
        target,
        mode,
        places,
        value,
        query=None if target == "column" else query,
        key=None if target == "row" else key,
    )


def _edge_mode(doing: str) -> tuple[Mode, float | None]:
    if doing in ("", "cut"):
        return "cut", None
    kind, _, number = doing.partition("=")
    if kind not in ("scale", "set"):
        raise InputError("This cannot be done", why="an edge is cut, scaled (:scale=2) or set (:set=0.7)")
    value = parse_edit(f"L0attn:{number}").value  # numbers are written as in the engine's forms
    return ("scale" if kind == "scale" else "set"), float(value) if isinstance(value, float) else None


def _layer(edit: Edit) -> int:
    return 0 if edit.layer is None else edit.layer
