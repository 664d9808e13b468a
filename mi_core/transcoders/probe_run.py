"""The probe of one layer: which of its features are active at every token, and what injecting one there does.

    n_active[p]  = number of features with an activation above 0          top[p] = the strongest of them
    Jaccard      = |top[first] and top[last]| / |top[first] or top[last]|
    l2[p]        = || logits(y_m[p] += s W_dec[f, m] for every target layer m) - logits ||  at the last token
    concentration ratio = l2[last] / upper median over p of l2[p]

The same numbers, under the same names, as the position sweep of candle-mi (`probe_files`), by our own hooks.
An injection at the last token reaches its logits through the residual stream alone; at an earlier token only
attention can carry it there. A large ratio is therefore no sign of planning.
Cost: one forward pass, shared with all pages, one sweep with one variant per token, and one whole pass.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.neuron_texts import context_of
from mi_core.engine import Base, Edit, Variant, run, sweep
from mi_core.errors import TranscoderError
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.tokens import TokenizedPrompt, prompt_warnings, tokenize
from mi_core.transcoders.encode import TOKENS_AT_ONCE, encode_layer, masked_positions, read_values
from mi_core.transcoders.probe_inputs import CltProbeInputs
from mi_core.transcoders.probe_result import CltProbeResult
from mi_core.transcoders.prompt_label import TranscoderLabel
from mi_core.transcoders.store import load_transcoder
from mi_core.transcoders.transcoder import Transcoder

OnStep = Callable[[Step[CltProbeResult]], None]
NEAR = {torch.float64: 1e-8, torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 2e-1}
"""Largest relative difference between a sweep and a whole pass that rounding explains."""
ROUNDINGS = 10
"""Changes of the logits up to so many rounding units of their length are not told from rounding."""


def clt_probe(model: LoadedModel, inputs: CltProbeInputs, *, on_step: OnStep | None = None) -> CltProbeResult:
    """Read the features of one layer at every token, and inject one at every token in turn.

    Args:
        model: a loaded model.
        inputs: prompt, transcoder, layer, feature, strength.
        on_step: told of progress; may raise `Cancelled` to stop.

    Returns:
        The whole result; after `Cancelled` in the sweep, what was done until then (`result.cancelled`).

    Raises:
        InputError: the prompt cannot be read, or the transcoder has no such layer or feature.
        TranscoderError: there is no such transcoder, or its files cannot be read. With the encoders alone
            nothing is injected, which a warning says.
        SiteMissing: the model does not have what the transcoder reads or writes.
        OutOfMemory: the device is too small.
    """
    tell = on_step or (lambda step: None)
    tell(Step(0, 2, None, None, "features"))
    transcoder = load_transcoder(model, inputs.transcoder)
    layer = transcoder.layers[len(transcoder.layers) // 2] if inputs.layer is None else inputs.layer
    transcoder.check(layer, inputs.feature or 0)
    prompt = tokenize(model.tokenizer, inputs.prompt, bos=inputs.bos, limit=context_of(model))
    ranks = min(inputs.top, transcoder.n_features[layer])
    active = _active(model, transcoder, layer, prompt, ranks)
    made = _read(model, transcoder, inputs, layer, prompt, active)
    if made.feature is None:
        return made
    if inputs.strength == 0:  # nothing is added: no run, and no rounding that would make a ratio
        return replace(made, l2=np.zeros(len(made)))
    try:
        return _injected(model, transcoder, made, tell)
    except TranscoderError as error:
        if error.kind != "no_decoder":
            raise
        return replace(made, warnings=(*made.warnings, f"Nothing was injected. {error}"))


@dataclass(frozen=True, slots=True, eq=False)
class _Active:
    """The active features of one layer.

    Attributes:
        counts: how many at every token.
        top: numbers of the strongest, of equal ones the first; -1 where no more are active.
        values: their activations; NaN where no more are active.
        last: activations of all features at the last token.
    """

    counts: Int[np.ndarray, " pos"]
    top: Int[np.ndarray, "pos rank"]
    values: Float[np.ndarray, "pos rank"]
    last: Float[np.ndarray, " feature"]


def _active(
    model: LoadedModel, transcoder: Transcoder, layer: int, prompt: TokenizedPrompt, ranks: int
) -> _Active:
    """All tokens, BOS included; dense numbers are held for a few tokens only."""
    x = read_values(model, transcoder, prompt.ids)[transcoder.layers.index(layer)]
    n_pos = len(prompt)
    counts = np.zeros(n_pos, np.int64)
    top = np.full((n_pos, ranks), -1, np.int64)
    values = np.full((n_pos, ranks), np.nan, np.float32)
    last = np.zeros(transcoder.n_features[layer], np.float32)
    for start in range(0, n_pos, TOKENS_AT_ONCE):
        dense = encode_layer(transcoder, layer, x[start : start + TOKENS_AT_ONCE]).cpu().numpy()
        for position, row in enumerate(dense, start):
            found = np.flatnonzero(row > 0)
            order = found[np.argsort(-row[found], kind="stable")[:ranks]]
            counts[position] = len(found)
            top[position, : len(order)], values[position, : len(order)] = order, row[order]
        last = dense[-1]
    return _Active(counts, top, values, last)


def _read(
    model: LoadedModel,
    transcoder: Transcoder,
    inputs: CltProbeInputs,
    layer: int,
    prompt: TokenizedPrompt,
    active: _Active,
) -> CltProbeResult:
    """Everything but the injection."""
    feature = inputs.feature
    if feature is None and active.counts[-1]:
        feature = int(active.top[-1, 0])
    provenance = Provenance.of(model)
    return CltProbeResult(
        inputs=inputs,
        provenance=provenance,
        model_name=provenance.model,
        transcoder=TranscoderLabel.of(transcoder),
        layer=layer,
        token_ids=prompt.ids,
        tokens=tuple(token.visible for token in prompt.tokens),
        texts=tuple(model.tokenizer.decode([token]) for token in prompt.ids),
        masked=masked_positions(model, prompt.ids),
        n_active=active.counts,
        top_features=active.top,
        top_activations=active.values,
        feature=feature,
        activation=0.0 if feature is None else float(active.last[feature]),
        l2=np.full(len(prompt), np.nan),
        warnings=tuple(_warnings(transcoder, layer, feature, prompt, model)),
    )


def _warnings(
    transcoder: Transcoder, layer: int, feature: int | None, prompt: TokenizedPrompt, model: LoadedModel
) -> list[str]:
    said = [*transcoder.warnings, *prompt_warnings(prompt, model.tokenizer)]
    if feature is None:
        said.append(
            f"No feature of layer {layer} is active at the last token, so none was injected; "
            "choose one by its number."
        )
    return said


def injection(
    transcoder: Transcoder, layer: int, rows: Float[Tensor, "target d_model"], position: int, strength: float
) -> tuple[Edit, ...]:
    """Edits that add a feature's decoder rows, `strength` times, at one token and every target layer."""
    return tuple(
        Edit(transcoder.writes.site, target, "add", (position,), value=strength * row)
        for target, row in zip(transcoder.targets(layer), rows, strict=True)
    )


def _injected(
    model: LoadedModel, transcoder: Transcoder, made: CltProbeResult, tell: OnStep
) -> CltProbeResult:
    """The result with the change of the logits by an injection at every token in turn."""
    feature, strength = torch.tensor([made.feature]), made.inputs.strength
    rows = transcoder.rows(made.layer, feature)[0].cpu().double()
    variants = [
        Variant(injection(transcoder, made.layer, rows, position, strength)) for position in range(len(made))
    ]
    base = Base(torch.tensor([made.token_ids]))
    clean = sweep(model, base, (), read=lambda logits: {"logits": logits[:, 0, -1].double()}).base
    start = torch.from_numpy(clean["logits"][0]).to(model.device)

    def moved(logits: Float[Tensor, "variant row read vocab"]) -> dict[str, Tensor]:
        return {"l2": (logits[:, 0, -1].double() - start).norm(dim=-1)}

    def tick(share: float) -> None:
        tell(Step(int(share * len(variants)), len(variants), None, None, "injections"))

    tick(0.0)
    found = sweep(model, base, variants, read=moved, on_tick=tick)
    l2 = np.where(found.done, found.values["l2"].astype(float), np.nan)
    checks = () if found.cancelled else (_whole(model, base, variants, start, l2), _nothing(found.base))
    done = replace(made, l2=l2, checks=checks, cancelled=found.cancelled)
    rounding = ROUNDINGS * torch.finfo(model.dtype).eps * float(start.norm())
    if done.has_injection and done.median_l2 <= rounding:
        said = (
            f"Injected at half of the tokens, the feature moves the logits by no more than rounding does "
            f"({rounding:.1e}): the concentration ratio and the ranks of these tokens mean nothing."
        )
        done = replace(done, warnings=(*done.warnings, said))
    return done


def _whole(
    model: LoadedModel, base: Base, variants: list[Variant], start: Tensor, l2: Float[np.ndarray, " pos"]
) -> Check:
    """The largest change once more, as a whole forward pass."""
    position = int(l2.argmax())
    logits = run(model, base.tokens, edits=variants[position].edits, last=1).logits[0, -1].double()
    again = float((logits - start).norm())
    off = abs(again - float(l2[position])) / max(float(start.norm()), 1e-30)
    detail = f"position {position}: {l2[position]:.6g} and {again:.6g} logits, off by {off:.1e} of the logits"
    return Check("the largest change equals a whole forward pass", off <= NEAR[model.dtype], detail)


def _nothing(base: dict[str, np.ndarray]) -> Check:
    """The run without an injection, read in the same way."""
    left = float(base["l2"][0])
    return Check("no injection changes nothing", left == 0.0, f"without it the logits move by {left:.1e}")
