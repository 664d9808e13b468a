"""Intervention on features: what does the model say when features are set, pushed, scaled or ablated?

    baseline = the model reads the prompt;  edited = the same pass, with delta_m[t] added where the transcoder
    writes:    delta_m[t] = sum over the edited features f at token t of (to_f - from_f) * W_dec_f,m
    effect   = edited - baseline;  KL(baseline || edited) = sum over the vocabulary of p log(p / p'), float64

from_f is what the encoder says once the edits of earlier layers act. The push is a difference of
activations, so whatever the transcoder does not explain of this prompt stays as it is. Three modes: nothing
frozen (what would really happen: attention and all later MLPs answer); attention patterns frozen; everything
frozen (patterns, norm scales, MLP outputs: the direct effects, which are the edges of an attribution graph).
The modes follow Ameisen et al. 2025, "Circuit Tracing" (transformer-circuits.pub/2025/attribution-graphs).

Cost: three forward passes (the third shows that nothing is left behind), one per further source layer of
edits that depend on the activation, encoding of the prompt twice for the other features, two continuations.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mi_core.analyses.before_after_run import check_edited, numbers_of, ranks_of, read_warnings, room
from mi_core.analyses.causal_trace_result import Step
from mi_core.answers import AnswerChoice, choose_answer
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.tokens import TokenizedPrompt, tokenize, visible_token
from mi_core.transcoders.encode import masked_positions
from mi_core.transcoders.feature_edits import FeatureEdit, parse_feature_edits
from mi_core.transcoders.feature_edits_compile import Compiled, compile_feature_edits
from mi_core.transcoders.feature_edits_read import activations_at
from mi_core.transcoders.inject_checks import inject_checks, inject_warnings
from mi_core.transcoders.inject_continue import continue_edited, continue_plainly
from mi_core.transcoders.inject_inputs import InjectInputs
from mi_core.transcoders.inject_numbers import chained, corpus_largest, push_norms, top_tokens
from mi_core.transcoders.inject_others import Others, nothing, other_features
from mi_core.transcoders.inject_passes import Looked, frozen_prior, look, push_frozen
from mi_core.transcoders.inject_result import InjectResult
from mi_core.transcoders.store import load_transcoder
from mi_core.transcoders.transcoder import Transcoder

OnStep = Callable[[Step], None]
STEPS = 6


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """The inputs, resolved on the model."""

    inputs: InjectInputs
    prompt: TokenizedPrompt
    transcoder: Transcoder
    edits: tuple[FeatureEdit, ...]
    compiled: Compiled
    answer: AnswerChoice | None
    distractor: AnswerChoice | None
    n_special: int

    @property
    def direct(self) -> bool:
        """Whether the edits go through the frozen linear pass."""
        return self.inputs.frozen == "everything"

    @property
    def pins(self) -> bool:
        """Whether attention patterns are put in place; then every pass takes the kernel that shows them."""
        return bool(frozen_prior(self.compiled))

    @property
    def shown(self) -> tuple[int, ...]:
        """Tokens that an effect can reach and that are not left out."""
        ids, first = self.prompt.ids, min(self.compiled.positions, default=0)
        masked = 0 if self.inputs.show_bos else self.n_special
        return tuple(range(max(first, masked), len(ids)))


def inject(model: LoadedModel, inputs: InjectInputs, *, on_step: OnStep | None = None) -> InjectResult:
    """Run a prompt without and with a list of edits of features.

    Args:
        model: the loaded model.
        inputs: prompt, list, what is frozen, tokens to follow.
        on_step: told between passes; may raise `Cancelled`, and then there is no result.

    Raises:
        InputError: the list cannot be read, or does not fit the transcoder or the prompt; the piece is named.
        TranscoderError: there is no such transcoder, or its decoders are not here.
        SiteMissing: the model does not have a site that is needed.
        OutOfMemory: the device is too small.
    """
    started, report = time.perf_counter(), on_step or (lambda step: None)
    report(Step(0, STEPS, None, None, "reads the prompt"))
    asked = _ask(model, inputs)
    report(Step(1, STEPS, None, None, "runs the baseline"))
    baseline = _baseline(model, asked)
    report(Step(2, STEPS, None, None, "runs the edits"))
    edited = _edited(model, asked, baseline)
    check_edited(edited.logits, "a value")
    report(Step(3, STEPS, None, None, "compares the other features"))
    others = _others(asked, baseline, edited)
    found = _found(asked, baseline, edited)
    again = _again(model, asked)
    continued = _continue(model, asked, report)
    return _result(model, asked, (baseline, edited, again), found, others, continued, started)


def _ask(model: LoadedModel, inputs: InjectInputs) -> _Asked:
    prompt = tokenize(model.tokenizer, inputs.prompt, bos=inputs.bos)
    transcoder = load_transcoder(model, inputs.transcoder)
    edits = parse_feature_edits(inputs.edits)
    compiled = compile_feature_edits(
        model, transcoder, prompt.ids, edits, frozen=inputs.frozen, show_bos=inputs.show_bos
    )
    answer, distractor = (
        None if text is None else choose_answer(model.tokenizer, prompt, text)
        for text in (inputs.answer, inputs.distractor)
    )
    special = len(masked_positions(model, prompt.ids))
    return _Asked(inputs, prompt, transcoder, edits, compiled, answer, distractor, special)


def _baseline(model: LoadedModel, asked: _Asked) -> Looked:
    return look(model, asked.transcoder, asked.prompt.ids, _layers(asked), (), patterns=asked.pins)


def _again(model: LoadedModel, asked: _Asked) -> Looked:
    """The baseline once more, with its own attention put in place where attention is frozen."""
    acting = frozen_prior(asked.compiled)
    return look(model, asked.transcoder, asked.prompt.ids, (), acting, patterns=asked.pins)


def _edited(model: LoadedModel, asked: _Asked, baseline: Looked) -> Looked:
    compiled, transcoder, ids = asked.compiled, asked.transcoder, asked.prompt.ids
    if not asked.edits:
        return look(model, transcoder, ids, (), (), patterns=asked.pins)
    if asked.direct:
        return push_frozen(model, transcoder, ids, compiled, baseline)
    return look(model, transcoder, ids, _layers(asked), compiled.edits, patterns=asked.pins)


def _layers(asked: _Asked) -> list[int]:
    """Source layers whose features can answer."""
    first = min((one.at.layer for one in asked.compiled.placed), default=asked.transcoder.n_layers)
    return [layer for layer in asked.transcoder.layers if layer >= first]


def _others(asked: _Asked, baseline: Looked, edited: Looked) -> Others:
    if not asked.edits or not asked.inputs.features:
        return nothing()
    known = {one.at for one in asked.compiled.placed}
    return other_features(
        asked.transcoder, baseline.read, edited.read, asked.shown, known, asked.inputs.features
    )


def _found(asked: _Asked, baseline: Looked, edited: Looked) -> np.ndarray:
    """[edited] activation that each edit found: in the edited run, with everything frozen in the baseline."""
    placed, found = asked.compiled.placed, np.zeros(len(asked.compiled.placed))
    seen = baseline if asked.direct else edited
    for layer in sorted({one.at.layer for one in placed}):
        members = [index for index, one in enumerate(placed) if one.at.layer == layer]
        at = [placed[index].at for index in members]
        found[members] = activations_at(asked.transcoder, layer, seen.read[layer], at)
    return found


def _continue(model: LoadedModel, asked: _Asked, report: OnStep) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Greedy continuations of both runs; none with everything frozen, or where nothing fits."""
    ids = asked.prompt.ids
    steps = 0 if asked.direct else room(model, len(ids), asked.inputs.continuation)
    if not steps:
        return (), ()

    def on_token(count: int) -> None:
        report(Step(5, STEPS, None, None, f"continues, token {count}"))

    baseline = continue_plainly(model, ids, steps, on_token)
    if not asked.edits:
        return baseline, baseline
    edited = continue_edited(model, asked.transcoder, ids, asked.edits, asked.compiled, steps, on_token)
    return baseline, edited


def _result(
    model: LoadedModel,
    asked: _Asked,
    passes: tuple[Looked, Looked, Looked],
    found: np.ndarray,
    others: Others,
    continued: tuple[tuple[int, ...], tuple[int, ...]],
    started: float,
) -> InjectResult:
    logits = torch.stack([passes[0].logits, passes[1].logits])
    # What an edit was sized for is what it found; a check compares it with the edited run.
    present = np.where(np.isnan(asked.compiled.present), found, asked.compiled.present)
    edited, pushed = _edited_fields(asked, present), push_norms(model, asked.prompt.ids, asked.compiled)
    top = top_tokens(logits, asked.inputs.top)
    shown = sorted({*top.tolist(), *continued[0], *continued[1]})
    warnings = inject_warnings(
        asked.inputs, asked.edits, asked.compiled, present, edited["activation_to"],
        edited["activation_largest"], pushed, asked.n_special,
    )  # fmt: skip
    return InjectResult(
        inputs=asked.inputs,
        provenance=Provenance.of(model),
        transcoder=asked.transcoder.name,
        fingerprint=asked.transcoder.fingerprint,
        tokens=asked.prompt.tokens,
        edits=tuple(edit.text for edit in asked.edits),
        **numbers_of(model, logits, asked.answer, asked.distractor),
        top_ids=top.numpy(),
        top_probabilities=logits.log_softmax(-1)[:, top].exp().numpy(),
        top_ranks=ranks_of(logits, top.tolist()),
        **edited,
        pushed_positions=_whole(asked.compiled.positions),
        pushed_layers=_whole(sorted(asked.compiled.deltas)),
        delta_norms=pushed[0],
        sum_norms=pushed[1],
        residual_norms=pushed[2],
        **_other_fields(others),
        baseline_ids=_whole(continued[0]),
        edited_ids=_whole(continued[1]),
        vocabulary={token: visible_token(model.tokenizer, token) for token in shown},
        n_layers=model.dims.n_layers,
        d_model=model.dims.d_model,
        warnings=(*read_warnings(asked.answer, asked.distractor), *warnings),
        checks=inject_checks(asked.inputs.frozen, asked.compiled, passes, found, model.dtype),
        seconds=time.perf_counter() - started,
    )


def _edited_fields(asked: _Asked, present: np.ndarray) -> dict[str, Any]:
    """The Result's fields of the edited activations; `present`: what each edit finds."""
    placed = asked.compiled.placed
    before, after = chained(asked.compiled, present)
    return {
        "edited_pieces": _whole(one.piece for one in placed),
        "edited_layers": _whole(one.at.layer for one in placed),
        "edited_positions": _whole(one.at.position for one in placed),
        "edited_features": _whole(one.at.index for one in placed),
        "activation_from": before,
        "activation_to": after,
        "activation_largest": corpus_largest(asked.transcoder, asked.compiled),
    }


def _other_fields(others: Others) -> dict[str, Any]:
    """The Result's fields of the features that were not edited."""
    return {
        "feature_layers": others.layers,
        "feature_positions": others.positions,
        "feature_indices": others.indices,
        "feature_activations": others.activations,
        "n_active": others.n_active,
        "n_switched": others.n_switched,
    }


def _whole(values: Iterable[int]) -> np.ndarray:
    return np.array(list(values), dtype=np.int64)
