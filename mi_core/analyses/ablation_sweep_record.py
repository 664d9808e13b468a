"""Sweeps of ablations as tables and as JSON, and back. Called through the results' methods."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mi_core.analyses.ablation_sweep_inputs import EFFECT_METRICS, AblationSweepInputs, JointAblationInputs
from mi_core.analyses.ablation_sweep_result import AblationSweepResult, JointAblationResult
from mi_core.analyses.ablation_sweep_units import units_of
from mi_core.analyses.attribution_result import ReadToken
from mi_core.analyses.plain import checks_from, damage_told, provenance_from, texts_from, tokens_from
from mi_core.analyses.records import decode_array, dump_record, encode_array, load_record

if TYPE_CHECKING:
    import pandas as pd

SWEEP_SCHEMA, JOINT_SCHEMA, VERSION = "lantern/ablation_sweep", "lantern/joint_ablation", 1


def sweep_frame(result: AblationSweepResult) -> "pd.DataFrame":
    """Tidy table: the baseline, then every cell."""
    import pandas as pd  # a third of a second; only tables need it

    units = result.units
    rows = [
        _row("baseline", "", metric, float(result.baseline[index]), 0.0, row=None, column=None)
        for index, metric in enumerate(result.metrics)
    ]
    for index, metric in enumerate(result.metrics):
        effects = result.effect(metric)
        rows += [
            _row(
                "edited", units.texts[row][column], metric, float(result.values[index, row, column]),
                float(effects[row, column]), row=units.rows[row], column=units.columns[column],
            )
            for row in range(len(units.rows))
            for column in range(len(units.columns))
        ]  # fmt: skip
    return pd.DataFrame(rows)


def joint_frame(result: JointAblationResult) -> "pd.DataFrame":
    """Tidy table: the baseline, every intervention alone, their sum, all together."""
    import pandas as pd

    rows = []
    for index, metric in enumerate(result.metrics):
        start = float(result.baseline[index])
        total, joint = result.sum_of_singles(metric), result.joint_effect(metric)
        effects = result.single_effects(metric)
        rows.append(_row("baseline", "", metric, start, 0.0))
        rows += [
            _row("single", text, metric, start + float(effect), float(effect))
            for text, effect in zip(result.interventions, effects, strict=True)
        ]
        rows.append(_row("sum of singles", "", metric, start + total, total))
        rows.append(_row("joint", ", ".join(result.interventions), metric, start + joint, joint))
    return pd.DataFrame(rows)


def _row(
    what: str, intervention: str, metric: str, value: float, effect: float, **place: str | None
) -> dict[str, Any]:
    return {
        "what": what, "intervention": intervention, **place, "metric": metric, "value": value,
        "effect": effect, "unit": EFFECT_METRICS[metric].unit,
    }  # fmt: skip


def sweep_json(result: AblationSweepResult) -> str:
    """The whole sweep as JSON text."""
    units = result.units
    fields = {
        **_shared(result),
        "n_layers": result.n_layers,
        "n_heads": result.n_heads,
        "rows": list(units.rows),
        "columns": list(units.columns),
        "baseline": encode_array(result.baseline),
        "values": encode_array(result.values),
        "effects": encode_array(result.values - result.baseline[:, None, None]),
        "top_ids": encode_array(result.top_ids),
        "done": encode_array(result.done),
        "vocabulary": {str(token): text for token, text in result.vocabulary.items()},
        "base_top": result.base_top,
        "noise_floor": {metric: _number(result.floor(metric)) for metric in result.metrics},
        "reference_note": result.reference_note,
    }
    return dump_record(SWEEP_SCHEMA, VERSION, fields)


def _number(value: float) -> float | None:
    return value if value == value else None  # NaN is not JSON


def joint_json(result: JointAblationResult) -> str:
    """The whole result as JSON text."""
    fields = {
        **_shared(result),
        "interventions": list(result.interventions),
        **{name: encode_array(getattr(result, name)) for name in ("baseline", "single", "joint")},
    }
    return dump_record(JOINT_SCHEMA, VERSION, fields)


def _shared(result: AblationSweepResult | JointAblationResult) -> dict[str, Any]:
    return {
        "inputs": result.inputs.to_dict(),
        "provenance": None if result.provenance is None else result.provenance.to_dict(),
        "tokens": [asdict(token) for token in result.tokens],
        "answer": asdict(result.answer),
        "distractor": None if result.distractor is None else asdict(result.distractor),
        "metrics": list(result.metrics),
        "units": {metric: EFFECT_METRICS[metric].unit for metric in result.metrics},
        "warnings": list(result.warnings),
        "checks": [asdict(check) for check in result.checks],
        "seconds": result.seconds,
        "cancelled": result.cancelled,
    }


def sweep_from_json(text: str | bytes) -> AblationSweepResult:
    """The inverse of `sweep_json`.

    Raises:
        InputError: anything that `sweep_json` would not have written.
    """
    record = load_record(text, SWEEP_SCHEMA, VERSION)
    with damage_told("ablation-sweep"):
        inputs = AblationSweepInputs.from_dict(record["inputs"])
        metrics, tokens = texts_from(record["metrics"]), tokens_from(record["tokens"])
        n_layers, n_heads = int(record["n_layers"]), int(record["n_heads"])
        shape = units_of(inputs, n_layers, n_heads, len(tokens)).shape
        return AblationSweepResult(
            inputs=inputs,
            n_layers=n_layers,
            n_heads=n_heads,
            baseline=decode_array(record["baseline"], "float64", (len(metrics),), "baseline"),
            values=decode_array(record["values"], "float64", (len(metrics), *shape), "values"),
            top_ids=decode_array(record["top_ids"], "int64", shape, "top_ids"),
            done=decode_array(record["done"], "bool", shape, "done"),
            vocabulary={int(token): str(text) for token, text in record["vocabulary"].items()},
            base_top=int(record["base_top"]),
            reference_note=str(record["reference_note"]),
            **read_shared(record),
        )


def joint_from_json(text: str | bytes) -> JointAblationResult:
    """The inverse of `joint_json`.

    Raises:
        InputError: anything that `joint_json` would not have written.
    """
    record = load_record(text, JOINT_SCHEMA, VERSION)
    with damage_told("joint-ablation"):
        interventions, n = texts_from(record["interventions"]), len(record["metrics"])
        return JointAblationResult(
            inputs=JointAblationInputs.from_dict(record["inputs"]),
            interventions=interventions,
            baseline=decode_array(record["baseline"], "float64", (n,), "baseline"),
            single=decode_array(record["single"], "float64", (n, len(interventions)), "single"),
            joint=decode_array(record["joint"], "float64", (n,), "joint"),
            **read_shared(record),
        )


def read_shared(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that every sweep of interventions has."""
    distractor = record["distractor"]
    return {
        "provenance": provenance_from(record["provenance"]),
        "tokens": tokens_from(record["tokens"]),
        "answer": ReadToken.from_dict(record["answer"]),
        "distractor": None if distractor is None else ReadToken.from_dict(distractor),
        "metrics": texts_from(record["metrics"]),
        "warnings": texts_from(record["warnings"]),
        "checks": checks_from(record["checks"]),
        "seconds": float(record["seconds"]),
        "cancelled": bool(record["cancelled"]),
    }
