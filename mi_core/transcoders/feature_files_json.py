"""The JSON of a feature's record as circuit-tracer's viewer reads it, and the bytes in which it stands.

    transcoder_id, index, examples_quantiles [{quantile_name, examples [{tokens, tokens_acts_list,
    train_token_ind, is_repeated_datapoint}]}], top_logits, bottom_logits, act_min, act_max, quantile_values,
    histogram, activation_frequency

Ours adds `histogram_edges`, `n_tokens`, `n_active` and `coactive`; the viewer ignores what it does not know.
A record may come from a stranger's repository: sizes are limited and every number is checked.
"""

import itertools
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from gzip import compress
from typing import Any

from mi_core.analyses.plain import damage_told
from mi_core.errors import InputError
from mi_core.transcoders.feature_files_record import Coactive, ExampleGroup, FeatureExample, FeatureRecord

MAX_RECORD_BYTES = 16_000_000
ROUNDING = 1e-3  # of activations in examples; they are written with four digits
MAX_GROUPS, MAX_EXAMPLES, MAX_TOKENS, MAX_WORDS = 100, 1000, 20_000, 1000
_HEAD = 4
_ANY_HEADER = 47  # zlib's own code for "zlib or gzip, whichever the header says"


def short(value: float) -> float:
    """A number with four digits, so that files stay small; 0 stays 0."""
    return float(f"{value:.4g}")


def record_to_json(record: FeatureRecord) -> dict[str, Any]:
    """The record in the community's keys, ours added; plain JSON values."""
    groups = [
        {
            "quantile_name": group.name,
            "examples": [
                {
                    "tokens": list(one.tokens),
                    "tokens_acts_list": [_plain(short(value)) if value else 0 for value in one.activations],
                    "train_token_ind": one.peak,
                    "is_repeated_datapoint": one.repeated,
                }
                for one in group.examples
            ],
        }
        for group in record.groups
    ]
    made: dict[str, Any] = {
        "transcoder_id": record.transcoder,
        "index": record.index,
        "examples_quantiles": groups,
        "top_logits": list(record.top_logits),
        "bottom_logits": list(record.bottom_logits),
        "act_min": record.smallest,
        "act_max": float(f"{record.largest:.9g}"),
        "quantile_values": [short(value) for value in record.quantile_values],
        "histogram": [_plain(value) for value in record.histogram],
        "activation_frequency": record.density,
        "histogram_edges": [float(f"{edge:.7g}") for edge in record.edges],
    }
    if record.n_tokens is not None and record.n_active is not None:
        made |= {"n_tokens": record.n_tokens, "n_active": record.n_active}
    if record.coactive_tokens:
        listed = [[one.layer, one.index, short(one.share), short(one.density)] for one in record.coactive]
        made["coactive"] = {"n": record.coactive_tokens, "features": listed}
    return made


def _plain(value: float) -> float | int:
    """Whole numbers without `.0`: most activations are 0, and a file has millions of them."""
    return int(value) if value == int(value) else value


def pack_record(record: FeatureRecord) -> bytes:
    """The record as it stands in a layer's file: length, four bytes little-endian, then gzipped JSON."""
    text = json.dumps(record_to_json(record), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    packed = compress(text.encode("utf-8", "backslashreplace"), 9, mtime=0)
    return len(packed).to_bytes(_HEAD, "little") + packed


def unpack_record(data: bytes, layer: int, index: int) -> FeatureRecord:
    """The inverse of `pack_record`, for our files and for those of others.

    Args:
        data: from the start of the record; more may follow.
        layer: layer of the feature that was asked for.
        index: its number.

    Raises:
        InputError: the bytes hold no such record, or an absurdly large one.
    """
    if len(data) < _HEAD:
        raise InputError(f"The record of feature {index} is cut off")
    length = int.from_bytes(data[:_HEAD], "little")
    body = data[_HEAD : _HEAD + length]
    if len(body) < length:
        raise InputError(
            f"The record of feature {index} is cut off", why=f"{length:,} bytes are told, {len(body):,} there"
        )
    with damage_told("feature"):
        values = json.loads(inflate(body, MAX_RECORD_BYTES), parse_constant=_refuse)
        return record_from_json(values, layer, index)


def inflate(data: bytes, limit: int) -> bytes:
    """Decompress zlib or gzip data of at most `limit` bytes.

    Raises:
        ValueError: it is neither, or larger.
    """
    machine = zlib.decompressobj(_ANY_HEADER)
    try:
        whole = machine.decompress(data, limit)
    except zlib.error as error:
        raise ValueError(f"not compressed as it should be ({error})") from error
    if machine.unconsumed_tail:
        raise ValueError(f"larger than {limit // 1_000_000} MB")
    return whole


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def record_from_json(values: Mapping[str, Any], layer: int, index: int) -> FeatureRecord:
    """A record from the community's keys; what is not there stays empty.

    Raises:
        KeyError, TypeError, ValueError: something is of the wrong kind or too large (see `damage_told`).
    """
    largest = values.get("act_max")
    ceiling = math.inf if largest is None else _number(largest)
    groups = [_group(one, ceiling) for one in _listed(values.get("examples_quantiles"), MAX_GROUPS)]
    known = [max(one.activations) for group in groups for one in group.examples if one.activations]
    histogram = tuple(_number(one) for one in _listed(values.get("histogram"), MAX_WORDS))
    edges = tuple(_number(one) for one in _listed(values.get("histogram_edges"), MAX_WORDS + 1))
    fits = len(edges) == len(histogram) + 1 and all(a < b for a, b in itertools.pairwise(edges))
    frequency = values.get("activation_frequency")
    coactive = values.get("coactive") or {}
    return FeatureRecord(
        layer=layer,
        index=index,
        density=_number(frequency) if frequency is not None else math.nan,
        largest=_number(largest) if largest is not None else max(known, default=0.0),
        groups=tuple(groups),
        top_logits=_words(values.get("top_logits")),
        bottom_logits=_words(values.get("bottom_logits")),
        smallest=_number(values.get("act_min") or 0.0),
        quantile_values=tuple(_number(one) for one in _listed(values.get("quantile_values"), MAX_WORDS)),
        histogram=histogram,
        edges=edges if fits else (),
        n_tokens=_count(values.get("n_tokens")),
        n_active=_count(values.get("n_active")),
        coactive=tuple(_coactive(one) for one in _listed(coactive.get("features"), MAX_WORDS)),
        coactive_tokens=_count(coactive.get("n")) or 0,
        transcoder=str(values.get("transcoder_id", ""))[:200],
        problem=_other(values.get("index"), layer, index),
    )


def cantor(layer: int, index: int) -> int:
    """The one number by which circuit-tracer names a feature of a layer."""
    return (layer + index) * (layer + index + 1) // 2 + index


def _other(told: Any, layer: int, index: int) -> str:
    """Files name the feature by its number within the layer, or by its one number over all layers."""
    if told is None or told in (index, cantor(layer, index)):
        return ""
    return f"The record at this place says that it is of feature {str(told)[:20]}, not {index}."


def _group(values: Mapping[str, Any], largest: float) -> ExampleGroup:
    examples = [_example(one, largest) for one in _listed(values["examples"], MAX_EXAMPLES)]
    return ExampleGroup(str(values.get("quantile_name", ""))[:200], tuple(one for one in examples if one))


def _example(values: Mapping[str, Any], largest: float) -> FeatureExample | None:
    """An example; what rounding to four digits put above the largest activation comes down to it."""
    tokens = tuple(str(one) for one in _listed(values["tokens"], MAX_TOKENS))
    told = [_number(one) for one in _listed(values["tokens_acts_list"], MAX_TOKENS)]
    numbers = tuple(largest if largest < one < largest * (1 + ROUNDING) else one for one in told)
    if not tokens:
        return None
    peak = values.get("train_token_ind")
    if not isinstance(peak, int) or not 0 <= peak < len(tokens):
        peak = max(range(len(numbers)), key=numbers.__getitem__)
    return FeatureExample(tokens, numbers, peak, bool(values.get("is_repeated_datapoint", False)))


def _coactive(values: Sequence[Any]) -> Coactive:
    layer, index, share, density = values
    return Coactive(int(layer), int(index), _number(share), _number(density))


def _listed(value: Any, limit: int) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > limit:
        raise ValueError(f"a list of at most {limit} was expected")
    return value


def _words(value: Any) -> tuple[str, ...]:
    """Texts; some makers write [text, number] pairs."""
    return tuple(
        str(one[0] if isinstance(one, list) and one else one)[:200] for one in _listed(value, MAX_WORDS)
    )


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{str(value)[:40]!r} is no number")
    return float(value)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
