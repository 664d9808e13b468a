"""Couplets continued by the model as it is and with a repeated block of layers: numbers, table, JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.plain import checks_from, damage_told, provenance_from, texts_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.analyses.recurrent_feedback_inputs import RecurrentFeedbackInputs
from mi_core.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/recurrent_feedback", 1

Outcome = Literal["RESCUED", "REGRESS", "OK", "-"]

_TOPS = {"top_ids": "int64", "top_probabilities": "float64"}
_PER_LINE = {"target_probabilities": "float64", "target_ranks": "int64", "hits": "bool"}
_WORDS = ("lines", "words")


@dataclass(frozen=True, slots=True, eq=False)
class RecurrentFeedbackResult:
    """Every array has a first axis [run]: 0 = the model as it is, 1 = with the repeated block.

    Attributes:
        inputs: what was asked for.
        provenance: model and versions.
        start: first repeated layer.
        end: one past the last one.
        n_layers: layers of the model.
        d_model: its width.
        top_ids: [run, couplet, k] most probable next tokens after the first line.
        top_probabilities: [run, couplet, k] theirs.
        target_ids: [couplet] first token of each target.
        target_probabilities: [run, couplet] its probability after the first line.
        target_ranks: [run, couplet] 1 = the top token; tied tokens share the best rank.
        hits: [run, couplet] whether the last word of the second line is one of the rhymes.
        lines: [run][couplet] the greedy second line, up to its first line break.
        words: [run][couplet] its last word in lower case, "" if it has none.
        vocabulary: token id -> visible text, for every id above.
        warnings: sentences to be read first.
        checks: identities tried on this model.
        seconds: duration.
        cancelled: whether the user stopped it; then the last couplets are missing.
    """

    inputs: RecurrentFeedbackInputs
    provenance: Provenance | None
    start: int
    end: int
    n_layers: int
    d_model: int
    top_ids: Int[np.ndarray, "2 couplet k"]
    top_probabilities: Float[np.ndarray, "2 couplet k"]
    target_ids: Int[np.ndarray, "couplet"]
    target_probabilities: Float[np.ndarray, "2 couplet"]
    target_ranks: Int[np.ndarray, "2 couplet"]
    hits: Bool[np.ndarray, "2 couplet"]
    lines: tuple[tuple[str, ...], tuple[str, ...]]
    words: tuple[tuple[str, ...], tuple[str, ...]]
    vocabulary: Mapping[int, str]
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """One column per couplet."""
        for name in (*_TOPS, *_PER_LINE):
            if getattr(self, name).shape[:2] != (2, self.n_couplets):
                raise ValueError(f"{name} has shape {getattr(self, name).shape}")
        for name in _WORDS:
            if any(len(run) != self.n_couplets for run in getattr(self, name)):
                raise ValueError(f"{name} are not {self.n_couplets} per run")

    @property
    def n_couplets(self) -> int:
        """Couplets that are done."""
        return len(self.target_ids)

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """Per couplet: RESCUED = only the repeated block rhymes, REGRESS = only the model as it is does."""
        named: dict[tuple[bool, bool], Outcome] = {
            (False, True): "RESCUED",
            (True, False): "REGRESS",
            (True, True): "OK",
            (False, False): "-",
        }
        return tuple(named[bool(before), bool(after)] for before, after in self.hits.T)

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table, one number per row, with its unit; couplets count from 1."""
        import pandas as pd

        units = {"target_probabilities": "probability", "target_ranks": "rank", "hits": "rhymes (0 or 1)"}
        return pd.DataFrame([
            {
                "couplet": column + 1, "target": couplet.target, "run": run,
                "line": self.lines[index][column], "word": self.words[index][column],
                "outcome": self.outcomes[column], "metric": name,
                "value": float(getattr(self, name)[index, column]), "unit": unit,
            }
            for column, couplet in enumerate(self.inputs.couplets[: self.n_couplets])
            for index, run in enumerate(("baseline", "recurrent"))
            for name, unit in units.items()
        ])  # fmt: skip

    def candle_mi(self) -> dict[str, Any]:
        """The keys of candle-mi's recurrent_feedback files, `depth` always included."""
        asked, (before, after) = self.inputs, self.hits.sum(1).tolist()
        return {
            "model_id": "" if self.provenance is None else self.provenance.model,
            "n_layers": self.n_layers, "hidden_size": self.d_model,
            "loop_start": self.start, "loop_end": self.end, "depth": asked.depth,
            "strength": asked.strength, "mode": asked.mode,
            "baseline_rhymes": before, "recurrent_rhymes": after, "total_couplets": self.n_couplets,
            "couplets": [
                {
                    "id": column + 1, "target": couplet.target, "line1": couplet.line,
                    "baseline_word": self.words[0][column], "baseline_rhymes": bool(self.hits[0, column]),
                    "recurrent_word": self.words[1][column], "recurrent_rhymes": bool(self.hits[1, column]),
                    "recurrent_line": self.lines[1][column], "result": self.outcomes[column],
                }
                for column, couplet in enumerate(asked.couplets[: self.n_couplets])
            ],
        }  # fmt: skip

    def to_json(self) -> str:
        """JSON text: schema "lantern/recurrent_feedback", every field, and `candle_mi`; no NaN."""
        provenance = self.provenance
        return dump_record(SCHEMA, VERSION, {
            "inputs": self.inputs.to_dict(),
            "provenance": None if provenance is None else provenance.to_dict(),
            "start": self.start, "end": self.end, "n_layers": self.n_layers, "d_model": self.d_model,
            "target_ids": self.target_ids.tolist(),
            **{name: encode_array(getattr(self, name)) for name in (*_TOPS, *_PER_LINE)},
            **{name: [list(run) for run in getattr(self, name)] for name in _WORDS},
            "vocabulary": {str(token_id): text for token_id, text in self.vocabulary.items()},
            "candle_mi": self.candle_mi(),
            "warnings": list(self.warnings),
            "checks": [asdict(check) for check in self.checks],
            "seconds": self.seconds,
            "cancelled": self.cancelled,
        })  # fmt: skip

    @classmethod
    def from_json(cls, text: str | bytes) -> "RecurrentFeedbackResult":
        """The inverse of `to_json`; numbers come back exactly.

        Raises:
            InputError: not such a record, or damaged.
        """
        record = load_record(text, SCHEMA, VERSION)
        with damage_told("recurrent feedback"):
            return _build(record)


def _build(record: Mapping[str, Any]) -> RecurrentFeedbackResult:
    count, k = len(record["target_ids"]), len(record["top_ids"][0][0])
    arrays: dict[str, Any] = {
        **{name: decode_array(record[name], dtype, (2, count, k), name) for name, dtype in _TOPS.items()},
        **{name: decode_array(record[name], dtype, (2, count), name) for name, dtype in _PER_LINE.items()},
    }
    texts: dict[str, Any] = {name: tuple(texts_from(run) for run in record[name]) for name in _WORDS}
    return RecurrentFeedbackResult(
        inputs=RecurrentFeedbackInputs.from_dict(record["inputs"]),
        provenance=provenance_from(record["provenance"]),
        start=int(record["start"]),
        end=int(record["end"]),
        n_layers=int(record["n_layers"]),
        d_model=int(record["d_model"]),
        target_ids=decode_array(record["target_ids"], "int64", (count,), "target_ids"),
        **arrays,
        **texts,
        vocabulary={int(token_id): str(text) for token_id, text in record["vocabulary"].items()},
        warnings=texts_from(record["warnings"]),
        checks=checks_from(record["checks"]),
        seconds=float(record["seconds"]),
        cancelled=bool(record["cancelled"]),
    )
