"""Generation: every step equals a whole pass with the same edits; and what users do wrong."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from mi_core.engine import Edit, Sampling, build_model, generate, live_edits, run
from mi_core.engine.generate import Chooser
from mi_core.engine.generate_cache import why_not_cached
from mi_core.errors import Cancelled, EditError, InputError, SiteMissing
from mi_core.model.model import LoadedModel
from tests.tiny import FAMILY_NAMES, VOCAB, hf_model, tiny, tokens

PROMPT = tokens(n_pos=7)[0].tolist()
STEPS = 6


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def kinds(model: LoadedModel) -> Iterator[tuple[str, list[Edit], Any]]:
    """(name, edits, the same edits for a sequence of n tokens, written by hand)."""
    push, clouds = noise(32), noise(7, 32)

    def fixed(edits: list[Edit]) -> tuple[list[Edit], Any]:
        return edits, lambda n: edits

    yield "resid", *fixed([Edit("resid_post", 1, "add", value=push)])
    yield "resid at a position", *fixed([Edit("resid_post", 1, "add", (3,), value=push)])
    yield (
        "from the end",
        [Edit("resid_pre", 2, "add", (-1,), value=push)],
        lambda n: [Edit("resid_pre", 2, "add", (6,), value=push)],
    )
    yield "head", *fixed([Edit("z", 1, "zero", heads=(2,))])
    yield "neurons", *fixed([Edit("mlp_post", 2, "set", units=(3, 5), value=2.0)])
    yield "keys and values", *fixed([Edit("k", 1, "scale", value=0.5), Edit("v", 2, "zero", (2,))])
    yield "column", *fixed([Edit("pattern", 1, "mask", keys=(2,))])
    yield "edge", *fixed([Edit("pattern", 2, "mask", (5,), (1,), keys=(2,))])
    yield "set after the softmax", *fixed([Edit("pattern", 2, "set", heads=(1,), keys=(0,), value=0.7)])
    yield "edge scaled", *fixed([Edit("pattern", 1, "scale_edges", keys=(2,), value=0.3)])
    yield "edge set", *fixed([Edit("pattern", 1, "set_edges", (5,), (1,), keys=(2,), value=0.7)])
    yield (
        "embed noise",
        [Edit("embed", None, "add", tuple(range(7)), value=clouds)],
        lambda n: [Edit("embed", None, "add", tuple(range(7)), value=clouds)],
    )
    yield "logits", *fixed([Edit("logits", None, "add", units=(9,), value=3.0)])
    if "rot_k" not in model.structure.missing:
        yield "rotated keys", *fixed([Edit("rot_k", 1, "scale", (1, 4), value=0.2)])
        yield "all rotated keys", *fixed([Edit("rot_k", 1, "scale", value=0.2), Edit("rot_q", 2, "zero")])


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_every_step_equals_a_whole_pass_with_the_same_edits(family: str) -> None:
    model = tiny(family)
    for name, edits, by_hand in kinds(model):
        done = generate(model, PROMPT, steps=STEPS, edits=edits, keep_logits=True, stop=())
        assert (done.method, done.reason, done.stopped) == ("cached", "", "steps")
        assert done.logits is not None
        for step in range(STEPS):
            so_far = torch.tensor([PROMPT + list(done.ids[:step])])
            whole = run(model, so_far, edits=by_hand(so_far.shape[1])).logits[0, -1]
            torch.testing.assert_close(done.logits[step], whole, atol=1e-10, rtol=1e-10, msg=name)
        assert done.ids == tuple(int(row.argmax()) for row in done.logits)
        expected = done.logits.log_softmax(-1)[range(STEPS), list(done.ids)]
        np.testing.assert_allclose(done.log_probabilities, expected, atol=1e-12)


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "gpt_neox"])
@pytest.mark.parametrize("where", ["prompt", "generated"])
def test_where_says_which_tokens_are_edited(family: str, where: Any) -> None:
    model = tiny(family)
    push = noise(32)
    edits = [Edit("resid_post", 1, "add", value=push), Edit("pattern", 2, "mask", keys=(1,))]
    done = generate(model, PROMPT, steps=STEPS, edits=edits, where=where, keep_logits=True, stop=())
    assert done.logits is not None
    for step in range(STEPS):
        n = 7 + step
        chosen = tuple(range(7)) if where == "prompt" else tuple(range(7, n))
        by_hand = (
            [Edit("resid_post", 1, "add", chosen, value=push), Edit("pattern", 2, "mask", chosen, keys=(1,))]
            if chosen
            else []
        )
        whole = run(model, torch.tensor([PROMPT + list(done.ids[:step])]), edits=by_hand).logits[0, -1]
        torch.testing.assert_close(done.logits[step], whole, atol=1e-10, rtol=1e-10)


def test_cached_and_whole_passes_agree_where_keys_are_left_open() -> None:
    model = tiny("mistral")
    edits = [
        Edit("pattern", 1, "scale", heads=(0,), value=0.5),
        Edit("attn_scores", 2, "add", (3,), value=noise(4, 1, 7)),
        Edit("pattern", 3, "mask"),
    ]
    cached = generate(model, PROMPT, steps=STEPS, edits=edits, keep_logits=True, stop=())
    whole = generate(model, PROMPT, steps=STEPS, edits=edits, keep_logits=True, stop=(), cache=False)
    assert (cached.method, whole.method) == ("cached", "full")
    assert cached.logits is not None
    assert whole.logits is not None
    torch.testing.assert_close(cached.logits, whole.logits, atol=1e-10, rtol=1e-10)
    assert cached.cut_rows == whole.cut_rows == 4 * (7 + STEPS - 1)


def test_no_edit_is_what_transformers_generates() -> None:
    """A second implementation that shares no code, also with a residual added by a plain hook."""
    model = tiny("llama")
    push = noise(32)
    ids = torch.tensor([PROMPT])
    settings = {"max_new_tokens": STEPS, "do_sample": False, "pad_token_id": 0, "eos_token_id": VOCAB + 1}
    for edits in ([], [Edit("resid_post", 1, "add", value=push)]):
        handle = model.hf.model.layers[1].register_forward_hook(
            lambda _module, _args, out, on=bool(edits): out + push if on else None
        )
        try:
            theirs = model.hf.generate(ids, use_cache=bool(edits), **settings)[0, 7:].tolist()
        finally:
            handle.remove()
        assert list(generate(model, PROMPT, steps=STEPS, edits=edits, stop=()).ids) == theirs


def test_a_rotary_table_that_depends_on_the_length_is_read_in_whole_passes() -> None:
    hf = hf_model("llama")
    hf.config.rope_parameters = {
        "rope_type": "dynamic",
        "factor": 2.0,
        "rope_theta": 1e4,
        "original_max_position_embeddings": 10,
    }
    hf.config.max_position_embeddings = 10
    model = build_model(hf)
    assert why_not_cached(model, 10) == ""
    assert "dynamic" in why_not_cached(model, 11)


def test_a_model_that_forgets_its_cache_is_read_in_whole_passes() -> None:
    hf = hf_model("llama")
    forward = hf.forward
    model = build_model(hf)
    hf.forward = lambda past_key_values=None, use_cache=None, **given: forward(use_cache=False, **given)
    done = generate(model, PROMPT, steps=4, stop=())
    assert done.method == "full"
    assert "differs from a whole pass" in done.reason
    assert done.ids == generate(tiny("llama"), PROMPT, steps=4, stop=()).ids


def test_seeds_reproduce_and_differ() -> None:
    model = tiny("gpt2")
    first, again, other = (
        generate(model, PROMPT, steps=12, sampling=Sampling(1.0, 0.9, seed), stop=()).ids
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_chosen_tokens_follow_the_distribution_and_top_p() -> None:
    logits = np.log(np.array([0.1, 0.5, 0.15, 0.25]))
    choose = Chooser(Sampling(1.0, 1.0, 3))
    drawn = [choose(logits) for _ in range(4000)]
    shares = np.bincount([token for token, _ in drawn], minlength=4) / 4000
    np.testing.assert_allclose(shares, [0.1, 0.5, 0.15, 0.25], atol=0.03)
    assert all(abs(score - logits[token]) < 1e-12 for token, score in drawn)
    narrow = Chooser(Sampling(1.0, 0.7, 3))
    assert {narrow(logits)[0] for _ in range(200)} == {1, 3}  # 0.5 < 0.7 <= 0.75
    sharp = Chooser(Sampling(0.5, 1.0, 3))
    shares = np.bincount([sharp(logits)[0] for _ in range(4000)], minlength=4) / 4000
    squares = np.array([0.1, 0.5, 0.15, 0.25]) ** 2
    np.testing.assert_allclose(shares, squares / squares.sum(), atol=0.03)
    assert Chooser(Sampling())(np.array([1.0, 5.0, 5.0]))[0] == 1


def test_it_stops_at_the_end_token_and_when_asked_to() -> None:
    model = tiny("gpt2")
    free = generate(model, PROMPT, steps=STEPS, stop=())
    ended = generate(model, PROMPT, steps=STEPS, stop=(free.ids[2],))
    first = free.ids.index(free.ids[2])
    assert (ended.ids, ended.stopped) == (free.ids[: first + 1], "eos")

    def cancel(done: int, _token: int) -> None:
        if done == 3:
            raise Cancelled

    stopped = generate(model, PROMPT, steps=STEPS, on_token=cancel, stop=())
    assert (stopped.ids, stopped.stopped) == (free.ids[:3], "cancelled")
    assert model.modules_with_hooks() == 0


def test_errors_are_told_before_anything_runs() -> None:
    model = tiny("gpt2")
    generate(model, PROMPT, steps=64 - 7 + 1, stop=())
    with pytest.raises(InputError, match="at most 58 tokens"):
        generate(model, PROMPT, steps=64 - 7 + 2)
    with pytest.raises(InputError, match="at least 1"):
        generate(model, PROMPT, steps=0)
    with pytest.raises(InputError, match="nothing to run"):
        generate(model, [], steps=1)
    with pytest.raises(EditError, match="no position 7"):
        generate(model, PROMPT, steps=1, edits=[Edit("z", 1, "zero", (7,))])
    with pytest.raises(SiteMissing):
        generate(model, PROMPT, steps=1, edits=[Edit("rot_k", 1, "zero")])
    with pytest.raises(EditError, match="one entry per token"):
        generate(model, PROMPT, steps=1, edits=[Edit("embed", None, "add", value=noise(7, 32))])
    generate(model, PROMPT, steps=2, edits=[Edit("embed", None, "add", value=noise(7, 32))], where="prompt")
    with pytest.raises(EditError, match="NaN"):
        generate(model, PROMPT, steps=1, edits=[Edit("embed", None, "set", value=float("nan"))])
    with pytest.raises(InputError, match="temperature"):
        Sampling(-1.0)
    with pytest.raises(InputError, match="top_p"):
        Sampling(1.0, 0.0)


def test_live_edits_select_nothing_before_there_is_a_new_token() -> None:
    model = tiny("gpt2")
    edits = [Edit("z", 1, "zero")]
    assert live_edits(model, edits, "generated", 7, 7) == []
    assert live_edits(model, edits, "generated", 7, 9)[0].positions == (7, 8)
    assert [e.positions for e in live_edits(model, edits, "all", 7, 8)] == [tuple(range(7)), (7,)]
