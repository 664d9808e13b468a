"""The character-count helix as a whole: streaming against all at once, control, records, stops, mistakes."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from mi_core.analyses import (
    CharacterHelixInputs,
    CharacterHelixResult,
    character_helix,
    character_helix_cost,
)
from mi_core.analyses import character_helix_run as running
from mi_core.analyses.character_helix_lines import pieces
from mi_core.analyses.texts import Text
from mi_core.engine import build_model, run
from mi_core.errors import Cancelled, InputError
from mi_core.exports import character_helix as figures
from mi_core.exports.export import export
from tests.line_words import line_tokenizer, some_texts
from tests.tiny import hf_model
from tests.words import WORDS


def asked(**changes: Any) -> CharacterHelixInputs:
    settings = {
        "texts": some_texts(),
        "widths": (12, 20, 31),
        "max_count": 30,
        "n_min": 3,
        "chunk_tokens": 40,
    }
    return CharacterHelixInputs(**{**settings, **changes})


def model_of(family: str = "llama", dtype: torch.dtype = torch.float64, *, bos: bool = True):
    return build_model(hf_model(family, dtype), line_tokenizer(bos=bos))


@pytest.mark.parametrize(
    ("family", "site"), [("gpt2", "resid_post"), ("llama", "resid_pre"), ("gemma2", "resid_post")]
)
def test_streaming_is_all_at_once(family, site):
    model, inputs = model_of(family), asked(site=site)
    result = character_helix(model, inputs)
    assert all(check.passed for check in result.checks), result.checks
    made, _ = pieces(
        model.tokenizer, inputs.texts, widths=inputs.widths, limit=40, max_tokens=60_000, bos="auto"
    )
    counts = np.concatenate([piece.counts for piece in made])
    seen = [run(model, torch.tensor([piece.ids]), capture=[site]) for piece in made]
    for layer in range(model.dims.n_layers):
        values = np.concatenate([one[site, layer][0].double().numpy() for one in seen])
        means = np.stack([values[counts == count].mean(0) for count in result.counts])
        centred = means - means.mean(0)
        sizes = np.linalg.svd(centred, compute_uv=False)
        np.testing.assert_allclose(
            result.explained_variance[layer], (sizes**2 / (sizes**2).sum())[:6], atol=1e-9
        )
        lengths = np.linalg.norm(centred, axis=1)
        np.testing.assert_allclose(
            result.cosine_similarity[layer], centred @ centred.T / np.outer(lengths, lengths), atol=1e-5
        )
        assert result.total_variance[layer] == pytest.approx((centred**2).sum(1).mean())
    for count, n in zip(result.counts, result.n, strict=True):
        assert (counts == count).sum() == n >= inputs.n_min
    assert result.tokens == sum(len(piece.ids) for piece in made)


class Planted:
    """Replaces the run of a model: the residual stream is a helix over the token's count, plus noise."""

    def __init__(self, inputs: CharacterHelixInputs, tokenizer: Any, d_model: int, layers: int) -> None:
        made, _ = pieces(
            tokenizer, inputs.texts, widths=inputs.widths, limit=40, max_tokens=60_000, bos="auto"
        )
        self.counts = iter([piece.counts for piece in made])
        self.random, self.layers = np.random.default_rng(0), layers
        self.basis = np.linalg.qr(self.random.normal(size=(d_model, 3)))[0].T

    def __call__(self, _model: Any, _tokens: Any, *, capture: Any, reduce: Any, last: int) -> None:
        counts = np.array(next(self.counts))
        turn = 2 * np.pi * counts / 12
        curve = np.stack([np.cos(turn), np.sin(turn), counts / 30], axis=1) @ self.basis
        noise = 0.3 * self.random.normal(size=(len(counts), self.basis.shape[1]))
        for layer in range(self.layers):
            value = curve * (layer == 1) + noise + 20
            reduce((capture[0], layer), torch.from_numpy(value)[None])


def test_a_planted_helix_is_found_and_the_shuffled_control_is_not(monkeypatch):
    model, inputs = model_of(), asked(texts=some_texts(4000), n_min=20)
    planted = Planted(inputs, model.tokenizer, model.dims.d_model, model.dims.n_layers)
    monkeypatch.setattr(running, "run", planted)
    result = character_helix(model, inputs)
    assert result.share(3)[1] > 0.9
    assert result.share(3, control=True)[1] < 0.75  # of next to nothing: the next line
    assert result.above_control[1] > 10
    assert result.ringing[1] > 0.8 > 3 * result.control_ringing[1]
    assert result.above_control[0] == pytest.approx(1, abs=0.5)  # nothing but noise there, and it is said
    assert any("In layer 0" in warning or "layers 0" in warning for warning in result.warnings)


def test_the_seed_moves_only_the_control():
    model = model_of()
    one, other = (character_helix(model, asked(seed=seed)) for seed in (0, 1))
    np.testing.assert_array_equal(one.explained_variance, other.explained_variance)
    assert (one.control_explained_variance != other.control_explained_variance).any()


def test_records_come_back():
    result = character_helix(model_of(), asked())
    again = CharacterHelixResult.from_json(result.to_json())
    assert again.to_json() == result.to_json()
    frame = result.to_frame()
    rows = frame[(frame["quantity"] == "projection") & (frame["layer"] == 1) & (frame["component"] == 2)]
    np.testing.assert_array_equal(rows["value"], result.projections[1, :, 1])
    theirs = json.loads(json.dumps(result.to_candle_mi(1), allow_nan=False))
    assert list(theirs) == [
        "model_id", "layer", "max_char_count", "line_widths", "explained_variance", "total_variance_top6",
        "projections", "cosine_similarity",
    ]  # fmt: skip
    assert theirs["total_variance_top6"] == pytest.approx(sum(theirs["explained_variance"]))
    with pytest.raises(InputError, match="no layer 9"):
        result.to_candle_mi(9)
    record = json.loads(result.to_json())
    record["counts"].append(99)
    with pytest.raises(InputError):
        CharacterHelixResult.from_json(json.dumps(record))


def test_figures_draw_what_was_computed():
    result = character_helix(model_of(), asked(set_name='</script><b>"\u202e'))
    made = [
        figures.variance_figure(result, chosen=1),
        figures.path_figure(result, 1, (2, 3)),
        figures.cosine_figure(result, 1),
        figures.ring_figure(result, 1),
    ]
    for figure in made:
        assert f"n = {result.n_tokens:,} tokens" in figure.caption
        assert "\u202e" not in figure.caption + figure.title
        assert len(figure.frame()) > 0
        json.dumps(figure.spec, allow_nan=False)
        compile(figure.recipe, "recipe.py", "exec")
        assert export(figure, "svg").startswith(b"<svg")
    points = made[1].spec["datasets"]["points"]
    np.testing.assert_array_equal([point["x"] for point in points], result.projections[1, :, 1])
    np.testing.assert_array_equal([point["y"] for point in points], result.projections[1, :, 2])
    assert [point["value"] for point in points] == result.counts.tolist()
    assert made[1].frame()["component"].unique().tolist() == [2, 3]
    cells = {(c["row"], c["column"]): c["value"] for c in made[2].spec["datasets"]["cells"]}
    first, last = int(result.counts[0]), int(result.counts[-1])
    assert cells[first, last] == pytest.approx(float(result.cosine_similarity[1][0, -1]), abs=1e-6)
    assert {line["name"] for line in made[0].spec["datasets"]["points"]} >= {
        "component 1", "components 1 to 3, shuffled"
    }  # fmt: skip


def test_half_precision_is_averaged_in_double():
    result = character_helix(model_of("llama", torch.bfloat16), asked())
    assert result.total_variance.dtype == np.float64
    assert all(check.passed for check in result.checks)


def test_a_stop_keeps_what_is_done():
    model, inputs = model_of(), asked(n_min=1)
    steps = []

    def stop(step: Any) -> None:
        steps.append(step)
        if len(steps) == 9:
            raise Cancelled

    result = character_helix(model, inputs, on_step=stop)
    whole = character_helix(model, inputs)
    assert result.cancelled
    assert result.tokens == steps[-1].done < whole.tokens
    assert "Stopped after 8" in result.warnings[0]
    assert all(check.passed for check in result.checks)

    def at_once(step: Any) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        character_helix(model, inputs, on_step=at_once)


def test_the_limit_of_tokens_leaves_whole_passages_out():
    model = model_of()
    result = character_helix(model, asked(max_tokens=1500, texts=some_texts(1200)))
    assert result.tokens <= 1500 or result.passages == 1
    assert any("left the last" in warning for warning in result.warnings)


def test_cost_is_what_a_run_takes():
    model, inputs = model_of(), asked()
    cost = character_helix_cost(model.tokenizer, model.dims, inputs, context=None, speed=1000.0)
    result = character_helix(model, inputs)
    assert cost.tokens == result.tokens
    assert cost.state_bytes == 16 * model.dims.n_layers * 31 * model.dims.d_model
    assert cost.seconds == pytest.approx(cost.tokens * model.dims.n_layers / 1000)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"widths": ()}, "no list of line widths"),
        ({"widths": (20, 20)}, "given twice"),
        ({"widths": (1,)}, "line width is 1"),
        ({"max_count": 1}, "largest character count"),
        ({"components": 0}, "number of components"),
        ({"site": "mlp_out"}, "site"),
        ({"texts": ()}, "empty"),
        ({"texts": ("a",)}, "Text"),
        ({"bos": "maybe"}, "bos"),
        ({"seed": -1}, "seed"),
    ],
)
def test_mistakes_are_told(changes, told):
    with pytest.raises(InputError, match=told):
        asked(**changes)


def test_a_tokenizer_that_drops_line_breaks_is_told():
    backend = Tokenizer(WordLevel({"<unk>": 0, **{word: n + 1 for n, word in enumerate(WORDS)}}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    result = character_helix(build_model(hf_model("llama"), tokenizer), asked())
    assert any("drops" in warning and "cannot see" in warning for warning in result.warnings)


def test_too_little_text_is_told():
    with pytest.raises(InputError, match="Fewer than 3 character counts"):
        character_helix(model_of(), asked(texts=(Text("text", "Mary gave it"),), n_min=30))


def test_inputs_come_back():
    inputs = asked()
    assert CharacterHelixInputs.from_dict(json.loads(json.dumps(inputs.to_dict()))) == inputs
