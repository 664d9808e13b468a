"""The probe as the JSON of candle-mi's position sweep, written and read under the same names.

A file that is read is hostile until proved otherwise: its size is limited, every value has a type, and what
can be computed from the rest (counts, Jaccard, largest change, rank, ratio) is computed again and compared.
Layout: `candle_mi.md` 2.1; `concentration_ratio` is null where the median change is 0.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.plain import damage_told, fits
from mi_core.errors import InputError
from mi_core.transcoders.probe_inputs import MAX_TOP, CltProbeInputs
from mi_core.transcoders.probe_result import CltProbeResult
from mi_core.transcoders.prompt_label import TranscoderLabel
from mi_core.visible import visible

MAX_FILE_BYTES = 20_000_000
MAX_TOKENS = 100_000
NEAR = 1e-5
"""Largest relative difference between a number of the file and the same computed from the others."""


def candle_json(result: CltProbeResult) -> str:
    """The result under candle-mi's names, and nothing else.

    Raises:
        InputError: no injection was run, or not at every token.
    """
    if result.feature is None or not result.has_injection:
        raise InputError("There is no complete injection to write", fix="Run the probe to its end first")
    ratio = result.concentration_ratio
    record = {
        "model_id": result.model_name,
        "clt_repo": result.transcoder.name,
        "prompt": result.inputs.prompt,
        "token_ids": list(result.token_ids),
        "encode_layer": result.layer,
        "correlational": {
            "positions": [_position(result, position) for position in range(len(result))],
            "unique_top1_count": result.unique_top1_count,
            "jaccard_first_last": result.jaccard_first_last,
        },
        "causal": {
            "chosen_feature": result.feature,
            "chosen_activation": result.activation,
            "injection_strength": result.inputs.strength,
            "l2_distances": [
                {"pos": position, "token": result.texts[position], "l2": float(result.l2[position])}
                for position in range(len(result))
            ],
            "max_l2": result.max_l2,
            "max_pos": result.max_pos,
            "last_l2": result.last_l2,
            "last_rank": result.last_rank,
            "concentration_ratio": ratio if math.isfinite(ratio) else None,
        },
    }
    return json.dumps(record, allow_nan=False, ensure_ascii=False, indent=2)


def _position(result: CltProbeResult, position: int) -> dict[str, Any]:
    top = result.top_of(position)
    values = result.top_activations[position].tolist()
    return {
        "pos": position,
        "token_id": result.token_ids[position],
        "token": result.texts[position],
        "n_active": int(result.n_active[position]),
        "top_features": [[index, values[rank]] for rank, index in enumerate(top)],
    }


def read_candle_json(text: str | bytes) -> CltProbeResult:
    """Read a position sweep that candle-mi, or `candle_json`, has written.

    Returns:
        A result without provenance; its checks say whether the file agrees with itself.

    Raises:
        InputError: too large, no JSON, or not such a file.
    """
    if len(text) > MAX_FILE_BYTES:
        raise InputError(f"The file is larger than {MAX_FILE_BYTES // 1_000_000} MB")
    try:
        record = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise InputError("This is not a JSON file", why=str(error)[:200]) from error
    if not isinstance(record, dict) or not {"correlational", "causal", "encode_layer"} <= set(record):
        raise InputError(
            "This is not a feature probe", why="the keys correlational, causal and encode_layer are not there"
        )
    with damage_told("feature probe"):
        return _build(record)


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _typed(value: Any, kind: Any, name: str) -> Any:
    if not fits(value, kind):
        raise ValueError(f"{name} is {str(value)[:60]!r}")
    return value


def _whole(value: Any, name: str) -> int:
    if _typed(value, int, name) < 0:
        raise ValueError(f"{name} is {value}")
    return value


def _build(record: Mapping[str, Any]) -> CltProbeResult:
    read, causal = record["correlational"], record["causal"]
    positions, moved = read["positions"], causal["l2_distances"]
    n_pos = len(positions)
    if not 0 < n_pos <= MAX_TOKENS or [one["pos"] for one in positions] != list(range(n_pos)):
        raise ValueError("its positions do not count from 0")
    if [one["pos"] for one in moved] != list(range(n_pos)):
        raise ValueError("its injections are not one per token")
    top, values = _top(positions)
    texts = tuple(_typed(one["token"], str, "token") for one in positions)
    layer = _whole(record["encode_layer"], "encode_layer")
    feature = _whole(causal["chosen_feature"], "chosen_feature")
    result = CltProbeResult(
        inputs=CltProbeInputs(
            prompt=_typed(record["prompt"], str, "prompt"),
            transcoder=_typed(record["clt_repo"], str, "clt_repo"),
            layer=layer,
            feature=feature,
            strength=float(_typed(causal["injection_strength"], float, "injection_strength")),
            top=max(1, top.shape[1]),
        ),
        provenance=None,
        model_name=_typed(record["model_id"], str, "model_id"),
        transcoder=TranscoderLabel(record["clt_repo"], "clt", "", "resid_mid", "mlp_out", ""),
        layer=layer,
        token_ids=tuple(_whole(one, "token_ids") for one in record["token_ids"]),
        tokens=tuple(visible(text) for text in texts),
        texts=texts,
        masked=_masked(texts),
        n_active=np.array([_whole(one["n_active"], "n_active") for one in positions], np.int64),
        top_features=top,
        top_activations=values,
        feature=feature,
        activation=float(_typed(causal["chosen_activation"], float, "chosen_activation")),
        l2=np.array([float(_typed(one["l2"], float, "l2")) for one in moved]),
        warnings=(
            "Read from a file of another program: nothing here was computed by Lantern but the checks. Which "
            "number format it was computed in is not said; in bfloat16 the changes of the logits are mostly "
            "rounding.",
        ),
    )
    return _checked(result, record)


def _top(positions: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and activations of the listed features, filled up with -1 and NaN."""
    lists = [one["top_features"] for one in positions]
    ranks = max(len(one) for one in lists)
    if ranks > MAX_TOP:
        raise ValueError(f"{ranks} features at one token")
    top = np.full((len(lists), ranks), -1, np.int64)
    values = np.full((len(lists), ranks), np.nan, np.float32)
    for position, features in enumerate(lists):
        for rank, (index, value) in enumerate(features):
            top[position, rank] = _whole(index, "feature")
            values[position, rank] = float(_typed(value, float, "activation"))
    return top, values


def _masked(texts: tuple[str, ...]) -> tuple[int, ...]:
    """Leading tokens that are written like special ones: `<bos>`, `<s>`, `<|begin_of_text|>`."""
    special = [text.startswith("<") and text.endswith(">") and len(text) > 2 for text in texts]
    first = next((index for index, one in enumerate(special) if not one), len(texts))
    return tuple(range(first))


def _checked(result: CltProbeResult, record: Mapping[str, Any]) -> CltProbeResult:
    """The result with what the file says about itself, tried."""
    from dataclasses import replace

    read, causal = record["correlational"], record["causal"]
    ratio = causal["concentration_ratio"]
    said = {
        "unique_top1_count": (read["unique_top1_count"], result.unique_top1_count),
        "jaccard_first_last": (read["jaccard_first_last"], result.jaccard_first_last),
        "max_l2": (causal["max_l2"], result.max_l2),
        "max_pos": (causal["max_pos"], result.max_pos),
        "last_l2": (causal["last_l2"], result.last_l2),
        "last_rank": (causal["last_rank"], result.last_rank),
        "concentration_ratio": (math.inf if ratio is None else ratio, result.concentration_ratio),
    }
    checks = [_agrees(name, _typed(one, float, name) if one != math.inf else one, other)
              for name, (one, other) in said.items()]  # fmt: skip
    return replace(result, checks=(*checks, *_lists(result), *_strongest(result)))


def _agrees(name: str, said: float, computed: float | None) -> Check:
    other = math.nan if computed is None else float(computed)
    near = said == other or abs(said - other) <= NEAR * max(abs(said), abs(other))
    detail = f"the file says {said:.7g}, its own numbers give {other:.7g}"
    return Check(f"{name} follows from the file's numbers", near, detail)


def _lists(result: CltProbeResult) -> tuple[Check, ...]:
    """Every list falls, and is as long as the number of active features allows."""
    wrong = []
    for position in range(len(result)):
        top = result.top_of(position)
        values = result.top_activations[position, : len(top)]
        whole = len(top) == min(int(result.n_active[position]), result.top_features.shape[1])
        if not whole or (np.diff(values) > 0).any() or (values <= 0).any() or len(set(top)) < len(top):
            wrong.append(position)
    detail = f"tokens where that is not so: {', '.join(map(str, wrong[:10])) or 'none'}"
    return (Check("features are listed by falling activation, as many as are active", not wrong, detail),)


def _strongest(result: CltProbeResult) -> tuple[Check, ...]:
    """What was injected is the strongest feature at the last token, with the activation it has there."""
    top = result.top_of(len(result) - 1)
    value = float(result.top_activations[-1, 0]) if top else math.nan
    same = bool(top) and top[0] == result.feature and abs(value - result.activation) <= NEAR * abs(value)
    strongest = f"{top[0]} ({value:.7g})" if top else "none"
    detail = f"injected {result.feature} ({result.activation:.7g}); strongest {strongest}"
    return (Check("the injected feature is the strongest one at the last token", same, detail),)
