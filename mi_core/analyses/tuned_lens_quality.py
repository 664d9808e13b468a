"""How good a tuned lens is: bands, warnings, checks, and the result put together."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.shares import bootstrap_weights, percentile_band, ratio
from mi_core.analyses.tuned_lens import LensOrigin, TunedLens
from mi_core.analyses.tuned_lens_inputs import TunedLensTrainInputs
from mi_core.analyses.tuned_lens_measure import measure, states_of
from mi_core.analyses.tuned_lens_origin import unembed_hash
from mi_core.analyses.tuned_lens_result import PER_LAYER, TextCounts, TunedLensTrainResult
from mi_core.analyses.tuned_lens_text import Context, Split, count_tokens
from mi_core.engine import run, unembed
from mi_core.metrics import log_probabilities
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance

RESAMPLES = 2000
FEW_CONTEXTS = 20  # below this a bootstrap band is a rough guess
MANY_ROUNDS = 20  # above this a short text is likely to be learnt by heart

TAIL_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3, torch.bfloat16: 0.3, torch.float16: 0.1}
"""Log-probabilities of two ways through the model's tail, in nats; a whole pass sums in another order."""


@dataclass(frozen=True, slots=True, eq=False)
class Quality:
    """KL per layer on the validation text: the arrays of `TunedLensTrainResult`, by name."""

    arrays: dict[str, Float[np.ndarray, "layer"]]


def quality_of(
    contexts: tuple[Context, ...],
    plain: Float[np.ndarray, "context layer"],
    tuned: Float[np.ndarray, "context layer"],
    seed: int,
) -> Quality:
    """Means per token and 95 % bands over contexts.

    Tokens of one context are no independent draws, so whole contexts are resampled; the gain's band comes
    from the same resamples of both lenses.

    Args:
        contexts: that were read.
        plain: sums of KL over the tokens of each context.
        tuned: the same of the tuned lens.
        seed: of the resamples.
    """
    counts = np.array([context.n_counted for context in contexts], float)
    weights = bootstrap_weights(len(contexts), RESAMPLES, seed)
    bottom = (weights @ counts)[:, None]
    arrays = {}
    for name, sums in (("plain", plain), ("tuned", tuned), ("gain", plain - tuned)):
        low, high = percentile_band(ratio(weights @ sums, bottom))
        value = name if name == "gain" else f"{name}_kl"
        arrays |= {value: sums.sum(0) / counts.sum(), f"{name}_low": low, f"{name}_high": high}
    return Quality({name: arrays[name] for name in PER_LAYER})


def finished_result(
    model: LoadedModel,
    inputs: TunedLensTrainInputs,
    *,
    lens: TunedLens,
    quality: Quality,
    split: Split,
    course: tuple[np.ndarray, list[int], np.ndarray],
    best_step: Int[np.ndarray, "layer"],
    seen_tokens: int,
    start: TunedLens,
    early: bool,
    cancelled: bool,
    seconds: float,
) -> TunedLensTrainResult:
    """The result with its warnings and checks, and the lens with its own story.

    Args:
        model: the model.
        inputs: what was asked for.
        lens: the translators that were kept.
        quality: on the validation text.
        split: the text.
        course: loss per step, checked steps, KL on the stopping text at these.
        best_step: per layer.
        seen_tokens: learnt from.
        start: the lens that the training began with.
        early: whether it ended before its last step.
        cancelled: whether the user stopped it.
        seconds: duration.
    """
    counts = TextCounts(
        count_tokens(split.training), len(split.training),
        count_tokens(split.stopping), len(split.stopping),
        count_tokens(split.validation), len(split.validation), seen_tokens,
    )  # fmt: skip
    loss, checked, stopping = course
    arrays: dict[str, Any] = dict(quality.arrays)
    result = TunedLensTrainResult(
        inputs=inputs,
        provenance=Provenance.of(model, seed=inputs.seed),
        n_layers=lens.n_layers,
        loss=loss,
        checked_steps=np.array(checked, np.int64),
        stopping_kl=stopping,
        best_step=best_step,
        **arrays,
        counts=counts,
        fingerprint=lens.fingerprint,
        checks=tuple(_checks(model, split)),
        warnings=_warnings(inputs, split, counts, quality, start, early=early, cancelled=cancelled),
        seconds=seconds,
        cancelled=cancelled,
        lens=None,
    )
    return _with_lens(model, result, lens)


def _with_lens(model: LoadedModel, result: TunedLensTrainResult, lens: TunedLens) -> TunedLensTrainResult:
    """The result, and in it the lens that knows its model, its training and its quality."""
    spec = model.spec
    origin = LensOrigin(
        base_model=getattr(spec, "name", "") or type(model.hf).__name__,
        revision=getattr(spec, "revision", None),
        unembed_hash=unembed_hash(model),
        fingerprint=model.fingerprint,
        training=_story(result),
    )
    return replace(result, lens=replace(lens, origin=origin))


def _story(result: TunedLensTrainResult) -> dict[str, Any]:
    """What the lens' config.json says about its making: plain JSON values, no text of the user's."""
    inputs = result.inputs
    settings = {name: value for name, value in inputs.to_dict().items() if name != "texts"}
    kept = {name: [round(float(v), 6) for v in getattr(result, name)] for name in ("plain_kl", "tuned_kl")}
    return {
        "version": 1,
        "made_with": result.provenance.lantern_version if result.provenance else "",
        "created": result.provenance.created if result.provenance else "",
        "dtype": result.provenance.dtype if result.provenance else "",
        "text_sha256": inputs.text_digest,
        "settings": settings,
        "counts": asdict(result.counts),
        "best_step": result.best_step.tolist(),
        "stopped_early_by_user": result.cancelled,
        "validation": {"unit": "nats per token, KL(model || lens)", **kept},
    }


def _warnings(
    inputs: TunedLensTrainInputs,
    split: Split,
    counts: TextCounts,
    quality: Quality,
    start: TunedLens,
    *,
    early: bool,
    cancelled: bool,
) -> tuple[str, ...]:
    warnings = list(start.warnings)
    worse = np.flatnonzero(quality.arrays["gain"] < 0).tolist()
    if worse:
        names = ", ".join(str(layer) for layer in worse[:12]) + (" ..." if len(worse) > 12 else "")
        warnings.append(
            f"The tuned lens is worse than the plain lens on the validation text at layer"
            f"{'s' if len(worse) > 1 else ''} {names}: read the plain lens there."
        )
    if cancelled:
        warnings.append("The training was stopped; the best translators until then were kept.")
    elif early:
        warnings.append("The training ended early: the held-out text showed no more progress.")
    if counts.validation_contexts < FEW_CONTEXTS:
        warnings.append(
            f"The quality was measured on {counts.validation_contexts} contexts: its bands are rough."
        )
    if inputs.steps and counts.rounds > MANY_ROUNDS:
        warnings.append(
            f"The text is short: it was read {counts.rounds:.0f} times, so the lens may fit it too closely."
        )
    if not split.whole_documents:
        warnings.append(
            "The text has fewer than ten documents, so the held-out parts come from documents that were "
            "trained on elsewhere."
        )
    return tuple(warnings)


def _checks(model: LoadedModel, split: Split) -> list[Check]:
    """Identities on the very text that was measured."""
    shared = len(set(split.validation) & set(split.training)) + len(
        set(split.validation) & set(split.stopping)
    )
    batch = split.validation[:1]
    dims = model.dims
    zeros = torch.zeros(dims.n_layers, dims.d_model, dims.d_model, device=model.device)
    with_zeros = measure(model, zeros, zeros[:, 0], batch, 1, lambda: None)
    without = measure(model, None, None, batch, 1, lambda: None)
    gap, bound = _tail_gap(model, batch[0]), TAIL_TOLERANCE[model.dtype]
    return [
        Check(
            "validation text was not trained on",
            shared == 0,
            f"{shared} of {len(split.validation)} validation contexts occur in the other two parts.",
        ),
        Check(
            "zero translators are the plain lens",
            bool((with_zeros == without).all()),
            f"KL sums differ by {float(np.abs(with_zeros - without).max()):.1e} nats.",
        ),
        Check(
            "the lens at the last residual is the model's output",
            gap <= bound,
            f"log-probabilities differ by at most {gap:.1e} nats (allowed: {bound:.0e}).",
        ),
    ]


def _tail_gap(model: LoadedModel, context: Context) -> float:
    """Largest difference between the model's own log-probabilities and the lens at its last residual."""
    own = log_probabilities(run(model, torch.tensor([context.ids])).logits[0, context.skipped :])
    read = log_probabilities(unembed(model, states_of(model, [context]).last))
    return float((own.to(read.device) - read).abs().max())
