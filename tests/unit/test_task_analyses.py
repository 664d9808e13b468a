"""Experiments over tasks against plain torch hooks, identities, and numbers worked out by hand."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch

from mi_core import load_model
from mi_core.analyses import (
    AttributionInputs,
    HeadAblationInputs,
    HeadAblationResult,
    PairText,
    TaskBaselineResult,
    TaskHeadsResult,
    TaskInputs,
    attribution,
    head_ablation,
    task_baseline,
    task_heads,
)
from mi_core.analyses.task_bands import mean_with_band, share_with_band
from mi_core.errors import Cancelled, InputError
from mi_core.exports.tasks import ablation_figure, baseline_figure, heads_figure
from tests.attention_models import eager_attention, model_of
from tests.task_models import gpt2_like_hf, task_model

N = 12


def hooked(
    hf: Any, ids: tuple[int, ...], layer: int, change: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Last logits with what enters a layer's output projection changed; plain torch."""

    def hook(_module: Any, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (change(arguments[0].clone()),)

    handle = hf.transformer.h[layer].attn.c_proj.register_forward_pre_hook(hook)
    try:
        with torch.no_grad():
            return hf(input_ids=torch.tensor([ids])).logits[0, -1]
    finally:
        handle.remove()


def written(hf: Any, ids: tuple[int, ...], layer: int) -> torch.Tensor:
    """What enters a layer's output projection, [1, pos, d]."""
    seen = []
    hooked(hf, ids, layer, lambda z: (seen.append(z.clone()), z)[1])
    return seen[0]


@lru_cache
def hf() -> Any:
    return gpt2_like_hf()


@pytest.mark.parametrize("mode", ["zero", "mean", "resample"])
def test_ablation_of_every_head_equals_plain_hooks(mode: str) -> None:
    result = head_ablation(task_model(), HeadAblationInputs(mode, "subject-verb", N))  # type: ignore[arg-type]
    pairs = result.task.pairs
    assert result.effects.shape == (2, 3, N)
    groups = {i: group for group in result.task.groups() for i in group}
    for layer in range(2):
        every = [written(hf(), pair.ids, layer) for pair in pairs]
        for head in range(3):
            own = slice(8 * head, 8 * head + 8)
            for index, pair in enumerate(pairs):
                if mode == "zero":
                    new = torch.zeros_like(every[index])
                elif mode == "mean":
                    new = torch.stack([every[i] for i in groups[index]]).mean(0)
                else:
                    new = written(hf(), pair.counterfactual_ids, layer)

                def change(z: torch.Tensor, own: slice = own, new: torch.Tensor = new) -> torch.Tensor:
                    z[..., own] = new[..., own]
                    return z

                changed, plain = (hooked(hf(), pair.ids, layer, one) for one in (change, lambda z: z))
                d = [float(x[pair.answer_id] - x[pair.wrong_id]) for x in (changed, plain)]
                assert result.baseline[index] == pytest.approx(d[1], abs=1e-9)
                assert result.effects[layer, head, index] == pytest.approx(d[0] - d[1], abs=1e-9)
    assert all(check.passed for check in result.checks)


SAME = PairText("When Mary and John went to", "When Mary and John went to", "Mary", "John", (("IO", "Mary"),))
OTHER = PairText("When Mary and John went to", "When she and he went to", "Mary", "John", (("IO", "Mary"),))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox"])
def test_what_must_change_nothing_changes_nothing(family: str) -> None:
    """Resampling from the same prompt, and the mean over identical prompts."""
    model = model_of(family)
    again = head_ablation(model, HeadAblationInputs("resample", "pairs", pairs=(SAME, SAME)))
    assert np.abs(again.effects).max() < 1e-10
    mean = head_ablation(model, HeadAblationInputs("mean", "pairs", pairs=(OTHER, OTHER, OTHER)))
    assert np.abs(mean.effects).max() < 1e-10
    other = head_ablation(model, HeadAblationInputs("resample", "pairs", pairs=(OTHER, OTHER)))
    assert np.abs(other.effects).max() > 1e-3


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox"])
def test_direct_effects_are_those_of_the_attribution(family: str) -> None:
    model = model_of(family)
    result = task_heads(model, TaskInputs("pairs", pairs=(OTHER, SAME)))
    other = attribution(model, AttributionInputs(OTHER.prompt, answer="Mary", distractor="John"))
    np.testing.assert_allclose(result.direct[..., 0], other.heads[0], atol=1e-9)
    total = float(other.logits[0, 0] - other.logits[0, 1])
    assert result.differences[0] == pytest.approx(total, abs=1e-9)
    parts = other.embedding[0].sum() + result.direct[..., 0].sum() + other.attention_bias[0].sum()
    assert parts + other.mlp[0].sum() + other.bias[0] == pytest.approx(total, abs=1e-5)
    assert all(check.passed for check in result.checks)


def test_a_direct_effect_by_hand() -> None:
    result = task_heads(task_model(), TaskInputs("subject-verb", 4))
    pair, model = result.task.pairs[1], hf()
    final = []
    handle = model.transformer.ln_f.register_forward_pre_hook(lambda _m, a: final.append(a[0][0, -1]))
    with torch.no_grad():
        model(input_ids=torch.tensor([pair.ids]))
    handle.remove()
    scale = (final[0].var(unbiased=False) + model.transformer.ln_f.eps).sqrt()
    way = model.lm_head.weight[pair.answer_id] - model.lm_head.weight[pair.wrong_id]
    for layer in range(2):
        z, w_o = written(model, pair.ids, layer)[0, -1], model.transformer.h[layer].attn.c_proj.weight
        for head in range(3):
            own = slice(8 * head, 8 * head + 8)
            wrote = z[own] @ w_o[own].detach()
            value = (((wrote - wrote.mean()) / scale * model.transformer.ln_f.weight) @ way).detach()
            assert result.direct[layer, head, 1] == pytest.approx(value.item(), abs=1e-9)


def test_attention_to_a_role_is_the_eager_models() -> None:
    result = task_heads(model_of("gpt2"), TaskInputs("pairs", pairs=(OTHER, SAME)))
    pair = result.task.pairs[0]
    eager = eager_attention("gpt2", list(pair.ids))
    assert result.task.role_names == ("IO",)
    np.testing.assert_allclose(
        result.attention[0, ..., 0], eager[:, :, -1, pair.position("IO")].numpy(), atol=1e-9
    )


def test_the_baseline_is_the_models_own_logits() -> None:
    result = task_baseline(task_model(), TaskInputs("ioi", N))
    right = 0
    for index, pair in enumerate(result.task.pairs):
        with torch.no_grad():
            logits, other = (
                hf()(input_ids=torch.tensor([ids])).logits[0, -1]
                for ids in (pair.ids, pair.counterfactual_ids)
            )
        assert result.answer_logits[index] == pytest.approx(float(logits[pair.answer_id]), abs=1e-9)
        assert result.wrong_logits[index] == pytest.approx(float(logits[pair.wrong_id]), abs=1e-9)
        difference = float(other[pair.answer_id] - other[pair.wrong_id])
        assert result.counterfactual_differences[index] == pytest.approx(difference, abs=1e-9)
        probability = float(logits.softmax(-1)[pair.answer_id])
        assert result.answer_probabilities[index] == pytest.approx(probability, abs=1e-12)
        assert result.top_ids[index] == int(logits.argmax())
        right += float(logits[pair.answer_id]) > float(logits[pair.wrong_id])
    assert result.accuracy()[0] == pytest.approx(right / N)
    assert result.said()[0] == np.mean(
        [t == p.answer_id for t, p in zip(result.top_ids, result.task.pairs, strict=True)]
    )
    assert sum(n for _, n, *_ in result.by_template()) == N


def test_accuracy_and_bands_by_hand() -> None:
    """Differences 1, 2, 3, -2: mean 1, s^2 = 14 / 3, t(3) = 3.1824; 3 of 4 right, Wilson 0.3006 to 0.9544."""
    one = task_baseline(task_model(), TaskInputs("subject-verb", 4))
    made = replace(one, answer_logits=np.array([1.0, 2, 3, -2]), wrong_logits=np.zeros(4))
    mean, low, high = made.difference()
    half = 3.1824 * math.sqrt(14 / 3) / 2
    assert (mean, low, high) == pytest.approx((1, 1 - half, 1 + half), abs=1e-9)
    assert made.accuracy() == pytest.approx((0.75, 0.300642, 0.954413), abs=1e-5)


def test_bands_at_their_ends() -> None:
    assert share_with_band(10, 10)[2] == pytest.approx(1)
    assert share_with_band(10, 10)[1] == pytest.approx(10 / (10 + 1.959964**2))
    assert share_with_band(0, 10)[0:2] == (0, 0)
    assert all(map(math.isnan, share_with_band(0, 0)))
    mean, low, high = mean_with_band(np.array([[3.0], [4.0]]))
    assert mean.tolist() == [3, 4]
    assert np.isnan(low).all()
    assert np.isnan(high).all()


def test_atlas_does_the_task_and_one_head_matters() -> None:
    model = load_model("atlas")
    baseline = task_baseline(model, TaskInputs(n=32))
    assert baseline.accuracy()[0] > 0.95
    assert baseline.difference()[1] > 2
    control = baseline.control()
    assert control[1] < 0 < control[2]  # the counterfactuals favour neither answer
    result = head_ablation(model, HeadAblationInputs("zero", n=32))
    (layer, head), (mean, low, high) = result.strongest(1)[0], result.band()
    assert high[layer, head] < -1
    assert np.median(np.abs(mean)) < 0.2 * abs(mean[layer, head])
    assert low.shape == mean.shape


def test_records_come_back_and_damage_is_told() -> None:
    inputs = TaskInputs("ioi", 8)
    results = (
        task_baseline(task_model(), inputs),
        head_ablation(task_model(), HeadAblationInputs("mean", "ioi", 8)),
        task_heads(task_model(), inputs),
    )
    for result, kind in zip(results, (TaskBaselineResult, HeadAblationResult, TaskHeadsResult), strict=True):
        text = result.to_json()
        again = kind.from_json(text)
        assert again.to_json() == text
        assert again.task == result.task
        assert not result.to_frame().isna().any().any() or kind is HeadAblationResult
        with pytest.raises(InputError):
            kind.from_json(text.replace('"answer_id"', '"answer_ip"'))


def test_a_few_prompts_and_a_model_that_cannot_are_flagged() -> None:
    result = head_ablation(task_model(), HeadAblationInputs("mean", "subject-verb", 2))
    told = " ".join(result.warnings)
    assert "Only 2 prompts" in told
    assert "smallest group" in told
    assert ("does not do this task" in told) == (result.baseline.mean() <= 0)


def test_figures_say_n_unit_and_what_zero_means() -> None:
    inputs = TaskInputs("ioi", 8)
    heads = task_heads(task_model(), inputs)
    ablation = head_ablation(task_model(), HeadAblationInputs("zero", "ioi", 8))
    figures = [
        baseline_figure(task_baseline(task_model(), inputs)),
        *(ablation_figure(ablation, ranked=ranked, chosen=(1, 1)) for ranked in (False, True)),
        *(heads_figure(heads, what, ranked=r) for what in ("direct", "IO") for r in (False, True)),
    ]
    for figure in figures:
        assert "n = 8 prompts" in figure.caption
        assert "0 = " in figure.caption
    bars = ablation_figure(ablation, ranked=True).spec["datasets"]["bars"]
    first = ablation.strongest(1)[0]
    assert bars[0]["value"] == pytest.approx(ablation.band()[0][first], rel=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"task": "poetry"},
        {"n": 1},
        {"seed": -1},
        {"templates": "ABCB"},
        {"task": "pairs"},
        {"pairs": (SAME, SAME)},
        {"pairs": None},
        {"task": "pairs", "pairs": (SAME,)},
    ],
)
def test_inputs_that_name_no_task_are_refused(wrong: dict[str, Any]) -> None:
    for kind in (TaskInputs, HeadAblationInputs):
        with pytest.raises(InputError):
            kind(**wrong)
    with pytest.raises(InputError):
        HeadAblationInputs("half")  # type: ignore[arg-type]


def test_stopping_passes() -> None:
    def stop(_step: object) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        head_ablation(task_model(), HeadAblationInputs("zero", "ioi", 8), on_step=stop)
    with pytest.raises(Cancelled):
        task_heads(task_model(), TaskInputs("ioi", 8), on_step=stop)
