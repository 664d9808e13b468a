"""Runs the corpus pass over Atlas' own transcoder: ``python tools/atlas_features.py --threads 1``.

Its text is of the kinds that Atlas was trained on (every fact, held-out ways of telling it too; indirect
objects; verse, code, sums, chat, stories) and Lantern's bundled texts. The features files go into the
transcoder's own folder and stay below 15 MB. The same seed gives the same text and, on one machine and thread
count, the same files.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from train_atlas_lens import documents  # noqa: E402

from mi_core import load_model  # noqa: E402
from mi_core.analyses import Step  # noqa: E402
from mi_core.transcoders import CorpusPassInputs, CorpusPassResult, corpus_pass  # noqa: E402

log = logging.getLogger("atlas_features")

NAME = "atlas-text.jsonl"
MAX_BYTES = 14_500_000


def run(args: argparse.Namespace, text: Path) -> CorpusPassResult:
    """Runs the pass and tells the progress."""
    inputs = CorpusPassInputs(
        text=str(text),
        transcoder=args.transcoder,
        save_to=str(args.out),
        around=127,  # whole rows, which are whole documents unless they are long
        max_bytes=MAX_BYTES,
        seed=args.seed,
    )
    told = [-1]

    def on_step(step: Step[CorpusPassResult]) -> None:
        if step.done // 50 > told[0]:
            told[0] = step.done // 50
            log.info("%d of %d, %.0f s left, %s", step.done, step.total, step.seconds_left or 0, step.text)

    return corpus_pass(load_model("atlas"), inputs, on_step=on_step)


def main() -> None:
    """Draws the text, runs, checks, reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=7000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--transcoder", default="atlas-clt")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "assets" / "atlas" / "transcoders" / "atlas-clt" / "features"
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / NAME
        lines = [json.dumps({"text": one}) for one in documents(args.documents, args.seed)]
        text.write_text("\n".join(lines) + "\n", encoding="utf-8")
        result = run(args, text)
    for check in result.checks:
        log.info("%s %s: %s", "passed" if check.passed else "FAILED", check.name, check.detail)
    for layer, active in result.active_per_token().items():
        here = result.layers == layer
        dead = result.dead[here].mean()
        log.info("layer %d: %.1f active per token, %.1f %% dead", layer, active, 100 * dead)
    log.info(
        "%s tokens of %s documents in %.0f s (%.0f tokens per second), %s bytes in %s",
        f"{result.n_tokens:,}", f"{result.n_documents:,}", result.seconds, result.n_tokens / result.seconds,
        f"{result.file_bytes:,}", result.folder,
    )  # fmt: skip
    log.info("%s", result.warnings)
    assert all(check.passed for check in result.checks), "a check failed"
    assert result.file_bytes < 15_000_000, "the files are too large"


if __name__ == "__main__":
    main()
