"""The planted circuit: its behaviour first, then that the classes are found there and only there."""

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch

from mi_core.analyses.circuit_test_inputs import CircuitTestInputs
from mi_core.analyses.circuit_test_result import CircuitTestResult
from mi_core.analyses.circuit_test_run import try_circuit
from mi_core.analyses.head_classes_inputs import HeadClassesInputs
from mi_core.analyses.head_classes_result import HeadClassesResult
from mi_core.analyses.head_classes_run import classes_of
from mi_core.analyses.path_patching_inputs import PathPatchingInputs
from mi_core.analyses.path_patching_result import PathPatchingResult
from mi_core.analyses.path_patching_rows import Group, clean_scores
from mi_core.analyses.path_patching_run import paths_of
from mi_core.engine import Edit, run
from mi_core.errors import Cancelled, InputError
from tests.planted import CLASSES, NAMES, ROLES, WORDS, ids, planted_group, planted_model

N = 10
INPUTS = HeadClassesInputs(n=2 * N, habit_length=11)


@cache
def groups() -> tuple[Group, ...]:
    second = planted_group(N, 1, indirect_first=False)
    return planted_group(N, 0), dataclasses.replace(second, index=np.arange(N, 2 * N))


@cache
def found() -> HeadClassesResult:
    return classes_of(planted_model(), groups(), INPUTS)


def names(*places: tuple[int, int]) -> tuple[str, ...]:
    return tuple(f"L{layer}H{head}" for layer, head in places)


# --- behaviour ---


@pytest.mark.parametrize("number", [0, 1])
def test_the_model_names_the_indirect_object(number: int) -> None:
    group = groups()[number]
    logits = run(planted_model(), group.tokens, last=1).logits[:, -1]
    assert torch.equal(logits.argmax(-1), group.answers)
    assert clean_scores(planted_model(), group).min() > 5


def test_the_induction_pair_continues_what_repeats() -> None:
    prompt = ids(["went Mary gave Kate so went Mary gave"])
    seen = run(planted_model(), prompt, capture=[("pattern", 1)])
    assert WORDS[int(seen.logits[0, -1].argmax())] == "Kate"
    assert seen["pattern", 1][0, 0, -1, 4] > 0.99  # where Kate stands
    without = run(planted_model(), prompt, edits=[Edit("z", 0, "zero", heads=(0,))])
    assert WORDS[int(without.logits[0, -1].argmax())] != "Kate"


def test_every_head_looks_where_it_was_told() -> None:
    seen = run(planted_model(), groups()[0].tokens, capture=["pattern"])
    io, s1, s2, end = (ROLES[role] for role in ("IO", "S1", "S2", "end"))
    looks = {(0, 0): (5, 4), (0, 1): (s2, s1), (1, 0): (s2, s1 + 1), (1, 1): (end, s2), (2, 0): (end, io)}
    for (layer, head), (query, key) in {**looks, (2, 1): (end, io), (3, 0): (end, 0)}.items():
        assert seen["pattern", layer][:, head, query, key].min() > 0.95, (layer, head)


# --- classes ---


@pytest.mark.parametrize("ablation", ["mean", "resample", "zero"])
def test_the_planted_classes_are_found_there_and_only_there(ablation: str) -> None:
    inputs = dataclasses.replace(INPUTS, ablation=ablation, most_drawn=0)
    result = classes_of(planted_model(), groups(), inputs)
    labels = {place: verdict.label for place, verdict in result.verdicts().items()}
    assert labels == {place: CLASSES.get(place, "none") for place in labels}
    assert result.warnings == ()


def test_every_label_shows_its_numbers() -> None:
    reasons = found().verdict(2, 0).reasons
    assert [reason.split(" ")[0] for reason in reasons] == ["direct", "attention", "attention", "copying"]
    assert all("holds" in reason for reason in reasons)


def test_direct_effects_are_what_zeroing_before_the_last_norm_would_take_at_its_frozen_scale() -> None:
    """Second computation: by hand from W_O and the planted unembedding."""
    model, group = planted_model(), groups()[0]
    seen = run(model, group.tokens, capture=[("z", 2), ("resid_post", 3)])
    stream = seen["resid_post", 3][:, -1]
    scale = (stream.var(-1, unbiased=False) + 1e-5).sqrt()
    output = model.hf.transformer.h[2].attn.c_proj.weight[:44].detach()
    written = seen["z", 2][:, -1, 0] @ output
    head = model.hf.lm_head.weight.detach()
    direction = head[group.answers] - head[group.wrong]
    by_hand = ((written - written.mean(-1, keepdim=True)) * direction).sum(-1) / scale
    both = classes_of(model, groups()[:1], dataclasses.replace(INPUTS, n=N, most_drawn=0))
    assert both.band("direct", 2, 0).mean == pytest.approx(float(by_hand.mean()), abs=1e-6)


def test_the_drawn_paths_are_those_that_were_planted() -> None:
    result = found()
    edge = {
        (result.drawn[index], other, part): value
        for index in range(len(result.drawn))
        for other, part, value, _, _ in result.paths_from(index)
    }
    strong = {key for key, value in edge.items() if abs(value) > 1}
    assert strong == {
        ((0, 1), (1, 1), "k"),  # duplicate -> S-inhibition: where S2 is
        ((0, 1), (1, 1), "v"),  # and who it is
        ((1, 1), (2, 0), "q"),  # S-inhibition -> name mover: whom not to look at
        ((1, 1), (2, 1), "q"),
        ((1, 1), (3, 0), "q"),
        ((2, 0), (3, 0), "q"),  # name mover -> backup: what is said already
    }


def test_without_a_difference_between_prompts_nothing_is_found() -> None:
    group = groups()[0]
    same = dataclasses.replace(group, counterfactual=group.tokens)
    result = classes_of(planted_model(), [same], dataclasses.replace(INPUTS, ablation="resample", n=N))
    assert not result.heads_of("S-inhibition", "backup")
    assert np.nanmax(np.abs(result.means[list_index("ablated")])) < 1e-9


def list_index(name: str) -> int:
    from mi_core.analyses.head_classes_rules import QUANTITIES

    return list(QUANTITIES).index(name)


def test_a_task_without_names_has_habits_only() -> None:
    bare = [dataclasses.replace(group, roles={}) for group in groups()]
    result = classes_of(planted_model(), bare, dataclasses.replace(INPUTS, most_drawn=0))
    assert result.heads_of("induction") == ((1, 0),)
    assert not result.heads_of("name mover", "negative name mover", "S-inhibition", "backup")
    assert any("names no IO" in warning for warning in result.warnings)
    assert result.verdict(2, 0).label == "unclear"  # it matters, and nothing explains it


def test_a_record_comes_back_the_same() -> None:
    again = HeadClassesResult.from_json(found().to_json())
    assert again.verdicts() == found().verdicts()
    np.testing.assert_array_equal(again.edges, found().edges)
    assert again.inputs == INPUTS
    frame = found().to_frame()
    assert set(frame["unit"]) == {"logits", "share"}
    with pytest.raises(InputError, match="damaged"):
        HeadClassesResult.from_json(found().to_json().replace('"drawn"', '"dawn"'))


def test_stopping_keeps_what_is_measured() -> None:
    def stop(step: object) -> None:
        if getattr(step, "text", "") == "ablation":
            raise Cancelled

    result = classes_of(planted_model(), groups(), INPUTS, on_step=stop)
    assert result.cancelled
    assert result.heads_of("name mover") == ((2, 0),)
    assert np.isnan(result.means[list_index("ablated")]).all()
    assert any("stopped during: ablation" in warning for warning in result.warnings)


# --- tests of the circuit ---


@cache
def trial(heads: tuple[str, ...]) -> CircuitTestResult:
    return try_circuit(planted_model(), groups(), CircuitTestInputs(heads, n=2 * N, subsets=16, controls=4))


ALL = names(*CLASSES)


def test_the_whole_circuit_is_faithful_and_leaves_nothing() -> None:
    result = trial(ALL)
    assert result.faithfulness == pytest.approx(1.0, abs=0.05)  # idle heads have a size
    assert abs(result.incompleteness.mean) < 0.2
    np.testing.assert_allclose(result.subset_circuit.mean(-1), result.subset_model.mean(-1), atol=0.4)
    assert result.control_band().mean < 0.6 * result.band("whole model").mean
    assert all(check.passed for check in result.checks)


def test_without_its_backup_the_circuit_is_faithful_but_not_complete() -> None:
    result = trial(names(*(place for place, label in CLASSES.items() if label != "backup")))
    assert result.faithfulness == pytest.approx(1.0, abs=0.1)
    missed = result.subset_model.mean(-1) - result.subset_circuit.mean(-1)
    assert missed.max() > 2  # a part with the name mover and without S-inhibition: only the model recovers


def test_the_name_movers_alone_are_not_faithful() -> None:
    """Nobody tells them which of the two names to leave out."""
    assert abs(trial(names((2, 0))).faithfulness) < 0.2


def test_the_model_with_all_heads_equals_itself() -> None:
    every = names(*((layer, head) for layer in range(4) for head in range(4)))
    result = trial(every)
    np.testing.assert_array_equal(result.scores[0], result.scores[1])
    np.testing.assert_array_equal(result.scores[2], result.scores[3])
    assert CircuitTestResult.from_json(result.to_json()).faithfulness == result.faithfulness
    assert any("of 16 heads" in warning for warning in result.warnings)


# --- path patching as a whole ---


def test_path_patching_over_groups_keeps_the_tasks_order() -> None:
    inputs = PathPatchingInputs(("logits", "L2H0.q"), n=2 * N)
    result = paths_of(planted_model(), groups(), inputs)
    alone = paths_of(planted_model(), groups()[:1], inputs)
    np.testing.assert_allclose(result.effects[..., :N], alone.effects, atol=1e-12)
    mean, low, high = result.bands()
    assert high[0, 2, 0] < -1  # the name mover writes the answer
    assert low[0, 2, 1] > 0  # and its opponent against it
    assert np.nanargmin(mean[1]) == 1 * 4 + 1  # S-inhibition reaches the query
    assert np.isnan(mean[1, 2:]).all()
    assert result.checks
    assert all(check.passed for check in result.checks)
    again = PathPatchingResult.from_json(result.to_json())
    np.testing.assert_array_equal(again.effects, result.effects)
    assert len(result.to_frame()) == np.isfinite(mean).sum()


@pytest.mark.parametrize(
    ("receivers", "said"),
    [(("L9H0.q",), "no head L9H0"), (("L0H1.k",), "receives nothing"), (("L2H7.v",), "no head L2H7")],
)
def test_receivers_that_the_model_has_not(receivers: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        paths_of(planted_model(), groups(), PathPatchingInputs(receivers))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"receivers": ()}, "No receiver"),
        ({"receivers": ("L1H0.q", "L1H0.q")}, "twice"),
        ({"receivers": ("logits", "L1H0.q"), "setting": "together"}, "by themselves"),
        ({"n": 1}, "number of prompts"),
        ({"mlps": "gone"}, "mlps"),
    ],
)
def test_path_patching_refuses(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        PathPatchingInputs(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"heads": ()}, "no heads"),
        ({"heads": ("L1H0", "L1H0")}, "twice"),
        ({"heads": ("H0",)}, "names no head"),
        ({"heads": ("L1H0",), "controls": -1}, "random circuits"),
    ],
)
def test_circuit_test_refuses(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        CircuitTestInputs(**wrong)  # type: ignore[arg-type]


def test_a_circuit_of_heads_that_are_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="no head L9H0"):
        try_circuit(planted_model(), groups(), CircuitTestInputs(("L9H0",)))


def test_thresholds_are_shares() -> None:
    with pytest.raises(InputError, match="least share"):
        HeadClassesInputs(least_share=0)
    assert len(NAMES) == 8
