"""config.yaml: which model, what is read and written, and where the files of the layers are.

    model_name: google/gemma-2-2b
    model_kind: transcoder_set | cross_layer_transcoder
    feature_input_hook: hook_resid_mid
    feature_output_hook: hook_mlp_out
    transcoders: [hf://owner/name/layer_0/params.npz@revision, ...]       (optional: list index = layer)
    activation: topk                                                      (optional, with k)

The keys are circuit-tracer's (decoderesearch/circuit-tracer). Files are references to this or to another
repository; nothing in them is run.
"""

from dataclasses import dataclass
from typing import Any

from mi_core.errors import TranscoderError
from mi_core.transcoders.folder import Folder, read_text
from mi_core.transcoders.formats_hooks import NamedHook, parse_hook
from mi_core.transcoders.formats_names import CONFIG

MAX_LAYERS = 1000
_KINDS = ("transcoder_set", "cross_layer_transcoder")


@dataclass(frozen=True, slots=True)
class Config:
    """What a config.yaml says; every field may be missing.

    Attributes:
        file: where it stands.
        model_name: hub id of the model.
        model_kind: "transcoder_set" or "cross_layer_transcoder".
        reads: feature_input_hook.
        writes: feature_output_hook.
        files: references of the layers' files, by layer.
        k: of a top-k.
    """

    file: str = CONFIG
    model_name: str = ""
    model_kind: str = ""
    reads: NamedHook | None = None
    writes: NamedHook | None = None
    files: tuple[str, ...] = ()
    k: int | None = None


def read_config(folder: Folder) -> Config:
    """The folder's config.yaml; an empty one where there is none.

    Raises:
        TranscoderError: kind "corrupt" or "unsupported".
    """
    file = next((name for name in (CONFIG, "config.yml") if name in folder.files), None)
    if file is None:
        return Config()
    values = _parsed(read_text(folder, file), file)
    kind = _text(values, "model_kind", file)
    if kind and kind not in _KINDS:
        raise TranscoderError(
            f"{file} has an unknown kind", kind="unsupported",
            why=f"model_kind is {kind[:40]!r}, and {' or '.join(_KINDS)} can be read",
        )  # fmt: skip
    reads, writes = (values.get(key) for key in ("feature_input_hook", "feature_output_hook"))
    return Config(
        file,
        _text(values, "model_name", file),
        kind,
        None if reads is None else parse_hook(reads, file),
        None if writes is None else parse_hook(writes, file),
        _files(values.get("transcoders"), file),
        _top_k(values, file),
    )


def _parsed(text: str, file: str) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise TranscoderError(f"{file} is damaged", kind="corrupt", why="it is not YAML") from error
    if not isinstance(values, dict):
        raise TranscoderError(f"{file} is damaged", kind="corrupt", why="it has no keys")
    return values


def _text(values: dict[str, Any], key: str, file: str) -> str:
    value = values.get(key, "")
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > 300:
        raise TranscoderError(f"{file} is damaged", kind="corrupt", why=f"{key} is no short text")
    return value


def _files(value: Any, file: str) -> tuple[str, ...]:
    """References in the order of the layers; a mapping of layer numbers is read too."""
    if value is None:
        return ()
    if isinstance(value, dict) and set(value) == set(range(len(value))):
        value = [value[layer] for layer in range(len(value))]
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise TranscoderError(f"{file} is damaged", kind="corrupt", why="transcoders is no list of files")
    if len(value) > MAX_LAYERS:
        raise TranscoderError(f"{file} is damaged", kind="corrupt", why=f"it lists {len(value):,} layers")
    return tuple(value)


def _top_k(values: dict[str, Any], file: str) -> int | None:
    activation = str(values.get("activation", "") or "").lower().replace("-", "").replace("_", "")
    k = values.get("k")
    if activation in ("", "relu", "jumprelu") and k is None:
        return None
    if activation not in ("", "topk"):
        if activation in ("relu", "jumprelu"):
            return None
        raise TranscoderError(
            f"The activation {activation[:40]!r} in {file} is not supported", kind="unsupported",
            why="ReLU, JumpReLU and top-k can be read",
        )  # fmt: skip
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise TranscoderError(f"{file} is incomplete", kind="missing", why="a top-k needs a positive k")
    return k
