"""A logit lens as a table and as JSON, and back."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from mi_core.analyses.logit_lens_inputs import STATISTIC_INFO, LogitLensInputs, Statistic
from mi_core.analyses.logit_lens_result import (
    WHOLE,
    ChosenBy,
    LensWord,
    LogitLensResult,
    WordRole,
    array_shapes,
)
from mi_core.analyses.plain import checks_from, damage_told, provenance_from, texts_from, tokens_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "lantern/logit_lens"
VERSION = 1


def to_frame(result: LogitLensResult) -> "pd.DataFrame":
    """Tidy table: every statistic of every cell and of the model's output, then the words."""
    import pandas as pd  # only tables need it

    parts = [*_statistic_parts(result), *_word_parts(result)]
    frame = pd.concat([pd.DataFrame(part) for part in parts], ignore_index=True)
    return frame.astype({"layer": "Int64"})


def _places(result: LogitLensResult, source: str) -> dict[str, Any]:
    """Columns that say where a number belongs, row by row of the grid (one row for the output)."""
    layers = result.layers if source == "lens" else (None,)
    tokens = [result.tokens[position].visible for position in result.positions]
    return {
        "source": source,
        "layer": np.repeat(np.array(layers, dtype=object), len(result.positions)),
        "position": np.tile(result.positions, len(layers)),
        "token": np.tile(np.array(tokens, dtype=object), len(layers)),
    }


def _statistic_parts(result: LogitLensResult) -> Iterator[dict[str, Any]]:
    for source in ("lens", "model output"):
        places = _places(result, source)
        for name, info in STATISTIC_INFO.items():
            values = result.statistic(name) if source == "lens" else result.output_statistic(name)
            about = _about(result, name, source)
            yield {
                **places, "statistic": name, "about": about, "value": values.ravel(), "unit": info.unit,
            }  # fmt: skip


def _about(result: LogitLensResult, name: Statistic, source: str) -> Any:
    """The token that a statistic is about, cell by cell."""
    if STATISTIC_INFO[name].of_target:
        texts = [result.visible(token) for token in result.target_ids.tolist()]
        return np.tile(np.array(texts, dtype=object), len(result.layers) if source == "lens" else 1)
    if name == "top_probability":
        tops = result.top_ids[..., 0] if source == "lens" else result.output_top_ids[..., 0]
        return [result.visible(token) for token in tops.ravel().tolist()]
    return None


def _word_parts(result: LogitLensResult) -> Iterator[dict[str, Any]]:
    lens = (("word_log_probability", "nats"), ("word_rank", "rank"))
    for source, prefix in (("lens", ""), ("model output", "output_")):
        places = _places(result, source)
        for index, word in enumerate(result.words):
            for name, unit in lens:
                values = getattr(result, prefix + name)[..., index].astype(float)
                yield {
                    **places, "statistic": name, "about": word.visible, "value": values.ravel(), "unit": unit,
                }  # fmt: skip


def to_json(result: LogitLensResult) -> str:
    """The whole result as JSON text."""
    n_top = result.top_ids.shape[-1]
    shapes = array_shapes(len(result.layers), len(result.positions), n_top, len(result.words))
    fields: dict[str, Any] = {
        "inputs": result.inputs.to_dict(),
        "provenance": None if result.provenance is None else result.provenance.to_dict(),
        "tokens": [asdict(token) for token in result.tokens],
        "positions": list(result.positions),
        "layers": list(result.layers),
        "n_layers": result.n_layers,
        "n_top": n_top,
        "precision": str(result.entropy.dtype),
        "words": [{**asdict(word), "pieces": list(word.pieces)} for word in result.words],
        "vocabulary": {str(token): text for token, text in result.vocabulary.items()},
        "lens": result.lens,
        "lens_fingerprint": result.lens_fingerprint,
        "warnings": list(result.warnings),
        "checks": [asdict(check) for check in result.checks],
        "seconds": result.seconds,
        "cancelled": result.cancelled,
        **{name: encode_array(getattr(result, name)) for name in shapes},
    }
    return dump_record(SCHEMA, VERSION, fields)


def from_json(text: str | bytes) -> LogitLensResult:
    """The inverse of `to_json`.

    Raises:
        InputError: anything that `to_json` would not have written.
    """
    record = load_record(text, SCHEMA, VERSION)
    with damage_told("lens"):
        return _build(record)


def _build(record: Mapping[str, Any]) -> LogitLensResult:
    positions, layers = _whole(record["positions"]), _whole(record["layers"])
    words = tuple(read_word(value) for value in record["words"])
    shapes = array_shapes(len(layers), len(positions), int(record["n_top"]), len(words))
    precision = "float32" if record["precision"] == "float32" else "float64"
    arrays = {
        name: decode_array(record[name], "int64" if name in WHOLE else precision, shape, name)
        for name, shape in shapes.items()
    }
    return LogitLensResult(
        inputs=LogitLensInputs.from_dict(record["inputs"]),
        provenance=provenance_from(record["provenance"]),
        tokens=tokens_from(record["tokens"]),
        positions=positions,
        layers=layers,
        n_layers=int(record["n_layers"]),
        words=words,
        vocabulary={int(token): str(text) for token, text in record["vocabulary"].items()},
        lens=str(record["lens"]),
        lens_fingerprint=str(record["lens_fingerprint"]),
        warnings=texts_from(record["warnings"]),
        checks=checks_from(record["checks"]),
        seconds=float(record["seconds"]),
        cancelled=bool(record["cancelled"]),
        **arrays,
    )


def read_word(value: Mapping[str, Any]) -> LensWord:
    """A word, as `asdict` wrote it.

    Raises:
        ValueError: an unknown role or chooser.
    """
    role, chosen_by = str(value["role"]), str(value["chosen_by"])
    if role not in get_args(WordRole) or chosen_by not in get_args(ChosenBy):
        raise ValueError(f"a word has the role {role!r:.40}, chosen by {chosen_by!r:.40}")
    pieces = tuple(str(piece) for piece in value["pieces"])
    return LensWord(
        role,  # type: ignore[arg-type]  # checked above
        str(value["text"]),
        int(value["id"]),
        str(value["visible"]),
        pieces,
        chosen_by,  # type: ignore[arg-type]  # checked above
    )


def _whole(values: Any) -> tuple[int, ...]:
    return tuple(int(value) for value in values)
