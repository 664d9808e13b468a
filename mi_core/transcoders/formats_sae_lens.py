"""SAELens: `cfg.json` beside `sae_weights.safetensors` (or `model.safetensors`), one folder per layer.

`W_enc` [d_in, d_sae] (transposed), `W_dec` [d_sae, d_in], `b_enc`, `b_dec`, and for a JumpReLU `threshold`.
The config names the architecture, the place (`hook_name`, and `hook_name_out` of a transcoder), and how the
input is prepared: `apply_b_dec_to_input` takes b_dec off first (older files do it without saying so), and
`center_writing_weights` means a stream without its mean over d_model. What would change numbers and is not
supported (input normalisation, gated architectures, scaling factors) is refused, never left out.

Source: decoderesearch/SAELens, saes/*.py; its loaders of older configs.
"""

from pathlib import PurePosixPath
from typing import Any

from mi_core.errors import TranscoderError
from mi_core.transcoders.folder import Folder, read_object
from mi_core.transcoders.formats_config import Config
from mi_core.transcoders.formats_hooks import NamedHook, parse_hook
from mi_core.transcoders.formats_names import SAE_LENS, SAE_LENS_CONFIG
from mi_core.transcoders.formats_parts import LayerParts, Parts, Tensors, Where
from mi_core.transcoders.formats_plt import plt_checked

_ARCHITECTURES = {
    "standard": "relu", "jumprelu": "jumprelu", "topk": "topk", "batchtopk": "jumprelu",
    "transcoder": "relu", "skip_transcoder": "relu", "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
}  # fmt: skip


def sae_lens_parts(folder: Folder, tensors: Tensors, config: Config) -> Parts:
    """Understand a folder of SAELens: one SAE, or one folder below per layer.

    Raises:
        TranscoderError: several SAEs for a layer, another architecture, or keys and shapes are not as the
            format has them.
    """
    layers: dict[int, LayerParts] = {}
    hooks: set[tuple[Any, Any]] = set()
    told = Config(SAE_LENS_CONFIG)
    for file in _configs(folder):
        cfg = _flat(read_object(folder, file))
        reads, writes = _hooks(cfg, file)
        layer = _layer(cfg, reads, file)
        if layer in layers:
            raise TranscoderError(
                f"{folder.name} has several SAEs for layer {layer}", kind="unsupported",
                fix="Choose one of its folders",
            )  # fmt: skip
        layers[layer] = _parts(folder, tensors, cfg, file)
        hooks.add((reads.hook, writes.hook))
        told = Config(file, str(cfg.get("model_name") or "")[:300], "", reads, writes)
    if len(hooks) > 1:
        raise TranscoderError(
            f"{folder.name} has SAEs of several places", kind="unsupported", fix="Choose one of its folders"
        )
    merged = Config(told.file, config.model_name or told.model_name, "", told.reads, told.writes)
    return plt_checked("SAELens", tensors, merged, dict(sorted(layers.items())))


def _configs(folder: Folder) -> list[str]:
    """The configs to read; of a repository those whose weights were fetched, unless none were."""
    configs = sorted(file for file in folder.files if PurePosixPath(file).name == SAE_LENS_CONFIG)
    fetched = [file for file in configs if _weights(folder, file)] if folder.repo else []
    return fetched or configs


def _weights(folder: Folder, config: str) -> str | None:
    """The weights beside a config."""
    beside = (str(PurePosixPath(config).with_name(name)) for name in SAE_LENS)
    return next((file for file in beside if file in folder.files), None)


def _flat(cfg: dict[str, Any]) -> dict[str, Any]:
    """The config with its metadata on the same level (since version 6 of SAELens)."""
    metadata = cfg.get("metadata")
    return {**cfg, **metadata} if isinstance(metadata, dict) else cfg


def _hooks(cfg: dict[str, Any], file: str) -> tuple[NamedHook, NamedHook]:
    name = cfg.get("hook_name") or cfg.get("hook_point")
    reads = parse_hook(name, file)
    out = cfg.get("hook_name_out")
    return reads, parse_hook(out, file) if out else reads


def _layer(cfg: dict[str, Any], reads: NamedHook, file: str) -> int:
    layer = reads.layer if reads.layer is not None else cfg.get("hook_layer", cfg.get("hook_point_layer"))
    if not isinstance(layer, int) or isinstance(layer, bool) or layer < 0:
        raise TranscoderError(
            f"{file} does not say which layer it is for", kind="missing", why="its hook_name has no number"
        )
    out = cfg.get("hook_layer_out", layer)
    if out != layer:
        raise TranscoderError(
            f"The transcoder in {file} writes to another layer than it reads", kind="unsupported",
            why=f"from {layer} to {str(out)[:20]}",
        )  # fmt: skip
    return layer


def _parts(folder: Folder, tensors: Tensors, cfg: dict[str, Any], file: str) -> LayerParts:
    weights = _weights(folder, file)
    if weights is None:
        raise TranscoderError(
            f"{folder.name} is incomplete", kind="missing", why=f"there is no {SAE_LENS[0]} beside {file}"
        )
    activation = _activation(cfg, file)
    _refuse_preparations(cfg, tensors, weights, file)
    keys = tensors.file(weights).tensors

    def where(key: str, transposed: bool = False) -> Where:
        return Where(weights, key, transposed)

    k = (cfg.get("activation_fn_kwargs") or {}).get("k", cfg.get("k")) if activation == "topk" else None
    if activation == "topk" and (not isinstance(k, int) or k < 1):
        raise TranscoderError(f"{file} is incomplete", kind="missing", why="a top-k needs a positive k")
    return LayerParts(
        encoder=where("W_enc", transposed=True),
        b_enc=where("b_enc"),
        b_dec=where("b_dec"),
        decoder=where("W_dec"),
        # Activations are those of a JumpReLU exactly when there are thresholds, whatever the config calls it.
        threshold=where("threshold") if activation == "jumprelu" or "threshold" in keys else None,
        skip=where("W_skip", transposed=True) if "W_skip" in keys else None,
        k=k,
        centre=where("b_dec") if cfg.get("apply_b_dec_to_input", True) else None,
        centred=_is_centred(cfg),
        positive=True,
    )


def _is_centred(cfg: dict[str, Any]) -> bool:
    """Whether it was trained on TransformerLens' centred stream.

    The oldest configs (`hook_point`) do not say it; SAELens' own list of SAEs does, for all of that time:
    TransformerLens centred by default then.
    """
    options = cfg.get("model_from_pretrained_kwargs")
    if isinstance(options, dict):
        return options.get("center_writing_weights") is True
    return "hook_point" in cfg


def _activation(cfg: dict[str, Any], file: str) -> str:
    architecture = str(cfg.get("architecture", "standard")).lower().replace("jump_relu", "jumprelu")
    activation = _ARCHITECTURES.get(architecture)
    named = str(cfg.get("activation_fn_str", cfg.get("activation_fn", "relu")) or "relu").lower()
    if activation == "relu" and named == "topk":
        activation = "topk"
    if activation is None or named not in ("relu", "topk", "jumprelu"):
        other = architecture if activation is None else named
        raise TranscoderError(
            f"The architecture {other[:40]!r} in {file} is not supported", kind="unsupported",
            why="standard, jumprelu and topk can be read",
        )  # fmt: skip
    return activation


def _refuse_preparations(cfg: dict[str, Any], tensors: Tensors, weights: str, file: str) -> None:
    """Steps of SAELens that change the numbers and are not done here."""
    normalised = cfg.get("normalize_activations")
    told = "apply_b_dec_to_input" in cfg or "transcoder" not in str(cfg.get("architecture", ""))
    reasons = {
        "it does not say whether b_dec is taken off the input (apply_b_dec_to_input)": not told,
        f"normalize_activations is {str(normalised)[:40]!r}": normalised not in (None, "none", False),
        "it rescales activations by the decoder's norms": bool(cfg.get("rescale_acts_by_decoder_norm")),
        "it has a scaling factor of its own": bool(cfg.get("finetuning_scaling_factor"))
        or "scaling_factor" in tensors.file(weights).tensors,
        "it reads one head's output": cfg.get("hook_head_index") is not None,
        "it reshapes what it reads": cfg.get("reshape_activations") not in (None, "none"),
    }
    reason = next((why for why, holds in reasons.items() if holds), None)
    if reason is not None:
        raise TranscoderError(
            f"{file} describes an SAE that is not supported", kind="unsupported", why=reason,
            fix="Fold it into the weights with SAELens first",
        )  # fmt: skip
