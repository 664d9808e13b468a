"""The pieces of an inspection: one weight, the plan of the blocks, a site, a config key, a device's memory.

Plain data; nothing here needs torch.
"""

from dataclasses import dataclass
from typing import Literal

Role = Literal["embedding", "attention", "mlp", "norm", "unembedding", "other"]
Reader = Literal["Lantern", "transformers", "nobody"]

ROLES: dict[Role, str] = {
    "embedding": "token and position embeddings",
    "attention": "queries, keys, values, outputs and their biases",
    "mlp": "MLP matrices and their biases",
    "norm": "gains and biases of norms",
    "unembedding": "from the last residual to logits",
    "other": "what no role covers, by its own name",
}


@dataclass(frozen=True, slots=True)
class WeightInfo:
    """One matrix or vector of the model, or one head's part of it.

    Attributes:
        name: TransformerLens name where it has one ("W_Q", "b_O", "W_E"), else its own name inside the block.
        role: one of `ROLES`.
        layer: layer number, None for what exists once.
        head: head (or key-value head) number of a part; None for a whole matrix.
        shape: as `mi_core.model.weights` gives it; a whole matrix of heads is [d_model, head * d_head].
        dtype: of the stored numbers.
        stored_in: own name of the parameter that holds it, such as "model.layers.0.mlp.up_proj.weight".
        tied_to: full name of the weight that it shares its numbers with; "" if none. Counted there, not here.
    """

    name: str
    role: Role
    layer: int | None
    head: int | None
    shape: tuple[int, ...]
    dtype: str
    stored_in: str
    tied_to: str = ""

    @property
    def full_name(self) -> str:
        """Unique name, such as `blocks.3.attn.W_Q` or `blocks.3.attn.W_Q[5]` for head 5."""
        if self.name in _ONCE:
            return _ONCE[self.name]
        if self.layer is None or self.role == "other":
            return self.stored_in
        part = {"attention": "attn.", "mlp": "mlp."}.get(self.role, "")
        return f"blocks.{self.layer}.{part}{self.name}" + ("" if self.head is None else f"[{self.head}]")

    @property
    def numbers(self) -> int:
        """How many entries it has."""
        count = 1
        for size in self.shape:
            count *= size
        return count


_ONCE = {"W_E": "embed.W_E", "W_pos": "pos_embed.W_pos", "W_U": "unembed.W_U", "b_U": "unembed.b_U"}


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a drawing of the model needs, from the family's data and the modules themselves.

    Attributes:
        family: name of the family's entry.
        known: whether the model type has an entry of its own.
        n_layers, n_heads, n_kv_heads, d_model, d_head, d_mlp, d_vocab: sizes.
        parallel: attention and MLP of a block read the same stream.
        gated: the MLP multiplies two branches.
        activation: its non-linearity, as the config names it; "" when it does not say.
        rotary: positions rotate queries and keys; otherwise they are added to the embedding.
        tied: embedding and unembedding are one matrix.
        attention_norm, mlp_norm: own names of the norms before them; "" if there is none.
        attention_post_norm, mlp_post_norm: own names of the norms on what they add; "" if there is none.
        query_key_norm: whether queries and keys are normed.
        final_norm: own name of the last norm; "" if there is none.
        softcap: final softcap of the logits; None if there is none.
        norms_known: whether the probe proved what a block adds; if not, its norms are left out.
        layer_kinds: per layer "full" or "sliding", as the config says; empty when it does not say.
    """

    family: str
    known: bool
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int
    parallel: bool
    gated: bool
    activation: str
    rotary: bool
    tied: bool
    attention_norm: str
    mlp_norm: str
    attention_post_norm: str
    mlp_post_norm: str
    query_key_norm: bool
    final_norm: str
    softcap: float | None
    norms_known: bool = True
    layer_kinds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SiteInfo:
    """One site on this model.

    Attributes:
        name: short name.
        full_name: TransformerLens hook, `{l}` standing for the layer.
        axes: axis names.
        sizes: their sizes; None where the prompt decides.
        layers: at how many layers it exists; 1 for a site of the model.
        meaning: one clause.
        missing: why it cannot be read on this model; "" when it can.
    """

    name: str
    full_name: str
    axes: tuple[str, ...]
    sizes: tuple[int | None, ...]
    layers: int
    meaning: str
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Proof:
    """One check of the load-time probe.

    Attributes:
        name: what was proved.
        passed: whether it held.
        detail: the figure it rests on.
        switched_off: sites that are not offered because it failed.
    """

    name: str
    passed: bool
    detail: str
    switched_off: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConfigKey:
    """One key of the model's config.json.

    Attributes:
        key: its name; keys of a nested text config are written `text_config.key`.
        value: as JSON text, shortened.
        reader: who reads it: Lantern, transformers (which runs the model), or nobody.
        default: whether it is what the configuration class would assume anyway.
        note: what Lantern does with it, if that needs saying.
    """

    key: str
    value: str
    reader: Reader
    default: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Memory of one device at the time of the inspection, in bytes.

    Attributes:
        device: "cpu", "cuda:0", ...
        weights: of this model, there.
        free: what a new model could take; None when the system does not tell.
        peak: the most that this process has held there since it began; None when it is not known.
    """

    device: str
    weights: int
    free: int | None
    peak: int | None
