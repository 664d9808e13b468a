"""What a user does wrong with steering, the sentences that tell them, and hostile vector files."""

import io
import json
import pickle
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save as safetensors_bytes

from mi_core.analyses import (
    SteeringConvergenceResult,
    SteeringDoseResult,
    SteeringInputs,
    SteeringLayersResult,
    SteeringRoutingResult,
    SteeringVector,
    steering_convergence,
    steering_dose,
    steering_layers,
    steering_routing,
)
from mi_core.analyses.steering_make import steering_vector
from mi_core.analyses.steering_vector import MAX_FILE_BYTES, load_vector, npy_bytes, read_vector
from mi_core.errors import Cancelled, InputError
from mi_core.exports.steering import (
    convergence_figure,
    dose_figure,
    layers_figure,
    ratio_figure,
    routing_figure,
)
from tests.attribution_cases import model_of

PROMPT = "The capital of France is"
PAIR = SteeringInputs(
    PROMPT, source="prompts", positive="The Space Needle is in", controls=2, answer=" Paris"
)


def npy(array, *, pickled=False):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=pickled)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"source": "dream"}, "source is 'dream'"),
        ({"source": "prompts"}, "positive prompt is empty"),
        ({"source": "sets", "positive": "a"}, "negative prompt is empty"),
        ({"positive": "a"}, "do not belong to the source"),
        ({"source": "prompts", "positive": "a", "token": "b"}, "token does not belong"),
        ({"source": "file"}, "belong together"),
        ({"source": "file", "vector": (1.0, float("nan"))}, "NaN"),
        ({"site": "logits"}, "site is 'logits'"),
        ({"layer": -1}, "layer is -1"),
        ({"where": "chosen"}, "do not fit together"),
        ({"where": "last", "chosen": (1,)}, "do not fit together"),
        ({"where": "chosen", "chosen": (1, 1)}, "twice"),
        ({"coefficients": ()}, "0 coefficients"),
        ({"coefficients": (1.0, 0.0)}, "do not ascend"),
        ({"coefficients": (0.0, float("nan"))}, "cannot be used"),
        ({"coefficient": float("inf")}, "cannot be used"),
        ({"controls": 1000}, "random controls is 1000"),
        ({"threshold": 0.0}, "no cosine"),
        ({"wished": float("nan")}, "not a number"),
        ({"metric": "loss"}, "metric is 'loss'"),
    ],
)
def test_inputs_refuse_with_a_sentence(fields, said):
    with pytest.raises(InputError, match=said):
        SteeringInputs(**{"prompt": PROMPT, **fields})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"layer": 9}, "There is no layer 9"),
        ({"where": "chosen", "chosen": (50,)}, "no token 50"),
        ({"positive": PROMPT}, "vector is zero"),
        ({"source": "unembedding", "positive": "", "token": "Paris Rome"}, "2 tokens"),
        ({"source": "file", "positive": "", "vector": (1.0, 2.0), "vector_name": "v.npy"}, "2 numbers"),
        ({"source": "sets", "positive": "\n \n", "negative": "a"}, "0 prompts"),
    ],
)
def test_what_does_not_fit_the_model_is_named(fields, said):
    with pytest.raises(InputError, match=said):
        steering_dose(model_of(), replace(PAIR, **fields))


def test_routing_with_every_token_steered_is_refused():
    with pytest.raises(InputError, match="every token is steered"):
        steering_routing(model_of(), replace(PAIR, where="all"))


def test_inputs_come_back_from_json_and_are_hashable():
    given = replace(PAIR, coefficients=[0.0, 1.0], where="chosen", chosen=[1, 2])
    assert SteeringInputs.from_dict(json.loads(json.dumps(given.to_dict()))) == given
    assert hash(given) == hash(replace(given))
    with pytest.raises(InputError, match="unknown fields"):
        SteeringInputs.from_dict({**given.to_dict(), "evil": 1})


def test_files_come_back_and_hold_what_was_saved(tmp_path):
    vector = steering_vector(model_of(), PAIR)
    vector.save(tmp_path / "v.npy", layer=2)
    spec = json.loads((tmp_path / "v.json").read_text(encoding="utf-8"))
    assert (spec["source"], spec["layer"], spec["d_model"]) == ("prompts", 2, 32)
    assert spec["norm"] == pytest.approx(vector.norm(2))
    numbers = load_vector(tmp_path / "v.npy", 32)
    np.testing.assert_array_equal(np.array(numbers, np.float32), vector.at(2))
    tensor = torch.from_numpy(vector.at(2).copy())
    (tmp_path / "v.safetensors").write_bytes(safetensors_bytes({"direction": tensor}))
    assert load_vector(tmp_path / "v.safetensors", 32) == numbers
    half = read_vector(safetensors_bytes({"direction": tensor.half()}), "v.safetensors", 32)
    np.testing.assert_allclose(half, numbers, rtol=1e-3, atol=1e-4)
    inputs = SteeringInputs(
        PROMPT, source="file", vector=numbers, vector_name="v.npy", answer=" Paris", layer=2
    )
    same = steering_dose(model_of(), replace(inputs, controls=0))
    wanted = steering_dose(model_of(), replace(PAIR, layer=2, controls=0))
    np.testing.assert_allclose(same.values, wanted.values, atol=1e-9)


def header(entries):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    ("data", "name", "said"),
    [
        (npy(np.array([{"a": 1}], object), pickled=True), "v.npy", "Python objects"),
        (pickle.dumps([1.0] * 32), "v.npy", "not an .npy file"),
        (b"", "v.npy", "not an .npy file"),
        (npy(np.zeros(32))[:100], "v.npy", "not an .npy file"),
        (npy(np.ones(31)), "v.npy", "31 numbers"),
        (npy(np.ones((4, 32))), "v.npy", "does not hold one vector"),
        (npy(np.array(1.0)), "v.npy", "does not hold one vector"),
        (npy(np.full(32, np.nan)), "v.npy", "NaN"),
        (npy(np.full(32, 1e300)), "v.npy", "NaN or an infinity"),
        (npy(np.ones(32, complex)), "v.npy", "not made of numbers"),
        (npy(np.array(["a"] * 32)), "v.npy", "not made of numbers"),
        (b"0" * (MAX_FILE_BYTES + 1), "v.npy", "too large"),
        (npy(np.ones(32)), "v.pt", "no vector file"),
        (b"xx", "v.safetensors", "not a safetensors file"),
        (struct.pack("<Q", 2**60) + b"{}", "v.safetensors", "not a safetensors file"),
        (header({}), "v.safetensors", "0 tensors"),
        (header([1]), "v.safetensors", "not a safetensors file"),
        (
            header({"a": {"dtype": "F32", "shape": [32], "data_offsets": [0, 128]}}),
            "v.safetensors",
            "safetensors",
        ),
        (
            header({"a": {"dtype": "BOOL", "shape": [1], "data_offsets": [0, 1]}}) + b"1",
            "v.safetensors",
            "BOOL",
        ),
        (safetensors_bytes({"a": torch.ones(32), "b": torch.ones(32)}), "v.safetensors", "2 tensors"),
        (safetensors_bytes({"a": torch.full((32,), torch.inf)}), "v.safetensors", "NaN or an infinity"),
    ],
)
def test_hostile_files_are_one_sentence(data, name, said):
    with pytest.raises(InputError, match=said):
        read_vector(data, name, 32)


def test_a_header_that_promises_too_much_is_not_believed():
    start = npy(np.ones(32))
    huge = start.replace(b"(32,), }      ", b"(99999999999,)}", 1) if b"(32,), }      " in start else None
    assert huge is not None
    with pytest.raises(InputError, match=r"not opened|not an .npy file"):
        read_vector(huge, "v.npy", 32)


def test_a_missing_file_is_a_sentence(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_vector(tmp_path / "none.npy")


def test_a_vector_with_nan_is_refused():
    with pytest.raises(InputError, match="NaN"):
        SteeringVector(np.full((1, 4), np.nan, np.float32), "file", "made up")
    assert npy_bytes(np.ones(4, np.float32)).startswith(b"\x93NUMPY")


def test_cancelling_keeps_what_is_done():
    def stop(step):
        raise Cancelled

    with pytest.raises(Cancelled):
        steering_dose(model_of(), PAIR, on_step=stop)
    partial = steering_convergence(model_of(), PAIR, on_step=stop)
    assert partial.cancelled
    assert np.isnan(partial.cosine).all()
    assert SteeringConvergenceResult.from_json(partial.to_json()).cancelled
    assert convergence_figure(partial, "cosine").spec


def test_every_family_of_records_comes_back_and_is_drawn():
    model = model_of("llama")
    inputs = replace(PAIR, distractor=" Rome", where="chosen", chosen=(1, 2))
    dose, layers = steering_dose(model, inputs), steering_layers(model, inputs)
    matrix, routing = steering_convergence(model, inputs), steering_routing(model, inputs)
    kinds = SteeringDoseResult, SteeringLayersResult, SteeringConvergenceResult, SteeringRoutingResult
    for result, kind in zip((dose, layers, matrix, routing), kinds, strict=True):
        again = kind.from_json(result.to_json())
        assert again.to_json() == result.to_json()
        assert again.to_frame().equals(result.to_frame())
        with pytest.raises(InputError):
            kind.from_json(result.to_json().replace('"positions"', '"places"'))
    assert dose.values.shape == (7, 9)
    assert dose.controls.shape == (7, 2, 9)
    assert set(dose.to_frame()["what"]) == {"baseline", "steered", "random"}
    figures = [
        dose_figure(dose, "probability"), dose_figure(dose, "rank"), ratio_figure(dose),
        layers_figure(layers, "kl"),
        convergence_figure(matrix, "cosine"), convergence_figure(matrix, "distance"), routing_figure(routing),
    ]  # fmt: skip
    for figure in figures:
        assert len(figure.frame())
        assert figure.caption
        assert figure.description
        assert figure.recipe
    bars = {point["y"] for point in figures[0].spec["datasets"]["points"] if point["series"] == "steered"}
    np.testing.assert_allclose(sorted(bars), sorted(set(dose.values[0].tolist())))


def test_no_control_and_no_wish_are_allowed():
    result = steering_dose(model_of(), replace(PAIR, controls=0, wished=None, coefficients=(0.0,)))
    assert result.wished_dose is None
    assert np.isnan(result.band("probability")[0]).all()
    assert dose_figure(result, "probability").spec
    assert ratio_figure(result).spec


def test_half_precision_gives_numbers():
    model = model_of("gpt2", torch.bfloat16)
    result = steering_dose(model, PAIR)
    assert np.isfinite(result.values).all()
    assert all(check.passed for check in result.checks)
    matrix = steering_convergence(model, PAIR)
    assert np.isfinite(matrix.cosine).all()


def test_a_vector_that_is_zero_where_it_is_added_is_refused():
    with pytest.raises(InputError, match="is zero"):
        steering_dose(model_of(), SteeringInputs(PROMPT, source="file", vector=(0.0,) * 32))
