"""Files of candle-mi's planning-in-poems experiment, read with every check and written with the same keys.

    figure13 output    model clt_repo prompt tokens suppress_word inject_word suppress_features[{layer,index}]
                       inject_feature{layer,index} strength baseline_prob sweep[{position,token,prob}]
    "step A" output    transcoder_repo in place of clt_repo; inject_token_id, baseline_logit, spike_position,
                       max_prob, max_logit, delta_prob, delta_logit besides, and a logit in every sweep entry

A file is hostile until proved otherwise: its size and lengths are limited, and what does not fit is told by
its key. What the file says twice is compared; what it lacks (controls, the direct way) stays empty.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from mi_core.analyses.attribution_result import ReadToken
from mi_core.analyses.causal_trace_parts import Check
from mi_core.errors import InputError
from mi_core.tokens import Token, visible
from mi_core.transcoders.names import format_features, parse_features
from mi_core.transcoders.planning_inputs import PlanningInputs
from mi_core.transcoders.planning_json import (
    Strict,
    feature_of,
    keys_of,
    known,
    list_of,
    load_object,
    number_of,
    plain_token,
    text_of,
    tokens_of,
)
from mi_core.transcoders.planning_result import METRICS, PlanningResult, shapes

MAX_FEATURES = 500
_NEAR = 1e-5  # they write float32 with eight digits


def read_planning(data: bytes) -> PlanningResult:
    """A file of candle-mi as a result: its numbers, its tokens, and what does not agree in it.

    Args:
        data: content of the file.

    Raises:
        InputError: too large, not JSON, or a key is missing or damaged.
    """
    record = load_object(data)
    tokens, positions = _tokens(record)
    prompt, notes = _prompt(str(record["prompt"]), [token.visible for token in tokens], record)
    up = [feature_of(record["inject_feature"])]
    down = [feature_of(feature) for feature in list_of(record, "suppress_features", MAX_FEATURES)]
    inputs = PlanningInputs(
        prompt=prompt,
        inject=format_features(tuple(up)),
        suppress=format_features(tuple(down)),
        answer=_spaced(record["inject_word"]),
        distractor=_spaced(record["suppress_word"]),
        strength=number_of(record, "strength"),
        strengths=(),
        controls=0,
        transcoder=text_of(record, "transcoder_repo" if "transcoder_repo" in record else "clt_repo"),
    )
    values, start = _numbers(record)
    missing = shapes(1, len(positions), 0, 0, n_layers=0, n_features=1 + len(down))
    empty: dict[str, Any] = {name: np.full(shape, np.nan) for name, shape in missing.items()}
    token_id = int(number_of(record, "inject_token_id")) if "inject_token_id" in record else -1
    result = PlanningResult(
        inputs=inputs,
        provenance=None,
        transcoder=inputs.transcoder,
        source="candle-mi",
        tokens=tokens,
        answer=ReadToken(token_id, visible(inputs.answer or ""), inputs.answer or "", "user"),
        distractor=None,
        features=tuple(feature.text for feature in (*up, *down)),
        positions=positions,
        drawn=(),
        risen=(),
        distractor_baseline=float("nan"),
        **{**empty, "values": values, "baseline": start, "risen_ids": np.zeros(0, np.int64)},
        warnings=(),
        checks=_checks(record, values, start),
    )
    return replace(result, warnings=(*notes, *_faults(result)))


def _faults(result: PlanningResult) -> list[str]:
    """What the file leaves out or hides."""
    said = [
        "The file names a word, not its token; candle-mi looks a word up with a space in front of it.",
        "The file has no controls and no direct effect, so it cannot tell a plan from a push.",
    ]
    if result.best >= 0 and result.positions[result.best] == result.output:
        said.append(
            f"The highest probability is at token {result.output}, the output position itself: there the "
            "features write into the very state that is read. That is no plan at an earlier token."
        )
    return said


def planning_to_candle_mi(result: PlanningResult) -> str:
    """JSON text with candle-mi's keys, at the chosen strength; its prompt is the one that was run.

    `inject_feature` is the first injected feature; with several, `inject_features` has them all.

    Raises:
        InputError: nothing was injected, which its files cannot say.
    """
    up, down = parse_features(result.inputs.inject), parse_features(result.inputs.suppress)
    if not up:
        raise InputError("candle-mi's file needs an injected feature", why="this run only suppresses")
    probability, logit = result.line("probability"), result.line("logit")
    sweep = [
        {
            "position": position, "token": plain_token(result, position), "prob": known(probability[column]),
            "logit": known(logit[column]),
        }
        for column, position in enumerate(result.positions)
    ]  # fmt: skip
    record: dict[str, Any] = {
        "model": "" if result.provenance is None else result.provenance.model,
        "clt_repo": result.transcoder,
        "prompt": result.inputs.prompt,
        "tokens": [plain_token(result, position) for position in range(len(result.tokens))],
        "suppress_word": (result.inputs.distractor or "").strip(),
        "inject_word": result.answer.text.strip(),
        "inject_token_id": result.answer.id,
        "suppress_features": [keys_of(feature) for feature in down],
        "inject_feature": keys_of(up[0]),
        **({"inject_features": [keys_of(feature) for feature in up]} if len(up) > 1 else {}),
        "strength": result.inputs.strength,
        "baseline_prob": known(result.baseline[METRICS.index("probability")]),
        "baseline_logit": known(result.baseline[METRICS.index("logit")]),
        "sweep": sweep,
    }
    return json.dumps(record, ensure_ascii=False, allow_nan=False, indent=2)


def _tokens(record: Mapping[str, Any]) -> tuple[tuple[Token, ...], tuple[int, ...]]:
    texts = list_of(record, "tokens")
    if not texts or not all(isinstance(text, str) and len(text) <= 1000 for text in texts):
        raise InputError("The file's 'tokens' is empty, or not a list of short texts")
    entries = list_of(record, "sweep")
    positions = [entry.get("position") if isinstance(entry, dict) else None for entry in entries]
    good = [p for p in positions if isinstance(p, int) and not isinstance(p, bool) and 0 <= p < len(texts)]
    if not entries or good != positions or sorted(set(good)) != good:
        raise InputError("The file's 'sweep' has positions that are not tokens, or do not ascend")
    return tokens_of(texts), tuple(good)


def _prompt(prompt: str, shown: list[str], record: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The prompt that was run: candle-mi adds a space to it, which its file's `prompt` lacks."""
    text_of(record, "prompt")
    texts = record["tokens"]
    for first in (0, 1):  # with and without a beginning-of-sequence token
        spelled = "".join(texts[first:])
        if spelled == prompt:
            return prompt, []
        if spelled == prompt + " ":
            note = (
                "The file's prompt lacks the space that the model read: its tokens end with one. The "
                "prompt here has it."
            )
            return spelled, [note]
    return prompt, [
        f"The file's {len(shown)} tokens do not spell its prompt, so the run cannot be repeated from it."
    ]


def _spaced(word: Any) -> str:
    if not isinstance(word, str) or not word.strip() or len(word) > 1000:
        raise InputError("The file's words are no texts")
    return " " + word.strip()


def _numbers(record: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The sweep at one strength, and the baseline."""
    entries = record["sweep"]
    probability = np.array([number_of(Strict(entry), "prob") for entry in entries])
    start = number_of(record, "baseline_prob")
    if not ((probability >= 0) & (probability <= 1)).all() or not 0 <= start <= 1:
        raise InputError("The file has probabilities below 0 or above 1")
    values = np.full((len(METRICS), 1, len(entries)), np.nan)
    base = np.full(len(METRICS), np.nan)
    for name, found, first in (
        ("probability", probability, start),
        ("log_probability", np.log(np.maximum(probability, 1e-300)), math.log(max(start, 1e-300))),
    ):
        values[METRICS.index(name), 0], base[METRICS.index(name)] = found, first
    if "baseline_logit" in record:
        index = METRICS.index("logit")
        values[index, 0] = [number_of(Strict(entry), "logit") for entry in entries]
        base[index] = number_of(record, "baseline_logit")
    return values, base


def _checks(record: Mapping[str, Any], values: np.ndarray, start: np.ndarray) -> tuple[Check, ...]:
    """What the file says twice."""
    entries, tokens = record["sweep"], record["tokens"]
    same = all(entry.get("token") == tokens[entry["position"]] for entry in entries)
    checks = [
        Check("one entry per token, in order", len(entries) == len(tokens),
              f"{len(entries)} entries, {len(tokens)} tokens"),
        Check("the sweep names the prompt's tokens", same, "compared one by one"),
    ]  # fmt: skip
    line = values[METRICS.index("probability"), 0]
    best = int(line.argmax())
    twice = [("max_prob", line[best]), ("delta_prob", line[best] - start[METRICS.index("probability")])]
    if "baseline_logit" in record:
        logits = values[METRICS.index("logit"), 0]
        twice += [("max_logit", logits[best]), ("delta_logit", logits[best] - start[METRICS.index("logit")])]
    for key, value in twice:
        if key in record:
            said = number_of(record, key)
            near = bool(abs(said - value) <= _NEAR * max(1.0, abs(said)))
            checks.append(Check(f"its {key} is that of its sweep", near, f"{said:g} and {float(value):g}"))
    if "spike_position" in record:
        place = entries[best]["position"]
        said = record["spike_position"]
        name = "its spike_position is that of its sweep"
        checks.append(Check(name, said == place, f"{str(said)[:20]} and {place}"))
    return tuple(checks)
