"""What one feature writes and reads, computed in the plainest way: loops over a tiny transcoder's tensors."""

from typing import Any

import numpy as np
import torch

from mi_core.model.model import LoadedModel
from mi_core.transcoders.names import Feature
from mi_core.transcoders.transcoder import Transcoder


def unembedding(model: LoadedModel) -> np.ndarray:
    """[d_model, d_vocab] with the final norm's gain folded in, and its mean taken off for LayerNorms."""
    table = _numbers(model.hf.get_output_embeddings().weight).T
    norm = _final_norm(model.hf)
    gained = table * _gain(model, norm)[:, None]
    return gained - gained.mean(0) if getattr(norm, "bias", None) is not None else gained


def embedding(model: LoadedModel) -> np.ndarray:
    """[d_vocab, d_model] as the embedding module gives it."""
    with torch.no_grad():
        return _numbers(model.hf.get_input_embeddings()(torch.arange(model.dims.d_vocab)))


def rows_of(transcoder: Transcoder, feature: Feature) -> np.ndarray:
    """[target, d_model] decoder rows."""
    source: Any = transcoder.source
    return _numbers(source.decoders[feature.layer][feature.index])


def encoder_of(transcoder: Transcoder, feature: Feature) -> np.ndarray:
    """[d_model] encoder row."""
    source: Any = transcoder.source
    return _numbers(source.encoders[feature.layer].stored[feature.index])


def all_features(transcoder: Transcoder) -> list[Feature]:
    """Every feature."""
    return [Feature(layer, i) for layer in transcoder.layers for i in range(transcoder.n_features[layer])]


def virtual_weight(transcoder: Transcoder, source: Feature, target: Feature) -> float:
    """For transcoders from resid_mid to mlp_out: what a unit of one adds to the other's pre-activation."""
    total = 0.0
    for layer, row in zip(transcoder.targets(source.layer), rows_of(transcoder, source), strict=True):
        if layer < target.layer:
            total += float(row @ encoder_of(transcoder, target))
    return total


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Of two vectors."""
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def _final_norm(hf: Any) -> Any:
    return hf.transformer.ln_f if hasattr(hf, "transformer") else hf.model.norm


def _gain(model: LoadedModel, norm: Any) -> np.ndarray:
    weight = _numbers(norm.weight)
    return 1 + weight if model.hf.config.model_type.startswith("gemma") else weight


def _numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()
