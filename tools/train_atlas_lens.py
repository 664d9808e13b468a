"""Trains the tuned lens that comes with Atlas: ``python tools/train_atlas_lens.py --threads 1``.

Its text is of the kinds that Atlas was trained on (facts in every sentence, held-out ones too; indirect
objects; verse, code, sums, chat, stories) and Lantern's bundled texts. Documents are held out for stopping
and for the quality, which goes into the lens' own config.json. The same seed and thread count give the same
lens.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
from pathlib import Path

import torch
from atlas_facts import fill, load_facts, load_names
from atlas_lines import ioi_line, line

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mi_core import load_model  # noqa: E402
from mi_core.analyses import Step, TunedLensTrainInputs, TunedLensTrainResult, tuned_lens_train  # noqa: E402
from mi_core.analyses.tuned_lens_files import write_lens  # noqa: E402
from mi_core.batch.texts import bundled_texts  # noqa: E402

log = logging.getLogger("train_atlas_lens")

NAME = "atlas-text"


def documents(count: int, seed: int) -> tuple[str, ...]:
    """Texts of every kind that Atlas knows, and the bundled ones; each once.

    Args:
        count: how many besides the bundled ones: half facts, a sixth indirect objects, the rest other lines.
        seed: of the draw.
    """
    rng, names = random.Random(seed), load_names()
    told = []
    for fact in load_facts():
        for template in (*fact.train_templates, *fact.held_templates):
            told.append(f"{fill(template, fact.subject)[0]} {fact.answer}.")
    rng.shuffle(told)
    texts = told[: count // 2]
    for _ in range(count // 6):
        prompt, answer = ioi_line(rng, names)
        texts.append(f"{prompt} {answer}.")
    texts += [line(rng, names) for _ in range(count - len(texts))]
    texts += [text.text for text in bundled_texts().texts]
    return tuple(dict.fromkeys(texts))


def train(args: argparse.Namespace) -> TunedLensTrainResult:
    """Trains the lens and tells the progress."""
    inputs = TunedLensTrainInputs(
        texts=documents(args.documents, args.seed),
        text_name="lines of Atlas' kinds and the bundled texts",
        steps=args.steps,
        learning_rate=args.rate,
        context=96,
        seed=args.seed,
    )
    last = -1

    def on_step(step: Step) -> None:
        nonlocal last
        if step.done // 25 > last:
            last = step.done // 25
            log.info("%d of %d, %.0f s left, %s", step.done, step.total, step.seconds_left or 0, step.text)

    return tuned_lens_train(load_model("atlas"), inputs, on_step=on_step)


def main() -> None:
    """Trains, checks, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--documents", type=int, default=3600)
    parser.add_argument("--rate", type=float, default=None, help="learning rate; the usual one if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "assets" / "atlas" / "lenses" / NAME)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(args.threads)
    result = train(args)
    for layer in range(result.n_layers):
        log.info(
            "layer %d: plain %.3f, tuned %.3f nats (95 %% %.3f to %.3f), step %d",
            layer, result.plain_kl[layer], result.tuned_kl[layer], result.tuned_low[layer],
            result.tuned_high[layer], result.best_step[layer],
        )  # fmt: skip
    assert all(check.passed for check in result.checks), result.checks
    assert (result.gain_low > 0).all(), "a layer is not better than the plain lens"
    assert result.lens is not None
    write_lens(result.lens.renamed(args.out.name), args.out, replace=True)
    log.info("%s: %s %s", args.out, result.counts, result.warnings)


if __name__ == "__main__":
    main()
