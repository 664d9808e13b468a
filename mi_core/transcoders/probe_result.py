"""What the probe of one layer's features returns; see `probe_run`."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.plain import checks_from, damage_told, provenance_from, texts_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.provenance import Provenance
from mi_core.transcoders.names import Feature
from mi_core.transcoders.probe_inputs import CltProbeInputs
from mi_core.transcoders.prompt_label import TranscoderLabel
from mi_core.transcoders.prompt_record import whole_from

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/clt_probe", 1
ARRAYS = ("n_active", "top_features", "top_activations", "l2")
"""Every array of the result, by its name in the record."""


@dataclass(frozen=True, slots=True, eq=False)
class CltProbeResult:
    """Features of one layer at every token, and how far an injection at each token moves the logits.

    Attributes:
        inputs: what was asked for.
        provenance: model, versions; None for a result read from another program's file.
        model_name: of the model.
        transcoder: which one.
        layer: whose features were read.
        token_ids: of the prompt.
        tokens: what to show for every token.
        texts: what each token stands for, as it is; untrusted.
        masked: positions of leading special tokens: they are computed, and drawn in grey.
        n_active: active features at every token.
        top_features: numbers of the strongest features, the strongest first; -1 where no more are active.
        top_activations: their activations; NaN where no more are active.
        feature: the feature that was injected; None if none is active at the last token.
        activation: its activation at the last token; 0 where it is not active.
        l2: length of the change of all logits at the last token after an injection at each token; NaN where
            not run.
        warnings: sentences to be read before the figures.
        checks: identities tried on this result.
        cancelled: whether it was stopped early.
    """

    inputs: CltProbeInputs
    provenance: Provenance | None
    model_name: str
    transcoder: TranscoderLabel
    layer: int
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    texts: tuple[str, ...]
    masked: tuple[int, ...]
    n_active: Int[np.ndarray, " pos"]
    top_features: Int[np.ndarray, "pos rank"]
    top_activations: Float[np.ndarray, "pos rank"]
    feature: int | None
    activation: float
    l2: Float[np.ndarray, " pos"]
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Shapes agree with each other."""
        n_pos = len(self.token_ids)
        if not n_pos or {len(self.tokens), len(self.texts)} != {n_pos}:
            raise ValueError(f"{n_pos} tokens with {len(self.tokens)} and {len(self.texts)} texts")
        for name, shape in shapes(n_pos, self.top_features.shape[-1]).items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def injected(self) -> Feature | None:
        """The feature that was injected."""
        return None if self.feature is None else Feature(self.layer, self.feature)

    def top_of(self, position: int) -> tuple[int, ...]:
        """Numbers of the kept features at a token, the strongest first."""
        return tuple(one for one in self.top_features[position].tolist() if one >= 0)

    # --- what was read ---

    @property
    def unique_top1_count(self) -> int:
        """How many different features are the strongest one at some token."""
        return len({self.top_of(position)[0] for position in range(len(self)) if self.top_of(position)})

    @property
    def unique_top1_words(self) -> int:
        """The same at the tokens that are not masked."""
        words = range(len(self.masked), len(self))
        return len({self.top_of(position)[0] for position in words if self.top_of(position)})

    @property
    def jaccard_first_last(self) -> float:
        """Shared among all of the kept features at the first and at the last token; 1 if there are none."""
        return self.jaccard(0, len(self) - 1)

    @property
    def jaccard_words(self) -> float:
        """The same for the first token that is not masked; NaN where all are."""
        return self.jaccard(len(self.masked), len(self) - 1) if len(self.masked) < len(self) else float("nan")

    def jaccard(self, one: int, other: int) -> float:
        """|A and B| / |A or B| of the kept features at two tokens; 1 if there are none."""
        first, second = set(self.top_of(one)), set(self.top_of(other))
        return len(first & second) / len(first | second) if first | second else 1.0

    # --- what the injection did ---

    @property
    def has_injection(self) -> bool:
        """Whether every token was tried."""
        return bool(np.isfinite(self.l2).all())

    @property
    def max_pos(self) -> int | None:
        """The token at which the injection moves the logits most; of equal ones the first."""
        return int(self.l2.argmax()) if self.has_injection else None

    @property
    def max_l2(self) -> float:
        """How far it moves them there; NaN without an injection."""
        return float(self.l2.max()) if self.has_injection else float("nan")

    @property
    def last_l2(self) -> float:
        """How far an injection at the last token moves them; NaN without an injection."""
        return float(self.l2[-1]) if self.has_injection else float("nan")

    @property
    def last_rank(self) -> int | None:
        """Rank of the last token among all, 1 = the largest change."""
        return 1 + int((self.l2 > self.l2[-1]).sum()) if self.has_injection else None

    @property
    def median_l2(self) -> float:
        """The upper median of all tokens; NaN without an injection."""
        return float(np.sort(self.l2)[len(self) // 2]) if self.has_injection else float("nan")

    @property
    def concentration_ratio(self) -> float:
        """Change by the last token over the upper median; infinite if that is 0, NaN without an injection."""
        if not self.has_injection:
            return float("nan")
        return self.last_l2 / self.median_l2 if self.median_l2 > 0 else float("inf")

    @property
    def summary(self) -> tuple[tuple[str, float, str], ...]:
        """(quantity, value, unit) of what stands for the whole prompt."""
        rank = float("nan") if self.last_rank is None else float(self.last_rank)
        most = float("nan") if self.max_pos is None else float(self.max_pos)
        return (
            ("different strongest features", float(self.unique_top1_count), "features"),
            ("different strongest features of words", float(self.unique_top1_words), "features"),
            ("Jaccard of first and last token", self.jaccard_first_last, "share"),
            ("Jaccard of first word and last token", self.jaccard_words, "share"),
            ("largest logit change", self.max_l2, "logits"),
            ("position of the largest change", most, "position"),
            ("logit change by the last token", self.last_l2, "logits"),
            ("rank of the last token", rank, "rank"),
            ("concentration ratio", self.concentration_ratio, "ratio"),
        )

    # --- files ---

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table, one number per row.

        Columns: quantity, position, token, rank, feature, value, unit.
        """
        import pandas as pd  # only tables need it

        rows: list[dict[str, Any]] = []
        for position, token in enumerate(self.tokens):
            where = {"position": position, "token": token}
            active = float(self.n_active[position])
            rows.append({"quantity": "active features", **where, "value": active, "unit": "features"})
            for rank, index in enumerate(self.top_of(position)):
                value = float(self.top_activations[position, rank])
                name = Feature(self.layer, index).text
                rows.append({"quantity": "activation", **where, "rank": rank + 1, "feature": name,
                             "value": value, "unit": "activation"})  # fmt: skip
            if self.injected is not None:
                moved, name = float(self.l2[position]), self.injected.text
                rows.append({"quantity": "logit change", **where, "feature": name, "value": moved,
                             "unit": "logits"})  # fmt: skip
        rows += [{"quantity": name, "value": value, "unit": unit} for name, value, unit in self.summary]
        columns = ["quantity", "position", "token", "rank", "feature", "value", "unit"]
        return pd.DataFrame(rows, columns=columns).astype({"position": "Int64", "rank": "Int64"})

    def to_json(self) -> str:
        """The whole result as JSON text; candle-mi's own form is `probe_files.candle_json`."""
        fields: dict[str, Any] = {
            "inputs": self.inputs.to_dict(),
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
            "model_name": self.model_name,
            "transcoder": self.transcoder.to_dict(),
            "layer": self.layer,
            "token_ids": list(self.token_ids),
            "tokens": list(self.tokens),
            "texts": list(self.texts),
            "masked": list(self.masked),
            "ranks": self.top_features.shape[1],
            **{name: encode_array(getattr(self, name)) for name in ARRAYS},
            "feature": self.feature,
            "activation": self.activation,
            "unit": "logits",
            "warnings": list(self.warnings),
            "checks": [asdict(check) for check in self.checks],
            "cancelled": self.cancelled,
        }
        return dump_record(SCHEMA, VERSION, fields)

    @classmethod
    def from_json(cls, text: str | bytes) -> "CltProbeResult":
        """The inverse of `to_json`.

        Raises:
            InputError: anything that `to_json` would not have written.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("feature probe"):
            ids = whole_from(record["token_ids"])
            wanted = shapes(len(ids), int(record["ranks"]))
            arrays = {
                name: decode_array(record[name], _TYPES[name], shape, name) for name, shape in wanted.items()
            }
            feature = record["feature"]
            return cls(
                inputs=CltProbeInputs.from_dict(record["inputs"]),
                provenance=provenance_from(record["provenance"]),
                model_name=str(record["model_name"]),
                transcoder=TranscoderLabel.from_dict(record["transcoder"]),
                layer=int(record["layer"]),
                token_ids=ids,
                tokens=texts_from(record["tokens"]),
                texts=texts_from(record["texts"]),
                masked=whole_from(record["masked"]),
                **arrays,
                feature=None if feature is None else int(feature),
                activation=float(record["activation"]),
                warnings=texts_from(record["warnings"]),
                checks=checks_from(record["checks"]),
                cancelled=bool(record["cancelled"]),
            )


_TYPES = {"n_active": "int64", "top_features": "int64", "top_activations": "float32", "l2": "float64"}


def shapes(n_pos: int, ranks: int) -> dict[str, tuple[int, ...]]:
    """The shape that every array must have."""
    return {
        "n_active": (n_pos,), "top_features": (n_pos, ranks), "top_activations": (n_pos, ranks),
        "l2": (n_pos,),
    }  # fmt: skip
