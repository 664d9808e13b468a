"""The figures of the probe of one layer's features: drawing, table, caption and recipe, ready to leave."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mi_core.charts import feature_probe as charts
from mi_core.charts.grid import window
from mi_core.charts.text import legible, number
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.captions import drawn_clause, model_sentence, quoted
from mi_core.exports.figure import Figure
from mi_core.transcoders.probe_result import ARRAYS, CltProbeResult

if TYPE_CHECKING:
    import pandas as pd

REFERENCES = ("ameisen2025circuit", "dunefsky2024transcoders")

TOP_READING = (
    "At every token the features of the layer are sorted by activation; the number in a cell is the "
    "feature's. The Jaccard index of two tokens is the number of features that are in both lists over the "
    "number in either: 0 = none is shared, 1 = the same features. At a leading special token most "
    "transcoders answer with hundreds of features; it is computed and hatched."
)
COUNT_READING = (
    "How many features of the layer have an activation above 0 (above their threshold, where there is one). "
    "A count far above the others often means that the transcoder was not made for such a token."
)
INJECTION_READING = (
    "The feature's decoder rows, times the strength, are added to what the MLPs write at one token, in every "
    "layer that the feature writes to; then the logits at the last token are compared with those of the "
    "unchanged run. The bar is the length of the difference over the whole vocabulary. The concentration "
    "ratio is the last token's bar over the upper median of all. At the last token the injection reaches the "
    "logits through the stream itself; from earlier tokens only attention can carry it. So a large bar at "
    "the last token is expected, and is no sign that the model plans there."
)


def top_figure(result: CltProbeResult, position: int, *, chosen: tuple[int, int] | None = None) -> Figure:
    """The strongest features; arguments as in `charts.feature_probe.top_map`."""
    return _figure(
        result,
        f"Strongest features of layer {result.layer} at every token",
        charts.top_map(result, position, chosen=chosen),
        {"figure": "top", "position": position, "chosen": chosen and list(chosen)},
        caption=[
            "Cells: number of the feature, coloured by its activation, strongest on the left; hatched = not "
            "active, or a special token.",
            f"{result.unique_top1_count} different features are the strongest one somewhere, without special "
            f"tokens {result.unique_top1_words}; Jaccard index of the first and the last token "
            f"{number(result.jaccard_first_last)}, without special tokens {number(result.jaccard_words)}.",
            _window(result, position),
        ],
        reading=TOP_READING,
        description=charts.describe_top(result, position),
        quantities=("activation",),
    )


def count_figure(result: CltProbeResult, position: int) -> Figure:
    """Active features per token; arguments as in `charts.feature_probe.count_bars`."""
    special = ", ".join(
        f"{label} {int(result.n_active[at]):,}"
        for at, label in zip(result.masked, charts.labels(result, result.masked), strict=True)
    )
    masked = f"; special tokens are left out ({special})" if special else ""
    return _figure(
        result,
        f"Active features of layer {result.layer}",
        charts.count_bars(result, position),
        {"figure": "counts", "position": position},
        caption=[f"Bars: number of active features; 0 = none{masked}.", _window(result, position)],
        reading=COUNT_READING,
        description=charts.describe_counts(result, position),
        quantities=("active features",),
    )


def injection_figure(result: CltProbeResult, position: int, *, chosen: int | None = None) -> Figure:
    """The change by injections; arguments as in `charts.feature_probe.injection_bars`."""
    return _figure(
        result,
        f"Injecting {charts.feature_name(result)} at every token",
        charts.injection_bars(result, position, chosen=chosen),
        {"figure": "injection", "position": position, "chosen": chosen},
        caption=[
            f"Bars: length of the change of all logits at the last token [logits], injected minus unchanged, "
            f"when {charts.feature_name(result)} times {result.inputs.strength:g} is added at one token; "
            "0 = nothing changes. At the token marked as output the logits are read.",
            _concentration(result),
            _window(result, position),
        ],
        reading=INJECTION_READING,
        description=charts.describe_injection(result),
        quantities=("logit change",),
    )


def summary_table(result: CltProbeResult) -> "pd.DataFrame":
    """The numbers that stand for the whole prompt."""
    import pandas as pd  # only tables need it

    return pd.DataFrame(result.summary, columns=["quantity", "value", "unit"])


def _concentration(result: CltProbeResult) -> str:
    if not result.has_injection:
        return "Stopped early: not every token was tried."
    return (
        f"Largest {number(result.max_l2)} at token {result.max_pos}; last token {number(result.last_l2)}, "
        f"rank {result.last_rank} of {len(result)}; concentration ratio "
        f"{number(result.concentration_ratio)}."
    )


def _window(result: CltProbeResult, position: int) -> str:
    count = len(result)
    return drawn_clause(count, window(count, position, charts.WINDOW))


def _table(result: CltProbeResult, quantities: Sequence[str]) -> "pd.DataFrame":
    frame = result.to_frame()
    kept = frame["quantity"].isin(list(quantities))
    return frame.loc[kept].dropna(axis="columns", how="all").reset_index(drop=True)


def _figure(
    result: CltProbeResult,
    title: str,
    spec: Mapping[str, Any],
    view: Mapping[str, Any],
    *,
    caption: Sequence[str],
    reading: str,
    description: str,
    quantities: Sequence[str],
) -> Figure:
    what = (
        f"Probe of layer {result.layer} on {quoted(result.inputs.prompt)}, n = 1 prompt of "
        f"{len(result):,} tokens."
    )
    origin = model_sentence(result.provenance) or f"From a file about the model {legible(result.model_name)}."
    said = [what, *caption, result.transcoder.sentence, origin]
    return analysis_figure(
        result,
        analysis="clt_probe",
        title=title,
        spec=spec,
        view=view,
        caption=" ".join(one for one in said if one),
        how_to_read=reading,
        description=description,
        frame=lambda: _table(result, quantities),
        references=REFERENCES,
        function="clt_probe",
        arrays=ARRAYS,
    )
