"""Do features of Atlas' transcoder mean something? Chosen on trained sentences, tested on held-out ones.

A concept is a set of prompts: those of one relation ("the currency of") or with one answer ("France"). On the
trained templates those features are kept that tell the concept's prompts from all others at their last token
(recall at least 0.9, false alarms at most 0.02; if there is none, the one with the best F1), and of them the
one that writes the concept's words most is chosen. Then, on sentences that neither Atlas nor the transcoder
was trained with:

    activates:  recall (share of the concept's prompts on which it is active) and false alarms (share of the
                other prompts on which it is active)
    injects:    raised to `STRENGTH` times its median activation at the last token of prompts about something
                else, the mean change of log P(one of the concept's words), in nats. The control pushes with
                random features instead that are active on at least 0.1 % of all prompts, each scaled to write
                a vector of the same length.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from atlas_facts import Fact, fill, load_facts
from torch import Tensor

from mi_core.engine import Edit, run
from mi_core.model.model import LoadedModel
from mi_core.transcoders.encode import encode_layer
from mi_core.transcoders.quality import read_rows
from mi_core.transcoders.transcoder import Transcoder

MIN_FACTS = 12
RECALL, FALSE_ALARMS = 0.9, 0.02
INJECTED_PROMPTS = 40
CONTROLS = 20
STRENGTH = 5.0
ALIVE = 0.001


@dataclass(frozen=True)
class Concept:
    """What a feature may stand for.

    Attributes:
        name: for people.
        holds: [fact] whether a fact belongs to it.
        words: first tokens of its words.
    """

    name: str
    holds: Tensor
    words: tuple[int, ...]


@dataclass(frozen=True)
class Prompts:
    """One prompt per fact.

    Attributes:
        texts: the prompts.
        ids: their token ids.
        active: [prompt, layer, feature] activations at the last token.
        said: [prompt, token] log probabilities of the next token, nats.
    """

    texts: list[str]
    ids: list[list[int]]
    active: Tensor
    said: Tensor


def prompts_of(model: LoadedModel, transcoder: Transcoder, facts: Sequence[Fact], held_out: bool) -> Prompts:
    """The facts' prompts in a trained or a held-out sentence, and what is active at their last token."""
    texts = []
    for fact in facts:
        template = (fact.held_templates if held_out else fact.train_templates)[0]
        texts.append(fill(template, fact.subject)[0])
    ids = [model.tokenizer(text)["input_ids"] for text in texts]
    active = torch.zeros(len(ids), transcoder.n_layers, transcoder.n_features[0])
    said = torch.zeros(len(ids), model.dims.d_vocab)
    for rows in by_length(ids):
        tokens = torch.tensor([ids[row] for row in rows])
        said[rows] = run(model, tokens, last=1).logits[:, -1].log_softmax(-1)
        for layer, read in enumerate(read_rows(model, transcoder, tokens, transcoder.layers)):
            active[rows, layer] = encode_layer(transcoder, layer, read[:, -1])
    return Prompts(texts, ids, active, said)


def by_length(ids: Sequence[Sequence[int]], at_once: int = 128) -> list[list[int]]:
    """Indices of prompts of equal length, some at a time."""
    groups: dict[int, list[int]] = {}
    for index, tokens in enumerate(ids):
        groups.setdefault(len(tokens), []).append(index)
    return [rows[i : i + at_once] for rows in groups.values() for i in range(0, len(rows), at_once)]


def concepts_of(model: LoadedModel, facts: Sequence[Fact]) -> list[Concept]:
    """Every relation and every answer that enough facts have."""
    first = [model.tokenizer.encode(f" {fact.answer}", add_special_tokens=False)[0] for fact in facts]
    found = []
    for kind, value in (("relation", "relation"), ("answer", "answer")):
        for name in sorted({getattr(fact, value) for fact in facts}):
            holds = torch.tensor([getattr(fact, value) == name for fact in facts])
            if int(holds.sum()) >= MIN_FACTS:
                words = tuple(sorted({first[i] for i in holds.nonzero()[:, 0].tolist()}))
                found.append(Concept(f"{kind}: {name}", holds, words))
    return found


def best_feature(concept: Concept, fires: Tensor, writes: Tensor) -> tuple[int, int, float]:
    """(layer, feature, F1) of the feature that stands for a concept on the trained sentences.

    Args:
        concept: what is looked for.
        fires: [prompt, layer, feature] whether active.
        writes: [layer, feature, token] logits that each feature writes, all target layers summed.
    """
    inside = fires[concept.holds].float().sum(0)
    outside = fires[~concept.holds].float().sum(0)
    n = int(concept.holds.sum())
    f1 = 2 * inside / (inside + outside + n).clamp(min=1)
    good = (inside >= RECALL * n) & (outside <= FALSE_ALARMS * (len(fires) - n))
    words = writes[:, :, list(concept.words)].mean(-1)
    score = torch.where(good, words, -torch.inf) if bool(good.any()) else f1
    layer, feature = divmod(int(score.argmax()), fires.shape[2])
    return layer, feature, float(f1[layer, feature])


def written_logits(model: LoadedModel, transcoder: Transcoder) -> Tensor:
    """[layer, feature, token] what every feature writes, all targets summed: centred W_U times gain."""
    hf = model.hf
    unembed = hf.lm_head.weight.float() * hf.model.norm.weight.float()
    unembed = unembed - unembed.mean(0)
    summed = []
    for layer in transcoder.layers:
        parts = [rows.sum(1) for _, rows in transcoder.decoder_chunks(layer)]
        summed.append(torch.cat(parts) @ unembed.T)
    return torch.stack(summed)


def pushed(
    model: LoadedModel,
    prompts: Prompts,
    rows: Sequence[int],
    vectors: dict[int, Tensor],
    words: Sequence[int],
) -> tuple[float, float]:
    """What vectors added to the MLPs' outputs at the last token do.

    Args:
        model: Atlas.
        prompts: all prompts.
        rows: those that are changed.
        vectors: target layer -> [row, d_model].
        words: tokens whose probability is watched.

    Returns:
        Mean change of log P(words) in nats, and share of prompts whose top token is one of them afterwards.
    """
    place = {row: i for i, row in enumerate(rows)}
    changes, tops, index = [], [], torch.tensor(words)
    for group in by_length([prompts.ids[row] for row in rows]):
        chosen = [rows[i] for i in group]
        at = [place[row] for row in chosen]
        tokens = torch.tensor([prompts.ids[row] for row in chosen])
        edits = [
            Edit("mlp_out", target, "add", (-1,), value=value[at][:, None])
            for target, value in vectors.items()
        ]
        before = prompts.said[chosen]
        after = run(model, tokens, edits=edits, last=1).logits[:, -1].log_softmax(-1)
        changes.append(after[:, index].logsumexp(-1) - before[:, index].logsumexp(-1))
        tops.append(torch.isin(after.argmax(-1), index))
    return float(torch.cat(changes).mean()), float(torch.cat(tops).float().mean())


@dataclass(frozen=True)
class Choice:
    """A concept and the feature that was chosen for it."""

    concept: Concept
    layer: int
    feature: int
    f1: float
    value: float


def tested(model: LoadedModel, transcoder: Transcoder, seed: int) -> list[dict[str, Any]]:
    """Every concept with its feature and what the tests gave, the passing ones first."""
    facts = load_facts()
    trained, held = (prompts_of(model, transcoder, facts, flag) for flag in (False, True))
    writes, choices = written_logits(model, transcoder), []
    for concept in concepts_of(model, facts):
        layer, feature, f1 = best_feature(concept, trained.active > 0, writes)
        choices.append(Choice(concept, layer, feature, f1, _median(trained, concept, layer, feature)))
    rng = random.Random(seed)
    alive = (held.active > 0).float().mean(0) >= ALIVE
    live = [(int(layer), int(feature)) for layer, feature in alive.nonzero()]
    results = [_test(model, transcoder, held, choice, live, rng) for choice in choices]
    return sorted(results, key=lambda one: (not one["passes"], -one["f1_trained"]))


def _test(
    model: LoadedModel,
    transcoder: Transcoder,
    held: Prompts,
    choice: Choice,
    live: Sequence[tuple[int, int]],
    rng: random.Random,
) -> dict[str, Any]:
    """One concept on the held-out sentences."""
    concept = choice.concept
    outside = (~concept.holds).nonzero()[:, 0].tolist()
    fires = held.active[:, choice.layer, choice.feature] > 0
    recall = float(fires[concept.holds].float().mean())
    alarms = float(fires[~concept.holds].float().mean())
    rows = rng.sample(outside, INJECTED_PROMPTS)
    delta = STRENGTH * choice.value - held.active[rows, choice.layer, choice.feature]
    decoder = transcoder.rows(choice.layer, torch.tensor([choice.feature]))[0]
    vectors = {
        target: delta[:, None] * decoder[column]
        for column, target in enumerate(transcoder.targets(choice.layer))
    }
    nats, top = pushed(model, held, rows, vectors, concept.words)
    length = delta * decoder.norm()
    others = [at for at in live if at != (choice.layer, choice.feature)]
    control = []
    for layer, feature in rng.sample(others, CONTROLS):
        block = transcoder.rows(layer, torch.tensor([feature]))[0]
        same = {
            target: (length / block.norm())[:, None] * block[column]
            for column, target in enumerate(transcoder.targets(layer))
        }
        control.append(pushed(model, held, rows, same, concept.words)[0])
    right = recall >= RECALL and alarms <= FALSE_ALARMS and nats > max(0.0, *control)
    return {
        "concept": concept.name,
        "feature": f"L{choice.layer}F{choice.feature}",
        "f1_trained": choice.f1,
        "word_ids": list(concept.words),
        "n": int(concept.holds.sum()),
        "n_others": len(outside),
        "recall": recall,
        "false_alarms": alarms,
        "injected_at": STRENGTH * choice.value,
        "injected_nats": nats,
        "injected_top1": top,
        "control_nats_max": max(control),
        "control_nats_mean": sum(control) / len(control),
        "passes": right,
    }


def _median(prompts: Prompts, concept: Concept, layer: int, feature: int) -> float:
    """Median activation on the concept's trained prompts, over those on which it is active."""
    values = prompts.active[concept.holds, layer, feature]
    return float(values[values > 0].median()) if bool((values > 0).any()) else 0.0
