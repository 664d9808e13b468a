"""A text continued by the model as it is and by the edited model, side by side: numbers, table, JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.generation_inputs import GenerationInputs
from mi_core.analyses.plain import checks_from, damage_told, provenance_from, texts_from, tokens_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.provenance import Provenance
from mi_core.tokens import Token

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/generation", 1

Stop = Literal["steps", "eos"]
SERIES = ("default", "edited")

_ARRAYS = {
    "default_ids": "int64",
    "edited_ids": "int64",
    "default_log_probabilities": "float64",
    "edited_log_probabilities": "float64",
    "kl": "float64",
}


@dataclass(frozen=True, slots=True, eq=False)
class GenerationResult:
    """Continuations by the default model and by the edited one, a pair per seed. Nats.

    Attributes:
        inputs: what was asked for.
        provenance: model and versions.
        tokens: of the prompt.
        seeds: of the rows below; greedy decoding has one row.
        default_ids: [seed, step] new tokens of the default model; -1 after its end.
        edited_ids: [seed, step] those of the edited model.
        default_log_probabilities: [seed, step] of each chosen token, under the default model; NaN after its
            end. Of the whole distribution, before temperature and top_p.
        edited_log_probabilities: [seed, step] of the edited model's own tokens, under the edited model.
        kl: [seed, step] KL(default || edited) of the distributions that choose step s, both models having
            read the prompt and the *default* continuation before s; NaN after its end.
        default_stopped: why each default continuation ended.
        edited_stopped: why each edited one did.
        vocabulary: token id -> visible text, for every id above.
        method: "cached", or "full" where a key-value cache would not have been exact.
        layer: the layer that was steered; None without steering.
        warnings: sentences to be read first.
        checks: identities tried on these numbers.
        seconds: duration.
        cancelled: whether the user stopped it; then the last seeds are missing.
    """

    inputs: GenerationInputs
    provenance: Provenance | None
    tokens: tuple[Token, ...]
    seeds: tuple[int, ...]
    default_ids: Int[np.ndarray, "seed step"]
    edited_ids: Int[np.ndarray, "seed step"]
    default_log_probabilities: Float[np.ndarray, "seed step"]
    edited_log_probabilities: Float[np.ndarray, "seed step"]
    kl: Float[np.ndarray, "seed step"]
    default_stopped: tuple[Stop, ...]
    edited_stopped: tuple[Stop, ...]
    vocabulary: Mapping[int, str]
    method: str
    layer: int | None = None
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """One row per seed, one column per step."""
        shape = (len(self.seeds), self.inputs.steps)
        for name in _ARRAYS:
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")
        for stopped in (self.default_stopped, self.edited_stopped):
            if len(stopped) != len(self.seeds) or not set(stopped) <= set(get_args(Stop)):
                raise ValueError(f"{len(self.seeds)} seeds but endings {stopped}")

    @property
    def changed(self) -> Bool[np.ndarray, "seed step"]:
        """Where the two continuations do not have the same token at the same step; nothing is realigned."""
        return self.default_ids != self.edited_ids

    @property
    def first_difference(self) -> Int[np.ndarray, "seed"]:
        """First step (counted from 0) at which they differ; -1 = never."""
        return np.where(self.changed.any(1), self.changed.argmax(1), -1)

    def visible(self, token_id: int) -> str:
        """Visible text of a token id that occurs in this result."""
        return self.vocabulary.get(token_id, f"#{token_id}")

    def text(self, series: str, row: int) -> str:
        """A continuation as visible text."""
        ids = self.ids(series)[row]
        return "".join(self.visible(token_id) for token_id in ids.tolist() if token_id >= 0)

    def ids(self, series: str) -> Int[np.ndarray, "seed step"]:
        """New tokens of "default" or "edited"."""
        return self.default_ids if series == "default" else self.edited_ids

    def log_probabilities(self, series: str) -> Float[np.ndarray, "seed step"]:
        """Theirs."""
        return self.default_log_probabilities if series == "default" else self.edited_log_probabilities

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table, one number per row, with its unit; steps count from 1."""
        import pandas as pd

        return pd.DataFrame(list(self._records()))

    def _records(self) -> Any:
        changed = self.changed
        for row, seed in enumerate(self.seeds):
            for series in SERIES:
                numbers = [("log_probability", self.log_probabilities(series)[row])]
                numbers += [("kl_default_edited", self.kl[row])] if series == "default" else []
                for step, token_id in enumerate(self.ids(series)[row].tolist()):
                    if token_id < 0:
                        continue
                    for metric, values in numbers:
                        yield {
                            "seed": seed,
                            "model": series,
                            "step": step + 1,
                            "position": len(self.tokens) + step,
                            "id": token_id,
                            "token": self.visible(token_id),
                            "changed": bool(changed[row, step]),
                            "metric": metric,
                            "value": float(values[step]),
                            "unit": "nats",
                        }

    def to_json(self) -> str:
        """JSON text: schema "lantern/generation", version, every field; no NaN."""
        provenance = self.provenance
        return dump_record(SCHEMA, VERSION, {
            "inputs": self.inputs.to_dict(),
            "provenance": None if provenance is None else provenance.to_dict(),
            "tokens": [asdict(token) for token in self.tokens],
            "seeds": list(self.seeds),
            **{name: encode_array(getattr(self, name)) for name in _ARRAYS},
            "first_difference": self.first_difference.tolist(),
            "default_stopped": list(self.default_stopped),
            "edited_stopped": list(self.edited_stopped),
            "vocabulary": {str(token_id): text for token_id, text in self.vocabulary.items()},
            "method": self.method,
            "layer": self.layer,
            "warnings": list(self.warnings),
            "checks": [asdict(check) for check in self.checks],
            "seconds": self.seconds,
            "cancelled": self.cancelled,
        })  # fmt: skip

    @classmethod
    def from_json(cls, text: str | bytes) -> "GenerationResult":
        """The inverse of `to_json`; numbers come back exactly.

        Raises:
            InputError: not such a record, or damaged.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("generation"):
            return _build(record)


def _build(record: Mapping[str, Any]) -> GenerationResult:
    inputs = GenerationInputs.from_dict(record["inputs"])
    shape = (len(record["seeds"]), inputs.steps)
    arrays: dict[str, Any] = {
        name: decode_array(record[name], dtype, shape, name) for name, dtype in _ARRAYS.items()
    }
    layer = record["layer"]
    return GenerationResult(
        inputs=inputs,
        provenance=provenance_from(record["provenance"]),
        tokens=tokens_from(record["tokens"]),
        seeds=tuple(int(seed) for seed in record["seeds"]),
        **arrays,
        default_stopped=tuple(record["default_stopped"]),
        edited_stopped=tuple(record["edited_stopped"]),
        vocabulary={int(token_id): str(text) for token_id, text in record["vocabulary"].items()},
        method=str(record["method"]),
        layer=None if layer is None else int(layer),
        warnings=texts_from(record["warnings"]),
        checks=checks_from(record["checks"]),
        seconds=float(record["seconds"]),
        cancelled=bool(record["cancelled"]),
    )
