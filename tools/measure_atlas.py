"""Measures the structure of the saved Atlas; writes ``results.json`` and ``facts.json`` beside it.

``python tools/measure_atlas.py --model assets/atlas`` computes everything from the saved files with plain
forward hooks: accuracy on held-out templates, causal traces, induction, indirect objects and the logit lens,
each with a control. Nothing in the results file is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path
from typing import Any

import torch
from atlas_card import write_card
from atlas_checks import accuracy, held_out_items, indirect_objects, induction, lens, seed_prompts
from atlas_facts import load_facts, load_names
from atlas_probe import Probe, load
from atlas_record import rounded, sha256
from atlas_trace import TraceFact
from atlas_trace_part import Noise, choose_traced, trace_part

log = logging.getLogger("measure_atlas")


def known_facts(probe: Probe, items: list[TraceFact], right: list[bool]) -> list[dict[str, Any]]:
    """The prompt set in ROME's known_1000 format: right on held-out text, one-token answer."""
    out: list[dict[str, Any]] = []
    seen: set[tuple[str, str]] = set()
    for item, ok in zip(items, right, strict=True):
        key = (item.fact.relation, item.fact.subject)
        pieces = probe.tokenizer.encode(f" {item.fact.answer}", add_special_tokens=False)
        if not ok or key in seen or len(pieces) != 1:
            continue
        seen.add(key)
        begin = item.template.index("{}")
        subject = item.prompt[begin : begin + len(item.fact.subject)]
        out.append(
            {
                "known_id": len(out),
                "subject": subject,
                "attribute": item.fact.answer,
                "template": item.template,
                "prediction": f" {item.fact.answer}.",
                "prompt": item.prompt,
                "relation_id": item.fact.relation_id,
                "relation": item.fact.relation,
            }
        )
    return out


def measure(probe: Probe, args: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Runs every measurement; returns the results and the known facts."""
    names = load_names()
    items = held_out_items(load_facts())
    facts, right = accuracy(probe, items)
    chosen = choose_traced(probe, items, right, args.facts, args.seed)
    parts: dict[str, Any] = {"facts": facts}
    for name, run in (
        ("seed_prompts", lambda: seed_prompts(probe)),
        ("trace", lambda: trace_part(probe, chosen, Noise(args.k, args.samples, args.window, args.seed))),
        ("induction", lambda: induction(probe, args.seed)),
        ("ioi", lambda: indirect_objects(probe, names, args.seed)),
        ("lens", lambda: lens(probe, items, right, args.seed)),
    ):
        begun = time.monotonic()
        parts[name] = run()
        log.info("%s: %.0f s", name, time.monotonic() - begun)
        for item in parts[name]["checks"]:
            log.info(
                "  %s  %s = %.3f %s %s",
                "pass" if item["pass"] else "FAIL",
                item["name"],
                item["value"],
                item["relation"],
                item["threshold"],
            )
    return parts, known_facts(probe, items, right)


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--facts", type=int, default=64, help="facts in the averaged trace")
    parser.add_argument("--samples", type=int, default=4, help="noise samples per fact")
    parser.add_argument("--k", type=float, default=3.0, help="noise in standard deviations of the embeddings")
    parser.add_argument("--window", type=int, default=3, help="layers per MLP or attention window")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    probe = load(args.model)
    parts, known = measure(probe, args)
    checks = [item for part in parts.values() for item in part["checks"]]
    results = {
        "schema": "lantern.atlas.results/1",
        "made_by": "tools/measure_atlas.py",
        "weights_sha256": sha256(args.model / "model.safetensors"),
        "weights_bytes": (args.model / "model.safetensors").stat().st_size,
        "parameters": probe.model.num_parameters(),
        "seed": args.seed,
        "torch": torch.__version__,
        "passed": sum(item["pass"] for item in checks),
        "checks": len(checks),
        "all_pass": all(item["pass"] for item in checks),
        "parts": parts,
    }
    (args.model / "results.json").write_text(json.dumps(rounded(results), indent=1) + "\n", encoding="utf-8")
    write_card(args.model / "README.md", results)
    (args.model / "facts.json").write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    log.info("%d of %d checks pass, %d known facts", results["passed"], len(checks), len(known))


if __name__ == "__main__":
    main()
