"""Neurons by plain hooks, one text at a time: what the survey and the neuron's page are compared with.

Shares no code with the engine: the module that reads the neurons is named here by hand.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from mi_core.analyses.texts import Text
from mi_core.engine import build_model
from mi_core.model.model import LoadedModel
from mi_core.tokens import tokenize
from tests.tiny import hf_model
from tests.words import WORDS, word_tokenizer

FAMILIES = ("gpt2", "llama", "phi3", "opt", "gemma2")


@lru_cache(maxsize=16)
def worded(family: str, dtype: torch.dtype = torch.float64, *, bos: bool = True) -> LoadedModel:
    """A tiny random model with a tokenizer of whole words."""
    return build_model(hf_model(family, dtype), word_tokenizer(bos=bos))


def some_texts(seed: int = 0, count: int = 12) -> tuple[Text, ...]:
    """Random sentences of three kinds and several lengths; some begin alike."""
    random = np.random.default_rng(seed)
    made = []
    for index in range(count):
        words = random.choice(WORDS, size=int(random.integers(2, 9)))
        start = "Mary gave " if index % 3 == 0 else ""
        made.append(Text(("code", "verse", "facts")[index % 3], start + " ".join(words)))
    return tuple(made)


def down_projection(hf: Any, family: str, layer: int) -> Any:
    """The module whose input is the layer's neurons, named by hand."""
    if family == "gpt2":
        return hf.transformer.h[layer].mlp.c_proj
    if family == "opt":
        return hf.model.decoder.layers[layer].fc2
    return hf.model.layers[layer].mlp.down_proj


def direct(model: LoadedModel, family: str, ids: Sequence[int]) -> np.ndarray:
    """[layer, pos, d_mlp] of one text, from the model's own forward with plain hooks."""
    found: dict[int, np.ndarray] = {}
    handles = [
        down_projection(model.hf, family, layer).register_forward_pre_hook(
            lambda _module, args, layer=layer: found.update({layer: args[0].double().numpy().copy()})
        )
        for layer in range(model.dims.n_layers)
    ]
    try:
        with torch.no_grad():
            model.hf(input_ids=torch.tensor([list(ids)]))
    finally:
        for handle in handles:
            handle.remove()
    return np.stack([found[layer].reshape(len(ids), -1) for layer in range(model.dims.n_layers)])


def all_at_once(
    model: LoadedModel, family: str, texts: Sequence[Text], *, bos: Any = "auto"
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Everything in memory: activations [layer, token, d_mlp], and text, position, kind of every token that
    counts (not the first of its text)."""
    values, rows, positions, kinds = [], [], [], []
    names = list(dict.fromkeys(text.category for text in texts))
    for index, text in enumerate(texts):
        ids = tokenize(model.tokenizer, text.text, bos=bos).ids
        values.append(direct(model, family, ids)[:, 1:])
        count = len(ids) - 1
        rows += [index] * count
        positions += list(range(1, count + 1))
        kinds += [names.index(text.category)] * count
    return np.concatenate(values, axis=1), np.array(rows), np.array(positions), np.array(kinds)
