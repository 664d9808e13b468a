"""Files of candle-mi's attention routing, read with every check and written with the same keys.

    model_id clt_repo prompt feature "L22:10243" strength planning_site output_position n_layers n_heads
    head_deltas[layer][head]{layer,head,baseline_attn,steered_attn,delta}  top_heads[20]
    strength_sweep[]{strength,top_head_delta,total_routing_shift}

total_routing_shift = sum over heads of |delta|. The sweep has numbers for all heads together and for the head
that changes most at the file's strength; the others come back as NaN. The file names neither the suppressed
features nor the tokens.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from mi_core.analyses.causal_trace_parts import Check
from mi_core.errors import InputError
from mi_core.transcoders.names import parse_feature, parse_features
from mi_core.transcoders.planning_inputs import MAX_STRENGTHS, FeatureRoutingInputs
from mi_core.transcoders.planning_json import keys_of, list_of, load_object, number_of, text_of, tokens_of
from mi_core.transcoders.routing_result import FeatureRoutingResult

TOP = 20
MAX_HEADS = 1000
_NEAR = 1e-5


def read_routing(data: bytes) -> FeatureRoutingResult:
    """A file of candle-mi as a result, and what does not agree in it.

    Args:
        data: content of the file.

    Raises:
        InputError: too large, not JSON, or a key is missing or damaged.
    """
    record = load_object(data)
    before, after, said = _heads(record)
    feature = parse_feature(text_of(record, "feature"))
    strengths, tops, totals = _sweep(record)
    position, query = (_whole(record, key) for key in ("planning_site", "output_position"))
    if query < position:
        raise InputError("The file's output position comes before its planning site")
    inputs = FeatureRoutingInputs(
        prompt=text_of(record, "prompt"),
        inject=feature.text,
        position=position,
        query=query,
        strength=number_of(record, "strength"),
        strengths=strengths,
        controls=0,
        transcoder=text_of(record, "clt_repo"),
    )
    change = after - before
    sweep = np.full((len(strengths), *change.shape), np.nan)
    layer, head = np.unravel_index(np.abs(change).argmax(), change.shape)
    sweep[:, layer, head] = tops
    moved = np.flatnonzero(np.abs(change).max(1) > 0)
    first = int(moved[0]) if len(moved) else len(change)
    return FeatureRoutingResult(
        inputs=inputs,
        provenance=None,
        transcoder=inputs.transcoder,
        source="candle-mi",
        tokens=tokens_of([""] * (query + 1)),
        position=position,
        query=query,
        before=before,
        after=after,
        sweep=sweep,
        totals=np.array(totals),
        controls=np.zeros((0, *before.shape)),
        first_layer=first,
        warnings=_warnings(feature.layer, feature.text, first),
        checks=_checks(record, change, said),
    )


def _warnings(source: int, name: str, first: int) -> tuple[str, ...]:
    said = ["The file has neither its tokens nor controls."]
    if first <= source:
        said.append(
            f"Heads change from layer {first} on, but {name} writes to layer {source} and later, so only "
            f"layers after {source} could change by it: other features, which the file does not name, were "
            "pushed too."
        )
    return tuple(said)


def _whole(record: Mapping[str, Any], key: str) -> int:
    value = record[key]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 100_000:
        raise InputError(f"The file's {key!r} is no token position")
    return value


def _heads(record: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Baseline, steered, and the change as the file has it."""
    rows = list_of(record, "head_deltas", MAX_HEADS)
    n_layers, n_heads = _whole(record, "n_layers"), _whole(record, "n_heads")
    good = len(rows) == n_layers and all(isinstance(row, list) and len(row) == n_heads for row in rows)
    if not good or not n_layers or not n_heads or n_heads > MAX_HEADS:
        raise InputError(f"The file's 'head_deltas' is not {n_layers} layers of {n_heads} heads")
    found = np.zeros((3, n_layers, n_heads))
    for layer, row in enumerate(rows):
        for head, entry in enumerate(row):
            if not isinstance(entry, dict) or (entry.get("layer"), entry.get("head")) != (layer, head):
                raise InputError(f"The file's 'head_deltas' has no layer {layer}, head {head} in its place")
            for index, key in enumerate(("baseline_attn", "steered_attn", "delta")):
                found[index, layer, head] = number_of({key: entry.get(key)}, key)
    if found[:2].min() < 0 or found[:2].max() > 1 + _NEAR:
        raise InputError("The file has shares of attention below 0 or above 1")
    return found[0], found[1], found[2]


def _sweep(record: Mapping[str, Any]) -> tuple[tuple[float, ...], list[float], list[float]]:
    """Strengths, ascending; the change of the top head and of all heads together at each."""
    entries = list_of(record, "strength_sweep", MAX_STRENGTHS)
    keys = ("strength", "top_head_delta", "total_routing_shift")
    rows = []
    for entry in entries:
        if not isinstance(entry, dict):
            raise InputError("The file's 'strength_sweep' has an entry that is no object")
        rows.append([number_of({key: entry.get(key)}, key) for key in keys])
    rows.sort()
    return tuple(row[0] for row in rows), [row[1] for row in rows], [row[2] for row in rows]


def _checks(record: Mapping[str, Any], change: np.ndarray, said: np.ndarray) -> tuple[Check, ...]:
    """What the file says twice."""
    worst = float(np.abs(said - change).max())
    checks = [Check("delta = steered - baseline for every head", worst <= _NEAR, f"largest gap {worst:.1e}")]
    sweep = list_of(record, "strength_sweep", MAX_STRENGTHS)
    strength = number_of(record, "strength")
    same = [entry for entry in sweep if abs(number_of(entry, "strength") - strength) <= 1e-4 * strength]
    if same:
        total, whole = float(np.abs(change).sum()), number_of(same[0], "total_routing_shift")
        near = abs(total - whole) <= _NEAR * max(1, change.size / 10)
        name = "heads add up to the sweep's total at the same strength"
        checks.append(Check(name, bool(near), f"{total:.6f} and {whole:.6f}"))
    top = list_of(record, "top_heads")
    if top and isinstance(top[0], dict):
        layer, head = (int(v) for v in np.unravel_index(np.abs(change).argmax(), change.shape))
        named = (top[0].get("layer"), top[0].get("head"))
        name = "its first top head is the one that changes most"
        checks.append(Check(name, named == (layer, head), f"{str(named)[:20]} and {(layer, head)}"))
    return tuple(checks)


def routing_to_candle_mi(result: FeatureRoutingResult) -> str:
    """JSON text with candle-mi's keys; `suppress_features` and `inject_features` say what else was pushed.

    Raises:
        InputError: nothing was injected, which its files cannot say.
    """
    up, down = parse_features(result.inputs.inject), parse_features(result.inputs.suppress)
    if not up:
        raise InputError("candle-mi's file needs an injected feature", why="this run only suppresses")
    first = result.top_heads[0]
    record: dict[str, Any] = {
        "model_id": "" if result.provenance is None else result.provenance.model,
        "clt_repo": result.transcoder,
        "prompt": result.inputs.prompt,
        "feature": f"L{up[0].layer}:{up[0].index}",
        "inject_features": [keys_of(feature) for feature in up],
        "suppress_features": [keys_of(feature) for feature in down],
        "strength": result.inputs.strength,
        "planning_site": result.position,
        "output_position": result.query,
        "n_layers": result.before.shape[0],
        "n_heads": result.before.shape[1],
        "head_deltas": [
            [_entry(result, layer, head) for head in range(result.before.shape[1])]
            for layer in range(result.before.shape[0])
        ],
        "top_heads": [_entry(result, *place) for place in result.top_heads[:TOP]],
        "strength_sweep": [
            {
                "strength": strength,
                "top_head_delta": float(result.sweep[index][first]),
                "total_routing_shift": float(result.totals[index]),
            }
            for index, strength in enumerate(result.inputs.strengths)
        ],
    }
    return json.dumps(record, ensure_ascii=False, allow_nan=False, indent=2)


def _entry(result: FeatureRoutingResult, layer: int, head: int) -> dict[str, Any]:
    return {
        "layer": layer, "head": head, "baseline_attn": float(result.before[layer, head]),
        "steered_attn": float(result.after[layer, head]), "delta": float(result.change[layer, head]),
    }  # fmt: skip
