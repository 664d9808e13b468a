"""From a Hugging Face model to a proved `LoadedModel`: resolve, install the attention function, probe."""

from collections.abc import Callable
from typing import Any

from mi_core.engine import attention
from mi_core.engine.probe import own_logits, probe
from mi_core.model.model import LoadedModel, evaluation_mode
from mi_core.model.structure import resolve

OnPhase = Callable[[str, float, str], None]


def build_model(
    hf: Any,
    tokenizer: Any = None,
    spec: Any = None,
    *,
    fingerprint: str = "",
    on_phase: OnPhase | None = None,
) -> LoadedModel:
    """Wrap a causal language model and prove on it what the pages will offer.

    Args:
        hf: a `transformers` causal language model with its weights in place.
        tokenizer: its tokenizer, or None.
        spec: what was asked for; only its `attention` is read here.
        fingerprint: identifies the weights in provenance and cache keys.
        on_phase: called with ("check", fraction, text); may raise Cancelled.

    Raises:
        ModelError: no decoder blocks were found.

    Cost: about a dozen forward passes over a few tokens.
    """
    evaluation_mode(hf)
    structure = resolve(hf)
    reference = own_logits(hf, structure.dims)
    attention.register()
    hf.set_attn_implementation(attention.NAME)
    model = LoadedModel(hf, tokenizer, spec, structure, fingerprint)
    model.report = probe(model, reference, on_phase=on_phase)
    return model
