"""The figure of the copying scores, ready to leave."""

from mi_core.analyses.copying_scores_result import ARRAYS, CopyingScoresResult
from mi_core.charts import copying_scores as charts
from mi_core.charts.text import number
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.captions import model_sentence
from mi_core.exports.figure import Figure

HOW_TO_READ = (
    "If a head reads a token, does it raise the logit of the same token? The head's full OV circuit W_E "
    "W_V W_O W_U is a table from tokens to logits; its eigenvalues say what comes back as itself. Copying "
    "score = sum of the real parts of the eigenvalues / sum of their absolute values: +1 (blue) = all of "
    "them positive, the head raises what it reads; \u22121 (orange) = it lowers what it reads; weights "
    "that know nothing of each other give values near 0 (Elhage et al., 2021). The gains of the norms "
    "around the head are in the weights; their scales, biases, position embeddings and MLPs are left out. "
    "From layer 1 on heads read more than token embeddings, so the score says what a head would do with "
    "the bare token: a head that copies what MLPs have made of a token need not show here. It also says "
    "nothing about strength: compare the sum of |eigenvalues| in the table."
)


def copying_figure(result: CopyingScoresResult, *, chosen: tuple[int, int] | None = None) -> Figure:
    """Copying scores of all heads; arguments as in `charts.copying_scores.copying_heatmap`."""
    return analysis_figure(
        result,
        analysis="copying_scores",
        title="Heads that copy",
        spec=charts.copying_heatmap(result, chosen=chosen),
        view={"figure": "copying", "chosen": None if chosen is None else list(chosen)},
        caption=copying_caption(result),
        how_to_read=HOW_TO_READ,
        description=charts.describe_copying(result),
        frame=result.to_frame,
        references=("elhage2021mathematical",),
        function="copying_scores",
        arrays=ARRAYS,
    )


def copying_caption(result: CopyingScoresResult) -> str:
    """Caption of the heatmap."""
    known = result.scores[result.scores == result.scores]
    range_ = (
        f" They lie between {number(float(known.min()))} and {number(float(known.max()))}."
        if known.size
        else ""
    )
    return " ".join([
        f"Copying score of every head (n = {known.size}): sum of the real parts of the eigenvalues of its "
        "full OV circuit W_E W_V W_O W_U over the sum of their absolute values; no unit. 0 = neither "
        f"raises nor lowers what it reads.{range_}",
        "From the weights alone, norm gains folded in; no prompt, no biases, no position embeddings, no "
        "MLPs.",
        model_sentence(result.provenance),
    ]).strip()  # fmt: skip
