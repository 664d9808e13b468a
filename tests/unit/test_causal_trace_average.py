"""Averages over prompt sets: against sums made by hand from single traces, edge cases of roles, bands,
cancel, files.
"""

import json
import subprocess
import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from mi_core.analyses import (
    ROLES,
    Case,
    CausalTraceAverageInputs,
    CausalTraceAverageResult,
    CausalTraceInputs,
    causal_trace,
    causal_trace_average,
)
from mi_core.analyses.causal_trace_average_inputs import token_roles
from mi_core.analyses.causal_trace_average_types import SkippedCase, UsedCase
from mi_core.engine import build_model
from mi_core.errors import Cancelled, InputError
from mi_core.model.model import LoadedModel
from tests.tiny import N_LAYERS, hf_model
from tests.words import word_tokenizer

PROMPTS = (
    ("The Eiffel Tower is in the city of", "Eiffel Tower", (1, 3)),
    ("The Space Needle is located in downtown", "Space Needle", (1, 3)),
    ("The capital of France is", "France", (3, 4)),  # one-token subject, one token after it
    ("The capital of Italy", "Italy", (3, 4)),  # the subject ends the prompt
    (
        "the city of San Francisco Spain and Italy is in",
        "San Francisco Spain and",
        (3, 7),
    ),  # two middle tokens
)


@lru_cache(maxsize=1)
def model() -> LoadedModel:
    return build_model(hf_model("llama"), word_tokenizer())


@lru_cache(maxsize=1)
def cases() -> tuple[Case, ...]:
    """The prompts with whatever the random model says next as the right answer."""
    tops = [
        causal_trace(model(), CausalTraceInputs(p, subject=span, kinds=("state",), positions=(0,)))
        for p, _, span in PROMPTS
    ]
    return tuple(
        Case(p, subject, one.answer.text) for (p, subject, _), one in zip(PROMPTS, tops, strict=True)
    )


@lru_cache(maxsize=8)
def averaged(**options) -> CausalTraceAverageResult:
    return causal_trace_average(
        model(), CausalTraceAverageInputs(cases(), kinds=("state", "mlp"), samples=3, **options)
    )


@lru_cache(maxsize=2)
def singles(metric: str = "probability") -> list[np.ndarray]:
    """[position, layer] effects of each prompt, from traces of their own."""
    out = []
    for case, (_, _, span) in zip(cases(), PROMPTS, strict=True):
        result = causal_trace(
            model(),
            CausalTraceInputs(case.prompt, subject=span, kinds=("state",), samples=3, answer=case.answer),
        )
        out.append(result.grid("state", metric) - result.baseline(metric))
    return out


@pytest.mark.parametrize(
    ("n", "subject", "roles"),
    [
        (9, (2, 5), ((2,), (3,), (4,), (5,), (6, 7), (8,))),
        (6, (1, 5), ((1,), (2, 3), (4,), (5,), (), (5,))),  # one token after: first after and last
        (6, (2, 3), ((2,), (), (2,), (3,), (4,), (5,))),  # one-token subject: first and last
        (4, (2, 4), ((2,), (), (3,), (), (), (3,))),  # subject at the end: its last token is the last token
        (1, (0, 1), ((0,), (), (0,), (), (), (0,))),
    ],
)
def test_trap_30_roles_of_every_edge_case(n, subject, roles):
    assert token_roles(n, subject) == roles


def test_pooled_over_tokens_every_token_counts_once():
    result = averaged(pooling="tokens")
    for index in range(len(ROLES)):
        effects = [
            effect[position]
            for effect, (prompt, _, span) in zip(singles(), PROMPTS, strict=True)
            for position in token_roles(len(prompt.split()), span)[index]
        ]
        np.testing.assert_allclose(
            result.average("state")[index], np.mean(effects, axis=0), atol=1e-12, err_msg=ROLES[index]
        )
        assert result.tokens_per_role()[index] == len(effects)


def test_pooled_over_prompts_every_prompt_counts_once():
    result = averaged(pooling="prompts")
    means = [
        np.mean([effect[p] for p in token_roles(len(prompt.split()), span)[1]], axis=0)
        for effect, (prompt, _, span) in zip(singles(), PROMPTS, strict=True)
        if token_roles(len(prompt.split()), span)[1]
    ]
    np.testing.assert_allclose(result.average("state")[1], np.mean(means, axis=0), atol=1e-12)
    assert result.prompts_per_role().tolist() == [5, 1, 5, 4, 3, 5]


def test_total_effect_is_the_mean_of_clean_minus_corrupted():
    result = averaged()
    np.testing.assert_allclose(result.total_effect, np.mean(result.clean - result.corrupted))
    last = ROLES.index("last token")
    np.testing.assert_allclose(
        result.average("state")[last, -1], result.total_effect, atol=1e-12
    )  # last layer, last token
    np.testing.assert_allclose(result.share("state")[last, -1], 1, atol=1e-12)
    assert result.n_prompts == 5
    assert [check.passed for check in result.checks] == [True]


def test_negative_effects_are_kept():
    values = np.concatenate([effect.ravel() for effect in singles()])
    assert values.min() < -1e-4  # the random model has some, or this test says nothing
    per_prompt = averaged().sums["state"]
    assert per_prompt.min() < -1e-4


def test_the_band_covers_the_value_and_is_paired():
    result = averaged()
    low, high = result.interval("state")
    value = result.average("state")
    known = np.isfinite(low)
    assert known.any()
    assert (low[known] <= value[known]).all()
    assert (value[known] <= high[known]).all()
    # A constant added to clean, corrupted and restored alike is no effect: the paired band does not see it.
    shifted = replace(result, clean=result.clean + 5, corrupted=result.corrupted + 5)
    np.testing.assert_array_equal(shifted.interval("state")[0], low)
    np.testing.assert_allclose(shifted.total_effect_interval(), result.total_effect_interval(), atol=1e-12)


def test_the_band_of_prompts_that_all_agree_is_a_point():
    one = CausalTraceAverageResult(
        inputs=averaged().inputs,
        provenance=None,
        n_layers=2,
        skipped=(),
        used=tuple(UsedCase(i, 5, (1, 2), "x") for i in range(6)),
        clean=np.full(6, 0.9),
        corrupted=np.full(6, 0.1),
        counts=np.ones((6, 6), int),
        sums={"state": np.full((6, 6, 2), 0.4)},
    )
    np.testing.assert_allclose(one.average("state"), 0.4)
    np.testing.assert_allclose(one.interval("state"), 0.4)
    np.testing.assert_allclose(one.share("state"), 0.5)
    np.testing.assert_allclose(one.share_interval("state"), 0.5)


def test_the_band_is_reproducible_and_seeded():
    result = averaged()
    np.testing.assert_array_equal(result.interval("mlp"), result.interval("mlp"))
    other = replace(result, inputs=replace(result.inputs, seed=7))
    assert not np.array_equal(other.interval("mlp")[0], result.interval("mlp")[0], equal_nan=True)


def test_other_metrics_average_their_own_effects():
    result = averaged(metric="log_probability")
    first = np.mean(
        [effect[span[0]] for effect, (_, _, span) in zip(singles("log_probability"), PROMPTS, strict=True)],
        axis=0,
    )
    np.testing.assert_allclose(result.average("state")[0], first, atol=1e-12)
    assert result.unit == "nats"


def test_prompts_that_the_model_gets_wrong_or_that_cannot_be_traced_are_listed():
    wrong = replace(cases()[0], answer="Rome")
    missing = replace(cases()[1], subject="Big Ben")
    result = causal_trace_average(
        model(), CausalTraceAverageInputs((wrong, missing, cases()[2]), kinds=("state",), samples=2)
    )
    top = cases()[0].answer.strip()
    assert result.skipped == (
        SkippedCase(0, f"the model says ·{top}, not ·Rome", wrong=True),
        SkippedCase(1, "The subject 'Big Ben' is not in the prompt"),
    )
    assert [case.index for case in result.used] == [2]
    assert any("1 of 3 prompts wrong" in warning for warning in result.warnings)
    assert any("1 of 3 prompts cannot be traced" in warning for warning in result.warnings)


def test_no_prompt_left_is_a_result_without_numbers():
    result = causal_trace_average(
        model(), CausalTraceAverageInputs((replace(cases()[0], answer="Rome"),), kinds=("state",))
    )
    assert result.n_prompts == 0
    assert np.isnan(result.average("state")).all()
    assert np.isnan([result.total_effect, *result.total_effect_interval()]).all()
    assert CausalTraceAverageResult.from_json(result.to_json()).n_prompts == 0
    assert len(result.to_frame()) == 6 * N_LAYERS + 1


def test_pairs_are_averaged_over_their_differing_tokens():
    pair = Case(
        cases()[0].prompt, "", cases()[0].answer, corrupted_prompt="The Space Needle is in the city of"
    )
    unequal = replace(pair, corrupted_prompt="The Needle is in the city of")
    alone = replace(cases()[2], subject="")
    inputs = CausalTraceAverageInputs((pair, unequal, alone), corruption="tokens", kinds=("state",))
    result = causal_trace_average(model(), inputs)
    assert [case.subject for case in result.used] == [(1, 3)]
    assert "differ in length" in result.skipped[0].reason
    assert "no corrupted prompt" in result.skipped[1].reason
    single = causal_trace(
        model(), CausalTraceInputs(pair.prompt, corrupted_prompt=pair.corrupted_prompt, answer=pair.answer)
    )
    np.testing.assert_allclose(result.average("state")[2], single.effect("state")[2], atol=1e-12)


@pytest.mark.parametrize(
    ("other", "span"),
    [
        ("The Space Needle is in the city of", (1, 3)),
        (
            "The Needle is in the city of",
            (1, 3),
        ),  # unequal length: what both begin and end with is taken away
        ("The Tower is in the city of", (1, 2)),
        ("The Eiffel Tower is in the city of Paris", (8, 8)),  # nothing of its own
    ],
)
def test_noise_on_a_pair_without_subject_goes_on_what_differs(other, span):
    case = replace(cases()[0], subject="", corrupted_prompt=other)
    result = causal_trace_average(model(), CausalTraceAverageInputs((case,), kinds=("state",), samples=2))
    if span[0] == span[1]:
        assert "no token of its own" in result.skipped[0].reason
    else:
        assert [used.subject for used in result.used] == [span]


def test_sigma_of_the_sets_subjects_is_romes_rule():
    own = CausalTraceAverageInputs(cases(), sigma_of="subjects").trace_inputs(cases()[0], (1, 3))
    assert own.sigma_subjects == tuple(sorted({case.subject for case in cases()}))
    assert CausalTraceAverageInputs(cases()).trace_inputs(cases()[0], (1, 3)).sigma_subjects == ()


def test_progress_and_cancel_keep_the_prompts_done():
    steps = []

    def stop(step):
        steps.append(step)
        if step.done == 2:
            raise Cancelled

    result = causal_trace_average(model(), averaged().inputs, on_step=stop)
    assert result.cancelled
    assert result.n_prompts == 2
    np.testing.assert_allclose(result.sums["state"], averaged().sums["state"][:2], atol=1e-12)
    done = [step.done for step in steps]
    assert done == sorted(done)
    assert any(step.partial is not None and step.partial.n_prompts == 1 for step in steps)
    assert steps[-1].seconds_left > 0


def test_cancelling_half_way_through_a_prompt_drops_that_prompt():
    seen = []

    def stop(step):
        seen.append(step)
        if len(seen) == 3:  # the second report within the first prompt
            raise Cancelled

    result = causal_trace_average(model(), averaged().inputs, on_step=stop)
    assert result.cancelled
    assert result.n_prompts == 0


def test_json_brings_everything_back():
    result = averaged()
    back = CausalTraceAverageResult.from_json(result.to_json())
    assert back.to_json() == result.to_json()
    assert back.inputs == result.inputs
    np.testing.assert_array_equal(back.interval("state"), result.interval("state"))


def test_the_table_carries_n_and_bands():
    result = averaged()
    frame = result.to_frame()
    row = frame.query("kind == 'state' and role == 'first token after' and layer == 1").iloc[0]
    assert row["value"] == pytest.approx(result.average("state")[3, 1])
    assert (row["prompts"], row["tokens"], row["unit"], row["pooling"]) == (4, 4, "probability", "tokens")
    total = frame[frame.kind == "total effect"].iloc[0]
    assert total["value"] == pytest.approx(result.total_effect)
    assert len(frame) == 2 * 6 * N_LAYERS + 1


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("cases", (), "0 prompts"),
        ("kinds", ("head",), "no token roles"),
        ("resamples", 5, "resamples"),
        ("samples", 0, "samples"),
        ("noise_level", -1.0, "noise level"),
    ],
)
def test_senseless_inputs_are_refused(field, value, message):
    with pytest.raises(InputError, match=message):
        CausalTraceAverageInputs(**{"cases": (Case("a b", "a", "c"),), field: value})


def test_inputs_of_wrong_types_are_refused_for_users():
    """The type checks that tests run under would see these first, so they are tried without."""
    program = """
import sys
from mi_core.analyses import Case, CausalTraceAverageInputs
from mi_core.errors import InputError
wrong = dict(kinds=("soul",), pooling="sheep", metric="beauty", corruption="rust", sigma_of="x", samples=2.5,
seed="1",
             noise_level="3", resamples=None, window=[1], bos="x", noise="pink")
for name, value in wrong.items():
    try:
        CausalTraceAverageInputs.from_dict({"cases": [{"prompt": "a b", "subject": "a", "answer": "c"}], name:
        value})
    except InputError:
        continue
    sys.exit(f"accepted {name}={value!r}")
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("inputs", "cases"), [{"prompt": 1}]),
        (("inputs", "cases"), "x"),
        (("inputs", "evil"), 1),
        (("used",), [{}]),
        (("clean",), [1]),
        (("sums", "soul"), []),
        (("sums", "state"), [[]]),
        (("roles",), []),
        (("n_layers",), 10**9),
        (("counts",), [["x"]]),
        (("skipped",), [3]),
        (("provenance",), {}),
        (("inputs", "kinds"), None),
    ],
)
def test_a_damaged_record_is_one_input_error(path, value):
    record = json.loads(averaged().to_json())
    place = record
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(InputError):
        CausalTraceAverageResult.from_json(json.dumps(record))
