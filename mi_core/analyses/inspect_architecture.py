"""What the drawing of a model shows, read from the family's data, the modules' names and the configuration.

No forward pass is run. Norms before attention and MLP are the block's own norms, in the order in which the
family registers them; they are left out where the probe could not prove that a block adds its two outputs to
the stream, because then a drawing would claim more than is known.
"""

from torch import nn

from mi_core.analyses.inspect_parts import Architecture
from mi_core.model.model import LoadedModel
from mi_core.model.structure import child, text_config
from mi_core.model.weights import tied

_ACTIVATIONS = ("hidden_activation", "hidden_act", "activation_function")


def architecture_of(model: LoadedModel) -> Architecture:
    """Describe the blocks of a loaded model and what stands before and behind them."""
    structure, dims = model.structure, model.dims
    family, block = structure.family, structure.blocks[0]
    config = text_config(model.hf.config)
    before, attention_post, mlp_post = _norms(model)
    return Architecture(
        family=family.name,
        known=structure.known,
        n_layers=dims.n_layers,
        n_heads=dims.n_heads,
        n_kv_heads=dims.n_kv_heads,
        d_model=dims.d_model,
        d_head=dims.d_head,
        d_mlp=dims.d_mlp,
        d_vocab=dims.d_vocab,
        parallel=structure.parallel,
        gated=family.gated,
        activation=next(
            (str(found) for name in _ACTIVATIONS if (found := getattr(config, name, None)) is not None), ""
        ),
        rotary=family.rotary,
        tied=model.hf.get_output_embeddings() is not None and tied(model.hf),
        attention_norm=before[0] if before else "",
        # One norm in a parallel block feeds both branches.
        mlp_norm=before[1] if len(before) > 1 else before[0] if before and structure.parallel else "",
        attention_post_norm=attention_post,
        mlp_post_norm=mlp_post,
        query_key_norm=child(block, family.query_norm) is not None,
        final_norm=family.final_norm if child(model.hf, family.final_norm) is not None else "",
        softcap=_optional(getattr(config, "final_logit_softcapping", None)),
        norms_known=_proved(model),
        layer_kinds=_layer_kinds(config, dims.n_layers),
    )


def _proved(model: LoadedModel) -> bool:
    """Whether what attention and MLP add to the stream could be read, and adds up."""
    return not {"attn_out", "mlp_out"} & set(model.structure.missing)


def _norms(model: LoadedModel) -> tuple[list[str], str, str]:
    """Own names: norms before the two modules, norm behind attention, norm behind the MLP."""
    structure = model.structure
    if not _proved(model):
        return [], "", ""
    norms = [
        name for name, module in structure.blocks[0].named_children() if "norm" in _class(module).lower()
    ]
    written = (structure.family.attention_write, structure.family.mlp_write)
    attention_post, mlp_post = (name if name in norms else "" for name in written)
    return [name for name in norms if name not in written], attention_post, mlp_post


def _class(module: nn.Module) -> str:
    return type(module).__name__


def _optional(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _layer_kinds(config: object, n_layers: int) -> tuple[str, ...]:
    """Per layer what it attends to, such as full or sliding, where the configuration says so."""
    kinds = getattr(config, "layer_types", None)
    if isinstance(kinds, (list, tuple)) and len(kinds) == n_layers:
        return tuple(str(kind).removesuffix("_attention") for kind in kinds)
    return ("sliding",) * n_layers if isinstance(getattr(config, "sliding_window", None), int) else ()
