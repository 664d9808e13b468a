"""Per-layer transcoders: circuit-tracer's `layer_{l}.safetensors`.

`W_enc` [feature, d_model], `W_dec` [feature, d_model], `b_enc` [feature], `b_dec` [d_model], and sometimes
`activation_function.threshold` [feature] (a JumpReLU exactly then), `W_skip` [d_model, d_model] (used as
x @ W_skip.T: transposed, unlike a CLT's) and `k` of a top-k. Version 0.1 stored `W_dec` as [d_model,
feature]; both are read, told apart by their shape.

Source: decoderesearch/circuit-tracer, transcoder/single_layer_transcoder.py.
"""

from mi_core.errors import TranscoderError
from mi_core.transcoders.folder import Folder
from mi_core.transcoders.formats_clt import check_layer, numbered
from mi_core.transcoders.formats_config import Config
from mi_core.transcoders.formats_names import PLT
from mi_core.transcoders.formats_parts import LayerParts, Parts, Tensors, Where
from mi_core.transcoders.transcoder import Hook

OLD_ORIENTATION = (
    "The decoders are stored in the old orientation, one column per feature: every look at a feature "
    "reads the whole decoder of its layer."
)
THRESHOLDS = ("activation_function.threshold", "threshold")


def plt_parts(folder: Folder, tensors: Tensors, config: Config) -> Parts:
    """Understand a folder of per-layer transcoders.

    Raises:
        TranscoderError: files, keys or shapes are not as the format has them, or the config names no hooks.
    """
    files = numbered(folder.files, PLT)
    layers = {layer: plt_layer(tensors, file, config.k) for layer, file in files.items()}
    return plt_checked("PLT folder", tensors, config, layers)


def plt_layer(tensors: Tensors, file: str, k: int | None, folder: Folder | None = None) -> LayerParts:
    """Where the tensors of one layer's file lie."""
    opened = tensors.file(file, folder)
    keys = opened.tensors
    threshold = next((key for key in THRESHOLDS if key in keys), None)
    if k is None and "k" in keys:
        k = int(opened.tensor("k").flatten()[0])
    d_model = opened.stored("b_dec").shape[-1:]
    n = opened.stored("b_enc").shape[-1:]
    legacy = opened.stored("W_dec").shape == (*d_model, *n) and d_model != n

    def where(key: str, transposed: bool = False) -> Where:
        return Where(file, key, transposed, folder)

    return LayerParts(
        encoder=where("W_enc"),
        b_enc=where("b_enc"),
        b_dec=where("b_dec"),
        decoder=where("W_dec", legacy),
        threshold=None if threshold is None else where(threshold),
        skip=where("W_skip", transposed=True) if "W_skip" in keys else None,
        k=k,
    )


def plt_checked(
    name: str, tensors: Tensors, config: Config, layers: dict[int, LayerParts], default: Hook | None = None
) -> Parts:
    """Check the shapes of all layers.

    Args:
        name: of the format, for people.
        tensors: the files.
        config: the config.yaml; its hooks are needed unless there is a default.
        layers: where everything lies.
        default: the place that is read where the config names none; what is written is then `mlp_out`.

    Raises:
        TranscoderError: kind "missing" or "shape".
    """
    reads = config.reads.hook if config.reads else default
    writes = config.writes.hook if config.writes else (Hook("mlp_out") if default else None)
    if reads is None or writes is None:
        raise TranscoderError(
            f"{config.file} does not say where the transcoder reads and writes", kind="missing",
            why="feature_input_hook and feature_output_hook are needed; guessing would give wrong numbers",
            fix="Add both, for example mlp.hook_in and mlp.hook_out",
        )  # fmt: skip
    d_model = tensors.expect(next(iter(layers.values())).b_dec, None)[0]
    n_features = {layer: check_layer(tensors, part, d_model, None, layer) for layer, part in layers.items()}
    return Parts(
        name, "sae" if reads == writes else "plt", layers, n_features, 0, d_model, reads, writes,
        config.model_name, config.writes is not None and config.writes.before_post_norm,
        _notes(layers),
    )  # fmt: skip


def _notes(layers: dict[int, LayerParts]) -> tuple[str, ...]:
    turned = [layer for layer, part in layers.items() if part.decoder is not None and part.decoder.transposed]
    return (OLD_ORIENTATION,) if turned else ()
