"""Composition scores: against full matrices, planted pairs of heads, the random baseline, mistakes."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from mi_core.analyses import CompositionInputs, CompositionResult, Step, composition, composition_seconds
from mi_core.analyses.composition_run import (
    MAX_SCORES,
    composition_flops,
    composition_layers,
    pair_scores,
    unit,
)
from mi_core.charts.composition import describe_pairs, layer_heatmap, pair_heatmap, top_pairs
from mi_core.engine import build_model
from mi_core.errors import Cancelled, InputError
from mi_core.exports.composition import layer_figure, pair_figure, top_figure
from mi_core.exports.tables import result_json
from tests.circuit_oracle import full_circuits
from tests.planted_heads import blank, built, plant, subspaces
from tests.tiny import hf_model, tiny


def ratio(product: np.ndarray, one: np.ndarray, other: np.ndarray) -> float:
    norm = np.linalg.norm
    return float(norm(product) / (norm(one) * norm(other)))


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "phi"])
def test_scores_are_those_of_the_full_matrices(name: str) -> None:
    result, full = composition(tiny(name)), full_circuits(tiny(name).hf)
    assert result.scores.shape == (3, 12, 12)
    for row, (l1, h1) in enumerate(result.writers):
        for column, (l2, h2) in enumerate(result.readers):
            found = result.scores[:, row, column]
            if l1 >= l2:
                assert np.isnan(found).all()
                continue
            ov1, ov2, qk2 = full.ov[l1, h1], full.ov[l2, h2], full.qk[l2, h2]
            wanted = ratio(ov1 @ qk2, ov1, qk2), ratio(ov1 @ qk2.T, ov1, qk2), ratio(ov1 @ ov2, ov1, ov2)
            np.testing.assert_allclose(found, wanted, atol=2e-6)
    assert [check.passed for check in result.checks] == [True, True]
    assert not result.warnings


def test_planted_pairs() -> None:
    """A reader of exactly what a writer writes; one that is blind to it; one direction each gives 1."""
    hf = blank(0, 2)
    space, other, line, queries = subspaces(8, 8, 1, 8)
    flat = np.zeros((32, 8))
    flat[:, :1] = line
    plant(hf, 0, 0, value=other, output=space.T)
    plant(hf, 0, 1, value=flat, output=flat.T)
    plant(hf, 2, 0, query=space, key=queries, value=space, output=other.T)
    plant(hf, 2, 1, query=queries, key=space, value=queries, output=space.T)
    plant(hf, 2, 2, query=flat, key=flat, value=flat, output=flat.T)
    result = composition(built(hf), CompositionInputs(from_layers=(0,), to_layers=(2,)))
    full, match = 1 / np.sqrt(8), {kind: result.of(kind) for kind in ("Q", "K", "V")}
    # eight equal directions that match exactly have 1 / sqrt(8)
    assert match["Q"][0, :2] == pytest.approx([full, 0.0], abs=1e-6)
    assert match["K"][0, :2] == pytest.approx([0.0, full], abs=1e-6)
    assert match["V"][0, :2] == pytest.approx([full, 0.0], abs=1e-6)
    for kind in ("Q", "K", "V"):
        assert match[kind][1, :3] == pytest.approx([0.0, 0.0, 1.0], abs=1e-6)
    assert np.isnan(result.scores[:, 2:]).all()
    assert result.warnings[0].startswith("30 scores do not exist")  # of 48; two writers, a reader are silent
    assert result.top("Q", 1)[0][:2] == ((0, 1), (2, 2))


def test_turning_the_basis_inside_the_heads_changes_nothing() -> None:
    draw = np.random.default_rng(5)
    weights = {role: draw.normal(size=(32, 8)) for role in ("query", "key", "value")}
    output, turn = draw.normal(size=(8, 32)), np.linalg.qr(draw.normal(size=(8, 8)))[0]
    scores = []
    for inside in (np.eye(8), turn):
        hf = blank(0, 1)
        for layer in (0, 1):
            plant(hf, layer, 0, output=inside.T @ output, **{role: w @ inside for role, w in weights.items()})
        inputs = CompositionInputs(from_layers=(0,), to_layers=(1,))
        scores.append(composition(built(hf), inputs).scores[:, 0, 0])
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-6)


def test_the_baseline_is_the_root_mean_square_of_writers_turned_at_random() -> None:
    draw = torch.Generator().manual_seed(0)
    writer = torch.randn(1, 4, 24, generator=draw).double() * torch.tensor([5.0, 2.0, 1.0, 0.1])[:, None]
    reader = torch.randn(1, 24, 3, generator=draw).double()
    squares = []
    for _ in range(3000):
        turn = torch.linalg.qr(torch.randn(24, 24, generator=draw).double()).Q
        squares.append(float(pair_scores(unit(writer @ turn), unit(reader))[0, 0]) ** 2)
    error = np.std(squares) / np.sqrt(len(squares))
    assert abs(np.mean(squares) - 1 / 24) < 4 * error
    assert composition(tiny("gpt2")).baseline == pytest.approx(1 / np.sqrt(32))


def test_random_heads_lie_near_the_baseline() -> None:
    result = composition(tiny("gpt2"))
    assert np.sqrt(np.nanmean(result.scores**2)) == pytest.approx(result.baseline, rel=0.1)


def test_layers_and_kinds_can_be_chosen() -> None:
    whole = composition(tiny("llama"))
    part = composition(tiny("llama"), CompositionInputs(("V", "Q"), from_layers=(1, 3), to_layers=(0, 2)))
    assert part.writers == tuple((layer, head) for layer in (1, 3) for head in range(4))
    np.testing.assert_allclose(part.of("V")[:4, 4:], whole.of("V")[4:8, 4:8], atol=1e-7)
    assert np.isfinite(part.scores).sum() == 2 * 16
    with pytest.raises(InputError, match="K-composition was not computed"):
        part.of("K")


def test_pairs_of_layers_and_the_strongest_pairs() -> None:
    result = composition(tiny("gpt2"))
    layers = result.by_layer("K")
    assert layers.shape == (3, 3)
    assert layers[1, 2] == np.nanmax(result.of("K")[4:8, 8:12])
    assert np.isnan(layers[2, 0])
    best = result.top("K", 5)
    assert [score for _, _, score in best] == np.sort(result.of("K")[result.earlier])[:-6:-1].tolist()
    writer, reader, score = best[0]
    assert result.score("K", writer, reader) == score
    assert len(result.top("Q", 10_000)) == int(result.earlier.sum()) == 96
    np.testing.assert_allclose(result.of("Q", excess=True), result.of("Q") - result.baseline)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (CompositionInputs(from_layers=(4,)), r"no layer 4 \(from layers\): its layers are 0 to 3"),
        (CompositionInputs(to_layers=(1, 9)), r"no layer 9 \(to layers\)"),
        (CompositionInputs(from_layers=(2,), to_layers=(1, 2)), "No head can read what another writes here"),
    ],
)
def test_layers_that_make_no_sense(inputs: CompositionInputs, message: str) -> None:
    with pytest.raises(InputError, match=message):
        composition(tiny("gpt2"), inputs)


def test_a_model_of_one_layer_has_no_composition() -> None:
    hf = hf_model("gpt2")
    del hf.transformer.h[1:]
    hf.config.n_layer = hf.config.num_hidden_layers = 1
    with pytest.raises(InputError, match="No head can read"):
        composition(build_model(hf))


@pytest.mark.parametrize(
    "wrong",
    [
        {"kinds": []},
        {"kinds": ["Q", "Q"]},
        {"kinds": ["X"]},
        {"kinds": None},
        {"from_layers": []},
        {"to_layers": [2, 1]},
        {"from_layers": [-1]},
        {"layers": [1]},
    ],
)
def test_inputs_that_no_model_understands(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        CompositionInputs.from_dict(wrong)


def test_lists_become_tuples() -> None:
    assert hash(CompositionInputs.from_dict({"kinds": ["Q"], "from_layers": [0, 1]}))
    assert CompositionInputs.from_dict(CompositionInputs(("K",), (0,)).to_dict()) == CompositionInputs(
        ("K",), (0,)
    )


def test_too_many_heads_are_refused_before_anything_runs() -> None:
    model = tiny("gpt2")
    count = 3 * (3 * 4) ** 2
    assert composition_layers(model, CompositionInputs()) == ((0, 1, 2), (1, 2, 3))
    assert count < MAX_SCORES
    assert composition_flops(model, CompositionInputs()) == 2 * 3 * 6 * 32**3
    assert composition_flops(model, CompositionInputs(("Q",), to_layers=(3,))) == 2 * 3 * 32**3
    assert 0 < composition_seconds(model, CompositionInputs()) < 1


def test_stopping_keeps_the_pairs_that_are_done() -> None:
    seen: list[Step[CompositionResult]] = []

    def stop(step: Step[CompositionResult]) -> None:
        seen.append(step)
        if step.done == 3:
            raise Cancelled

    result = composition(tiny("gpt2"), on_step=stop)
    assert result.cancelled
    assert seen[0].total == 6
    assert seen[0].partial is not None
    assert np.isfinite(result.scores).sum() == 3 * 3 * 16
    assert "stopped after 3 of 6 pairs of layers" in result.warnings[0]
    assert CompositionResult.from_json(result.to_json()).cancelled


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_number_formats(dtype: torch.dtype) -> None:
    low, high = composition(tiny("llama", dtype)), composition(tiny("llama"))
    np.testing.assert_allclose(low.scores, high.scores, atol=1e-5 if dtype == torch.float32 else 0.01)
    assert low.checks[0].passed


def test_records_and_tables() -> None:
    result = composition(tiny("phi"), CompositionInputs(("Q", "V")))
    text = result.to_json()
    assert CompositionResult.from_json(text).to_json() == text
    frame = result.to_frame()
    assert len(frame) == 2 * 96 + 1
    assert not frame[["value", "unit"]].isna().to_numpy().any()
    record = json.loads(text)
    for damage in ({"n_heads": 3}, {"inputs": {"kinds": ["Z"]}}, {"from_layers": [0]}, {"baseline": None}):
        with pytest.raises(InputError):
            CompositionResult.from_json(json.dumps({**record, **damage}))


def test_drawings_point_back_at_heads() -> None:
    result = composition(tiny("gpt2"))
    cells = pair_heatmap(result, "K", chosen=((0, 1), (3, 2)))["datasets"]["cells"]
    assert len(cells) == 96
    one = next(cell for cell in cells if (cell["writer"], cell["reader"]) == (5, 11))
    assert one["value"] == pytest.approx(result.score("K", (1, 1), (3, 3)))
    close = pair_heatmap(result, "K", layers=(1, 2))["datasets"]["cells"]
    assert {(cell["writer"], cell["reader"]) for cell in close} == {
        (i, j) for i in range(4, 8) for j in range(4, 8)
    }
    assert len(layer_heatmap(result, chosen=("K", 0, 1))["datasets"]["cells"]) == 3 * 6
    assert len(top_pairs(result, "Q", 7)["datasets"]["bars"]) == 7
    assert "48 pairs have no score" in describe_pairs(result, "K")


def test_figures_carry_caption_table_and_baseline() -> None:
    result = composition(tiny("gpt2"))
    figures = [
        pair_figure(result, "V", excess=True),
        pair_figure(result, "Q", layers=(0, 2), chosen=((0, 0), (2, 1))),
        layer_figure(result),
        top_figure(result, "K", 6),
    ]
    for figure in figures:
        assert "1/sqrt(d_model)" in figure.caption
        json.loads(figure.record_json())
        assert figure.description
        assert len(figure.frame()) > 0
    assert len(figures[1].frame()) == 16 + 1
    assert len(figures[3].frame()) == 6


def test_the_recipe_makes_the_numbers_again(tmp_path: Path) -> None:
    from mi_core import ModelSpec, load_model

    result = composition(load_model(ModelSpec("atlas")), CompositionInputs(("K",), (0,), (1,)))
    figure = pair_figure(result, "K")
    (tmp_path / "data.json").write_bytes(result_json(figure))
    (tmp_path / "recipe.py").write_text(figure.recipe, encoding="utf-8")
    runpy.run_path(str(tmp_path / "recipe.py"))
