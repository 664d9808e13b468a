"""The character-count helix: counting by hand, streaming against all at once, PCA against SVD, mistakes."""

import json
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from mi_core.analyses import (
    CharacterHelixInputs,
    CharacterHelixResult,
    character_helix,
    character_helix_cost,
)
from mi_core.analyses import character_helix_run as running
from mi_core.analyses.character_helix_geometry import geometry
from mi_core.analyses.character_helix_lines import averaged, character_counts, passages, pieces, wrap
from mi_core.analyses.character_helix_ringing import cosine_by_distance, ringing
from mi_core.analyses.texts import Text
from mi_core.engine import build_model, run
from mi_core.errors import Cancelled, InputError
from mi_core.exports import character_helix as figures
from mi_core.exports.export import export
from mi_core.tokens import Token, TokenizedPrompt, tokenize
from tests.tiny import hf_model
from tests.words import WORDS


@cache
def line_tokenizer(bos: bool = True) -> Any:
    """Whole words, and a token of its own for a line break."""
    pieces = ["<s>", "</s>", "<unk>", "▁\n", *(f"▁{word}" for word in WORDS)]
    pieces += [f"▁filler{number}" for number in range(97 - len(pieces))]
    backend = Tokenizer(WordLevel({piece: index for index, piece in enumerate(pieces)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    if bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def some_texts(words: int = 420, seed: int = 0) -> tuple[Text, ...]:
    random = np.random.default_rng(seed)
    return tuple(Text("text", " ".join(random.choice(WORDS, size=words // 3))) for _ in range(3))


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


# --- characters ---


def prompt_of(*parts: str) -> TokenizedPrompt:
    """A prompt whose tokens are these pieces of text, without BOS."""
    tokens, start = [], 0
    for position, part in enumerate(parts):
        tokens.append(Token(position, position, part, start, start + len(part)))
        start += len(part)
    return TokenizedPrompt("".join(parts), tuple(tokens), 0)


def test_counts_by_hand():
    # tab = 1; é as e + combining accent = 2; family emoji = 5 (three people, two joiners); 漢 = 1
    prompt = prompt_of(
        "a", "\tb", "e\u0301", "漢字", "👨\u200d👩\u200d👧", "x", "\n", "y", " z", ".\nq", "r", "\n\n", "s"
    )
    assert character_counts(prompt) == [0, 1, 3, 5, 7, 12, 13, 0, 1, 3, 1, 2, 0]
    # not averaged: the first token, and those that reach over a line break
    assert averaged(prompt) == (-1, 1, 3, 5, 7, 12, -1, 0, 1, -1, 1, -1, 0)


def test_tokens_that_share_a_character_share_its_count_and_bos_has_none():
    tokens = (
        Token(0, 0, "<s>", 0, 0),
        Token(1, 1, "a", 0, 1),
        Token(2, 2, "?", 1, 2),
        Token(3, 3, "?", 1, 2),
    )
    assert character_counts(TokenizedPrompt("a😀", tokens, 1)) == [-1, 0, 1, 1]
    assert averaged(TokenizedPrompt("a😀", tokens, 1)) == (-1, 0, 1, 1)


def test_wrapping_by_hand():
    assert wrap("aa bb cc dd", 5) == ["aa bb", "cc dd"]
    assert wrap("aa\nbb  \n\n cc", 8) == ["aa bb cc"]
    assert wrap("a\tb  c", 6) == ["a\tb  c"]
    assert wrap("a\tb  c", 5) == ["a\tb", "c"]
    assert wrap("abcdefg h", 3) == ["abc", "def", "g h"]
    assert wrap("漢字漢字漢", 2) == ["漢字", "漢字", "漢"]
    assert wrap("ae\u0301ae\u0301", 2) == ["a", "e\u0301", "a", "e\u0301"]  # never before a combining mark
    assert wrap("x👨\u200d👩\u200d👧y", 6) == ["x👨\u200d👩\u200d👧", "y"]
    assert wrap("a\u0301\u0301\u0301", 2) == ["a\u0301", "\u0301\u0301"]  # no shorter line avoids it
    assert wrap("   ", 5) == []


@pytest.mark.parametrize("width", [2, 7, 20, 64])
def test_no_line_is_too_long_and_no_character_is_lost(width):
    text = "Ünïcode e\u0301 漢字漢字 👨\u200d👩\u200d👧 words\tand tabs " * 20
    made = wrap(text, width)
    assert max(map(len, made)) <= width
    assert "".join("".join(made).split()) == "".join(text.split())


def test_greedy_lines_could_not_take_another_word():
    made = wrap(" ".join(WORDS * 3), 20)
    for line, after in pairwise(made):
        assert len(line) + 1 + len(after.split(" ")[0]) > 20


def test_passages_hold_all_words_in_order():
    found = passages(some_texts(), 200)
    assert len(found) > 3
    assert max(map(len, found)) <= 200
    assert " ".join(found).split() == " ".join(text.text for text in some_texts()).split()


@pytest.mark.parametrize("bos", [True, False])
def test_every_piece_starts_at_a_line_start_with_bos_first(bos):
    tokenizer = line_tokenizer(bos=bos)
    settings = {"widths": (9, 30), "limit": 24, "max_tokens": 10**6, "bos": "auto"}
    found, left_out = pieces(tokenizer, some_texts(), **settings)
    assert left_out == 0
    assert len(found) > 10
    lines: dict[tuple[int, int], int] = {}
    for piece in found:
        assert len(piece.ids) <= 24
        assert (piece.ids[:1] == (tokenizer.bos_token_id,)) == bos
        assert piece.counts[:1] == (-1,)
        if bos:
            assert piece.counts[1:2] == (0,)  # the first word of the piece stands at a line's start
        assert max(piece.counts) < piece.width
        assert piece.seen_breaks == piece.breaks
        lines[piece.passage, piece.width] = lines.get((piece.passage, piece.width), 0) + piece.breaks
    for passage, text in enumerate(passages(some_texts())):  # the pieces together are the wrapped passage
        for width in (9, 30):
            assert lines[passage, width] == len(wrap(text, width))
            ids = [
                token
                for piece in found
                if (piece.passage, piece.width) == (passage, width)
                for token in piece.ids[bos:]
                if token > 3
            ]
            assert ids == [token for token in tokenizer(text, add_special_tokens=False).input_ids]


def test_bos_changes_no_count():
    """The same piece with and without BOS: the counts are those of the text, shifted by one token."""
    text = "\n".join(wrap(some_texts()[0].text, 25)[:6]) + "\n"
    with_bos = averaged(tokenize(line_tokenizer(bos=True), text))
    without = averaged(tokenize(line_tokenizer(bos=False), text))
    assert with_bos[2:] == without[1:]


# --- shape ---


def helix_points(noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A helix of three turns in 40 dimensions, far from the origin."""
    counts = np.arange(90)
    turn = 2 * np.pi * counts / 30
    curve = np.stack([3 * np.cos(turn), 3 * np.sin(turn), counts / 45], axis=1)
    random = np.random.default_rng(0)
    basis = np.linalg.qr(random.normal(size=(40, 3)))[0].T
    return curve @ basis + 50 * random.normal(size=40) + noise * random.normal(size=(90, 40)), counts


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_components_are_those_of_an_svd(noise):
    points, counts = helix_points(noise)
    shape = geometry(points, counts, 6)
    centred = points - points.mean(0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(shape.shares, (sizes**2 / (sizes**2).sum())[:6], atol=1e-12)
    assert shape.total == pytest.approx((centred**2).sum(1).mean())
    assert shape.dimensions == pytest.approx((sizes**2).sum() ** 2 / (sizes**4).sum())
    for component in range(3):
        theirs = left[:, component] * sizes[component]
        ours = shape.projections[:, component]
        np.testing.assert_allclose(ours * np.sign(ours @ theirs), theirs, atol=1e-8)
        assert ours[np.abs(ours).argmax()] > 0
    lengths = np.linalg.norm(centred, axis=1)
    np.testing.assert_allclose(shape.cosine, centred @ centred.T / np.outer(lengths, lengths), atol=1e-9)
    plain = points / np.linalg.norm(points, axis=1, keepdims=True)
    assert shape.uncentred == pytest.approx((plain @ plain.T)[~np.eye(90, dtype=bool)].mean(), abs=1e-12)
    assert shape.residue < 1e-12


def test_a_helix_rings_and_a_line_does_not():
    points, counts = helix_points()
    shape = geometry(points, counts, 6)
    assert shape.shares[:3].sum() == pytest.approx(1)
    assert shape.ringing > 1.0
    assert shape.uncentred > 0.99  # what centring shows would be hidden
    line = geometry(np.outer(counts, np.ones(40)) + 5, counts, 6)
    assert line.shares[0] == pytest.approx(1)
    assert line.dimensions == pytest.approx(1)
    assert line.ringing == pytest.approx(0, abs=1e-9)


def test_distances_by_hand():
    """Counts 0, 1, 4: the range is 4, so distances up to 2; only one pair is 1 apart."""
    cosine = np.array([[1, 0.5, -0.2], [0.5, 1, 0.1], [-0.2, 0.1, 1]])
    distances, means = cosine_by_distance(cosine, np.array([0, 1, 4]))
    assert distances.tolist() == [1]
    assert means.tolist() == [0.5]


def test_ringing_by_hand():
    """Falls to 0.1, rises to 0.6, falls deeper: the largest rise after any lower point is 0.5."""
    profile = [1.0, 0.5, 0.1, 0.6, -0.3, -0.2]
    apart = np.abs(np.subtract.outer(np.arange(11), np.arange(11)))
    cosine = np.array([*profile, *[0.0] * 5])[apart]
    assert ringing(cosine, np.arange(11)) == pytest.approx(0.5)
    assert np.isnan(ringing(cosine[:4, :4], np.arange(4)))


def test_points_without_variance_have_no_shares():
    shape = geometry(np.full((4, 5), 7.0), np.arange(4), 6)
    assert shape.total == 0
    assert np.isnan(shape.shares).all()
    assert np.isnan(shape.cosine).all()
    assert np.isnan(shape.dimensions)
    assert np.isnan(shape.ringing)


# --- the whole ---


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
