"""The tokens that every feature of a layer writes most and least, over all layers that it writes to.

    effect_t = gain * centre(sum over target layers of the decoder row) . W_U[:, t]

at scale 1 of the final norm: at a token, the direct effect on the logit is this divided by the norm's scale
there, so the order is the feature's own. Cost: 2 features x d_model x d_vocab operations per layer, a few
thousand tokens of the vocabulary at a time.
"""

import numpy as np
import torch
from jaxtyping import Int

from mi_core.analyses.circuit_gains import final_gain
from mi_core.analyses.circuit_vocabulary import unembeddings
from mi_core.model.model import LoadedModel
from mi_core.transcoders.transcoder import Transcoder


def layer_words(
    model: LoadedModel, transcoder: Transcoder, layer: int, count: int
) -> tuple[Int[np.ndarray, "feature word"], Int[np.ndarray, "feature word"]]:
    """Token ids that the features of a layer write most, and least, from the outside in.

    Raises:
        TranscoderError: kind "no_decoder", when only the encoders are here.
        LanternError: the model's way to its logits cannot be read.
    """
    written = torch.cat([rows.sum(1) for _, rows in transcoder.decoder_chunks(layer)])
    gain = final_gain(model)
    directions = gain.after(written.to(gain.vector)).float()
    high: list[tuple[torch.Tensor, torch.Tensor]] = []
    low: list[tuple[torch.Tensor, torch.Tensor]] = []
    start = 0
    for columns in unembeddings(model):
        effects = directions @ columns.float().to(directions.device)
        for ends, sign in ((high, 1), (low, -1)):
            found = (sign * effects).topk(min(count, effects.shape[1]), dim=1)
            ends.append((found.values, found.indices + start))
        start += columns.shape[1]
    return _best(high, count), _best(low, count)


def _best(parts: list[tuple[torch.Tensor, torch.Tensor]], count: int) -> Int[np.ndarray, "feature word"]:
    values, ids = (torch.cat([part[index] for part in parts], 1) for index in (0, 1))
    order = values.topk(min(count, values.shape[1]), dim=1).indices
    return ids.gather(1, order).cpu().numpy()
