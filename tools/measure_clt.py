"""Measures the transcoder of Atlas; writes ``results.json`` and the figures of the card beside it.

``python tools/measure_clt.py`` computes everything from the saved files: FVU, L0 and dead features, the
replacement model (agreement, KL, recovered cross-entropy), mean scores of attribution graphs, and which
features are what they seem, on held-out sentences and with controls (`clt_concepts`). Nothing is typed by
hand.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from atlas_facts import fill, load_facts, load_names  # noqa: E402
from atlas_lines import ioi_line, line  # noqa: E402
from atlas_record import rounded, sha256  # noqa: E402
from clt_card import labels, write_card  # noqa: E402
from clt_concepts import tested  # noqa: E402

from mi_core import load_model  # noqa: E402
from mi_core.model.model import LoadedModel  # noqa: E402
from mi_core.transcoders import load_transcoder  # noqa: E402
from mi_core.transcoders.quality import Quality, firing_counts, transcoder_quality  # noqa: E402
from mi_core.transcoders.transcoder import Transcoder  # noqa: E402

log = logging.getLogger("measure_clt")
NAME = "atlas-clt"
DEAD_TEXTS = 4000


def kinds_of_text(count: int, seed: int) -> dict[str, list[str]]:
    """Texts of every kind: facts in sentences that training held out, indirect objects, other lines."""
    rng, names = random.Random(seed), load_names()
    told = [
        f"{fill(template, fact.subject)[0]} {fact.answer}."
        for fact in load_facts()
        for template in fact.held_templates
    ]
    pairs = [" ".join(ioi_line(rng, names)) + "." for _ in range(count)]
    return {
        "facts, held-out sentences": rng.sample(told, count),
        "indirect objects": pairs,
        "verse, code, sums, chat, stories": [line(rng, names) for _ in range(count)],
    }


def as_record(quality: Quality) -> dict[str, Any]:
    """The figures of one kind of text."""
    return {
        "tokens": quality.tokens,
        "predicted_tokens": quality.predicted,
        "fvu": list(quality.unexplained),
        "fvu_all": quality.unexplained_all,
        "l0": list(quality.l0),
        "top1_agreement": quality.agreement,
        "kl_nats": quality.kl,
        "ce_model_nats": quality.ce_model,
        "ce_replacement_nats": quality.ce_replacement,
        "ce_mean_ablated_nats": quality.ce_mean,
        "ce_recovered": quality.recovered,
    }


def tokenized(model: LoadedModel, texts: list[str]) -> list[list[int]]:
    """Token ids, cut to 96."""
    return [model.tokenizer(text)["input_ids"][:96] for text in texts]


def qualities(model: LoadedModel, transcoder: Transcoder, count: int, seed: int) -> dict[str, Any]:
    """The replacement model on every kind of text and on all; dead features on many texts."""
    kinds = kinds_of_text(count, seed)
    record = {
        kind: as_record(transcoder_quality(model, transcoder, tokenized(model, texts)))
        for kind, texts in kinds.items()
    }
    every = tokenized(model, [text for texts in kinds.values() for text in texts])
    record["all"] = as_record(transcoder_quality(model, transcoder, every))
    return record


def dead_share(model: LoadedModel, transcoder: Transcoder, seed: int) -> dict[str, Any]:
    """Share of features that never answer, and of those that answer often, on many texts of every kind."""
    texts = [text for texts in kinds_of_text(DEAD_TEXTS, seed).values() for text in texts]
    counts, tokens = firing_counts(model, transcoder, tokenized(model, texts))
    every = torch.cat(list(counts.values()))
    return {
        "tokens": tokens,
        "dead_share": float((every == 0).float().mean()),
        "dead_share_by_layer": [float((count == 0).float().mean()) for count in counts.values()],
        "denser_than_1_percent": float((every > 0.01 * tokens).float().mean()),
        "denser_than_10_percent": float((every > 0.1 * tokens).float().mean()),
    }


def graph_scores(model: LoadedModel, count: int, seed: int) -> dict[str, Any]:
    """Mean replacement and completeness scores of attribution graphs of fact prompts."""
    from mi_core.transcoders import GraphInputs, attribution_graph, scores

    facts = random.Random(seed).sample(load_facts(), count)
    found, worst = [], 0.0
    for fact in facts:
        prompt = fill(fact.held_templates[0], fact.subject)[0]
        result = attribution_graph(model, GraphInputs(prompt, transcoder=NAME))
        found.append(scores(result))
        worst = max(worst, float(abs(result.residual).max()))
    n = len(found)
    return {
        "prompts": n,
        "replacement_score": sum(one.replacement for one in found) / n,
        "completeness_score": sum(one.completeness for one in found) / n,
        "largest_sum_rule_residual": worst,
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All measurements."""
    model = load_model("atlas")
    transcoder = load_transcoder(model, NAME if args.folder is None else str(args.folder))
    begun = time.monotonic()
    record: dict[str, Any] = {"seed": args.seed, "torch": torch.__version__, "threads": args.threads}
    record["quality"] = qualities(model, transcoder, args.texts, args.seed)
    log.info("quality: %s", json.dumps(rounded(record["quality"]["all"])))
    record["features"] = dead_share(model, transcoder, args.seed + 1)
    log.info("features: %s", json.dumps(rounded(record["features"])))
    record["concepts"] = tested(model, transcoder, args.seed)
    log.info("%d concepts pass", sum(one["passes"] for one in record["concepts"]))
    if args.graphs:
        record["graphs"] = graph_scores(model, args.graphs, args.seed)
        log.info("graphs: %s", json.dumps(rounded(record["graphs"])))
    record["seconds"] = time.monotonic() - begun
    return record


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=None, help="of the transcoder, if not the bundled one")
    parser.add_argument("--texts", type=int, default=500, help="per kind")
    parser.add_argument("--graphs", type=int, default=40, help="prompts for the mean graph scores; 0 = none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(args.threads)
    folder = args.folder or ROOT / "assets" / "atlas" / "transcoders" / NAME
    record = measure(args)
    record["files"] = {path.name: sha256(path) for path in sorted(folder.glob("W_*.safetensors"))}
    text = json.dumps(rounded(record), indent=1) + "\n"
    (folder / "results.json").write_text(text, encoding="utf-8")
    write_card(folder / "README.md", json.loads(text))
    fingerprint = load_transcoder(load_model("atlas"), str(folder)).fingerprint
    (folder / "labels.json").write_text(labels(record, fingerprint, NAME) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
