"""A transcoder as plain numbers, what it must give, and what it would give with a classic mistake.

All formats are written from the same kind of `Numbers`: random, asymmetric, with biases, thresholds and skips
that matter, so that every classic mistake of a reader changes what comes out. `answer` computes activations
and reconstructions with loops in float64, straight from the numbers, never through a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

D, F = 32, 10
UNUSED = 7.0
"""What stands in a decoder's targets before its own layer, where a file has them."""

OF_READING = (
    "encoder transposed", "columns taken for rows", "gain", "place", "centre", "threshold ignored",
    "threshold taken off", "k ignored",
)  # fmt: skip
"""Mistakes that change activations, and so the reconstruction."""
OF_WRITING = (
    "decoder transposed", "b_dec ignored", "b_dec of the sources", "offset by one", "unused targets",
    "skip ignored", "skip transposed",
)  # fmt: skip
"""Mistakes that change the reconstruction alone."""


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
        by_column: whether its file has matrices column by column, and says so.
        unused: whether its file has targets before a decoder's own layer.
    """

    enc: list[np.ndarray]
    b_enc: list[np.ndarray]
    dec: list[np.ndarray]
    b_dec: list[np.ndarray]
    threshold: list[np.ndarray] | None = None
    skip: list[np.ndarray] | None = None
    k: int | None = None
    centred: bool = False
    by_column: bool = False
    unused: bool = False

    @property
    def n_layers(self) -> int:
        return len(self.enc)

    @property
    def n_targets(self) -> int:
        """Layers that the first one writes to."""
        return self.dec[0].shape[1]


def numbers(
    x: np.ndarray, *, clt: bool, jump: bool = False, skip: bool = False, k: int | None = None,
    centred: bool = False, by_column: bool = False, unused: bool = False, seed: int = 0,
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
    return Numbers(
        enc, b_enc, dec, b_dec, threshold if jump else None, skips if skip else None, k, centred,
        by_column, unused,
    )  # fmt: skip


def why_never(make: Mapping[str, Any], mistake: str) -> str:
    """Why a mistake cannot be made with what `numbers` makes of some options; "" = it can."""
    needs = {
        "threshold ignored": ("jump", "it has no thresholds"),
        "threshold taken off": ("jump", "it has no thresholds"),
        "k ignored": ("k", "it is no top-k"),
        "skip ignored": ("skip", "it has no skip"),
        "skip transposed": ("skip", "it has no skip"),
        "b_dec of the sources": ("clt", "a layer's only source is itself"),
        "unused targets": ("unused", "its file has no targets before a decoder's layer"),
        "columns taken for rows": ("by_column", "its file has all matrices row by row"),
    }
    option, reason = needs.get(mistake, ("", ""))
    return "" if make.get(option) else reason


def answer(n: Numbers, x: np.ndarray, mistake: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Activations [layer, pos, F] and reconstruction [layer, pos, d], in float64, by loops.

    Args:
        n: the transcoder.
        x: [layer, pos, d] what its encoders read ("gain" and "place": what they would read by mistake).
        mistake: a classic one to make on purpose; "" = none.
    """
    n_layers, n_pos, _ = x.shape
    acts = np.zeros((n_layers, n_pos, F))
    for layer in range(n_layers):
        for pos in range(n_pos):
            acts[layer, pos] = _read(n, layer, x[layer, pos], mistake)
    out = np.zeros_like(x, dtype=np.float64)
    for target in range(n_layers):
        for pos in range(n_pos):
            out[target, pos] = _told(n, target, acts[:, pos], x[target, pos], mistake)
    return acts, out


def _read(n: Numbers, layer: int, x: np.ndarray, mistake: str) -> np.ndarray:
    """Activations of one layer at one token."""
    value = x - (n.b_dec[layer] if n.centred != (mistake == "centre") else 0)
    enc = n.enc[layer]
    if mistake == "encoder transposed":
        enc = enc.T.reshape(F, D)  # the bytes of [d, F] taken for [F, d]
    if mistake == "columns taken for rows" and n.by_column:
        enc = enc.reshape(D, F).T  # the bytes of [F, d] taken for [d, F]
    pre = enc.astype(np.float64) @ value + n.b_enc[layer]
    act = np.maximum(pre, 0)
    if n.threshold is not None and mistake != "threshold ignored":
        act = np.where(pre > n.threshold[layer], pre, 0)
        if mistake == "threshold taken off":
            act = np.maximum(pre - n.threshold[layer], 0)
    if n.k is not None and mistake != "k ignored":
        act[np.argsort(-act)[n.k :]] = 0
    return act


def _told(n: Numbers, target: int, acts: np.ndarray, x: np.ndarray, mistake: str) -> np.ndarray:
    """What all layers (acts [layer, F]) write to one of them at one token."""
    sources = range(target + 1) if mistake == "b_dec of the sources" and n.n_targets > 1 else [target]
    told = np.zeros(D)
    if mistake != "b_dec ignored":
        told = np.sum([n.b_dec[layer].astype(np.float64) for layer in sources], axis=0)
    for layer, dec in enumerate(n.dec):
        if mistake == "decoder transposed" or (mistake == "columns taken for rows" and n.by_column):
            dec = dec.transpose(2, 1, 0).reshape(F, -1, D)  # the bytes of [d, target, F] taken for it
        if mistake == "unused targets" and n.unused:
            dec = np.concatenate([np.full((F, layer, D), UNUSED), dec], axis=1)
        offset = target - layer - (mistake == "offset by one")
        if 0 <= offset < dec.shape[1]:
            told = told + acts[layer] @ dec[:, offset]
    if n.skip is not None and mistake != "skip ignored":
        told = told + x @ (n.skip[target].T if mistake == "skip transposed" else n.skip[target])
    return told
