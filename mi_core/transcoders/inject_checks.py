"""What must hold of an intervention on features, and what its reader has to know before the numbers."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from mi_core.analyses.causal_trace_parts import Check
from mi_core.transcoders.feature_edits import FeatureEdit
from mi_core.transcoders.feature_edits_compile import Compiled, Frozen
from mi_core.transcoders.feature_edits_place import Placed
from mi_core.transcoders.inject_inputs import InjectInputs
from mi_core.transcoders.inject_passes import Looked

NAMED = 5
BEYOND = 2.0
LARGE_PUSH = 1.0
"""Above this ||sum of delta|| / ||residual|| a push is told to be large."""


def inject_checks(
    frozen: Frozen,
    compiled: Compiled,
    passes: tuple[Looked, Looked, Looked],
    found: np.ndarray,
    dtype: torch.dtype,
) -> tuple[Check, ...]:
    """Identities on these very numbers.

    Args:
        frozen: the mode.
        compiled: the list.
        passes: baseline, edited run, and the baseline again.
        found: [edited] activations that the edits found in the edited run.
        dtype: of the model.
    """
    return tuple(
        [
            _nothing_left(frozen, compiled, passes),
            *_as_compiled(frozen, compiled, found, dtype),
            *_linear(passes[1], dtype),
        ]
    )


def _nothing_left(frozen: Frozen, compiled: Compiled, passes: tuple[Looked, Looked, Looked]) -> Check:
    baseline, edited, again = passes
    same = torch.equal(baseline.logits, again.logits)
    if not compiled.placed:
        name, same = (
            "an empty list is the baseline, bit for bit",
            same and torch.equal(baseline.logits, edited.logits),
        )
    elif frozen == "attention":
        name = "frozen attention alone is the baseline, bit for bit"
    else:
        name = "without the list the baseline returns, bit for bit"
    off = float((baseline.logits - again.logits).abs().max())
    return Check(name, same, f"Largest difference of a logit: {off:g}.")


def _as_compiled(
    frozen: Frozen, compiled: Compiled, found: np.ndarray, dtype: torch.dtype
) -> Iterator[Check]:
    """The edits were sized for the activations that the edited run really has."""
    used = ~np.isnan(compiled.present)
    if frozen == "everything" or not used.any():
        return
    limit = 5e-2 if dtype in (torch.float16, torch.bfloat16) else 1e-4
    off = np.abs(found[used] - compiled.present[used]) / np.maximum(1.0, np.abs(found[used]))
    yield Check(
        "the edited run has the activations that the edits were computed for",
        bool(off.max() <= limit),
        f"{int(used.sum())} activations; largest relative difference {off.max():.1e} (limit {limit:g}).",
    )


def _linear(edited: Looked, dtype: torch.dtype) -> Iterator[Check]:
    """The frozen pass is the model's own, as far as it was held."""
    if edited.frozen_error is not None:
        limit = 5e-2 if dtype in (torch.float16, torch.bfloat16) else 1e-4
        yield Check(
            "the frozen pass gives the model's own attention outputs",
            edited.frozen_error <= limit,
            f"Largest relative difference {edited.frozen_error:.1e} (limit {limit:g}).",
        )


def inject_warnings(
    inputs: InjectInputs,
    edits: Sequence[FeatureEdit],
    compiled: Compiled,
    found: np.ndarray,
    after: np.ndarray,
    largest: np.ndarray,
    norms: tuple[np.ndarray, np.ndarray, np.ndarray],
    n_special: int,
) -> tuple[str, ...]:
    """One sentence each.

    Args:
        inputs: what was asked for.
        edits: the list.
        compiled: the list on this prompt.
        found: [edited] activations that the edits found.
        after: [edited] what they made of them; of several edits of one activation the last has the sum.
        largest: [edited] each feature's largest activation in the corpus; NaN = not known.
        norms: [target, token] lengths of what is added at a layer, of its sum up to it, of the stream.
        n_special: leading special tokens.
    """
    return tuple(
        [
            *_special(compiled, n_special),
            *_idle(compiled, found),
            *_below_zero(compiled, after),
            *_beyond_corpus(compiled, after, largest),
            *_large(compiled, norms),
            *_mode(inputs, edits),
        ]
    )


def _special(compiled: Compiled, n_special: int) -> Iterator[str]:
    edited = [position for position in compiled.positions if position < n_special]
    if edited:
        yield (
            f"Token {edited[0]} is a special token at the beginning: transcoders are not made for it, and "
            "many features are active there that mean nothing."
        )


def _idle(compiled: Compiled, found: np.ndarray) -> Iterator[str]:
    idle: dict[int, list[Placed]] = defaultdict(list)
    busy = set()
    for one, size, present in zip(compiled.placed, compiled.size, found, strict=True):
        if size == 0 and present == 0 and one.edit.mode in ("scale", "ablate"):
            idle[one.piece].append(one)
        else:
            busy.add(one.piece)
    named: list[str] = []
    for piece, members in idle.items():
        if members[0].edit.positions is not None:
            named += [one.at.text for one in members]
        elif piece not in busy:  # "all tokens" means wherever it is active: it is active nowhere
            named.append(members[0].edit.text)
    if named:
        yield f"{_named(named)}: not active there, so scaling or ablating it changes nothing."


def _below_zero(compiled: Compiled, after: np.ndarray) -> Iterator[str]:
    ends = dict(zip((one.at for one in compiled.placed), after.tolist(), strict=True))
    suppressed = {one.at for one in compiled.placed if one.edit.mode == "suppress"}
    beyond = [at.text for at, value in ends.items() if value < 0 and at in suppressed]
    below = [at.text for at, value in ends.items() if value < 0 and at not in suppressed]
    if beyond:
        yield (
            f"{_named(beyond)}: suppress takes away the same number of decoder rows whether or not the "
            "feature is active; here it takes more than is there and pushes the other way. Ablate takes "
            "away what is there."
        )
    if below:
        yield f"{_named(below)}: set below 0, which no encoder gives."


def _beyond_corpus(compiled: Compiled, after: np.ndarray, largest: np.ndarray) -> Iterator[str]:
    ends = {
        one.at: (value, most)
        for one, value, most in zip(compiled.placed, after.tolist(), largest.tolist(), strict=True)
    }
    beyond = [
        f"{at.text} to {value:.3g} (corpus: {f'at most {most:.3g}' if most else 'never active'})"
        for at, (value, most) in ends.items()
        if value > BEYOND * most
    ]
    if beyond:
        yield f"More than {BEYOND:g} times the largest activation in the corpus: {_named(beyond)}."


def _large(compiled: Compiled, norms: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Iterator[str]:
    _, total, stream = norms
    if not total.size:
        return
    ratios = total / stream
    row, column = np.unravel_index(int(ratios.argmax()), ratios.shape)
    if ratios[row, column] > LARGE_PUSH:
        layer = sorted(compiled.deltas)[row]
        yield (
            f"At token {compiled.positions[column]} the sum of what is added up to layer {layer} is "
            f"{ratios[row, column]:.1f} times as long as the stream there: the model never saw such a stream."
        )


def _mode(inputs: InjectInputs, edits: Sequence[FeatureEdit]) -> Iterator[str]:
    if not edits:
        return
    if inputs.frozen == "everything":
        yield (
            "Everything is frozen: these are direct effects, without a continuation. Other features show "
            "what their encoders would say; they do not act themselves."
        )
    elif inputs.frozen == "attention" and inputs.continuation:
        yield "Attention is frozen for the prompt only; new tokens of the continuation attend freely."


def _named(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - NAMED} more" if len(texts) > NAMED else ""
    return ", ".join(texts[:NAMED]) + more
