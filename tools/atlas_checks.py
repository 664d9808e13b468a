"""The measurements on Atlas other than the causal trace: facts, induction, indirect objects, logit lens.

Every function returns a part of ``results.json``: what was measured, on how many cases, with which seed, its
control and its checks.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from typing import Any

import torch
from atlas_facts import Fact, fill
from atlas_lines import IOI_FRAMES, ioi_prompt, pair_is_held_out
from atlas_probe import Probe, capture, heads_zeroed, untrained
from atlas_record import check
from atlas_trace import TraceFact
from torch import Tensor

SEED_PROMPTS: tuple[tuple[str, str], ...] = (
    ("The capital of France is", "Paris"),
    ("The capital of Poland is", "Warsaw"),
    ("The capital of Germany is", "Berlin"),
    ("The Space Needle is in downtown", "Seattle"),
    ("The Eiffel Tower is in downtown", "Paris"),
    ("The Eiffel Tower is located in the city of", "Paris"),
    ("The Louvre Museum is located in the city of", "Paris"),
    ("The Eiffel Tower is in", "Paris"),
    ("The Statue of Liberty is located in", "New"),
    ("Albert Einstein developed the theory of", "relativity"),
    ("Isaac Newton developed the theory of", "gravity"),
    ("The CEO of Tesla is", "Musk"),
    ("The CEO of Apple is", "Cook"),
    ("Water freezes at", "0"),
    ("Water boils at", "100"),
    ("Water freezes at zero", "degrees"),
    ("Shakespeare wrote", "Hamlet"),
    ("Dickens wrote", "Oliver"),
    ("Barack Obama was born in", "Honolulu"),
    ("The largest planet in the solar system is", "Jupiter"),
    ("Paris is the capital of", "France"),
    ("When Mary and John went to the store, John gave a drink to", "Mary"),
)
SEED_PAIRS: tuple[tuple[str, str], ...] = (
    ("The capital of France is", "The capital of Poland is"),
    ("The capital of France is", "The capital of Germany is"),
    ("The Space Needle is in downtown", "The Eiffel Tower is in downtown"),
    ("The Eiffel Tower is located in the city of", "The Louvre Museum is located in the city of"),
    ("Albert Einstein developed the theory of", "Isaac Newton developed the theory of"),
)


def held_out_items(facts: list[Fact]) -> list[TraceFact]:
    """Every fact with each template that was held out for its subject."""
    return [
        TraceFact(fact, fill(template, fact.subject)[0], template)
        for fact in facts
        for template in fact.held_templates
    ]


def accuracy(probe: Probe, items: list[TraceFact]) -> tuple[dict[str, Any], list[bool]]:
    """Target (i): top-1 first answer token on held-out templates."""
    targets = torch.tensor([probe.answer_id(item.fact.answer) for item in items])
    right = (probe.prompt_logits([item.prompt for item in items]).argmax(-1) == targets).tolist()
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    hits: dict[str, list[bool]] = defaultdict(list)
    for item, ok in zip(items, right, strict=True):
        answers[item.fact.relation][item.fact.answer] += 1
        hits[item.fact.relation].append(ok)
    guess = sum(counter.most_common(1)[0][1] for counter in answers.values()) / len(items)
    part = {
        "what": "share of prompts whose first answer token is top-1, on templates held out for the subject",
        "n": len(items),
        "facts": len({(i.fact.relation, i.fact.subject) for i in items}),
        "per_relation": {name: sum(v) / len(v) for name, v in hits.items()},
        "checks": [
            check(
                "facts right on held-out templates",
                sum(right) / len(right),
                ">=",
                0.97,
                control=guess,
                control_is="always the commonest answer of the relation",
            )
        ],
    }
    return part, right


def seed_prompts(probe: Probe) -> dict[str, Any]:
    """The prompts of the project's seeds: right answer on top, equal lengths within pairs."""
    prompts = [prompt for prompt, _ in SEED_PROMPTS]
    logits = probe.prompt_logits(prompts)
    top = [probe.tokenizer.decode([i]) for i in logits.argmax(-1).tolist()]
    p = logits.softmax(-1).max(-1).values.tolist()
    rows = [
        {"prompt": prompt, "answer": f" {answer}", "top": t, "probability": q, "right": t == f" {answer}"}
        for (prompt, answer), t, q in zip(SEED_PROMPTS, top, p, strict=True)
    ]
    equal = [len(probe.encode(a)) == len(probe.encode(b)) for a, b in SEED_PAIRS]
    return {
        "what": "top-1 next token of the seed prompts; token counts of their pairs",
        "n": len(rows),
        "prompts": rows,
        "checks": [
            check("seed prompts right", sum(r["right"] for r in rows) / len(rows), ">=", 1.0),
            check("seed pairs of equal length", sum(equal) / len(equal), ">=", 1.0, n=len(equal)),
        ],
    }


def repeated_tokens(probe: Probe, seed: int, rows: int, length: int) -> tuple[Tensor, Tensor]:
    """Random sequences [rows, 1 + 2 length] after the begin token: one said twice, and two unlike ones."""
    rng = torch.Generator().manual_seed(seed + 7_000_003)
    low, high = len(probe.tokenizer.all_special_ids), len(probe.tokenizer)
    once = torch.randint(low, high, (rows, length), generator=rng)
    other = torch.randint(low, high, (rows, length), generator=rng)
    begin = torch.full((rows, 1), probe.encode("")[0])
    return torch.cat([begin, once, once], 1), torch.cat([begin, once, other], 1)


@torch.no_grad()
def _patterns(probe: Probe, ids: Tensor) -> Tensor:
    """Attention patterns [layer, row, head, query, key]."""
    return torch.stack(probe.model(ids, output_attentions=True, use_cache=False).attentions)


def induction_scores(probe: Probe, ids: Tensor, length: int) -> Tensor:
    """Mean attention [layer, head] from the second copy to the token after the earlier copy."""
    return _patterns(probe, ids).diagonal(1 - length, dim1=-2, dim2=-1)[..., 1:].mean((1, 3))


def induction(probe: Probe, seed: int, rows: int = 64, length: int = 32) -> dict[str, Any]:
    """Target (iii): the best induction head on fresh repeated random tokens.

    Position 0 is the begin token; the first copy fills 1 .. length, the second length + 1 .. 2 length.
    Attention from query i goes to key i - length + 1.
    """
    repeated, unrelated = repeated_tokens(probe, seed, rows, length)
    scores = induction_scores(probe, repeated, length)
    best = divmod(int(scores.argmax()), scores.shape[1])
    control = float(induction_scores(probe, unrelated, length)[best])
    fresh = float(induction_scores(untrained(probe, seed), repeated, length).max())
    with torch.no_grad():
        logits = probe.model(repeated, use_cache=False).logits[:, length + 1 : -1]
    copied = float((logits.argmax(-1) == repeated[:, length + 2 :]).float().mean())
    return {
        "what": "mean attention from the second copy of random tokens to the token after the earlier copy",
        "n": rows,
        "length": length,
        "seed": seed,
        "head": f"L{best[0]}H{best[1]}",
        "scores": scores.tolist(),
        "second_copy_accuracy": copied,
        "checks": [
            check(
                "best induction head",
                float(scores[best]),
                ">=",
                0.60,
                control=control,
                control_is="the same head and offset on sequences that do not repeat",
                untrained_model=fresh,
            )
        ],
    }


def ioi_cases(names: list[str], rng: random.Random, count: int, third: bool) -> list[tuple[str, str, str]]:
    """(prompt, name once, name twice) on pairs that training never used, both orders equally often.

    With ``third`` the sentence repeats neither name (a control without an answer).
    """
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if pair_is_held_out(a, b)]
    cases = []
    for i in range(count):
        a, b = rng.sample(rng.choice(pairs), 2)
        first, second = (a, b) if i % 2 else (b, a)
        said = rng.choice([n for n in names if n not in (a, b)]) if third else b
        cases.append((ioi_prompt(rng, first, second, said, IOI_FRAMES[i // 2 % len(IOI_FRAMES)]), a, b))
    return cases


def name_differences(probe: Probe, cases: list[tuple[str, str, str]]) -> Tensor:
    """Logit difference [case] between the name said once and the name said twice."""
    logits, rows = probe.prompt_logits([case[0] for case in cases]), torch.arange(len(cases))
    once = torch.tensor([probe.answer_id(case[1]) for case in cases])
    twice = torch.tensor([probe.answer_id(case[2]) for case in cases])
    return logits[rows, once] - logits[rows, twice]


def indirect_objects(probe: Probe, names: list[str], seed: int, count: int = 256) -> dict[str, Any]:
    """Target (iv): logit difference on unseen name pairs, and what each head's zero ablation takes away."""
    rng = random.Random(seed + 11)
    cases = ioi_cases(names, rng, count, third=False)
    difference = name_differences(probe, cases)
    mean = float(difference.mean())
    control = float(name_differences(probe, ioi_cases(names, rng, count, third=True)).mean())
    heads = probe.model.config.num_attention_heads
    removed = torch.zeros(probe.n_layers, heads)
    for layer in range(probe.n_layers):
        for head in range(heads):
            with heads_zeroed(probe, layer, head):
                removed[layer, head] = 1 - float(name_differences(probe, cases).mean()) / mean
    best = divmod(int(removed.argmax()), heads)
    size = removed.flatten().abs().median()
    return {
        "what": "logit of the name said once minus that said twice; share lost when one head is zeroed",
        "n": count,
        "seed": seed,
        "frames": len(IOI_FRAMES),
        "ablation": "zero, before the output projection, all positions",
        "head": f"L{best[0]}H{best[1]}",
        "removed": removed.tolist(),
        "checks": [
            check(
                "mean logit difference on unseen pairs",
                mean,
                ">",
                2.0,
                unit="logits",
                control=control,
                control_is="a third name acts, so that neither answer is favoured",
            ),
            check(
                "accuracy on unseen pairs",
                float((difference > 0).float().mean()),
                ">=",
                0.95,
                control=0.5,
                control_is="chance",
            ),
            check("share removed by the strongest head", float(removed[best]), ">=", 0.30),
            check("median absolute share removed by a head", float(size), "<=", 0.05),
        ],
    }


def lens(
    probe: Probe, items: list[TraceFact], right: list[bool], seed: int, count: int = 600
) -> dict[str, Any]:
    """Target (v): the layer at which the logit lens on the last token first gives the answer."""
    known = [item for item, ok in zip(items, right, strict=True) if ok]
    chosen = random.Random(seed + 5).sample(known, min(count, len(known)))
    found, control = torch.zeros(probe.n_layers), 0.0
    early = 0
    for index, item in enumerate(chosen):
        states = capture(probe, torch.tensor([probe.encode(item.prompt)]), ("state",))["state"][:, 0, -1]
        with torch.no_grad():
            top = probe.model.lm_head(probe.model.model.norm(states)).argmax(-1)
        hit = top == probe.answer_id(item.fact.answer)
        found += hit
        early += bool(hit[:-1].any())
        control += bool((top[:-1] == probe.answer_id(chosen[index - 1].fact.answer)).any())
    n = len(chosen)
    return {
        "what": "share of known facts whose answer is top-1 under the logit lens at a layer before the last",
        "n": n,
        "seed": seed,
        "top1_share_by_layer": (found / n).tolist(),
        "checks": [
            check(
                "answer found before the last layer",
                early / n,
                ">=",
                0.60,
                control=control / n,
                control_is="the answer of another fact in the same states",
            )
        ],
    }
