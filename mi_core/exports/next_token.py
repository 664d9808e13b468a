"""The figures of the next token: bars at one position, and the prompt coloured by surprise."""

import math
from typing import TYPE_CHECKING

from mi_core.analyses.next_token_result import NextTokenResult
from mi_core.charts import next_token as drawings
from mi_core.charts.text import legible, number, token_label
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.captions import model_sentence, quoted
from mi_core.exports.figure import Figure

if TYPE_CHECKING:
    import pandas as pd

NEXT_READING = (
    "What the model would say after the chosen token. Probability = softmax of the logits (every softcap and "
    "scale included), over the whole vocabulary. Rank 0 is the most probable token. Log-probability is "
    "natural, in nats. The temperature divides the logits before the softmax: below 1 the distribution gets "
    "sharper, above 1 flatter; ranks and logits do not change."
)
SURPRISE_READING = (
    "Surprise of a token = -log P(token | all tokens before it), in nats; 0 means that the model was certain "
    "of it, log(vocabulary size) that it had no idea. Divide by log 2 = 0.693 for bits. The mean over the "
    "tokens is the loss on this text; its exponential is the perplexity. Point at a token to see what was "
    "expected in its place. Always at temperature 1."
)


def next_token_figure(result: NextTokenResult) -> Figure:
    """The most probable next tokens."""
    token = result.tokens[result.position]
    shown, total = len(drawings.drawn_rows(result)), len(result.ids)
    heat = result.inputs.temperature
    parts = [
        f"Most probable tokens after token {token_label(token.position, token.visible)} of "
        f"{quoted(result.inputs.prompt)}; 0 = impossible, 1 = certain.",
        f"Number before each token: its rank from 0. Entropy of the distribution {number(result.entropy)} "
        "nats.",
        "" if heat == 1 else f"At temperature {heat:g}, not the model's own distribution.",
        f"{shown} of {total} rows are drawn; the table has all." if shown < total else "",
        model_sentence(result.provenance),
    ]
    return analysis_figure(
        result, analysis="next_token", title="Next token", spec=drawings.next_token_bars(result),
        view={"figure": "next", "position": result.position}, caption=" ".join(one for one in parts if one),
        how_to_read=NEXT_READING, description=drawings.describe_next(result),
        frame=lambda: part_table(result, "next token"), function="next_token",
        arrays=("logits", "log_probabilities"),
    )  # fmt: skip


def surprise_figure(result: NextTokenResult, *, chosen: int | None = None) -> Figure:
    """The prompt coloured by surprise; `chosen` is the position to outline."""
    predicted = len(result.tokens) - 1
    sums = (
        f"Total {number(result.total_surprise)} nats ({number(result.total_surprise / math.log(2))} bits) "
        f"over n = {predicted} predicted tokens, mean {number(result.mean_surprise)} nats, perplexity "
        f"{number(math.exp(min(700.0, result.mean_surprise)))}."
        if predicted
        else "A single token: nothing predicts it."
    )
    caption = (
        f"Surprise of every token of {quoted(result.inputs.prompt)}: -log P(token | tokens before it) in "
        f"nats; 0 = certain. The first token is grey: nothing predicts it. {sums} "
        f"{model_sentence(result.provenance)}"
    )
    return analysis_figure(
        result, analysis="next_token", title="Surprise of every token",
        spec=drawings.surprise_text(result, chosen=chosen), view={"figure": "surprise", "position": chosen},
        caption=legible(caption), how_to_read=SURPRISE_READING,
        description=drawings.describe_surprise(result),
        frame=lambda: part_table(result, "prompt", "alternative"), function="next_token",
        arrays=("token_log_probabilities", "entropies"),
    )  # fmt: skip


def top_table(result: NextTokenResult) -> "pd.DataFrame":
    """The table as people read it: one row per token, its numbers side by side."""
    import pandas as pd

    return pd.DataFrame(
        {
            "rank": result.ranks,
            "id": result.ids,
            "token": [result.visible(token_id) for token_id in result.ids.tolist()],
            "role": ["" if role == "top" else role for role in result.roles],
            "probability": result.probabilities,
            "log-probability [nats]": result.log_probabilities,
            "logit": result.logits,
        }
    )


def part_table(result: NextTokenResult, *parts: str) -> "pd.DataFrame":
    """The rows of the result's table that a figure shows; see `NextTokenResult.to_frame`."""
    import pandas as pd

    frame = result.to_frame()
    return pd.DataFrame(frame[frame["part"].isin(parts)]).reset_index(drop=True)
