"""Captions of averages of causal traces."""

from mi_core.analyses.causal_trace_average_types import CausalTraceAverageResult
from mi_core.analyses.causal_trace_inputs import METRICS
from mi_core.charts.text import legible, number
from mi_core.exports.captions import model_sentence, window_clause

_POOLING = {
    "tokens": "every token counts once",
    "prompts": "every prompt counts once, by the mean over its tokens of that role",
}


def average_caption(result: CausalTraceAverageResult, *, share: bool, lines: bool) -> str:
    """Caption of the role-by-layer heatmap (or of the lines)."""
    inputs = result.inputs
    unit = METRICS[inputs.metric].unit
    what = "share of the total effect" if share else f"average indirect effect (AIE) [{unit}]"
    parts = [
        f"Causal traces averaged over {result.n_prompts} prompts ({legible(inputs.set_name)}): {what} on "
        f"{METRICS[inputs.metric].label} of restoring one token of a role (row) at one layer"
        f"{window_clause(inputs.window, inputs.window_convention, inputs.kinds)}.",
        f"Effect = restored minus corrupted run, paired by prompt and noise, not clipped; "
        f"{_POOLING[inputs.pooling]}; n = prompts that have such a token.",
        _total(result),
        _corruption(result),
    ]
    if lines:
        parts.append(f"Bands: 95 % bootstrap over prompts ({inputs.resamples:,} resamples).")
    if result.skipped:
        wrong = sum(case.wrong for case in result.skipped)
        parts.append(
            f"{len(result.skipped)} of {result.n_prompts + len(result.skipped)} prompts left out, "
            f"{wrong} of them because the model does not get them right."
        )
    return " ".join([*parts, model_sentence(result.provenance)]).strip()


def _total(result: CausalTraceAverageResult) -> str:
    low, high = result.total_effect_interval()
    return (
        f"Average total effect (clean minus corrupted): {number(result.total_effect)} "
        f"(95 % {number(low)} to {number(high)})."
    )


def _corruption(result: CausalTraceAverageResult) -> str:
    inputs = result.inputs
    if inputs.corruption == "tokens":
        return "Corrupted run: each prompt's own corrupted prompt."
    unit = "standard deviations of the embeddings" if inputs.noise_unit == "sigma" else "embedding units"
    return (
        f"Corrupted run: {inputs.noise.capitalize()} noise of {inputs.noise_level:g} {unit} on the subject, "
        f"{inputs.samples} samples per prompt, seed {inputs.seed}."
    )
