"""Merges twin features of Atlas' transcoder: ``python tools/clt_merge.py --folder DIR``.

Dead features that were renewed at the same kind of token in the same step can learn the same thing, and a
dozen features then say together what one could. Features of a layer whose encoders point the same way (cosine
at least `SAME`) and whose activations go together (correlation at least `TOGETHER` on text of another seed)
become one: the one that is active most often stays, its decoder becomes

    sum_i r_i W_dec_i,   r_i = E[a_i a_kept] / E[a_kept^2]

the least-squares sum of what they wrote (encoder, bias and threshold stay), and the others fall silent: zero
encoder and decoder. ``merge_log.json`` says
how many, and the share of variance that is left unexplained before and after.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import torch
from clt_stream import Stream, open_stream
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, LlamaForCausalLM

ATLAS = Path(__file__).resolve().parents[1] / "assets" / "atlas"
SAME, TOGETHER = 0.95, 0.95
SILENT = 1e30
BATCHES = 10
log = logging.getLogger("clt_merge")


def load(folder: Path) -> dict[str, Tensor]:
    """All tensors in float32."""
    files = sorted(folder.glob("W_*.safetensors"))
    return {key: value.float() for path in files for key, value in load_file(path).items()}


def activations(named: dict[str, Tensor], read: Tensor, layer: int) -> Tensor:
    """[token, feature] JumpReLU activations of a layer."""
    pre = read @ named[f"W_enc_{layer}"].T + named[f"b_enc_{layer}"]
    return pre * (pre > named[f"threshold_{layer}"])


def unexplained(named: dict[str, Tensor], read: Tensor, written: Tensor) -> list[float]:
    """FVU per layer."""
    n_layers = len(read)
    told = [named[f"b_dec_{m}"].repeat(read.shape[1], 1) for m in range(n_layers)]
    for layer in range(n_layers):
        active = activations(named, read[layer], layer)
        for j in range(n_layers - layer):
            told[layer + j] += active @ named[f"W_dec_{layer}"][:, j]
    spread = (written - written.mean(1, keepdim=True)).square().sum((1, 2))
    return ((written - torch.stack(told)).square().sum((1, 2)) / spread).tolist()


def clusters(encoder: Tensor, active: Tensor) -> list[list[int]]:
    """Groups of twins, the most often active one first."""
    length = encoder.norm(dim=1)
    direction = encoder / length.clamp(min=1e-12)[:, None]
    counts = (active > 0).sum(0)
    centred = active - active.mean(0)
    centred = centred / centred.norm(dim=0).clamp(min=1e-12)
    close = (direction @ direction.T >= SAME) & (centred.T @ centred >= TOGETHER)
    taken: set[int] = set()
    groups = []
    for first in counts.argsort(descending=True).tolist():
        if first in taken or not counts[first]:
            continue
        group = [first, *(i for i in close[first].nonzero()[:, 0].tolist() if i != first and i not in taken)]
        taken.update(group)
        if len(group) > 1:
            groups.append(group)
    return groups


def merge(named: dict[str, Tensor], layer: int, active: Tensor) -> int:
    """Merges the twins of one layer in place; returns how many fell silent."""
    encoder, decoder = named[f"W_enc_{layer}"], named[f"W_dec_{layer}"]
    silent = 0
    for kept, *others in clusters(encoder, active):
        base = active[:, kept]
        for other in others:
            share = (active[:, other] @ base) / (base @ base)
            decoder[kept] += share * decoder[other]
            decoder[other] = 0
            encoder[other] = 0
            named[f"b_enc_{layer}"][other] = 0
            named[f"threshold_{layer}"][other] = SILENT
            silent += 1
    return silent


def collect(stream: Stream) -> tuple[Tensor, Tensor]:
    """(resid_mid, mlp_out) [layer, token, d_model] of several batches."""
    batches = [stream.batch() for _ in range(BATCHES)]
    read, written = (torch.cat(parts, 1) for parts in zip(*batches, strict=True))
    return read, written


def save(named: dict[str, Tensor], folder: Path) -> None:
    """Writes every tensor back into its file, bfloat16."""
    for path in folder.glob("W_*.safetensors"):
        keys = load_file(path).keys()
        save_file({key: named[key].to(torch.bfloat16).contiguous() for key in keys}, path)


def main() -> None:
    """Merges and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(args.threads)
    model = LlamaForCausalLM.from_pretrained(ATLAS, attn_implementation="eager").eval().requires_grad_(False)
    stream = open_stream(model, AutoTokenizer.from_pretrained(ATLAS), args.seed)
    named = load(args.folder)
    read, written = collect(stream)
    record: dict[str, Any] = {"tokens": read.shape[1], "fvu_before": unexplained(named, read, written)}
    silent = [merge(named, layer, activations(named, read[layer], layer)) for layer in range(len(read))]
    record |= {"silent": silent, "fvu_after": unexplained(named, read, written)}
    save(named, args.folder)
    (args.folder / "merge_log.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    log.info("%s", json.dumps(record))


if __name__ == "__main__":
    main()
