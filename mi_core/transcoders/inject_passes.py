"""The passes of an intervention on features: logits of the last token, and what the encoders see.

Baseline and edited run look at the same places, so that both take the same way through the same kernels.
With everything frozen there is no edited pass: what the edits write goes through the frozen linear pass of
the baseline (`mi_core.transcoders.linear`) and is added to the baseline, to its logits before the softcap.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.engine import Edit, run
from mi_core.errors import InputError
from mi_core.model.model import LoadedModel
from mi_core.transcoders.feature_edits_compile import Compiled
from mi_core.transcoders.feature_edits_read import read_of
from mi_core.transcoders.linear import frozen_pass
from mi_core.transcoders.transcoder import Transcoder

VOCABULARY_AT_ONCE = 16_384
_ADDED_BY_THE_MLP = ("mlp_out", "resid_post")
"""Sites at which adding something is the same as adding it to what the MLP adds to the stream."""


@dataclass(frozen=True, slots=True, eq=False)
class Looked:
    """What is kept of a pass.

    Attributes:
        logits: [d_vocab] of the last token, float64 on the CPU.
        read: source layer -> [pos, d_model] what its encoder sees, before the edits at that very place.
        frozen_error: of a frozen pass: largest relative difference of its attention to the model's own.
    """

    logits: Float[Tensor, " d_vocab"]
    read: dict[int, Float[Tensor, "pos d_model"]]
    frozen_error: float | None = None


def look(
    model: LoadedModel,
    transcoder: Transcoder,
    token_ids: Sequence[int],
    layers: Sequence[int],
    edits: Sequence[Edit],
    *,
    patterns: bool,
) -> Looked:
    """One pass over the prompt.

    Args:
        model: the loaded model.
        transcoder: of that model.
        token_ids: the prompt.
        layers: source layers whose reading is kept.
        edits: what acts in this pass.
        patterns: whether attention goes through the kernel that can be edited, edited or not.
    """
    site = transcoder.reads.site
    wanted = (site, "mlp_in") if transcoder.reads.normalised else (site,)
    watched = [(name, layer) for name in wanted for layer in layers]
    squares = [("pattern", layer) for layer in model.structure.layers_of("pattern")] if patterns else []
    done = run(
        model,
        torch.tensor([list(token_ids)], dtype=torch.long),
        capture=[*watched, *squares],
        edits=edits,
        before_edits=True,
        last=1,
        reduce=lambda place, value: None if place[0] == "pattern" else value.clone(),
    )
    read = {layer: read_of(model, transcoder, done, layer) for layer in layers}
    return Looked(done.logits[0, -1].to("cpu", torch.float64), read)


def push_frozen(
    model: LoadedModel,
    transcoder: Transcoder,
    token_ids: Sequence[int],
    compiled: Compiled,
    baseline: Looked,
) -> Looked:
    """The baseline plus the direct effects of a list, everything else frozen.

    Raises:
        InputError: the transcoder writes where a frozen pass has no entry.
        ModelError: this model's frozen pass cannot be proved.
    """
    if transcoder.writes.site not in _ADDED_BY_THE_MLP:
        raise InputError(
            f"There are no direct effects of features that write at {transcoder.writes.site}",
            why=f"a frozen pass takes what is added at {' or '.join(_ADDED_BY_THE_MLP)}",
            fix="Freeze attention only, or nothing",
        )
    stream = transcoder.reads.site == "resid_post"  # autoencoders of the stream are no stand-in for an MLP
    frozen = frozen_pass(model, token_ids, None if stream else transcoder)
    deltas = {
        target: _spread(delta, compiled.positions, len(token_ids))
        for target, delta in compiled.deltas.items()
    }
    pushed = frozen.push(deltas)
    read = {}
    for layer, seen in baseline.read.items():
        moved = pushed.resid_post[layer] if stream else frozen.read(pushed, layer)
        own = deltas[layer].to(moved) if stream and layer in deltas else 0
        read[layer] = seen + (moved - own)[0].to(seen)
    last = len(token_ids) - 1
    arrives = pushed.final[0, last]
    parts = torch.arange(model.dims.d_vocab).split(VOCABULARY_AT_ONCE)
    change = torch.cat([frozen.logit_gradient(part.tolist(), last) @ arrives for part in parts])
    return Looked(
        add_before_softcap(baseline.logits, change.cpu().double(), softcap_of(model)), read, frozen.error
    )


def _spread(
    delta: Float[Tensor, "token d_model"], positions: Sequence[int], n_pos: int
) -> Float[Tensor, "1 pos d_model"]:
    whole = delta.new_zeros(1, n_pos, delta.shape[-1])
    whole[0, list(positions)] = delta
    return whole


def add_before_softcap(
    logits: Float[Tensor, " d_vocab"], change: Float[Tensor, " d_vocab"], softcap: float | None
) -> Float[Tensor, " d_vocab"]:
    """Logits after a change of what goes into the softcap c * tanh(x / c); just their sum without one.

    Args:
        logits: float64, after the softcap.
        change: float64, of what goes into it.
        softcap: c, or None.
    """
    if softcap is None:
        return logits + change
    inside = (logits / softcap).clamp(-1 + 1e-12, 1 - 1e-12)
    return softcap * torch.tanh(torch.atanh(inside) + change / softcap)


def softcap_of(model: LoadedModel) -> float | None:
    """The final softcap of the model's logits, or None."""
    config = model.hf.config
    text = getattr(config, "text_config", None) or config
    value = getattr(text, "final_logit_softcapping", None)
    return None if value is None else float(value)


def frozen_prior(compiled: Compiled) -> tuple[Edit, ...]:
    """The edits of a list that only put frozen attention in place."""
    return tuple(edit for edit in compiled.edits if edit.site == "pattern")
