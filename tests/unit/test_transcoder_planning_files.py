"""candle-mi's files of the planning experiment and of attention routing: read, checked, written, refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from mi_core.errors import InputError
from mi_core.exports import feature_planning as figures
from mi_core.transcoders import (
    FeatureRoutingResult,
    PlanningResult,
    planning_to_candle_mi,
    read_planning,
    read_routing,
    routing_to_candle_mi,
)
from tests.unit.test_transcoder_planning import result_of

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "candle_mi"

SWEEP = {
    "model": "google/gemma-2-2b", "clt_repo": "mntss/clt", "prompt": "She wandered about",
    "tokens": ["<bos>", "She", " wandered", " about", " "], "suppress_word": "out", "inject_word": "around",
    "suppress_features": [{"layer": 2, "index": 7}], "inject_feature": {"layer": 4, "index": 11},
    "strength": 10.0, "baseline_prob": 1e-6,
    "sweep": [
        {"position": i, "token": token, "prob": prob}
        for i, (token, prob) in enumerate(
            zip(["<bos>", "She", " wandered", " about", " "], [1e-6, 2e-6, 3e-6, 4e-6, 0.5], strict=True)
        )
    ],
}  # fmt: skip
STEP_A = {
    **{key: value for key, value in SWEEP.items() if key != "clt_repo"},
    "transcoder_repo": "mntss/clt", "inject_token_id": 2449, "baseline_logit": 2.0, "spike_position": 4,
    "max_prob": 0.5, "max_logit": 19.0, "delta_prob": 0.499999, "delta_logit": 17.0,
    "sweep": [{**entry, "logit": 2.0 if entry["position"] < 4 else 19.0} for entry in SWEEP["sweep"]],
}  # fmt: skip
ROUTING = {
    "model_id": "google/gemma-2-2b", "clt_repo": "mntss/clt", "prompt": "She wandered about",
    "feature": "L2:7", "strength": 10.0, "planning_site": 2, "output_position": 3, "n_layers": 4,
    "n_heads": 2,
    "head_deltas": [
        [
            {"layer": layer, "head": head, "baseline_attn": 0.25, "steered_attn": 0.25 + delta,
             "delta": delta}
            for head, delta in enumerate((0.125, -0.0625) if layer == 3 else (0.0, 0.0))
        ]
        for layer in range(4)
    ],
    "top_heads": [{"layer": 3, "head": 0, "baseline_attn": 0.25, "steered_attn": 0.375, "delta": 0.125}],
    "strength_sweep": [{"strength": 10.0, "top_head_delta": 0.125, "total_routing_shift": 0.1875}],
}  # fmt: skip


def encoded(record: dict) -> bytes:
    return json.dumps(record).encode()


def test_a_sweep_is_read_and_its_fault_is_told() -> None:
    result = read_planning(encoded(SWEEP))
    assert result.source == "candle-mi"
    assert result.inputs.inject == "L4F11"
    assert result.inputs.suppress == "L2F7"
    assert result.inputs.prompt == "She wandered about "
    assert any("lacks the space" in warning for warning in result.warnings)
    assert any("output position itself" in warning for warning in result.warnings)
    np.testing.assert_allclose(result.line("probability"), [1e-6, 2e-6, 3e-6, 4e-6, 0.5])
    assert result.baseline[0] == 1e-6
    assert np.isnan(result.line("logit")).all()
    assert np.isnan(result.direct).all()
    assert all(check.passed for check in result.checks)
    assert PlanningResult.from_json(result.to_json()).to_json() == result.to_json()


def test_step_a_repeats_itself_and_a_wrong_repetition_is_seen() -> None:
    result = read_planning(encoded(STEP_A))
    assert len(result.checks) == 7
    assert all(check.passed for check in result.checks)
    assert result.answer.id == 2449
    np.testing.assert_allclose(result.total_effect("logit")[0], [0, 0, 0, 0, 17.0])
    for key, value in (("max_prob", 0.6), ("delta_logit", 16.0), ("spike_position", 3)):
        wrong = read_planning(encoded({**STEP_A, key: value}))
        assert [check.passed for check in wrong.checks].count(False) == 1


def test_tokens_that_do_not_spell_the_prompt_are_told() -> None:
    result = read_planning(encoded({**SWEEP, "prompt": "Another prompt"}))
    assert any("do not spell" in warning for warning in result.warnings)
    swapped = [{**entry, "token": "x"} for entry in SWEEP["sweep"]]
    assert not read_planning(encoded({**SWEEP, "sweep": swapped})).checks[1].passed


def test_our_own_result_goes_out_with_their_keys_and_comes_back() -> None:
    result = result_of("llama")
    text = planning_to_candle_mi(result)
    record = json.loads(text)
    assert set(SWEEP) <= set(record)
    assert record["prompt"] == result.inputs.prompt
    assert "".join(record["tokens"][-5:]).endswith("is")
    again = read_planning(text.encode())
    np.testing.assert_array_equal(again.line("probability"), result.line("probability"))
    np.testing.assert_array_equal(again.line("logit"), result.line("logit"))
    assert again.inputs.inject == result.inputs.inject
    assert again.inputs.suppress == result.inputs.suppress


def test_routing_is_read_and_unnamed_features_are_told() -> None:
    result = read_routing(encoded(ROUTING))
    assert result.total == 0.1875
    assert result.first_layer == 3
    assert result.totals.tolist() == [0.1875]
    assert result.sweep[0, 3, 0] == 0.125
    assert np.isnan(result.sweep[0, 3, 1])
    assert all(check.passed for check in result.checks)
    assert not any("other features" in warning for warning in result.warnings)
    assert FeatureRoutingResult.from_json(result.to_json()).to_json() == result.to_json()
    late = read_routing(encoded({**ROUTING, "feature": "L3:7"}))
    assert any("does not name" in warning for warning in late.warnings)
    wrong = {
        **ROUTING,
        "strength_sweep": [{"strength": 10.0, "top_head_delta": 0.125, "total_routing_shift": 0.2}],
    }
    assert not all(check.passed for check in read_routing(encoded(wrong)).checks)


def test_routing_goes_out_with_their_keys_and_comes_back() -> None:
    result = read_routing(encoded(ROUTING))
    again = read_routing(routing_to_candle_mi(result).encode())
    np.testing.assert_array_equal(again.change, result.change)
    assert set(ROUTING) <= set(json.loads(routing_to_candle_mi(result)))


def test_figures_of_files_stand() -> None:
    for record in (SWEEP, STEP_A):
        figure = figures.sweep_figure(read_planning(encoded(record)), "probability")
        assert "candle-mi" in figure.caption
        assert not figure.recipe
    routing = read_routing(encoded(ROUTING))
    assert "candle-mi" in figures.routing_figure(routing).caption
    assert len(figures.routing_sweep_figure(routing).spec["datasets"]["points"]) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tokens": []}, "'tokens' is empty"),
        ({"tokens": [1, 2, 3, 4, 5]}, "'tokens'"),
        ({"sweep": []}, "positions"),
        ({"sweep": [{"position": 9, "prob": 0.1}]}, "positions"),
        ({"sweep": [{"position": 0, "prob": 1.5}]}, "above 1"),
        ({"sweep": [{"position": 0}]}, "no 'prob'"),
        ({"baseline_prob": "x"}, "no number"),
        ({"baseline_prob": 10**400}, "no number"),
        ({"strength": -(10**400)}, "no number"),
        ({"inject_feature": {"layer": -1, "index": 0}}, "where a feature should be"),
        ({"suppress_features": [7]}, "where a feature should be"),
        ({"strength": None}, "no number"),
        ({"inject_word": " "}, "words"),
        ({"inject_token_id": "x"}, "inject_token_id"),
        ({"prompt": 3}, "'prompt'"),
    ],
)
def test_hostile_sweeps_are_refused(change: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_planning(encoded({**SWEEP, **change}))


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff\xfe", b"{}", b"[" * 100_000])
def test_what_is_no_result_is_refused(data: bytes) -> None:
    for read in (read_planning, read_routing):
        with pytest.raises(InputError):
            read(data)


@pytest.mark.parametrize("key", sorted(ROUTING))
def test_every_missing_key_of_routing_is_told(key: str) -> None:
    record = {name: value for name, value in ROUTING.items() if name != key}
    if key in ("model_id",):
        read_routing(encoded(record))
        return
    with pytest.raises(InputError, match=key):
        read_routing(encoded(record))


@pytest.mark.parametrize(
    "change",
    [
        {"n_layers": 3},
        {"n_heads": True},
        {"head_deltas": [[1, 2]] * 4},
        {"planning_site": 9},
        {"feature": "x"},
    ],
)
def test_hostile_routing_is_refused(change: dict) -> None:
    with pytest.raises(InputError):
        read_routing(encoded({**ROUTING, **change}))


@pytest.mark.skipif(not DATA.is_dir(), reason="candle-mi's published files are not on this machine")
def test_the_published_files_are_consistent() -> None:
    expected = {
        "figure13/llama_output.json": (30, 0.6865558), "figure13/gemma_output.json": (31, 0.45669362),
        "clt_step_a/clt_step_a_llama.json": (30, 0.6865558),
        "clt_step_a/clt_step_a_gemma2_2b.json": (31, 0.45669362),
    }  # fmt: skip
    for name, (position, probability) in expected.items():
        result = read_planning((DATA / name).read_bytes())
        assert all(check.passed for check in result.checks)
        assert (result.best, result.line("probability").max()) == (position, probability)
        assert result.best == result.output
    routing = read_routing((DATA / "attention_routing/gemma-2-2b-426k.json").read_bytes())
    assert routing.total == pytest.approx(0.191236, abs=1e-6)
    assert routing.first_layer == 17
    assert len(routing.totals) == 12
    assert routing.sweep[5, 21, 5] == pytest.approx(routing.change[21, 5], abs=1e-6)
    assert any("does not name" in warning for warning in routing.warnings)
