"""The figures of an intervention on features, and its tables: top tokens, from -> to."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mi_core.charts import feature_inject as charts
from mi_core.charts.text import MINUS, number
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.before_after import listed, rows_of_kinds
from mi_core.exports.captions import model_sentence, quoted
from mi_core.exports.figure import Figure
from mi_core.transcoders.inject_result import InjectResult

if TYPE_CHECKING:
    import pandas as pd

REFERENCES = ("ameisen2025circuit", "lindsey2025biology", "dunefsky2024transcoders")
FROZEN = {
    "nothing": "nothing is frozen: attention and all later layers answer",
    "attention": "attention patterns are frozen at the baseline; MLPs answer",
    "everything": "attention, norm scales and MLP outputs are frozen: direct effects only",
}
LARGEST = "largest in corpus"
ADDED_UP = "added up"
TOP_READING = (
    "Each bar is a token that is among the most probable ones before or after: its probability at the last "
    "position, edited minus baseline; blue where the edits raised it, orange where they lowered it. An edit "
    "adds (to - from) times a feature's decoder rows at every layer that the feature writes to; what the "
    "transcoder does not explain of this prompt stays as it is."
)
FEATURES_READING = (
    "Each bar is a feature that was not edited, at one token: its activation as the encoder reads it in the "
    "edited run, minus the baseline's. Edited features are left out, since what they do is given. Frozen "
    "modes change what can answer: with attention frozen only what reaches a token along the baseline's "
    "attention; with everything frozen only what the edits write there directly."
)
PUSH_READING = (
    "The length of the vector that is added at a layer, divided by the length of the baseline's stream after "
    "that layer, per edited token. 0.1 is a tenth of the stream; above 1 the model works on states that it "
    "never saw, and its answer says little about how it works by itself. A cross-layer feature writes to "
    "several layers, so its pushes add up on the way."
)


def top_figure(result: InjectResult) -> Figure:
    """The top tokens of both runs, and how their probability changed."""
    return _figure(
        result,
        "What it says then",
        charts.top_bars(result),
        "top",
        caption=f"{_caption(result, f'The {len(result.top_ids)} top tokens of either run')} Bars: "
        f"{charts.CHANGE}; 0 = no change. KL(baseline || edited) = {number(result.kl)} nats.",
        reading=TOP_READING,
        description=charts.describe_top(result),
        kinds=("token", "top token"),
        arrays=("logits", "log_probabilities", "top_probabilities"),
    )


def features_figure(result: InjectResult) -> Figure:
    """The other features that change most."""
    shown = min(len(result.feature_layers), charts.SHOWN_FEATURES)
    before, after = result.n_active.tolist()
    on, off = result.n_switched.tolist()
    return _figure(
        result,
        "Other features",
        charts.feature_bars(result),
        "features",
        caption=f"{_caption(result, f'The {shown} other features that change most')} Bars: "
        f"{charts.ACTIVATION_CHANGE}; 0 = no change. {before:,} others are active before and {after:,} "
        f"after, where an effect is possible: {on:,} switched on, {off:,} switched off.",
        reading=FEATURES_READING,
        description=charts.describe_features(result),
        kinds=("other feature",),
        arrays=("feature_activations", "n_active", "n_switched"),
    )


def push_figure(result: InjectResult) -> Figure:
    """How large the push is beside the stream."""
    shown = charts.shown_tokens(result)
    part = (
        ""
        if len(shown) == len(result.pushed_positions)
        else f" Of {len(result.pushed_positions)} edited tokens the {len(shown)} to which most is added are "
        "drawn."
    )
    return _figure(
        result,
        "How large the push is",
        charts.push_lines(result),
        "push",
        caption=f"{_caption(result, 'What is added to each layer')} Lines: {charts.RATIO}, a ratio of "
        f"lengths; 0 = nothing added.{part}",
        reading=PUSH_READING,
        description=charts.describe_push(result),
        kinds=("push", "edited feature"),
        arrays=("delta_norms", "sum_norms", "residual_norms", "activation_from", "activation_to"),
    )


def _figure(
    result: InjectResult,
    title: str,
    spec: Mapping[str, Any],
    name: str,
    *,
    caption: str,
    reading: str,
    description: str,
    kinds: tuple[str, ...],
    arrays: tuple[str, ...],
) -> Figure:
    return analysis_figure(
        result,
        analysis="feature_inject",
        title=title,
        spec=spec,
        view={"figure": name},
        caption=f"{caption} {model_sentence(result.provenance)}",
        how_to_read=reading,
        description=description,
        frame=lambda: rows_of_kinds(result, kinds),
        references=REFERENCES,
        function="inject",
        arrays=arrays,
    )


def _caption(result: InjectResult, what: str) -> str:
    short = listed(result.edits, "no edit")
    return (
        f"{what} behind {quoted(result.inputs.prompt)} (one prompt) with {short} of transcoder "
        f"{quoted(result.transcoder)}; {FROZEN[result.inputs.frozen]}."
    )


# --- tables ---


def top_table(result: InjectResult) -> "pd.DataFrame":
    """One row per top token of either run: ranks and probabilities before and after."""
    import pandas as pd

    (before, after), ranks = result.top_probabilities, result.top_ranks
    return pd.DataFrame(
        {
            "token": [result.vocabulary[token] for token in result.top_ids.tolist()],
            "rank before": ranks[0],
            "rank after": ranks[1],
            "baseline": before,
            "edited": after,
            f"edited {MINUS} baseline": after - before,
        }
    )


def n_idle(result: InjectResult) -> int:
    """How many edited activations are 0 before and after."""
    return int(((result.activation_from == 0) & (result.activation_to == 0)).sum())


def edited_table(
    result: InjectResult, *, idle: bool = True, labels: Mapping[str, str] | None = None
) -> "pd.DataFrame":
    """One row per edit of a feature at a token: from, to, decoder rows added, how large the push is there.

    Args:
        result: the numbers.
        idle: whether activations that are 0 before and after have a row.
        labels: names of features, by "L5F102"; a column more if any is there.
    """
    import pandas as pd

    column_of = {position: column for column, position in enumerate(result.pushed_positions.tolist())}
    ratios, sums = (
        part.max(0) if len(result.pushed_layers) else [] for part in (result.delta_ratios, result.sum_ratios)
    )
    rows = [
        (
            at.feature.text,
            f"{at.position} {result.tokens[at.position].visible}",
            before,
            after,
            after - before,
            largest,
            float(ratios[column_of[at.position]]),
            float(sums[column_of[at.position]]),
            result.edits[piece],
        )
        for at, piece, before, after, largest in zip(
            result.edited_names,
            result.edited_pieces.tolist(),
            result.activation_from.tolist(),
            result.activation_to.tolist(),
            result.activation_largest.tolist(),
            strict=True,
        )
        if idle or before or after
    ]
    columns = ["feature", "token", "from", "to", "rows added", LARGEST, charts.RATIO, ADDED_UP, "edit"]
    frame = pd.DataFrame(rows, columns=columns)
    if labels:
        frame["label"] = [labels.get(name, "") for name in frame["feature"]]
    return frame
