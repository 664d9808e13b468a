"""What a user must know before looking at the figure, one plain sentence each, the gravest first."""

from collections.abc import Iterator

import torch

from mi_core.analyses.causal_trace_inputs import KIND_LABELS
from mi_core.analyses.causal_trace_prepare import Prepared
from mi_core.analyses.causal_trace_variants import window_layers
from mi_core.tokens import prompt_warnings, visible_token

WEAK_EFFECT = 0.05  # a total effect on the probability below this makes shares of it say little
HALF_PRECISION = {torch.bfloat16: 1e-2, torch.float16: 2e-3}  # rough error of a probability


def trace_warnings(prepared: Prepared) -> tuple[str, ...]:
    """All warnings that apply to a trace."""
    return tuple(
        [
            *_about_the_answer(prepared),
            *_about_the_corruption(prepared),
            *_about_the_window(prepared),
            *_about_several_tokens(prepared),
            *_about_precision(prepared),
            *prompt_warnings(prepared.pair.clean, prepared.model.tokenizer),
        ]
    )


def percent(probability: float) -> str:
    """A probability as people read it: 93 %, 0.4 %, 3e-05."""
    if 0 < probability < 0.001:
        return f"{probability:.0e}"
    return f"{100 * probability:.{0 if probability >= 0.095 else 1}f} %"


def _top(prepared: Prepared, reading_name: str) -> tuple[str, float]:
    reading = prepared.clean if reading_name == "clean" else prepared.corrupted
    token, probability = int(reading.top_ids[0]), float(reading.top_probabilities[0])
    return visible_token(prepared.model.tokenizer, token), probability


def _about_the_answer(prepared: Prepared) -> Iterator[str]:
    answer, clean = prepared.answer, prepared.clean
    if answer.chosen_by == "user" and clean.mean("rank") > 1:
        text, probability = _top(prepared, "clean")
        yield (
            f"The clean run does not give the answer: its top token is {text} ({percent(probability)}), and "
            f"{answer.visible[0]} has rank {clean.mean('rank'):.0f} ({percent(clean.mean('probability'))})."
        )


def _about_the_corruption(prepared: Prepared) -> Iterator[str]:
    answer = "".join(prepared.answer.visible)
    clean, corrupted = prepared.clean.mean("probability"), prepared.corrupted.mean("probability")
    still_top = float((prepared.corrupted.samples["rank"] == 1).mean())
    if prepared.inputs.corruption == "noise" and prepared.inputs.noise_level == 0:
        yield "The noise level is 0: the corrupted run is the clean run, and there is nothing to restore."
        return
    if corrupted > clean:
        yield (
            f"The corruption helps: P({answer}) rises from {percent(clean)} to {percent(corrupted)}, "
            "so shares of the effect are shares of a change for the better."
        )
    elif clean - corrupted < WEAK_EFFECT:
        yield (
            f"The corruption is weak: P({answer}) only falls from {percent(clean)} to {percent(corrupted)}. "
            "Look at differences rather than shares, or corrupt more."
        )
    if still_top > 0.5 and corrupted <= clean:
        yield (
            f"The corrupted run still answers {prepared.answer.visible[0]} in {percent(still_top)} of its "
            "samples."
            if prepared.inputs.corruption == "noise"
            else f"The corrupted prompt has the same top token, {prepared.answer.visible[0]}."
        )


def _about_the_window(prepared: Prepared) -> Iterator[str]:
    inputs, n_layers = prepared.inputs, prepared.shape.n_layers
    kinds = [KIND_LABELS[kind] for kind in inputs.kinds if kind in ("attn", "mlp")]
    if inputs.window == 1 or not kinds:
        return
    layers = range(n_layers)
    widest = max(len(window_layers(one, inputs.window, n_layers, inputs.window_convention)) for one in layers)
    if 2 * widest > n_layers:
        yield (
            f"A window of {inputs.window} layers covers up to {widest} of the model's {n_layers}: "
            f"{' and '.join(kinds)} cannot be told apart by layer."
        )


def _about_several_tokens(prepared: Prepared) -> Iterator[str]:
    answer, distractor = prepared.answer, prepared.distractor
    if len(answer.ids) > 1:
        yield (
            f"The answer has {len(answer.ids)} tokens ({' '.join(answer.visible)}): probability and "
            "log-probability are of all of them, given one after the other; logit, rank, KL and top tokens "
            "are of the first one only."
        )
    for name, tokens in (("answer", answer), ("distractor", distractor)):
        if tokens is not None and not tokens.joint:
            yield (
                f"Behind this prompt the tokenizer would merge the {name} with the prompt's end; "
                f"{' '.join(tokens.visible)} is put there as it is."
            )
    if distractor is not None and len(distractor.ids) > 1:
        yield f"Of the distractor only the first token, {distractor.visible[0]}, is compared."


def _about_precision(prepared: Prepared) -> Iterator[str]:
    error = HALF_PRECISION.get(prepared.model.dtype)
    if error is not None:
        name = str(prepared.model.dtype).removeprefix("torch.")
        yield (
            f"The model runs in {name}: probabilities carry an error of about {error:g}, "
            "so smaller effects mean nothing."
        )
