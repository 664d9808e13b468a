"""A feature's relatives: everything again by loops over all pairs, planted relatives, what is not there."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch

from mi_core.charts.feature_weights import related
from mi_core.errors import Cancelled, InputError, TranscoderError
from mi_core.exports.feature_weights import relatives_figure
from mi_core.model.model import LoadedModel
from mi_core.transcoders import (
    Feature,
    FeatureNeighboursInputs,
    FeatureNeighboursResult,
    Hook,
    Transcoder,
    feature_neighbours,
    transcoder,
)
from mi_core.transcoders.weights_best import Best
from mi_core.transcoders.weights_cost import decoder_bytes, encoder_bytes, neighbours_cost
from tests.feature_oracle import (
    all_features,
    cosine,
    encoder_of,
    rows_of,
    unembedding,
    virtual_weight,
)
from tests.tiny import tiny
from tests.transcoders import tiny_clt, tiny_plt, use

COUNT = 5


def look(
    model: LoadedModel, made: Transcoder, feature: str = "L1F3", count: int = COUNT
) -> FeatureNeighboursResult:
    """Relatives in a transcoder in memory."""
    use(model, made, made.name)
    return feature_neighbours(model, FeatureNeighboursInputs(feature, made.name, count))


def best(values: dict[Feature, float], count: int = COUNT) -> list[tuple[str, float]]:
    """The largest of some values."""
    return [(one.text, value) for one, value in sorted(values.items(), key=lambda pair: -pair[1])[:count]]


def listed(result: FeatureNeighboursResult, relation: str, group: str) -> list[tuple[str, float]]:
    """One list of the result."""
    found = [one for one in related(result, relation) if one.group == group]
    assert [one.rank for one in found] == list(range(1, len(found) + 1))
    return [(one.feature.text, one.value) for one in found]


def agree(made: list[tuple[str, float]], wanted: list[tuple[str, float]]) -> None:
    """Same features, same numbers."""
    assert [name for name, _ in made] == [name for name, _ in wanted]
    np.testing.assert_allclose([v for _, v in made], [v for _, v in wanted], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["clt", "plt"])
@pytest.mark.parametrize("feature", ["L0F0", "L1F3", "L3F11"])
def test_all_lists_are_those_of_all_pairs(kind: str, feature: str) -> None:
    model = tiny("llama")
    made = tiny_clt(model) if kind == "clt" else tiny_plt(model)
    result = look(model, made, feature)
    me = result.feature
    others = [one for one in all_features(made) if one != me]
    for relation, vector in (("reads alike", encoder_of), ("writes alike", _total)):
        for group, same in (("same layer", True), ("other layers", False)):
            wanted = {
                one: cosine(vector(made, me), vector(made, one))
                for one in others
                if (one.layer == me.layer) == same
            }
            agree(listed(result, relation, group), best(wanted))
    for relation, pairs in (
        ("upstream", {one: virtual_weight(made, one, me) for one in others if one.layer < me.layer}),
        ("downstream", {one: virtual_weight(made, me, one) for one in others if one.layer > me.layer}),
    ):
        for sign, group in ((1, "+"), (-1, "−")):
            wanted = best({one: sign * v for one, v in pairs.items() if sign * v > 0})
            agree(listed(result, relation, group), [(name, sign * v) for name, v in wanted])
    assert all(check.passed for check in result.checks)
    assert len(result.checks) == 3
    assert result.n_compared == 48


def _total(made: Transcoder, feature: Feature) -> np.ndarray:
    return rows_of(made, feature).sum(0)


def test_pieces_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    made = tiny_clt(model)
    whole = look(model, made)
    for module in (transcoder, __import__("mi_core.transcoders.weights_neighbours_run", fromlist=["_"])):
        monkeypatch.setattr(module, "CHUNK_BYTES", 5 * 4 * model.dims.d_model)
    pieces = look(model, made)
    np.testing.assert_array_equal(pieces.virtual_indices, whole.virtual_indices)
    np.testing.assert_array_equal(pieces.alike_indices, whole.alike_indices)
    np.testing.assert_allclose(pieces.alike_cosines, whole.alike_cosines, atol=1e-6)


def test_words_are_those_promoted_most() -> None:
    model = tiny("gpt2")
    made = tiny_clt(model)
    result = look(model, made)
    for name, word in result.words.items():
        one = FeatureNeighboursInputs(name).chosen
        assert word == f"⟨id {int((_total(made, one) @ unembedding(model)).argmax())}⟩"


def test_a_norm_in_front_is_in_the_virtual_weights() -> None:
    """With mlp_in, the weight is that of the reader's gain times its encoder."""
    model = tiny("llama")
    made = dataclasses.replace(tiny_clt(model), reads=Hook("mlp_in"), name="behind")
    result = look(model, made)
    assert all(check.passed for check in result.checks)
    blocks: Any = model.structure.blocks
    gains = [block.post_attention_layernorm.weight.detach().double().numpy() for block in blocks]
    me = result.feature
    wanted = {
        one: float(
            sum(row * gains[one.layer] for layer, row in zip((1, 2, 3), rows_of(made, me), strict=True)
                if layer < one.layer) @ encoder_of(made, one)
        )
        for one in all_features(made) if one.layer > 1
    }  # fmt: skip
    agree(listed(result, "downstream", "+"), best({one: v for one, v in wanted.items() if v > 0}))


def test_a_planted_twin_and_a_planted_follower_are_found() -> None:
    model = tiny("llama")
    made = tiny_clt(model)
    source = made.source
    source.encoders[2].stored[7] = 3 * source.encoders[1].stored[3]  # type: ignore[attr-defined]
    source.decoders[3][5, 0] = source.decoders[1][3].sum(0) * 2  # type: ignore[attr-defined]
    source.encoders[3].stored[9] = 50 * source.decoders[1][3][:2].sum(0)  # type: ignore[attr-defined]
    result = look(model, made)
    assert listed(result, "reads alike", "other layers")[0] == ("L2F7", pytest.approx(1.0))
    assert listed(result, "writes alike", "other layers")[0] == ("L3F5", pytest.approx(1.0))
    assert listed(result, "downstream", "+")[0][0] == "L3F9"


# --- what is not there ---


def test_without_decoders_only_readers_are_compared() -> None:
    model = tiny("llama")
    result = look(model, dataclasses.replace(tiny_clt(model), has_decoder=False, name="encoders"))
    assert "Only the encoders" in result.warnings[0]
    assert {one.relation for one in result.alike()} == {"reads alike"}
    assert result.virtual() == ()
    assert result.words == {}


def test_decoders_elsewhere_are_not_fetched() -> None:
    model = tiny("llama")
    made = dataclasses.replace(tiny_clt(model), local=False, name="far")
    made.source.chunk = _refuse  # type: ignore[attr-defined]
    result = look(model, made)
    assert "not on this machine" in result.warnings[0]
    assert "downstream" in result.warnings[0]
    assert {one.relation for one in result.virtual()} == {"downstream"}


def _refuse(*_args: object) -> None:
    raise AssertionError("a decoder was read")


def test_a_layer_whose_file_is_missing_is_left_out_and_told() -> None:
    model = tiny("llama")
    made = tiny_clt(model)
    chunk = made.source.chunk

    def partial(layer: int, start: int, stop: int) -> torch.Tensor:
        if layer == 0:
            raise TranscoderError("W_dec_0 is not here", kind="no_decoder")
        return chunk(layer, start, stop)

    made.source.chunk = partial  # type: ignore[method-assign]
    result = look(model, made)
    assert "decoders are not here: L0" in result.warnings[0]
    assert related(result, "upstream") == []


def test_what_reads_one_module_has_no_virtual_weights() -> None:
    model = tiny("llama")
    made = dataclasses.replace(tiny_plt(model), reads=Hook("mlp_out"), kind="sae", name="sae")
    result = look(model, made)
    assert result.virtual() == ()
    assert "no virtual weights" in result.warnings[0]


def test_it_can_be_stopped_half_way() -> None:
    seen = []

    def stop(step: object) -> None:
        seen.append(step)
        if len(seen) == 3:
            raise Cancelled

    model = tiny("llama")
    use(model, tiny_clt(model), "clt")
    result = feature_neighbours(model, FeatureNeighboursInputs("L1F3", "clt"), on_step=stop)
    assert result.cancelled
    assert "stopped" in result.warnings[0]
    assert result.n_compared == 24
    assert not [one for one in result.alike() if one.relation == "writes alike"]


def test_records_and_mistakes() -> None:
    model = tiny("llama")
    result = look(model, tiny_clt(model), count=20)
    again = FeatureNeighboursResult.from_json(result.to_json())
    np.testing.assert_array_equal(again.virtual_weights, result.virtual_weights)
    assert again.virtual() == result.virtual()
    assert len(result.to_frame()) == len(result.alike()) + len(result.virtual())
    for relation in ("reads alike", "writes alike", "upstream", "downstream"):
        figure = relatives_figure(result, relation)
        assert len(figure.frame()) == len(related(result, relation))
        assert "NaN" not in json.dumps(figure.spec)
    assert "input-independent" in relatives_figure(result, "upstream").title
    broken = json.loads(result.to_json()) | {"alike_layers": [1]}
    with pytest.raises(InputError):
        FeatureNeighboursResult.from_json(json.dumps(broken))
    with pytest.raises(InputError):
        FeatureNeighboursInputs("L1F3", count=0)


def test_the_best_keep_their_order_whatever_the_pieces() -> None:
    values = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    values[100] = torch.nan
    kept = Best(7, leave_out=Feature(0, int(values.nan_to_num(-9).argmax())))
    for first in range(0, 2000, 9):
        kept.add(0, first, values[first : first + 9])
    order = values.nan_to_num(-9).argsort(descending=True)[1:8].tolist()
    assert [feature.index for _, feature in kept.best()] == order


def test_costs_are_those_of_the_shapes() -> None:
    made = tiny_clt(tiny("llama"))
    assert encoder_bytes(made) == 4 * 32 * 48
    assert decoder_bytes(made) == 4 * 32 * 12 * (4 + 3 + 2 + 1)
    assert neighbours_cost(made).seconds > 0
