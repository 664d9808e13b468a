"""Numbers of an intervention on features: top tokens, and how large a push is."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mi_core.engine import observe
from mi_core.errors import InputError
from mi_core.model.model import LoadedModel
from mi_core.transcoders.corpus_density import fitting_summary
from mi_core.transcoders.feature_edits_compile import Compiled
from mi_core.transcoders.transcoder import Transcoder


def push_norms(
    model: LoadedModel, token_ids: Sequence[int], compiled: Compiled
) -> tuple[
    Float[np.ndarray, "target token"], Float[np.ndarray, "target token"], Float[np.ndarray, "target token"]
]:
    """Lengths of what is added at a layer, of its sum up to it, of the baseline's stream after it.

    Args:
        model: the loaded model.
        token_ids: the prompt.
        compiled: the list of edits on it.
    """
    targets, positions = sorted(compiled.deltas), list(compiled.positions)
    if not targets:
        return np.zeros((0, 0)), np.zeros((0, 0)), np.zeros((0, 0))
    added = torch.stack([compiled.deltas[target] for target in targets]).cpu().double()
    seen = observe(model, token_ids, ("resid_post",))
    stream = torch.stack([seen["resid_post", target][positions].cpu().double() for target in targets])
    added_norms, sum_norms, stream_norms = (
        part.norm(dim=-1).numpy() for part in (added, added.cumsum(0), stream)
    )
    return added_norms, sum_norms, stream_norms


def chained(
    compiled: Compiled, found: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """From and to of every edit; edits of one activation stand one after the other, as their sizes add up.

    Args:
        compiled: the list.
        found: activation that each edit finds, were it alone at its place.
    """
    start, now = np.zeros(len(found)), {}
    for index, one in enumerate(compiled.placed):
        start[index] = now.get(one.at, found[index])
        now[one.at] = start[index] + compiled.size[index]
    return start, start + compiled.size


def corpus_largest(transcoder: Transcoder, compiled: Compiled) -> Float[np.ndarray, " edited"]:
    """Largest activation of each edited feature in the corpus; NaN where no corpus pass was made."""
    try:
        summary = fitting_summary(transcoder) if compiled.placed else None
    except InputError:  # damaged features files are told where they are shown; here they only are not known
        summary = None
    known = {} if summary is None else summary.largest
    found = [
        float(known[one.at.layer][one.at.index]) if one.at.layer in known else np.nan
        for one in compiled.placed
    ]
    return np.array(found, dtype=np.float64)


def top_tokens(logits: Float[Tensor, "run d_vocab"], count: int) -> Int[Tensor, " top"]:
    """Tokens among the `count` most probable of any run, by their larger probability."""
    found = {token for run in logits for token in run.argsort(descending=True, stable=True)[:count].tolist()}
    best = logits.softmax(-1).amax(0)
    return torch.tensor(sorted(found, key=lambda token: (-float(best[token]), token)), dtype=torch.long)
