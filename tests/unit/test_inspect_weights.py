"""Weights of an inspection: every parameter once, and numbers equal to those in the files on disk."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from mi_core import load_model
from mi_core.analyses import InspectInputs, InspectResult, inspect_model
from mi_core.analyses.inspect_numbers import moments_of, singular_values
from mi_core.analyses.inspect_weights import named_weights
from mi_core.engine import build_model
from mi_core.model.discovery import ASSETS
from mi_core.model.model import LoadedModel
from mi_core.model.spec import ModelSpec
from tests.disk import byte_level
from tests.tiny import FAMILY_NAMES, hf_model, tiny

HEADS, KV_HEADS, D_HEAD, D_MODEL, D_MLP, LAYERS = 4, 2, 8, 32, 64, 3


def statistics(result: InspectResult, name: str) -> tuple[float, ...]:
    """Frobenius norm, mean, standard deviation, minimum, maximum of one row."""
    row = result.index_of(name)
    assert row is not None, name
    arrays = (result.frobenius, result.mean, result.std, result.minimum, result.maximum)
    return tuple(float(array[row]) for array in arrays)


def by_hand(values: np.ndarray) -> tuple[float, ...]:
    exact = values.astype(np.float64)
    numbers = (np.linalg.norm(exact), exact.mean(), exact.std(), exact.min(), exact.max())
    return tuple(float(number) for number in numbers)


def saved(folder: Path, family: str, **config: object) -> tuple[LoadedModel, dict[str, np.ndarray]]:
    """A random model written to disk and loaded again, and the arrays of its file."""
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **config))
    for parameter in made.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    made.save_pretrained(folder)
    byte_level().save_pretrained(folder)
    return load_model(ModelSpec(str(folder))), load_file(folder / "model.safetensors")


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_every_parameter_is_counted_exactly_once(family: str) -> None:
    model = tiny(family)
    result = inspect_model(model)
    assert result.parameters == model.hf.num_parameters()
    assert sum(result.parameters_by_role().values()) == model.hf.num_parameters()
    assert result.parameters_by_role()["other"] == 0
    assert all(check.passed for check in result.checks)
    stored = {info.stored_in for info in result.weights}
    assert stored == {name for name, _ in model.hf.named_parameters()}


def test_numbers_are_those_of_atlas_on_disk() -> None:
    result = inspect_model(load_model("atlas"))
    file = load_file(ASSETS / "atlas" / "model.safetensors")
    for layer in range(8):
        prefix, block = f"model.layers.{layer}.", f"blocks.{layer}."
        for ours, theirs in (
            ("attn.W_Q", "self_attn.q_proj"),
            ("attn.W_O", "self_attn.o_proj"),
            ("mlp.W_gate", "mlp.gate_proj"),
            ("mlp.W_in", "mlp.up_proj"),
            ("mlp.W_out", "mlp.down_proj"),
            ("input_layernorm.weight", "input_layernorm"),
        ):
            expected = by_hand(file[f"{prefix}{theirs}.weight"])
            np.testing.assert_allclose(statistics(result, block + ours), expected, rtol=1e-9, atol=1e-12)
        heads = file[f"{prefix}self_attn.k_proj.weight"].reshape(4, 32, 128)  # [head d_head d_model]
        for head in range(4):
            found = statistics(result, f"{block}attn.W_K[{head}]")
            np.testing.assert_allclose(found, by_hand(heads[head]), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        statistics(result, "embed.W_E"), by_hand(file["model.embed_tokens.weight"]), rtol=1e-9
    )
    assert statistics(result, "unembed.W_U") == pytest.approx(statistics(result, "embed.W_E"))
    norms = np.linalg.norm(file["model.embed_tokens.weight"].astype(np.float64), axis=1)
    np.testing.assert_array_equal(result.embedding_norms, np.histogram(norms, result.norm_edges)[0])
    np.testing.assert_allclose(result.embeddings[0].smallest_norms, np.sort(norms)[:8], rtol=1e-9)
    assert result.embeddings[0].largest_ids[0] == norms.argmax()


def test_fused_and_transposed_matrices_of_gpt2_are_split(tmp_path: Path) -> None:
    model, file = saved(
        tmp_path, "gpt2", vocab_size=320, n_embd=D_MODEL, n_layer=LAYERS, n_head=HEADS, n_positions=64,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    result = inspect_model(model)
    names = {name.removeprefix("transformer."): array for name, array in file.items()}
    for layer in range(LAYERS):
        fused, bias = names[f"h.{layer}.attn.c_attn.weight"], names[f"h.{layer}.attn.c_attn.bias"]
        for number, role in enumerate("QKV"):
            part = slice(number * D_MODEL, (number + 1) * D_MODEL)
            check = statistics(result, f"blocks.{layer}.attn.W_{role}")
            np.testing.assert_allclose(check, by_hand(fused[:, part]), rtol=1e-9, atol=1e-12)
            heads = fused[:, part].reshape(D_MODEL, HEADS, D_HEAD)
            for head in range(HEADS):
                check = statistics(result, f"blocks.{layer}.attn.W_{role}[{head}]")
                np.testing.assert_allclose(check, by_hand(heads[:, head]), rtol=1e-9, atol=1e-12)
                check = statistics(result, f"blocks.{layer}.attn.b_{role}[{head}]")
                expected = by_hand(bias[part].reshape(HEADS, D_HEAD)[head])
                np.testing.assert_allclose(check, expected, rtol=1e-9, atol=1e-12)
        output = names[f"h.{layer}.attn.c_proj.weight"].reshape(HEADS, D_HEAD, D_MODEL)
        check = statistics(result, f"blocks.{layer}.attn.W_O[3]")
        np.testing.assert_allclose(check, by_hand(output[3]), rtol=1e-9, atol=1e-12)
    found = statistics(result, "pos_embed.W_pos")
    np.testing.assert_allclose(found, by_hand(names["wpe.weight"]), rtol=1e-9, atol=1e-12)
    assert result.architecture.tied
    assert result.weights[result.index_of("unembed.W_U") or 0].tied_to == "embed.W_E"


def test_fused_gate_and_grouped_heads_of_phi3_are_split(tmp_path: Path) -> None:
    model, file = saved(
        tmp_path, "phi3", vocab_size=320, hidden_size=D_MODEL, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, intermediate_size=D_MLP,
        max_position_embeddings=64, original_max_position_embeddings=64, pad_token_id=0, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    result = inspect_model(model)
    for layer in range(LAYERS):
        qkv = file[f"model.layers.{layer}.self_attn.qkv_proj.weight"]  # [out in]
        keys = qkv[HEADS * D_HEAD : (HEADS + KV_HEADS) * D_HEAD].reshape(KV_HEADS, D_HEAD, D_MODEL)
        for head in range(KV_HEADS):
            check = statistics(result, f"blocks.{layer}.attn.W_K[{head}]")
            np.testing.assert_allclose(check, by_hand(keys[head]), rtol=1e-9, atol=1e-12)
        gate_up = file[f"model.layers.{layer}.mlp.gate_up_proj.weight"]
        for name, rows in (("W_gate", gate_up[:D_MLP]), ("W_in", gate_up[D_MLP:])):
            check = statistics(result, f"blocks.{layer}.mlp.{name}")
            np.testing.assert_allclose(check, by_hand(rows), rtol=1e-9, atol=1e-12)
    assert result.index_of("blocks.0.attn.W_K[2]") is None


@pytest.mark.parametrize("family", ["gpt2", "phi3", "gpt_neox"])
def test_largest_singular_values_are_numpys(family: str) -> None:
    model = tiny(family)
    result = inspect_model(model, InspectInputs(singular_values=True))
    tensors = {weight.info.full_name: weight for weight in named_weights(model)}
    for name in ("blocks.1.attn.W_Q", "blocks.2.attn.W_O", "blocks.0.mlp.W_in", "embed.W_E"):
        row = result.index_of(name)
        assert row is not None
        expected = np.linalg.svd(tensors[name].matrix().numpy(), compute_uv=False)[0]
        assert result.largest_singular_value[row] == pytest.approx(expected, rel=1e-9)
    row = result.index_of("blocks.1.attn.W_V[1]")
    head = tensors["blocks.1.attn.W_V"].tensor[1].numpy()
    assert result.largest_singular_value[row or 0] == pytest.approx(np.linalg.norm(head, 2), rel=1e-9)
    vectors = [i for i, info in enumerate(result.weights) if len(info.shape) == 1]
    assert np.isnan(result.largest_singular_value[vectors]).all()
    assert all(check.passed for check in result.checks)
    assert np.isnan(inspect_model(model).largest_singular_value).all(), "only on request"


@pytest.mark.parametrize("shape", [(3000, 7), (7, 3000), (5, 5), (1, 9)])
def test_singular_values_in_chunks_are_numpys(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mi_core.analyses.inspect_numbers.CHUNK", 700)
    matrix = torch.randn(shape, dtype=torch.float64)
    matrix[0] *= 1e-6  # a Gram matrix would lose the small ones
    expected = np.linalg.svd(matrix.numpy(), compute_uv=False)
    np.testing.assert_allclose(singular_values(matrix).numpy(), expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_moments_in_chunks_are_exact_far_from_zero(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mi_core.analyses.inspect_numbers.CHUNK", 64)
    gains = (1000 + torch.randn(37, 11)).to(dtype)
    exact, found = gains.double().numpy(), moments_of(gains)
    assert found.mean == pytest.approx(exact.mean(), rel=1e-14)
    assert found.std == pytest.approx(exact.std(), rel=1e-9)
    assert found.frobenius == pytest.approx(np.linalg.norm(exact), rel=1e-13)
    assert (found.minimum, found.maximum) == (exact.min(), exact.max())


def test_moments_of_three_numbers_by_hand() -> None:
    found = moments_of(torch.tensor([1.0, 2.0, 6.0]))
    assert (found.count, found.mean, found.minimum, found.maximum) == (3, 3.0, 1.0, 6.0)
    assert found.std == pytest.approx((14 / 3) ** 0.5)
    assert found.frobenius == pytest.approx(41**0.5)


def test_a_parameter_that_no_name_covers_is_listed_by_its_own() -> None:
    hf = hf_model("llama")
    hf.model.layers[1].mlp.register_parameter(
        "surplus", torch.nn.Parameter(torch.full((3,), 2.0, dtype=torch.float64))
    )
    result = inspect_model(build_model(hf))
    row = result.index_of("model.layers.1.mlp.surplus")
    assert row is not None
    assert result.weights[row].role == "other"
    assert result.frobenius[row] == pytest.approx(12**0.5)
    assert sum(result.parameters_by_role().values()) == hf.num_parameters()
    assert any("surplus" in warning for warning in result.warnings)


def test_offloaded_weights_are_flagged_and_not_guessed() -> None:
    model = build_model(hf_model("llama"))
    model.hf.model.layers[1].mlp.up_proj.to("meta")
    result = inspect_model(model)
    row = next(i for i, info in enumerate(result.weights) if info.stored_in.endswith("1.mlp.up_proj.weight"))
    assert np.isnan(result.frobenius[row])
    assert sum(result.parameters_by_role().values()) == result.parameters
    assert any("offloaded" in warning for warning in result.warnings)
    assert all(check.passed for check in result.checks)
    assert InspectResult.from_json(result.to_json()).to_json() == result.to_json()


def test_half_precision_weights_are_read_in_float64() -> None:
    model = tiny("llama", torch.bfloat16)
    result = inspect_model(model, InspectInputs(singular_values=True))
    exact = model.hf.model.layers[0].mlp.up_proj.weight.double().numpy()
    np.testing.assert_allclose(statistics(result, "blocks.0.mlp.W_in"), by_hand(exact), rtol=1e-12)
    assert result.weights[result.index_of("blocks.0.mlp.W_in") or 0].dtype == "bfloat16"
    assert all(check.passed for check in result.checks)
