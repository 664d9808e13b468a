"""Fine-tunes Atlas' transcoder end to end: ``python tools/tune_clt.py --folder DIR --out DIR``.

Errors that are small in every layer can add up to another next token. After training (`train_clt`) and
merging (`clt_merge`) the transcoder therefore learns for a while from two losses at once, on the same text:

    mse = mean squared error of what it writes on the model's own stream, standardised as in training
    kl  = KL(Atlas || replacement model) of the next token, nats: every MLP output but that of `<|begin|>` is
          what the transcoder writes on the stream that it has left itself

    loss = (kl + c mse) / 2,  c = kl / mse without gradient

so that both matter equally at every step (Karvonen 2025, arXiv 2503.17272). Features, their order and their
number stay. Each layer's thresholds grow or shrink by one factor, which holds its L0 where it was. Cost per
step: two passes of Atlas and one back, two of the transcoder and two back. ``tune_log.json`` tells what was
measured on the way.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch
from clt_merge import load, save
from clt_module import CrossLayerTranscoder, Scale
from clt_stream import Stream, Text, open_stream
from torch import Tensor
from torch.nn.functional import kl_div
from transformers import AutoTokenizer, LlamaForCausalLM

ATLAS = Path(__file__).resolve().parents[1] / "assets" / "atlas"
HOLD = 0.02
log = logging.getLogger("tune_clt")


def l0(active: Tensor) -> Tensor:
    """[layer] active features per token, of [layer, token, feature]."""
    return active.gt(0).float().sum(-1).mean(1)


class Replacement:
    """Atlas whose MLPs write what the transcoder says; differentiable.

    Attributes:
        stream: gives text, what Atlas' MLPs read and write there, and Atlas itself.
        clt: on standardised activations.
        threshold: [layer, 1, feature] of each activation.
    """

    def __init__(self, stream: Stream, clt: CrossLayerTranscoder, scales: tuple[Scale, Scale]) -> None:
        self.stream, self.clt = stream, clt
        self.read, self.written = scales
        self.threshold = torch.zeros_like(clt.bias)
        self._told: list[Tensor] = []
        self._kept: Tensor | None = None
        layers: Any = stream.model.model.layers
        for index, layer in enumerate(layers):
            layer.mlp.register_forward_hook(self._hook(index))

    def _hook(self, layer: int) -> Any:
        def hook(_: Any, __: Any, output: Tensor) -> Tensor | None:
            return None if self._kept is None else self._write(layer, output, self._kept)

        return hook

    def _write(self, layer: int, output: Tensor, kept: Tensor) -> Tensor:
        """What the MLP writes instead; what its features write later is noted for the later layers."""
        read = self.stream.seen_at("resid_mid", layer)[kept]
        read = (read - self.read.mean[layer]) / self.read.size[layer]
        active = self.passed(torch.addmm(self.clt.bias[layer], read, self.clt.enc[layer]), layer)
        block = self.clt.dec[layer]
        parts = (active @ block.flatten(1)).view(len(kept), block.shape[1], -1)
        for j in range(block.shape[1]):
            self._told[layer + j] = self._told[layer + j] + parts[:, j]
        told = self._told[layer].float() * self.written.size[layer] + self.written.mean[layer]
        return output.float().flatten(0, 1).index_put((kept,), told).view(output.shape)

    def passed(self, pre: Tensor, layers: int | slice) -> Tensor:
        """JumpReLU: pre-activations above their thresholds."""
        return pre * (pre > self.threshold[layers])

    def states(self, text: Text) -> Tensor:
        """[token, d_model] what the last norm reads out when every MLP is replaced at the kept positions."""
        self._told, self._kept = list(self.clt.out), text.kept
        try:
            return self.stream.states(text)
        finally:
            self._kept = None


class Tuner:
    """One run."""

    def __init__(self, stream: Stream, named: dict[str, Tensor], args: argparse.Namespace) -> None:
        self.stream, self.args = stream, args
        samples = [stream.batch() for _ in range(4)]
        read, written = (torch.cat(parts, 1) for parts in zip(*samples, strict=True))
        scales = Scale.of(read), Scale.of(written)
        self.clt = CrossLayerTranscoder(scales[0](read), scales[1](written), len(named["b_enc_0"]), 0)
        thresholds = self.clt.unfold(named, *scales)
        self.replacement = Replacement(stream, self.clt, scales)
        self.replacement.threshold = thresholds
        self.adam = torch.optim.Adam(self.clt.parameters(), lr=args.rate, betas=(0.9, 0.99), fused=True)
        self.l0 = l0(self.replacement.passed(self.clt.pre(scales[0](read)), slice(None)))
        self.curve: list[dict[str, Any]] = []
        self.sums, self.since = torch.zeros(3, dtype=torch.float64), 0
        self.step, self.begun = 0, time.monotonic()

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        minutes = (time.monotonic() - self.begun) / 60
        return max(self.step / self.args.steps, minutes / self.args.minutes)

    def train(self) -> None:
        """Until the steps or the minutes are used up; saves on the way."""
        while self.progress < 1:
            rate = self.args.rate * min(1.0, (self.step + 1) / 50) * max(0.02, 1 - self.progress)
            for group in self.adam.param_groups:
                group["lr"] = rate
            self.one_step()
            self.step += 1
            if self.step % self.args.report == 0:
                self.report()
        self.report()

    def one_step(self) -> None:
        """Both losses on one batch, one step of Adam, thresholds held."""
        text, head = self.stream.text(), self.stream.model.lm_head
        wanted = head(self.stream.states(text)).log_softmax(-1)
        read, written = self.stream.latest(text)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            active = self.replacement.passed(self.clt.pre(self.replacement.read(read)), slice(None))
            told = self.clt.decode(active)
            said = head(self.replacement.states(text)).float().log_softmax(-1)
        mse = (self.replacement.written(written) - told.float()).square().mean()
        kl = kl_div(said, wanted, reduction="batchmean", log_target=True)
        agreed = (said.argmax(-1) == wanted.argmax(-1)).float().mean()
        loss = (kl + (kl / mse).detach() * mse) / 2
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.clt.parameters(), 1.0)
        self.adam.step()
        self.hold(active.detach())
        self.sums += torch.stack([mse, kl, agreed]).detach().double()
        self.since += 1

    @torch.no_grad()
    def hold(self, active: Tensor) -> None:
        """Moves each layer's thresholds by one factor towards the L0 that the layer had."""
        share = l0(active) / self.l0
        self.replacement.threshold *= (HOLD * (share - 1)).exp()[:, None, None]

    def named(self) -> dict[str, Tensor]:
        """The transcoder on raw activations, under the names of the CLT folder format."""
        named = self.clt.folded(self.replacement.read, self.replacement.written)
        for layer, threshold in enumerate(self.replacement.threshold[:, 0]):
            named[f"threshold_{layer}"] = threshold.clone()
        return named

    def report(self) -> None:
        """Means since the last report (on text that is trained on once); saves."""
        if not self.since:
            return
        mse, kl, agreed = (self.sums / self.since).tolist()
        self.curve.append(
            {
                "step": self.step,
                "seconds": round(time.monotonic() - self.begun),
                "mse": round(mse, 5),
                "kl_nats": round(kl, 4),
                "same_top_token": round(agreed, 4),
            }
        )
        log.info("%s", json.dumps(self.curve[-1]))
        self.sums.zero_()
        self.since = 0
        save(self.named(), self.args.out)
        settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(self.args).items()}
        record = {"settings": settings, "curve": self.curve}
        (self.args.out / "tune_log.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="of the trained transcoder")
    parser.add_argument("--out", type=Path, required=True, help="where its tuned copy goes")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--minutes", type=float, default=35, help="ends the run early")
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--report", type=int, default=100)
    return parser.parse_args()


def main() -> None:
    """Tunes and saves."""
    args = parse()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    shutil.copytree(args.folder, args.out, ignore=shutil.ignore_patterns("features", "*.json", "README.md"))
    model = LlamaForCausalLM.from_pretrained(ATLAS, attn_implementation="eager").eval().requires_grad_(False)
    stream = open_stream(model, AutoTokenizer.from_pretrained(ATLAS), args.seed)
    Tuner(stream, load(args.folder), args).train()


if __name__ == "__main__":
    main()
