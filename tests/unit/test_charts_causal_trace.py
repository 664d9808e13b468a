"""Figures of a causal trace: every number in them is one of the result's."""

from dataclasses import replace

import altair as alt
import numpy as np
import pytest

from mi_core.analyses.causal_trace_inputs import METRICS
from mi_core.charts import causal_trace as charts
from mi_core.charts.causal_trace_cell import (
    cell_name,
    cell_samples,
    cell_tops,
    describe_cell,
    describe_samples,
)
from mi_core.charts.causal_trace_curves import describe_curve, describe_severed, recovery_curve, severed_bars
from mi_core.charts.theme import styled
from tests.examples import SUBJECT, example_result

SEVERED = ("state", "state_attn_severed", "state_mlp_severed")
LAST_SUBJECT = SUBJECT[1] - 1


def cells_of(spec, kind: str, rows, n_layers: int) -> np.ndarray:
    grid = np.full((len(rows), n_layers), np.nan)
    for cell in spec["datasets"]["cells"]:
        if cell["kind"] == kind:
            grid[rows.index(cell["row"]), cell["layer"]] = cell["value"]
    return grid


@pytest.mark.parametrize("metric", list(METRICS))
@pytest.mark.parametrize("palette", ["cividis", "rome"])
def test_the_heatmap_is_the_grid(metric: str, palette) -> None:
    result = example_result(done_share=0.8)
    spec = charts.trace_heatmap(result, metric, palette=palette)
    for kind, grid in result.grids.items():
        drawn = cells_of(spec, kind, list(grid.rows), result.n_layers)
        np.testing.assert_array_equal(drawn, result.grid(kind, metric))
        unrun = sum(cell["kind"] == kind for cell in spec["datasets"]["missing"])
        assert unrun == (~grid.done).sum()


def test_only_traced_positions_have_rows_and_clicks_return_positions() -> None:
    result = example_result(("state",))
    kept = (2, 4, 9)
    grid = result.grids["state"]
    part = replace(
        grid, rows=kept, done=grid.done[list(kept)],
        samples={name: values[list(kept)] for name, values in grid.samples.items()},
        top_ids=grid.top_ids[list(kept)], top_probabilities=grid.top_probabilities[list(kept)],
    )  # fmt: skip
    spec = charts.trace_heatmap(replace(result, grids={"state": part}), chosen=("state", 9, 3))
    assert {cell["row"] for cell in spec["datasets"]["cells"]} == set(kept)
    assert spec["datasets"]["chosen"] == [{"xc": 3, "yc": 2}]


def test_subject_tokens_have_a_star_and_the_first_token_is_on_top() -> None:
    axis = charts.position_axis(example_result())
    starred = [label for label in axis.labels if label.endswith("*")]
    assert starred == ["2 ·Eif*", "3 fel*", "4 ·Tower*"]
    scale = charts.trace_heatmap(example_result())["layer"][0]["encoding"]["y"]["scale"]
    assert scale["reverse"] is True


def scale_of(result, metric: str):
    return charts.trace_scale(result, metric, charts.trace_panels(result, metric))


def test_amounts_start_at_the_corrupted_run() -> None:
    result = example_result()
    for metric in ("probability", "log_probability", "logit"):
        scale = scale_of(result, metric)
        assert scale.domain[0] == result.value(result.corrupted, metric)
        assert scale.domain[1] >= result.value(result.clean, metric)
        assert (scale.domain[0], "corrupted") in scale.marks


def test_distances_run_from_the_corrupted_run_down_to_the_clean_one() -> None:
    result = example_result()
    for metric in ("kl", "rank"):
        high, low = scale_of(result, metric).domain
        assert high == result.value(result.corrupted, metric)
        assert low <= result.value(result.clean, metric)


@pytest.mark.parametrize("metric", charts.DIVERGING_METRICS)
def test_differences_and_shares_have_a_true_zero(metric: str) -> None:
    scale = scale_of(example_result(), metric)
    assert scale.diverging
    assert scale.domain[0] == -scale.domain[1]


def test_a_corruption_without_effect_still_gives_a_figure() -> None:
    result = example_result(("state",))
    flat = replace(
        result,
        corrupted=result.clean,
        clean=result.clean,
        grids={
            "state": replace(
                result.grids["state"],
                samples={name: np.full((10, 8, 1), result.clean.mean(name)) for name in result.clean.samples},
            )
        },
    )
    for metric in flat.metrics:
        spec = charts.trace_heatmap(flat, metric)
        low, high = (spec["layer"][0]["layer"][0]["encoding"]["color"]["scale"]["domain"][i] for i in (0, -1))
        assert low != high


def test_clipped_cells_are_counted() -> None:
    result = example_result()
    panels = charts.trace_panels(result, "probability")
    scale = charts.trace_scale(result, "probability", panels)
    low, high = scale.domain
    seen = low - (high - low) / charts.COLOUR_STEPS
    below = sum(int((panel.values < seen).sum()) for panel in panels)
    assert charts.clipped_cells(panels, scale) == (below, 240)
    assert below < sum(int((panel.values < low).sum()) for panel in panels), "invisible ones are not counted"


def test_heads_have_a_figure_of_their_own_that_reaches_to_their_largest_effect() -> None:
    result = example_result(("state", "head"))
    spec = charts.head_heatmap(result)
    drawn = cells_of(spec, "head", list(result.grids["head"].rows), result.n_layers)
    np.testing.assert_array_equal(drawn, result.grid("head", "probability"))
    assert spec["layer"][0]["layer"][0]["encoding"]["color"]["scale"]["domain"][1] == drawn.max()
    assert "head" not in {c["kind"] for c in charts.trace_heatmap(result)["datasets"]["cells"]}
    with pytest.raises(ValueError, match="no kind with token rows"):
        charts.trace_heatmap(example_result(("head",)))


def test_the_curve_is_a_row_of_the_grid_with_its_band_and_the_two_runs() -> None:
    result = example_result()
    data = recovery_curve(result)["datasets"]
    for kind in result.grids:
        points = [p for p in data["points"] if p["kind"] == kind]
        low, high = result.interval(kind, "probability")
        np.testing.assert_array_equal([p["value"] for p in points], result.grid(kind)[LAST_SUBJECT])
        np.testing.assert_array_equal([p["low"] for p in points], low[LAST_SUBJECT])
        np.testing.assert_array_equal([p["high"] for p in points], high[LAST_SUBJECT])
    assert [rule["value"] for rule in data["rules"]] == [result.corrupted.mean("probability"), 0.93]


def test_the_best_layer_is_the_one_nearest_to_the_other_run() -> None:
    result = example_result(("state",))
    (best,) = recovery_curve(result)["datasets"]["best"]
    assert best["layer"] == int(result.grid("state")[LAST_SUBJECT].argmax())
    (best,) = recovery_curve(result, "kl")["datasets"]["best"]
    assert best["layer"] == int(result.grid("state", "kl")[LAST_SUBJECT].argmin())
    noising = replace(result, inputs=replace(result.inputs, direction="noising"))
    (best,) = recovery_curve(noising)["datasets"]["best"]
    assert best["layer"] == int(result.grid("state")[LAST_SUBJECT].argmin())


def test_severed_kinds_are_drawn_as_lines_only_when_asked_for() -> None:
    result = example_result(("state", "state_mlp_severed"))
    assert {p["kind"] for p in recovery_curve(result)["datasets"]["points"]} == {"state"}
    both = recovery_curve(result, kinds=list(result.grids))["datasets"]["points"]
    assert {p["kind"] for p in both} == {"state", "state_mlp_severed"}


def test_labels_of_best_layers_that_lie_together_are_put_apart() -> None:
    best = recovery_curve(example_result(SEVERED), kinds=SEVERED)["datasets"]["best"]
    assert {point["kind"]: point["side"] for point in best}["state"] == "above"
    same = example_result(("state",))
    twice = replace(
        same,
        grids={**same.grids, "state_attn_severed": replace(same.grids["state"], kind="state_attn_severed")},
    )
    best = recovery_curve(twice, kinds=["state", "state_attn_severed"])["datasets"]["best"]
    assert [point["side"] for point in best] == ["above", "below"]


def test_a_band_beyond_zero_and_one_does_not_stretch_the_axis_of_a_probability() -> None:
    result = example_result(("state",))
    grid = result.grids["state"]
    noisy = np.tile(np.where(np.arange(10) % 2, 0.99, 0.6), (10, 8, 1))
    spread = replace(grid, samples={**grid.samples, "probability": noisy})
    spec = recovery_curve(replace(result, grids={"state": spread}))
    assert max(p["high"] for p in spec["datasets"]["points"]) > 0.93
    low, high = spec["layer"][0]["encoding"]["y"]["scale"]["domain"]
    assert -0.15 < low < high < 1.15


def test_a_trace_without_noise_samples_has_no_band() -> None:
    points = recovery_curve(example_result(corrupted_prompt="The Space Needle is"))["datasets"]["points"]
    assert all(p["low"] == p["value"] == p["high"] for p in points)


def test_severed_bars_are_effects_at_the_last_subject_token() -> None:
    result = example_result(SEVERED)
    bars = severed_bars(result)["datasets"]["bars"]
    for kind in SEVERED:
        drawn = [bar["effect"] for bar in bars if bar["kind"] == kind]
        np.testing.assert_array_equal(drawn, result.effect(kind)[LAST_SUBJECT])
    with pytest.raises(ValueError, match="severed"):
        severed_bars(example_result())


def test_tops_are_the_three_runs_tokens_with_answer_and_distractor_marked() -> None:
    result = example_result()
    bars = cell_tops(result, "mlp", 4, 3)["datasets"]["bars"]
    by_run = {
        run: [b for b in bars if b["run"] == run] for run in ("clean run", "corrupted run", "restored run")
    }
    grid = result.grids["mlp"]
    np.testing.assert_array_equal([b["id"] for b in by_run["clean run"]], result.clean.top_ids)
    np.testing.assert_array_equal([b["id"] for b in by_run["restored run"]], grid.top_ids[4, 3])
    np.testing.assert_array_equal(
        [b["probability"] for b in by_run["restored run"]], grid.top_probabilities[4, 3]
    )
    roles = {b["id"]: b["role"] for b in bars}
    assert roles.pop(result.answer.ids[0]) == "answer"
    assert result.distractor is not None
    assert roles.pop(result.distractor.ids[0]) == "distractor"
    assert set(roles.values()) == {"other"}


def test_a_cell_that_was_not_run_has_no_tokens_and_says_so() -> None:
    result = example_result(("state",), done_share=0.5)
    assert {b["run"] for b in cell_tops(result, "state", 9, 7)["datasets"]["bars"]} == {
        "clean run",
        "corrupted run",
    }
    assert "restored run: not run" in describe_cell(result, "state", 9, 7)


def test_the_strip_has_every_noise_sample_and_the_means() -> None:
    result = example_result()
    data = cell_samples(result, "state", 4, 3)["datasets"]
    restored = [s["value"] for s in data["samples"] if s["run"] == "restored"]
    np.testing.assert_array_equal(restored, result.grids["state"].samples["probability"][4, 3])
    assert {m["run"]: m["value"] for m in data["means"]}["restored"] == result.grid("state")[4, 3]
    with pytest.raises(ValueError, match="per sample"):
        cell_samples(result, "state", 4, 3, "recovered_probability")


def test_a_cell_is_named_like_its_tooltip() -> None:
    result = example_result(("state", "mlp", "head"))
    windowed = replace(result, inputs=replace(result.inputs, window=3))
    assert cell_name(result, "state", 4, 3) == "state, layer 3, 4 ·Tower*"
    assert cell_name(windowed, "mlp", 9, 0) == "MLP, w = 3, layer 0, 9 ·city of"
    assert cell_name(result, "head", 2, 5) == "heads at 4 ·Tower, L5H2"


ALL = {
    "heatmap": lambda r: charts.trace_heatmap(r, chosen=("mlp", 4, 3)),
    "rome": lambda r: charts.trace_heatmap(r, palette="rome"),
    "values": lambda r: charts.trace_heatmap(r, "logit_difference", kinds=["state"], show_values=True),
    "rank": lambda r: charts.trace_heatmap(r, "rank"),
    "curve": recovery_curve,
    "tops": lambda r: cell_tops(r, "state", 4, 3),
    "samples": lambda r: cell_samples(r, "state", 4, 3),
}


@pytest.mark.parametrize("name", list(ALL))
def test_every_figure_is_valid_vega_lite(name: str) -> None:
    chart = alt.Chart.from_dict(styled(ALL[name](example_result()), size="column"))
    assert isinstance(chart, alt.LayerChart)


def test_figures_can_be_drawn_before_anything_is_done() -> None:
    alt.Chart.from_dict(styled(charts.trace_heatmap(example_result(done_share=0.0))))
    assert recovery_curve(example_result(done_share=0.0))["datasets"]["points"] == []


def test_severed_and_heads_are_valid_vega_lite() -> None:
    alt.Chart.from_dict(styled(severed_bars(example_result(SEVERED))))
    alt.Chart.from_dict(styled(charts.head_heatmap(example_result(("head",)))))


def test_text_alternatives_name_the_quantity_and_the_best_cells() -> None:
    result = example_result(("state", "state_mlp_severed", "head"))
    assert "P(·Paris) [probability]" in charts.describe_trace(result)
    assert "highest 0.93 at 9 ·city of, layer 7" in charts.describe_trace(result, kinds=["state"])
    assert charts.describe_trace(result, kinds=("head",)) == charts.describe_heads(result)
    assert "best 0.606 at layer 3" in describe_curve(result)
    assert "largest" in describe_severed(result)
    assert "10 noise samples" in describe_samples(result, "state", 4, 3)
