"""One weight closely: singular values and histogram against numpy, and what a user gets wrong."""

import json

import numpy as np
import pytest
import torch

from mi_core.analyses import (
    InspectWeightInputs,
    InspectWeightResult,
    inspect_model,
    inspect_weight,
    inspect_weight_cost,
)
from mi_core.engine import build_model
from mi_core.errors import InputError, ModelError
from mi_core.model.weights import weight
from tests.tiny import hf_model, tiny


@pytest.mark.parametrize("family", ["phi3", "gpt_neox"])
def test_every_weight_of_the_table_can_be_opened_and_agrees_with_it(family: str) -> None:
    model = tiny(family)
    table = inspect_model(model)
    for row, info in enumerate(table.weights):
        if info.layer in (None, 1) and info.head in (None, 1):
            found = inspect_weight(model, InspectWeightInputs(info.full_name))
            assert found.info.shape == info.shape
            assert found.frobenius == pytest.approx(table.frobenius[row], rel=1e-12)
            assert all(check.passed for check in found.checks), info.full_name
            assert found.counts.sum() == info.numbers


def test_singular_values_and_histogram_are_numpys() -> None:
    model = tiny("phi3")
    head = weight(model.structure, "W_K", 2)[1].numpy()
    found = inspect_weight(model, InspectWeightInputs("blocks.2.attn.W_K[1]"))
    np.testing.assert_allclose(found.singular_values, np.linalg.svd(head, compute_uv=False), rtol=1e-9)
    np.testing.assert_array_equal(found.counts, np.histogram(head, bins=60)[0])
    expected = (found.singular_values**2).sum() / found.singular_values[0] ** 2
    assert found.stable_rank == pytest.approx(expected)


def test_a_planted_matrix_of_rank_one_has_stable_rank_one() -> None:
    hf = hf_model("llama")
    hf.model.layers[0].mlp.up_proj.weight.data = torch.outer(torch.arange(64.0) + 1, torch.ones(32)).double()
    found = inspect_weight(build_model(hf), InspectWeightInputs("blocks.0.mlp.W_in"))
    assert found.stable_rank == pytest.approx(1)
    assert found.singular_values[1] < 1e-9 * found.singular_values[0]


def test_vectors_and_spectra_that_were_not_asked_for_have_none() -> None:
    model = tiny("gpt2")
    gain = inspect_weight(model, InspectWeightInputs("blocks.0.ln_1.weight"))
    assert len(gain.singular_values) == 0
    assert np.isnan(gain.stable_rank)
    plain = inspect_weight(model, InspectWeightInputs("blocks.0.mlp.W_in", spectrum=False))
    assert len(plain.singular_values) == 0
    assert inspect_weight_cost(gain.info) == 0 < inspect_weight_cost(plain.info)


def test_a_constant_weight_has_a_histogram() -> None:
    hf = hf_model("llama")
    hf.model.norm.weight.data.fill_(1.0)
    found = inspect_weight(build_model(hf), InspectWeightInputs("model.norm.weight"))
    assert found.counts.sum() == 32
    assert found.std == 0


@pytest.mark.parametrize("name", ["blocks.9.attn.W_Q", "blocks.0.attn.W_Q[4]", "<b>", "blocks.0.mlp.W_in[0]"])
def test_a_weight_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="no weight called"):
        inspect_weight(tiny("llama"), InspectWeightInputs(name))


def test_an_offloaded_weight_says_so() -> None:
    hf = hf_model("llama")
    model = build_model(hf)
    hf.model.norm.to("meta")
    with pytest.raises(ModelError, match="not in memory"):
        inspect_weight(model, InspectWeightInputs("model.norm.weight"))


def test_inputs_refuse_what_they_cannot_be() -> None:
    with pytest.raises(InputError, match="no name"):
        InspectWeightInputs("")
    with pytest.raises(InputError, match="names no weight"):
        InspectWeightInputs.from_dict({})


def test_a_record_comes_back_exactly_and_a_damaged_one_is_refused() -> None:
    found = inspect_weight(tiny("llama"), InspectWeightInputs("embed.W_E"))
    text = found.to_json()
    assert InspectWeightResult.from_json(text).to_json() == text
    record = json.loads(text)
    for key, value in (("counts", [1]), ("singular_values", [1.0]), ("info", {"name": "W_E"})):
        with pytest.raises(InputError):
            InspectWeightResult.from_json(json.dumps({**record, key: value}))
    frame = found.to_frame()
    assert frame["metric"].tolist().count("entries") == 60
    assert np.isfinite(frame["value"].to_numpy(float)).all()
