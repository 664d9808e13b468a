"""Which head reads what which earlier head writes, from the weights alone: inputs and result.

A head h1 adds x OV1 to the stream (row vectors, see `circuit_weights`). A later head h2 that reads the stream
meets it in three places, and how much of it gets through is measured by Frobenius norms:

    Q:  h2's queries   ||OV1 QK2||   / (||OV1|| ||QK2||)      scores (x OV1) QK2 y^T
    K:  h2's keys      ||OV1 QK2^T|| / (||OV1|| ||QK2||)      scores y QK2 (x OV1)^T
    V:  h2's values    ||OV1 OV2||   / (||OV1|| ||OV2||)      writes (x OV1) OV2

from 0 (h2 is blind to all that h1 writes) to at most 1. Only circuits of a single direction can reach 1: two
circuits that use n directions equally and match exactly have 1 / sqrt(n), so that heads with flat spectra
stay far below 1. These are the composition scores of Elhage et al. 2021, "A Mathematical Framework for
Transformer Circuits"; the paper multiplies column vectors, so that its W_QK and W_OV are applied from the
left (its W_QK W_OV is (OV1 QK2^T)^T here, and the norms are the same). The norms' gains are in the weights.
QK is the content part before rotary.

Baseline: if h1's output is turned at random in the residual stream, the mean of the squared score is exactly
1 / d_model, whatever the two spectra; `baseline` = 1 / sqrt(d_model) is that root mean square, not a sample.
A score near it is what two heads that know nothing of each other have.

Heads of one layer never compose: attention of a layer reads the stream before that layer, in parallel blocks
too. The scores see no MLPs, no attention patterns and not how often a head is used.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.plain import (
    checks_from,
    damage_told,
    inputs_from_dict,
    inputs_to_dict,
    provenance_from,
    texts_from,
)
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.errors import InputError
from mi_core.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/composition", 1
CompositionKind = Literal["Q", "K", "V"]
COMPOSITION_KINDS: tuple[CompositionKind, ...] = get_args(CompositionKind)
ARRAYS = ("scores",)
"""Names of the arrays, in the result and in its record."""


@dataclass(frozen=True, slots=True)
class CompositionInputs:
    """Which heads.

    Attributes:
        kinds: where the later head reads: "Q" its queries, "K" its keys, "V" its values.
        from_layers: layers of the writing heads; None = all but the last.
        to_layers: layers of the reading heads; None = all but the first.
    """

    kinds: tuple[CompositionKind, ...] = COMPOSITION_KINDS
    from_layers: tuple[int, ...] | None = None
    to_layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of."""
        for name in ("kinds", "from_layers", "to_layers"):
            if isinstance(getattr(self, name), list):  # hashable, whoever wrote [..] in a notebook
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if (
            not self.kinds
            or len(set(self.kinds)) != len(self.kinds)
            or set(self.kinds) - set(COMPOSITION_KINDS)
        ):
            raise InputError(f"kinds is {self.kinds!r}", fix="Choose some of Q, K, V, each once")
        for name in ("from_layers", "to_layers"):
            layers = getattr(self, name)
            if layers is not None and not _rising(layers):
                raise InputError(
                    f"{name.replace('_', ' ')} is {layers!r}", fix="Give layers from 0 on, in rising order"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "CompositionInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown field, or a value that is refused.
        """
        return inputs_from_dict(cls, values, "composition")


def _rising(layers: tuple[int, ...]) -> bool:
    whole = all(isinstance(layer, int) and not isinstance(layer, bool) and layer >= 0 for layer in layers)
    return bool(layers) and whole and list(layers) == sorted(set(layers))


@dataclass(frozen=True, slots=True, eq=False)
class CompositionResult:
    """Composition scores of pairs of heads.

    Attributes:
        inputs: what was asked for.
        provenance: model and versions.
        n_heads: heads per layer.
        from_layers: layers of the writing heads.
        to_layers: layers of the reading heads.
        scores: writers and readers are the heads of their layers one after the other; NaN where the writer is
            not earlier than the reader, where a head's weights are zero, and where the pair was not reached.
        baseline: root mean square score of a writer turned at random.
        warnings: sentences to be read before the figure.
        checks: identities tried on these numbers.
        seconds: duration.
        cancelled: whether the user stopped it.
    """

    inputs: CompositionInputs
    provenance: Provenance | None
    n_heads: int
    from_layers: tuple[int, ...]
    to_layers: tuple[int, ...]
    scores: Float[np.ndarray, "kind writer reader"]
    baseline: float
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """One score per kind and pair."""
        wanted = (
            len(self.inputs.kinds),
            len(self.from_layers) * self.n_heads,
            len(self.to_layers) * self.n_heads,
        )
        if self.scores.shape != wanted:
            raise ValueError(f"scores have shape {self.scores.shape}, expected {wanted}")

    @property
    def writers(self) -> tuple[tuple[int, int], ...]:
        """(layer, head) of every row."""
        return tuple((layer, head) for layer in self.from_layers for head in range(self.n_heads))

    @property
    def readers(self) -> tuple[tuple[int, int], ...]:
        """(layer, head) of every column."""
        return tuple((layer, head) for layer in self.to_layers for head in range(self.n_heads))

    @property
    def earlier(self) -> Bool[np.ndarray, "writer reader"]:
        """Whether the writer stands in an earlier layer than the reader."""
        rows, columns = (np.repeat(layers, self.n_heads) for layers in (self.from_layers, self.to_layers))
        return rows[:, None] < columns[None, :]

    def of(self, kind: CompositionKind, *, excess: bool = False) -> Float[np.ndarray, "writer reader"]:
        """The scores of one kind.

        Args:
            kind: one of `inputs.kinds`.
            excess: minus the baseline.

        Raises:
            InputError: that kind was not asked for.
        """
        if kind not in self.inputs.kinds:
            raise InputError(
                f"{kind}-composition was not computed", fix=f"It has {', '.join(self.inputs.kinds)}"
            )
        return self.scores[self.inputs.kinds.index(kind)] - (self.baseline if excess else 0.0)

    def score(self, kind: CompositionKind, writer: tuple[int, int], reader: tuple[int, int]) -> float:
        """One score; writer and reader as (layer, head).

        Raises:
            InputError: that kind was not asked for.
            ValueError: no such head in this result.
        """
        return float(self.of(kind)[self.writers.index(writer), self.readers.index(reader)])

    def by_layer(
        self, kind: CompositionKind, *, excess: bool = False
    ) -> Float[np.ndarray, "from_layer to_layer"]:
        """The largest score among the heads of every pair of layers; NaN where there is none."""
        shape = len(self.from_layers), self.n_heads, len(self.to_layers), self.n_heads
        values = self.of(kind, excess=excess).reshape(shape)
        best = np.where(np.isnan(values), -np.inf, values).max((1, 3))
        return np.where(np.isneginf(best), np.nan, best)

    def top(self, kind: CompositionKind, n: int = 20) -> list[tuple[tuple[int, int], tuple[int, int], float]]:
        """The n largest scores of one kind: (writer, reader, score), in falling order."""
        values = self.of(kind)
        flat = np.where(np.isnan(values), -np.inf, values).ravel()
        n = min(n, int(np.isfinite(flat).sum()))
        best = np.argpartition(-flat, max(n - 1, 0))[:n] if n else np.array([], np.int64)
        writers, readers = self.writers, self.readers
        ranked = sorted(best.tolist(), key=lambda place: (-flat[place], place))
        return [(writers[p // len(readers)], readers[p % len(readers)], float(flat[p])) for p in ranked]

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table: one row per kind and pair of heads, then the baseline."""
        import pandas as pd  # only tables need it

        writers, readers = np.array(self.writers).reshape(-1, 2), np.array(self.readers).reshape(-1, 2)
        parts = []
        for index, kind in enumerate(self.inputs.kinds):
            row, column = np.nonzero(np.isfinite(self.scores[index]))
            of_pairs = dict(zip(_PAIR, (*writers[row].T, *readers[column].T), strict=True))
            parts.append(pd.DataFrame({"kind": kind, **of_pairs, "value": self.scores[index, row, column]}))
        parts.append(pd.DataFrame([{"kind": "baseline", "value": self.baseline}]))
        frame = pd.concat(parts, ignore_index=True).astype(dict.fromkeys(_PAIR, "Int64"))
        return frame.assign(unit="share of the norms' product")

    def to_json(self) -> str:
        """The whole result as JSON text."""
        record: dict[str, Any] = {
            "inputs": self.inputs.to_dict(),
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
            "n_heads": self.n_heads,
            "from_layers": list(self.from_layers),
            "to_layers": list(self.to_layers),
            "scores": encode_array(self.scores),
            "baseline": self.baseline,
            "warnings": list(self.warnings),
            "checks": [asdict(check) for check in self.checks],
            "seconds": self.seconds,
            "cancelled": self.cancelled,
        }
        return dump_record(SCHEMA, VERSION, record)

    @classmethod
    def from_json(cls, text: str | bytes) -> "CompositionResult":
        """The inverse of `to_json`.

        Raises:
            InputError: anything that `to_json` would not have written.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("composition"):
            return _build(record)


_PAIR = ("from_layer", "from_head", "to_layer", "to_head")


def _build(record: Mapping[str, Any]) -> CompositionResult:
    inputs = CompositionInputs.from_dict(record["inputs"])
    n_heads = int(record["n_heads"])
    written, reading = (tuple(int(one) for one in record[name]) for name in ("from_layers", "to_layers"))
    shape = len(inputs.kinds), len(written) * n_heads, len(reading) * n_heads
    return CompositionResult(
        inputs=inputs,
        provenance=provenance_from(record["provenance"]),
        n_heads=n_heads,
        from_layers=written,
        to_layers=reading,
        scores=decode_array(record["scores"], "float32", shape, "scores"),
        baseline=float(record["baseline"]),
        warnings=texts_from(record["warnings"]),
        checks=checks_from(record["checks"]),
        seconds=float(record["seconds"]),
        cancelled=bool(record["cancelled"]),
    )
