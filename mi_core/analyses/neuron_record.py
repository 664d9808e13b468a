"""A look at one neuron as a table and as JSON, and back. Called through `NeuronResult`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from mi_core.analyses.neuron_inputs import NeuronInputs
from mi_core.analyses.neuron_result import Context, NeuronResult, Vocabulary
from mi_core.analyses.plain import checks_from, damage_told, provenance_from, texts_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "lantern/neuron"
VERSION = 1
ARRAYS = (
    "text_index",
    "text_category",
    "text_length",
    "text_first",
    "activations",
    "edges",
    "counts",
    "category_mean",
    "category_low",
    "category_high",
)
"""Every array of the result, by its name in the record."""


def to_frame(result: NeuronResult) -> "pd.DataFrame":
    """Tidy table: the activation at every token, bins, kinds of text, then the vocabulary."""
    import pandas as pd  # only tables need it

    parts = [part for part in (token_frame(result), histogram_frame(result), category_frame(result))]
    frame = pd.concat([*parts, vocabulary_frame(result)], ignore_index=True)
    whole = {name: "Int64" for name in ("text", "position", "token_id", "n", "texts")}
    return frame.astype(whole).assign(layer=result.inputs.layer, neuron=result.inputs.neuron)


def token_frame(result: NeuronResult) -> "pd.DataFrame":
    """One row per token of the set."""
    import pandas as pd

    rows = result.text_of
    return pd.DataFrame(
        {
            "quantity": "activation",
            "text": result.text_index[rows],
            "category": np.array(result.categories, dtype=object)[result.text_category[rows]],
            "position": result.position_of,
            "token": list(result.tokens),
            "value": result.activations.astype(float),
            "unit": "activation",
            "counted": result.counted,
        }
    )


def context_frame(result: NeuronResult, contexts: Sequence[Context]) -> "pd.DataFrame":
    """One row per shown token of some contexts."""
    import pandas as pd

    rows = [
        {
            "layer": result.inputs.layer,
            "neuron": result.inputs.neuron,
            "rank": rank,
            "text": context.text,
            "category": context.category,
            "position": context.start + index,
            "token": token,
            "value": value,
            "unit": "activation",
            "strongest": context.start + index == context.position,
        }
        for rank, context in enumerate(contexts)
        for index, (token, value) in enumerate(zip(context.tokens, context.values, strict=True))
    ]
    return pd.DataFrame(rows)


def histogram_frame(result: NeuronResult) -> "pd.DataFrame":
    """One row per bin and kind of text."""
    import pandas as pd

    parts = [
        {
            "quantity": "tokens in bin",
            "category": category,
            "from": result.edges[:-1],
            "to": result.edges[1:],
            "value": result.counts[kind].astype(float),
            "unit": "tokens",
            "n": int(result.token_counts[kind]),
        }
        for kind, category in enumerate(result.categories)
    ]
    return pd.concat([pd.DataFrame(part) for part in parts], ignore_index=True)


def category_frame(result: NeuronResult) -> "pd.DataFrame":
    """One row per kind of text, with its band and n."""
    import pandas as pd

    return pd.DataFrame(
        {
            "quantity": "mean",
            "category": list(result.categories),
            "value": result.category_mean,
            "low": result.category_low,
            "high": result.category_high,
            "unit": "activation",
            "n": result.token_counts,
            "texts": result.text_counts,
        }
    )


def vocabulary_frame(result: NeuronResult) -> "pd.DataFrame":
    """One row per promoted or suppressed token."""
    import pandas as pd

    words, parts = result.vocabulary, []
    for name in ("promoted", "suppressed"):
        parts.append(
            pd.DataFrame(
                {
                    "quantity": name,
                    "token": list(getattr(words, name)),
                    "token_id": getattr(words, f"{name}_ids"),
                    "value": getattr(words, f"{name}_effects"),
                    "unit": "logits per unit of activation",
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def to_json(result: NeuronResult) -> str:
    """The whole result as JSON text."""
    words = result.vocabulary
    fields: dict[str, Any] = {
        "inputs": result.inputs.to_dict(),
        "provenance": None if result.provenance is None else result.provenance.to_dict(),
        "n_layers": result.n_layers,
        "d_mlp": result.d_mlp,
        "gated": result.gated,
        "categories": list(result.categories),
        **{name: encode_array(getattr(result, name)) for name in ARRAYS},
        "tokens": list(result.tokens),
        "vocabulary": {
            name: encode_array(value) if isinstance(value, np.ndarray) else value
            for name, value in asdict(words).items()
        },
        "warnings": list(result.warnings),
        "checks": [asdict(check) for check in result.checks],
        "seconds": result.seconds,
        "cancelled": result.cancelled,
    }
    return dump_record(SCHEMA, VERSION, fields)


def from_json(text: str | bytes) -> NeuronResult:
    """The inverse of `to_json`.

    Raises:
        InputError: anything that `to_json` would not have written.
    """
    record = load_record(text, SCHEMA, VERSION)
    with damage_told("neuron"):
        return _build(record)


def _build(record: Mapping[str, Any]) -> NeuronResult:
    inputs = NeuronInputs.from_dict(record["inputs"])
    texts, kinds = len(record["text_index"]), len(record["categories"])
    shapes = {
        **{name: (texts,) for name in ("text_index", "text_category", "text_length", "text_first")},
        **{name: (kinds,) for name in ("category_mean", "category_low", "category_high")},
        "activations": (len(record["activations"]),),
        "edges": (inputs.bins + 1,),
        "counts": (kinds, inputs.bins),
    }
    return NeuronResult(
        inputs=inputs,
        provenance=provenance_from(record["provenance"]),
        n_layers=int(record["n_layers"]),
        d_mlp=int(record["d_mlp"]),
        gated=bool(record["gated"]),
        categories=texts_from(record["categories"]),
        **{name: decode_array(record[name], _dtype(name), shapes[name], name) for name in ARRAYS},
        tokens=texts_from(record["tokens"]),
        vocabulary=_vocabulary(record["vocabulary"]),
        warnings=texts_from(record["warnings"]),
        checks=checks_from(record["checks"]),
        seconds=float(record["seconds"]),
        cancelled=bool(record["cancelled"]),
    )


def _dtype(name: str) -> str:
    if name == "activations":
        return "float32"
    return "int64" if name.startswith("text_") or name == "counts" else "float64"


def _vocabulary(fields: Mapping[str, Any]) -> Vocabulary:
    arrays = {}
    for name in ("promoted", "suppressed"):
        shape = (len(fields[name]),)
        arrays[f"{name}_ids"] = decode_array(fields[f"{name}_ids"], "int64", shape, f"{name}_ids")
        arrays[f"{name}_effects"] = decode_array(
            fields[f"{name}_effects"], "float64", shape, f"{name}_effects"
        )
    return Vocabulary(
        **arrays,
        promoted=tuple(str(token) for token in fields["promoted"]),
        suppressed=tuple(str(token) for token in fields["suppressed"]),
        mean=float(fields["mean"]),
        deviation=float(fields["deviation"]),
        text=int(fields["text"]),
        position=int(fields["position"]),
        post_norm=bool(fields["post_norm"]),
        problem=str(fields["problem"]),
    )
