"""Figures of averages: six roles, n in the labels, bands from the result."""

import altair as alt
import numpy as np
import pytest

from mi_core.analyses.causal_trace_average_types import ROLES
from mi_core.charts.causal_trace_average import (
    describe_roles,
    role_axis,
    role_heatmap,
    role_lines,
    role_scale,
)
from mi_core.charts.theme import styled
from tests.examples_average import example_average

NUMBERS = {False: ("average", "interval"), True: ("share", "share_interval")}


@pytest.mark.parametrize("share", [False, True])
def test_the_heatmap_is_the_average(share: bool) -> None:
    result = example_average()
    spec = role_heatmap(result, share=share)
    for kind in result.sums:
        drawn = np.full((6, result.n_layers), np.nan)
        for cell in spec["datasets"]["cells"]:
            if cell["kind"] == kind:
                drawn[cell["row"], cell["layer"]] = cell["value"]
        np.testing.assert_array_equal(drawn, getattr(result, NUMBERS[share][0])(kind))


@pytest.mark.parametrize("share", [False, True])
def test_lines_and_bands_are_the_results(share: bool) -> None:
    result = example_average()
    points = role_lines(result, share=share)["datasets"]["points"]
    for kind in result.sums:
        values = getattr(result, NUMBERS[share][0])(kind)
        low, high = getattr(result, NUMBERS[share][1])(kind)
        mine = [p for p in points if p["kind"] == kind]
        assert len(mine) == 6 * result.n_layers
        for p in mine:
            place = p["row"], p["layer"]
            assert (p["value"], p["low"], p["high"]) == (values[place], low[place], high[place])
            assert ROLES[p["row"]] == p["role"]


def test_every_role_says_how_many_prompts_it_stands_for() -> None:
    result = example_average(middle_in=4)
    labels = role_axis(result).labels
    assert labels[2] == "last subject, n = 12"
    assert labels[1] == "middle subject, n = 4"


def test_a_role_that_no_prompt_has_is_hatched_and_has_no_line() -> None:
    result = example_average(middle_in=0)
    missing = {cell["row"] for cell in role_heatmap(result)["datasets"]["missing"]}
    assert missing == {ROLES.index("middle subject tokens")}
    assert "middle subject tokens" not in {p["role"] for p in role_lines(result)["datasets"]["points"]}


def test_effects_have_white_at_zero_and_shares_reach_to_one() -> None:
    result = example_average()
    from mi_core.charts.causal_trace_average import role_panels

    effects = role_scale(result, role_panels(result))
    assert effects.diverging
    assert effects.domain[1] >= max(np.nanmax(np.abs(result.average(kind))) for kind in result.sums)
    assert role_scale(result, role_panels(result, share=True), share=True).domain[1] >= 1


def test_one_prompt_has_no_band_but_a_figure() -> None:
    points = role_lines(example_average(n=1))["datasets"]["points"]
    assert points
    assert all(p["low"] == p["value"] == p["high"] for p in points)


def test_both_figures_are_valid_vega_lite_and_can_be_told() -> None:
    result = example_average()
    alt.Chart.from_dict(styled(role_heatmap(result, chosen=("state", 2, 2))))
    alt.Chart.from_dict(styled(role_lines(result)))
    assert "6 rows (token role)" in describe_roles(result)
