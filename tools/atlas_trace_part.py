"""The causal-trace part of ``results.json``: which facts are traced, their averages, and the targets."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any

from atlas_probe import Probe
from atlas_record import check
from atlas_trace import TraceFact, average, embedding_sigma, trace_fact

CONTROL = "last subject token, state of another subject (control)"


@dataclass(frozen=True)
class Noise:
    """How the subject is corrupted and restored.

    Attributes:
        k: Noise in standard deviations of the embedding outputs.
        samples: Noise samples per fact; all cells of a fact see the same ones.
        window: Layers per restored MLP or attention window.
        seed: Seed of the choice of facts and (plus one) of the noise.
    """

    k: float
    samples: int
    window: int
    seed: int


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


def donor_of(chosen: list[TraceFact], index: int) -> TraceFact:
    """Another traced subject of the same relation with another answer, or the next fact if there is none."""
    fact = chosen[index].fact
    for other in chosen[index + 1 :] + chosen[:index]:
        if other.fact.relation == fact.relation and other.fact.answer != fact.answer:
            return other
    return chosen[(index + 1) % len(chosen)]


def trace_part(probe: Probe, chosen: list[TraceFact], noise: Noise) -> dict[str, Any]:
    """Target (ii): averaged causal traces, with thresholds."""
    sigma = embedding_sigma(probe, [item.fact.subject for item in chosen])
    scale, seed = noise.k * sigma, noise.seed + 1
    traces = [
        trace_fact(probe, item, donor_of(chosen, i), scale, noise.samples, noise.window, seed)
        for i, item in enumerate(chosen)
    ]
    shares = average(traces)
    clean, corrupted = (_mean([getattr(t, name) for t in traces]) for name in ("clean", "corrupted"))
    return {
        "what": "share of the mean total effect recovered by restoring one place after noise on the subject",
        "n": len(traces),
        "relations": len({item.fact.relation for item in chosen}),
        "noise": asdict(noise) | {"sigma": sigma},
        "answer_probability": {"clean": clean, "corrupted": corrupted},
        "total_effect": clean - corrupted,
        "correct_after_noise": _mean([t.corrupted > 0.5 for t in traces]),
        "shares": shares,
        "checks": [
            *_early(shares["state"], probe.n_layers),
            _late(shares["state"], probe.n_layers),
            _mlp(shares),
        ],
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _early(state: dict[str, list[float]], n_layers: int) -> list[dict[str, Any]]:
    """The early site, in the layers from a quarter to half of the depth."""
    layers = list(range(n_layers // 4, n_layers // 2))
    early = {role: _mean([values[layer] for layer in layers]) for role, values in state.items()}
    others = {role: early[role] for role in ("first subject token", "middle subject tokens") if role in early}
    last = early["last subject token"]
    return [
        check(
            "early site: state at the last subject token, mean of the lower-middle layers",
            last,
            ">=",
            0.30,
            layers=layers,
            control=early[CONTROL],
            control_is="state of another subject of the same relation at the same place",
        ),
        check(
            "early site: ratio to the best other subject token (taken as 0.01 if smaller)",
            last / max(0.01, *others.values()),
            ">=",
            2.0,
            others=others,
        ),
    ]


def _late(state: dict[str, list[float]], n_layers: int) -> dict[str, Any]:
    """The late site, in the last third of the layers."""
    layers = list(range(-(-2 * n_layers // 3), n_layers))
    late = [state["last token"][layer] for layer in layers]
    return check(
        "late site: state at the last token, mean of the last third",
        _mean(late),
        ">=",
        0.80,
        layers=layers,
        per_layer=late,
        control=_mean([state["before the subject"][layer] for layer in layers]),
        control_is="tokens before the subject, same layers",
    )


def _mlp(shares: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """MLP against attention outputs at the last subject token, each in its best window."""
    mlp, attn = (max(shares[kind]["last subject token"]) for kind in ("mlp", "attn"))
    name = "MLP over attention at the last subject token (best window minus best window)"
    return check(name, mlp - attn, ">", 0.0, mlp=mlp, attn=attn)
