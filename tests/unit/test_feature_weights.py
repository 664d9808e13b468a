"""One feature from its weights: identities, a second computation, planted words, mistakes, records."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mi_core.engine import Edit, build_model, run
from mi_core.errors import Cancelled, InputError, TranscoderError
from mi_core.exports.feature_weights import (
    by_layer_figure,
    cosines_figure,
    histogram_figure,
    reads_figure,
    rows_figure,
    written_figure,
)
from mi_core.model.model import LoadedModel
from mi_core.transcoders import (
    FeatureWeightsInputs,
    FeatureWeightsResult,
    Hook,
    Transcoder,
    feature_weights,
    load_transcoder,
)
from mi_core.transcoders.weights_stream import reader_gain, sees
from tests.feature_oracle import embedding, encoder_of, rows_of, unembedding
from tests.tiny import VOCAB, hf_model, tiny, tokens
from tests.transcoders import tiny_clt, tiny_plt, use, write_clt
from tests.words import word_tokenizer

FAMILIES = ("gpt2", "llama", "gemma2")


def look(
    model: LoadedModel, transcoder: Transcoder, feature: str, tokens: int = VOCAB
) -> FeatureWeightsResult:
    """One feature of a transcoder in memory."""
    use(model, transcoder, transcoder.name)
    return feature_weights(model, FeatureWeightsInputs(feature, transcoder.name, tokens))


def table(ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    """[column, token] from lists that hold the whole vocabulary; both ends must agree."""
    made = np.full((len(ids), VOCAB), np.nan)
    for column in range(len(ids)):
        made[column, ids[column, 0]] = values[column, 0]
        np.testing.assert_allclose(made[column, ids[column, 1]], values[column, 1])
    return made


# --- identities and a second computation ---


@pytest.mark.parametrize("name", FAMILIES)
def test_effects_are_rows_through_gain_and_unembedding(name: str) -> None:
    model, transcoder = tiny(name), tiny_clt(tiny(name))
    result = look(model, transcoder, "L1F3")
    rows = rows_of(transcoder, result.feature)
    wanted = np.concatenate([rows.sum(0, keepdims=True), rows]) @ unembedding(model)
    np.testing.assert_allclose(result.effect_mean, wanted.mean(1), atol=1e-6)
    wanted = wanted - wanted.mean(1, keepdims=True)
    np.testing.assert_allclose(table(result.top_ids, result.top_values), wanted, atol=1e-6)
    np.testing.assert_allclose(result.effect_deviation, wanted.std(1), rtol=1e-5)
    unit = wanted / wanted.std(1, keepdims=True)
    np.testing.assert_allclose(result.effect_skew, (unit**3).mean(1), atol=1e-5)
    np.testing.assert_allclose(result.effect_kurtosis, (unit**4).mean(1) - 3, atol=1e-5)
    assert result.counts.sum() == VOCAB
    assert len(result.checks) == 2
    assert all(check.passed for check in result.checks)


@pytest.mark.parametrize("name", FAMILIES)
def test_effects_are_what_the_model_does_with_a_small_push(name: str) -> None:
    """Differences of logits change as effect / scale, when the push does not change the norm's scale."""
    model, transcoder = tiny(name), tiny_clt(tiny(name))
    result = look(model, transcoder, "L0F2")
    ids, last = tokens(n_pos=6), model.dims.n_layers - 1
    stream = run(model, ids, capture=[("resid_post", last)])["resid_post", last][0, -1]
    row = torch.tensor(rows_of(transcoder, result.feature).sum(0))
    pushes = torch.stack([row, -row]) * 1e-2  # RMS norms compute in float32: no smaller
    moved = [
        run(model, ids, edits=[Edit("resid_post", last, "add", positions=(-1,), value=push)], last=1).logits
        for push in pushes
    ]
    slope = ((moved[0] - moved[1])[0, -1] / 2e-2).numpy()
    cap = model.hf.config.to_dict().get("final_logit_softcapping")
    if cap:
        logits = run(model, ids, last=1).logits[0, -1].numpy()
        slope = slope / (1 - (logits / cap) ** 2)
    # The scale moves too, which adds a multiple of the logits: take both out by least squares.
    effects = table(result.top_ids, result.top_values)[0]
    along = stream.numpy() @ unembedding(model)
    design = np.stack([effects, along - along.mean(), np.ones(VOCAB)], 1)
    fitted, *_ = np.linalg.lstsq(design, slope, rcond=None)
    assert fitted[0] > 0
    np.testing.assert_allclose(design @ fitted, slope, atol=1e-3 * np.abs(slope).max())


def test_rows_norms_and_cosines() -> None:
    model = tiny("llama")
    transcoder = tiny_clt(model)
    result = look(model, transcoder, "L1F3")
    rows = rows_of(transcoder, result.feature)
    lengths = np.linalg.norm(rows, axis=1)
    assert result.targets.tolist() == [1, 2, 3]
    assert result.columns == ("all", "L1", "L2", "L3")
    np.testing.assert_allclose(result.decoder_norms, lengths)
    np.testing.assert_allclose(result.row_cosines, rows @ rows.T / np.outer(lengths, lengths), atol=1e-12)
    np.testing.assert_allclose(result.write_shares, lengths**2 / (lengths**2).sum())
    encoder = encoder_of(transcoder, result.feature)
    assert result.encoder_norm == pytest.approx(np.linalg.norm(encoder))
    assert result.threshold is not None
    assert result.needed == pytest.approx(result.threshold - result.encoder_bias)


def test_what_is_needed_is_where_the_activation_begins() -> None:
    """With a centre that is taken off the input first, as SAEs do."""
    model = tiny("llama")
    made = tiny_clt(model)
    generator = torch.Generator().manual_seed(3)
    encoder = made.source.encoder(1)
    centre = torch.randn(model.dims.d_model, generator=generator)
    made.source.encoders[1] = dataclasses.replace(encoder, centre=centre)  # type: ignore[attr-defined]
    result = look(model, made, "L1F3")
    x = torch.randn(200, model.dims.d_model, generator=generator)
    active = made.activate(1, made.pre_activations(1, x))[:, 3] > 0
    given = x.double().numpy() @ encoder_of(made, result.feature)
    assert 0 < int(active.sum()) < 200
    np.testing.assert_array_equal(active.numpy(), given > result.needed)


@pytest.mark.parametrize("name", FAMILIES)
def test_reads_are_embeddings_times_the_encoder(name: str) -> None:
    model, transcoder = tiny(name), tiny_clt(tiny(name))
    result = look(model, transcoder, "L0F1")
    wanted = embedding(model) @ encoder_of(transcoder, result.feature)
    np.testing.assert_allclose(table(result.read_ids[None], result.read_values[None])[0], wanted, atol=1e-9)
    assert result.read_mean == pytest.approx(wanted.mean())
    assert result.read_deviation == pytest.approx(wanted.std())


NORMED = [(name, hook) for name in FAMILIES for hook in (Hook("mlp_in"), Hook("resid_mid", normalised=True))]


@pytest.mark.parametrize(("name", "hook"), [*NORMED, ("phi", Hook("mlp_in"))])  # phi has no resid_mid
def test_a_norm_in_front_is_read_through(name: str, hook: Hook) -> None:
    """Behind the norm, times its scale, without its bias: what the block's own module gives."""
    model = tiny(name)
    base = tiny_plt(tiny("llama") if name == "phi" else model)  # whose weights they are does not matter
    transcoder = dataclasses.replace(base, reads=hook, name="normed")
    result = look(model, transcoder, "L2F1")
    block = model.structure.blocks[2]
    norm = {"gpt2": "ln_2", "llama": "post_attention_layernorm", "gemma2": "pre_feedforward_layernorm",
            "phi": "input_layernorm"}[name]  # fmt: skip
    module = getattr(block, norm)
    x = torch.tensor(embedding(model)) * 1e4  # the norm's epsilon vanishes
    centred = x - x.mean(-1, keepdim=True) if name in ("gpt2", "phi") else x
    scale = centred.square().mean(-1, keepdim=True).sqrt()
    with torch.no_grad():
        behind = (module(x) - module(torch.zeros_like(x))) * scale / 1e4
    if hook.normalised:
        behind = centred / 1e4
    wanted = behind.numpy() @ encoder_of(transcoder, result.feature)
    made = table(result.read_ids[None], result.read_values[None])[0]
    np.testing.assert_allclose(made, wanted, atol=1e-4 * np.abs(wanted).max())
    assert reader_gain(model, transcoder, 2) is not None


def test_planted_words_are_found() -> None:
    model = build_model(hf_model("llama"))
    model.tokenizer = word_tokenizer()
    transcoder = tiny_clt(model)
    table_u = unembedding(model)
    source = transcoder.source
    paris = 17
    source.decoders[1][4] = 0  # type: ignore[attr-defined]
    source.decoders[1][4, 2] = torch.tensor(table_u[:, paris] - table_u.mean(1))  # type: ignore[attr-defined]
    row = torch.tensor(embedding(model)[paris]).float()
    source.encoders[1].stored[4] = row  # type: ignore[attr-defined]
    result = look(model, transcoder, "L1F4", tokens=3)
    assert result.visible(int(result.top_ids[0, 0, 0])) == "·Paris"
    assert result.top_ids[3, 0, 0] == paris
    assert result.read_ids[0, 0] == paris
    assert result.write_shares.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(result.top_values[1:3], 0)
    assert np.isnan(result.row_cosines[0, 1])
    assert result.row_cosines[2, 2] == pytest.approx(1)
    for figure in (by_layer_figure(result), rows_figure(result), cosines_figure(result)):
        assert figure.frame().shape[0] > 0
        assert "NaN" not in json.dumps(figure.spec)


# --- what is not there, and what is read ---


def test_without_decoders_there_are_only_the_words_that_it_reads() -> None:
    model = tiny("llama")
    transcoder = dataclasses.replace(tiny_clt(model), has_decoder=False, name="encoders")
    result = look(model, transcoder, "L1F3", tokens=5)
    assert not result.written
    assert result.columns == ()
    assert "Only the encoders" in result.warnings[0]
    assert result.read_ids.shape == (2, 5)
    again = FeatureWeightsResult.from_json(result.to_json())
    assert again.top_ids.shape == (0, 2, 5)
    assert set(result.to_frame()["quantity"]) == {"reads", "encoder length", "b_enc", "threshold"}
    assert "words read" in reads_figure(result).title


def test_a_feature_of_zeros_is_told() -> None:
    model = tiny("llama")
    transcoder = tiny_clt(model)
    transcoder.source.decoders[2][0] = 0  # type: ignore[attr-defined]
    result = look(model, transcoder, "L2F0", tokens=4)
    assert "writes nothing" in result.warnings[0]
    assert result.write_shares.tolist() == [0, 0]
    assert np.isnan(result.row_cosines).all()
    assert all(check.passed for check in result.checks)
    for figure in (written_figure(result), histogram_figure(result)):
        assert "NaN" not in json.dumps(figure.spec)
    assert FeatureWeightsResult.from_json(result.to_json()).threshold == result.threshold


def test_one_feature_reads_its_own_rows_only(tmp_path: Path) -> None:
    model = build_model(hf_model("llama"))
    folder = write_clt(tiny_clt(model, n_features=64), tmp_path / "clt")
    transcoder = load_transcoder(model, str(folder))
    feature_weights(model, FeatureWeightsInputs("L0F1", str(folder)))
    before = transcoder.read_bytes
    feature_weights(model, FeatureWeightsInputs("L0F2", str(folder)))
    rows = 4 * 4 * model.dims.d_model
    assert rows <= transcoder.read_bytes - before < 4 * rows


@pytest.mark.parametrize(
    ("feature", "sentence"),
    [("L9F0", "no features in layer 9"), ("L1F99", "no feature 99"), ("banana", "names no feature")],
)
def test_mistakes_are_told(feature: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        look(tiny("llama"), tiny_clt(tiny("llama")), feature)


def test_no_transcoder_is_told() -> None:
    with pytest.raises(TranscoderError):
        feature_weights(tiny("gpt2"), FeatureWeightsInputs("L0F0", "/nowhere/at/all"))


def test_names_have_one_form_and_records_are_checked() -> None:
    assert FeatureWeightsInputs("1:3") == FeatureWeightsInputs("L1F3") == FeatureWeightsInputs("1/3")
    with pytest.raises(InputError):
        FeatureWeightsInputs("L1F3", tokens=0)
    with pytest.raises(InputError):
        FeatureWeightsInputs(3)  # type: ignore[arg-type]
    result = look(tiny("llama"), tiny_clt(tiny("llama")), "L1F3", tokens=4)
    again = FeatureWeightsResult.from_json(result.to_json())
    assert again.inputs == result.inputs
    np.testing.assert_array_equal(again.top_values, result.top_values)
    broken = json.loads(result.to_json()) | {"top_ids": [[1, 2]]}
    with pytest.raises(InputError, match="top_ids"):
        FeatureWeightsResult.from_json(json.dumps(broken))
    with pytest.raises(InputError, match="damaged"):
        FeatureWeightsResult.from_json(json.dumps({"schema": "lantern/feature_weights", "version": 1}))


def test_it_can_be_stopped() -> None:
    def stop(_step: object) -> None:
        raise Cancelled

    model = tiny("llama")
    use(model, tiny_clt(model), "clt")
    with pytest.raises(Cancelled):
        feature_weights(model, FeatureWeightsInputs("L0F0", "clt"), on_step=stop)


# --- who sees whom ---


@pytest.mark.parametrize(("written", "read"), [("mlp_out", "resid_mid"), ("attn_out", "resid_mid"),
                                              ("mlp_out", "resid_post"), ("attn_out", "mlp_in")])  # fmt: skip
def test_what_is_written_is_seen_where_a_push_arrives(written: str, read: str) -> None:
    """A push at one layer is tried on the model with every other module's answer held as it was."""
    model, ids = tiny("llama"), tokens(n_pos=4)
    transcoder = dataclasses.replace(tiny_clt(model), reads=Hook(read), writes=Hook(written))
    layers = range(model.dims.n_layers)
    clean = run(model, ids, capture=[(site, n) for n in layers for site in ("attn_out", "mlp_out", read)])
    for source in layers:
        held = [
            Edit(site, n, "set", value=clean[site, n])
            for n in layers
            for site in ("attn_out", "mlp_out")
            if (site, n) != (written, source)
        ]
        pushed = Edit(written, source, "set", value=clean[written, source] + 1)
        moved = run(model, ids, edits=[*held, pushed], capture=[(read, n) for n in layers])
        for target in layers:
            changed = not torch.allclose(moved[read, target], clean[read, target])
            assert changed == sees(transcoder, source, target), (source, target)
