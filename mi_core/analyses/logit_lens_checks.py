"""Identities of a lens, tried on its own numbers, and what a reader must know before the figure."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.logit_lens_inputs import LensSite, LogitLensInputs
from mi_core.errors import ModelError
from mi_core.model.model import LoadedModel
from mi_core.tokens import TokenizedPrompt, prompt_warnings

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2}
"""Largest difference of logits that rounding explains, in standard deviations of the logits."""
COARSE = 8e-2

COMPONENTS = ("attn_out", "mlp_out")


def output_gap(model: LoadedModel, lens: Float[Tensor, "n vocab"], own: Float[Tensor, "n vocab"]) -> float:
    """How far the lens of the last stream is from the model's logits.

    Args:
        model: for its number format.
        lens: logits of the last stream.
        own: what the model returned at the same positions.

    Returns:
        The largest difference, in logits.

    Raises:
        ModelError: rounding does not explain it: for this model a lens would show wrong numbers.
    """
    reference = own.double()
    gap = float((lens.to(own.device).double() - reference).abs().max())
    scale = float(reference.std(dim=-1).max())
    # A model's own logits are rounded to its format, the more coarsely the larger they are.
    rounding = torch.finfo(model.dtype).eps * float(reference.abs().max())
    if not gap <= TOLERANCE.get(model.dtype, COARSE) * scale + rounding:  # NaN fails too
        raise ModelError(
            "The lens cannot be used on this model",
            kind="unsupported",
            why=f"final norm and unembedding of its last state differ from its output by {gap:.1e} logits",
            fix="Look at the probe's report in the sidebar",
        )
    return gap


def lens_checks(
    model: LoadedModel,
    inputs: LogitLensInputs,
    gap: float,
    arrays: Mapping[str, np.ndarray],
) -> tuple[Check, ...]:
    """What was proved on these numbers.

    Args:
        model: for its number format.
        inputs: what was asked for.
        gap: from `output_gap`.
        arrays: of the result.
    """
    return tuple(_checks(model, inputs, gap, arrays))


def _checks(
    model: LoadedModel, inputs: LogitLensInputs, gap: float, arrays: Mapping[str, np.ndarray]
) -> Iterator[Check]:
    softcap = " Softcaps and scales are the model's own."
    yield Check(
        "the last stream through the lens = the model's output",
        True,  # anything else was refused
        f"Logits differ by at most {gap:.1e}.{softcap}",
    )
    if inputs.site == "resid_post":
        kl = float(arrays["kl"][-1].max())
        same = int((arrays["top_ids"][-1, :, 0] == arrays["output_top_ids"][:, 0]).sum())
        n = arrays["kl"].shape[1]
        limit = {torch.float64: 1e-12, torch.float32: 1e-5}.get(model.dtype, 1e-2)
        yield Check(
            "the last row is the model's output",
            kl <= limit,
            f"KL from it is at most {kl:.1e} nats; the top token is the same at {same} of {n} positions.",
        )
    mass = float(arrays["top_probabilities"].astype(np.float64).sum(-1).max())
    yield Check(
        "probabilities of a cell sum to at most 1",
        mass <= 1 + 1e-5,
        f"The top {arrays['top_probabilities'].shape[-1]} tokens of a cell hold at most {mass:.6f}.",
    )


def lens_warnings(model: LoadedModel, site: LensSite, prompt: TokenizedPrompt) -> tuple[str, ...]:
    """What must be known before the figure is read, a sentence each."""
    return tuple(_warnings(model, site, prompt))


def _warnings(model: LoadedModel, site: LensSite, prompt: TokenizedPrompt) -> Iterator[str]:
    if site in COMPONENTS:
        yield (
            f"{site} alone is read: the final norm brings it to full size, so a cell says in which "
            "direction this component writes, not how much. No row need equal the model's output."
        )
    if model.dtype in (torch.float16, torch.bfloat16):
        name = str(model.dtype).removeprefix("torch.")
        yield f"The model runs in {name}: small probabilities and differences between layers are rounded."
    yield from prompt_warnings(prompt, model.tokenizer)
