"""A head's directions: the whole vocabulary table from them, planted circuits, mistakes, records."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mi_core.analyses import HeadViewsInputs, HeadViewsResult, Step, head_views
from mi_core.charts.head_views import describe_directions, direction_tokens, spectrum
from mi_core.engine import build_model
from mi_core.errors import Cancelled, InputError, ModelError
from mi_core.exports.head_views import direction_figure, spectrum_figure
from tests.circuit_oracle import full_circuits
from tests.planted_heads import blank, built, plant, subspaces
from tests.tiny import CONFIGS, VOCAB, tiny

FAMILIES = ("gpt2", "llama", "gemma2", "phi")


def readings(result: HeadViewsResult, side: int) -> np.ndarray:
    """[token, direction], from tops that hold the whole vocabulary."""
    ids, values = result.tokens(side)
    table = np.full((VOCAB, result.n_directions), np.nan)
    for direction in range(result.n_directions):
        table[ids[direction, 0], direction] = values[direction, 0]
        np.testing.assert_allclose(table[ids[direction, 1], direction], values[direction, 1])
    return table


@pytest.mark.parametrize("name", FAMILIES)
def test_directions_add_up_to_the_full_table_of_tokens(name: str) -> None:
    model, full = tiny(name), full_circuits(tiny(name).hf)
    result = head_views(model, HeadViewsInputs(2, 3, "OV", directions=8, k=VOCAB))
    table = full.vocabulary_table(2, 3)
    table = table - table.mean(1, keepdims=True)  # softmax over tokens does not see the mean
    made = readings(result, 0) * result.singular_values @ readings(result, 1).T
    np.testing.assert_allclose(made, table, atol=1e-5 * np.abs(table).max())


@pytest.mark.parametrize("name", FAMILIES)
def test_qk_directions_add_up_to_the_scores_of_tokens(name: str) -> None:
    model, full = tiny(name), full_circuits(tiny(name).hf)
    result = head_views(model, HeadViewsInputs(1, 2, "QK", directions=8, k=VOCAB))
    scores = full.embedding @ full.qk[1, 2] @ full.embedding.T
    scores = scores - scores.mean(1, keepdims=True)
    made = readings(result, 0) * result.singular_values @ readings(result, 1).T
    np.testing.assert_allclose(made, scores, atol=1e-5 * np.abs(scores).max())


@pytest.mark.parametrize("circuit", ["OV", "QK"])
@pytest.mark.parametrize("name", FAMILIES)
def test_singular_values_are_those_of_the_full_matrix(name: str, circuit: str) -> None:
    full = full_circuits(tiny(name).hf)
    matrix = (full.ov if circuit == "OV" else full.qk)[0, 1]
    result = head_views(tiny(name), HeadViewsInputs(0, 1, circuit))  # type: ignore[arg-type]
    expected = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(result.singular_values, expected[:8], rtol=1e-5)
    assert result.frobenius == pytest.approx(np.linalg.norm(matrix), rel=1e-5)
    assert all(check.passed for check in result.checks)
    assert len(result.checks) == 3


def test_the_largest_right_reading_is_positive() -> None:
    for head in range(4):
        result = head_views(tiny("gpt2"), HeadViewsInputs(1, head, "OV", directions=8))
        assert (result.right_top_values[:, 0, 0] >= -result.right_top_values[:, 1, 0]).all()


def test_tops_are_in_falling_order_from_both_ends() -> None:
    result = head_views(tiny("llama"), HeadViewsInputs(1, 0, k=7))
    for _, values in (result.tokens(0), result.tokens(1)):
        assert (np.diff(values[:, 0], axis=1) <= 0).all()
        assert (np.diff(values[:, 1], axis=1) >= 0).all()


def test_turning_the_basis_inside_a_head_changes_nothing() -> None:
    hf = blank(0)
    draw = np.random.default_rng(3)
    value, output = draw.normal(size=(32, 8)), draw.normal(size=(8, 32))
    plant(hf, 0, 1, value=value, output=output)
    before = head_views(built(hf), HeadViewsInputs(0, 1))
    turn = np.linalg.qr(draw.normal(size=(8, 8)))[0]
    plant(hf, 0, 1, value=value @ turn, output=turn.T @ output)
    after = head_views(built(hf), HeadViewsInputs(0, 1))
    np.testing.assert_allclose(after.singular_values, before.singular_values, rtol=1e-9)
    np.testing.assert_array_equal(after.right_top_ids, before.right_top_ids)
    np.testing.assert_allclose(after.left_top_values, before.left_top_values, atol=1e-9)


def test_a_planted_translation_is_found() -> None:
    """A head that reads the token `Paris` and writes the token `France` has just that as its direction."""
    hf = blank(1)
    paris, france = 17, 27
    table = hf.get_input_embeddings().weight.data.double().numpy()
    value, output = np.zeros((32, 8)), np.zeros((8, 32))
    value[:, 5] = (table[paris] - table[paris].mean()) / 100
    output[5] = table[france] - table[france].mean()
    plant(hf, 1, 2, value=value, output=output)
    model = built(hf)
    result = head_views(model, HeadViewsInputs(1, 2))
    assert result.n_directions == 1
    assert "only 1 directions; 5 were asked for" in result.warnings[0]
    assert result.shares[0] == pytest.approx(1.0)
    centred = table - table.mean(1, keepdims=True)
    assert result.left_top_ids[0, 0, 0] == np.argmax(centred @ value[:, 5])
    assert result.right_top_ids[0, 0, 0] == np.argmax(centred @ output[5])
    assert result.visible(int(result.left_top_ids[0, 0, 0])) == "\u00b7Paris"


def test_equal_directions_are_flagged_and_a_silent_head_is_told() -> None:
    hf = blank(0)
    (space,) = subspaces(8)
    plant(hf, 0, 0, value=space, output=space.T)
    model = built(hf)
    flat = head_views(model, HeadViewsInputs(0, 0, directions=2))
    assert "almost equally strong" in flat.warnings[0]
    np.testing.assert_allclose(flat.singular_values, 1.0)
    silent = head_views(model, HeadViewsInputs(0, 1))
    assert silent.n_directions == 0
    assert silent.warnings == ("This head's OV weights are zero: it does nothing.",)
    assert not silent.shares.any()
    assert all(check.passed for check in silent.checks)
    assert spectrum_figure(silent).description


def test_heads_of_a_group_share_their_key_value_head() -> None:
    assert head_views(tiny("llama"), HeadViewsInputs(0, 3)).kv_head == 1
    assert head_views(tiny("gpt2"), HeadViewsInputs(0, 3)).kv_head == 3


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (HeadViewsInputs(4, 0), "no layer 4: its layers are 0 to 3"),
        (HeadViewsInputs(0, 4), "no head 4: its heads are 0 to 3"),
    ],
)
def test_a_head_that_is_not_there(inputs: HeadViewsInputs, message: str) -> None:
    with pytest.raises(InputError, match=message):
        head_views(tiny("llama"), inputs)


@pytest.mark.parametrize(
    "wrong",
    [
        {"layer": -1},
        {"head": True},
        {"k": 0},
        {"directions": 51},
        {"circuit": "VO"},
        {"layer": 1.0},
        {"heads": 1},
    ],
)
def test_inputs_that_no_model_understands(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        HeadViewsInputs.from_dict(wrong)


def test_a_projected_embedding_is_refused() -> None:
    hf = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("opt", **{**CONFIGS["opt"], "word_embed_proj_dim": 16})
    )
    model = build_model(hf)
    with pytest.raises(ModelError, match="token embeddings have 16 numbers, its residual stream 32"):
        head_views(model, HeadViewsInputs(0, 0))


def test_stopping_keeps_the_singular_values() -> None:
    def stop(step: Step[HeadViewsResult]) -> None:
        assert step.total == 2 * VOCAB
        raise Cancelled

    result = head_views(tiny("phi"), HeadViewsInputs(0, 0), on_step=stop)
    assert result.cancelled
    assert result.n_directions == 0
    assert len(result.singular_values) == 8
    assert HeadViewsResult.from_json(result.to_json()).cancelled


def test_low_precision_models_are_read_in_float64() -> None:
    low = head_views(tiny("llama", torch.bfloat16), HeadViewsInputs(0, 0))
    high = head_views(tiny("llama"), HeadViewsInputs(0, 0))
    np.testing.assert_allclose(low.singular_values, high.singular_values, rtol=0.02)
    assert low.checks[0].passed


def test_records_come_back_and_damaged_ones_are_refused() -> None:
    result = head_views(tiny("gemma2"), HeadViewsInputs(3, 1, "QK", 4, 6))
    text = result.to_json()
    assert HeadViewsResult.from_json(text).to_json() == text
    record = json.loads(text)
    for damage in (
        {"shape": [4, 2, 5]},
        {"inputs": {"layers": 3}},
        {"singular_values": "x"},
        {"vocabulary": 1},
    ):
        with pytest.raises(InputError):
            HeadViewsResult.from_json(json.dumps({**record, **damage}))


def test_the_table_has_one_number_per_row_with_its_unit() -> None:
    result = head_views(tiny("gpt2"), HeadViewsInputs(3, 1, directions=2, k=3))
    frame = result.to_frame()
    assert len(frame) == 8 + 2 * 2 * 2 * 3
    assert not frame[["value", "unit"]].isna().to_numpy().any()
    assert set(frame["unit"]) == {"|OV|", "embedding", "logit"}
    assert set(frame["side"].dropna()) == {"read token", "written token"}


def test_shapes_that_do_not_fit_are_refused() -> None:
    three = np.zeros((3, 2, 4))
    with pytest.raises(ValueError, match="3 directions but"):
        HeadViewsResult(HeadViewsInputs(), None, 1, 1, 0, 0.0, np.ones(2), three.astype(int), three,
                        three.astype(int), three)  # fmt: skip


def test_the_drawing_shows_every_token_in_its_own_cell() -> None:
    result = head_views(built(_words()), HeadViewsInputs(0, 1, directions=3, k=4))
    spec = direction_tokens(result)
    cells = spec["datasets"]["cells"]
    assert len(cells) == 2 * 3 * 8
    assert {cell["kind"] for cell in cells} == {"left", "right"}
    assert max(abs(cell["value"]) for cell in cells) == 1.0
    assert len(spectrum(result)["datasets"]) > 0
    figure = direction_figure(result)
    assert "L0H1" in figure.title
    assert "4 tokens at either end" in figure.caption
    assert "direction 0" in describe_directions(result).lower()
    json.loads(figure.record_json())
    assert len(figure.frame()) == 2 * 3 * 8


def _words() -> object:
    hf = blank(0)
    draw = np.random.default_rng(0)
    plant(hf, 0, 1, value=draw.normal(size=(32, 8)), output=draw.normal(size=(8, 32)))
    return hf
