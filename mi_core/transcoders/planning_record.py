"""Planning experiments as tables and as JSON, and back. Called through the result's methods."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from mi_core.analyses.ablation_sweep_inputs import EFFECT_METRICS
from mi_core.analyses.ablation_sweep_record import read_shared
from mi_core.analyses.plain import damage_told, outcome, texts_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record
from mi_core.transcoders.planning_inputs import PlanningInputs
from mi_core.transcoders.planning_result import ARRAYS, METRICS, PARTS, PlanningResult, shapes

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/planning", 1


def planning_frame(result: PlanningResult) -> "pd.DataFrame":
    """See `PlanningResult.to_frame`."""
    import pandas as pd  # a third of a second; only tables need it

    return pd.DataFrame(list(_records(result)))


def _records(result: PlanningResult) -> Iterator[dict[str, Any]]:
    for metric, start in zip(METRICS, result.baseline.tolist(), strict=True):
        yield _row(result, "baseline", 0.0, None, metric, start)
    blocks: list[tuple[str, tuple[float, ...], np.ndarray]] = [("pushed", result.doses, result.values)]
    strength = (result.inputs.strength,)
    for part in range(result.parts.shape[1]):
        blocks.append((f"{PARTS[part]} alone", strength, result.parts[:, part, None]))
    for draw, name in enumerate(result.drawn):
        blocks.append((f"random features {name}", strength, result.random_features[:, draw, None]))
    for draw in range(result.random_rotations.shape[1]):
        blocks.append((f"random rotation {draw}", strength, result.random_rotations[:, draw, None]))
    for name, doses, block in blocks:
        for index, metric in enumerate(METRICS):
            for row, dose in enumerate(doses):
                for column, position in enumerate(result.positions):
                    yield _row(result, name, dose, position, metric, float(block[index, row, column]))
    for index, metric in enumerate(METRICS):
        for row, dose in enumerate(result.doses):
            yield _row(result, "direct", dose, result.output, metric, float(result.direct[index, row]))


def _row(
    result: PlanningResult, series: str, strength: float, position: int | None, metric: str, value: float
) -> dict[str, Any]:
    token = "" if position is None else result.tokens[position].visible
    return {
        "series": series, "strength": strength, "position": position, "token": token, "metric": metric,
        "value": value, "unit": EFFECT_METRICS[metric].unit,
    }  # fmt: skip


def planning_json(result: PlanningResult) -> str:
    """See `PlanningResult.to_json`."""
    return dump_record(SCHEMA, VERSION, {
        "inputs": result.inputs.to_dict(),
        "provenance": None if result.provenance is None else result.provenance.to_dict(),
        "transcoder": result.transcoder,
        "source": result.source,
        "tokens": [asdict(token) for token in result.tokens],
        "answer": asdict(result.answer),
        "distractor": None if result.distractor is None else asdict(result.distractor),
        "metrics": list(METRICS),
        "features": list(result.features),
        "positions": list(result.positions),
        "drawn": list(result.drawn),
        "risen": list(result.risen),
        "risen_ids": result.risen_ids.tolist(),
        "n_layers": len(result.norms),
        "n_parts": result.parts.shape[1],
        "n_rotations": result.random_rotations.shape[1],
        "distractor_baseline": None if result.distractor is None else result.distractor_baseline,
        **{name: encode_array(getattr(result, name)) for name in ARRAYS},
        **outcome(result),
    })  # fmt: skip


def planning_from_json(text: str | bytes) -> PlanningResult:
    """See `PlanningResult.from_json`."""
    record = load_record(text, SCHEMA, VERSION)
    with damage_told("planning"):
        return _build(record)


def _build(record: Mapping[str, Any]) -> PlanningResult:
    inputs = PlanningInputs.from_dict(record["inputs"])
    features, drawn = texts_from(record["features"]), texts_from(record["drawn"])
    positions = tuple(int(position) for position in record["positions"])
    wanted = shapes(
        len(inputs.doses), len(positions), len(drawn), int(record["n_rotations"]),
        parts=int(record["n_parts"]), n_layers=int(record["n_layers"]), n_features=len(features),
    )  # fmt: skip
    arrays: dict[str, Any] = {
        name: decode_array(record[name], "float64", wanted[name], name) for name in ARRAYS
    }
    shared = read_shared(record)
    shared.pop("metrics", None)
    start = record["distractor_baseline"]
    return PlanningResult(
        **{**shared, "inputs": inputs},
        transcoder=str(record["transcoder"]),
        source=str(record["source"]),
        features=features,
        positions=positions,
        drawn=drawn,
        risen=texts_from(record["risen"]),
        risen_ids=decode_array(record["risen_ids"], "int64", (len(drawn),), "risen_ids"),
        distractor_baseline=float("nan") if start is None else float(start),
        **arrays,
    )
