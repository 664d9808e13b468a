"""The survey of neurons: streaming equals all at once, bounded memory, ties, kinds of text, mistakes."""

import numpy as np
import pytest
import torch

from mi_core.analyses import NeuronSurveyInputs, NeuronSurveyResult, neuron_survey, neuron_survey_cost
from mi_core.analyses import neuron_texts as reading
from mi_core.analyses.neuron_inputs import Measure
from mi_core.analyses.neuron_state import LayerState, keys_of, read_keys, state_bytes
from mi_core.analyses.neuron_survey_result import selectivity
from mi_core.analyses.texts import Text
from mi_core.batch.texts import bundled_texts
from mi_core.errors import Cancelled, InputError, SiteMissing
from tests.neuron_oracle import FAMILIES, all_at_once, some_texts, worded


def close(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)  # contexts are kept in float32


# --- identities ---


@pytest.mark.parametrize("family", FAMILIES)
def test_streaming_is_all_at_once(family):
    model, texts = worded(family), some_texts()
    result = neuron_survey(model, NeuronSurveyInputs(texts, top=8, contexts=4))
    values, rows, positions, kinds = all_at_once(model, family, texts)
    assert all(check.passed for check in result.checks), result.checks
    assert result.n_tokens == values.shape[1]
    mine = values[result.layers, :, result.neurons]  # [kept, token]
    close(result.mean, mine.mean(1))
    close(result.deviation, mine.std(1))
    close(result.mean_absolute, np.abs(mine).mean(1))
    close(result.maximum, mine.max(1))
    close(result.minimum, mine.min(1))
    np.testing.assert_array_equal(result.share_active, (mine > 0).mean(1))
    by_kind = np.stack([mine[:, kinds == kind].mean(1) for kind in range(3)], axis=1)
    close(result.category_means, by_kind)
    strongest = -np.sort(-np.abs(mine), axis=1)[:, :4]
    close(np.abs(result.context_values), strongest)
    for kept in range(len(mine)):
        for rank in range(4):
            text, position = result.context_texts[kept, rank], result.context_positions[kept, rank]
            token = np.flatnonzero((rows == text) & (positions == position))[0]
            assert mine[kept, token] == pytest.approx(result.context_values[kept, rank], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_every_ranking_is_that_of_all_neurons(family):
    model, texts = worded(family), some_texts()
    result = neuron_survey(model, NeuronSurveyInputs(texts, top=5))
    values, _, _, kinds = all_at_once(model, family, texts)
    for layer in range(model.dims.n_layers):
        mine = values[layer].T  # [neuron, token]
        means = np.stack([mine[:, kinds == kind].mean(1) for kind in range(3)], axis=1)
        others = np.stack([mine[:, kinds != kind].mean(1) for kind in range(3)], axis=1)
        chosen = (means - others) / mine.std(1, keepdims=True)
        rankings: tuple[tuple[Measure, np.ndarray], ...] = (
            ("peak", np.abs(mine).max(1)),
            ("mean_absolute", np.abs(mine).mean(1)),
        )
        for name, numbers in rankings:
            ranking = result.ranking(name, layer)
            np.testing.assert_array_equal(result.neurons[ranking], np.argsort(-numbers)[:5])
        for kind, category in enumerate(result.categories):
            ranking = result.ranking("selectivity", layer, category)
            np.testing.assert_array_equal(result.neurons[ranking], np.argsort(-chosen[:, kind])[:5])
            np.testing.assert_allclose(
                result.selectivity(category)[ranking], np.sort(chosen[:, kind])[::-1][:5], rtol=1e-6
            )


@pytest.mark.parametrize("tokens", [1, 7, 16, 4096])
def test_the_size_of_batches_changes_nothing(monkeypatch, tokens):
    model, inputs = worded("llama"), NeuronSurveyInputs(some_texts(), top=6, contexts=3)
    whole = neuron_survey(model, inputs)
    monkeypatch.setattr(reading, "BATCH_TOKENS", tokens)
    other = neuron_survey(model, inputs)
    assert other.cost.passes != whole.cost.passes or tokens == 4096
    np.testing.assert_array_equal(other.neurons, whole.neurons)
    for name in ("mean", "deviation", "maximum", "context_values", "category_means"):
        np.testing.assert_allclose(getattr(other, name), getattr(whole, name), rtol=1e-6, atol=1e-9)
    for name in ("share_active", "context_texts", "context_positions", "token_counts"):
        np.testing.assert_array_equal(getattr(other, name), getattr(whole, name))


def test_texts_that_begin_alike_tie_and_the_first_token_wins():
    texts = tuple(Text("facts", f"Mary gave {word}") for word in ("Paris", "Rome", "London"))
    result = neuron_survey(worded("gpt2", bos=False), NeuronSurveyInputs(texts, contexts=6, top=64))
    at_gave = (result.context_positions == 1) & (result.context_texts >= 0)
    for kept in np.flatnonzero(at_gave.sum(1) == 3):
        ranks = np.flatnonzero(at_gave[kept])
        assert result.context_texts[kept, ranks].tolist() == [0, 1, 2]
        assert len(set(result.context_values[kept, ranks].tolist())) == 1
    assert (at_gave.sum(1) == 3).all()


# --- numbers worked out by hand ---


def test_a_key_holds_magnitude_token_and_sign():
    values = torch.tensor([[0.0, -0.0, 1.5], [-1.5, 2.0, 1.5], [1e-38, -3e38, -1.5]])
    numbers = torch.tensor([0, 7, 2**31 - 1])
    read, which = read_keys(keys_of(values, numbers).numpy())
    np.testing.assert_array_equal(read, values.numpy())
    np.testing.assert_array_equal(which, np.repeat(numbers.numpy()[:, None], 3, axis=1))
    empty_value, empty_number = read_keys(np.array([-1]))
    assert (empty_value, empty_number) == (0.0, -1)


def test_ties_come_out_the_same_in_any_order():
    values = torch.tensor([[2.0], [-2.0], [1.0], [2.0], [2.0]])
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 4, 0, 3, 1]):
        state = LayerState.empty(1, 1, 3, torch.device("cpu"))
        for index in order:
            state.add(values[index : index + 1], torch.tensor([0]), torch.tensor([index]))
        read, which = read_keys(state.keys.numpy()[:, 0])
        assert which.tolist() == [0, 1, 3]
        assert read.tolist() == [2.0, -2.0, 2.0]


def test_selectivity_by_hand():
    means, counts = np.array([[4.0, 1.0]]), np.array([1, 3])
    mean, deviation = np.array([7 / 4]), np.array([1.5])
    np.testing.assert_allclose(selectivity(means, counts, mean, deviation), [[2.0, -2.0]])
    silent = selectivity(np.zeros((1, 2)), counts, np.zeros(1), np.zeros(1))
    assert np.isnan(silent).all()
    alone = selectivity(np.array([[4.0, np.nan]]), np.array([2, 0]), np.array([4.0]), np.array([1.0]))
    assert np.isnan(alone).all()


def test_what_is_no_number_counts_as_zero_and_is_told():
    state = LayerState.empty(2, 1, 2, torch.device("cpu"))
    values = torch.tensor([[torch.nan, 1.0], [torch.inf, -2.0]])
    state.add(values, torch.zeros(2, dtype=torch.long), torch.arange(2))
    assert state.not_finite == 2
    assert state.maximum.tolist() == [0.0, 1.0]
    assert state.sums.tolist() == [[0.0, -1.0]]
    model = worded("llama", torch.float32)
    weights = model.hf.model.layers[1].mlp.up_proj.weight
    kept = weights[3].clone()
    with torch.no_grad():
        weights[3] = torch.inf
    try:
        result = neuron_survey(model, NeuronSurveyInputs(some_texts(count=3)))
    finally:
        with torch.no_grad():
            weights[3] = kept
    told = next(check for check in result.checks if "finite" in check.name)
    assert not told.passed


def test_memory_does_not_grow_with_the_texts():
    model = worded("llama")
    few, many = (
        neuron_survey_cost(model.tokenizer, model.dims, NeuronSurveyInputs(some_texts(count=count)))
        for count in (3, 60)
    )
    assert few.state_bytes == many.state_bytes
    assert few.activations < many.activations
    state = LayerState.empty(model.dims.d_mlp, 3, 5, torch.device("cpu"))
    held = [state.sums, state.squares, state.absolute, state.active, state.maximum, state.minimum, state.keys]
    size = sum(part.numel() * part.element_size() for part in held)
    assert size * model.dims.n_layers == few.state_bytes
    for start in range(0, 250, 50):
        numbers = torch.arange(start, start + 50)
        state.add(torch.randn(50, model.dims.d_mlp), torch.zeros(50, dtype=torch.long), numbers)
    held = [state.sums, state.squares, state.absolute, state.active, state.maximum, state.minimum, state.keys]
    assert sum(part.numel() * part.element_size() for part in held) == size


def test_the_cost_of_a_large_model_is_known_and_too_much_is_refused():
    model = worded("llama")
    large = type(model.dims)(126, 128, 8, 16384, 128, 53248, 97)
    inputs = NeuronSurveyInputs(some_texts(), contexts=100)
    with pytest.raises(InputError, match=r"Keep at most \d+ contexts") as told:
        neuron_survey_cost(model.tokenizer, large, inputs)
    fitting = int(str(told.value).split("at most ")[1].split()[0])
    cost = neuron_survey_cost(model.tokenizer, large, NeuronSurveyInputs(some_texts(), contexts=fitting))
    assert cost.state_bytes == state_bytes(126, 53248, 3, fitting) <= 2_000_000_000


# --- what a user does ---


def test_first_tokens_do_not_count():
    texts = (Text("a", "Paris"), Text("b", "Mary gave"))
    counts = neuron_survey(worded("gpt2", bos=False), NeuronSurveyInputs(texts)).token_counts
    assert counts.tolist() == [0, 1]
    with_bos = neuron_survey(worded("gpt2"), NeuronSurveyInputs(texts)).token_counts
    assert with_bos.tolist() == [1, 2]
    with pytest.raises(InputError, match="first token of a text never counts"):
        neuron_survey(worded("gpt2", bos=False), NeuronSurveyInputs((Text("a", "Paris"),)))


def test_odd_texts_are_read():
    odd = ("🎉🎉 日本 \u202e العربية", "\t\n x", "the the the the", "a" * 5000, "Mary  gave\n\nJohn")
    texts = tuple(Text("odd", text) for text in odd)
    result = neuron_survey(worded("llama"), NeuronSurveyInputs(texts, max_tokens=8, contexts=3))
    assert all(check.passed for check in result.checks)
    assert result.token_counts.tolist() == [sum(len(result.tokens[text]) - 1 for text in range(len(odd)))]


def test_long_texts_are_cut_and_that_is_said():
    texts = (Text("long", "the city of " * 40), Text("long", "Mary gave"))
    result = neuron_survey(worded("llama"), NeuronSurveyInputs(texts))
    assert result.cost.tokens == 64 + 3  # the model reads 64
    assert any("1 of 2 texts were cut" in warning for warning in result.warnings)


def test_stopping_keeps_what_is_done():
    model, inputs, seen = worded("llama"), NeuronSurveyInputs(some_texts()), []

    def stop(step):
        seen.append(step)
        if step.done > step.total // 2:
            raise Cancelled

    result = neuron_survey(model, inputs, on_step=stop)
    assert result.cancelled
    assert 0 < result.n_tokens < neuron_survey(model, inputs).n_tokens
    assert any("Stopped after" in warning for warning in result.warnings)
    assert all(check.passed for check in result.checks)
    assert model.modules_with_hooks() == 0
    with pytest.raises(Cancelled):
        neuron_survey(model, inputs, on_step=lambda step: (_ for _ in ()).throw(Cancelled))
    assert seen[0].done == 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"texts": ()}, "The set of texts is empty"),
        ({"texts": ("plain",)}, "not texts with a category"),
        ({"top": 0}, "number of neurons per layer is 0"),
        ({"contexts": 1000}, "number of contexts is 1000"),
        ({"max_tokens": 1}, "limit of tokens per text is 1"),
        ({"bos": "maybe"}, "bos is 'maybe'"),
    ],
)
def test_mistakes_are_told(change, told):
    with pytest.raises(InputError, match=told):
        NeuronSurveyInputs(**{"texts": some_texts(count=2), **change})


def test_a_kind_that_is_not_there_is_told():
    result = neuron_survey(worded("llama"), NeuronSurveyInputs(some_texts()))
    with pytest.raises(InputError, match="no kind of text called 'poems'"):
        result.selectivity("poems")


def test_a_model_without_the_site_says_why(monkeypatch):
    model = worded("llama")
    monkeypatch.setitem(model.structure.missing, "mlp_post", "its experts cannot be read")
    with pytest.raises(SiteMissing, match="experts cannot be read"):
        neuron_survey(model, NeuronSurveyInputs(some_texts()))


# --- shapes and records ---


def test_table_and_record():
    result = neuron_survey(worded("llama"), NeuronSurveyInputs(some_texts(), top=4, contexts=2))
    again = NeuronSurveyResult.from_json(result.to_json())
    assert again.to_json() == result.to_json()
    assert again.inputs == result.inputs
    frame = result.to_frame()
    assert np.isfinite(frame["value"].to_numpy(dtype=float)).all()
    assert set(frame["unit"]) == {
        "activation",
        "share of tokens",
        "standard deviations",
        "share of tokens and neurons",
        "neurons",
    }
    peak = frame.query("quantity == 'context' and rank == 0")["value"].to_numpy(dtype=float)
    np.testing.assert_allclose(peak, result.peak, rtol=1e-6)
    with pytest.raises(InputError, match="record"):
        NeuronSurveyResult.from_json(result.to_json().replace('"neurons": [', '"neurons": [0, ', 1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_counted_in_double(dtype):
    model = worded("llama", dtype)
    result = neuron_survey(model, NeuronSurveyInputs(some_texts()))
    values, *_ = all_at_once(model, "llama", some_texts())
    assert all(check.passed for check in result.checks), result.checks
    mine = values[result.layers, :, result.neurons]
    np.testing.assert_allclose(result.mean, mine.mean(1), rtol=0.2, atol=0.02)


def test_the_bundled_texts_are_whole():
    texts = bundled_texts()
    assert texts.categories == ("code", "arithmetic", "verse", "facts", "chat")
    counts = [sum(text.category == name for text in texts.texts) for name in texts.categories]
    assert all(15 <= count <= 25 for count in counts), counts
    assert len({text.text for text in texts.texts}) == len(texts.texts)
    assert len(texts.digest) == 12
