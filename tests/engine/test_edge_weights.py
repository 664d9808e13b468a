"""Edges of attention scaled or set after the softmax: against a second implementation, in runs and sweeps."""

import pytest
import torch

from mi_core.engine import Base, Edit, Variant, run, sweep
from mi_core.errors import EditError
from tests.engine.oracle import Oracle
from tests.tiny import hf_model, tiny, tokens

NAMES = ("gpt2", "gpt_neox", "llama", "mistral", "gemma2", "qwen3", "opt", "phi3")
N_POS = 9
SHARES = torch.tensor([0.25, 0.125], dtype=torch.float64).view(1, 1, 1, 2)


def by_hand(name: str, change) -> torch.Tensor:
    """Logits of an untouched model whose layer 1 has its probabilities changed, last position."""
    oracle = Oracle(hf_model(name))
    oracle.probability[1] = change
    return oracle.logits(tokens(2, N_POS), [])[:, -1]


def scaled(p: torch.Tensor) -> torch.Tensor:
    p = p.clone()
    p[:, 2, 7, 5] = p[:, 2, 7, 5] * 3
    total = p[:, 2, 7].sum(-1)
    for row in range(len(p)):
        p[row, 2, 7] = p[row, 2, 7] / total[row]
    return p


def fixed(p: torch.Tensor) -> torch.Tensor:
    p = p.clone()
    for row in range(len(p)):
        left = [key for key in range(p.shape[-1]) if key not in (6, 8)]
        whole = sum(p[row, 1, 8, key] for key in left)
        for key in left:
            p[row, 1, 8, key] = p[row, 1, 8, key] * 0.625 / whole
        p[row, 1, 8, 6], p[row, 1, 8, 8] = 0.25, 0.125
    return p


@pytest.mark.parametrize("name", NAMES)
def test_edges_are_weighed_as_by_hand_in_runs_and_sweeps(name: str) -> None:
    model = tiny(name)
    scale = Edit("pattern", 1, "scale_edges", (7,), (2,), keys=(5,), value=3.0)
    fix = Edit("pattern", 1, "set_edges", (8,), (1,), keys=(6, 8), value=SHARES)
    expected = [by_hand(name, scaled), by_hand(name, fixed), by_hand(name, lambda p: fixed(scaled(p)))]
    base, variants = (
        Base(tokens(2, N_POS)),
        [Variant((scale,)), Variant((fix,)), Variant((scale, fix))],
    )
    got = sweep(model, base, variants, read=lambda logits: {"logits": logits[:, :, -1]}, method="shared")
    for index, (variant, wanted) in enumerate(zip(variants, expected, strict=True)):
        once = run(model, tokens(2, N_POS), edits=variant.edits).logits[:, -1]
        torch.testing.assert_close(once, wanted, atol=1e-10, rtol=0)
        torch.testing.assert_close(torch.tensor(got.values["logits"][index]), once, atol=1e-10, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [0.0, 0.3, 0.7, 1.0])
def test_an_edge_that_is_set_hits_its_value_and_the_others_keep_their_proportions(dtype, value) -> None:
    """candle-mi's SetValue misses its target where it clamps."""
    model = tiny("llama", dtype)
    edit = Edit("pattern", 1, "set_edges", (7,), (2,), keys=(5,), value=value)
    before, after = (
        run(model, tokens(2, N_POS), edits=edits, capture=[("pattern", 1)])["pattern", 1]
        for edits in ((), (edit,))
    )
    row, old = after[:, 2, 7].double(), before[:, 2, 7].double()
    assert (after[:, 2, 7, 5] == torch.tensor(value, dtype=dtype)).all()
    near = 1e-2 if dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(row.sum(-1), torch.ones(2, dtype=torch.float64), atol=near, rtol=0)
    others = [key for key in range(8) if key != 5]
    wanted = old[:, others] * (1 - value) / old[:, others].sum(-1, keepdim=True)
    torch.testing.assert_close(row[:, others], wanted, atol=near, rtol=0)
    untouched = torch.ones_like(after, dtype=torch.bool)
    untouched[:, 2, 7] = False
    assert torch.equal(after[untouched], before[untouched])


def test_scaling_in_any_order_is_the_same_and_a_factor_of_one_changes_nothing() -> None:
    model = tiny("gpt2")
    one, other = (
        Edit("pattern", 1, "scale_edges", (7,), (2,), keys=(key,), value=value)
        for key, value in ((5, 3.0), (1, 0.25))
    )
    a, b = (run(model, tokens(), edits=edits).logits for edits in ((one, other), (other, one)))
    torch.testing.assert_close(a, b, atol=1e-12, rtol=0)
    same = Edit("pattern", 1, "scale_edges", (7,), (2,), keys=(5,), value=1.0)
    torch.testing.assert_close(
        run(model, tokens(), edits=[same]).logits, run(model, tokens()).logits, atol=1e-12, rtol=0
    )


def test_a_row_that_has_nothing_else_to_take_from_is_refused() -> None:
    edit = Edit("pattern", 1, "set_edges", (0,), (2,), keys=(0,), value=0.5)
    with pytest.raises(EditError, match="cannot be set to this value"):
        run(tiny("gpt2"), tokens(), edits=[edit])
    assert run(tiny("gpt2"), tokens()).logits.isfinite().all()  # and nothing of it stays behind


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"site": "attn_scores", "keys": (1,), "value": 0.5}, "needs the site 'pattern'"),
        ({"site": "pattern", "value": 0.5}, "and keys"),
        ({"site": "pattern", "keys": (1,)}, "needs a value"),
        ({"site": "pattern", "keys": (1,), "value": -0.5}, "not negative"),
        ({"site": "pattern", "keys": (1,), "value": float("nan")}, "not negative"),
        ({"site": "pattern", "keys": (1, 2), "value": 0.6}, "more than 1"),
        ({"site": "pattern", "keys": (1,), "value": 1.1}, "more than 1"),
    ],
)
def test_weights_that_are_no_shares_are_refused(kwargs, match) -> None:
    with pytest.raises(EditError, match=match):
        Edit(layer=0, operation="set_edges", **kwargs)
