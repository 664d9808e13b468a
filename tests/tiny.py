"""Tiny random models of every supported family: a few thousand parameters, no download, asserted tiny.

Weights are scaled up from the default initialisation so that patches have effects far above rounding.
"""

from functools import lru_cache
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mi_core.engine import build_model
from mi_core.model.model import LoadedModel

VOCAB = 97
WINDOW = 4
N_LAYERS = 4

_BASE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
_GQA: dict[str, Any] = {**_BASE, "num_key_value_heads": 2}
_GPT2: dict[str, Any] = {
    "vocab_size": VOCAB,
    "n_embd": 32,
    "n_layer": N_LAYERS,
    "n_head": 4,
    "n_positions": 64,
}
_GEMMA: dict[str, Any] = {**_GQA, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": WINDOW}

CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": _GPT2,
    "gpt_neox": {**_BASE, "rotary_pct": 0.25},
    "gpt_neox_serial": {**_BASE, "rotary_pct": 0.25, "use_parallel_residual": False},
    "llama": _GQA,
    "mistral": {**_GQA, "sliding_window": WINDOW},
    "qwen2": _GQA,
    "qwen3": {**_GQA, "head_dim": 8},
    "gemma": {**_GQA, "head_dim": 8},
    "gemma2": {**_GEMMA, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 8.0},
    "gemma3_text": {**_GEMMA, "sliding_window_pattern": 2},
    "phi": _BASE,
    "phi_qk_norm": {**_BASE, "qk_layernorm": True},
    "phi3": {**_GQA, "pad_token_id": 0},
    "starcoder2": {**_GQA, "sliding_window": WINDOW},
    "olmo2": _GQA,
    "opt": {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": 4,
        "ffn_dim": 64,
        "max_position_embeddings": 64,
        "word_embed_proj_dim": 32,
    },
    "llama_like": {**_GQA, "head_dim": 8},
}
"""Settings per fixture name; the model type is the name without its variant."""

_TYPES = {"gpt_neox_serial": "gpt_neox", "phi_qk_norm": "phi", "llama_like": "stablelm"}

FAMILY_NAMES = tuple(CONFIGS)


def hf_model(name: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> Any:
    """A fresh random Hugging Face model, in evaluation mode."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(_TYPES.get(name, name), **CONFIGS[name])
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for parameter in model.parameters():
        if parameter.dim() >= 2:
            parameter.data.mul_(6)
        else:
            parameter.data.add_(0.3 * torch.randn_like(parameter))  # biases and gains must matter
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count < 120_000, f"{name} has {count} parameters: not tiny"
    return model.to(dtype)


@lru_cache(maxsize=64)
def tiny(name: str, dtype: torch.dtype = torch.float64) -> LoadedModel:
    """A proved tiny model, shared by tests that only read it."""
    return build_model(hf_model(name, dtype))


def tokens(n_rows: int = 1, n_pos: int = 9, seed: int = 0) -> torch.Tensor:
    """Random token ids [row, pos]."""
    return torch.randint(3, VOCAB, (n_rows, n_pos), generator=torch.Generator().manual_seed(seed))
