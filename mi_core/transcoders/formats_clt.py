"""Cross-layer transcoders: circuit-tracer's folder, and Gemma Scope 2's.

Folder: `W_enc_{l}.safetensors` with `W_enc_{l}` [feature, d_model], `b_enc_{l}` [feature], `b_dec_{l}`
[d_model] (of the TARGET layer l), and sometimes `threshold_{l}` [feature] (a JumpReLU exactly then) and
`W_skip_{l}` (used as x @ W_skip, not transposed); `W_dec_{l}.safetensors` with `W_dec_{l}` [feature,
n_layers - l, d_model], whose entry j writes to layer l + j. `b_dec_{l}` is accepted in either file.

Gemma Scope 2: `params_layer_{l}.safetensors` with `w_enc` [d_model, feature], `w_dec` [feature, n_layers,
d_model] (entries before l unused) or already [feature, n_layers - l, d_model], `threshold`,
`affine_skip_connection`.

Sources: decoderesearch/circuit-tracer, transcoder/cross_layer_transcoder.py.
"""

import re
from collections.abc import Iterable

from mi_core.errors import TranscoderError
from mi_core.transcoders.folder import Folder
from mi_core.transcoders.formats_config import Config
from mi_core.transcoders.formats_names import ENCODER, GEMMA_SCOPE_2_CLT
from mi_core.transcoders.formats_parts import LayerParts, Parts, Tensors, Where, wrong_shape
from mi_core.transcoders.transcoder import Hook


def numbered(files: Iterable[str], pattern: re.Pattern[str]) -> dict[int, str]:
    """Files by the layer number in their names, ascending."""
    found = {int(match[1]): file for file in files if (match := pattern.fullmatch(file))}
    return dict(sorted(found.items()))


def clt_parts(folder: Folder, tensors: Tensors, config: Config, n_layers: int | None) -> Parts:
    """Understand a CLT folder.

    Args:
        folder: the folder.
        tensors: its files.
        config: its config.yaml.
        n_layers: of the model; None = unknown, then it is taken from the decoders, else from the encoders.

    Raises:
        TranscoderError: files, keys or shapes are not as the format has them.
    """
    encoders = numbered(folder.files, ENCODER)
    layers = {layer: _layer(folder, tensors, layer, file) for layer, file in encoders.items()}
    return _checked("CLT folder", tensors, config, layers, n_layers)


def _layer(folder: Folder, tensors: Tensors, layer: int, file: str) -> LayerParts:
    decoder = f"W_dec_{layer}.safetensors"
    has_decoder = decoder in folder.files
    keys = tensors.file(file).tensors
    bias_key = f"b_dec_{layer}"
    bias_file = file
    if bias_key not in keys and has_decoder and bias_key in tensors.file(decoder).tensors:
        bias_file = decoder
    threshold, skip = f"threshold_{layer}", f"W_skip_{layer}"
    return LayerParts(
        encoder=Where(file, f"W_enc_{layer}"),
        b_enc=Where(file, f"b_enc_{layer}"),
        b_dec=Where(bias_file, bias_key),
        decoder=Where(decoder, f"W_dec_{layer}") if has_decoder else None,
        threshold=Where(file, threshold) if threshold in keys else None,
        skip=Where(file, skip) if skip in keys else None,
    )


def gemma_scope_2_clt_parts(folder: Folder, tensors: Tensors, config: Config, n_layers: int | None) -> Parts:
    """Understand the CLT of Gemma Scope 2.

    Raises:
        TranscoderError: as `clt_parts`.
    """
    files = numbered(folder.files, GEMMA_SCOPE_2_CLT)
    layers = {}
    for layer, file in files.items():
        shape = tensors.file(file).stored("w_dec").shape
        whole = len(shape) == 3 and shape[1] == (n_layers or len(files))
        layers[layer] = LayerParts(
            encoder=Where(file, "w_enc", transposed=True),
            b_enc=Where(file, "b_enc"),
            b_dec=Where(file, "b_dec"),
            decoder=Where(file, "w_dec"),
            first_target=layer if whole else 0,
            threshold=Where(file, "threshold"),
            skip=_optional(tensors, file, "affine_skip_connection"),
            positive=True,
        )
    return _checked("Gemma Scope 2 CLT", tensors, config, layers, n_layers)


def _optional(tensors: Tensors, file: str, key: str) -> Where | None:
    return Where(file, key) if key in tensors.file(file).tensors else None


def _checked(
    name: str, tensors: Tensors, config: Config, layers: dict[int, LayerParts], n_layers: int | None
) -> Parts:
    d_model = tensors.expect(next(iter(layers.values())).b_dec, None)[0]
    total = n_layers or _told_layers(tensors, layers) or len(layers)
    if max(layers) >= total:
        raise TranscoderError(
            "The transcoder was made for another model", kind="mismatch",
            why=f"it has a layer {max(layers)}, and the model's layers count from 0 to {total - 1}",
        )  # fmt: skip
    n_features = {
        layer: check_layer(tensors, part, d_model, total - layer, layer) for layer, part in layers.items()
    }
    some = sum(part.threshold is not None for part in layers.values())
    if some not in (0, len(layers)):
        lacking = next(layer for layer, part in layers.items() if part.threshold is None)
        raise TranscoderError(
            f"{layers[lacking].encoder.file} has no threshold", kind="missing",
            why="other layers have one, and a JumpReLU needs one in every layer",
        )  # fmt: skip
    return Parts(
        name, "clt", layers, n_features, total, d_model,
        config.reads.hook if config.reads else Hook("resid_mid"),
        config.writes.hook if config.writes else Hook("mlp_out"),
        config.model_name, config.writes is not None and config.writes.before_post_norm,
        _notes(layers, total),
    )  # fmt: skip


def _told_layers(tensors: Tensors, layers: dict[int, LayerParts]) -> int | None:
    """Layers of the model as the first decoder's shape tells them."""
    for layer, part in layers.items():
        if part.decoder is not None:
            shape = tensors.shape(part.decoder)
            return layer + shape[1] - part.first_target if len(shape) == 3 else None
    return None


def check_layer(tensors: Tensors, part: LayerParts, d_model: int, n_targets: int | None, layer: int) -> int:
    """Check the shapes of one layer; a target axis is only there with `n_targets`.

    Returns:
        Its number of features.

    Raises:
        TranscoderError: kind "missing" or "shape".
    """
    n = tensors.expect(part.b_enc, None)[0]
    width = f"{n} features of {part.b_enc.key}, {d_model} numbers of {part.b_dec.key}"
    tensors.expect(part.encoder, n, d_model, why=width)
    tensors.expect(part.b_dec, d_model, why="the same width in every layer")
    if part.threshold is not None:
        tensors.expect(part.threshold, n, why=f"{n} features")
    if part.skip is not None:
        tensors.expect(part.skip, d_model, d_model, why="from and to the stream")
    if part.decoder is not None and n_targets is None:
        tensors.expect(part.decoder, n, d_model, why=width)
    elif part.decoder is not None and n_targets is not None:
        wanted = (n, n_targets + part.first_target, d_model)
        _check_targets(tensors, part.decoder, wanted, part.first_target, layer)
    return n


def _check_targets(
    tensors: Tensors, decoder: Where, wanted: tuple[int, int, int], first_target: int, layer: int
) -> None:
    """The shape of a decoder with a target axis, whose length says how many layers the model has."""
    n, width, d_model = wanted
    found = tensors.shape(decoder)
    if found == wanted:
        return
    if len(found) == 3 and (found[0], found[2]) == (n, d_model):
        raise TranscoderError(
            "The transcoder was made for another model", kind="mismatch",
            why=f"{decoder.key} in {decoder.file} has shape {list(found)}, which means"
            f" {layer + found[1] - first_target} layers, and the model has {layer + width - first_target}"
            f" ({list(wanted)} was expected)",
        )  # fmt: skip
    raise wrong_shape(decoder, wanted, found, f"{width - first_target} layers from {layer} on")


def _notes(layers: dict[int, LayerParts], n_layers: int) -> tuple[str, ...]:
    missing = [layer for layer in range(n_layers) if layer not in layers]
    if not missing:
        return ()
    names = ", ".join(map(str, missing[:12])) + (" and more" if len(missing) > 12 else "")
    return (
        f"{len(missing)} of {n_layers} layers are not here ({names}): what their features would write, and "
        "their output biases, are missing from every reconstruction.",
    )
