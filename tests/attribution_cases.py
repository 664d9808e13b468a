"""Prompts, models and results that the attribution's tests share."""

from functools import lru_cache

import torch

from mi_core.analyses import AttributionInputs, AttributionResult, attribution
from mi_core.engine import build_model
from mi_core.model.model import LoadedModel
from tests.tiny import hf_model
from tests.words import word_tokenizer

PROMPT, CONTROL = "The capital of France is", "The Space Needle is in the city of"
INPUTS = AttributionInputs(
    PROMPT, control_prompt=CONTROL, answer=" Paris", distractor=" Rome",
    split_heads=("L1H2", "L3H0"), neurons=("L2N5",), top_neurons=3,
)  # fmt: skip
SANDWICH = ("gemma2", "gemma3_text", "olmo2")


@lru_cache(maxsize=64)
def model_of(name: str = "gpt2", dtype: torch.dtype = torch.float64) -> LoadedModel:
    return build_model(hf_model(name, dtype), word_tokenizer())


@lru_cache(maxsize=64)
def result_of(name: str = "gpt2", dtype: torch.dtype = torch.float64) -> AttributionResult:
    return attribution(model_of(name, dtype), INPUTS)


def read(result: AttributionResult) -> tuple[int, int]:
    """Ids of target and distractor."""
    assert result.distractor is not None
    return result.target.id, result.distractor.id


def own_logits(model: LoadedModel, prompt: str) -> torch.Tensor:
    ids = model.tokenizer(prompt, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return model.hf(input_ids=ids).logits[0, -1].double()
