"""A knock-out as a table, as JSON and back, and under candle-mi's keys. Called through `KnockoutResult`."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from mi_core.analyses.attribution_inputs import parse_head
from mi_core.analyses.attribution_result import ReadToken
from mi_core.analyses.before_after import RUN_NAMES, by_run, read_records, step_records
from mi_core.analyses.knockout_inputs import KnockoutInputs
from mi_core.analyses.knockout_result import KnockoutResult
from mi_core.analyses.plain import (
    damage_told,
    outcome,
    outcome_from,
    provenance_from,
    texts_from,
    tokens_from,
)
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/knockout", 1

_FLOAT64 = ("logits", "log_probabilities", "changed_probabilities")
_INTEGERS = ("ranks", "changed_ids", "baseline_ids", "edited_ids", "cut_rows")
ARRAYS = (*_FLOAT64, *_INTEGERS, "patterns")
_COLUMNS = ("kind", "quantity", "token", "layer", "head", "query", "key", "run", "value", "unit")
_WHOLE = ("layer", "head", "query", "key")
_CANDLE_EDGE = re.compile(r"e(\d+)-(\d+)@L(\d+)")


def to_frame(result: KnockoutResult) -> "pd.DataFrame":
    """Tidy table: one row per number."""
    import pandas as pd  # a third of a second; only tables need it

    rows = [*read_records(result), *_changed_rows(result), *step_records(result), *_pattern_rows(result)]
    frame = pd.DataFrame([{name: row.get(name) for name in _COLUMNS} for row in rows], columns=list(_COLUMNS))
    return frame.astype(dict.fromkeys(_WHOLE, "Int64"))


def _changed_rows(result: KnockoutResult) -> Iterator[dict[str, Any]]:
    for token, before, after in zip(
        result.changed_ids.tolist(), *result.changed_probabilities.tolist(), strict=True
    ):
        for run, value in by_run(before, after):
            yield {
                "kind": "changed token", "quantity": f"probability of token {token}",
                "token": result.vocabulary[token], "run": run, "value": value, "unit": "probability",
            }  # fmt: skip


def _pattern_rows(result: KnockoutResult) -> Iterator[dict[str, Any]]:
    start, end = result.window
    for index, name in enumerate(result.inputs.pinned_heads):
        layer, head = parse_head(name)
        for query in range(start, end):
            for key in range(start, query + 1):
                before, after = result.patterns[:, index, query - start, key - start].tolist()
                for run, value in by_run(before, after):
                    yield {
                        "kind": "attention", "quantity": f"attention of {name}", "layer": layer, "head": head,
                        "query": query, "key": key, "run": run, "value": value, "unit": "share",
                    }  # fmt: skip


def to_json(result: KnockoutResult) -> str:
    """The whole result as JSON text."""
    difference = result.logit_difference
    fields: dict[str, Any] = {
        "inputs": result.inputs.to_dict(),
        "provenance": None if result.provenance is None else result.provenance.to_dict(),
        "tokens": [asdict(token) for token in result.tokens],
        "target": asdict(result.target),
        "distractor": None if result.distractor is None else asdict(result.distractor),
        "interventions": list(result.interventions),
        "reference_prompts": list(result.reference_prompts),
        "mean_by_position": result.mean_by_position,
        "runs": list(RUN_NAMES),
        "kl": result.kl,
        "logit_difference": None if difference is None else encode_array(difference),
        "continued_where": result.continued_where,
        "vocabulary": {str(token): text for token, text in result.vocabulary.items()},
        "window": list(result.window),
        **{name: encode_array(getattr(result, name)) for name in ARRAYS},
        "n_layers": result.n_layers,
        "n_heads": result.n_heads,
        "d_model": result.d_model,
        **outcome(result),
    }
    return dump_record(SCHEMA, VERSION, fields)


def from_json(text: str | bytes) -> KnockoutResult:
    """The inverse of `to_json`.

    Raises:
        InputError: anything that `to_json` would not have written.
    """
    record = load_record(text, SCHEMA, VERSION)
    with damage_told("knock-out"):
        return _build(record)


def _build(record: Mapping[str, Any]) -> KnockoutResult:
    inputs = KnockoutInputs.from_dict(record["inputs"])
    start, end = (int(value) for value in record["window"])
    read, changed = 1 if record["distractor"] is None else 2, len(record["changed_ids"])
    shapes: dict[str, tuple[int, ...]] = {
        **dict.fromkeys(("logits", "log_probabilities", "ranks"), (2, read)),
        "changed_probabilities": (2, changed),
        "changed_ids": (changed,),
        "baseline_ids": (len(record["baseline_ids"]),),
        "edited_ids": (len(record["edited_ids"]),),
        "cut_rows": (len(record["cut_rows"]), 3),
        "patterns": (2, len(inputs.pinned_heads), end - start, end - start),
    }
    kinds = {**dict.fromkeys(_FLOAT64, "float64"), **dict.fromkeys(_INTEGERS, "int64"), "patterns": "float32"}
    return KnockoutResult(
        inputs=inputs,
        provenance=provenance_from(record["provenance"]),
        tokens=tokens_from(record["tokens"]),
        target=ReadToken.from_dict(record["target"]),
        distractor=None if record["distractor"] is None else ReadToken.from_dict(record["distractor"]),
        interventions=texts_from(record["interventions"]),
        reference_prompts=texts_from(record["reference_prompts"]),
        mean_by_position=bool(record["mean_by_position"]),
        kl=float(record["kl"]),
        continued_where=str(record["continued_where"]),
        vocabulary={int(token): str(text) for token, text in record["vocabulary"].items()},
        window=(start, end),
        **{name: decode_array(record[name], kinds[name], shapes[name], name) for name in ARRAYS},
        n_layers=int(record["n_layers"]),
        n_heads=int(record["n_heads"]),
        d_model=int(record["d_model"]),
        **outcome_from(record),
    )


def is_candle_mi(interventions: tuple[str, ...]) -> bool:
    """Whether a list is candle-mi's kind of knock-out: one edge, one layer, all heads."""
    return len(interventions) == 1 and _CANDLE_EDGE.fullmatch(interventions[0]) is not None


def to_candle_mi(result: KnockoutResult) -> dict[str, Any]:
    """The result under the keys of candle-mi's attention_knockout (logit difference: before minus after).

    Its KL leaves out small terms and its cut is not exact under a softcap; ours keeps all and is. Its key
    "paris_logit_diff" stands for whatever token was followed.

    Raises:
        InputError: the list is not one edge, cut in all heads of one layer.
    """
    if not is_candle_mi(result.interventions):
        raise InputError(
            "candle-mi's keys cannot describe this list",
            why="they have room for one edge that is cut in all heads of one layer",
        )
    query, key, layer = re.findall(r"\d+", result.interventions[0])
    before, after = result.changed_probabilities
    return {
        "model_id": "" if result.provenance is None else result.provenance.model,
        "prompt": result.inputs.prompt,
        "n_layers": result.n_layers,
        "n_heads": result.n_heads,
        "hidden_size": result.d_model,
        "target_layer": int(layer),
        "knockout_edge": [int(query), int(key)],
        "kl_divergence": result.kl,
        "paris_logit_diff": float(result.logits[0, 0] - result.logits[1, 0]),
        "top_changed": [
            {
                "rank": rank + 1,
                "token_id": token,
                "token": result.vocabulary[token],
                "baseline_prob": float(before[rank]),
                "ablated_prob": float(after[rank]),
                "abs_diff": float(np.abs(after[rank] - before[rank])),
            }
            for rank, token in enumerate(result.changed_ids.tolist())
        ],
    }
