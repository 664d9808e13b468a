"""An attribution as a table and as JSON, and back. Called through the methods of `AttributionResult`."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from mi_core.analyses.attribution_inputs import AttributionInputs, head_name, parse_head
from mi_core.analyses.attribution_result import (
    PROMPT_NAMES,
    TOKEN_NAMES,
    AttributionResult,
    ReadToken,
    TopToken,
)
from mi_core.analyses.plain import checks_from, damage_told, provenance_from, texts_from, tokens_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.tokens import Token

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "lantern/attribution"
VERSION = 1

FLOAT_ARRAYS = (
    "embedding",
    "attention",
    "mlp",
    "bias",
    "heads",
    "attention_bias",
    "neuron_values",
    "neuron_activations",
    "neuron_rest",
    "mlp_bias",
    "sources",
    "sums",
    "logits",
    "model_logits",
    "probabilities",
)
INTEGER_ARRAYS = ("neuron_layers", "neuron_ids")

_COLUMNS = (
    "prompt", "level", "name", "layer", "head", "neuron", "position", "token", "value", "unit",
)  # fmt: skip
_WHOLE = ("layer", "head", "neuron", "position")


def to_frame(result: AttributionResult) -> "pd.DataFrame":
    """Tidy table: one row per number."""
    import pandas as pd  # a third of a second; only tables need it

    rows = [row for prompt in range(result.n_prompts) for row in _rows(result, prompt)]
    frame = pd.DataFrame([{name: row.get(name) for name in _COLUMNS} for row in rows], columns=list(_COLUMNS))
    return frame.astype(dict.fromkeys(_WHOLE, "Int64"))


def _rows(result: AttributionResult, prompt: int) -> Iterator[dict[str, Any]]:
    for row in (
        *_part_rows(result, prompt), *_head_rows(result, prompt), *_neuron_rows(result, prompt),
        *_source_rows(result, prompt), *_logit_rows(result, prompt),
    ):  # fmt: skip
        yield {"prompt": PROMPT_NAMES[prompt], "unit": "logits", **row}


def _part_rows(result: AttributionResult, prompt: int) -> Iterator[dict[str, Any]]:
    for part, value in zip(result.parts, result.values[prompt], strict=True):
        yield {"level": "part", "name": part.name, "layer": part.layer, "value": float(value)}


def _head_rows(result: AttributionResult, prompt: int) -> Iterator[dict[str, Any]]:
    for layer, row in enumerate(result.heads[prompt].tolist()):
        for head, value in enumerate(row):
            yield {
                "level": "head", "name": head_name(layer, head), "layer": layer, "head": head, "value": value
            }  # fmt: skip
        if row:
            bias = float(result.attention_bias[prompt, layer])
            yield {"level": "head", "name": f"L{layer} attention bias", "layer": layer, "value": bias}


def _neuron_rows(result: AttributionResult, prompt: int) -> Iterator[dict[str, Any]]:
    places = zip(result.neuron_layers.tolist(), result.neuron_ids.tolist(), strict=True)
    for index, (layer, neuron) in enumerate(places):
        where = {"level": "neuron", "name": result.neuron_name(index), "layer": layer, "neuron": neuron}
        yield {**where, "value": float(result.neuron_values[prompt, index])}
        activation = float(result.neuron_activations[prompt, index])
        yield {**where, "value": activation, "unit": "activation"}
    for layer in range(result.n_layers if result.has_neurons else 0):
        rest = float(result.neuron_rest[prompt, layer])
        yield {"level": "neuron", "name": f"L{layer} other neurons", "layer": layer, "value": rest}
        bias = float(result.mlp_bias[prompt, layer])
        yield {"level": "neuron", "name": f"L{layer} MLP bias", "layer": layer, "value": bias}


def _source_rows(result: AttributionResult, prompt: int) -> Iterator[dict[str, Any]]:
    for name in result.inputs.split_heads:
        layer, head = parse_head(name)
        for token, value in zip(result.tokens[prompt], result.sources_of(layer, head, prompt), strict=True):
            yield {
                "level": "source", "name": name, "layer": layer, "head": head, "position": token.position,
                "token": token.visible, "value": float(value),
            }  # fmt: skip


def _logit_rows(result: AttributionResult, prompt: int) -> Iterator[dict[str, Any]]:
    read = [result.target, *([result.distractor] if result.distractor is not None else [])]
    numbers = (
        ("logit before the softcap" if result.softcap is not None else "logit", result.logits, "logits"),
        ("model's logit", result.model_logits, "logits"),
        ("probability", result.probabilities, "probability"),
    )
    for what, values, unit in numbers:
        for index, token in enumerate(read):
            yield {
                "level": "logit", "name": f"{what} of the {TOKEN_NAMES[index]}", "token": token.visible,
                "value": float(values[prompt, index]), "unit": unit,
            }  # fmt: skip


def to_json(result: AttributionResult) -> str:
    """The whole result as JSON text."""
    fields: dict[str, Any] = {
        "inputs": result.inputs.to_dict(),
        "provenance": None if result.provenance is None else result.provenance.to_dict(),
        "tokens": [[asdict(token) for token in tokens] for tokens in result.tokens],
        "target": asdict(result.target),
        "distractor": None if result.distractor is None else asdict(result.distractor),
        "top": [asdict(top) for top in result.top],
        "embedding_names": list(result.embedding_names),
        "parts": [part.name for part in result.parts],
        "n_heads": result.n_heads,
        "unit": "logits before the softcap",
        **{name: encode_array(getattr(result, name)) for name in (*FLOAT_ARRAYS, *INTEGER_ARRAYS)},
        "softcap": result.softcap,
        "post_norms": result.post_norms,
        "parallel": result.parallel,
        "warnings": list(result.warnings),
        "checks": [asdict(check) for check in result.checks],
        "seconds": result.seconds,
        "cancelled": result.cancelled,
    }
    return dump_record(SCHEMA, VERSION, fields)


def from_json(text: str | bytes) -> AttributionResult:
    """The inverse of `to_json`.

    Raises:
        InputError: anything that `to_json` would not have written.
    """
    record = load_record(text, SCHEMA, VERSION)
    with damage_told("attribution"):
        return _build(record)


def _build(record: Mapping[str, Any]) -> AttributionResult:
    distractor, softcap = record["distractor"], record["softcap"]
    inputs = AttributionInputs.from_dict(record["inputs"])
    tokens = tuple(tokens_from(one) for one in record["tokens"])
    shapes = _shapes(record, inputs, tokens)
    return AttributionResult(
        inputs=inputs,
        provenance=provenance_from(record["provenance"]),
        tokens=tokens,
        target=ReadToken.from_dict(record["target"]),
        distractor=None if distractor is None else ReadToken.from_dict(distractor),
        top=tuple(TopToken(str(top["visible"]), float(top["probability"])) for top in record["top"]),
        embedding_names=texts_from(record["embedding_names"]),
        **{name: decode_array(record[name], "float64", shapes[name], name) for name in FLOAT_ARRAYS},
        **{name: decode_array(record[name], "int64", shapes[name], name) for name in INTEGER_ARRAYS},
        softcap=None if softcap is None else float(softcap),
        post_norms=bool(record["post_norms"]),
        parallel=bool(record["parallel"]),
        warnings=texts_from(record["warnings"]),
        checks=checks_from(record["checks"]),
        seconds=float(record["seconds"]),
        cancelled=bool(record["cancelled"]),
    )


def _shapes(
    record: Mapping[str, Any], inputs: AttributionInputs, tokens: tuple[tuple[Token, ...], ...]
) -> dict[str, tuple[int, ...]]:
    """The shape that every array must have; an empty array has lost its own in the JSON."""
    prompts, layers = len(tokens), np.shape(record["attention"])[1]
    listed, read = len(record["neuron_ids"]), 1 if record["distractor"] is None else 2
    by_layer = ("attention", "mlp", "attention_bias", "neuron_rest", "mlp_bias")
    return {
        "embedding": (prompts, len(record["embedding_names"])),
        **dict.fromkeys(by_layer, (prompts, layers)),
        "bias": (prompts,),
        "heads": (prompts, layers, int(record["n_heads"])),
        "neuron_layers": (listed,),
        "neuron_ids": (listed,),
        "neuron_values": (prompts, listed),
        "neuron_activations": (prompts, listed),
        "sources": (prompts, len(inputs.split_heads), max(len(one) for one in tokens)),
        **dict.fromkeys(("sums", "logits", "model_logits", "probabilities"), (prompts, read)),
    }
