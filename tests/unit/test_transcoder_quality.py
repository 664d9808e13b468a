"""The replacement model: against plain hooks, and at its two ends (perfect, and nothing but the mean)."""

import pytest
import torch

from mi_core.engine import observe, run
from mi_core.errors import InputError, TranscoderError
from mi_core.model.model import LoadedModel
from mi_core.transcoders.encode import fit
from mi_core.transcoders.quality import replacement_edits, transcoder_quality
from mi_core.transcoders.transcoder import Encoder, Hook, Transcoder
from tests.tiny import tiny
from tests.transcoders import MemorySource, tiny_clt, tiny_plt

IDS = (5, 17, 3, 42, 8, 11, 60)


def by_hooks(model: LoadedModel, transcoder: Transcoder, ids: tuple[int, ...]) -> torch.Tensor:
    """The replacement model's logits with torch's own hooks, in one pass (Llama)."""
    source = transcoder.source
    assert isinstance(source, MemorySource)
    layers, told = model.hf.model.layers, {m: source.biases[m].double() for m in range(transcoder.n_layers)}
    read: dict[int, torch.Tensor] = {}
    handles = []
    for index, layer in enumerate(layers):

        def before(_, args, index=index) -> None:
            read[index] = args[0][0]

        def after(_, __, output, index=index) -> torch.Tensor:
            encoder = source.encoders[index]
            pre = read[index].float() @ encoder.stored.T + encoder.b_enc
            low = 0 if encoder.threshold is None else encoder.threshold
            active = (pre * (pre > low)).double()
            for j, target in enumerate(transcoder.targets(index)):
                told[target] = told[target] + active @ source.decoders[index][:, j].double()
            skip = read[index] @ source.skips[index].double() if index in source.skips else 0
            return (told[index] + skip)[None].to(output)

        handles += [layer.post_attention_layernorm.register_forward_pre_hook(before)]
        handles += [layer.mlp.register_forward_hook(after)]
    with torch.no_grad():
        logits = model.hf(torch.tensor([ids])).logits[0]
    for handle in handles:
        handle.remove()
    return logits


@pytest.mark.parametrize("make", [tiny_clt, tiny_plt])
def test_the_replacement_model_equals_one_with_plain_hooks(make) -> None:
    model = tiny("llama")
    transcoder = make(model)
    expected = by_hooks(model, transcoder, IDS)
    tokens = torch.tensor([IDS])
    edits = replacement_edits(model, transcoder, tokens, 0)
    torch.testing.assert_close(run(model, tokens, edits=edits).logits[0], expected, rtol=1e-4, atol=1e-4)
    found = transcoder_quality(model, transcoder, [IDS])
    own = run(model, tokens).logits[0, :-1].log_softmax(-1)
    other = expected[:-1].log_softmax(-1)
    assert found.kl == pytest.approx(float((own.exp() * (own - other)).sum(-1).mean()), rel=1e-3)
    assert found.agreement == pytest.approx(float((own.argmax(-1) == other.argmax(-1)).double().mean()))
    ce = -other.gather(-1, torch.tensor(IDS[1:])[:, None]).mean()
    assert found.ce_replacement == pytest.approx(float(ce), rel=1e-4)


def test_a_transcoder_that_writes_only_the_mean_recovers_nothing() -> None:
    model = tiny("llama")
    transcoder = tiny_plt(model, skip=False)
    source = transcoder.source
    assert isinstance(source, MemorySource)
    seen = observe(model, IDS, ("mlp_out",))
    for layer in transcoder.layers:
        source.decoders[layer].zero_()
        source.biases[layer] = seen["mlp_out", layer].float().mean(0)
    found = transcoder_quality(model, transcoder, [IDS])
    assert found.recovered == pytest.approx(0, abs=1e-4)
    assert found.unexplained == pytest.approx((1.0,) * 4, abs=1e-4)


def test_a_perfect_transcoder_is_the_model() -> None:
    model = tiny("llama")
    transcoder = tiny_plt(model, skip=False)
    source = transcoder.source
    assert isinstance(source, MemorySource)
    seen = observe(model, IDS, ("mlp_out", "resid_mid"))
    for layer in transcoder.layers:
        weights = torch.linalg.pinv(seen["resid_mid", layer].float()).T
        rows = 12
        stored = torch.zeros(rows, transcoder.d_model)
        stored[: len(IDS)] = weights
        source.encoders[layer] = Encoder(stored, torch.zeros(rows), torch.full((rows,), 0.5))
        source.decoders[layer] = torch.zeros(rows, 1, transcoder.d_model)
        source.decoders[layer][: len(IDS), 0] = seen["mlp_out", layer].float()
        source.biases[layer] = torch.zeros(transcoder.d_model)
    found = transcoder_quality(model, transcoder, [IDS])
    assert found.agreement == 1
    assert found.kl < 1e-5
    assert found.recovered == pytest.approx(1, abs=1e-3)
    assert found.l0 == pytest.approx((1.0,) * 4)
    assert found.dead() == pytest.approx(5 / 12)


def test_fit_over_one_text_is_the_fit_of_that_text_and_batches_change_nothing() -> None:
    model = tiny("gpt2")
    transcoder = tiny_clt(model)
    other = (9, 4, 33, 2)
    one = transcoder_quality(model, transcoder, [IDS])
    assert one.unexplained == pytest.approx(tuple(fit(model, transcoder, IDS).unexplained.tolist()), rel=1e-4)
    both = transcoder_quality(model, transcoder, [IDS, other, IDS])
    parts = [transcoder_quality(model, transcoder, [ids]) for ids in (IDS, other, IDS)]
    weighed = sum(part.kl * part.predicted for part in parts) / sum(part.predicted for part in parts)
    assert both.kl == pytest.approx(weighed, rel=1e-5)
    assert both.predicted == 15


def test_what_cannot_be_replaced_is_refused() -> None:
    model = tiny("llama")
    transcoder = tiny_plt(model)
    transcoder.writes = Hook("resid_post")
    with pytest.raises(TranscoderError, match="cannot replace"):
        transcoder_quality(model, transcoder, [IDS])
    with pytest.raises(InputError, match="no text"):
        transcoder_quality(model, tiny_plt(model), [[5]])
