"""Heads as factored circuits: against full matrices from the raw parameters, and against the model itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mi_core.analyses.circuit_algebra import frobenius, low_rank_svd
from mi_core.analyses.circuit_cost import matmul_speed, seconds_for
from mi_core.analyses.circuit_gains import final_gain
from mi_core.analyses.circuit_weights import layer_circuits, probe_run, weights_check, worst
from mi_core.engine import build_model
from mi_core.errors import ModelError, SiteMissing
from tests.circuit_oracle import full_circuits
from tests.tiny import FAMILY_NAMES, hf_model, tiny

ORACLE = ("gpt2", "llama", "gemma2", "phi")
# RMS norms of transformers compute in float32 even in float64 models.
CLOSE = 1e-5


@pytest.mark.parametrize("name", ORACLE)
def test_products_of_the_factors_are_the_full_matrices(name: str) -> None:
    model = tiny(name)
    full = full_circuits(model.hf)
    for layer in (0, 3):
        heads = layer_circuits(model, layer)
        ov, qk = heads.value @ heads.output, heads.query @ heads.key.transpose(1, 2)
        np.testing.assert_allclose(ov, full.ov[layer], atol=CLOSE * np.abs(full.ov).max())
        np.testing.assert_allclose(qk, full.qk[layer], atol=CLOSE * np.abs(full.qk).max())


@pytest.mark.parametrize("name", ORACLE)
def test_the_final_gain_is_the_final_norm_at_scale_1(name: str) -> None:
    model = tiny(name)
    gain = final_gain(model)
    np.testing.assert_allclose(gain.after(torch.eye(32).double()), full_circuits(model.hf).final, atol=CLOSE)
    np.testing.assert_allclose(gain.before(torch.eye(32).double()), full_circuits(model.hf).final, atol=CLOSE)


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_every_family_is_compared_with_its_own_activations(name: str) -> None:
    heads = layer_circuits(tiny(name), 1)
    assert set(heads.errors) == {"values", "queries", "keys", "attention outputs"}
    assert max(heads.errors.values()) < 1e-6
    assert heads.key.shape == heads.query.shape == heads.value.shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_number_formats_are_read_in_float64(dtype: torch.dtype) -> None:
    heads = layer_circuits(tiny("llama", dtype), 0)
    assert heads.output.dtype == torch.float64
    assert heads.errors["values"] < (1e-5 if dtype == torch.float32 else 0.05)


def test_a_norm_that_the_family_data_does_not_name_is_noticed() -> None:
    model = build_model(hf_model("qwen3"))
    model.structure.family = replace(model.structure.family, query_norm=None, key_norm=None)
    with pytest.raises(ModelError, match=r"queries by .* differ from the model's own") as raised:
        layer_circuits(model, 0)
    assert raised.value.kind == "unsupported"


def test_a_post_norm_that_the_family_data_does_not_name_is_noticed() -> None:
    model = build_model(hf_model("gemma2"))
    model.structure.family = replace(model.structure.family, attention_write="self_attn")
    with pytest.raises(ModelError, match="attention outputs by"):
        layer_circuits(model, 0)


def test_a_model_without_values_is_refused() -> None:
    model = build_model(hf_model("llama"))
    model.structure.missing["v"] = "switched off by the probe"
    with pytest.raises(SiteMissing, match="switched off"):
        probe_run(model)


def test_the_check_tells_the_largest_difference_of_each_kind() -> None:
    found = worst(iter([{"values": 1e-7, "keys": 3e-7}, {"values": 2e-7}]))
    assert found == {"values": 2e-7, "keys": 3e-7}
    assert "values 2.0e-07" in weights_check(found).detail


def test_svd_through_the_factors_is_the_svd_of_the_product() -> None:
    draw = torch.Generator().manual_seed(1)
    left, right = (torch.randn(size, dtype=torch.float64, generator=draw) for size in ((20, 5), (5, 30)))
    u, s, v = low_rank_svd(left, right)
    np.testing.assert_allclose(u @ torch.diag(s) @ v.T, left @ right, atol=1e-12)
    np.testing.assert_allclose(s, np.linalg.svd((left @ right).numpy(), compute_uv=False)[:5], rtol=1e-12)
    np.testing.assert_allclose(u.T @ u, np.eye(5), atol=1e-12)
    np.testing.assert_allclose(frobenius(left, right), np.linalg.norm(left @ right), rtol=1e-12)


def test_svd_of_heads_wider_than_the_stream() -> None:
    left, right = torch.randn(4, 7).double(), torch.randn(7, 4).double()
    u, s, v = low_rank_svd(left, right)
    assert s.shape == (4,)
    np.testing.assert_allclose(u @ torch.diag(s) @ v.T, left @ right, atol=1e-12)


def test_time_is_operations_over_measured_speed() -> None:
    device = torch.device("cpu")
    assert seconds_for(2e9, device, torch.float32) == pytest.approx(2e9 / matmul_speed("cpu", torch.float32))
