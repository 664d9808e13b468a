"""Writes the measured figures into the card of Atlas' transcoder, between two marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mi_core.analyses.records import dump_record
from mi_core.transcoders.labels import SCHEMA, VERSION

BEGIN, END = "<!-- figures: written by tools/measure_clt.py -->", "<!-- end of figures -->"
SHOWN_CONCEPTS = 40


def number(value: float) -> str:
    """Three significant digits, plain."""
    return f"{value:.3g}"


def figures(record: dict[str, Any]) -> str:
    """Quality by kind of text, by layer, graphs, and the tested concepts."""
    quality = record["quality"]
    lines = [
        "| Text | Tokens | FVU | Same top token | KL, nats | CE model, replacement, mean MLPs, nats | "
        "CE recovered |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, one in quality.items():
        entropies = ", ".join(
            number(one[key]) for key in ("ce_model_nats", "ce_replacement_nats", "ce_mean_ablated_nats")
        )
        lines.append(
            f"| {kind} | {one['tokens']:,} | {number(one['fvu_all'])} | {one['top1_agreement']:.1%} "
            f"| {number(one['kl_nats'])} | {entropies} | {one['ce_recovered']:.1%} |"
        )
    lines += ["", *_by_layer(record), "", *_graphs(record), "", *_concepts(record["concepts"])]
    return "\n".join(lines)


def _by_layer(record: dict[str, Any]) -> list[str]:
    every, features = record["quality"]["all"], record["features"]
    rows = {
        "FVU": [f"{v:.3f}" for v in every["fvu"]],
        "L0 (active features per token)": [f"{v:.1f}" for v in every["l0"]],
        "dead features": [f"{v:.1%}" for v in features["dead_share_by_layer"]],
    }
    layers = len(every["fvu"])
    return [
        "| Layer | " + " | ".join(map(str, range(layers))) + " |",
        "|---|" + "---|" * layers,
        *(f"| {name} | " + " | ".join(values) + " |" for name, values in rows.items()),
        "",
        f"Dead: never active on {features['tokens']:,} tokens: {features['dead_share']:.1%} of all features.",
        f"Active on more than 1 % of tokens: {features['denser_than_1_percent']:.1%} of features;",
        f"on more than 10 %: {features['denser_than_10_percent']:.1%}.",
    ]


def _graphs(record: dict[str, Any]) -> list[str]:
    if "graphs" not in record:
        return []
    one = record["graphs"]
    return [
        f"Attribution graphs of {one['prompts']} fact prompts: mean replacement score "
        f"{number(one['replacement_score'])}, mean completeness {number(one['completeness_score'])}, largest "
        f"sum-rule residual {one['largest_sum_rule_residual']:.1e}."
    ]


def _concepts(concepts: list[dict[str, Any]]) -> list[str]:
    passing = [one for one in concepts if one["passes"]]
    lines = [
        f"**{len(passing)} of {len(concepts)} concepts have a feature that passes**: on held-out sentences",
        "it is active on at least 90 % of the concept's prompts and at most 2 % of the others, and when it",
        "is raised to 5 times its usual activation at the last token of 40 prompts about something else, the",
        "concept's words gain more than under any of 20 random live features that push as hard.",
        "",
        "| Concept | Feature | Active on its prompts | on others | Raised: change of log P(words), nats | "
        "largest of 20 random features | its word on top |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in passing[:SHOWN_CONCEPTS]:
        lines.append(
            f"| {one['concept']} | {one['feature']} | {one['recall']:.1%} of {one['n']} "
            f"| {one['false_alarms']:.2%} of {one['n_others']:,} | {one['injected_nats']:+.2f} "
            f"| {one['control_nats_max']:+.2f} | {one['injected_top1']:.0%} |"
        )
    if len(passing) > SHOWN_CONCEPTS:
        lines.append(f"\nand {len(passing) - SHOWN_CONCEPTS} more in `results.json`.")
    return lines


def labels(record: dict[str, Any], fingerprint: str, name: str) -> str:
    """The tested features' names, in the format of `mi_core.transcoders.labels`."""
    named: dict[str, str] = {}
    for one in record["concepts"]:
        if one["passes"]:
            concept = one["concept"].removeprefix("relation: ")
            named[one["feature"]] = " / ".join(filter(None, (named.get(one["feature"]), concept)))
    told = {feature: {"text": f"{text} (tested)"} for feature, text in named.items()}
    return dump_record(SCHEMA, VERSION, {"transcoder": name, "fingerprint": fingerprint, "labels": told})


def write_card(card: Path, record: dict[str, Any]) -> None:
    """Puts the figures between the marks of the card; a card without marks is left alone."""
    text = card.read_text(encoding="utf-8") if card.exists() else ""
    if BEGIN not in text or END not in text:
        return
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    card.write_text(f"{head}{BEGIN}\n{figures(record)}\n{END}{tail}", encoding="utf-8")
