"""The probe must catch what is wrong: each test breaks one thing and names what is switched off."""

import tempfile
from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mi_core.engine import Base, Edit, Variant, build_model, run, sweep
from mi_core.errors import Cancelled, ModelError, SiteMissing
from mi_core.model import families
from tests.tiny import CONFIGS, FAMILY_NAMES, hf_model, tiny, tokens


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_every_family_passes(name: str) -> None:
    report = tiny(name).report
    assert report.passed, [check for check in report.checks if not check.passed]
    assert report.replay
    assert len(report.checks) > 20


def wrong(monkeypatch: pytest.MonkeyPatch, name: str, **paths: object):
    monkeypatch.setitem(families.FAMILIES, name, replace(families.FAMILIES[name], **paths))
    return build_model(hf_model(name))


def test_the_norm_of_a_sandwich_taken_for_nothing_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model = wrong(monkeypatch, "gemma2", attention_write="self_attn")
    assert not model.report.passed
    assert {"attn_out", "mlp_out", "resid_mid"} <= set(model.structure.missing)
    with pytest.raises(SiteMissing, match="probe failed: largest relative difference"):
        run(model, tokens(), capture=["attn_out"])


def test_a_hook_that_never_fires_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model = hf_model("llama")
    for block in model.model.layers:
        block.mlp.never = torch.nn.Linear(32, 64).double()
    monkeypatch.setitem(families.FAMILIES, "llama", replace(families.FAMILIES["llama"], mlp_gate="mlp.never"))
    loaded = build_model(model)
    assert "mlp_pre" in loaded.structure.missing
    assert not loaded.report.passed


def test_a_module_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = wrong(monkeypatch, "llama", mlp_gate="mlp.nowhere")
    assert model.structure.missing["mlp_pre"] == "its module is not where the family keeps it"
    assert model.report.replay


def test_a_parallel_block_taken_for_a_serial_one_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model = wrong(monkeypatch, "phi", parallel=False)
    assert "resid_mid" in model.structure.missing
    assert "same stream" in model.structure.missing["resid_mid"]


def test_a_lost_causal_mask_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registered with one interface only, a model silently loses its mask; here the mask interface returns
    none."""
    from transformers.masking_utils import AttentionMaskInterface

    from mi_core.engine import attention

    register = attention.register

    def only_half() -> None:
        register()
        AttentionMaskInterface.register(attention.NAME, lambda *_, **__: None)

    monkeypatch.setattr(attention, "register", only_half)
    try:
        model = build_model(hf_model("llama"))
    finally:
        register()
    failed = {check.name for check in model.report.checks if not check.passed}
    assert "our attention gives the model's own logits" in failed
    assert "pattern" in model.structure.missing
    assert not model.report.replay


def test_attention_sinks_fall_back_to_whole_passes_visibly() -> None:
    config = AutoConfig.for_model(
        "gpt_oss",
        **CONFIGS["llama"],
        head_dim=8,
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=4,
    )
    model = build_model(AutoModelForCausalLM.from_config(config, attn_implementation="eager"))
    assert not model.report.replay
    assert "sinks" in model.structure.missing["pattern"]
    result = sweep(
        model,
        Base(tokens()),
        [Variant((Edit("resid_pre", 1, "zero", (3,)),))],
        read=lambda x: {"a": x[:, 0, 0, :3]},
    )
    assert result.method == "full"
    assert result.done.all()


@pytest.mark.parametrize("model_type", ["granite", "cohere", "olmo", "mixtral"])
def test_unknown_llama_like_families_work_through_the_structural_fallback(model_type: str) -> None:
    extra = {"num_local_experts": 4} if model_type == "mixtral" else {}
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **CONFIGS["llama"], **extra)
    dtype = (
        torch.float32 if model_type == "mixtral" else torch.float64
    )  # torch groups experts in float32 at most
    model = build_model(AutoModelForCausalLM.from_config(config, attn_implementation="eager").to(dtype))
    assert not model.structure.known
    assert model.report.replay
    assert ("resid_mid" in model.structure.missing) == (model_type == "cohere")
    variants = [Variant((Edit("resid_pre", layer, "zero", (3,)),)) for layer in range(4)]
    shared, full = (
        sweep(model, Base(tokens()), variants, read=lambda x: {"l": x[:, :, -1]}, method=m).values["l"]
        for m in ("shared", "full")
    )
    assert abs(shared - full).max() < (1e-5 if dtype == torch.float32 else 1e-10)


def test_a_scaled_residual_is_not_taken_for_what_is_added() -> None:
    config = AutoConfig.for_model("granite", **CONFIGS["llama"], residual_multiplier=0.3)
    model = build_model(AutoModelForCausalLM.from_config(config, attn_implementation="eager").double())
    assert "attn_out" in model.structure.missing
    assert "resid_post" not in model.structure.missing


@pytest.mark.parametrize("model_type", ["gptj", "bloom"])
def test_families_without_blocks_we_know_are_refused_in_one_sentence(model_type: str) -> None:
    config = AutoConfig.for_model(
        model_type, vocab_size=97, n_embd=32, hidden_size=32, n_layer=2, n_head=4, rotary_dim=4
    )
    with pytest.raises(ModelError, match=f"{model_type}.*not supported.*Supported types: llama") as caught:
        build_model(AutoModelForCausalLM.from_config(config))
    assert caught.value.kind == "unsupported"


def test_cancel_during_the_probe_leaves_no_hook() -> None:
    hf = hf_model("llama")

    def stop(_phase: str, fraction: float, _text: str) -> None:
        if fraction > 0.5:
            raise Cancelled

    with pytest.raises(Cancelled):
        build_model(hf, on_phase=stop)
    assert sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in hf.modules()) == 0


@pytest.mark.filterwarnings("ignore:.*offload.*")
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_weights_on_cpu_and_disk_give_the_same_numbers(name: str) -> None:
    """device_map placement (accelerate): two blocks stay on disk and are read when they are called."""
    accelerate = pytest.importorskip("accelerate", reason="accelerate is an optional extra")
    hf = hf_model(name)
    root = "model" if name == "llama" else "transformer"
    layers = "layers" if name == "llama" else "h"
    places = {
        child_name: "cpu" for child_name, _ in getattr(hf, root).named_children() if child_name != layers
    }
    device_map = {f"{root}.{child}": place for child, place in places.items()}
    device_map |= {f"{root}.{layers}.{i}": "disk" if i in (1, 3) else "cpu" for i in range(4)} | {
        "lm_head": "cpu"
    }
    whole = tiny(name)
    with tempfile.TemporaryDirectory() as folder:
        model = build_model(
            accelerate.dispatch_model(hf, device_map=device_map, main_device="cpu", offload_dir=folder)
        )
        assert model.report.passed, [check for check in model.report.checks if not check.passed]
        variants = [
            Variant((Edit(site, layer, "zero", (p,)),))
            for site in ("resid_pre", "mlp_out", "z")
            for layer in range(4)
            for p in (2, 6)
        ]
        before = model.modules_with_hooks()
        got = sweep(model, Base(tokens()), variants, read=lambda x: {"l": x[:, :, -1]})
        want = sweep(whole, Base(tokens()), variants, read=lambda x: {"l": x[:, :, -1]}, method="full")
        assert got.method == "shared"
        assert abs(got.values["l"] - want.values["l"]).max() < 1e-10
        result = run(model, tokens(), capture=["result"])
        torch.testing.assert_close(result["result", 1], run(whole, tokens(), capture=["result"])["result", 1])
        assert model.modules_with_hooks() == before


def test_the_text_part_of_a_multimodal_gemma3_passes() -> None:
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = AutoConfig.for_model(
        "gemma3",
        text_config=CONFIGS["gemma3_text"],
        vision_config={**vision, "image_size": 16, "patch_size": 8},
    )
    torch.manual_seed(0)
    model = build_model(AutoModelForCausalLM.from_config(config, attn_implementation="eager"))
    assert model.structure.family.blocks == "model.language_model.layers"
    assert model.report.passed
    assert model.report.replay


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_half_precision_does_not_drown_the_effect_of_an_edit(name: str) -> None:
    half = build_model(hf_model(name, torch.bfloat16))
    acting = [check for check in half.report.checks if check.name.startswith("editing")]
    assert [check.name for check in acting if not check.passed] == []
    assert len(acting) > 12
