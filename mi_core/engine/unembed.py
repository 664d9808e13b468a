"""The logit lens' one door: residual vectors through the model's own final norm, unembedding and softcaps.

    unembed(resid_post[last layer]) = the model's logits

It is the model's own forward with its blocks passed over, so every gain, scale and softcap is the model's.
Cost: 2 * n * d_model * d_vocab floating-point operations. Source of the lens: nostalgebraist, "interpreting
GPT: the logit lens" (2020).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.engine.layout import packed_layout
from mi_core.engine.replay import unembed_in
from mi_core.engine.run import memory_errors
from mi_core.engine.session import Session
from mi_core.model.model import LoadedModel


def unembed(model: LoadedModel, hidden: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_vocab"]:
    """Logits of residual vectors, as the model would give them after its last block.

    Args:
        model: the loaded model.
        hidden: vectors of the residual stream; the caller cuts long lists into chunks, because the answer
            has n * d_vocab numbers.

    Returns:
        Logits in at least float32, every softcap and scale included. If torch records gradients and `hidden`
        asks for them, they flow through.

    Raises:
        SiteMissing: the probe found that this model's tail is not what its family says.
        OutOfMemory: the device is too small for this many.
    """
    model.structure.require("final_norm", None)
    wanted = torch.is_grad_enabled() and hidden.requires_grad
    session = Session(model, packed_layout(1, [(0, len(hidden))]), plain_attention=True)
    with torch.enable_grad() if wanted else torch.inference_mode(), memory_errors(model):
        logits = unembed_in(session, hidden.to(model.dtype))
        return logits.to(torch.promote_types(logits.dtype, torch.float32))
