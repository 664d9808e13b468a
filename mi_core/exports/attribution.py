"""The figures of a direct logit attribution: drawing, table, caption and recipe together, ready to leave."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mi_core.analyses.attribution_inputs import head_name
from mi_core.analyses.attribution_record import FLOAT_ARRAYS, INTEGER_ARRAYS
from mi_core.analyses.attribution_result import PROMPT_NAMES, AttributionResult
from mi_core.charts import attribution as charts
from mi_core.charts.attribution import Compare, quantity
from mi_core.charts.text import MINUS, legible, number
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.captions import model_sentence, quoted
from mi_core.exports.figure import Figure

if TYPE_CHECKING:
    import pandas as pd

REFERENCES = ("elhage2021mathematical", "nostalgebraist2020interpreting")

PARTS_READING = (
    "The state after the last block is a sum: the embedding, and what every attention and every MLP has "
    "added. The final norm is the only step between this sum and the logits that is not linear; with its "
    "scale held at the value that it has here, each part has a share of the logit of its own, and the shares "
    "add up to the logit. Blue parts speak for the target (or against the compared token), orange ones "
    "against it. A part shows only what it writes towards the answer directly, not what later layers make of "
    "it: a head that another head needs can have a bar of zero (Elhage et al., 2021)."
)
HEADS_READING = (
    "What each head writes, through the same frozen scale. The heads of a layer and its output bias add up "
    "to the layer's attention bar. Click a head to see which tokens it brings its share from."
)
SOURCES_READING = (
    "A head copies from the tokens that it attends to: its share is the sum over source tokens of attention "
    "weight times what the value there writes. Bias in the values is part of each token's share, as often as "
    "it is attended to; nothing is added twice."
)
NEURONS_READING = (
    "A neuron's share is its activation times what its output weights write towards the answer. The neurons "
    "that are not listed are summed in the table; all of them and the output bias add up to the MLP's bar."
)


def parts_figure(
    result: AttributionResult,
    *,
    waterfall: bool = False,
    compare: Compare = "both",
    chosen: int | None = None,
) -> Figure:
    """Bars or waterfall of all parts; arguments as in `charts.attribution.parts_chart`."""
    title = "From the embedding to the logit" if waterfall else "What each part contributes"
    how = (
        "Each bar begins where the sum so far ends; the last bar is the whole."
        if waterfall
        else "Bars: what each part adds; 0 = it adds nothing."
    )
    return _figure(
        result,
        title,
        charts.parts_chart(result, waterfall=waterfall, compare=compare, chosen=chosen),
        {"figure": "parts", "waterfall": waterfall, "compare": compare, "chosen": chosen},
        caption=[how, _compared(result, compare), _sum(result)],
        reading=PARTS_READING,
        description=charts.describe_parts(result, compare),
        levels=("part", "logit"),
    )


def heads_figure(result: AttributionResult, *, chosen: tuple[int, int] | None = None) -> Figure:
    """The map of heads; arguments as in `charts.attribution.head_map`."""
    bias = float(np.abs(result.attention_bias).max(initial=0))
    beside = f"Output biases belong to no head; the largest adds {number(bias)}." if bias else ""
    panels = ""
    if result.n_prompts > 1:
        panels = (
            f"Panels: the prompt, the control prompt {_control(result)}, and their difference, on one scale."
        )
    return _figure(
        result,
        "What each head contributes",
        charts.head_map(result, chosen=chosen),
        {"figure": "heads", "chosen": chosen and list(chosen)},
        caption=["Cells: heads (columns) by layer (rows); 0 = the head adds nothing.", panels, beside],
        reading=HEADS_READING,
        description=charts.describe_heads(result),
        levels=("head",),
    )


def sources_figure(
    result: AttributionResult, layer: int, head: int, *, prompt: int = 0, chosen: int | None = None
) -> Figure:
    """One head over source tokens; arguments as in `charts.attribution.source_text`."""
    name, whole = head_name(layer, head), float(result.heads[prompt, layer, head])
    where = f" in the control prompt {_control(result)}" if prompt else ""
    return _figure(
        result,
        f"Where {name} brings it from" + (", control prompt" if prompt else ""),
        charts.source_text(result, layer, head, prompt=prompt, chosen=chosen),
        {"figure": "sources", "head": [layer, head], "prompt": prompt, "chosen": chosen},
        caption=[f"Colour: what {name} brings from each token{where}; all tokens together {number(whole)}."],
        reading=SOURCES_READING,
        description=charts.describe_sources(result, layer, head, prompt),
        levels=("source",),
        only={"name": name, "prompt": PROMPT_NAMES[prompt]},
    )


def neurons_figure(
    result: AttributionResult, indices: Sequence[int], *, compare: Compare = "both", chosen: int | None = None
) -> Figure:
    """Bars of neurons; arguments as in `charts.attribution.neuron_bars`."""
    shown = len(indices)
    return _figure(
        result,
        "Neurons that contribute most",
        charts.neuron_bars(result, indices, compare=compare, chosen=chosen),
        {"figure": "neurons", "neurons": [result.neuron_name(i) for i in indices], "compare": compare},
        caption=[
            f"Bars: the {shown} MLP neurons with the largest contributions (of {result.inputs.top_neurons} "
            "per layer that the table lists), and those asked for; 0 = the neuron adds nothing.",
            _compared(result, compare),
        ],
        reading=NEURONS_READING,
        description=charts.describe_neurons(result, indices),
        levels=("neuron",),
    )


def attribution_table(
    result: AttributionResult, levels: Sequence[str], only: Mapping[str, str] | None = None
) -> "pd.DataFrame":
    """The rows of the result's table that a figure shows.

    Args:
        result: an attribution.
        levels: values of the column level.
        only: further columns and the values that they must have.
    """
    frame = result.to_frame()
    kept = frame["level"].isin(list(levels))
    for column, value in (only or {}).items():
        kept &= frame[column] == value
    return frame.loc[kept].dropna(axis="columns", how="all").reset_index(drop=True)


def _figure(
    result: AttributionResult,
    title: str,
    spec: Mapping[str, Any],
    view: Mapping[str, Any],
    *,
    caption: Sequence[str],
    reading: str,
    description: str,
    levels: Sequence[str],
    only: Mapping[str, str] | None = None,
) -> Figure:
    said = [_what(result), *caption, _family(result), model_sentence(result.provenance)]
    return analysis_figure(
        result,
        analysis="attribution",
        title=title,
        spec=spec,
        view=view,
        caption=" ".join(one for one in said if one),
        how_to_read=reading,
        description=description,
        frame=lambda: attribution_table(result, levels, only),
        references=REFERENCES,
        function="attribution",
        arrays=(*FLOAT_ARRAYS, *INTEGER_ARRAYS),
    )


def _what(result: AttributionResult) -> str:
    softcap = (
        "" if result.softcap is None else f", before the softcap of {result.softcap:g} that the model applies"
    )
    n = "1 prompt" if result.n_prompts == 1 else "2 prompts, each by itself"
    return (
        f"Direct logit attribution of {quoted(result.inputs.prompt)}: contributions to the "
        f"{legible(quantity(result))} at the last position [logits{softcap}], n = {n}, the final norm's "
        "scale frozen."
    )


def _compared(result: AttributionResult, compare: Compare) -> str:
    if result.n_prompts == 1:
        return ""
    if compare == "difference":
        return f"Bars are differences: the prompt's contribution minus that in {_control(result)}."
    return f"Full bars: the prompt; pale bars: the control prompt {_control(result)}, on the same scale."


def _control(result: AttributionResult) -> str:
    return quoted(result.inputs.control_prompt or "")


def _sum(result: AttributionResult) -> str:
    """The identity of the method, in numbers; by token it is among the checks."""
    where = "" if result.softcap is None else " before the softcap"
    said = []
    for prompt, (parts, whole) in enumerate(zip(result.values.sum(axis=1), result.total, strict=True)):
        name = f"{PROMPT_NAMES[prompt]}: " if result.n_prompts > 1 else ""
        said.append(f"{name}parts + biases = {parts:.5f}, {_whole(result)}{where} {whole:.5f}")
    text = "; ".join(said).replace("-", MINUS)
    return f"{text[0].upper()}{text[1:]}."


def _whole(result: AttributionResult) -> str:
    return "logit" if result.distractor is None else "logit difference"


def _family(result: AttributionResult) -> str:
    """What is special about this family."""
    notes = []
    if result.post_norms:
        notes.append("Attention and MLP outputs pass a norm of their own, whose scale is frozen too.")
    if result.parallel:
        notes.append("Attention and MLP of a block read the same stream.")
    return " ".join(notes)
