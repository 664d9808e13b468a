"""The doors for those who only look: observe, unembed, readout, frozen norms, gradients."""

from importlib import import_module

import pytest
import torch

from mi_core.engine import (
    Edit,
    build_model,
    frozen_norm,
    gradients,
    observe,
    post_norm,
    readout,
    run,
    unembed,
)
from mi_core.errors import InputError, ModelError, SiteMissing
from tests.tiny import FAMILY_NAMES, hf_model, tiny, tokens
from tests.two_passes import agree

SANDWICH = ("gemma2", "gemma3_text", "olmo2")


def passes(model):
    """A list that grows by one with every forward pass of the model."""
    seen = []
    handle = model.structure.blocks[0].register_forward_hook(lambda *_: seen.append(1))
    return seen, handle


# --- observe ---


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_an_observation_is_a_run(name):
    model, ids = tiny(name), tokens(1, 7)
    sites = [site for site in model.structure.available() if site not in ("result",)]
    seen = observe(model, ids[0].tolist(), sites)
    whole = run(model, ids, capture=sites)
    for place, value in whole.items():
        assert agree(seen[place], value[0]), place
    assert agree(seen["logits", None], whole.logits[0])


def test_all_who_look_at_one_prompt_share_one_pass():
    model = build_model(hf_model("llama"))
    seen, handle = passes(model)
    for sites in (["resid_post"], ["pattern", "v"], ["mlp_post"], ["logits", "attn_out"], ["resid_pre"]):
        observe(model, [5, 6, 7], sites)
    assert len(seen) == 1
    observe(model, [5, 6, 7], ["rot_q"])  # not among the usual sites: one more pass, once
    observe(model, [5, 6, 7], ["rot_q", "logits"])
    assert len(seen) == 2
    observe(model, [5, 6, 8], ["embed"])
    assert len(seen) == 3
    handle.remove()


def test_a_prompt_too_long_for_the_memo_keeps_what_was_asked_for(monkeypatch):
    model = build_model(hf_model("gpt2"))
    monkeypatch.setattr(import_module("mi_core.engine.observe"), "MEMO_BYTES", 50_000)
    seen = observe(model, list(range(40)), ["resid_post"])
    assert {name for name, _ in seen.values} == {"resid_post"}
    assert sum(other.bytes for other in model.observations.values()) <= 50_000
    for start in range(5):
        observe(model, [start, 1, 2], ["embed"])
        assert sum(other.bytes for other in model.observations.values()) <= 50_000


def test_an_observation_cannot_be_changed_in_place():
    seen = observe(tiny("gpt2"), [1, 2, 3], ["pattern"])
    with pytest.raises(RuntimeError, match=r"[Ii]nplace update to inference tensor"):
        seen["pattern", 0].zero_()


def test_a_site_that_the_model_lacks_is_refused():
    with pytest.raises(SiteMissing, match="parallel"):
        observe(tiny("phi"), [1, 2], ["resid_mid"])
    with pytest.raises(InputError, match="nothing to run"):
        observe(tiny("gpt2"), [], ["embed"])


def test_reduce_keeps_only_what_it_returns():
    model, ids = tiny("llama"), tokens(2, 6)
    whole = run(model, ids, capture=["pattern", "mlp_post", "logits"])
    shapes = {}

    def keep(place, value):
        shapes[place] = tuple(value.shape)
        return float(value.sum())

    less = run(model, ids, capture=["pattern", "mlp_post", "logits"], reduce=keep)
    for place, value in whole.items():
        assert shapes[place] == tuple(value.shape)
        assert less[place] == pytest.approx(float(value.sum()))


# --- unembed ---


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_the_last_residual_unembedded_is_the_models_output(name):
    model, ids = tiny(name), tokens(1, 6)
    seen = observe(model, ids[0].tolist(), ["resid_post", "logits"])
    logits = unembed(model, seen["resid_post", model.dims.n_layers - 1])
    own = model.hf(input_ids=ids).logits[0]
    assert torch.allclose(logits, own, atol=1e-9)


def test_a_gradient_flows_through_the_lens_when_it_is_asked_for():
    model = tiny("gemma2")
    hidden = torch.randn(2, model.dims.d_model, dtype=torch.float64, requires_grad=True)
    unembed(model, hidden)[:, 3].sum().backward()
    step, width = 1e-2, model.dims.d_model  # gemma's norm computes in float32
    nudge = torch.zeros(width, dtype=torch.float64)
    nudge[5] = step
    with torch.no_grad():
        slope = (unembed(model, hidden + nudge)[0, 3] - unembed(model, hidden - nudge)[0, 3]) / (2 * step)
    assert hidden.grad is not None
    assert float(hidden.grad[0, 5]) == pytest.approx(float(slope), rel=1e-3)
    assert not unembed(model, hidden.detach()).requires_grad


# --- frozen norms and readout ---


@pytest.mark.parametrize("name", FAMILY_NAMES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_parts_and_bias_are_the_logits(name, dtype):
    model, ids = tiny(name, dtype), tokens(1, 6, seed=3)
    last = model.dims.n_layers - 1
    seen = observe(model, ids[0].tolist(), ["embed", "attn_out", "mlp_out", "resid_post", "logits"])
    chosen = [0, 4, 96]
    map_ = readout(model, seen["resid_post", last], chosen)
    total = map_.parts(seen["embed", None]) + map_.bias
    for layer in range(last + 1):
        total = total + map_.parts(seen["attn_out", layer]) + map_.parts(seen["mlp_out", layer])
    limit = 1e-5 if dtype == torch.float64 else 1e-4  # RMS norms compute in float32
    assert torch.allclose(total, map_.logits, atol=limit, rtol=limit)
    assert torch.allclose(
        map_.capped(total), seen["logits", None][:, chosen].double(), atol=limit, rtol=limit
    )
    assert map_.error <= limit


def test_a_layer_norm_by_hand():
    norm = torch.nn.LayerNorm(5, eps=1e-5, dtype=torch.float64)
    norm.weight.data = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0], dtype=torch.float64)
    norm.bias.data = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5], dtype=torch.float64)
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0, 10.0]], dtype=torch.float64)
    frozen = frozen_norm(norm, x)
    assert frozen.centred
    assert torch.allclose(frozen.gain, norm.weight, atol=1e-9)
    assert torch.allclose(frozen.bias, norm.bias, atol=1e-12)
    assert float(frozen.scale[0]) == pytest.approx((10 + 1e-5) ** 0.5, abs=1e-9)  # variance of x is 10
    assert torch.allclose(frozen.linear(x) + frozen.bias, norm(x), atol=1e-12)
    behind = torch.tensor([[0.3, -1.0, 2.0, 0.0, 5.0]], dtype=torch.float64)
    assert torch.allclose((frozen.before(behind) * x).sum(), (behind * frozen.linear(x)).sum(), atol=1e-12)


def test_a_norm_of_odd_width_is_measured_too():
    norm = torch.nn.RMSNorm(3, eps=1e-6, dtype=torch.float64)
    norm.weight.data = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    frozen = frozen_norm(norm, torch.tensor([[1.0, 2.0, 2.0]], dtype=torch.float64))
    assert not frozen.centred
    assert torch.allclose(frozen.gain, norm.weight, atol=1e-6)
    assert float(frozen.scale[0]) == pytest.approx(3**0.5, abs=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_gains_of_a_bfloat16_model_are_its_weights(name):
    model = build_model(hf_model(name, torch.bfloat16))
    norm = model.structure.points["final_norm", None].module
    frozen = frozen_norm(norm, torch.randn(3, 32).bfloat16())
    weights = norm.get_parameter("weight").double() + (1.0 if name == "gemma2" else 0.0)
    assert torch.allclose(frozen.gain, weights, rtol=1e-5, atol=1e-6)
    assert norm.get_parameter("weight").dtype == torch.bfloat16  # the model's own was not touched


@pytest.mark.parametrize("module", [torch.nn.Linear(4, 4), torch.nn.Softmax(-1)])
def test_what_is_no_norm_is_refused(module):
    with pytest.raises(ModelError, match="is not a norm that can be frozen"):
        frozen_norm(module, torch.randn(5, 4))


@pytest.mark.parametrize("name", SANDWICH)
def test_the_post_norm_of_a_sandwich_is_found_and_linear(name):
    model, ids = tiny(name), tokens(1, 5)
    for kind, site in (("attn", "attn_out"), ("mlp", "mlp_out")):
        norm = post_norm(model, kind, 1)
        assert norm is not None
        entered: list[torch.Tensor] = []

        def keep(_module, args, entered=entered):
            entered.append(args[0][0])

        handle = norm.register_forward_pre_hook(keep)
        added = run(model, ids, capture=[(site, 1)])[site, 1][0]
        handle.remove()
        frozen = frozen_norm(norm, entered[0])
        first, second = 0.3 * entered[0], 0.7 * entered[0]
        assert torch.allclose(frozen.linear(first) + frozen.linear(second) + frozen.bias, added, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in FAMILY_NAMES if name not in SANDWICH])
def test_other_families_have_no_post_norm(name):
    assert post_norm(tiny(name), "attn", 0) is None
    assert post_norm(tiny(name), "mlp", 0) is None


def test_a_token_outside_the_vocabulary_is_refused():
    model = tiny("gpt2")
    with pytest.raises(InputError, match="0 to 96"):
        readout(model, torch.randn(1, 32, dtype=torch.float64), [97])


# --- gradients ---


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "phi", "opt"])
def test_a_gradient_is_the_slope_of_the_engines_own_edit(name):
    model, ids = tiny(name), tokens(2, 6)
    places = [("embed", None), ("resid_pre", 1), ("attn_out", 2), ("mlp_out", 0), ("z", 1), ("resid_post", 3)]
    noise = Edit(
        "embed", operation="add", positions=(2,), value=torch.linspace(-1, 1, 32, dtype=torch.float64)
    )
    found = gradients(model, ids, lambda logits: logits[:, -1, 7].sum(), places, edits=(noise,))
    plain = run(model, ids, capture=places, edits=[noise])
    assert torch.allclose(found.logits, plain.logits, atol=1e-12)
    step = 1e-4 if name in ("gpt2", "phi", "opt") else 3e-3  # RMS norms compute in float32
    for site, layer in places:
        place, position = (site, layer), 5 if site == "resid_post" else 3
        assert torch.allclose(found.values[place], plain[place], atol=1e-12)
        direction = torch.zeros_like(plain[place])
        direction[0, position] = torch.randn_like(direction[0, position])
        scores = []
        for sign in (1, -1):
            nudge = Edit(site, layer, "add", value=sign * step * direction)
            scores.append(float(run(model, ids, edits=[noise, nudge]).logits[0, -1, 7]))
        slope = (scores[0] - scores[1]) / (2 * step)
        assert float((found.gradients[place] * direction).sum()) == pytest.approx(slope, rel=1e-2, abs=1e-3)


def test_gradients_leave_no_hook_and_no_graph_behind():
    model, ids = tiny("gpt2"), tokens(1, 4)
    before = model.modules_with_hooks()
    found = gradients(model, ids, lambda logits: logits[0, -1, 0], [("resid_post", 0)])
    assert model.modules_with_hooks() == before
    assert not found.logits.requires_grad
    assert not found.values["resid_post", 0].requires_grad
    assert all(parameter.grad is None for parameter in model.hf.parameters())
