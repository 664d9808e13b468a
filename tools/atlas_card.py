"""Writes the measured figures into the model card, between two marks, so that the card cannot drift."""

from __future__ import annotations

from pathlib import Path
from typing import Any

BEGIN, END = "<!-- figures: written by tools/measure_atlas.py -->", "<!-- end of figures -->"


def number(value: float) -> str:
    """Three significant digits, plain."""
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def figures(results: dict[str, Any]) -> str:
    """The checks of every part as a table, then the trace by role and layer."""
    lines = ["| Figure | n | Value | Control | Target | Met |", "|---|---|---|---|---|---|"]
    for part in results["parts"].values():
        for check in part["checks"]:
            control = "" if "control" not in check else f"{number(check['control'])} ({check['control_is']})"
            name = (
                check["name"]
                if not check["name"].startswith(("best", "share removed"))
                else f"{check['name']} ({part['head']})"
            )
            lines.append(
                f"| {name} | {check.get('n', part['n'])} | {number(check['value'])} | {control} "
                f"| {check['relation']} {check['threshold']:g} | {'yes' if check['pass'] else '**no**'} |"
            )
    trace = results["parts"]["trace"]
    layers = len(trace["shares"]["state"]["last token"])
    noise, chance = trace["noise"], trace["answer_probability"]
    lines += [
        "",
        f"Causal trace over {trace['n']} facts of {trace['relations']} relations ({noise['samples']} noise",
        f"samples, {noise['k']:g} sigma, sigma {number(noise['sigma'])}; answer probability",
        f"{number(chance['clean'])} clean and {number(chance['corrupted'])} corrupted). Share of the mean",
        f"total effect recovered by restoring one place; outputs in windows of {noise['window']} layers:",
        "",
        "| Restored | Token | " + " | ".join(f"L{i}" for i in range(layers)) + " |",
        "|---|---|" + "---|" * layers,
    ]
    for kind, rows in trace["shares"].items():
        for role, values in rows.items():
            lines.append(f"| {kind} | {role} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
    return "\n".join(lines)


def write_card(card: Path, results: dict[str, Any]) -> None:
    """Puts the figures of ``results`` between the marks of the card; a card without marks is left alone."""
    if not card.exists():
        return
    text = card.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        return
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    card.write_text(f"{head}{BEGIN}\n{figures(results)}\n{END}{tail}", encoding="utf-8")
