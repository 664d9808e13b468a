"""Opening a transcoder of any known format.

    CLT folder            W_enc_0.safetensors, W_dec_0.safetensors, ..., config.yaml      formats_clt
    Gemma Scope 2 CLT     params_layer_0.safetensors, ...                                 formats_clt
    PLT folder            layer_0.safetensors, ..., config.yaml                           formats_plt
    list of files         config.yaml with `transcoders:`, one file per layer anywhere    here
    Gemma Scope           params.npz or params.safetensors, also in folders below         formats_gemma_scope
    SAELens               cfg.json and sae_weights.safetensors, also in folders below     formats_sae_lens

Only headers and small texts are read; shapes are checked against each other and against the model, so that a
wrong, partial or foreign folder is refused before a number of it is used.
"""

from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from mi_core.errors import TranscoderError
from mi_core.transcoders.folder import Folder, LocalFolder, fingerprint
from mi_core.transcoders.formats_clt import clt_parts, gemma_scope_2_clt_parts
from mi_core.transcoders.formats_config import Config, read_config
from mi_core.transcoders.formats_gemma_scope import gemma_scope_layer, gemma_scope_parts
from mi_core.transcoders.formats_names import ENCODER, GEMMA_SCOPE, GEMMA_SCOPE_2_CLT, PLT, SAE_LENS_CONFIG
from mi_core.transcoders.formats_parts import FileSource, LayerParts, Parts, Tensors
from mi_core.transcoders.formats_plt import OLD_ORIENTATION, plt_checked, plt_layer, plt_parts
from mi_core.transcoders.formats_sae_lens import sae_lens_parts
from mi_core.transcoders.sizes import decoder_bytes_of, decoders_are_here
from mi_core.transcoders.transcoder import Hook, Transcoder

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel

HUB = "hf://"
_PICKLES = (".pt", ".pth", ".bin", ".pkl")
_NORMALISED = Hook("resid_mid", normalised=True)


def understand(folder: Folder, n_layers: int | None = None) -> tuple[Parts, Tensors]:
    """What a folder holds: its format, and where every tensor lies that can be read.

    Args:
        folder: the folder.
        n_layers: of the model; None = as far as the files tell.

    Raises:
        TranscoderError: it is no transcoder, or its files are not as their format has them.
    """
    tensors = Tensors(folder)
    return _readable(_parts(folder, tensors, n_layers), tensors), tensors


def _parts(folder: Folder, tensors: Tensors, n_layers: int | None) -> Parts:
    """By the names of the files."""
    config = read_config(folder)
    names = {PurePosixPath(file).name for file in folder.files}
    if any(ENCODER.fullmatch(file) for file in folder.files):
        return clt_parts(folder, tensors, config, n_layers)
    if any(GEMMA_SCOPE_2_CLT.fullmatch(file) for file in folder.files):
        return gemma_scope_2_clt_parts(folder, tensors, config, n_layers)
    if config.files:
        return _listed_parts(folder, tensors, config)
    if any(PLT.fullmatch(file) for file in folder.files):
        return plt_parts(folder, tensors, config)
    if SAE_LENS_CONFIG in names:
        return sae_lens_parts(folder, tensors, config)
    if names & set(GEMMA_SCOPE):
        return gemma_scope_parts(folder, tensors, config)
    raise _unknown(folder)


def _readable(parts: Parts, tensors: Tensors) -> Parts:
    """Without the decoders of files of which only the encoder was fetched, unless their rows may be read.

    A decoder with one column per feature has no rows that a range could be: it is needed whole.
    """
    layers, columns = dict(parts.layers), False
    for layer, part in parts.layers.items():
        where = part.decoder
        if where is None or (where.folder or tensors.folder).here(where.file):
            continue
        by_column = where.transposed != tensors.of(where).stored(where.key).by_column
        columns |= by_column
        if by_column or not (where.folder or tensors.folder).whole(where.file):
            layers[layer] = replace(part, decoder=None)
    if not columns:
        return replace(parts, layers=layers)
    left = any(part.decoder is not None and part.decoder.transposed for part in layers.values())
    told = [note for note in parts.warnings if left or note != OLD_ORIENTATION]
    note = (
        "The decoders are stored with one column per feature, so their rows cannot be read from the hub one "
        "by one: fetch the whole layers to see what features write."
    )
    return replace(parts, layers=layers, warnings=(*told, note))


def _listed_parts(folder: Folder, tensors: Tensors, config: Config) -> Parts:
    """One file per layer, anywhere, as the config lists them."""
    layers: dict[int, LayerParts] = {}
    gemma = False
    for layer, reference in enumerate(config.files):
        place, file = folder.elsewhere(reference) if reference.startswith(HUB) else (folder, reference)
        other = None if place is folder else place
        opened = tensors.file(file, other)
        if "w_enc" in opened.tensors or PurePosixPath(file).suffix == ".npz":
            layers[layer] = gemma_scope_layer(tensors, file, other)
            gemma = True
        else:
            layers[layer] = plt_layer(tensors, file, config.k, other)
    # circuit-tracer's list of Gemma Scope's first release names its hooks; older copies of it do not.
    return plt_checked("list of files", tensors, config, layers, _NORMALISED if gemma else None)


def _unknown(folder: Folder) -> TranscoderError:
    pickles = [
        file for file in folder.files if PurePosixPath(file).suffix in _PICKLES and "features/" not in file
    ]
    if pickles:
        return TranscoderError(
            f"{folder.name} holds pickles", kind="unsupported",
            why=f"{pickles[0]} and files like it can run code when they are opened",
            fix="Convert it to safetensors",
        )  # fmt: skip
    there = ", ".join(sorted(folder.files)[:4]) or "nothing"
    return TranscoderError(
        f"{folder.name} is no transcoder", kind="missing",
        why="it has neither W_enc_0.safetensors, layer_0.safetensors, params.npz nor cfg.json"
        f" (it has {there})",
        fix="Choose a folder of circuit-tracer's, Gemma Scope's or SAELens' format",
    )  # fmt: skip


def open_folder(folder: Folder, model: "LoadedModel", name: str = "") -> Transcoder:
    """Open a transcoder for a model.

    Args:
        folder: its files.
        model: the loaded model that it was made for.
        name: what it was asked for by; "" = the folder's name.

    Raises:
        TranscoderError: no known format, damaged or partial files, or made for another model.
    """
    parts, tensors = understand(folder, model.dims.n_layers)
    parts = _stream_of(parts, model)
    _check_model(parts, model, folder.name)
    source = FileSource(tensors, parts, model.dims.n_layers)
    return Transcoder(
        name=name or folder.name,
        kind=parts.kind,
        model_name=parts.model_name,
        n_layers=model.dims.n_layers,
        n_features=parts.n_features,
        d_model=parts.d_model,
        reads=parts.reads,
        writes=parts.writes,
        fingerprint=fingerprint(folder, used_files(parts)),
        source=source,
        device=model.device,
        has_decoder=any(part.decoder is not None for part in parts.layers.values()),
        activation=activation_of(parts),
        warnings=parts.warnings,
        folder=folder.path if isinstance(folder, LocalFolder) else None,
        repo=folder.repo,
        local=decoders_are_here(parts, folder),
        decoder_bytes=decoder_bytes_of(parts, tensors),
    )


def _stream_of(parts: Parts, model: "LoadedModel") -> Parts:
    """Parts with what is known of the model's stream: TransformerLens centres only where norms do."""
    from torch import nn

    if not any(part.centred for part in parts.layers.values()):
        return parts
    in_stream = parts.reads.site != "mlp_in" and not parts.reads.normalised
    if in_stream and any(isinstance(module, nn.LayerNorm) for module in model.hf.modules()):
        note = (
            "It was made on a stream without its mean over the model's width, as TransformerLens makes it: "
            "features are read so, and its reconstruction lacks that mean, which no norm of this model sees."
        )
        return replace(parts, warnings=(*parts.warnings, note))
    layers = {layer: replace(part, centred=False) for layer, part in parts.layers.items()}
    return replace(parts, layers=layers)


def used_files(parts: Parts) -> list[str]:
    """The files that tensors are read from, as far as they lie in the folder itself."""
    found: set[str] = set()
    for part in parts.layers.values():
        places = (part.encoder, part.b_enc, part.b_dec, part.decoder, part.threshold, part.skip)
        found |= {place.file for place in places if place is not None and place.folder is None}
    return sorted(found)


def activation_of(parts: Parts) -> str:
    """The activation function, for people."""
    first = next(iter(parts.layers.values()))
    kind = "ReLU" if first.threshold is None else "JumpReLU"
    return kind if first.k is None else f"top-k (k = {first.k})"


def _check_model(parts: Parts, model: "LoadedModel", name: str) -> None:
    """Refuse what cannot belong to the model, whatever its name says."""
    from mi_core.engine import post_norm

    dims = model.dims
    if parts.d_model != dims.d_model:
        raise _foreign(name, parts, _other_width(parts, dims.d_model))
    if max(parts.layers) >= dims.n_layers:
        why = f"it has a layer {max(parts.layers)}, the model's layers count from 0 to {dims.n_layers - 1}"
        raise _foreign(name, parts, why)
    sites = set(model.structure.available())
    needed = (parts.reads.site, "mlp_in") if parts.reads.normalised else (parts.reads.site,)
    for site in (*needed, parts.writes.site):
        if site not in sites:
            raise TranscoderError(
                f"{name} does not fit this model", kind="mismatch",
                why=f"it needs {site}, which this model does not have",
            )  # fmt: skip
    if parts.before_post_norm and post_norm(model, "mlp", min(parts.layers)) is not None:
        raise TranscoderError(
            f"{name} cannot be used with this model", kind="unsupported",
            why="it writes the MLP's output before the model's post-norm, which is not a place of ours",
        )  # fmt: skip


def _other_width(parts: Parts, d_model: int) -> str:
    """Which tensor has another width than the model, with its shape and the one that was expected."""
    layer, part = next(iter(parts.layers.items()))
    where, n = part.encoder, parts.n_features[layer]

    def shape(width: int) -> str:
        return str([width, n] if where.transposed else [n, width])

    return (
        f"{where.key} in {where.file} has shape {shape(parts.d_model)} and {shape(d_model)} was expected, as "
        f"it reads {parts.d_model} numbers per token, the model has {d_model}"
    )


def _foreign(name: str, parts: Parts, why: str) -> TranscoderError:
    made_for = f"; it says that it is for {parts.model_name}" if parts.model_name else ""
    return TranscoderError(
        f"{name} was made for another model", kind="mismatch", why=why + made_for,
        fix="Choose one that was made for this model",
    )  # fmt: skip
