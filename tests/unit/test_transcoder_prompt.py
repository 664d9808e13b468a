"""The features of a prompt: identities, a second computation, hand-made listings, what users do wrong."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mi_core.engine import Edit, build_model, observe, run
from mi_core.errors import InputError, TranscoderError
from mi_core.tokens import tokenize
from mi_core.transcoders import FeaturesOnPromptInputs, FeaturesOnPromptResult, features_on_prompt
from mi_core.transcoders import prompt_parts as parts_module
from mi_core.transcoders.names import Feature
from mi_core.transcoders.prompt_label import TranscoderLabel
from mi_core.transcoders.prompt_record import ARRAYS
from mi_core.transcoders.prompt_view import Choice, by_token, listing
from tests.tiny import hf_model
from tests.transcoders import tiny_clt, tiny_plt, use
from tests.words import word_tokenizer

TEXT = "Mary gave John a drink in Paris"
FAMILIES = ("llama", "gemma2", "gpt2", "qwen3")


@pytest.fixture(scope="module")
def made():
    """Models by family, each with a tokenizer that puts BOS first and a tiny transcoder."""
    found = {}

    def of(family, kind="clt", **options):
        key = (family, kind, tuple(options.items()))
        if key not in found:
            model = build_model(hf_model(family), tokenizer=word_tokenizer(bos=True))
            transcoder = (tiny_clt if kind == "clt" else tiny_plt)(model, **options)
            found[key] = model, use(model, transcoder)
        return found[key]

    return of


def dense(model, transcoder, ids):
    """Activations [layer, pos, feature] by the plain formula."""
    seen = observe(model, ids, ("resid_mid",))
    rows = []
    for layer in transcoder.layers:
        encoder, x = transcoder.encoder(layer), seen["resid_mid", layer].double()
        pre = x @ encoder.stored.double().T + encoder.b_enc.double()
        bar = 0 if encoder.threshold is None else encoder.threshold.double()
        rows.append(torch.where(pre > bar, pre, 0).clamp(min=0))
    return torch.stack(rows).numpy()


# --- identities ---


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["clt", "plt"])
def test_the_list_is_the_plain_formula(made, family, kind):
    model, transcoder = made(family, kind)
    result = features_on_prompt(model, FeaturesOnPromptInputs(TEXT))
    ids = tokenize(model.tokenizer, TEXT).ids
    wanted = dense(model, transcoder, ids)
    wanted[:, 0] = 0  # BOS is masked
    found = np.zeros_like(wanted)
    found[result.layer, result.position, result.feature] = result.activation
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    np.testing.assert_array_equal(result.counts, (wanted > 0).sum(-1))
    assert result.masked == (0,)
    assert result.n_active == len(result)
    assert all(check.passed for check in result.checks), result.checks
    assert result.has_threshold == (kind == "clt")
    order = np.lexsort((result.feature, result.position, result.layer))
    np.testing.assert_array_equal(order, np.arange(len(result)))


def test_bos_is_shown_when_asked_for_and_changes_nothing_else(made):
    model, _ = made("llama")
    without = features_on_prompt(model, FeaturesOnPromptInputs(TEXT))
    shown = features_on_prompt(model, FeaturesOnPromptInputs(TEXT, show_bos=True))
    assert shown.masked == ()
    assert shown.counts[:, 0].sum() > 0
    np.testing.assert_array_equal(shown.counts[:, 1:], without.counts[:, 1:])
    np.testing.assert_array_equal(shown.activation[shown.position > 0], without.activation)
    assert any("special tokens are shown" in warning for warning in shown.warnings)
    assert not any("special tokens are shown" in warning for warning in without.warnings)


@pytest.mark.parametrize("kind", ["clt", "plt"])
def test_the_error_is_what_plain_sums_leave(made, kind):
    """Decoder rows put together one by one; skips included."""
    model, transcoder = made("llama", kind)
    result = features_on_prompt(model, FeaturesOnPromptInputs(TEXT))
    ids = tokenize(model.tokenizer, TEXT).ids
    seen = observe(model, ids, ("resid_mid", "mlp_out"))
    told = torch.stack([transcoder.source.biases[m].double().repeat(len(ids), 1) for m in range(4)])
    for n in range(len(result)):
        layer, position = int(result.layer[n]), int(result.position[n])
        for j, target in enumerate(transcoder.targets(layer)):
            row = transcoder.source.decoders[layer][int(result.feature[n]), j].double()
            told[target, position] += float(result.activation[n]) * row
    for layer, matrix in transcoder.source.skips.items():
        told[layer] += seen["resid_mid", layer].double() @ matrix.double()
    true = torch.stack([seen["mlp_out", layer].double() for layer in range(4)])
    off = (true - told)[:, 1:]
    np.testing.assert_allclose(
        result.error[:, 1:], (off.norm(dim=-1) / true[:, 1:].norm(dim=-1)).numpy(), rtol=1e-4
    )
    spread = true[:, 1:] - true[:, 1:].mean(1, keepdim=True)
    np.testing.assert_allclose(
        result.unexplained, (off.square().sum((1, 2)) / spread.square().sum((1, 2))).numpy(), rtol=1e-4
    )
    assert np.isnan(result.error[:, 0]).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("distractor", [None, "Rome"])
def test_effects_are_slopes_of_the_targets_logit(made, family, distractor):
    """Against finite differences of whole forward passes with a bit of the feature added."""
    model, transcoder = made(family)
    inputs = FeaturesOnPromptInputs(TEXT, effects=True, answer="Seattle", distractor=distractor)
    result = features_on_prompt(model, inputs)
    assert all(check.passed for check in result.checks), result.checks
    assert len(result.checks) == 3
    ids = torch.tensor([tokenize(model.tokenizer, TEXT).ids])
    target = result.target
    assert target is not None
    step = 4e-3  # RMS norms compute in float32 even in a float64 model

    def score(edits):
        last = run(model, ids, edits=edits, last=1).logits[0, -1].double()
        other = last.mean() if result.distractor is None else last[result.distractor.id]
        return float(last[target.id] - other)

    for n in np.argsort(-np.abs(result.effect))[[0, 3, 11]].tolist():
        layer, row = int(result.layer[n]), transcoder.source.decoders[int(result.layer[n])]
        move = float(result.activation[n]) * row[int(result.feature[n])].double()

        def moved(by, layer=layer, move=move, n=n):
            return score([
                Edit("mlp_out", target, "add", (int(result.position[n]),), value=by * move[j])
                for j, target in enumerate(transcoder.targets(layer))
            ])  # fmt: skip

        slope = (moved(step) - moved(-step)) / (2 * step)
        assert slope == pytest.approx(float(result.effect[n]), rel=2e-3, abs=3e-4)


def test_a_record_comes_back_exactly(made):
    model, _ = made("llama")
    for effects in (False, True):
        result = features_on_prompt(model, FeaturesOnPromptInputs(TEXT, effects=effects))
        again = FeaturesOnPromptResult.from_json(result.to_json())
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(again, name), getattr(result, name), name)
        assert again.to_json() == result.to_json()
    with pytest.raises(InputError, match="damaged"):
        FeaturesOnPromptResult.from_json(result.to_json().replace('"counts": [[', '"count": [['))


# --- listings, worked out by hand ---


@pytest.fixture
def by_hand(made):
    """Three tokens, BOS masked; L0F1 at 1 and 2, L0F5 at 2, L1F3 at 1."""
    model, _ = made("llama")
    prompt = features_on_prompt(model, FeaturesOnPromptInputs("Mary gave", effects=True))
    tokens = prompt.tokens
    assert len(tokens) == 3
    nothing = np.full((4, 3), np.nan, np.float32)
    return replace(
        prompt,
        counts=np.zeros((4, 3), np.int64),
        layer=np.array([0, 0, 0, 1]),
        position=np.array([1, 2, 2, 1]),
        feature=np.array([1, 1, 5, 3]),
        activation=np.array([2.0, 1.0, 2.5, 0.5], np.float32),
        threshold=np.array([1.0, 1.0, 0.0, 0.25], np.float32),
        density=np.array([0.5, 0.5, np.nan, 0.01], np.float32),
        effect=np.array([1.0, -3.0, 0.5, -4.0]),
        error=nothing,
    )


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (Choice(), ["L0F5", "L0F1", "L1F3"]),
        (Choice("sum"), ["L0F1", "L0F5", "L1F3"]),
        (Choice("effect"), ["L1F3", "L0F1", "L0F5"]),
        (Choice(positions=(1,)), ["L0F1", "L1F3"]),
        (Choice("sum", positions=(2,)), ["L0F5", "L0F1"]),
        (Choice(layers=(1,)), ["L1F3"]),
        (Choice(densest=0.1), ["L0F5", "L1F3"]),
        (Choice(positions=(1,), layers=(0,), densest=0.1), []),
    ],
)
def test_sorts_and_filters(by_hand, choice, names):
    listed = listing(by_hand, choice)
    assert [listed.named(row).text for row in range(len(listed))] == names
    assert listed.dense == (1 if choice.densest is not None else 0)


def test_the_numbers_of_a_listing(by_hand):
    listed = listing(by_hand, Choice("sum"))
    assert listed.total.tolist() == [3.0, 2.5, 0.5]
    assert listed.activation.tolist() == [2.0, 2.5, 0.5]
    assert listed.position.tolist() == [1, 2, 1]
    assert listed.tokens.tolist() == [2, 1, 1]
    assert listed.effect.tolist() == [-2.0, 0.5, -4.0]
    np.testing.assert_array_equal(listed.share, [2.0, np.nan, 2.0])
    np.testing.assert_allclose(listed.density, [0.5, np.nan, 0.01])
    assert listed.n_chosen == 2
    assert listed.row_of(Feature(1, 3)) == 2
    assert listed.row_of(Feature(2, 3)) is None
    table = by_token(by_hand, [Feature(0, 1), Feature(1, 3)], range(3))
    np.testing.assert_array_equal(table, [[np.nan, 2, 1], [np.nan, 0.5, 0]])


def test_densities_come_from_the_corpus_pass(made, monkeypatch):
    model, _ = made("llama")
    known = {layer: np.linspace(0, 1, 12, dtype=np.float32) for layer in (0, 2)}
    known[1] = np.ones(5, np.float32)  # of another transcoder: left out
    monkeypatch.setattr(parts_module, "densities", lambda model, transcoder: known)
    result = features_on_prompt(model, FeaturesOnPromptInputs(TEXT))
    here = np.isin(result.layer, (0, 2))
    np.testing.assert_array_equal(result.density[here], known[0][result.feature[here]])
    assert np.isnan(result.density[~here]).all()


# --- what users do wrong, and odd prompts ---


def test_a_cut_list_keeps_the_strongest_and_all_counts(made):
    model, _ = made("llama")
    whole = features_on_prompt(model, FeaturesOnPromptInputs(TEXT))
    cut = features_on_prompt(model, FeaturesOnPromptInputs(TEXT, most=5))
    assert len(cut) == 5
    np.testing.assert_array_equal(cut.counts, whole.counts)
    assert sorted(cut.activation) == sorted(whole.activation)[-5:]
    assert any("Only the 5 strongest of" in warning for warning in cut.warnings)


@pytest.mark.parametrize("text", ["Paris", "Paris Paris Paris", "the " * 60])
def test_odd_prompts(made, text):
    model, _ = made("llama")
    result = features_on_prompt(model, FeaturesOnPromptInputs(text, bos="never", effects=True))
    assert result.masked == ()
    assert len(result.to_frame()) > 0
    assert np.isnan(result.unexplained_all) == (len(result.tokens) == 1)


def test_refusals(made):
    model, transcoder = made("llama")
    with pytest.raises(InputError, match="empty"):
        FeaturesOnPromptInputs("")
    with pytest.raises(InputError, match="name of a transcoder"):
        FeaturesOnPromptInputs(TEXT, transcoder="x" * 2000)
    with pytest.raises(InputError, match="at most 64"):
        features_on_prompt(model, FeaturesOnPromptInputs("the " * 80))
    result = features_on_prompt(model, FeaturesOnPromptInputs(TEXT))
    with pytest.raises(InputError, match="Effects were not computed"):
        listing(result, Choice("effect"))
    with pytest.raises(InputError, match="no token 99"):
        listing(result, Choice(positions=(99,)))
    use(model, replace(transcoder, has_decoder=False), "encoders")
    only = features_on_prompt(model, FeaturesOnPromptInputs(TEXT, "encoders"))
    assert np.isnan(only.error).all()
    assert any("decoders of this transcoder" in warning for warning in only.warnings)
    np.testing.assert_array_equal(only.activation, result.activation)
    with pytest.raises(TranscoderError, match="not on this machine"):
        features_on_prompt(model, FeaturesOnPromptInputs(TEXT, "encoders", effects=True))


def test_a_label_goes_through_plain_values(made):
    _, transcoder = made("llama")
    label = TranscoderLabel.of(transcoder)
    assert TranscoderLabel.from_dict(label.to_dict()) == label
    assert "cross-layer transcoder tiny-clt (JumpReLU)" in label.sentence


def test_figures_say_what_they_show(by_hand):
    from mi_core.exports import feature_prompt as figures

    choice = Choice("effect", positions=(1, 2), densest=0.1)
    listed = listing(by_hand, choice)
    made = [
        figures.counts_figure(by_hand, 2, chosen=(0, 1)),
        figures.list_figure(by_hand, listed, choice, 20, chosen=0),
        figures.tokens_figure(by_hand, listed, choice, 20, 2, chosen=(0, 1)),
        figures.error_figure(by_hand, 2),
    ]
    for figure in made:
        assert "n = 1 prompt of 2 tokens (1 leading special token masked)" in figure.caption
        assert "0 = " in figure.caption
        assert len(figure.frame()) or "error" in figure.title
        assert "from mi_core.transcoders import FeaturesOnPromptInputs, features_on_prompt" in figure.recipe
    assert "1 features that are active on more than 10 %" in made[1].caption
    assert "present minus absent" in made[1].caption
    assert len(made[0].spec["datasets"]["missing"]) == 4  # BOS, once per layer
