"""Transcoders of every format as files, with the numbers that they must give: a second, plain computation.

All formats are written from the same kind of `Numbers`: random, asymmetric, with biases, thresholds and skips
that matter, so that every classic mistake of a reader changes what comes out. `answer` computes activations
and reconstructions with loops in float64, straight from the numbers, never through a file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

D, F = 32, 10


@dataclass
class Numbers:
    """A transcoder in one orientation: features first, d_model last.

    Attributes:
        enc: per layer [F, d].
        b_enc: per layer [F].
        dec: per layer [F, targets, d]; target 0 is the layer itself.
        b_dec: per layer [d].
        threshold: per layer [F], or None.
        skip: per layer [d, d] M of x @ M, or None.
        k: of a top-k.
        centred: whether b_dec is taken off the input.
    """

    enc: list[np.ndarray]
    b_enc: list[np.ndarray]
    dec: list[np.ndarray]
    b_dec: list[np.ndarray]
    threshold: list[np.ndarray] | None = None
    skip: list[np.ndarray] | None = None
    k: int | None = None
    centred: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def n_layers(self) -> int:
        return len(self.enc)


def numbers(
    x: np.ndarray, *, clt: bool, jump: bool = False, skip: bool = False, k: int | None = None,
    centred: bool = False, seed: int = 0,
) -> Numbers:  # fmt: skip
    """Random numbers whose biases and thresholds matter on the inputs x [layer, pos, d]."""
    rng = np.random.default_rng(seed)
    n_layers = x.shape[0]
    scale = np.abs(x).mean()
    enc = [(rng.normal(size=(F, D)) / D**0.5 / scale).astype(np.float32) for _ in range(n_layers)]
    b_dec = [(3 * rng.normal(size=D)).astype(np.float32) for _ in range(n_layers)]
    b_enc, threshold = [], []
    for layer in range(n_layers):
        pre = (x[layer] - (b_dec[layer] if centred else 0)) @ enc[layer].T
        b_enc.append((-np.quantile(pre, 0.4, axis=0)).astype(np.float32))
        # A third of what is above zero stays below the threshold.
        threshold.append((np.quantile(pre, 0.6, axis=0) + b_enc[-1] + 0.01).astype(np.float32))
    # Every row says where it belongs, so that a shifted target axis cannot go unnoticed.
    dec = []
    for layer in range(n_layers):
        rows = [
            rng.normal(size=(F, D)) + 0.5 * layer + 2 * offset
            for offset in range(n_layers - layer if clt else 1)
        ]
        dec.append(np.stack(rows, axis=1).astype(np.float32))
    skips = [(0.2 * rng.normal(size=(D, D)) / scale).astype(np.float32) for _ in range(n_layers)]
    return Numbers(enc, b_enc, dec, b_dec, threshold if jump else None, skips if skip else None, k, centred)


def answer(n: Numbers, x: np.ndarray, mistake: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Activations [layer, pos, F] and reconstruction [layer, pos, d], in float64, by loops.

    Args:
        n: the transcoder.
        x: [layer, pos, d] what its encoders read.
        mistake: a classic one to make on purpose; "" = none.
    """
    n_layers, n_pos, _ = x.shape
    acts = np.zeros((n_layers, n_pos, F))
    for layer in range(n_layers):
        for pos in range(n_pos):
            value = x[layer, pos] - (n.b_dec[layer] if n.centred and mistake != "centre ignored" else 0)
            enc = n.enc[layer]
            if mistake == "encoder transposed":
                enc = enc.T.reshape(enc.shape)  # the bytes of [d, F] taken for [F, d]
            pre = enc.astype(np.float64) @ value + n.b_enc[layer]
            act = np.maximum(pre, 0)
            if n.threshold is not None and mistake != "threshold ignored":
                act = np.where(pre > n.threshold[layer], pre, 0)
            if n.k is not None and mistake != "k ignored":
                act[np.argsort(-act)[n.k :]] = 0
            acts[layer, pos] = act
    out = np.zeros_like(x, dtype=np.float64)
    for target in range(n_layers):
        for pos in range(n_pos):
            told = np.zeros(D) if mistake == "b_dec ignored" else n.b_dec[target].astype(np.float64)
            for layer in range(n_layers):
                dec = n.dec[layer]
                if mistake == "decoder transposed":
                    dec = dec.transpose(2, 1, 0).reshape(F, -1, D)
                offset = target - layer - (1 if mistake == "offset by one" else 0)
                if 0 <= offset < dec.shape[1]:
                    told = told + acts[layer, pos] @ dec[:, offset]
            if n.skip is not None and mistake != "skip ignored":
                m = n.skip[target].T if mistake == "skip transposed" else n.skip[target]
                told = told + x[target, pos] @ m
            out[target, pos] = told
    return acts, out


# --- writing ---


def _tensor(array: np.ndarray, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.tensor(np.ascontiguousarray(array)).to(dtype)


def write_yaml(folder: Path, *, reads: str, writes: str, kind: str = "transcoder_set", **more: Any) -> None:
    """A config.yaml in plain style."""
    values = {
        "model_name": "tiny/model", "model_kind": kind,
        "feature_input_hook": reads, "feature_output_hook": writes, **more,
    }  # fmt: skip
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


def write_gemma_scope_2_clt(n: Numbers, folder: Path, *, whole: bool) -> Path:
    """Gemma Scope 2's CLT; `whole`: with unused targets before the layer, as it is published."""
    write_yaml(folder, reads="hook_resid_mid", writes="hook_mlp_out", kind="cross_layer_transcoder")
    for layer in range(n.n_layers):
        dec = n.dec[layer]
        if whole:
            dec = np.concatenate([np.full((F, layer, D), 7.0, np.float32), dec], axis=1)
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


def write_gemma_scope(n: Numbers, folder: Path, *, how: str = "plain") -> Path:
    """Gemma Scope's npz per layer; how: "plain", "compressed" or "fortran" (column order)."""
    for layer in range(n.n_layers):
        arrays = gemma_scope_arrays(n, layer)
        if how == "fortran":
            arrays = {key: np.asfortranarray(value) for key, value in arrays.items()}
        place = folder / f"layer_{layer}" / "width_16k" / f"average_l0_{layer + 7}"
        place.mkdir(parents=True)
        save: Any = np.savez_compressed if how == "compressed" else np.savez
        save(place / "params.npz", **arrays)
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
