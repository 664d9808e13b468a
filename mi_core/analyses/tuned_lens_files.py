"""A tuned lens on disk: a folder with `config.json` and `params.safetensors`, read and written.

The layout is that of the tuned-lens package (github.com/AlignmentResearch/tuned-lens), with its numbers in
safetensors instead of a pickle:

    config.json          base_model_name_or_path, base_model_revision, d_model, num_hidden_layers, bias,
                         unembed_hash, lens_type = "linear_tuned_lens"; ours adds "lantern": {...}
    params.safetensors   "{layer}.weight" [d_model, d_model], "{layer}.bias" [d_model], layer from 0

A file is hostile until proved otherwise: sizes and shapes are judged from the header before a number is read.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mi_core.analyses.tuned_lens import LensOrigin, TunedLens
from mi_core.errors import InputError, ModelError
from mi_core.model.checkpoint import WeightFile, read_header

CONFIG, PARAMS, PICKLE = "config.json", "params.safetensors", "params.pt"
LENS_TYPE = "linear_tuned_lens"
OWN_KEY = "lantern"
"""Key of what only Lantern writes; the tuned-lens package skips keys that it does not know."""

MAX_CONFIG_BYTES = 1_000_000
MAX_HEADER_BYTES = 1_000_000
_FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}

CONVERT = (
    'python -c "import torch, safetensors.torch as s; '
    "p = torch.load('params.pt', map_location='cpu', weights_only=True); "
    "s.save_file({k.split('translators.')[-1]: v.contiguous() for k, v in p.items() "
    "if k.split('translators.')[-1][0].isdigit()}, 'params.safetensors')\""
)
"""One line that turns a published lens into what is read here, wherever its owner trusts the file."""


# --- reading
# --------------------------------------------------------------------------------------------------------


def read_lens(folder: Path, n_layers: int, d_model: int) -> TunedLens:
    """Read a lens that must fit a model of these sizes.

    Args:
        folder: holds the two files.
        n_layers: blocks of the model.
        d_model: width of the model.

    Raises:
        InputError: anything else than such a lens, in one sentence that names what was found.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {str(folder)[:200]!r}", fix="Give the folder of a tuned lens")
    config = read_config(folder)
    _check_sizes(config, n_layers, d_model)
    has_bias = config.get("bias", True)
    header = _header(folder, n_layers, d_model)
    _check_tensors(header, n_layers, d_model, has_bias)
    weight, bias = _read_numbers(folder / PARAMS, header, n_layers, d_model, has_bias)
    for layer in range(n_layers):
        if not (np.isfinite(weight[layer]).all() and np.isfinite(bias[layer]).all()):
            raise _damaged(PARAMS, f"the translator of layer {layer} holds NaN or infinite numbers")
    return TunedLens(folder.name, weight, bias, origin_of(config))


def read_config(folder: Path) -> dict[str, Any]:
    """The lens' config.json, its types checked.

    Raises:
        InputError: not there, too big, not JSON, or of another kind of lens.
    """
    path = folder / CONFIG
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise _damaged(CONFIG, f"it is larger than {MAX_CONFIG_BYTES // 1_000_000} MB")
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{str(folder)[:200]!r} is no tuned lens",
            why=f"its {CONFIG} cannot be read ({error.strerror})",
            fix=f"Give a folder with {CONFIG} and {PARAMS}",
        ) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(CONFIG, "it is not JSON") from error
    if not isinstance(config, dict):
        raise _damaged(CONFIG, "it is not a JSON object")
    _check_config(config)
    return config


def _check_config(config: Mapping[str, Any]) -> None:
    kind = config.get("lens_type", LENS_TYPE)
    if kind != LENS_TYPE:
        raise InputError(
            "This lens cannot be used",
            why=f"its lens_type is {str(kind)[:60]!r}, and only {LENS_TYPE!r} is known",
        )
    for name in ("d_model", "num_hidden_layers"):
        if type(config.get(name)) is not int:
            raise _damaged(CONFIG, f"its {name} is {str(config.get(name))[:60]!r}, not a whole number")
    if not isinstance(config.get("bias", True), bool):
        raise _damaged(CONFIG, "its bias is neither true nor false")
    for name in ("base_model_name_or_path", "base_model_revision", "unembed_hash"):
        if not isinstance(config.get(name), str | None):
            raise _damaged(CONFIG, f"its {name} is not text")
    if not isinstance(config.get(OWN_KEY, {}), dict):
        raise _damaged(CONFIG, f"its {OWN_KEY} is not an object")


def origin_of(config: Mapping[str, Any]) -> LensOrigin:
    """What a checked config says about the lens' making."""
    own = config.get(OWN_KEY, {})
    fingerprint = own.get("model_fingerprint")
    return LensOrigin(
        base_model=config.get("base_model_name_or_path") or "",
        revision=config.get("base_model_revision"),
        unembed_hash=config.get("unembed_hash"),
        fingerprint=fingerprint if isinstance(fingerprint, str) else None,
        training=own,
    )


def _check_sizes(config: Mapping[str, Any], n_layers: int, d_model: int) -> None:
    for name, has, wanted in (
        ("layers", config["num_hidden_layers"], n_layers),
        ("d_model", config["d_model"], d_model),
    ):
        if has != wanted:
            trained = f"it was trained for {config['base_model_name_or_path'][:80]!r} with "
            raise InputError(
                "This lens is for another model",
                why=(trained if config.get("base_model_name_or_path") else "it has ")
                + f"{name} = {has}, the loaded model has {name} = {wanted}",
            )


def _header(folder: Path, n_layers: int, d_model: int) -> WeightFile:
    path = folder / PARAMS
    if not path.is_file():
        if (folder / PICKLE).is_file():
            raise InputError(
                "This lens is a pickle",
                why=f"{PICKLE} can run code when it is read, so only {PARAMS} is",
                fix=f"If you trust it, convert it there with: {CONVERT}",
            )
        raise InputError(f"This lens has no {PARAMS}", fix="Download or copy the lens again")
    most = n_layers * (d_model + 1) * d_model * max(_FLOATS.values()) + MAX_HEADER_BYTES
    size = path.stat().st_size
    if size > most:
        raise _damaged(PARAMS, f"it has {size:,} bytes, and a lens for this model at most {most:,}")
    try:
        return read_header(path)
    except ModelError as error:
        raise _damaged(PARAMS, error.why) from error


def _check_tensors(header: WeightFile, n_layers: int, d_model: int, has_bias: bool) -> None:
    """Exactly the translators of this model, each of its shape."""
    expected = {f"{layer}.weight": (d_model, d_model) for layer in range(n_layers)}
    if has_bias:
        expected |= {f"{layer}.bias": (d_model,) for layer in range(n_layers)}
    missing = [name for name in expected if name not in header.shapes]
    extra = [name for name in header.shapes if name not in expected]
    if missing or extra:
        parts = [f"{', '.join(missing[:3])} is missing" if missing else ""]
        parts += [
            f"{', '.join(repr(name[:60]) for name in extra[:3])} is not part of a lens" if extra else ""
        ]
        raise _damaged(PARAMS, " and ".join(part for part in parts if part))
    for name, shape in expected.items():
        if header.shapes[name] != shape:
            raise _damaged(PARAMS, f"{name} has shape {header.shapes[name]}, expected {shape}")
        if header.dtypes[name] not in _FLOATS:
            raise _damaged(PARAMS, f"{name} holds {header.dtypes[name]}, not floating-point numbers")


def _read_numbers(
    path: Path, header: WeightFile, n_layers: int, d_model: int, has_bias: bool
) -> tuple[np.ndarray, np.ndarray]:
    """All translators as float32, or as float64 if that is what they are."""
    from safetensors import safe_open

    dtype = np.float64 if "F64" in header.dtypes.values() else np.float32
    weight = np.empty((n_layers, d_model, d_model), dtype)
    bias = np.zeros((n_layers, d_model), dtype)
    with safe_open(path, framework="pt") as file:  # torch, because numpy has no bfloat16
        for layer in range(n_layers):
            weight[layer] = _numbers(file.get_tensor(f"{layer}.weight"))
            if has_bias:
                bias[layer] = _numbers(file.get_tensor(f"{layer}.bias"))
    return weight, bias


def _numbers(tensor: Any) -> np.ndarray:
    return (tensor.double() if tensor.dtype.itemsize == 8 else tensor.float()).numpy()


def _damaged(file: str, why: str) -> InputError:
    return InputError(f"The lens' {file} cannot be used", why=why)


# --- writing
# --------------------------------------------------------------------------------------------------------


def write_lens(lens: TunedLens, folder: Path, *, replace: bool = False) -> None:
    """Write a lens into a new folder; all of it or nothing.

    Args:
        lens: what to write.
        folder: made by this; its parents too.
        replace: allow that an older lens there is replaced.

    Raises:
        InputError: the folder exists and is not to be replaced, or cannot be written.
    """
    if folder.exists() and not replace:
        raise InputError(
            f"There is a lens {folder.name!r} already",
            fix="Choose another name, or allow that it is replaced",
        )
    if folder.exists() and not (folder / CONFIG).is_file():
        raise InputError(f"{str(folder)!r} is no lens, so it is not replaced", fix="Choose another name")
    part = folder.with_name(f".{folder.name}.part{os.getpid()}")
    try:
        part.mkdir(parents=True)
        _write_files(lens, part)
        if folder.exists():
            shutil.rmtree(folder)
        part.rename(folder)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise InputError(
            f"The lens cannot be written to {str(folder)!r}", why=error.strerror or "unknown cause"
        ) from error


def _write_files(lens: TunedLens, folder: Path) -> None:
    from safetensors.numpy import save_file

    tensors = {}
    for layer in range(lens.n_layers):
        tensors[f"{layer}.weight"] = np.ascontiguousarray(lens.weight[layer])
        tensors[f"{layer}.bias"] = np.ascontiguousarray(lens.bias[layer])
    save_file(tensors, folder / PARAMS)
    config = json.dumps(config_of(lens), indent=1, allow_nan=False, ensure_ascii=False)
    (folder / CONFIG).write_text(config + "\n", encoding="utf-8")


def config_of(lens: TunedLens) -> dict[str, Any]:
    """The content of the lens' config.json."""
    origin = lens.origin
    return {
        "base_model_name_or_path": origin.base_model,
        "base_model_revision": origin.revision,
        "d_model": lens.d_model,
        "num_hidden_layers": lens.n_layers,
        "bias": True,
        "unembed_hash": origin.unembed_hash,
        "lens_type": LENS_TYPE,
        OWN_KEY: {**origin.training, "model_fingerprint": origin.fingerprint},
    }
