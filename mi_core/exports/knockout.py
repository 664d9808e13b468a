"""The figures of a knock-out, its before/after table for LaTeX, and its numbers under candle-mi's keys."""

import json
from collections.abc import Mapping
from typing import Any

from mi_core.analyses.knockout_result import KnockoutResult
from mi_core.charts import knockout as charts
from mi_core.charts.text import MINUS, legible, number
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.before_after import listed, rows_of_kinds
from mi_core.exports.captions import model_sentence, quoted
from mi_core.exports.figure import Figure

REFERENCES = ("geva2023dissecting", "wang2023interpretability")

CHANGED_READING = (
    "Each bar is a token of the vocabulary whose probability at the last position changed: edited minus "
    "baseline, blue where the edits raised it, orange where they lowered it. A part whose loss changes "
    "nothing may still matter: others can stand in for it. Zero is far from what a part usually writes, so "
    "zeroing also breaks what merely relies on its mean; mean and resample ask more gently."
)
ATTENTION_READING = (
    "Rows are queries, columns the tokens that they read; a row sums to 1. A cut edge is removed before the "
    "softmax, so its weight is exactly zero and the row still sums to 1; a row that lost all keys is zero. "
    "Heads of later layers change too, because what they read has changed."
)


def changed_figure(result: KnockoutResult) -> Figure:
    """The tokens whose probability changed most."""
    return _figure(
        result,
        "What it says instead",
        charts.changed_bars(result),
        {"figure": "changed"},
        caption=_caption(result, f"The {len(result.changed_ids)} tokens whose probability changes most")
        + f" Bars: {charts.CHANGE}; 0 = no change. KL(baseline || edited) = {number(result.kl)} nats.",
        reading=CHANGED_READING,
        description=charts.describe_changed(result),
        kinds=("token", "changed token"),
        arrays=("logits", "log_probabilities", "changed_probabilities"),
    )


def attention_figure(result: KnockoutResult, *, difference: bool = False) -> Figure:
    """Attention of the pinned heads before and after, or the difference."""
    start, end = result.window
    part = "" if start == 0 else f" Tokens {start} to {end - 1} of {len(result.tokens)} are shown."
    return _figure(
        result,
        f"Attention, edited {MINUS} baseline" if difference else "Attention before and after",
        charts.attention_squares(result, difference=difference),
        {"figure": "attention", "difference": difference},
        caption=_caption(result, f"Attention of {', '.join(result.inputs.pinned_heads)}")
        + " Share of the row; "
        + ("0 = no change." if difference else "0 = not read.")
        + part,
        reading=ATTENTION_READING,
        description=charts.describe_squares(result, difference=difference),
        kinds=("attention",),
        arrays=("patterns",),
    )


def _figure(
    result: KnockoutResult,
    title: str,
    spec: Mapping[str, Any],
    view: Mapping[str, Any],
    *,
    caption: str,
    reading: str,
    description: str,
    kinds: tuple[str, ...],
    arrays: tuple[str, ...],
) -> Figure:
    return analysis_figure(
        result,
        analysis="knockout",
        title=title,
        spec=spec,
        view=view,
        caption=f"{caption} {model_sentence(result.provenance)}",
        how_to_read=reading,
        description=description,
        frame=lambda: rows_of_kinds(result, kinds),
        references=REFERENCES,
        function="knockout",
        arrays=arrays,
    )


def _caption(result: KnockoutResult, what: str) -> str:
    short = listed(result.interventions, "no intervention")
    mean = (
        f"; means over {len(result.reference_prompts)} reference prompts" if result.reference_prompts else ""
    )
    return f"{what} behind {quoted(result.inputs.prompt)} (one prompt) with {short}{mean}."


# --- LaTeX ---

_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}", MINUS: "$-$",
    "\N{MIDDLE DOT}": r"\textperiodcentered{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def before_after_latex(result: KnockoutResult) -> str:
    """The before/after table as a LaTeX tabular (booktabs); every text is escaped."""
    lines = [
        f"% {_tex(_caption(result, 'Before and after'))}",
        r"\begin{tabular}{llrrrl}",
        r"\toprule",
        r"quantity & token & baseline & edited & edited $-$ baseline & unit \\",
        r"\midrule",
    ]
    for quantity, token, before, after, unit in result.rows():
        numbers = " & ".join(_tex_number(value) for value in (before, after, after - before))
        lines.append(f"{_tex(quantity)} & {_tex(token)} & {numbers} & {_tex(unit)} \\\\")
    lines.append(rf"KL(baseline \textbar{{}}\textbar{{}} edited) & & & & {_tex_number(result.kl)} & nats \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in legible(text).replace("\n", " "))


def _tex_number(value: float) -> str:
    return f"${number(value).replace(MINUS, '-')}$"


def candle_mi_json(result: KnockoutResult) -> str:
    """The result under candle-mi's keys.

    Raises:
        InputError: the list is not one that these keys can describe.
    """
    return json.dumps(result.to_candle_mi(), allow_nan=False, ensure_ascii=False, indent=2)
