"""What a word search returns: the features that write or read a word, and where in the model they are."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.plain import damage_told, outcome_from, provenance_from, texts_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.provenance import Provenance
from mi_core.transcoders.names import Feature
from mi_core.transcoders.words_inputs import WordSearchInputs

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/word_search", 1
EFFECT_UNITS = {"writes": "logits per unit of activation", "reads": "pre-activation"}


@dataclass(frozen=True, slots=True)
class WordHit:
    """One feature that writes (reads) the word.

    Attributes:
        rank: from 1.
        feature: which.
        target: layer at which it writes the word most; its own for "reads".
        token_id: form of the word.
        token: the same, visible.
        score: what it is ranked by.
        effect: logits per unit of activation (pre-activation of the bare embedding), relative to the mean
            over the vocabulary.
        deviations: effect divided by its standard deviation over the vocabulary.
        cosine: between its row and the word's direction.
        word_rank: rank of the word among all tokens, in what it writes there (reads); 1 = its top word.
        total: effect of all target layers together; the same as `effect` for "reads".
        copies: further features of the same layer with practically the same row there
            (cosine above 0.999), which are not listed.
    """

    rank: int
    feature: Feature
    target: int
    token_id: int
    token: str
    score: float
    effect: float
    deviations: float
    cosine: float
    word_rank: int
    total: float
    copies: int


@dataclass(frozen=True, slots=True, eq=False)
class WordSearchResult:
    """The features that write or read a word, the best first.

    Attributes:
        inputs: what was asked for.
        provenance: model and versions.
        transcoder_name: what the transcoder is called.
        transcoder_fingerprint: of its files.
        searched_ids: token ids of the forms of the word that were searched.
        searched: their visible texts.
        n_searched: features that were looked at.
        layers: layer of every hit.
        indices: its number in the layer.
        targets: layer at which it writes the word most; its own for "reads".
        token_ids: form of the word.
        scores: what hits are ranked by.
        effects: see `WordHit`; as are the next ones.
        deviations: in standard deviations over the vocabulary.
        cosines: between row and the word's direction.
        ranks: of the word in what the feature writes there (reads), from 1.
        totals: effect of all target layers together.
        copies: further features of the same layer with practically the same row there
            (cosine above 0.999), which are not listed.
        source_layers: layers of the transcoder.
        target_layers: layers that are written (for "reads": as `source_layers`).
        best: the best score of any feature, by source and target layer; NaN where nothing is written.
        warnings: sentences to be read before the figure.
        checks: identities tried on these numbers.
        seconds: duration.
        cancelled: whether the user stopped it; then only the layers done until then were searched.
    """

    inputs: WordSearchInputs
    provenance: Provenance | None
    transcoder_name: str
    transcoder_fingerprint: str
    searched_ids: Int[np.ndarray, "form"]
    searched: tuple[str, ...]
    n_searched: int
    layers: Int[np.ndarray, "hit"]
    indices: Int[np.ndarray, "hit"]
    targets: Int[np.ndarray, "hit"]
    token_ids: Int[np.ndarray, "hit"]
    scores: Float[np.ndarray, "hit"]
    effects: Float[np.ndarray, "hit"]
    deviations: Float[np.ndarray, "hit"]
    cosines: Float[np.ndarray, "hit"]
    ranks: Int[np.ndarray, "hit"]
    totals: Float[np.ndarray, "hit"]
    copies: Int[np.ndarray, "hit"]
    source_layers: Int[np.ndarray, "source"]
    target_layers: Int[np.ndarray, "target"]
    best: Float[np.ndarray, "source target"]
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False
    _words: Mapping[int, str] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Shapes agree with each other."""
        sizes = (len(self.searched), len(self.layers), len(self.source_layers), len(self.target_layers))
        for name, shape in _shapes(*sizes).items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")
        words = dict(zip(self.searched_ids.tolist(), self.searched, strict=True))
        object.__setattr__(self, "_words", words)

    @property
    def features(self) -> tuple[Feature, ...]:
        """The features, the best first."""
        pairs = zip(self.layers.tolist(), self.indices.tolist(), strict=True)
        return tuple(Feature(layer, index) for layer, index in pairs)

    def hits(self) -> tuple[WordHit, ...]:
        """The features with their numbers, the best first."""
        return tuple(self._hits())

    def _hits(self) -> Iterator[WordHit]:
        for row, feature in enumerate(self.features):
            token = int(self.token_ids[row])
            yield WordHit(
                rank=row + 1,
                feature=feature,
                target=int(self.targets[row]),
                token_id=token,
                token=self._words.get(token, f"⟨id {token}⟩"),
                score=float(self.scores[row]),
                effect=float(self.effects[row]),
                deviations=float(self.deviations[row]),
                cosine=float(self.cosines[row]),
                word_rank=int(self.ranks[row]),
                total=float(self.totals[row]),
                copies=int(self.copies[row]),
            )

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table: one row per hit and quantity."""
        import pandas as pd  # only tables need it

        units = {
            "effect": EFFECT_UNITS[self.inputs.side],
            "total": EFFECT_UNITS[self.inputs.side],
            "deviations": "standard deviations over the vocabulary",
            "cosine": "cosine",
            "word_rank": "rank from 1",
        }
        rows = [
            {"rank": hit.rank, "feature": hit.feature.text, "layer": hit.feature.layer,
             "index": hit.feature.index, "target": hit.target, "token_id": hit.token_id, "token": hit.token,
             "quantity": name, "value": float(getattr(hit, name)), "unit": unit}
            for hit in self._hits() for name, unit in units.items()
        ]  # fmt: skip
        names = (
            "rank",
            "feature",
            "layer",
            "index",
            "target",
            "token_id",
            "token",
            "quantity",
            "value",
            "unit",
        )
        return pd.DataFrame(rows, columns=list(names))

    def grid_frame(self) -> "pd.DataFrame":
        """One row per source and target layer that is written."""
        import pandas as pd

        rows = [
            {"quantity": f"best {self.inputs.rank_by}", "layer": int(self.source_layers[i]),
             "target": int(self.target_layers[j]), "value": float(value)}
            for (i, j), value in np.ndenumerate(self.best) if np.isfinite(value)
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=["quantity", "layer", "target", "value"])

    def to_json(self) -> str:
        """The whole result as JSON text."""
        record: dict[str, Any] = {
            "inputs": self.inputs.to_dict(),
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
            **{name: getattr(self, name) for name in _PLAIN},
            "searched": list(self.searched),
            **{name: encode_array(getattr(self, name)) for name in ARRAYS},
            "warnings": list(self.warnings),
            "checks": [asdict(check) for check in self.checks],
        }
        return dump_record(SCHEMA, VERSION, record)

    @classmethod
    def from_json(cls, text: str | bytes) -> "WordSearchResult":
        """The inverse of `to_json`.

        Raises:
            InputError: anything that `to_json` would not have written.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("word search"):
            return _build(record)


_PLAIN = ("transcoder_name", "transcoder_fingerprint", "n_searched", "seconds", "cancelled")
_FLOATS = ("scores", "effects", "deviations", "cosines", "totals")
_WHOLE = ("layers", "indices", "targets", "token_ids", "ranks", "copies")


def _shapes(forms: int, hits: int, sources: int, targets: int) -> dict[str, tuple[int, ...]]:
    """Shape of every array, by its name in the record."""
    return {
        "searched_ids": (forms,),
        **{name: (hits,) for name in (*_WHOLE, *_FLOATS)},
        "source_layers": (sources,),
        "target_layers": (targets,),
        "best": (sources, targets),
    }


ARRAYS = tuple(_shapes(0, 0, 0, 0))
"""Names of the arrays, in the result and in its record."""


def _build(record: Mapping[str, Any]) -> WordSearchResult:
    sizes = (len(record[name]) for name in ("searched", "layers", "source_layers", "target_layers"))
    arrays: dict[str, Any] = {
        name: decode_array(record[name], "float64" if name in (*_FLOATS, "best") else "int64", shape, name)
        for name, shape in _shapes(*sizes).items()
    }
    return WordSearchResult(
        inputs=WordSearchInputs.from_dict(record["inputs"]),
        provenance=provenance_from(record["provenance"]),
        transcoder_name=str(record["transcoder_name"]),
        transcoder_fingerprint=str(record["transcoder_fingerprint"]),
        searched=texts_from(record["searched"]),
        n_searched=int(record["n_searched"]),
        **arrays,
        **outcome_from(record),
    )
