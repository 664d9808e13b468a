"""One feature seen through its weights: the words that it writes and reads, and where it writes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.plain import checks_from, damage_told, provenance_from, texts_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.provenance import Provenance
from mi_core.transcoders.names import Feature
from mi_core.transcoders.weights_inputs import FeatureWeightsInputs

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/feature_weights", 1
WRITE_UNIT = "logits per unit of activation"
READ_UNIT = "pre-activation"
ENDS = ("+", "\u2212")
BINS = 50


@dataclass(frozen=True, slots=True, eq=False)
class FeatureWeightsResult:
    """What one feature writes and reads, from the weights alone.

    The axis `column` has all target layers summed first, then every target layer; it is empty where only the
    encoders of a transcoder are there. `end` is 0 for the largest values and 1 for the smallest, each from
    the outside in.

    Attributes:
        inputs: what was asked for.
        provenance: model and versions.
        n_layers: layers of the model.
        n_features: features of this feature's layer.
        transcoder_name: what the transcoder is called.
        transcoder_kind: "clt", "plt" or "sae".
        transcoder_fingerprint: of its files.
        reads_at: where it reads.
        writes_at: where it writes.
        activation: kind of non-linearity.
        targets: layers that it writes to.
        top_ids: token ids that it promotes and suppresses.
        top_values: effects on their logits per unit of activation, relative to the mean over the vocabulary,
            at scale 1 of the final norm.
        effect_mean: the mean that was taken off.
        effect_deviation: standard deviation over the vocabulary.
        effect_skew: third standardised moment.
        effect_kurtosis: fourth standardised moment minus 3.
        edges: ends of the bins of the histogram of effects, all target layers summed.
        counts: tokens in each bin.
        decoder_norms: length of the row of every target layer.
        row_cosines: cosines between these rows; NaN for a row of zeros.
        read_ids: token ids whose embeddings it reads most and least.
        read_values: their dot products with the encoder, at scale 1 of a norm in front of it.
        read_mean: mean over the vocabulary.
        read_deviation: standard deviation over the vocabulary.
        encoder_norm: length of the encoder's row.
        encoder_bias: b_enc, less what the encoder makes of a centre that is taken off its input first.
        threshold: of a JumpReLU; None without.
        vocabulary: token id -> visible text.
        warnings: sentences to be read before the figure.
        checks: identities tried on these numbers.
        seconds: duration.
        cancelled: always False: there is nothing in between.
    """

    inputs: FeatureWeightsInputs
    provenance: Provenance | None
    n_layers: int
    n_features: int
    transcoder_name: str
    transcoder_kind: str
    transcoder_fingerprint: str
    reads_at: str
    writes_at: str
    activation: str
    targets: Int[np.ndarray, "target"]
    top_ids: Int[np.ndarray, "column end token"]
    top_values: Float[np.ndarray, "column end token"]
    effect_mean: Float[np.ndarray, "column"]
    effect_deviation: Float[np.ndarray, "column"]
    effect_skew: Float[np.ndarray, "column"]
    effect_kurtosis: Float[np.ndarray, "column"]
    edges: Float[np.ndarray, "edge"]
    counts: Int[np.ndarray, "bin"]
    decoder_norms: Float[np.ndarray, "target"]
    row_cosines: Float[np.ndarray, "target target"]
    read_ids: Int[np.ndarray, "end token"]
    read_values: Float[np.ndarray, "end token"]
    read_mean: float
    read_deviation: float
    encoder_norm: float
    encoder_bias: float
    threshold: float | None
    vocabulary: Mapping[int, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Shapes agree with each other."""
        sizes = (len(self.targets), self.top_ids.shape[-1], self.read_ids.shape[-1])
        for name, shape in _shapes(*sizes).items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")

    @property
    def feature(self) -> Feature:
        """The feature."""
        return self.inputs.chosen

    @property
    def written(self) -> bool:
        """Whether it is known what the feature writes."""
        return len(self.targets) > 0

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the axis `column`."""
        return ("all", *(f"L{layer}" for layer in self.targets)) if self.written else ()

    @property
    def write_shares(self) -> Float[np.ndarray, "target"]:
        """Share of every target layer in the sum of squared row lengths; zeros for a feature without rows."""
        squared = self.decoder_norms**2
        return squared / squared.sum() if squared.sum() > 0 else np.zeros_like(squared)

    @property
    def needed(self) -> float:
        """Dot product above which it becomes active: threshold (0 for a ReLU) minus b_enc."""
        return (self.threshold or 0.0) - self.encoder_bias

    def visible(self, token_id: int) -> str:
        """Visible text of a token id that occurs in this result."""
        return self.vocabulary.get(token_id, f"⟨id {token_id}⟩")

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table: words written, by target layer; rows; words read; numbers of the encoder."""
        import pandas as pd  # only tables need it

        parts = [self.write_frame(), self.norm_frame(), self.read_frame(), self._encoder_frame()]
        filled = [part for part in parts if len(part)]
        frame = pd.concat(filled, ignore_index=True)
        return frame.assign(feature=self.feature.text, layer=self.feature.layer, index=self.feature.index)

    def write_frame(self) -> "pd.DataFrame":
        """One row per target layer, end and word that is written."""
        rows = [
            {"quantity": "writes", "target": self.columns[column], "end": ENDS[end], "rank": rank + 1,
             "token_id": int(self.top_ids[column, end, rank]),
             "token": self.visible(int(self.top_ids[column, end, rank])),
             "value": float(value), "unit": WRITE_UNIT}
            for (column, end, rank), value in np.ndenumerate(self.top_values)
        ]  # fmt: skip
        return _frame(rows)

    def read_frame(self) -> "pd.DataFrame":
        """One row per end and word that is read."""
        rows = [
            {"quantity": "reads", "end": ENDS[end], "rank": rank + 1,
             "token_id": int(self.read_ids[end, rank]), "token": self.visible(int(self.read_ids[end, rank])),
             "value": float(value), "unit": READ_UNIT}
            for (end, rank), value in np.ndenumerate(self.read_values)
        ]  # fmt: skip
        return _frame(rows)

    def norm_frame(self) -> "pd.DataFrame":
        """Two rows per target layer: the length of what is written there, and its share."""
        rows: list[dict[str, Any]] = []
        for column, layer in enumerate(self.targets.tolist()):
            norm, share = float(self.decoder_norms[column]), float(self.write_shares[column])
            rows.append({"quantity": "row length", "target": f"L{layer}", "value": norm, "unit": "|W_dec|"})
            rows.append({"quantity": "row share", "target": f"L{layer}", "value": share,
                         "unit": "share of squared lengths"})  # fmt: skip
        return _frame(rows)

    def histogram_frame(self) -> "pd.DataFrame":
        """One row per bin of the histogram of effects."""
        import pandas as pd

        words = {"quantity": "tokens in bin", "from": self.edges[:-1], "to": self.edges[1:]}
        return pd.DataFrame({**words, "value": self.counts, "unit": "tokens"})

    def cosine_frame(self) -> "pd.DataFrame":
        """One row per pair of target layers."""
        import pandas as pd

        names = [f"L{layer}" for layer in self.targets.tolist()]
        return pd.DataFrame(
            [{"quantity": "cosine of rows", "target": names[i], "other": names[j], "value": float(value),
              "unit": "cosine"} for (i, j), value in np.ndenumerate(self.row_cosines)]
        )  # fmt: skip

    def _encoder_frame(self) -> "pd.DataFrame":
        numbers = {
            "encoder length": self.encoder_norm,
            "b_enc": self.encoder_bias,
            **({} if self.threshold is None else {"threshold": self.threshold}),
        }
        return _frame(
            [{"quantity": name, "value": value, "unit": READ_UNIT} for name, value in numbers.items()]
        )

    def to_json(self) -> str:
        """The whole result as JSON text."""
        record: dict[str, Any] = {
            "inputs": self.inputs.to_dict(),
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
            **{name: getattr(self, name) for name in _PLAIN},
            **{name: encode_array(getattr(self, name)) for name in ARRAYS},
            "tokens": [self.top_ids.shape[-1], self.read_ids.shape[-1]],
            "vocabulary": {str(token): text for token, text in self.vocabulary.items()},
            "warnings": list(self.warnings),
            "checks": [asdict(check) for check in self.checks],
        }
        return dump_record(SCHEMA, VERSION, record)

    @classmethod
    def from_json(cls, text: str | bytes) -> "FeatureWeightsResult":
        """The inverse of `to_json`.

        Raises:
            InputError: anything that `to_json` would not have written.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("feature"):
            return _build(record)


_INTEGERS = ("targets", "top_ids", "counts", "read_ids")
_PLAIN = (
    "n_layers",
    "n_features",
    "transcoder_name",
    "transcoder_kind",
    "transcoder_fingerprint",
    "reads_at",
    "writes_at",
    "activation",
    "read_mean",
    "read_deviation",
    "encoder_norm",
    "encoder_bias",
    "threshold",
    "seconds",
    "cancelled",
)
_NUMBERS = ("read_mean", "read_deviation", "encoder_norm", "encoder_bias", "seconds")
_COLUMNS = ["quantity", "target", "end", "rank", "token_id", "token", "value", "unit"]


def _shapes(targets: int, tokens: int, read: int) -> dict[str, tuple[int, ...]]:
    """Shape of every array, by its name in the record."""
    columns, bins = (targets + 1, BINS) if targets else (0, 0)
    return {
        "targets": (targets,),
        "top_ids": (columns, 2, tokens),
        "top_values": (columns, 2, tokens),
        **{f"effect_{name}": (columns,) for name in ("mean", "deviation", "skew", "kurtosis")},
        "edges": (bins + 1,) if bins else (0,),
        "counts": (bins,),
        "decoder_norms": (targets,),
        "row_cosines": (targets, targets),
        "read_ids": (2, read),
        "read_values": (2, read),
    }


ARRAYS = tuple(_shapes(0, 0, 0))
"""Names of the arrays, in the result and in its record."""


def _frame(rows: list[dict[str, Any]]) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(rows, columns=_COLUMNS).astype({"rank": "Int64", "token_id": "Int64"})


def _build(record: Mapping[str, Any]) -> FeatureWeightsResult:
    tokens, read = (int(n) for n in record["tokens"])
    shapes = _shapes(len(record["targets"]), tokens, read)
    threshold = record["threshold"]
    texts: dict[str, Any] = {name: str(record[name]) for name in _PLAIN[2:8]}
    numbers: dict[str, Any] = {name: float(record[name]) for name in _NUMBERS}
    return FeatureWeightsResult(
        inputs=FeatureWeightsInputs.from_dict(record["inputs"]),
        provenance=provenance_from(record["provenance"]),
        n_layers=int(record["n_layers"]),
        n_features=int(record["n_features"]),
        **texts,
        **{
            name: decode_array(record[name], "int64" if name in _INTEGERS else "float64", shape, name)
            for name, shape in shapes.items()
        },
        **numbers,
        threshold=None if threshold is None else float(threshold),
        vocabulary={int(token): str(text) for token, text in record["vocabulary"].items()},
        warnings=texts_from(record["warnings"]),
        checks=checks_from(record["checks"]),
        cancelled=bool(record["cancelled"]),
    )
