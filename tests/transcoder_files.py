"""Transcoders of every format as files, written from the plain numbers of `tests.transcoder_numbers`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from tests.transcoder_numbers import UNUSED, D, F, Numbers


def _tensor(array: np.ndarray, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.tensor(np.ascontiguousarray(array)).to(dtype)


def write_yaml(folder: Path, *, reads: str, writes: str, kind: str = "transcoder_set", **more: Any) -> None:
    """A config.yaml in plain style; a hook "" is left out."""
    hooks = {"feature_input_hook": reads, "feature_output_hook": writes}
    hooks = {key: name for key, name in hooks.items() if name}
    values = {"model_name": "tiny/model", "model_kind": kind, **hooks, **more}
    lines = [
        f"{key}:\n" + "".join(f"  - {one}\n" for one in value)
        if isinstance(value, list)
        else f"{key}: {value}\n"
        for key, value in values.items()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("".join(lines))


def write_clt(n: Numbers, folder: Path, dtype: torch.dtype = torch.float32, layers: Any = None) -> Path:
    """circuit-tracer's CLT folder."""
    write_yaml(folder, reads="hook_resid_mid", writes="hook_mlp_out", kind="cross_layer_transcoder")
    for layer in range(n.n_layers) if layers is None else layers:
        named = {f"W_enc_{layer}": n.enc, f"b_enc_{layer}": n.b_enc, f"b_dec_{layer}": n.b_dec}
        named |= {f"threshold_{layer}": n.threshold} if n.threshold else {}
        named |= {f"W_skip_{layer}": n.skip} if n.skip else {}
        tensors = {key: _tensor(value[layer], dtype) for key, value in named.items()}
        save_file(tensors, folder / f"W_enc_{layer}.safetensors")
        save_file({f"W_dec_{layer}": _tensor(n.dec[layer], dtype)}, folder / f"W_dec_{layer}.safetensors")
    return folder


def write_gemma_scope_2_clt(n: Numbers, folder: Path) -> Path:
    """Gemma Scope 2's CLT; as it is published, with unused targets before the layer, if `n` says so."""
    write_yaml(folder, reads="hook_resid_mid", writes="hook_mlp_out", kind="cross_layer_transcoder")
    for layer in range(n.n_layers):
        dec = n.dec[layer]
        if n.unused:
            dec = np.concatenate([np.full((F, layer, D), UNUSED, np.float32), dec], axis=1)
        tensors = {
            "w_enc": _tensor(n.enc[layer].T), "w_dec": _tensor(dec), "b_enc": _tensor(n.b_enc[layer]),
            "b_dec": _tensor(n.b_dec[layer]), "threshold": _tensor((n.threshold or [])[layer]),
        }  # fmt: skip
        if n.skip:
            tensors["affine_skip_connection"] = _tensor(n.skip[layer])
        save_file(tensors, folder / f"params_layer_{layer}.safetensors")
    return folder


def write_plt(
    n: Numbers,
    folder: Path,
    *,
    legacy: bool = False,
    reads: str = "mlp.hook_in",
    writes: str = "mlp.hook_out",
) -> Path:
    """circuit-tracer's PLT folder; `legacy`: W_dec as version 0.1 had it."""
    more = {} if n.k is None else {"activation": "topk", "k": n.k}
    write_yaml(folder, reads=reads, writes=writes, **more)
    for layer in range(n.n_layers):
        save_file(plt_tensors(n, layer, legacy=legacy), folder / f"layer_{layer}.safetensors")
    return folder


def plt_tensors(n: Numbers, layer: int, *, legacy: bool = False) -> dict[str, torch.Tensor]:
    """The tensors of one layer's file."""
    dec = n.dec[layer][:, 0]
    tensors = {
        "W_enc": _tensor(n.enc[layer]), "W_dec": _tensor(dec.T if legacy else dec),
        "b_enc": _tensor(n.b_enc[layer]), "b_dec": _tensor(n.b_dec[layer]),
    }  # fmt: skip
    if n.threshold:
        tensors["activation_function.threshold"] = _tensor(n.threshold[layer])
    if n.skip:
        tensors["W_skip"] = _tensor(n.skip[layer].T)  # used as x @ W_skip.T
    return tensors


def gemma_scope_arrays(n: Numbers, layer: int) -> dict[str, np.ndarray]:
    """What Gemma Scope's params.npz holds."""
    return {
        "W_enc": np.ascontiguousarray(n.enc[layer].T), "W_dec": np.ascontiguousarray(n.dec[layer][:, 0]),
        "b_enc": n.b_enc[layer], "b_dec": n.b_dec[layer], "threshold": (n.threshold or [])[layer],
    }  # fmt: skip


def write_gemma_scope(n: Numbers, folder: Path, *, compressed: bool = False) -> Path:
    """Gemma Scope's npz per layer, stored plainly or compressed, by row or (`n.by_column`) by column."""
    for layer in range(n.n_layers):
        place = folder / f"layer_{layer}" / "width_16k" / f"average_l0_{layer + 7}"
        place.mkdir(parents=True)
        write_npz(n, layer, place / "params.npz", compressed=compressed)
    return folder


def write_npz(n: Numbers, layer: int, file: Path, *, compressed: bool = False) -> None:
    """One layer of Gemma Scope's first release."""
    arrays = gemma_scope_arrays(n, layer)
    if n.by_column:
        arrays = {key: np.asfortranarray(value) for key, value in arrays.items()}
    save: Any = np.savez_compressed if compressed else np.savez
    save(file, **arrays)


def write_list(n: Numbers, folder: Path, *, npz: bool = False) -> Path:
    """One file per layer, in the order of a config.yaml; of Gemma Scope's (`npz`) it need not name hooks."""
    names = [f"part_{n.n_layers - layer}.{'npz' if npz else 'safetensors'}" for layer in range(n.n_layers)]
    reads, writes = ("", "") if npz else ("mlp.hook_in", "mlp.hook_out")
    write_yaml(folder, reads=reads, writes=writes, transcoders=names)
    for layer, name in enumerate(names):
        if npz:
            write_npz(n, layer, folder / name)
        else:
            save_file(plt_tensors(n, layer), folder / name)
    return folder


def write_gemma_scope_2(n: Numbers, folder: Path) -> Path:
    """Gemma Scope 2's transcoders: lower-case keys, hooks as module paths."""
    for layer in range(n.n_layers):
        place = folder / f"layer_{layer}_width_16k_l0_small_affine"
        place.mkdir(parents=True)
        config = {
            "model_name": "google/gemma-3-tiny", "architecture": "jump_relu", "type": "transcoder",
            "hf_hook_point_in": f"model.layers.{layer}.pre_feedforward_layernorm.output",
            "hf_hook_point_out": f"model.layers.{layer}.post_feedforward_layernorm.output",
        }  # fmt: skip
        (place / "config.json").write_text(json.dumps(config))
        tensors = {key.lower(): _tensor(value) for key, value in gemma_scope_arrays(n, layer).items()}
        if n.skip:
            tensors["affine_skip_connection"] = _tensor(n.skip[layer])
        save_file(tensors, place / "params.safetensors")
    return folder


def write_sae_lens(
    n: Numbers, folder: Path, *, new: bool = False, hook: str = "hook_resid_pre", **more: Any
) -> Path:
    """SAELens, one folder per layer; `new`: metadata apart, as since version 6."""
    for layer in range(n.n_layers):
        place = folder / f"blocks.{layer}.{hook}"
        place.mkdir(parents=True)
        architecture = "jumprelu" if n.threshold else ("topk" if n.k else "standard")
        config: dict[str, Any] = {
            "d_in": D, "d_sae": F, "architecture": architecture, "apply_b_dec_to_input": n.centred,
            "normalize_activations": "none", **({"k": n.k} if n.k else {}), **more,
        }  # fmt: skip
        named = {"hook_name": f"blocks.{layer}.{hook}", "model_name": "tiny"}
        config |= {"metadata": named} if new else named
        (place / "cfg.json").write_text(json.dumps(config))
        tensors = {key: _tensor(value) for key, value in gemma_scope_arrays_or(n, layer).items()}
        if n.skip:
            tensors["W_skip"] = _tensor(n.skip[layer].T)  # used as x @ W_skip.T
        save_file(tensors, place / "sae_weights.safetensors")
    return folder


def gemma_scope_arrays_or(n: Numbers, layer: int) -> dict[str, np.ndarray]:
    """The same keys without a threshold where there is none (SAELens has the orientation of Gemma Scope)."""
    whole = Numbers(**{**vars(n), "threshold": n.threshold or n.b_enc})
    arrays = gemma_scope_arrays(whole, layer)
    return arrays if n.threshold else {key: value for key, value in arrays.items() if key != "threshold"}
