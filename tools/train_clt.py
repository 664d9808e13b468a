"""Trains the cross-layer transcoder that comes with Atlas.

``python tools/train_clt.py --threads 1 --out DIR`` writes the CLT folder format (bfloat16 safetensors and
config.yaml) and ``train_log.json``. It trains with BatchTopK while `k` falls from 4 k to k, then holds the
thresholds (JumpReLU) for the last fifth. Features that have not fired for long start anew at tokens that are
badly reconstructed. The same seed, steps and thread count give the same run; ``--minutes`` ends a slow one
early (all schedules follow whichever of the two is further on).
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import torch
from clt_module import CrossLayerTranscoder, Scale
from clt_stream import Stream, open_stream
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer, LlamaForCausalLM

ROOT = Path(__file__).resolve().parents[1]
ATLAS = ROOT / "assets" / "atlas"
CONFIG = """model_kind: cross_layer_transcoder
model_name: lantern/atlas
feature_input_hook: hook_resid_mid
feature_output_hook: hook_mlp_out
scan: atlas-clt
"""
HOLD_FROM = 0.8
RENEW_UNTIL = 0.6
log = logging.getLogger("train_clt")


class Trainer:
    """One run: model, optimizer, schedules, and which features are dead."""

    def __init__(self, stream: Stream, held_out: Stream, args: argparse.Namespace) -> None:
        self.stream, self.held_out, self.args = stream, held_out, args
        samples = [stream.batch() for _ in range(4)]
        read, written = (torch.cat(parts, 1) for parts in zip(*samples, strict=True))
        self.read, self.written = Scale.of(read), Scale.of(written)
        self.clt = CrossLayerTranscoder(self.read(read), self.written(written), args.features, args.seed)
        self.adam = torch.optim.Adam(self.clt.parameters(), lr=args.rate, fused=True)
        self.quiet = torch.zeros(read.shape[0], args.features)  # tokens since a feature fired last
        self.curve: list[dict[str, Any]] = []
        self.step = self.tokens = 0
        self.begun = time.monotonic()

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        minutes = (time.monotonic() - self.begun) / 60
        return max(self.step / self.args.steps, minutes / self.args.minutes)

    def sparsity(self) -> float:
        """How many features per token and layer may be active now: from 4 k to k over the first third."""
        return self.args.k * max(1.0, 4 - 9 * self.progress)

    def rate(self) -> float:
        """Warm-up over 100 steps, then constant, then linear to a fiftieth over the last 40 %."""
        fall = min(1.0, max(0.02, (1 - self.progress) / 0.4))
        return self.args.rate * min(1.0, (self.step + 1) / 100) * fall

    def train(self) -> None:
        """Runs until the steps or the minutes are used up."""
        while self.progress < 1:
            for group in self.adam.param_groups:
                group["lr"] = self.rate()
            self.one_step()
            self.step += 1
            if self.step % self.args.report == 0:
                self.report()
                self.save()
        self.report()
        self.save()

    def one_step(self) -> None:
        """One batch: reconstruct, learn, note who fired, renew the dead."""
        read, written = self.stream.batch()
        read, written = self.read(read), self.written(written)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not self.args.full_precision):
            pre = self.clt.pre(read)
            if self.progress < HOLD_FROM:
                now = self.clt.measure_threshold(pre, self.sparsity())
                # The mean of many batches: a threshold that hops from batch to batch cannot be held later.
                self.clt.threshold.copy_(now if self.step < 5 else 0.9 * self.clt.threshold + 0.1 * now)
            active = self.clt.active(pre)
            told = self.clt.decode(active)
        error = written - told.float()
        dead = self.quiet > self.args.dead_after
        wake = (torch.relu(-pre.float().mean(1)) * dead).sum() / max(1, int(dead.sum()))
        loss = error.square().mean() + 1e-3 * wake
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.clt.parameters(), 1.0)
        self.adam.step()
        fired = (active.detach() > 0).any(1)
        self.quiet = torch.where(fired, 0.0, self.quiet + read.shape[1])
        self.tokens += read.shape[1]
        if self.step % 200 == 199 and self.progress < RENEW_UNTIL:
            self.renew(read, error.detach(), dead & ~fired)

    @torch.no_grad()
    def renew(self, read: Tensor, error: Tensor, dead: Tensor) -> None:
        """Points dead features at tokens of this batch, drawn by squared error (Bricken et al. 2023)."""
        for layer, block in enumerate(self.clt.dec):
            which = dead[layer].nonzero()[:, 0][:64]
            if not len(which):
                continue
            weight = error[layer:].square().sum((0, 2))
            at = torch.multinomial(weight, len(which), replacement=True)
            sample = read[layer, at]
            norm = sample.norm(dim=1, keepdim=True)
            self.clt.enc[layer, :, which] = (sample / norm).T
            self.clt.bias[layer, 0, which] = 0
            block[which] = (0.3 * error[layer:, at] / norm).transpose(0, 1)
            for moment in ("exp_avg", "exp_avg_sq"):
                self.adam.state[self.clt.enc][moment][layer, :, which] = 0
                self.adam.state[self.clt.bias][moment][layer, 0, which] = 0
                self.adam.state[block][moment][which] = 0
            self.quiet[layer, which] = 0

    @torch.no_grad()
    def report(self) -> None:
        """Measures on text that is not trained on, in float32."""
        self.held_out.corpus.rng.seed(1)
        batches = [self.held_out.batch() for _ in range(3)]
        read, written = (torch.cat(parts, 1) for parts in zip(*batches, strict=True))
        read, written = self.read(read), self.written(written)
        active = self.clt.active(self.clt.pre(read))
        error = (written - self.clt.decode(active)).square().sum((1, 2))
        unexplained = error / (written - written.mean(1, keepdim=True)).square().sum((1, 2))
        line = {
            "step": self.step,
            "tokens": self.tokens,
            "seconds": round(time.monotonic() - self.begun),
            "fvu": [round(v, 4) for v in unexplained.tolist()],
            "l0": [round(v, 2) for v in (active > 0).float().sum(-1).mean(-1).tolist()],
            "dead": round(float((self.quiet > self.args.dead_after).float().mean()), 4),
        }
        self.curve.append(line)
        log.info("%s", json.dumps(line))

    def save(self) -> None:
        """Writes the folder; config.yaml last, as the mark that all files are there."""
        out: Path = self.args.out
        out.mkdir(parents=True, exist_ok=True)
        named = {
            k: v.to(torch.bfloat16).contiguous() for k, v in self.clt.folded(self.read, self.written).items()
        }
        for layer in range(len(self.clt.dec)):
            keys = [f"{name}_{layer}" for name in ("W_enc", "b_enc", "b_dec", "threshold")]
            save_file({key: named[key] for key in keys}, out / f"W_enc_{layer}.safetensors")
            save_file({f"W_dec_{layer}": named[f"W_dec_{layer}"]}, out / f"W_dec_{layer}.safetensors")
        settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(self.args).items()}
        record = {"settings": settings, "curve": self.curve}
        (out / "train_log.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        (out / "config.yaml").write_text(CONFIG, encoding="utf-8")


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--features", type=int, default=1024, help="per layer")
    parser.add_argument("--k", type=float, default=10, help="active features per token and layer, on average")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--minutes", type=float, default=60, help="ends the run early")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--dead-after", type=int, default=200_000, help="tokens without firing")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--report", type=int, default=250)
    parser.add_argument("--full-precision", action="store_true", help="no bfloat16 matrix products")
    return parser.parse_args()


def main() -> None:
    """Trains and saves."""
    args = parse()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    model = LlamaForCausalLM.from_pretrained(ATLAS, attn_implementation="eager").eval().requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(ATLAS)
    stream = open_stream(model, tokenizer, args.seed)
    Trainer(stream, open_stream(model, tokenizer, args.seed + 1), args).train()


if __name__ == "__main__":
    main()
