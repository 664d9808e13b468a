"""The figures of attention, ready to leave: heads by a number, squares, key sums, pairs, coloured text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mi_core.analyses.attention_inputs import HEAD_METRICS, METRIC_NAMES, SHOW_INFO
from mi_core.analyses.attention_record import ARRAYS
from mi_core.analyses.attention_result import AttentionResult
from mi_core.analyses.attention_view import Direction, cells_frame
from mi_core.analyses.attribution_inputs import head_name
from mi_core.charts import attention as charts
from mi_core.charts import attention_heads
from mi_core.charts.attention_heads import PLAIN, SIDE_TITLES, View
from mi_core.charts.text import legible, token_label
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.attention_tables import head_table, line_table, pairs_table
from mi_core.exports.captions import model_sentence
from mi_core.exports.figure import Figure

if TYPE_CHECKING:
    import pandas as pd

MAX_PROMPT = 300  # characters of a prompt in a caption

NOT_EXPLANATION = (
    "Attention says where a head reads, not what that does to the answer (Jain and Wallace, 2019): "
    "compare with the value-weighted view and the contribution, and test by knocking the head out."
)
_SQUARE = {
    "weights": (
        "Each row is one query and divides its attention, 1 in all, over itself and earlier tokens: "
        "A = softmax(softcap(q k^T scale) + mask). Grey is the future, or the masked first token. "
    ),
    "value_weighted": (
        "Each cell is the length of the vector that the head moves from the key to the query, || A v W_O "
        "|| (Kobayashi et al., 2020). A large weight on a small value moves little: heads that rest on "
        "the first token usually do that. Where a family norms the attention's output once more, this is "
        "before that norm. "
    ),
    "contribution": (
        "Each cell is A (v W_O) . d: what the head moves from the key to the query, read directly as the "
        "target's logit at that query, with the scale of the final norm (and of a norm after attention) "
        "frozen. The row of the last token adds up to the head's direct effect on the answer (Elhage et "
        "al., 2021). What later layers make of it is not in it. "
    ),
}
HEADS = (
    "One number per head, to find heads worth a look. They are means over the queries of this prompt, the "
    "first token's left out, which can only read itself; duplicate-token and induction shares count only "
    "queries whose token occurred before. Induction: attention to what followed an earlier copy (Olsson "
    "et al., 2022). One prompt shows what a head does here; the tab on repeated random tokens shows its "
    "habit. "
)
REFERENCES = (
    "elhage2021mathematical",
    "olsson2022context",
    "wang2023interpretability",
    "kobayashi2020attention",
    "jain2019attention",
)


def heads_figure(
    result: AttentionResult, metric: str, view: View = PLAIN, *, chosen: tuple[int, int] | None = None
) -> Figure:
    """All heads by one number; arguments as in `charts.attention_heads.head_map`."""
    info = HEAD_METRICS[METRIC_NAMES.index(metric)]
    caption = f"{info.meaning} Unit: {info.unit}. {_whose(result, [view])} {_masking(result, view, metric)}"
    return _figure(
        result, f"All heads by {attention_heads.head_metric_label(result, metric)}",
        attention_heads.head_map(result, metric, view, chosen=chosen),
        {"figure": "heads", "metric": metric, **asdict(view)},
        caption=_caption(result, caption),
        how_to_read=HEADS + NOT_EXPLANATION,
        description=attention_heads.describe_heads(result, metric, view),
        frame=lambda: head_table(result, metric, view),
    )  # fmt: skip


def pattern_figure(
    result: AttentionResult,
    heads: Sequence[tuple[int, int]],
    views: Sequence[View] = (PLAIN,),
    *,
    chosen: tuple[int, int] | None = None,
) -> Figure:
    """Squares of one head or of several, on one scale; arguments as in `charts.attention.pattern_map`."""
    info = SHOW_INFO[result.inputs.show]
    names = ", ".join(head_name(*place) for place in heads)
    scale = " All panels have one scale." if len(heads) * len(views) > 1 else ""
    both = (
        " A and B have one scale."
        if result.compared and len(views) == 1 and views[0].side != "difference"
        else ""
    )
    caption = (
        f"{info.meaning}{scale}{both} Queries down, keys across. {_whose(result, views)} "
        f"{_masking(result, views[0])} {_outside(result, heads, views)}"
    )
    return _figure(
        result, f"{info.label}: {names}",
        charts.pattern_map(result, heads, views, chosen=chosen),
        {"figure": "pattern", "heads": [list(place) for place in heads], **_view_record(views)},
        caption=_caption(result, caption),
        how_to_read=_SQUARE[result.inputs.show] + NOT_EXPLANATION,
        description=charts.describe_pattern(result, heads, views)
        + " " + charts.describe_pairs(result, heads[0], views[0]),
        frame=lambda: cells_frame(
            result, heads, [view.side for view in views], mask_first=views[0].mask_first
        ),
    )  # fmt: skip


def sums_figure(
    result: AttentionResult, place: tuple[int, int], views: Sequence[View], *, chosen: int | None = None
) -> Figure:
    """Key sums; arguments as in `charts.attention.key_sum_lines`."""
    caption = (
        f"Sum over the queries shown of what {head_name(*place)} takes from each key; 0 = nobody reads it. "
        f"Early keys can be read by more queries. {_whose(result, views)} {_masking(result, views[0])}"
    )
    return _figure(
        result, f"Which tokens {head_name(*place)} reads",
        charts.key_sum_lines(result, place, views, chosen=chosen),
        {"figure": "key_sums", "heads": [list(place)], **_view_record(views)},
        caption=_caption(result, caption),
        how_to_read="The columns of the square, added up. " + NOT_EXPLANATION,
        description=charts.describe_pairs(result, place, views[0]),
        frame=lambda: cells_frame(
            result, [place], [view.side for view in views], mask_first=views[0].mask_first
        ),
    )  # fmt: skip


def text_figure(
    result: AttentionResult, place: tuple[int, int], view: View, position: int, direction: Direction
) -> Figure:
    """Coloured text; arguments as in `charts.attention.attention_text`."""
    token = token_label(position, result.tokens_of(view.side)[position].visible)
    title = (
        f"What {token} reads in {head_name(*place)}"
        if direction == "from"
        else f"Who reads {token} in {head_name(*place)}"
    )
    line = "row" if direction == "from" else "column"
    caption = (
        f"The {line} of {token} in the square, in the square's colours; grey tokens cannot be read or are "
        f"masked. {_whose(result, [view])} {_masking(result, view)}"
    )
    return _figure(
        result, title,
        charts.attention_text(result, place, view, position, direction),
        {
            "figure": "text",
            "heads": [list(place)],
            "position": position,
            "direction": direction,
            **asdict(view),
        },
        caption=_caption(result, caption),
        how_to_read=_SQUARE[result.inputs.show] + NOT_EXPLANATION,
        description=charts.describe_pairs(result, place, view),
        frame=lambda: line_table(result, place, view, position, direction),
    )  # fmt: skip


def pairs_figure(
    result: AttentionResult, place: tuple[int, int], view: View, *, chosen: int | None = None
) -> Figure:
    """The strongest pairs; arguments as in `charts.attention.pair_bars`."""
    caption = (
        f"The strongest cells of {head_name(*place)}, query → key; the table has their rank among the keys "
        f"of their query. {_whose(result, [view])} {_masking(result, view)}"
    )
    return _figure(
        result, f"Strongest pairs of {head_name(*place)}",
        charts.pair_bars(result, place, view, chosen=chosen),
        {"figure": "pairs", "heads": [list(place)], **asdict(view)},
        caption=_caption(result, caption),
        how_to_read=_SQUARE[result.inputs.show] + NOT_EXPLANATION,
        description=charts.describe_pairs(result, place, view),
        frame=lambda: pairs_table(result, place, view),
    )  # fmt: skip


# --- words ---


def _caption(result: AttentionResult, text: str) -> str:
    prompts = [f"A: “{_short(result.inputs.prompt)}”."]
    if result.inputs.second_prompt is not None:
        prompts.append(f"B: “{_short(result.inputs.second_prompt)}”.")
    if not result.compared:
        prompts = [f"Prompt: “{_short(result.inputs.prompt)}” ({len(result.tokens)} tokens)."]
    return " ".join(" ".join([text, *prompts, model_sentence(result.provenance)]).split())


def _short(text: str) -> str:
    shown = legible(" ".join(text.split()))
    return shown if len(shown) <= MAX_PROMPT else shown[: MAX_PROMPT - 1] + "…"


def _whose(result: AttentionResult, views: Sequence[View]) -> str:
    if not result.compared:
        return ""
    if views[0].side == "difference":
        return "A minus B; 0 = no difference. Tokens are A's."
    return f"Of {' and '.join(SIDE_TITLES[view.side] for view in views)}."


def _masking(result: AttentionResult, view: View, metric: str | None = None) -> str:
    first = result.tokens[0]
    if not view.mask_first or metric in ("first_token", "effect"):
        return ""
    return (
        f"The first token ({token_label(0, first.visible)}) is masked: it is left out as a key, of the "
        "colour scale too, and the rest is not renormalised."
    )


def _outside(result: AttentionResult, heads: Sequence[tuple[int, int]], views: Sequence[View]) -> str:
    if not result.windowed:
        return ""
    start, end = result.window
    said = f"Tokens {start} to {end - 1} of {len(result.tokens):,} are shown."
    if start == 0:
        return said
    rest = [result.outsides(view.side)[layer, head] for layer, head in heads for view in views]
    low, high = min(float(row.min()) for row in rest), max(float(row.max()) for row in rest)
    return (
        f"{said} What the rows give to earlier keys is not drawn: {low:.3g} to {high:.3g} {result.unit} "
        "per row; the table has it for every query."
    )


def _view_record(views: Sequence[View]) -> dict[str, Any]:
    return {"sides": [view.side for view in views], "mask_first": views[0].mask_first}


def _figure(
    result: AttentionResult,
    title: str,
    spec: Mapping[str, Any],
    view: Mapping[str, Any],
    *,
    caption: str,
    how_to_read: str,
    description: str,
    frame: "Callable[[], pd.DataFrame]",
) -> Figure:
    second = tuple(f"second_{name}" for name in ARRAYS) if result.compared else ()
    return analysis_figure(
        result,
        analysis="attention",
        title=title,
        spec=spec,
        view=view,
        caption=caption,
        how_to_read=how_to_read,
        description=description,
        frame=frame,
        references=REFERENCES,
        function="attention_patterns",
        arrays=(*ARRAYS, *second),
    )
