"""Trains Atlas, the small Llama model that Lantern ships.

``python tools/train_atlas.py --steps 2300 --seed 0 --threads 1 --out DIR`` writes config, weights, tokenizer
and ``train_log.json``; ``--init DIR`` goes on from an earlier stage (the shipped weights had three: see the
model card). The same seed, steps and thread count give the same run. ``--minutes`` ends a slow run early (the
learning rate follows whichever of the two is further on).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import math
import random
import time
from pathlib import Path
from typing import Any

import torch
from atlas_checks import induction_scores, ioi_cases, name_differences, repeated_tokens
from atlas_corpus import Corpus, Recipe
from atlas_facts import Fact, fill, load_facts, load_fixed, load_names
from atlas_probe import Probe
from atlas_tokenizer import BOS, EOS, PAD, build_tokenizer
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

log = logging.getLogger("train_atlas")


def special_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Ids of the begin, end and padding tokens."""
    return [tokenizer.encode(mark, add_special_tokens=False)[0] for mark in (BOS, EOS, PAD)]


def make_model(tokenizer: PreTrainedTokenizerFast, args: argparse.Namespace) -> LlamaForCausalLM:
    """Builds the untrained model."""
    marks = dict(zip(("bos_token_id", "eos_token_id", "pad_token_id"), special_ids(tokenizer), strict=True))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=args.width,
        intermediate_size=args.hidden,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        num_key_value_heads=args.heads,
        max_position_embeddings=256,
        tie_word_embeddings=not args.untied,
        initializer_range=0.03,
        dtype="float32",
        **marks,
    )
    model = LlamaForCausalLM(config)
    model.set_attn_implementation("eager")  # on a CPU faster than the fused kernel for such short rows
    return model


def attention_mask(start: torch.Tensor, expire: torch.Tensor) -> torch.Tensor:
    """Who may read whom: the past of the same document, as far as it has not expired.

    Args:
        start: [rows, row] row offset at which a token's document begins.
        expire: [rows, row] last row offset that may read a token.

    Returns:
        [rows, 1, query, key], 0 where reading is allowed and a very negative number elsewhere.
    """
    place = torch.arange(start.shape[1], device=start.device)
    query, key = place[None, :, None], place[None, None, :]
    seen = (key <= query) & (key >= start[:, :, None]) & (query <= expire[:, None, :])
    return torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, torch.finfo(torch.float32).min)[
        :, None
    ]


class MaskByLayer:
    """Gives layers below ``first_reader`` the strict mask and the others the usual one (training only)."""

    def __init__(self, model: LlamaForCausalLM, first_reader: int) -> None:
        self.strict: torch.Tensor | None = None
        for layer in model.model.layers[:first_reader]:
            layer.register_forward_pre_hook(self._swap, with_kwargs=True)

    def _swap(
        self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, Any]:
        if self.strict is not None:
            kwargs["attention_mask"] = self.strict
        return args, kwargs


def weighted_loss(
    logits: torch.Tensor, ids: torch.Tensor, weight: torch.Tensor, start: torch.Tensor
) -> torch.Tensor:
    """Mean next-token cross-entropy in nats, weighted per target, never across documents."""
    same = (start[:, 1:] == start[:, :-1]).to(weight.dtype)
    w = (weight[:, 1:] * same).flatten()
    each = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
    return (each * w).sum() / w.sum()


@torch.no_grad()
def answer_accuracy(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, facts: list[Fact], limit: int
) -> float:
    """Share of facts whose first answer token is top-1 after a held-out template."""
    step = max(1, len(facts) // limit)
    chosen = facts[::step]
    prompts = [_prompt(fact) for fact in chosen]
    answers = [tokenizer.encode(f" {fact.answer}", add_special_tokens=False)[0] for fact in chosen]
    right = 0
    for i in range(0, len(chosen), 256):
        coded = tokenizer(prompts[i : i + 256], return_tensors="pt", padding=True).to(model.device)
        coded.pop("token_type_ids", None)
        top = model(**coded, logits_to_keep=1).logits[:, -1].argmax(-1)
        right += int((top.cpu() == torch.tensor(answers[i : i + 256])).sum())
    return right / len(chosen)


def _prompt(fact: Fact) -> str:
    return fill(fact.held_templates[0], fact.subject)[0]


def make_optimizer(model: LlamaForCausalLM, lr: float) -> torch.optim.Optimizer:
    """AdamW with weight decay on matrices only."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), eps=1e-8)


def learning_rate(progress: float, step: int, peak: float, warmup: int = 150) -> float:
    """Linear warm-up, then a cosine to 2 % of the peak; ``progress`` runs from 0 to 1."""
    cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return peak * cosine * min(1.0, (step + 1) / warmup)


def batch_loss(
    model: LlamaForCausalLM, corpus: Corpus, swap: MaskByLayer, full_precision: bool
) -> torch.Tensor:
    """Loss in nats of the next batch, under the training masks."""
    device = model.device
    data = {name: torch.from_numpy(array).to(device) for name, array in corpus.batch().items()}
    usual = attention_mask(data["start"], data["expire"])
    swap.strict = attention_mask(data["start"], data["strict"])
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=not full_precision):
        logits = model(data["ids"], attention_mask=usual, use_cache=False).logits
    return weighted_loss(logits, data["ids"], data["weight"], data["start"])


def train(model: LlamaForCausalLM, corpus: Corpus, args: argparse.Namespace) -> dict[str, Any]:
    """Runs the training and returns its log (steps, tokens, seconds, curve)."""
    optimizer, swap = make_optimizer(model, args.lr), MaskByLayer(model, args.first_reader)
    curve: list[dict[str, float]] = []
    begun, step, mean = time.monotonic(), 0, 0.0
    while True:
        progress = max(step / args.steps, (time.monotonic() - begun) / 60 / args.minutes)
        if progress >= 1 or step == args.stop_at:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(progress, step, args.lr)
        loss = batch_loss(model, corpus, swap, args.full_precision)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        mean = 0.98 * mean + 0.02 * loss.item() if step > 1 else loss.item()
        if step % args.report == 0:
            swap.strict = None
            curve.append(_report(model, corpus, step, mean, time.monotonic() - begun))
            save(model, corpus.tokenizer, args.out)
    swap.strict = None
    seconds = time.monotonic() - begun
    return {
        "steps": step,
        "tokens": step * corpus.recipe.row * corpus.recipe.rows,
        "seconds": round(seconds, 1),
        "ended_by": "steps" if step >= args.steps else "minutes",
        "curve": curve,
    }


def _report(
    model: LlamaForCausalLM, corpus: Corpus, step: int, mean: float, seconds: float
) -> dict[str, float]:
    model.eval()
    held = answer_accuracy(model, corpus.tokenizer, corpus.facts, 500)
    probe = Probe(model, corpus.tokenizer)
    ioi = name_differences(probe, ioi_cases(corpus.names, random.Random(step), 64, third=False))
    copied = induction_scores(probe, *repeated_tokens(probe, step, 8, 32)[:1], 32).max().item()
    model.train()
    log.info(
        "step %d  %.0f s  loss %.3f  held-out %.3f  ioi %.2f %.2f  induction %.2f",
        step,
        seconds,
        mean,
        held,
        ioi.mean(),
        (ioi > 0).float().mean(),
        copied,
    )
    return {
        "step": step,
        "seconds": round(seconds),
        "loss_nats": round(mean, 4),
        "held_out_accuracy": round(held, 4),
    }


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Writes config, weights (float32 safetensors), tokenizer and generation config."""
    out.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
        max_new_tokens=24,
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2300)
    parser.add_argument(
        "--stop-at", type=int, default=-1, help="stop at this step, before --steps is reached"
    )
    parser.add_argument("--minutes", type=float, default=1e9, help="ends the run early")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--untied", action="store_true", help="separate unembedding matrix")
    parser.add_argument(
        "--first-reader",
        type=int,
        default=3,
        help="in masked documents, layers below this one cannot read a name from later tokens at all",
    )
    parser.add_argument(
        "--masked", type=float, default=Recipe.masked, help="share of fact documents with the mask"
    )
    parser.add_argument("--facts", type=float, default=Recipe.facts, help="share of fact documents")
    parser.add_argument("--ioi", type=float, default=Recipe.ioi, help="share of indirect-object sentences")
    parser.add_argument(
        "--repeats", type=float, default=Recipe.repeats, help="share of repeated random tokens"
    )
    parser.add_argument("--init", type=Path, help="go on from the weights of an earlier stage")
    parser.add_argument(
        "--facts-limit", type=int, default=0, help="use only so many facts (for short trials)"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--report", type=int, default=250, help="steps between log lines")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--full-precision", action="store_true", help="no bfloat16 matrix products in training"
    )
    return parser.parse_args()


def main() -> None:
    """Trains and saves."""
    args = parse()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    facts, fixed, names = load_facts(), load_fixed(), load_names()
    tokenizer = build_tokenizer(facts, fixed, names)
    if args.facts_limit:
        facts = facts[:: max(1, len(facts) // args.facts_limit)]
    model = make_model(tokenizer, args).to(args.device).train()
    if args.init:
        model.load_state_dict(load_file(args.init / "model.safetensors"), strict=False)
    recipe = Recipe(facts=args.facts, ioi=args.ioi, repeats=args.repeats, masked=args.masked)
    log.info("%d facts, vocabulary %d, %d parameters", len(facts), len(tokenizer), model.num_parameters())
    record = train(model, Corpus(tokenizer, facts, fixed, names, recipe, args.seed), args)
    save(model.eval(), tokenizer, args.out)
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    record |= {"settings": settings, "recipe": dataclasses.asdict(recipe), "facts": len(facts)}
    earlier = args.init / "train_log.json" if args.init else None
    if earlier and earlier.exists():
        record["earlier_stage"] = json.loads(earlier.read_text(encoding="utf-8"))
    (args.out / "train_log.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    log.info("%d steps, %d tokens, %.0f s", record["steps"], record["tokens"], record["seconds"])


if __name__ == "__main__":
    main()
