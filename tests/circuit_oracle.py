"""Circuits of tiny models the long way: full matrices, taken from Hugging Face's own parameters by name.

Deliberately shares nothing with `mi_core.analyses.circuit_weights`: every family is written out, norms are
folded by explicit d_model x d_model matrices, and nothing is factored.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Full:
    """Every matrix in full, row vectors: x @ ov[layer][head] is what the head writes.

    Attributes:
        ov, qk: [layer, head, d_model, d_model].
        final: [d_model, d_model] the final norm at scale 1.
        embedding: [d_vocab, d_model].
        unembedding: [d_model, d_vocab].
    """

    ov: np.ndarray
    qk: np.ndarray
    final: np.ndarray
    embedding: np.ndarray
    unembedding: np.ndarray

    def vocabulary_table(self, layer: int, head: int) -> np.ndarray:
        """W_E OV F W_U, [d_vocab, d_vocab]."""
        return self.embedding @ self.ov[layer, head] @ self.final @ self.unembedding


def array(parameter: Any) -> np.ndarray:
    return parameter.detach().double().numpy()


def layer_norm(module: Any) -> np.ndarray:
    weight = array(module.weight)
    return (np.eye(len(weight)) - 1 / len(weight)) @ np.diag(weight)


def rms_norm(module: Any, plus: float = 0.0) -> np.ndarray:
    return np.diag(plus + array(module.weight))


def head_matrices(
    norm: np.ndarray, qkvo: list[np.ndarray], heads: int, kv_heads: int, after: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """OV and QK of every head from plain [d_model, heads*d_head] matrices."""
    q, k, v, o = qkvo
    d_head = q.shape[1] // heads
    ov, qk = [], []
    for head in range(heads):
        mine = slice(head * d_head, (head + 1) * d_head)
        shared = head // (heads // kv_heads)
        theirs = slice(shared * d_head, (shared + 1) * d_head)
        ov.append(norm @ v[:, theirs] @ o[mine] @ after)
        qk.append(norm @ q[:, mine] @ (norm @ k[:, theirs]).T)
    return ov, qk


def full_circuits(hf: Any) -> Full:
    """All circuits of a tiny gpt2, llama, gemma2 or phi."""
    family, config = hf.config.model_type, hf.config
    read = {"gpt2": _gpt2, "llama": _llama, "gemma2": _gemma2, "phi": _phi}[family]
    layers, final, scale = read(hf, config)
    return Full(
        ov=np.array([ov for ov, _ in layers]),
        qk=np.array([qk for _, qk in layers]),
        final=final,
        embedding=scale * array(hf.get_input_embeddings().weight),
        unembedding=array(hf.get_output_embeddings().weight).T,
    )


def _gpt2(hf: Any, config: Any) -> Any:
    layers, width = [], config.n_embd
    for block in hf.transformer.h:
        fused = array(block.attn.c_attn.weight)
        q, k, v = (fused[:, i * width : (i + 1) * width] for i in range(3))
        o = array(block.attn.c_proj.weight)
        norm = layer_norm(block.ln_1)
        layers.append(head_matrices(norm, [q, k, v, o], config.n_head, config.n_head, np.eye(width)))
    return layers, layer_norm(hf.transformer.ln_f), 1.0


def _separate(block: Any, out: str) -> list[np.ndarray]:
    attention = block.self_attn
    names = ("q_proj", "k_proj", "v_proj", out)
    return [array(getattr(attention, name).weight).T for name in names]


def _llama(hf: Any, config: Any) -> Any:
    heads, kv = config.num_attention_heads, config.num_key_value_heads
    layers = [
        head_matrices(
            rms_norm(block.input_layernorm),
            _separate(block, "o_proj"),
            heads,
            kv,
            np.eye(config.hidden_size),
        )
        for block in hf.model.layers
    ]
    return layers, rms_norm(hf.model.norm), 1.0


def _gemma2(hf: Any, config: Any) -> Any:
    heads, kv = config.num_attention_heads, config.num_key_value_heads
    layers = [
        head_matrices(
            rms_norm(block.input_layernorm, 1.0),
            _separate(block, "o_proj"),
            heads,
            kv,
            rms_norm(block.post_attention_layernorm, 1.0),
        )
        for block in hf.model.layers
    ]
    return layers, rms_norm(hf.model.norm, 1.0), config.hidden_size**0.5


def _phi(hf: Any, config: Any) -> Any:
    heads = config.num_attention_heads
    layers = [
        head_matrices(
            layer_norm(block.input_layernorm),
            _separate(block, "dense"),
            heads,
            heads,
            np.eye(config.hidden_size),
        )
        for block in hf.model.layers
    ]
    return layers, layer_norm(hf.model.final_layernorm), 1.0
