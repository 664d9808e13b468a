"""Tuned lens: identities, a planted model whose answer is known, training, what is held out."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mi_core.analyses import Step, TunedLens, TunedLensTrainInputs, TunedLensTrainResult, tuned_lens_train
from mi_core.analyses.tuned_lens_cost import training_cost
from mi_core.analyses.tuned_lens_inputs import documents_of
from mi_core.analyses.tuned_lens_measure import PIECE_NUMBERS, measure, states_of
from mi_core.analyses.tuned_lens_text import Batches, Context, count_tokens, split_text
from mi_core.engine import build_model, run, unembed
from mi_core.errors import Cancelled, InputError
from mi_core.model.model import LoadedModel
from tests.tiny import FAMILY_NAMES, hf_model
from tests.words import WORDS, word_tokenizer

WIDTH, LAYERS = 32, 4


def texts(count: int = 40, words: int = 14, seed: int = 0) -> tuple[str, ...]:
    random = np.random.default_rng(seed)
    return tuple(" ".join(random.choice(WORDS, words)) for _ in range(count))


def loaded(name: str = "gpt2", dtype: torch.dtype = torch.float32, *, bos: bool = False) -> LoadedModel:
    return build_model(hf_model(name, dtype), word_tokenizer(bos))


def asked(**changes: Any) -> TunedLensTrainInputs:
    usual: dict[str, Any] = {"texts": texts(), "steps": 12, "batch_tokens": 96, "context": 16}
    return TunedLensTrainInputs(**{**usual, **changes})


@pytest.fixture(scope="module")
def gpt2() -> LoadedModel:
    return loaded()


@pytest.fixture(scope="module")
def trained(gpt2: LoadedModel) -> TunedLensTrainResult:
    return tuned_lens_train(gpt2, asked())


# --- identities


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_zero_translators_are_the_plain_lens_bit_for_bit(dtype: torch.dtype) -> None:
    model = loaded("llama", dtype)
    lens = TunedLens.plain(LAYERS, WIDTH)
    seen = run(model, torch.randint(3, 90, (2, 9)), capture=["embed", "resid_post"])
    for layer in range(LAYERS):
        hidden = (seen["resid_post", layer - 1] if layer else seen["embed", None]).flatten(0, 1)
        assert (unembed(model, lens.translator(layer, hidden)) == unembed(model, hidden)).all()


def test_translators_belong_to_what_enters_a_block() -> None:
    random = np.random.default_rng(0)
    lens = TunedLens("x", random.normal(size=(3, 5, 5)), random.normal(size=(3, 5)))
    hidden = torch.from_numpy(random.normal(size=(7, 5)))
    for layer in range(3):
        by_hand = hidden.numpy() + hidden.numpy() @ lens.weight[layer].T + lens.bias[layer]
        np.testing.assert_allclose(lens.translate("resid_pre", layer, hidden), by_hand)
        if layer:
            np.testing.assert_allclose(lens.translate("resid_post", layer - 1, hidden), by_hand)
    assert lens.translate("resid_post", 2, hidden) is hidden  # the model's own output
    with pytest.raises(InputError, match=r"cannot read 'mlp_out'.*between blocks"):
        lens.translate("mlp_out", 0, hidden)
    with pytest.raises(InputError, match="3 translators of width 5: layer 3"):
        lens.translate("resid_pre", 3, hidden)


def test_measured_kl_is_that_of_a_whole_forward_pass(gpt2: LoadedModel) -> None:
    """Second computation: Hugging Face's own hidden states, norm and head, context by context, in numpy."""
    contexts = [Context((5, 9, 7, 30), 1), Context((8, 8, 4), 1), Context((11, 12, 13, 14, 15), 2)]
    sums = measure(gpt2, None, None, contexts, 5, lambda: None)
    for row, context in enumerate(contexts):
        with torch.inference_mode():
            out = gpt2.hf(torch.tensor([context.ids]), output_hidden_states=True)
        p = torch.log_softmax(out.logits[0, context.skipped :].double(), -1)
        for layer in range(LAYERS):
            with torch.inference_mode():
                hidden = out.hidden_states[layer][0, context.skipped :]
                q = gpt2.hf.lm_head(gpt2.hf.transformer.ln_f(hidden)).double().log_softmax(-1)
            assert sums[row, layer] == pytest.approx(float((p.exp() * (p - q)).sum()), rel=1e-4)


def test_pieces_of_the_vocabulary_change_nothing(gpt2: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tuned_lens_train(gpt2, asked(steps=1))
    assert 96 * gpt2.dims.d_vocab < PIECE_NUMBERS
    monkeypatch.setattr("mi_core.analyses.tuned_lens_measure.PIECE_NUMBERS", 7 * gpt2.dims.d_vocab)
    cut = tuned_lens_train(gpt2, asked(steps=1))
    np.testing.assert_allclose(cut.loss, whole.loss, rtol=1e-5)
    np.testing.assert_allclose(cut.tuned_kl, whole.tuned_kl, rtol=1e-4)


def test_rows_that_are_filled_up_are_read_as_if_alone(gpt2: LoadedModel) -> None:
    contexts = [Context((5, 9, 7, 30, 31, 32), 1), Context((8, 4), 1)]
    both, alone = states_of(gpt2, contexts), states_of(gpt2, contexts[1:])
    assert both.context.tolist() == [0, 0, 0, 0, 0, 1]
    torch.testing.assert_close(both.last[5:], alone.last, rtol=0, atol=1e-5)


# --- a model whose answer is known


class AffineMlp(nn.Module):
    """Adds A h + c to the stream."""

    def __init__(self, matrix: Tensor, constant: Tensor) -> None:
        super().__init__()
        self.matrix, self.constant = matrix, constant

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden @ self.matrix.T + self.constant


@pytest.fixture(scope="module")
def planted() -> tuple[LoadedModel, TunedLens]:
    """A model whose blocks are h -> h + A h + c, and the translators that follow from it by hand."""
    model = loaded("gpt2", torch.float64)
    random = torch.Generator().manual_seed(0)
    matrix, constant, maps = torch.eye(WIDTH).double(), torch.zeros(WIDTH).double(), []
    for block in model.hf.transformer.h:
        block.attn.c_proj.weight.data.zero_()
        block.attn.c_proj.bias.data.zero_()
        maps.append(
            [
                0.8 * torch.randn(*shape, generator=random, dtype=torch.float64) / WIDTH**0.25
                for shape in ((WIDTH, WIDTH), (WIDTH,))
            ]
        )
        block.ln_2, block.mlp = nn.Identity(), AffineMlp(*maps[-1])
    weight, bias = np.zeros((LAYERS, WIDTH, WIDTH)), np.zeros((LAYERS, WIDTH))
    for layer in reversed(range(LAYERS)):  # all blocks from `layer` on, one after the other
        add, shift = maps[layer]
        constant = matrix @ shift + constant
        matrix = matrix @ (torch.eye(WIDTH).double() + add)
        weight[layer], bias[layer] = (matrix - torch.eye(WIDTH).double()).numpy(), constant.numpy()
    return model, TunedLens("by hand", weight, bias)


def test_known_translators_give_the_models_output(planted: tuple[LoadedModel, TunedLens]) -> None:
    model, lens = planted
    contexts = [Context((5, 9, 7, 30, 31, 32), 1)]
    weight, bias = torch.from_numpy(lens.weight), torch.from_numpy(lens.bias)
    assert measure(model, None, None, contexts, 64, lambda: None).min() > 0.5
    assert np.abs(measure(model, weight, bias, contexts, 64, lambda: None)).max() < 1e-10


def test_training_finds_what_is_known(planted: tuple[LoadedModel, TunedLens]) -> None:
    model, _ = planted
    result = tuned_lens_train(
        model,
        asked(texts=texts(60), steps=150, optimizer="adam", learning_rate=0.05, weight_decay=0.0),
    )
    assert (result.plain_kl > 0.1).all()
    assert (result.tuned_kl < 0.03 * result.plain_kl).all(), result.tuned_kl
    assert (result.gain_low > 0).all()
    assert all(check.passed for check in result.checks)


# --- training


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_every_family_is_trained(name: str) -> None:
    result = tuned_lens_train(loaded(name), asked(texts=texts(10), steps=2, batch_tokens=32))
    assert result.loss.shape == (2, LAYERS)
    assert np.isfinite(result.loss).all()
    assert all(check.passed for check in result.checks), result.checks
    assert (result.stopping_kl.min(0) <= result.stopping_kl[0]).all()
    assert result.lens is not None
    assert any(np.abs(result.lens.weight[layer]).max() > 0 for layer in range(LAYERS))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_loss_falls(gpt2: LoadedModel, optimizer: str) -> None:
    result = tuned_lens_train(gpt2, asked(steps=20, optimizer=optimizer, batch_tokens=100))
    assert (result.stopping_kl[-1] < result.stopping_kl[0]).all()
    assert (result.gain[1:] > 0).all()


def test_each_layer_keeps_its_best_translator(trained: TunedLensTrainResult) -> None:
    best = trained.stopping_kl.argmin(0)
    assert (trained.best_step == trained.checked_steps[best]).all()


def test_a_layer_that_never_improves_stays_plain(gpt2: LoadedModel) -> None:
    """A rate far too high spoils every layer; what is kept is step 0, the plain lens, exactly."""
    result = tuned_lens_train(gpt2, asked(steps=4, learning_rate=100.0, optimizer="adam"))
    spoilt = result.best_step == 0
    assert spoilt.any()
    assert result.lens is not None
    assert not result.lens.weight[spoilt].any()
    assert (result.gain[spoilt] == 0).all()


def test_the_model_and_its_parameters_stay_as_they_are(gpt2: LoadedModel) -> None:
    before = {name: value.clone() for name, value in gpt2.hf.state_dict().items()}
    hooks = gpt2.modules_with_hooks()
    tuned_lens_train(gpt2, asked(steps=2))
    for name, value in gpt2.hf.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert gpt2.modules_with_hooks() == hooks
    assert not any(
        parameter.requires_grad or parameter.grad is not None for parameter in gpt2.hf.parameters()
    )


def test_seeds_reproduce(gpt2: LoadedModel, trained: TunedLensTrainResult) -> None:
    again, other = tuned_lens_train(gpt2, asked()), tuned_lens_train(gpt2, asked(seed=1, steps=1))
    assert again.fingerprint == trained.fingerprint
    assert (again.loss == trained.loss).all()
    assert (again.tuned_low == trained.tuned_low).all()
    assert other.fingerprint != trained.fingerprint


def test_no_progress_ends_the_training_early(gpt2: LoadedModel) -> None:
    result = tuned_lens_train(gpt2, asked(steps=50, learning_rate=1e-9, batch_tokens=32))
    assert len(result.loss) < 50
    assert any("ended early" in warning for warning in result.warnings)


def test_cancel_keeps_the_best_so_far(gpt2: LoadedModel) -> None:
    steps: list[Step] = []

    def stop(step: Step) -> None:
        steps.append(step)
        if step.done >= 8:
            raise Cancelled

    result = tuned_lens_train(gpt2, asked(steps=1000, batch_tokens=32), on_step=stop)
    assert result.cancelled
    assert 8 <= len(result.loss) < 1000
    assert result.checked_steps[-1] == len(result.loss)  # what was there when it was stopped is looked at too
    assert any("stopped" in warning for warning in result.warnings)
    assert result.lens is not None
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert all(step.seconds_left is None or step.seconds_left >= 0 for step in steps)


def test_cancelled_before_there_is_anything_to_keep(gpt2: LoadedModel) -> None:
    def stop(_step: Step) -> None:
        raise Cancelled

    hooks = gpt2.modules_with_hooks()
    with pytest.raises(Cancelled):
        tuned_lens_train(gpt2, asked(), on_step=stop)
    assert gpt2.modules_with_hooks() == hooks


def test_a_worse_layer_is_flagged(gpt2: LoadedModel, tmp_path: Any) -> None:
    from mi_core.analyses.tuned_lens_files import write_lens

    random = np.random.default_rng(0)
    bad = TunedLens("bad", random.normal(size=(LAYERS, WIDTH, WIDTH)), np.zeros((LAYERS, WIDTH)))
    bad.weight[2] = 0
    write_lens(bad, tmp_path / "bad")
    result = tuned_lens_train(gpt2, asked(steps=0, start=str(tmp_path / "bad")))
    assert result.worse_layers == (0, 1, 3)
    assert result.gain[2] == 0
    assert any("worse than the plain lens" in w and "layers 0, 1, 3" in w for w in result.warnings)
    assert result.loss.shape == (0, LAYERS)
    assert result.counts.seen_tokens == 0


# --- what is held out


@pytest.mark.parametrize("count", [3, 40])
def test_held_out_text_is_never_trained_on(
    gpt2: LoadedModel, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = asked(texts=texts(count, words=40) * 2)  # every document twice
    split = split_text(gpt2, inputs)
    parts = [set(part) for part in (split.training, split.stopping, split.validation)]
    assert all(parts)
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    assert split.whole_documents == (count >= 10)
    read: list[Context] = []
    original = Batches.next
    monkeypatch.setattr(Batches, "next", lambda self: [read.extend(b := original(self)), b][1])
    tuned_lens_train(gpt2, inputs)
    assert read
    assert set(read) <= parts[0]


def test_the_first_token_of_a_context_is_not_counted(gpt2: LoadedModel) -> None:
    with_bos = loaded(bos=True)
    for model, lead in ((gpt2, 0), (with_bos, 1)):
        split = split_text(model, asked())
        every = [*split.training, *split.stopping, *split.validation]
        assert all(context.skipped == 1 for context in every)
        assert all((context.ids[0] == 0) == bool(lead) for context in every)
        assert count_tokens(every) == sum(len(context.ids) - 1 for context in every)


def test_every_context_is_read_once_a_round() -> None:
    contexts = tuple(Context((1, index + 2), 1) for index in range(7))
    batches = Batches(contexts, 3, np.random.default_rng(0))
    read = [context for _ in range(7) for context in batches.next()]
    assert len(read) == 21
    for start in range(0, 21, 7):
        assert set(read[start : start + 7]) == set(contexts)


def test_a_context_is_no_longer_than_asked(gpt2: LoadedModel) -> None:
    split = split_text(gpt2, asked(texts=(" ".join(WORDS * 5),), context=12))
    assert max(len(context.ids) for context in split.training) == 12


# --- what users do wrong


def test_mistakes_have_their_sentence(gpt2: LoadedModel) -> None:
    for problem, match in (
        ({"texts": ()}, "no text to train on"),
        ({"texts": ("  ", "")}, "no text to train on"),
        ({"steps": 0}, "nothing to do with 0 steps"),
        ({"optimizer": "adamw"}, "optimizer is 'adamw'"),
        ({"learning_rate": 0.0}, "learning rate is 0"),
        ({"learning_rate": float("nan")}, "learning rate is nan"),
        ({"held_out": 0.0}, "held-out share is 0"),
        ({"batch_tokens": 1}, "batch is 1"),
        ({"weight_decay": float("nan")}, "weight decay is nan"),
    ):
        with pytest.raises(InputError, match=match):
            asked(**problem)
    with pytest.raises(InputError, match=r"too little text.*2 contexts"):
        tuned_lens_train(gpt2, asked(texts=texts(2, words=5)))
    with pytest.raises(InputError, match=r"context of 1,000 tokens is too long.*at most 64"):
        tuned_lens_train(gpt2, asked(context=1000))
    with pytest.raises(InputError, match="no tuned lens 'nowhere' for this model"):
        tuned_lens_train(gpt2, asked(start="nowhere"))


def test_text_files() -> None:
    text = "\ufeffone\n  two\r\n\r\nthree \n \n\n\nvier\n"
    assert documents_of(text.encode()) == ("one\n  two", "three ", "vier")
    with pytest.raises(InputError, match="no text in UTF-8"):
        documents_of(b"abc \xff\xfe")
    with pytest.raises(InputError, match="zero bytes"):
        documents_of(b"abc \0")
    with pytest.raises(InputError, match="no text to train on"):
        documents_of(b"\n\n")


def test_emoji_and_unknown_words_are_trained_on_too(gpt2: LoadedModel) -> None:
    strange = tuple(f"Paris 🗼 {word} 東京 is" for word in WORDS)
    result = tuned_lens_train(gpt2, asked(texts=strange, steps=1))
    assert np.isfinite(result.tuned_kl).all()


# --- records


def test_a_result_comes_back_from_its_record(trained: TunedLensTrainResult) -> None:
    again = TunedLensTrainResult.from_json(trained.to_json())
    for field in dataclasses.fields(trained):
        mine, other = getattr(trained, field.name), getattr(again, field.name)
        if field.name == "lens":
            assert other is None
        elif isinstance(mine, np.ndarray):
            assert np.array_equal(mine, other, equal_nan=True), field.name
        else:
            assert mine == other, field.name
    assert again.to_json() == trained.to_json()
    with pytest.raises(InputError, match=r"'plain_kl' has shape \(4,\), expected \(5,\)"):
        TunedLensTrainResult.from_json(trained.to_json().replace('"n_layers": 4', '"n_layers": 5'))
    with pytest.raises(InputError, match="The training record is damaged"):
        TunedLensTrainResult.from_json(trained.to_json().replace('"counts"', '"amounts"'))


def test_the_table_has_every_number_once(trained: TunedLensTrainResult) -> None:
    frame = trained.to_frame()
    assert len(frame) == 3 * LAYERS + trained.stopping_kl.size + trained.loss.size
    assert not frame.duplicated(["text", "lens", "layer", "step"]).any()
    gain = frame[frame["lens"] == "plain - tuned"]["value"].tolist()
    np.testing.assert_allclose(gain, trained.plain_kl - trained.tuned_kl, atol=1e-12)
    assert (trained.gain_low <= trained.gain).all()
    assert (trained.gain <= trained.gain_high).all()


def test_cost_is_told_before(gpt2: LoadedModel) -> None:
    few, many = (training_cost(gpt2, asked(steps=steps)) for steps in (10, 100))
    assert many.flops == pytest.approx(10 * few.flops)
    assert many.readings == 100 * 96 * LAYERS
    assert many.bytes == 3 * 4 * LAYERS * (WIDTH + 1) * WIDTH


# --- number formats and devices


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_are_trained_in_float32(dtype: torch.dtype) -> None:
    result = tuned_lens_train(loaded("llama", dtype), asked(steps=10, learning_rate=0.3))
    assert result.lens is not None
    assert result.lens.weight.dtype == np.float32
    assert np.isfinite(result.loss).all()
    assert (result.stopping_kl[-1] < result.stopping_kl[0]).any()
    assert all(check.passed for check in result.checks), result.checks


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_training_on_cuda_gives_the_numbers_of_the_cpu(trained: TunedLensTrainResult) -> None:
    on_gpu = build_model(hf_model("gpt2", torch.float32).to("cuda"), word_tokenizer())
    result = tuned_lens_train(on_gpu, asked())
    np.testing.assert_allclose(result.loss, trained.loss, rtol=1e-3)
    np.testing.assert_allclose(result.tuned_kl, trained.tuned_kl, rtol=1e-3)
