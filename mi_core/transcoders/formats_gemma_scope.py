"""Gemma Scope: NumPy archives per layer (first release) and safetensors with a config.json (second).

First: `params.npz` with `W_enc` [d_model, feature] (transposed), `W_dec` [feature, d_model], `b_enc`,
`b_dec`, `threshold`. The transcoders read the stream normalised WITHOUT the norm's gain
(`ln2.hook_normalized`) and write `hook_mlp_out`; the SAEs of the "-res" and "-mlp" repositories give back
`resid_post` or `mlp_out`.
Second: `params.safetensors` with lower-case keys, `affine_skip_connection` (used as x @ skip, not
transposed), and hooks as Hugging Face module paths in `config.json`.
All are JumpReLUs that clamp at 0 first, so a negative threshold acts as 0.

Sources: google/gemma-scope-2b-pt-transcoders, google/gemma-scope-2-*, Lieberum et al. 2024 (arXiv
2408.05147).
"""

import re
from pathlib import PurePosixPath

from mi_core.errors import TranscoderError
from mi_core.transcoders.folder import Folder, read_object
from mi_core.transcoders.formats_config import Config
from mi_core.transcoders.formats_hooks import NamedHook, parse_hook
from mi_core.transcoders.formats_names import GEMMA_SCOPE
from mi_core.transcoders.formats_parts import LayerParts, Parts, Tensors, Where
from mi_core.transcoders.formats_plt import plt_checked
from mi_core.transcoders.transcoder import Hook

_LAYER = re.compile(r"(?:^|[/_\-.])layer_(\d+)(?=[/_\-.]|$)")


def gemma_scope_parts(folder: Folder, tensors: Tensors, config: Config) -> Parts:
    """Understand a folder of Gemma Scope's files: one file, or one file per layer in folders below.

    Raises:
        TranscoderError: no or several files for a layer, or keys and shapes are not as the format has them.
    """
    files = _by_layer(folder)
    layers = {layer: gemma_scope_layer(tensors, file) for layer, file in files.items()}
    told = [_json_of(folder, file) for file in files.values()]
    named = next((one for one in told if one), {})
    reads, writes = (_same_hook(folder, told, key) for key in ("hf_hook_point_in", "hf_hook_point_out"))
    writes = writes or (reads if str(named.get("type", "sae")) != "transcoder" else None)
    model = named.get("model_name", "")
    merged = Config(
        config.file,
        config.model_name or (model if isinstance(model, str) else "")[:300],
        config.model_kind,
        config.reads or reads or _by_name(folder)[0],
        config.writes or writes or _by_name(folder)[1],
    )
    return plt_checked("Gemma Scope", tensors, merged, layers)


def gemma_scope_layer(tensors: Tensors, file: str, folder: Folder | None = None) -> LayerParts:
    """Where the tensors of one layer's file lie; keys in the case of either release."""
    opened = tensors.file(file, folder)
    small = "w_enc" in opened.tensors

    def where(key: str, transposed: bool = False) -> Where:
        return Where(file, key.lower() if small else key, transposed, folder)

    skip = "affine_skip_connection"
    return LayerParts(
        encoder=where("W_enc", transposed=True),
        b_enc=where("b_enc"),
        b_dec=where("b_dec"),
        decoder=where("W_dec"),
        threshold=where("threshold"),
        skip=where(skip) if skip in opened.tensors else None,
        positive=True,
    )


def _by_layer(folder: Folder) -> dict[int, str]:
    files = [file for file in folder.files if PurePosixPath(file).name in GEMMA_SCOPE]
    found: dict[int, str] = {}
    for file in files:
        layer = _layer_of(folder, file)
        if layer in found:
            raise TranscoderError(
                f"{folder.name} has several transcoders for layer {layer}", kind="unsupported",
                why=f"{found[layer]} and {file}",
                fix="Choose one of its folders, or list one file per layer in a config.yaml",
            )  # fmt: skip
        found[layer] = file
    return dict(sorted(found.items()))


def _layer_of(folder: Folder, file: str) -> int:
    """The layer that a file is for: in its path, in its config.json, or in the name of the folder."""
    found = _LAYER.findall(str(PurePosixPath(file).parent))
    told = _json_of(folder, file).get("hf_hook_point_in")
    if told is not None:
        layer = parse_hook(told, "config.json").layer
        if layer is not None:
            return layer
    found = found or _LAYER.findall(folder.name)
    if not found:
        raise TranscoderError(
            f"{file} does not say which layer it is for", kind="missing",
            why="neither its path nor a config.json names one", fix="Name its folder layer_12, for example",
        )  # fmt: skip
    return int(found[-1])


def _json_of(folder: Folder, file: str) -> dict[str, object]:
    beside = str(PurePosixPath(file).with_name("config.json"))
    return read_object(folder, beside) if beside in folder.files else {}


def _same_hook(folder: Folder, told: list[dict[str, object]], key: str) -> NamedHook | None:
    hooks = [parse_hook(one[key], "config.json") for one in told if key in one]
    if len({hook.hook for hook in hooks}) > 1:
        raise TranscoderError(
            f"{folder.name} has files of several kinds", kind="unsupported",
            why=f"{hooks[0].name} and another place in {key}", fix="Choose one of its folders",
        )  # fmt: skip
    return hooks[0] if hooks else None


def _by_name(folder: Folder) -> tuple[NamedHook | None, NamedHook | None]:
    """What the repositories of the first release read and write: only their names say it."""
    name = folder.name.lower()
    if "transcoder" in name:
        return (
            NamedHook(Hook("resid_mid", normalised=True), "ln2.hook_normalized"),
            NamedHook(Hook("mlp_out"), "hook_mlp_out"),
        )
    for mark, site in (("-res", "resid_post"), ("-mlp", "mlp_out")):
        if mark in name:
            hook = NamedHook(Hook(site), f"hook_{site}")
            return hook, hook
    return None, None
