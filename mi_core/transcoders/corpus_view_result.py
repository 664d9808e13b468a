"""What a corpus says about one feature: density, histogram, examples, what is active with it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.plain import checks_from, damage_told, provenance_from, texts_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.provenance import Provenance
from mi_core.transcoders.corpus_view_inputs import FeatureCorpusInputs
from mi_core.transcoders.feature_files_record import ExampleGroup, FeatureExample
from mi_core.transcoders.names import Feature, parse_feature
from mi_core.visible import visible

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/feature_corpus", 1
_FLOATS = ("histogram", "edges", "quantile_values", "coactive_shares", "coactive_densities")
_WHOLE = ("coactive_layers", "coactive_indices")
ARRAYS = (*_FLOATS, *_WHOLE)


@dataclass(frozen=True, slots=True, eq=False)
class FeatureCorpusResult:
    """One feature over a corpus, as its features files tell it.

    Attributes:
        inputs: what was asked for.
        provenance: model, versions.
        transcoder: its name.
        place: where the features files are; "" = there are none.
        found: whether they hold something about this feature.
        text: name of the corpus; "" where the files do not say.
        density: share of the corpus' tokens at which it is active; NaN where the files do not say.
        largest: its largest activation.
        n_tokens: tokens of the corpus; 0 where the files do not say.
        n_active: tokens at which it is active; 0 where the files do not say.
        histogram: [bin] active tokens.
        edges: [bin + 1] ends of the bins; empty where the files do not say.
        quantile_values: as in the file; in ours the activations between the groups.
        coactive_layers: [other] layer of features that are active with it, those that exceed chance most
            first.
        coactive_indices: [other] their numbers.
        coactive_shares: [other] share of the looked-at active tokens of this one at which they are active.
        coactive_densities: [other] their share of all tokens.
        coactive_tokens: active tokens that were looked at.
        groups: examples, the strongest first.
        top_logits: tokens that it writes most, over all target layers.
        bottom_logits: tokens that it writes against most.
        warnings: sentences to be read first.
        checks: what the files say in two ways, compared.
        cancelled: always False: it is one read.
    """

    inputs: FeatureCorpusInputs
    provenance: Provenance | None
    transcoder: str
    place: str
    found: bool
    text: str
    density: float
    largest: float
    n_tokens: int
    n_active: int
    histogram: Float[np.ndarray, " bin"]
    edges: Float[np.ndarray, " edge"]
    quantile_values: Float[np.ndarray, " quantile"]
    coactive_layers: Int[np.ndarray, " other"]
    coactive_indices: Int[np.ndarray, " other"]
    coactive_shares: Float[np.ndarray, " other"]
    coactive_densities: Float[np.ndarray, " other"]
    coactive_tokens: int = 0
    groups: tuple[ExampleGroup, ...] = ()
    top_logits: tuple[str, ...] = ()
    bottom_logits: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Bins with ends, and as many numbers of each kind per co-active feature."""
        if len(self.edges) not in (0, len(self.histogram) + 1):
            raise ValueError(f"{len(self.histogram)} bins with {len(self.edges)} ends")
        others = {len(getattr(self, name)) for name in ARRAYS if name.startswith("coactive_")}
        if len(others) != 1:
            raise ValueError(f"co-active arrays of lengths {others}")

    @property
    def feature(self) -> Feature:
        """The feature."""
        return parse_feature(self.inputs.feature)

    @property
    def dead(self) -> bool:
        """Never active in the corpus."""
        return self.found and self.density == 0

    @property
    def coactive(self) -> tuple[Feature, ...]:
        """The co-active features."""
        both = zip(self.coactive_layers.tolist(), self.coactive_indices.tolist(), strict=True)
        return tuple(Feature(layer, index) for layer, index in both)

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table: one number per row, with its unit."""
        import pandas as pd  # only tables need it

        rows: list[dict[str, Any]] = [
            {"quantity": "density", "value": self.density, "unit": "share of tokens"},
            {"quantity": "largest activation", "value": self.largest, "unit": "activation"},
        ]
        if len(self.edges):
            rows += [
                {"quantity": "histogram", "low": low, "high": high, "value": count, "unit": "tokens"}
                for low, high, count in zip(self.edges[:-1], self.edges[1:], self.histogram, strict=True)
            ]
        for feature, share, density in zip(
            self.coactive, self.coactive_shares, self.coactive_densities, strict=True
        ):
            rows.append({"quantity": "co-active", "other": feature.text, "value": share, "unit": "share"})
            rows.append({"quantity": "by chance", "other": feature.text, "value": density, "unit": "share"})
        rows += [row for group in self.groups for row in _example_rows(group)]
        return pd.DataFrame([{"feature": self.inputs.feature, **row} for row in rows])

    def to_json(self) -> str:
        """The whole result as JSON text."""
        fields: dict[str, Any] = {
            "inputs": self.inputs.to_dict(),
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
            **{name: getattr(self, name) for name in (*_TEXTS, *_COUNTS, "found", "cancelled")},
            "density": encode_array(np.array(self.density)),
            "largest": encode_array(np.array(self.largest)),
            **{name: encode_array(getattr(self, name)) for name in ARRAYS},
            "groups": [asdict(group) for group in self.groups],
            **{name: list(getattr(self, name)) for name in ("top_logits", "bottom_logits", "warnings")},
            "checks": [asdict(check) for check in self.checks],
        }
        return dump_record(SCHEMA, VERSION, fields)

    @classmethod
    def from_json(cls, text: str | bytes) -> "FeatureCorpusResult":
        """The inverse of `to_json`.

        Raises:
            InputError: anything that `to_json` would not have written.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("feature's corpus"):
            return _build(record)


_TEXTS = ("transcoder", "place", "text")
_COUNTS = ("n_tokens", "n_active", "coactive_tokens")


def _example_rows(group: ExampleGroup) -> list[dict[str, Any]]:
    return [
        {
            "quantity": "example",
            "group": group.name,
            "rank": rank,
            "position": position,
            "token": visible(token),
            "value": value,
            "unit": "activation",
        }
        for rank, one in enumerate(group.examples, 1)
        for position, (token, value) in enumerate(zip(one.tokens, one.activations, strict=True), -one.peak)
    ]


def _build(record: Mapping[str, Any]) -> FeatureCorpusResult:
    named: dict[str, Any] = {name: str(record[name]) for name in _TEXTS}
    named |= {name: int(record[name]) for name in _COUNTS}
    for name in ARRAYS:
        kind = "float64" if name in _FLOATS else "int64"
        named[name] = decode_array(record[name], kind, (len(record[name]),), name)
    for name in ("density", "largest"):
        named[name] = float(decode_array(record[name], "float64", (), name))
    for name in ("top_logits", "bottom_logits", "warnings"):
        named[name] = texts_from(record[name])
    return FeatureCorpusResult(
        inputs=FeatureCorpusInputs.from_dict(record["inputs"]),
        provenance=provenance_from(record["provenance"]),
        found=bool(record["found"]),
        groups=tuple(_group(one) for one in record["groups"]),
        checks=checks_from(record["checks"]),
        cancelled=bool(record["cancelled"]),
        **named,
    )


def _group(values: Mapping[str, Any]) -> ExampleGroup:
    examples = tuple(
        FeatureExample(
            texts_from(one["tokens"]),
            tuple(float(value) for value in one["activations"]),
            int(one["peak"]),
            bool(one["repeated"]),
        )
        for one in values["examples"]
    )
    return ExampleGroup(str(values["name"]), examples)
