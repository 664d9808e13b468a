"""The Altair door: the same figure as on screen and on paper."""

import altair as alt

from mi_core.charts.causal_trace import trace_heatmap
from mi_core.charts.notebook import altair_chart
from tests.examples import example_result


def test_an_altair_chart_holds_the_same_layers_and_numbers() -> None:
    spec = trace_heatmap(example_result(), "probability")
    chart = altair_chart(spec)
    assert isinstance(chart, alt.LayerChart)
    written = chart.to_dict()
    assert written["datasets"] == spec["datasets"]
    assert len(written["layer"]) == len(spec["layer"])
