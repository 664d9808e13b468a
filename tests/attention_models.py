"""Tiny models that read words, for tests of attention, and their attention by Hugging Face's own code."""

from functools import lru_cache
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mi_core.engine import build_model
from mi_core.model.model import LoadedModel
from tests.tiny import CONFIGS, hf_model
from tests.words import WORDS, word_tokenizer

PROMPT = "The Eiffel Tower is in the city of the Tower is"
OTHER = "The Space Needle is in the city of the Needle is"


@lru_cache(maxsize=32)
def model_of(name: str, dtype: torch.dtype = torch.float64, bos: bool = True) -> LoadedModel:
    """A proved tiny model that reads words."""
    return build_model(hf_model(name, dtype), word_tokenizer(bos=bos))


def eager_attention(name: str, ids: list[int]) -> torch.Tensor:
    """[layer head query key] as the untouched eager model returns it, float64."""
    with torch.inference_mode():
        out = hf_model(name)(input_ids=torch.tensor([ids]), output_attentions=True, use_cache=False)
    return torch.cat(out.attentions).double()


@lru_cache(maxsize=2)
def long_model(dtype: torch.dtype = torch.float32) -> LoadedModel:
    """A Llama of two layers that reads 4,096 tokens."""
    settings: dict[str, Any] = {**CONFIGS["llama"], "max_position_embeddings": 4096, "num_hidden_layers": 2}
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **settings)).eval()
    for parameter in hf.parameters():
        if parameter.dim() >= 2:
            parameter.data.mul_(6)
    return build_model(hf.to(dtype), word_tokenizer(bos=True))


def long_prompt(tokens: int) -> str:
    """A text of so many tokens, with a BOS token."""
    generator = torch.Generator().manual_seed(3)
    picked = torch.randint(0, len(WORDS), (tokens - 1,), generator=generator).tolist()
    return " ".join(WORDS[index] for index in picked)
