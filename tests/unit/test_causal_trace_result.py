"""Inputs and results of a causal trace as data: checks of shapes, derived numbers, tables, JSON and hostile
JSON.
"""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mi_core.analyses import KINDS, METRICS, CausalTraceInputs, CausalTraceResult, Reading, TraceGrid
from mi_core.analyses.causal_trace_inputs import STORED_METRICS
from mi_core.errors import InputError
from tests.examples import example_result

CASES = {
    "noise": {},
    "all kinds": {"kinds": KINDS},
    "pair": {"corrupted_prompt": "The Space Needle is located in the city of"},
    "no distractor": {"distractor": False},
    "cancelled": {"done_share": 0.4},
    "one sample": {"samples": 1},
}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_json_brings_every_number_back(options):
    result = example_result(**options)
    text = result.to_json()
    assert "NaN" not in text
    back = CausalTraceResult.from_json(text)
    assert back.inputs == result.inputs
    assert back.to_json() == text
    for kind, grid in result.grids.items():
        np.testing.assert_array_equal(back.grids[kind].done, grid.done)
        np.testing.assert_array_equal(back.grids[kind].top_ids, grid.top_ids)
        for metric in result.metrics:
            np.testing.assert_array_equal(back.grid(kind, metric), result.grid(kind, metric))
            assert back.value(back.corrupted, metric) == result.value(result.corrupted, metric)
    assert back.tokens == result.tokens
    assert back.checks == result.checks
    assert back.vocabulary == result.vocabulary


def test_float32_numbers_come_back_exactly():
    result = example_result(kinds=("state",))

    def single(reading):
        samples = {name: values.astype(np.float32) for name, values in reading.samples.items()}
        return replace(
            reading, samples=samples, top_probabilities=reading.top_probabilities.astype(np.float32)
        )

    grid = replace(single(result.grids["state"]))
    small = replace(
        result, clean=single(result.clean), corrupted=single(result.corrupted), grids={"state": grid}
    )
    back = CausalTraceResult.from_json(small.to_json())
    assert back.grids["state"].samples["kl"].dtype == np.float32
    np.testing.assert_array_equal(back.grids["state"].samples["kl"], grid.samples["kl"])
    assert len(small.to_json()) < 0.8 * len(result.to_json())


def test_the_ends_of_every_share():
    result = example_result()
    for metric in ("recovered_probability", "recovered_logit_difference", "kl_recovery"):
        assert result.baseline(metric) == pytest.approx(0)
    for metric in ("recovered_probability", "recovered_logit_difference"):
        assert result.ceiling(metric) == pytest.approx(1)
    assert result.total_effect() == pytest.approx(result.ceiling() - result.baseline())


def test_baseline_and_ceiling_change_places_with_the_direction():
    there = example_result()
    back = replace(there, inputs=replace(there.inputs, direction="noising"))
    assert (back.baseline(), back.ceiling()) == (there.ceiling(), there.baseline())
    np.testing.assert_array_equal(back.grid("state", "kl_recovery"), there.grid("state", "kl_recovery"))


def test_the_grid_is_the_mean_over_samples_and_the_share_is_of_the_means():
    result = example_result()
    samples = result.grids["state"].samples["probability"]
    np.testing.assert_allclose(result.grid("state"), samples.mean(-1))
    low, high = result.corrupted.samples["probability"].mean(), result.clean.samples["probability"].mean()
    np.testing.assert_allclose(
        result.grid("state", "recovered_probability"), (samples.mean(-1) - low) / (high - low)
    )
    np.testing.assert_allclose(result.effect("state"), samples.mean(-1) - low)


def test_the_band_is_students_t_of_the_paired_difference():
    result = example_result(samples=10)
    low, high = result.interval("state")
    difference = result.grids["state"].samples["probability"] - result.corrupted.samples["probability"]
    half = 2.2622 * difference.std(axis=-1, ddof=1) / np.sqrt(10)
    np.testing.assert_allclose((high - low) / 2, half, rtol=1e-3)
    np.testing.assert_allclose((high + low) / 2, result.grid("state"))
    effect_low, effect_high = result.effect_interval("state")
    np.testing.assert_allclose((effect_high + effect_low) / 2, difference.mean(-1), atol=1e-12)
    np.testing.assert_allclose((effect_high - effect_low) / 2, half, rtol=1e-3)
    # Rows before the first difference have exactly the corrupted run's samples: no difference, no band.
    share_low, share_high = result.interval("state", "recovered_probability")
    np.testing.assert_allclose((share_high - share_low) / 2, half / result.total_effect(), rtol=1e-3)


def test_one_sample_has_no_band():
    low, high = example_result(samples=1).interval("state")
    assert np.isnan(low).all()
    assert np.isnan(high).all()


def test_a_share_without_a_gap_is_missing_not_infinite():
    result = example_result()
    equal = replace(result, clean=Reading(
        {name: np.array([values.mean()]) for name, values in result.corrupted.samples.items()},
        result.corrupted.top_ids, result.corrupted.top_probabilities))  # fmt: skip
    assert np.isnan(equal.grid("state", "recovered_probability")).all()
    assert np.isfinite(equal.grid("state")).all()
    CausalTraceResult.from_json(equal.to_json())


def test_the_table_has_one_row_per_number():
    result = example_result()
    frame: Any = result.to_frame()
    assert len(frame) == (2 + 3 * 10 * 8) * len(result.metrics)
    row = frame.query("kind == 'mlp' and position == 4 and layer == 3 and metric == 'kl'").iloc[0]
    assert row["value"] == pytest.approx(result.grid("mlp", "kl")[4, 3])
    assert (row["token"], row["unit"], row["samples"]) == (result.tokens[4].visible, "nats", 10)
    ends = frame[frame.kind == "clean run"].set_index("metric")["value"]
    assert ends["probability"] == pytest.approx(result.ceiling())
    heads = example_result(kinds=("head",)).to_frame().query("kind == 'head'")
    assert set(heads["head"]) == {0, 1, 2, 3}
    assert set(heads["position"]) == {4}
    cut: Any = example_result(done_share=0.4).to_frame()
    assert not cut["value"].isna().any()  # what is not done has no row


def test_every_metric_says_its_unit_and_meaning():
    assert set(STORED_METRICS) == {name for name, metric in METRICS.items() if not metric.derived}
    for metric in METRICS.values():
        assert metric.unit
        assert metric.meaning.endswith((".", "."))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: replace(r, tokens=r.tokens[:-1]), "9 clean tokens but 10 corrupted"),
        (lambda r: replace(r, subject=(8, 12)), "outside the 10 tokens"),
        (lambda r: replace(r, n_layers=7), "expected 7 layers"),
        (lambda r: replace(r, corrupted=example_result(samples=3).corrupted), "samples"),
        (lambda r: replace(r, clean=example_result(distractor=False).clean), "metrics"),
        (lambda r: replace(r, grids={"attn": r.grids["state"]}), "kind"),
    ],
)
def test_a_result_that_does_not_fit_together_cannot_be_made(change, message):
    with pytest.raises(ValueError, match=message):
        change(example_result())


def test_a_grid_that_does_not_fit_together_cannot_be_made():
    """While tests run jaxtyping sees wrong axes first; users meet the class's own check, tried in the test
    below.
    """
    grid = example_result().grids["state"]
    with pytest.raises(ValueError, match="9 rows but done has shape"):
        replace(grid, rows=grid.rows[:-1])
    assert grid.row_of(4) == 4
    with pytest.raises(InputError, match="was not traced"):
        grid.row_of(10)
    assert isinstance(grid, TraceGrid)


def test_without_type_checks_the_class_finds_wrong_shapes_itself():
    program = """
import dataclasses, sys
from tests.examples import example_result
result = example_result()
grid = result.grids["state"]
for change in (
    lambda: dataclasses.replace(grid, top_ids=grid.top_ids[:-1]),
    lambda: dataclasses.replace(grid, samples={**grid.samples, "kl": grid.samples["kl"][:, :-1]}),
    lambda: dataclasses.replace(result.clean, top_ids=result.clean.top_ids[:-1]),
    lambda: dataclasses.replace(result.clean, samples={**result.clean.samples, "kl":
        result.clean.samples["kl"][:0]}),
):
    try:
        change()
    except ValueError:
        continue
    sys.exit("accepted")
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


def test_unknown_kinds_and_metrics_are_told_with_what_there_is():
    result = example_result(distractor=False)
    with pytest.raises(InputError, match=r"no grid 'head'.*state, attn, mlp"):
        result.grid("head")
    with pytest.raises(InputError, match="no distractor was chosen"):
        result.grid("state", "logit_difference")
    with pytest.raises(InputError, match="no metric 'beauty'"):
        result.grid("state", "beauty")


# --- inputs
# -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("prompt", "", "prompt is empty"),
        ("prompt", "a" * 200_000, "100,000 characters"),
        ("corrupted_prompt", "", "corrupted prompt is empty"),
        ("answer", "", "answer is empty"),
        ("subject", (3, 3), "token span"),
        ("subject", (-1, 3), "token span"),
        ("noise", "cauchy", "gaussian, uniform"),
        ("noise_level", -1.0, "noise level"),
        ("noise_level", float("nan"), "noise level"),
        ("noise_unit", "volts", "sigma, absolute"),
        ("samples", 0, "samples"),
        ("samples", 10**9, "samples"),
        ("seed", -1, "seed"),
        ("direction", "sideways", "denoising, noising"),
        ("kinds", (), "No kind"),
        ("kinds", ("state", "soul"), "kind is 'soul'"),
        ("kinds", ("state", "state"), "twice"),
        ("window", 0, "window is 0"),
        ("window_convention", "mine", "code, paper"),
        ("bos", "maybe", "auto, always, never"),
    ],
)
def test_senseless_inputs_are_refused(field, value, message):
    with pytest.raises(InputError, match=message):
        CausalTraceInputs(**{"prompt": "The capital of France is", "subject": (3, 4), field: value})


def test_inputs_come_back_from_plain_values():
    inputs = CausalTraceInputs(
        "x y", subject=(0, 1), kinds=("state", "head"), head_position=1, sigma_subjects=("a",)
    )
    assert CausalTraceInputs.from_dict(json.loads(json.dumps(inputs.to_dict()))) == inputs
    assert hash(CausalTraceInputs("x y", kinds=["state"]))  # type: ignore[arg-type]  # lists are forgiven == hash(CausalTraceInputs("x y", kinds=("state",)))


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": 5},
        {"samples": "ten"},
        {"samples": 2.5},
        {"samples": True},
        {"noise_level": "3"},
        {"kinds": "state"},
        {"kinds": [["state"]]},
        {"subject": [1]},
        {"subject": ["a", "b"]},
        {"positions": [1.5]},
        {"evil": 1},
        {"prompt": None},
        {"window": None},
        {"seed": 10**30},
        {"kinds": {"a": 1}},
    ],
)
def test_hostile_inputs_are_one_input_error(change):
    with pytest.raises(InputError):
        CausalTraceInputs.from_dict({**CausalTraceInputs("x y", subject=(0, 1)).to_dict(), **change})


# --- hostile records
# --------------------------------------------------------------------------------------------------


def record() -> dict:
    return json.loads(example_result(kinds=("state",)).to_json())


DAMAGES = [
    (("inputs",), None),
    (("inputs", "kinds"), ["soul"]),
    (("tokens",), []),
    (("tokens", 0), {}),
    (("tokens", 0, "id"), "x"),
    (("subject",), [1, 2, 3]),
    (("subject",), ["a", "b"]),
    (("n_layers",), 10**12),
    (("n_samples",), -1),
    (("precision",), "object"),
    (("clean", "samples", "kl"), [None, None]),
    (("clean",), None),
    (("grids", "soul"), {}),
    (("grids", "state", "rows"), [0]),
    (("grids", "state", "done"), [[True]]),
    (("grids", "state", "top_ids"), "x"),
    (("grids", "state", "samples", "kl"), [[[["deep"]]]]),
    (("grids",), []),
    (("plan",), {"x": 1}),
    (("checks",), [1]),
    (("vocabulary",), {"x": "y"}),
    (("provenance",), {"model": "x"}),
    (("seconds",), "soon"),
    (("answer", "ids"), []),
    (("first_difference",), None),
    (("noise_scale",), "loud"),
    (("vocabulary",), []),
    (("plan", "seconds"), "x"),
]


def damaged(path, value):
    whole = record()
    place = whole
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(whole)


@pytest.mark.parametrize(("path", "value"), DAMAGES)
def test_a_damaged_record_is_one_input_error(path, value):
    with pytest.raises(InputError):
        CausalTraceResult.from_json(damaged(path, value))


def test_a_damaged_record_is_one_input_error_for_users_too():
    """Without the type checks that tests run under, every refusal has to be the reader's own."""
    program = """
import json, sys
from mi_core.analyses import CausalTraceResult
from mi_core.errors import InputError
for number, text in enumerate(json.load(sys.stdin)):
    try:
        CausalTraceResult.from_json(text)
    except InputError:
        continue
    sys.exit(f"accepted damage {number}")
"""
    texts = json.dumps([damaged(path, value) for path, value in DAMAGES])
    subprocess.run(
        [sys.executable, "-c", program], input=texts, text=True, check=True, cwd=Path(__file__).parents[2]
    )


@pytest.mark.parametrize("key", sorted(record()))
def test_a_record_without_a_field_is_one_input_error(key):
    damaged = record()
    del damaged[key]
    if key == "metrics":  # written for other readers; ours has the table
        CausalTraceResult.from_json(json.dumps(damaged))
        return
    with pytest.raises(InputError):
        CausalTraceResult.from_json(json.dumps(damaged))
