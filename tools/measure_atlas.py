"""Measures the structure of the saved Atlas; writes ``results.json`` and ``facts.json`` beside it.

``python tools/measure_atlas.py --model assets/atlas`` computes everything from the saved files with plain
forward hooks: accuracy on held-out templates, causal traces, induction, indirect objects and the logit lens,
each with a control. Nothing in the results file is typed by hand.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import random
import time
from pathlib import Path
from typing import Any

import torch
from atlas_card import write_card
from atlas_checks import accuracy, held_out_items, indirect_objects, induction, lens, seed_prompts
from atlas_facts import load_facts, load_names
from atlas_probe import Probe, load
from atlas_trace import TraceFact, average, embedding_sigma, trace_fact

log = logging.getLogger("measure_atlas")


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


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


def choose_traced(
    probe: Probe, items: list[TraceFact], right: list[bool], count: int, seed: int
) -> list[TraceFact]:
    """Facts for the averaged trace: right, at least two subject tokens, spread over relations."""
    rng = random.Random(seed)
    by_relation: dict[str, list[TraceFact]] = {}
    for item, ok in zip(items, right, strict=True):
        begin, end = probe.name_span(item.prompt, item.fact.subject)
        one = len(probe.tokenizer.encode(f" {item.fact.answer}", add_special_tokens=False)) == 1
        if ok and one and end - begin > 1:
            by_relation.setdefault(item.fact.relation, []).append(item)
    for pool in by_relation.values():
        rng.shuffle(pool)
    chosen: list[TraceFact] = []
    while len(chosen) < count and any(by_relation.values()):
        chosen += [pool.pop() for pool in by_relation.values() if pool]
    return chosen[:count]


def trace_results(probe: Probe, chosen: list[TraceFact], args: argparse.Namespace) -> dict[str, Any]:
    """Target (ii): averaged causal traces, with thresholds."""
    sigma = embedding_sigma(probe, [item.fact.subject for item in chosen])
    traces = []
    for i, item in enumerate(chosen):
        donor = next(
            (
                o
                for o in chosen[i + 1 :] + chosen[:i]
                if o.fact.relation == item.fact.relation and o.fact.answer != item.fact.answer
            ),
            chosen[(i + 1) % len(chosen)],
        )
        traces.append(
            trace_fact(probe, item, donor, args.k * sigma, args.samples, args.window, args.seed + 1)
        )
    shares = average(traces)
    n = probe.n_layers
    low, third = list(range(n // 4, n // 2)), list(range(-(-2 * n // 3), n))
    early = {role: sum(v[layer] for layer in low) / len(low) for role, v in shares["state"].items()}
    late = [shares["state"]["last token"][layer] for layer in third]
    others = {role: early[role] for role in ("first subject token", "middle subject tokens") if role in early}
    mlp = max(shares["mlp"]["last subject token"])
    attn = max(shares["attn"]["last subject token"])
    mean = {
        "clean": sum(t.clean for t in traces) / len(traces),
        "corrupted": sum(t.corrupted for t in traces) / len(traces),
    }
    control = early["last subject token, state of another subject (control)"]
    return {
        "what": "share of the mean total effect recovered by restoring one place after noise on the subject",
        "n": len(traces),
        "relations": len({t.fact.relation for t in chosen}),
        "noise_samples": args.samples,
        "noise_k": args.k,
        "sigma": sigma,
        "seed": args.seed,
        "window_layers": args.window,
        "answer_probability": mean,
        "total_effect": mean["clean"] - mean["corrupted"],
        "shares": shares,
        "checks": [
            check(
                "early site: state at the last subject token, mean of the lower-middle layers",
                early["last subject token"],
                ">=",
                0.30,
                layers=low,
                control=control,
                control_is="state of another subject of the same relation at the same place",
            ),
            check(
                "early site: ratio to the best other subject token (taken as 0.01 if smaller)",
                early["last subject token"] / max(0.01, *others.values()),
                ">=",
                2.0,
                others=others,
            ),
            check(
                "late site: state at the last token, mean of the last third",
                sum(late) / len(late),
                ">=",
                0.80,
                layers=third,
                per_layer=late,
                control=shares["state"]["before the subject"][third[0]],
                control_is="tokens before the subject, first layer of the last third",
            ),
            check(
                "MLP over attention at the last subject token (best window minus best window)",
                mlp - attn,
                ">",
                0.0,
                mlp=mlp,
                attn=attn,
            ),
        ],
    }


def check(name: str, value: float, relation: str, threshold: float, **more: Any) -> dict[str, Any]:
    """One figure with its threshold and whether it passes."""
    passed = {">=": value >= threshold, ">": value > threshold, "<=": value <= threshold}[relation]
    return {
        "name": name,
        "value": value,
        "relation": relation,
        "threshold": threshold,
        "pass": passed,
        **more,
    }


def measure(probe: Probe, args: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Runs every measurement; returns the results and the known facts."""
    names = load_names()
    items = held_out_items(load_facts())
    facts, right = accuracy(probe, items, check)
    chosen = choose_traced(probe, items, right, args.facts, args.seed)
    parts: dict[str, Any] = {"facts": facts}
    for name, run in (
        ("seed_prompts", lambda: seed_prompts(probe, check)),
        ("trace", lambda: trace_results(probe, chosen, args)),
        ("induction", lambda: induction(probe, args.seed, check)),
        ("ioi", lambda: indirect_objects(probe, names, args.seed, check)),
        ("lens", lambda: lens(probe, items, right, args.seed, check)),
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
    parser.add_argument("--facts", type=int, default=120, help="facts in the averaged trace")
    parser.add_argument("--samples", type=int, default=10, help="noise samples per fact")
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
    (args.model / "results.json").write_text(json.dumps(_rounded(results), indent=1) + "\n", encoding="utf-8")
    write_card(args.model / "README.md", results)
    (args.model / "facts.json").write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    log.info("%d of %d checks pass, %d known facts", results["passed"], len(checks), len(known))


def _rounded(value: Any) -> Any:
    """Floats to six significant digits, for a stable and readable file."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
