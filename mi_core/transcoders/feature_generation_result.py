"""What steering by features returns: both texts, and how large the push is."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.generation_result import SCHEMA as TEXTS_SCHEMA
from mi_core.analyses.generation_result import VERSION as TEXTS_VERSION
from mi_core.analyses.generation_result import GenerationResult
from mi_core.analyses.plain import damage_told, texts_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.provenance import Provenance
from mi_core.transcoders.feature_edits import parse_feature_edits
from mi_core.transcoders.feature_generation_inputs import FeatureGenerationInputs

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/feature_generation", 1


@dataclass(frozen=True, slots=True, eq=False)
class FeatureGenerationResult:
    """Continuations of the model as it is and with features pushed, a pair per seed.

    Attributes:
        inputs: what was asked for.
        texts: both continuations, KL, checks; "edited" = with the features pushed.
        transcoder: its name.
        features: the features that were pushed, by add and suppress.
        weights: how many times the decoder rows of each were added.
        held: the edits by set, scale and ablate, whose push differs from token to token.
        found: [seed, held, token] activation that each found, in the prompt and then in the steered text;
            NaN where it did not act.
        norms: [layer] length of what was added there; the median over the prompt's tokens.
        ratio: length of the push over the length of the prompt's states; see `feature_generation_run`.
    """

    inputs: FeatureGenerationInputs
    texts: GenerationResult
    transcoder: str
    features: tuple[str, ...]
    weights: Float[np.ndarray, "feature"]
    held: tuple[str, ...]
    found: Float[np.ndarray, "seed held token"]
    norms: Float[np.ndarray, "layer"]
    ratio: float

    def __post_init__(self) -> None:
        """One weight per feature, and one activation per held edit and token."""
        if self.weights.shape != (len(self.features),):
            raise ValueError(f"{len(self.features)} features, weights {self.weights.shape}")
        if self.found.shape != _found_shape(self.texts, self.held):
            raise ValueError(f"{len(self.held)} held edits, activations {self.found.shape}")

    @property
    def provenance(self) -> Provenance | None:
        """Model and versions."""
        return self.texts.provenance

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences to be read first."""
        return self.texts.warnings

    @property
    def checks(self) -> tuple[Check, ...]:
        """Identities tried on these numbers."""
        return self.texts.checks

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.texts.seconds

    @property
    def cancelled(self) -> bool:
        """Whether the user stopped it; then the last seeds are missing."""
        return self.texts.cancelled

    @property
    def default_ids(self) -> Int[np.ndarray, "seed step"]:
        """New tokens of the model as it is; -1 after its end."""
        return self.texts.default_ids

    @property
    def edited_ids(self) -> Int[np.ndarray, "seed step"]:
        """New tokens with the features pushed."""
        return self.texts.edited_ids

    @property
    def edited_log_probabilities(self) -> Float[np.ndarray, "seed step"]:
        """Of these, under the pushed model; nats."""
        return self.texts.edited_log_probabilities

    @property
    def kl(self) -> Float[np.ndarray, "seed step"]:
        """KL(default || pushed) at every step of the default text; nats."""
        return self.texts.kl

    def to_frame(self) -> "pd.DataFrame":
        """The texts' table (see `GenerationResult.to_frame`), then what the held edits found.

        The latter have the metric "activation found" and the column edit; "to" is what the edit made of it.
        """
        import pandas as pd

        frame = self.texts.to_frame()
        return pd.concat([frame, self.found_frame()], ignore_index=True) if self.held else frame

    def found_frame(self) -> "pd.DataFrame":
        """One row per seed, held edit and token: the activation that was found, and what became of it."""
        import pandas as pd

        texts, n_prompt = self.texts, len(self.texts.tokens)
        shown = [token.visible for token in texts.tokens]
        rows = []
        for row, place, position in np.argwhere(~np.isnan(self.found)).tolist():
            value = float(self.found[row, place, position])
            step = position - n_prompt
            token = shown[position] if step < 0 else texts.visible(int(texts.edited_ids[row, step]))
            rows.append({
                "seed": texts.seeds[row], "model": "edited", "position": position, "token": token,
                "edit": self.held[place], "metric": "activation found", "value": value,
                "to": parse_feature_edits(self.held[place])[0].new_activation(value), "unit": "activation",
            })  # fmt: skip
        return pd.DataFrame(rows)

    def to_json(self) -> str:
        """JSON text: schema "lantern/feature_generation", version, every field; no NaN."""
        texts = json.loads(self.texts.to_json())
        return dump_record(SCHEMA, VERSION, {
            **{key: value for key, value in texts.items() if key not in ("schema", "version", "inputs")},
            "inputs": self.inputs.to_dict(),
            "texts_inputs": texts["inputs"],
            "transcoder": self.transcoder,
            "features": list(self.features),
            "weights": encode_array(self.weights),
            "held": list(self.held),
            "found": encode_array(self.found),
            "norms": encode_array(self.norms),
            "ratio": self.ratio,
        })  # fmt: skip

    @classmethod
    def from_json(cls, text: str | bytes) -> "FeatureGenerationResult":
        """The inverse of `to_json`; numbers come back exactly.

        Raises:
            InputError: not such a record, or damaged.
        """
        record: dict[str, Any] = load_record(text, SCHEMA, VERSION)
        with damage_told("feature-generation"):
            own = {"schema": TEXTS_SCHEMA, "version": TEXTS_VERSION, "inputs": record["texts_inputs"]}
            features = texts_from(record["features"])
            texts = GenerationResult.from_json(json.dumps({**record, **own}))
            held = texts_from(record.get("held", []))  # records of before had pushes only
            shape = _found_shape(texts, held)
            found = record.get("found")
            return cls(
                inputs=FeatureGenerationInputs.from_dict(record["inputs"]),
                texts=texts,
                transcoder=str(record["transcoder"]),
                features=features,
                weights=decode_array(record["weights"], "float64", (len(features),), "weights"),
                held=held,
                found=np.zeros(shape) if found is None else decode_array(found, "float64", shape, "found"),
                norms=decode_array(record["norms"], "float64", (len(record["norms"]),), "norms"),
                ratio=float(record["ratio"]),
            )


def _found_shape(texts: GenerationResult, held: tuple[str, ...]) -> tuple[int, int, int]:
    return len(texts.seeds), len(held), len(texts.tokens) + texts.inputs.steps
