"""The numbers of one prompt: its patterns as they are to be shown, and its numbers per head, as numpy."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.attention_inputs import AttentionInputs
from mi_core.analyses.attention_look import Looked, look
from mi_core.analyses.attention_weighing import (
    contributions,
    head_contributions,
    head_directions,
    moved_norms,
)
from mi_core.analyses.causal_trace_parts import AnswerTokens
from mi_core.answers import answer_warnings, choose_answer
from mi_core.engine import readout, unembed
from mi_core.errors import InputError, ModelError, SiteMissing
from mi_core.model.model import LoadedModel
from mi_core.model.weights import weight
from mi_core.tokens import TokenizedPrompt, visible_token


@dataclass(frozen=True, slots=True)
class Target:
    """Which logit, or difference of two, is read.

    Attributes:
        answer: the target; its first token counts.
        distractor: what is subtracted, or None.
        warnings: what is doubtful about them.
    """

    answer: AnswerTokens
    distractor: AnswerTokens | None
    warnings: tuple[str, ...] = ()

    @property
    def ids(self) -> list[int]:
        """The one or two token ids that are read."""
        return [text.ids[0] for text in (self.answer, self.distractor) if text is not None]


@dataclass(frozen=True, slots=True, eq=False)
class SideNumbers:
    """One prompt.

    Attributes:
        values, outside, metrics, masked_metrics: see `AttentionResult`.
        target: what is read; None where the logits cannot be read.
        warnings: sentences.
        row_error: largest distance of a row's sum from 1.
        future: largest weight on a later token.
        sum_error: largest gap between the sum over keys and the head's own contribution, relative to the
            largest; NaN where it was not computed.
        norm_slack: smallest of (sum of the moved norms - norm of their sum), relative; NaN likewise.
        read_error: error of the frozen way to the logits; NaN likewise.
    """

    values: Float[np.ndarray, "layer head query key"]
    outside: Float[np.ndarray, "layer head query"]
    metrics: Float[np.ndarray, "metric layer head"]
    masked_metrics: Float[np.ndarray, "metric layer head"]
    target: Target | None
    warnings: tuple[str, ...]
    row_error: float
    future: float
    sum_error: float
    norm_slack: float
    read_error: float

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by their names in the result."""
        return {name: getattr(self, name) for name in ("values", "outside", "metrics", "masked_metrics")}


def side_numbers(
    model: LoadedModel,
    inputs: AttentionInputs,
    prompt: TokenizedPrompt,
    window: tuple[int, int],
    *,
    target: Target | None,
    on_layer: Callable[[int], None],
) -> SideNumbers:
    """Look at a prompt and weigh its patterns as `inputs.show` says.

    Args:
        model: the loaded model.
        inputs: what to look at.
        prompt: A or B.
        window: first position and one past the last.
        target: A's target when this is B; None = find it.
        on_layer: told after each layer.
    """
    looked = look(model, prompt.ids, window, norms=inputs.show == "value_weighted", on_layer=on_layer)
    reading = _read(model, inputs, prompt, looked, target)
    weighed = _weigh(model, inputs, looked, reading, window)
    metrics, masked = (
        np.stack([_numpy(getattr(layer, name)) for layer in looked.layers], axis=1)
        for name in ("metrics", "masked_metrics")
    )
    return SideNumbers(
        values=weighed.values,
        outside=weighed.outside,
        metrics=np.concatenate([metrics, weighed.effect[None]]),
        masked_metrics=np.concatenate([masked, weighed.effect[None]]),
        target=reading.target,
        warnings=reading.warnings,
        row_error=max(layer.row_error for layer in looked.layers),
        future=max(layer.future for layer in looked.layers),
        sum_error=weighed.sum_error,
        norm_slack=weighed.norm_slack,
        read_error=reading.error,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """The way from the stream to the target's logit.

    Attributes:
        directions: [query d_model] at the window's queries and, last, at the last position (only at the last
            one unless contributions are shown); None where the logits cannot be read.
        target: what is read.
        error: of the frozen way.
        warnings: sentences.
    """

    directions: Float[Tensor, "query d_model"] | None
    target: Target | None
    error: float
    warnings: tuple[str, ...]


def _read(
    model: LoadedModel,
    inputs: AttentionInputs,
    prompt: TokenizedPrompt,
    looked: Looked,
    target: Target | None,
) -> _Reading:
    final = looked.final if inputs.show == "contribution" else looked.final[-1:]
    try:
        found = target or _target(model, inputs, prompt, looked.final[-1:])
        way = readout(model, final, found.ids)
    except (ModelError, SiteMissing) as error:
        if inputs.show == "contribution":
            raise
        said = f"The effect on the target is not known here. {error}"
        return _Reading(None, None, math.nan, (said,))
    directions = way.directions[..., 0]
    if found.distractor is not None:
        directions = directions - way.directions[..., 1]
    return _Reading(directions, found, way.error, found.warnings)


def _target(
    model: LoadedModel, inputs: AttentionInputs, prompt: TokenizedPrompt, final: Float[Tensor, "one d_model"]
) -> Target:
    """The tokens asked for, or the model's top token."""
    if inputs.answer is not None:
        chosen = choose_answer(model.tokenizer, prompt, inputs.answer)
        answer = AnswerTokens(chosen.text, chosen.ids, chosen.pieces, "user", chosen.joint)
    else:
        top = int(unembed(model, final)[0].argmax())
        text, shown = model.tokenizer.decode([top]), visible_token(model.tokenizer, top)
        chosen, answer = None, AnswerTokens(text, (top,), (shown,), "clean run")
    warnings = () if chosen is None else answer_warnings(chosen)
    if inputs.distractor is None:
        return Target(answer, None, warnings)
    other = choose_answer(model.tokenizer, prompt, inputs.distractor)
    if other.ids[0] == answer.ids[0]:
        raise InputError(
            f"The distractor {other.text!r} begins with the same token as the target {answer.text!r}",
            why="their difference would be zero",
            fix="Choose another distractor",
        )
    distractor = AnswerTokens(other.text, other.ids, other.pieces, "user", other.joint)
    return Target(answer, distractor, warnings)


@dataclass(frozen=True, slots=True, eq=False)
class _Weighed:
    values: Float[np.ndarray, "layer head query key"]
    outside: Float[np.ndarray, "layer head query"]
    effect: Float[np.ndarray, "layer head"]
    sum_error: float
    norm_slack: float


def _weigh(
    model: LoadedModel, inputs: AttentionInputs, looked: Looked, reading: _Reading, window: tuple[int, int]
) -> _Weighed:
    """Layer by layer, so that only one layer's float64 intermediates exist."""
    layers, heads, size = model.dims.n_layers, model.dims.n_heads, window[1] - window[0]
    values = np.empty((layers, heads, size, size), np.float32)
    outside = np.zeros((layers, heads, size), np.float32)
    effect = np.full((layers, heads), np.nan)
    gaps, sizes, slacks = [], [], []
    for layer in range(layers):
        one = _weigh_layer(model, inputs, looked, reading, layer)
        values[layer] = _numpy(one.shown)
        if window[0] > 0:  # else nothing lies outside, and what `rest` holds is rounding
            outside[layer] = _numpy(one.rest)
        if one.own is not None:
            effect[layer] = _numpy(one.own[:, -1])
            gaps.append(float(one.rest.abs().max()))
            sizes.append(float(one.own.abs().max()))
        slacks.append(one.slack)
    summed = inputs.show == "contribution" and window[0] == 0
    return _Weighed(
        values=values,
        outside=outside,
        effect=effect,
        sum_error=max(gaps) / max(*sizes, 1e-12) if summed else math.nan,
        norm_slack=min(slacks),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """One layer as it is shown.

    Attributes:
        shown: what `inputs.show` says, in the window.
        rest: the same for the keys before the window, summed.
        own: what each head's whole output adds to the logit; last, at the last token. None if not known.
        slack: see `SideNumbers.norm_slack`.
    """

    shown: Float[Tensor, "head query key"]
    rest: Float[Tensor, "head query"]
    own: Float[Tensor, "head place"] | None = None
    slack: float = math.nan


def _weigh_layer(
    model: LoadedModel, inputs: AttentionInputs, looked: Looked, reading: _Reading, layer: int
) -> _Layer:
    seen, z = looked.layers[layer], looked.z[layer]
    if inputs.show == "contribution" and reading.directions is not None:
        directions = head_directions(model, layer, z, reading.directions)
        own = head_contributions(z, directions)
        shown = contributions(seen.weights, looked.values[layer], directions[:, :-1])
        return _Layer(shown, own[:, :-1] - shown.sum(-1), own)  # the rest: what other keys must have given
    own = None
    if reading.directions is not None:
        own = head_contributions(z[-1:], head_directions(model, layer, z[-1:], reading.directions))
    if seen.norms is None or seen.norms_outside is None:
        return _Layer(seen.weights, seen.outside, own)
    shown = seen.weights * seen.norms[:, None]
    slack = _slack(model, layer, z[:-1], shown.sum(-1) + seen.norms_outside)
    return _Layer(shown, seen.norms_outside, own, slack)


def _slack(
    model: LoadedModel,
    layer: int,
    z: Float[Tensor, "query head d_head"],
    sums: Float[Tensor, "head query"],
) -> float:
    """Smallest of (sum of the parts' norms - norm of the parts' sum), relative to the largest sum."""
    whole = moved_norms(z, weight(model.structure, "W_O", layer).to(z.device))
    return float((sums - whole).min() / sums.max().clamp_min(1e-12))


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.promote_types(tensor.dtype, torch.float32)).numpy()
