"""What a model says next, and how much each token of the prompt surprised it: numbers, table, JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float, Int

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.next_token_inputs import NextTokenInputs
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.errors import InputError
from mi_core.provenance import Provenance
from mi_core.tokens import Token

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/next_token", 1

RowRole = Literal["top", "target", "distractor"]
_ROLES: tuple[RowRole, ...] = ("top", "target", "distractor")

ALTERNATIVES = 5

_ROWS = {"ids": "int64", "logits": "float64", "log_probabilities": "float64", "ranks": "int64"}
_POSITIONS = {"token_log_probabilities": "float64", "token_ranks": "int64", "entropies": "float64"}
_ALTERNATIVES = {"alternative_ids": "int64", "alternative_log_probabilities": "float64"}


@dataclass(frozen=True, slots=True, eq=False)
class NextTokenResult:
    """The table at one position, and the surprise of every token. Natural logarithms, nats.

    Attributes:
        inputs: what was asked for.
        provenance: model and versions.
        tokens: of the prompt.
        position: the table says what comes after this token.
        ids: token ids of the table's rows: the k most probable, then target and distractor if they are not
            among them.
        roles: "target" or "distractor" for those two, wherever they stand; else "top".
        logits: of the rows, every softcap included, before the temperature.
        log_probabilities: of the rows, at the temperature.
        ranks: number of tokens with a higher logit; 0 = the top token.
        entropy: of the whole distribution at that position and temperature.
        token_log_probabilities: [pos] of every token given those before it; NaN for the first.
        token_ranks: [pos] its rank in the prediction made before it; -1 for the first.
        entropies: [pos] entropy of that prediction; NaN for the first.
        alternative_ids: [pos, alternative] the most probable other tokens of that prediction; -1 where there
            is none.
        alternative_log_probabilities: [pos, alternative] theirs; NaN where there is none.
        vocabulary: token id -> visible text, for every id above.
        warnings: sentences to be read first.
        checks: identities tried on these numbers.
        seconds: duration.
        cancelled: whether the user stopped it (it is too short for that: always False).
    """

    inputs: NextTokenInputs
    provenance: Provenance | None
    tokens: tuple[Token, ...]
    position: int
    ids: Int[np.ndarray, "row"]
    roles: tuple[RowRole, ...]
    logits: Float[np.ndarray, "row"]
    log_probabilities: Float[np.ndarray, "row"]
    ranks: Int[np.ndarray, "row"]
    entropy: float
    token_log_probabilities: Float[np.ndarray, "pos"]
    token_ranks: Int[np.ndarray, "pos"]
    entropies: Float[np.ndarray, "pos"]
    alternative_ids: Int[np.ndarray, "pos alternative"]
    alternative_log_probabilities: Float[np.ndarray, "pos alternative"]
    vocabulary: Mapping[int, str]
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Rows belong to the table, positions to the prompt."""
        rows, positions = len(self.ids), len(self.tokens)
        shapes = {name: (rows,) for name in _ROWS} | {name: (positions,) for name in _POSITIONS}
        shapes |= {name: (positions, self.alternative_ids.shape[-1]) for name in _ALTERNATIVES}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")
        if len(self.roles) != rows or not set(self.roles) <= set(_ROLES):
            raise ValueError(f"{rows} rows but roles {self.roles}")
        if not 0 <= self.position < positions:
            raise ValueError(f"position {self.position} of {positions} tokens")

    @property
    def probabilities(self) -> Float[np.ndarray, "row"]:
        """Of the table's rows, at the temperature."""
        return np.exp(self.log_probabilities)

    @property
    def surprise(self) -> Float[np.ndarray, "pos"]:
        """-log P(token | those before it) in nats; NaN for the first token, which nothing predicts."""
        return -self.token_log_probabilities

    @property
    def total_surprise(self) -> float:
        """Negative log-likelihood of the prompt given its first token, in nats; 0 for a single token."""
        return float(np.nansum(self.surprise))

    @property
    def mean_surprise(self) -> float:
        """Per predicted token, in nats; NaN for a single token."""
        predicted = len(self.tokens) - 1
        return self.total_surprise / predicted if predicted else float("nan")

    def visible(self, token_id: int) -> str:
        """Visible text of a token id that occurs in this result."""
        return self.vocabulary.get(token_id, f"#{token_id}")

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table, one row per number: part, position, token, rank, id, candidate, metric, value, unit.

        part is "next token" (rows of the table), "prompt" (every token of the prompt) or "alternative".
        """
        import pandas as pd

        return pd.DataFrame([*_table_records(self), *_prompt_records(self)])

    def to_json(self) -> str:
        """JSON text: schema "lantern/next_token", version, every field; no NaN."""
        provenance = self.provenance
        return dump_record(SCHEMA, VERSION, {
            "inputs": self.inputs.to_dict(),
            "provenance": None if provenance is None else provenance.to_dict(),
            "tokens": [asdict(token) for token in self.tokens],
            "position": self.position,
            "roles": list(self.roles),
            "entropy": self.entropy,
            **{name: encode_array(getattr(self, name)) for name in (*_ROWS, *_POSITIONS, *_ALTERNATIVES)},
            "vocabulary": {str(token_id): text for token_id, text in self.vocabulary.items()},
            "warnings": list(self.warnings),
            "checks": [asdict(check) for check in self.checks],
            "seconds": self.seconds,
            "cancelled": self.cancelled,
        })  # fmt: skip

    @classmethod
    def from_json(cls, text: str | bytes) -> "NextTokenResult":
        """The inverse of `to_json`; numbers come back exactly.

        Raises:
            InputError: not such a record, or damaged.
        """
        record = load_record(text, SCHEMA, VERSION)
        try:
            return _build(record)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise InputError(
                "The next-token record is damaged", why=f"{type(error).__name__}: {error}"
            ) from error


def _table_records(result: NextTokenResult) -> list[dict[str, Any]]:
    """The table at the chosen position."""
    records = []
    for row, token_id in enumerate(result.ids.tolist()):
        shared = {
            "part": "next token",
            "position": result.position,
            "token": result.tokens[result.position].visible,
            "rank": int(result.ranks[row]),
            "id": token_id,
            "candidate": result.visible(token_id),
        }
        for metric, values, unit in (
            ("probability", result.probabilities, "probability"),
            ("log_probability", result.log_probabilities, "nats"),
            ("logit", result.logits, "logits"),
        ):
            records.append({**shared, "metric": metric, "value": float(values[row]), "unit": unit})
    return records


def _prompt_records(result: NextTokenResult) -> list[dict[str, Any]]:
    """Surprise, entropy and alternatives of every token but the first."""
    records = []
    for position, token in list(enumerate(result.tokens))[1:]:
        place = {"position": position, "token": token.visible}
        own = {**place, "rank": int(result.token_ranks[position]), "id": token.id, "candidate": token.visible}
        for metric, value in (("surprise", result.surprise), ("entropy", result.entropies)):
            records.append(
                {"part": "prompt", **own, "metric": metric, "value": float(value[position]), "unit": "nats"}
            )
        for token_id, log_probability in zip(
            result.alternative_ids[position].tolist(),
            result.alternative_log_probabilities[position].tolist(),
            strict=True,
        ):
            if token_id >= 0:
                other = {**place, "rank": None, "id": token_id, "candidate": result.visible(token_id)}
                number = {"metric": "log_probability", "value": log_probability, "unit": "nats"}
                records.append({"part": "alternative", **other, **number})
    return records


def _build(record: Mapping[str, Any]) -> NextTokenResult:
    rows, positions = len(record["ids"]), len(record["tokens"])
    width = len(record["alternative_ids"][0])
    shapes = {name: (rows,) for name in _ROWS} | {name: (positions,) for name in _POSITIONS}
    shapes |= {name: (positions, width) for name in _ALTERNATIVES}
    kinds = _ROWS | _POSITIONS | _ALTERNATIVES
    arrays: dict[str, Any] = {
        name: decode_array(record[name], kinds[name], shape, name) for name, shape in shapes.items()
    }
    provenance = record["provenance"]
    return NextTokenResult(
        inputs=NextTokenInputs.from_dict(record["inputs"]),
        provenance=None if provenance is None else Provenance.from_dict(provenance),
        tokens=tuple(
            Token(int(t["position"]), int(t["id"]), str(t["visible"]), int(t["start"]), int(t["end"]),
                  bool(t["special"]))
            for t in record["tokens"]
        ),
        position=int(record["position"]),
        roles=tuple(record["roles"]),
        entropy=float(record["entropy"]),
        **arrays,
        vocabulary={int(token_id): str(text) for token_id, text in record["vocabulary"].items()},
        warnings=tuple(str(warning) for warning in record["warnings"]),
        checks=tuple(Check(str(c["name"]), bool(c["passed"]), str(c["detail"])) for c in record["checks"]),
        seconds=float(record["seconds"]),
        cancelled=bool(record["cancelled"]),
    )  # fmt: skip
