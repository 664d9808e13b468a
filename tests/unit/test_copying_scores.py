"""Copying scores: against the eigenvalues of the whole vocabulary table, planted copiers, mistakes."""

import json

import numpy as np
import pytest

from mi_core.analyses import CopyingScoresInputs, CopyingScoresResult, Step, copying_scores, copying_seconds
from mi_core.analyses.copying_scores_run import copying_flops
from mi_core.charts.copying_scores import copying_heatmap, describe_copying
from mi_core.errors import Cancelled, InputError
from mi_core.exports.copying_scores import copying_figure
from tests.circuit_oracle import full_circuits
from tests.planted_heads import blank, built, plant, subspaces
from tests.tiny import tiny


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "phi"])
def test_scores_are_those_of_the_whole_vocabulary_table(name: str) -> None:
    result, full = copying_scores(tiny(name)), full_circuits(tiny(name).hf)
    assert result.scores.shape == (4, 4)
    for layer in (0, 3):
        for head in range(4):
            values = np.linalg.eigvals(full.vocabulary_table(layer, head))
            total = np.abs(values).sum()
            assert result.scores[layer, head] == pytest.approx(values.real.sum() / total, abs=1e-4)
            assert result.totals[layer, head] == pytest.approx(total, rel=1e-4)
    assert [check.passed for check in result.checks] == [True, True]


def test_planted_copiers() -> None:
    """With tied embeddings a head that passes a subspace on copies; with the sign turned, the reverse."""
    hf = blank(1)
    first, second, third = subspaces(8, 8, 8)
    plant(hf, 1, 0, value=first, output=first.T)
    plant(hf, 1, 1, value=second, output=-second.T)
    plant(hf, 1, 2, value=third, output=2 * third.T)
    result = copying_scores(built(hf))
    np.testing.assert_allclose(result.scores[1, :3], [1.0, -1.0, 1.0], atol=1e-9)
    assert np.isnan(result.scores[1, 3])
    assert result.totals[1, 3] == 0.0
    assert result.warnings == ("The OV weights of L1H3 are zero: they have no score.",)


def test_turning_the_basis_inside_a_head_changes_nothing() -> None:
    draw = np.random.default_rng(2)
    value, output = draw.normal(size=(32, 8)), draw.normal(size=(8, 32))
    turn = np.linalg.qr(draw.normal(size=(8, 8)))[0]
    scores = []
    for inside in (np.eye(8), turn):
        hf = blank(0)
        plant(hf, 0, 0, value=value @ inside, output=inside.T @ output)
        scores.append(copying_scores(built(hf)).scores[0, 0])
    assert scores[0] == pytest.approx(scores[1], abs=1e-9)


def test_cost_and_time() -> None:
    model = tiny("gpt2")
    assert copying_flops(model) == 2 * 97 * 32 * (32 + 16) + 4 * (2 * 32 * 32 * 40 + 25 * 32 * 64)
    assert 0 < copying_seconds(model) < 1


def test_stopping_keeps_the_layers_that_are_done() -> None:
    def stop(step: Step[CopyingScoresResult]) -> None:
        if step.done == 3:
            raise Cancelled

    result = copying_scores(tiny("gpt2"), CopyingScoresInputs(), on_step=stop)
    assert result.cancelled
    assert np.isfinite(result.scores[:2]).all()
    assert np.isnan(result.scores[2:]).all()
    assert result.warnings == ("It was stopped after 2 of 4 layers.",)
    assert CopyingScoresResult.from_json(result.to_json()).cancelled


def test_progress_counts_to_the_end() -> None:
    steps: list[Step[CopyingScoresResult]] = []
    copying_scores(tiny("gpt2"), on_step=steps.append)
    assert [step.done for step in steps] == list(range(1, 6))
    assert steps[-1].total == 5
    assert steps[-1].partial is not None


def test_records_and_tables() -> None:
    result = copying_scores(tiny("llama"))
    text = result.to_json()
    assert CopyingScoresResult.from_json(text).to_json() == text
    frame = result.to_frame()
    assert len(frame) == 2 * 16
    assert set(frame["unit"]) == {"share", "logits"}
    record = json.loads(text)
    for damage in ({"n_heads": 5}, {"inputs": {"layer": 1}}, {"scores": None}, {"checks": [{}]}):
        with pytest.raises(InputError):
            CopyingScoresResult.from_json(json.dumps({**record, **damage}))


def test_the_drawing_has_a_cell_per_head() -> None:
    result = copying_scores(tiny("gpt2"))
    cells = copying_heatmap(result, chosen=(2, 1))["datasets"]["cells"]
    assert {(cell["row"], cell["head"]) for cell in cells} == {(i, j) for i in range(4) for j in range(4)}
    figure = copying_figure(result, chosen=(2, 1))
    assert "n = 16" in figure.caption
    assert "Heatmap of copying score" in describe_copying(result)
    json.loads(figure.record_json())
