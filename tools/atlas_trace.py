"""Causal traces of Atlas with plain batched forwards, averaged by token role."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from atlas_facts import Fact
from atlas_probe import KINDS, Edit, Probe, capture, edited
from torch import Tensor, nn

HookedEdit = tuple[nn.Module, Edit]


@dataclass(frozen=True)
class TraceFact:
    """A fact as it is traced: prompt, subject and the held-out template that made the prompt."""

    fact: Fact
    prompt: str
    template: str


@dataclass(frozen=True)
class Trace:
    """Probabilities of the answer.

    Attributes:
        clean: Without noise.
        corrupted: With noise on the subject, mean over noise samples.
        span: Token range of the subject.
        restored: Per kind [layer, pos], mean over noise samples, one place restored to its clean value.
        donor: [layer] state at the last subject token set to that of *another* subject (a control).
    """

    clean: float
    corrupted: float
    span: tuple[int, int]
    restored: dict[str, np.ndarray]
    donor: np.ndarray

    @property
    def total(self) -> float:
        """Total effect: clean minus corrupted."""
        return self.clean - self.corrupted


@torch.no_grad()
def embedding_sigma(probe: Probe, subjects: list[str]) -> float:
    """Standard deviation over all entries of the embedding outputs of the subjects, each tokenised alone."""
    ids = [i for s in subjects for i in probe.tokenizer.encode(s, add_special_tokens=False)]
    return float(probe.model.model.embed_tokens(torch.tensor(ids)).std())


def window(layer: int, n_layers: int, width: int) -> range:
    """The layers of a restoration window, centred like ROME's: ``[l - w // 2, l + ceil(w / 2))``, clipped."""
    return range(max(0, layer - width // 2), min(n_layers, layer + (width + 1) // 2))


def _restored(
    probe: Probe, rows: Tensor, noise_edit: HookedEdit, clean: Tensor, kind: str, layers: range
) -> Tensor:
    """Last-position logits [pos * sample, vocabulary]; each block of rows has one position put back to clean.

    Args:
        probe: The model.
        rows: [sample, pos] token ids, all rows equal.
        noise_edit: The corruption; it must accept pos * sample rows.
        clean: [layer, pos, d_model] outputs of the clean run.
        kind: Which module's output is restored.
        layers: In which layers.
    """
    samples, length = rows.shape
    row = torch.arange(samples * length)
    place = row // samples

    def put(layer: int) -> Edit:
        def edit(value: Tensor) -> Tensor:
            value = value.clone()
            value[row, place] = clean[layer, place]
            return value

        return edit

    with edited([noise_edit, *[(probe.module(kind, layer), put(layer)) for layer in layers]]):
        return probe.last_logits(rows.repeat(length, 1))


def trace_fact(
    probe: Probe, item: TraceFact, donor: TraceFact, scale: float, samples: int, width: int, seed: int
) -> Trace:
    """Traces one fact over all layers and positions.

    Args:
        probe: The model.
        item: The fact.
        donor: Another subject of the same relation, for the control.
        scale: Standard deviation of the noise (k times sigma).
        samples: Noise samples; every cell sees the same ones.
        width: Layers per window for ``mlp`` and ``attn``; ``state`` restores one layer.
        seed: Seed of the noise.
    """
    ids = torch.tensor([probe.encode(item.prompt)])
    begin, end = probe.name_span(item.prompt, item.fact.subject)
    target = probe.answer_id(item.fact.answer)
    shape = (samples, end - begin, probe.model.config.hidden_size)
    noise = torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))

    def corrupt(value: Tensor) -> Tensor:
        value = value.clone()
        value[:, begin:end] += scale * noise.to(value.dtype).repeat(len(value) // samples, 1, 1)
        return value

    def chance(logits: Tensor) -> float:
        return float(logits.softmax(-1)[:, target].mean())

    noisy = (probe.model.model.embed_tokens, corrupt)
    rows, clean = ids.expand(samples, -1), capture(probe, ids)
    with edited([noisy]):
        corrupted = chance(probe.last_logits(rows))
    restored = {}
    for kind in KINDS:
        wide, states = 1 if kind == "state" else width, clean[kind][:, 0]
        cells = [
            _restored(probe, rows, noisy, states, kind, window(layer, probe.n_layers, wide))
            for layer in range(probe.n_layers)
        ]
        restored[kind] = np.array([_answer_by_place(logits, target, samples) for logits in cells])
    return Trace(
        chance(clean["logits"]),
        corrupted,
        (begin, end),
        restored,
        _donor(probe, rows, noisy, donor, end - 1, chance),
    )


def _answer_by_place(logits: Tensor, target: int, samples: int) -> list[float]:
    """Mean answer probability per restored position, from logits [pos * sample, vocabulary]."""
    return logits.softmax(-1)[:, target].reshape(-1, samples).mean(1).tolist()


def _donor(
    probe: Probe,
    rows: Tensor,
    noisy: HookedEdit,
    donor: TraceFact,
    pos: int,
    chance: Callable[[Tensor], float],
) -> np.ndarray:
    """Restores the state of another subject's last token instead of the right one (one value per layer)."""
    other = capture(probe, torch.tensor([probe.encode(donor.prompt)]), ("state",))["state"]
    last = probe.name_span(donor.prompt, donor.fact.subject)[1] - 1

    def put(layer: int) -> Edit:
        def edit(value: Tensor) -> Tensor:
            value = value.clone()
            value[:, pos] = other[layer, 0, last]
            return value

        return edit

    effects = []
    for layer in range(probe.n_layers):
        with edited([noisy, (probe.module("state", layer), put(layer))]):
            effects.append(chance(probe.last_logits(rows)))
    return np.array(effects)


def roles(span: tuple[int, int], length: int) -> dict[str, list[int]]:
    """Positions by role, for a prompt of ``length`` tokens; a role may be empty."""
    begin, end = span
    return {
        "first subject token": [begin] if end - begin > 1 else [],
        "middle subject tokens": list(range(begin + 1, end - 1)),
        "last subject token": [end - 1],
        "first later token": [end] if end < length - 1 else [],
        "other later tokens": list(range(end + 1, length - 1)),
        "last token": [length - 1] if end < length else [],
        "before the subject": list(range(0, begin)),
    }


def average(traces: list[Trace]) -> dict[str, dict[str, list[float]]]:
    """Share of the mean total effect that a restoration recovers: kind -> role -> one value per layer.

    It is mean(restored - corrupted) / mean(clean - corrupted): a ratio of means, so that facts with a small
    total effect cannot blow it up. Roles with several tokens are averaged over tokens and facts.
    """
    total = float(np.mean([t.total for t in traces]))
    out: dict[str, dict[str, list[float]]] = {}
    for kind in KINDS:
        gathered: dict[str, list[np.ndarray]] = {}
        for t in traces:
            grid = t.restored[kind] - t.corrupted
            for role, places in roles(t.span, grid.shape[1]).items():
                gathered.setdefault(role, []).extend(grid[:, p] for p in places)
        out[kind] = {role: (np.mean(v, axis=0) / total).tolist() for role, v in gathered.items() if v}
    donor = np.mean([t.donor - t.corrupted for t in traces], axis=0) / total
    out["state"]["last subject token, state of another subject (control)"] = donor.tolist()
    return out
