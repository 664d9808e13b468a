"""Families as data: where Hugging Face keeps the parts of a decoder, by `config.model_type`.

Paths of a `Family` are relative to one block, except `blocks`, `position_embedding`, `final_norm` and
`unembed`, which are relative to the causal language model. Nothing here is trusted: the probe
(`mi_core.engine.probe`) proves each entry on the loaded model before anything is drawn.
"""

from dataclasses import dataclass, replace
from typing import Literal

QkvLayout = Literal["separate", "columns", "by_head"]


@dataclass(frozen=True, slots=True)
class Family:
    """Module paths of one architecture.

    Attributes:
        name: `config.model_type`.
        blocks: module list of the blocks.
        position_embedding: additive position embedding, or None with rotary.
        final_norm: norm before the unembedding.
        unembed: the language-model head.
        attention: attention module.
        qkv: "separate" projections; "columns": one matrix, q then k then v; "by_head": one matrix, q, k, v
            inside each head.
        query, key, value: projections (all three equal when fused).
        query_norm, key_norm: norms between projection and rotary, if any.
        norm_head_first: whether those norms see [row, head, pos, d_head] (else [row, pos, ...]).
        output_projection: W_O.
        attention_write: module whose output attention adds to the stream.
        mlp: module whose input is `mlp_in`.
        mlp_gate: module whose output is `mlp_pre` (fused gate/up: the first half of its output).
        mlp_up: the linear branch of a gated MLP.
        mlp_down: module whose input is `mlp_post`.
        mlp_write: module whose output the MLP adds to the stream.
        gated: whether the MLP multiplies two branches.
        fused_gate: whether `mlp_gate` holds gate and up, in this order.
        parallel: whether attention and MLP read the same stream; a string names the config flag that says so.
        transposed: whether matrices are stored [in, out] (GPT-2's Conv1D).
    """

    name: str
    blocks: str = "model.layers"
    position_embedding: str | None = None
    final_norm: str = "model.norm"
    unembed: str = "lm_head"
    attention: str = "self_attn"
    qkv: QkvLayout = "separate"
    query: str = "self_attn.q_proj"
    key: str = "self_attn.k_proj"
    value: str = "self_attn.v_proj"
    query_norm: str | None = None
    key_norm: str | None = None
    norm_head_first: bool = False
    output_projection: str = "self_attn.o_proj"
    attention_write: str = "self_attn"
    mlp: str = "mlp"
    mlp_gate: str = "mlp.gate_proj"
    mlp_up: str | None = "mlp.up_proj"
    mlp_down: str = "mlp.down_proj"
    mlp_write: str = "mlp"
    gated: bool = True
    fused_gate: bool = False
    parallel: bool | str = False
    transposed: bool = False

    @property
    def rotary(self) -> bool:
        """Whether positions enter by rotating queries and keys (else they are added to the embedding)."""
        return self.position_embedding is None


_LLAMA = Family("llama")
_SANDWICH = replace(
    _LLAMA, attention_write="post_attention_layernorm", mlp_write="post_feedforward_layernorm"
)
_NORMED = replace(_LLAMA, query_norm="self_attn.q_norm", key_norm="self_attn.k_norm")
_NORMED_SANDWICH = replace(_SANDWICH, query_norm="self_attn.q_norm", key_norm="self_attn.k_norm")

_TABLE = (
    _LLAMA,
    replace(_LLAMA, name="mistral"),
    replace(_LLAMA, name="qwen2"),
    replace(_NORMED, name="qwen3"),
    replace(_LLAMA, name="gemma"),
    replace(_SANDWICH, name="gemma2"),
    replace(_NORMED_SANDWICH, name="gemma3_text", norm_head_first=True),
    replace(
        _NORMED_SANDWICH,
        name="gemma3",
        norm_head_first=True,
        blocks="model.language_model.layers",
        final_norm="model.language_model.norm",
    ),
    replace(_NORMED_SANDWICH, name="olmo2"),
    Family(
        "phi3",
        qkv="columns",
        query="self_attn.qkv_proj",
        key="self_attn.qkv_proj",
        value="self_attn.qkv_proj",
        mlp_gate="mlp.gate_up_proj",
        mlp_up="mlp.gate_up_proj",
        fused_gate=True,
    ),
    Family("starcoder2", mlp_gate="mlp.c_fc", mlp_up=None, mlp_down="mlp.c_proj", gated=False),
    Family(
        "phi",
        final_norm="model.final_layernorm",
        output_projection="self_attn.dense",
        mlp_gate="mlp.fc1",
        mlp_up=None,
        mlp_down="mlp.fc2",
        gated=False,
        parallel=True,
        query_norm="self_attn.q_layernorm",
        key_norm="self_attn.k_layernorm",
        norm_head_first=True,
    ),
    Family(
        "gpt2",
        blocks="transformer.h",
        position_embedding="transformer.wpe",
        final_norm="transformer.ln_f",
        attention="attn",
        qkv="columns",
        query="attn.c_attn",
        key="attn.c_attn",
        value="attn.c_attn",
        output_projection="attn.c_proj",
        attention_write="attn",
        mlp_gate="mlp.c_fc",
        mlp_up=None,
        mlp_down="mlp.c_proj",
        gated=False,
        transposed=True,
    ),
    Family(
        "gpt_neox",
        blocks="gpt_neox.layers",
        final_norm="gpt_neox.final_layer_norm",
        unembed="embed_out",
        attention="attention",
        qkv="by_head",
        query="attention.query_key_value",
        key="attention.query_key_value",
        value="attention.query_key_value",
        output_projection="attention.dense",
        attention_write="attention",
        mlp_gate="mlp.dense_h_to_4h",
        mlp_up=None,
        mlp_down="mlp.dense_4h_to_h",
        gated=False,
        parallel="use_parallel_residual",
    ),
    Family(
        "opt",
        blocks="model.decoder.layers",
        position_embedding="model.decoder.embed_positions",
        final_norm="model.decoder.final_layer_norm",
        output_projection="self_attn.out_proj",
        mlp="fc1",
        mlp_gate="fc1",
        mlp_up=None,
        mlp_down="fc2",
        mlp_write="fc2",
        gated=False,
    ),
)

FAMILIES: dict[str, Family] = {family.name: family for family in _TABLE}
"""The families that were proved on tiny random models, by `config.model_type`."""

STRUCTURAL_FALLBACK = replace(_LLAMA, name="llama-like")
"""Paths tried for an unknown model type; the probe decides what of it holds."""
