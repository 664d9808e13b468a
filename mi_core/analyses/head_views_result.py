"""What one attention head reads and writes, by the strongest directions of its weights: inputs and result.

    OV = sum over directions i of  s_i  u_i v_i^T        (singular value decomposition)

so what the token a makes the head add to the logit of the token b is a sum of products,

    W_E[a] OV W_U[:, b] = sum over i of  (W_E[a] . u_i)  s_i  (v_i W_U[:, b])
                                         left reading        right reading

and the same for QK, with a token of the query on the left and a token of the key on the right (both through
W_E). See `circuit_weights` for what is folded into the weights and what is left out, and `head_views_run` for
how the directions are found.

Readings of the right side are given relative to their mean over the vocabulary: a constant there moves no
probability (softmax over tokens, or over keys). Signs of singular vectors are arbitrary, left and right flip
together; here the largest absolute reading of the right side is positive. A positive and a negative token
therefore work in pairs: a token with a positive left reading raises the positive tokens on the right and
lowers the negative ones, a token with a negative left reading does the reverse.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.plain import (
    check_choice,
    check_whole,
    checks_from,
    damage_told,
    inputs_from_dict,
    inputs_to_dict,
    provenance_from,
    texts_from,
)
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/head_views", 1
Circuit = Literal["OV", "QK"]
CIRCUITS: tuple[Circuit, ...] = get_args(Circuit)
SIDES: Mapping[Circuit, tuple[str, str]] = {
    "OV": ("read token", "written token"),
    "QK": ("query token", "key token"),
}
"""What the left and the right side of a circuit are."""
UNITS: Mapping[Circuit, tuple[str, str]] = {
    "OV": ("embedding", "logit"),
    "QK": ("embedding", "embedding"),
}
"""Units of the two sides' readings, at scale 1 of the norms."""
MAX_DIRECTIONS, MAX_TOKENS = 50, 100


@dataclass(frozen=True, slots=True)
class HeadViewsInputs:
    """Which head, and how much of it.

    Attributes:
        layer: layer of the head, from 0.
        head: number of the (query) head, from 0.
        circuit: "OV" = what is written where the head looks, "QK" = where it looks.
        directions: how many of the strongest directions.
        k: tokens at each end of each direction.
    """

    layer: int = 0
    head: int = 0
    circuit: Circuit = "OV"
    directions: int = 5
    k: int = 10

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of."""
        check_whole("layer", self.layer, 0, 10_000)
        check_whole("head", self.head, 0, 10_000)
        check_whole("number of directions", self.directions, 1, MAX_DIRECTIONS)
        check_whole("number of tokens k", self.k, 1, MAX_TOKENS)
        check_choice("circuit", self.circuit, CIRCUITS)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "HeadViewsInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown field, or a value that is refused.
        """
        return inputs_from_dict(cls, values, "head view")


@dataclass(frozen=True, slots=True, eq=False)
class HeadViewsResult:
    """The strongest directions of one head's circuit.

    Attributes:
        inputs: what was asked for.
        provenance: model and versions.
        n_layers: layers of the model.
        n_heads: query heads per layer.
        kv_head: the key/value head that this head shares.
        frobenius: Frobenius norm of the circuit, from products of the factors (not from the singular values).
        singular_values: all of them, in falling order.
        left_top_ids: token ids at the two ends (0: most positive first, 1: most negative first).
        left_top_values: their readings.
        right_top_ids: the same for the right side.
        right_top_values: relative to the mean over the vocabulary.
        vocabulary: token id -> visible text.
        warnings: sentences to be read before the figure.
        checks: identities tried on these numbers.
        seconds: duration.
        cancelled: whether the user stopped it; then no direction has been read.
    """

    inputs: HeadViewsInputs
    provenance: Provenance | None
    n_layers: int
    n_heads: int
    kv_head: int
    frobenius: float
    singular_values: Float[np.ndarray, "rank"]
    left_top_ids: Int[np.ndarray, "direction end top"]
    left_top_values: Float[np.ndarray, "direction end top"]
    right_top_ids: Int[np.ndarray, "direction end top"]
    right_top_values: Float[np.ndarray, "direction end top"]
    vocabulary: Mapping[int, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """The four arrays of tokens have one shape, with no more directions than singular values."""
        shapes = {getattr(self, f"{side}_top_{what}").shape for side in ("left", "right")
                  for what in ("ids", "values")}  # fmt: skip
        shape = self.left_top_ids.shape
        if len(shapes) != 1 or len(shape) != 3 or shape[1] != 2:
            raise ValueError(f"tokens have shapes {sorted(shapes)}, expected one [direction, 2, top]")
        if self.singular_values.ndim != 1 or shape[0] > len(self.singular_values):
            raise ValueError(f"{shape[0]} directions but {self.singular_values.shape} singular values")

    @property
    def name(self) -> str:
        """The head, for example `L3H2`."""
        return f"L{self.inputs.layer}H{self.inputs.head}"

    @property
    def n_directions(self) -> int:
        """Directions that were read through the vocabulary."""
        return len(self.left_top_ids)

    @property
    def sides(self) -> tuple[str, str]:
        """What the left and the right tokens are."""
        return SIDES[self.inputs.circuit]

    @property
    def shares(self) -> Float[np.ndarray, "rank"]:
        """Each direction's share of the squared Frobenius norm; zeros for a circuit that does nothing."""
        total = float((self.singular_values**2).sum())
        return self.singular_values**2 / total if total > 0 else np.zeros_like(self.singular_values)

    def tokens(self, side: int) -> tuple[Int[np.ndarray, "direction end top"], np.ndarray]:
        """(token ids, readings) of the left (0) or the right (1) side."""
        if side == 0:
            return self.left_top_ids, self.left_top_values
        return self.right_top_ids, self.right_top_values

    def visible(self, token_id: int) -> str:
        """Visible text of a token id that occurs in this result."""
        return self.vocabulary.get(token_id, f"\u27e8id {token_id}\u27e9")

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table: every singular value, then one row per direction, side, end and token."""
        import pandas as pd  # only tables need it

        circuit = self.inputs.circuit
        rows: list[dict[str, Any]] = [
            {"quantity": "singular value", "direction": i, "value": value, "unit": f"|{circuit}|"}
            for i, value in enumerate(self.singular_values.tolist())
        ]
        for side, (name, unit) in enumerate(zip(SIDES[circuit], UNITS[circuit], strict=True)):
            ids, values = self.tokens(side)
            rows += [
                {"quantity": "reading", "direction": i, "side": name, "end": ("+", "\u2212")[end],
                 "rank": rank, "token_id": int(ids[i, end, rank]),
                 "token": self.visible(int(ids[i, end, rank])), "value": float(value), "unit": unit}
                for (i, end, rank), value in np.ndenumerate(values)
            ]  # fmt: skip
        frame = pd.DataFrame(rows, columns=_COLUMNS).astype({"rank": "Int64", "token_id": "Int64"})
        return frame.assign(layer=self.inputs.layer, head=self.inputs.head, circuit=circuit)

    def to_json(self) -> str:
        """The whole result as JSON text."""
        record: dict[str, Any] = {
            "inputs": self.inputs.to_dict(),
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
            **{name: getattr(self, name) for name in ("n_layers", "n_heads", "kv_head", "frobenius")},
            **{name: encode_array(getattr(self, name)) for name in ARRAYS},
            "shape": list(self.left_top_ids.shape),
            "vocabulary": {str(token): text for token, text in self.vocabulary.items()},
            "warnings": list(self.warnings),
            "checks": [asdict(check) for check in self.checks],
            "seconds": self.seconds,
            "cancelled": self.cancelled,
        }
        return dump_record(SCHEMA, VERSION, record)

    @classmethod
    def from_json(cls, text: str | bytes) -> "HeadViewsResult":
        """The inverse of `to_json`.

        Raises:
            InputError: anything that `to_json` would not have written.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("head view"):
            return _build(record)


ARRAYS = (
    "singular_values",
    "left_top_ids",
    "left_top_values",
    "right_top_ids",
    "right_top_values",
)
"""Names of the arrays, in the result and in its record."""

_COLUMNS = ["quantity", "direction", "side", "end", "rank", "token_id", "token", "value", "unit"]


def _build(record: Mapping[str, Any]) -> HeadViewsResult:
    shape = tuple(int(n) for n in record["shape"])
    tops = {
        name: decode_array(record[name], "int64" if name.endswith("ids") else "float64", shape, name)
        for name in ARRAYS[1:]
    }
    rank = len(record["singular_values"])
    return HeadViewsResult(
        inputs=HeadViewsInputs.from_dict(record["inputs"]),
        provenance=provenance_from(record["provenance"]),
        n_layers=int(record["n_layers"]),
        n_heads=int(record["n_heads"]),
        kv_head=int(record["kv_head"]),
        frobenius=float(record["frobenius"]),
        singular_values=decode_array(record["singular_values"], "float64", (rank,), "singular_values"),
        **tops,
        vocabulary={int(token): str(text) for token, text in record["vocabulary"].items()},
        warnings=texts_from(record["warnings"]),
        checks=checks_from(record["checks"]),
        seconds=float(record["seconds"]),
        cancelled=bool(record["cancelled"]),
    )
