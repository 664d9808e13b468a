"""Captions of the logit lens and of the prediction sweep, and how to read their figures."""

from mi_core.analyses.logit_lens_inputs import STATISTIC_INFO, Statistic
from mi_core.analyses.logit_lens_result import PLAIN, LogitLensResult
from mi_core.analyses.logit_lens_steps_result import SERIAL, LogitLensStepsResult
from mi_core.analyses.prediction_sweep_result import PredictionSweepResult
from mi_core.charts.logit_lens import LOW_IS_BRIGHT, lens_scale
from mi_core.charts.logit_lens_lines import MEASURES, Measure
from mi_core.charts.text import legible, number, token_label
from mi_core.exports.captions import model_sentence, quoted

GRID = (
    "Each cell asks: if the model stopped at this layer, what would it say next? The vector at that layer"
    " and token goes through the model's own final norm, unembedding and softcaps (nostalgebraist, 2020)."
    " The cell shows the most probable token. Reading down a column you see a prediction form. The last "
    "row of the stream is the model's output itself. A lens that says nothing sensible in early layers "
    "does not prove that nothing is there: these layers need not speak the language of the last one "
    "(Belrose et al., 2023)."
)
WORDS = (
    "The same lens, followed for a few tokens at one position. Rank 1 is the top token; tied tokens share "
    "the best rank. The axis of ranks is logarithmic and has 1 on top, so up is always better."
)
CELL = (
    "The most probable tokens of one cell. Point at a bar to see how probable the model itself finds that"
    " token in the end."
)
STEPS = (
    "The lens is read after every attention and every MLP. A point is the change of the target's log-"
    "probability by that component alone: above zero it makes the target more probable. The final norm "
    "and the softmax are taken anew each time, so these are changes of what the lens says, not direct "
    "contributions to the logit (those are on the page Attribution)."
)
SWEEP = (
    "Every column is one prompt, read by the logit lens at its last token; the cell shows the layer's top"
    " token. A black disc marks the layer at which the right answer first is on top, a white dot the "
    "layer from which on it stays there. Answers that the last layer does not give never stabilise."
)
DEPTH = (
    "Crystallisation depth = layer from which on the right answer is the top token, divided by the number"
    " of layers: the share of blocks that lie before that one. 0 = the first block is enough; a prompt "
    "that the model gets wrong has no depth and is counted in the caption."
)


def grid_caption(result: LogitLensResult, statistic: Statistic) -> str:
    """Caption of the grid."""
    info = STATISTIC_INFO[statistic]
    end = "low values are bright" if statistic in LOW_IS_BRIGHT else "high values are bright"
    return " ".join([
        f"{_lens(result)} of {quoted(result.inputs.prompt)}: {result.inputs.site} of "
        f"{len(result.layers)} of {result.n_layers} layers (rows) at {_shown(result)} (columns). "
        "Text: the top token.",
        f"Colour: {legible(lens_scale(result, statistic).heading)}, {end}. {info.meaning}{_next(result)}",
        model_sentence(result.provenance),
    ]).strip()  # fmt: skip


def words_caption(result: LogitLensResult, position: int, measure: Measure) -> str:
    """Caption of the lines of followed tokens."""
    title, unit = MEASURES[measure]
    shown = f"{title} [{unit}]" if unit else title
    return " ".join([
        f"{_lens(result)} of {quoted(result.inputs.prompt)} at token {_token(result, position)}, "
        f"{result.inputs.site}: {shown} of {len(result.words)} token{'s' if len(result.words) > 1 else ''} "
        f"over {len(result.layers)} layers.",
        model_sentence(result.provenance),
    ]).strip()  # fmt: skip


def cell_caption(result: LogitLensResult, layer: int, position: int) -> str:
    """Caption of one cell's top tokens."""
    row, column = result.row_of(layer), result.column_of(position)
    target = result.visible(int(result.target_ids[column]))
    share = number(float(result.statistic("probability")[row, column]))
    return " ".join([
        f"{_lens(result)} of {quoted(result.inputs.prompt)}: {result.inputs.site} of layer {layer} at token "
        f"{_token(result, position)}, top {result.top_ids.shape[-1]} tokens [probability].",
        f"{target} has rank {int(result.rank[row, column])} and probability {share}; KL(final || lens) is "
        f"{number(float(result.kl[row, column]))} nats, entropy "
        f"{number(float(result.entropy[row, column]))} nats.",
        model_sentence(result.provenance),
    ]).strip()  # fmt: skip


def steps_caption(result: LogitLensStepsResult, first_layer: int = 0) -> str:
    """Caption of the changes by component."""
    start, end = (number(float(result.log_probability[at, 0])) for at in (0, -1))
    token = token_label(result.position, result.tokens[result.position].visible)
    drawn = f" Drawn from layer {first_layer} on." if first_layer else ""
    what = "attention and MLP" if result.components == SERIAL else "whole (parallel) block"
    return " ".join([
        f"Change of log P({result.words[0].visible}) [nats] by each {what}, read by the logit lens at token "
        f"{token} of {quoted(result.inputs.prompt)}; 0 = no change. All changes together lead from {start} "
        f"(embedding) to {end} nats (the model's output).{drawn}",
        model_sentence(result.provenance),
    ]).strip()  # fmt: skip


def sweep_caption(result: PredictionSweepResult, columns: range) -> str:
    """Caption of the sweep's grid."""
    return " ".join([
        f"Logit lens ({result.inputs.site}) at the last token of {len(columns)} of {result.n_prompts} "
        f"prompts ({legible(result.inputs.set_name)}). Text: the layer's top token; colour: probability of "
        "the right answer's first token, 0 to 1. Black disc: the right answer first is the top token; white "
        "dot: from here on it stays.",
        counts_sentence(result),
        model_sentence(result.provenance),
    ]).strip()  # fmt: skip


def depth_caption(result: PredictionSweepResult) -> str:
    """Caption of the histogram."""
    median = number(result.median_depth())
    return " ".join([
        f"Crystallisation depth of {result.n_stable} prompts ({legible(result.inputs.set_name)}, "
        f"{result.inputs.site}, {result.n_layers} layers): median {median}, one bin per layer.",
        counts_sentence(result),
        model_sentence(result.provenance),
    ]).strip()  # fmt: skip


def counts_sentence(result: PredictionSweepResult) -> str:
    """How many prompts stabilise, are lost, never appear, or could not be read."""
    left = f"; {len(result.left_out)} could not be read" if result.left_out else ""
    return (
        f"Of {result.n_prompts} right answers {result.n_stable} stabilise, {result.n_lost} appear in some "
        f"layer but not in the last, {result.n_never} never appear{left}."
    )


def _lens(result: LogitLensResult) -> str:
    return "Logit lens" if result.lens == PLAIN else f"Tuned lens {legible(result.lens)}"


def _shown(result: LogitLensResult) -> str:
    n, total = len(result.positions), len(result.tokens)
    if n == total:
        return f"all {total} tokens"
    return f"{n} of {total} tokens ({result.positions[0]} to {result.positions[-1]})"


def _next(result: LogitLensResult) -> str:
    if result.inputs.target == "answer":
        return ""
    return f" Target of a column: the token that comes next; {result.answer.visible} at the last one."


def _token(result: LogitLensResult, position: int) -> str:
    return token_label(position, result.tokens[position].visible)
