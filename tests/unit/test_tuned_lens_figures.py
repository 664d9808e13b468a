"""The figures of a tuned lens: what they draw, say and carry."""

import dataclasses
import json

import numpy as np
import pytest

from mi_core.analyses import TunedLensTrainInputs, TunedLensTrainResult
from mi_core.analyses.tuned_lens_result import TextCounts
from mi_core.charts.tuned_lens import course_layers
from mi_core.exports.export import export
from mi_core.exports.tuned_lens import course_figure, quality_figure
from mi_core.provenance import Provenance

LAYERS = 3


@pytest.fixture
def result() -> TunedLensTrainResult:
    """Made by hand: no model."""
    plain, tuned = np.array([9.0, 2.0, 0.5]), np.array([3.0, 1.0, 0.6])
    return TunedLensTrainResult(
        inputs=TunedLensTrainInputs(("a secret text",), text_name="<b>my *text*</b>", steps=20),
        provenance=Provenance(
            "m", None, "abc", "float32", "cpu", "fast", "t", "0.1.0", "2", "5", 0, "2026-01-01T00:00:00"
        ),
        n_layers=LAYERS,
        loss=np.ones((20, LAYERS)),
        checked_steps=np.array([0, 10, 20]),
        stopping_kl=np.array([plain, (plain + tuned) / 2, tuned]),
        best_step=np.array([20, 20, 0]),
        plain_kl=plain, plain_low=plain - 0.1, plain_high=plain + 0.1,
        tuned_kl=tuned, tuned_low=tuned - 0.1, tuned_high=tuned + 0.1,
        gain=plain - tuned, gain_low=plain - tuned - 0.1, gain_high=plain - tuned + 0.1,
        counts=TextCounts(1000, 20, 100, 2, 120, 3, 2500),
        fingerprint="f" * 16,
    )  # fmt: skip


def test_the_quality_figure_draws_both_lenses_with_their_bands(result: TunedLensTrainResult) -> None:
    figure = quality_figure(result, from_layer=1)
    points = figure.spec["datasets"]["points"]
    drawn = {(point["series"], point["x"]): (point["y"], point["low"], point["high"]) for point in points}
    assert set(drawn) == {(f"{lens} lens", layer) for lens in ("plain", "tuned") for layer in (1, 2)}
    assert drawn["tuned lens", 2] == pytest.approx((0.6, 0.5, 0.7))
    assert "layer 0: plain 9, tuned 3" in figure.description
    assert set(figure.frame()["text"]) == {"validation"}


def test_captions_say_n_unit_zero_and_the_text(result: TunedLensTrainResult) -> None:
    caption = quality_figure(result, from_layer=1).caption
    for said in (
        "nats per token", "0 = the model's own output", "1,000 tokens", "read 2.5 times", "120 tokens in 3",
        "<b>my *text*</b>", "Layers below 1 are not shown",
    ):  # fmt: skip
        assert said in caption, said
    assert "20 of 20 steps" in course_figure(result).caption
    measured = dataclasses.replace(result, inputs=dataclasses.replace(result.inputs, steps=0, start="other"))
    assert "'other', measured only" in quality_figure(measured).caption


def test_pictures_carry_the_hash_of_the_text_and_not_the_text(result: TunedLensTrainResult) -> None:
    for figure in (quality_figure(result), course_figure(result)):
        assert "secret" not in figure.record_json()
        assert figure.inputs["text_sha256"] == result.inputs.text_digest
        assert "secret" not in export(figure, "csv").decode()
        assert "secret" in json.loads(export(figure, "json"))["result"]["inputs"]["texts"][0]


def test_a_stopped_training_has_no_recipe(result: TunedLensTrainResult) -> None:
    assert "tuned_lens_train(" in quality_figure(result).recipe
    assert quality_figure(dataclasses.replace(result, cancelled=True)).recipe == ""


def test_six_layers_stand_for_many(result: TunedLensTrainResult) -> None:
    assert course_layers(result) == [0, 1, 2]
    names = ("plain_kl", "plain_low", "plain_high", "tuned_kl", "tuned_low", "tuned_high")
    wide = {name: np.zeros(48) for name in (*names, "gain", "gain_low", "gain_high")}
    wide["best_step"] = np.zeros(48, int)
    deep = dataclasses.replace(
        result, n_layers=48, loss=np.zeros((20, 48)), stopping_kl=np.zeros((3, 48)), **wide
    )
    assert course_layers(deep) == [0, 9, 19, 28, 38, 47]
