"""What the files of a transcoder are for, told from their names alone (no torch, no opening)."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

ENCODER = re.compile(r"W_enc_(\d+)\.safetensors")
DECODER = re.compile(r"W_dec_(\d+)\.safetensors")
GEMMA_SCOPE_2_CLT = re.compile(r"params_layer_(\d+)\.safetensors")
PLT = re.compile(r"layer_(\d+)\.safetensors")
GEMMA_SCOPE = ("params.npz", "params.safetensors")
SAE_LENS_CONFIG = "cfg.json"
SAE_LENS = ("sae_weights.safetensors", "model.safetensors")
CONFIG = "config.yaml"
Use = Literal["encoder", "decoder", "both", "examples", "settings", "other"]

USES: dict[Use, str] = {
    "encoder": "encoders: which features are active",
    "decoder": "decoders: what features write",
    "both": "whole layers: encoder and decoder in one file",
    "examples": "examples of features",
    "settings": "settings",
    "other": "not needed",
}
_LAYER = re.compile(r"(?:W_enc_|W_dec_|layer_|blocks\.)(\d+)")
_SETTINGS = (CONFIG, "config.yml", "config.json", SAE_LENS_CONFIG)


@dataclass(frozen=True, slots=True)
class FileUse:
    """One file of a repository.

    Attributes:
        file: its path.
        bytes: its size.
        use: what it is for.
        layer: which layer, where its name says so.
        here: whether it is on this machine.
        part: whether it is only what is not the decoder, of a file of whole layers.
    """

    file: str
    bytes: int
    use: Use
    layer: int | None
    here: bool
    part: bool = False


def use_of(file: str) -> Use:
    """What a file of a transcoder is for, by its name."""
    path = PurePosixPath(file)
    name = path.name
    if path.parent.name == "features":
        return "examples"
    if ENCODER.fullmatch(name):
        return "encoder"
    if DECODER.fullmatch(name):
        return "decoder"
    if name in (*GEMMA_SCOPE, *SAE_LENS) or PLT.fullmatch(name) or GEMMA_SCOPE_2_CLT.fullmatch(name):
        return "both"
    return "settings" if name in _SETTINGS else "other"


def file_uses(files: Mapping[str, int], here: Mapping[str, bool] | None = None) -> tuple[FileUse, ...]:
    """All files with what they are for.

    Args:
        files: path -> bytes.
        here: path -> whether it is on this machine; None = all are.
    """

    def layer_of(file: str) -> int | None:
        found = _LAYER.findall(file)
        return int(found[-1]) if found else None

    return tuple(
        FileUse(file, size, use_of(file), layer_of(file), here is None or here.get(file, False))
        for file, size in sorted(files.items())
    )


def looks_like_transcoder(files: Iterable[str]) -> bool:
    """Whether a list of file names could be a transcoder; a config.yaml alone may list files elsewhere."""
    files = tuple(files)
    names = {PurePosixPath(file).name for file in files}
    by_layer = any(pattern.fullmatch(file) for file in files for pattern in (ENCODER, GEMMA_SCOPE_2_CLT, PLT))
    listed = CONFIG in files and "config.json" not in files
    return by_layer or listed or bool(names & {*GEMMA_SCOPE, SAE_LENS_CONFIG})


def readable_by_row(file: str) -> bool:
    """Whether a file is of use without being here as a whole: decoders and examples of features."""
    return use_of(file) in ("decoder", "examples")
