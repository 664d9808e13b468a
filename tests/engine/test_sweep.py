"""sweep = full recompute = a second implementation that shares no code, on every family.

Identity: for every variant, sweep(base, variants)[v] is what a whole forward pass with base edits and the
variant's edits gives, to 1e-10 in float64 and 1e-5 in float32.
"""

import importlib

import numpy as np
import pytest
import torch
from torch import Tensor

from mi_core.engine import Base, Edit, Variant, plan, run, sweep
from mi_core.errors import Cancelled, EditError, OutOfMemory, SiteMissing
from mi_core.model.model import LoadedModel
from tests.engine.oracle import Oracle
from tests.tiny import FAMILY_NAMES, N_LAYERS, hf_model, tiny, tokens

N_POS = 9  # longer than the tiny sliding window of 4
N_ROWS = 2
EXACT = 1e-10


def last_logits(logits: Tensor) -> dict[str, Tensor]:
    return {"logits": logits[:, :, -1]}


def noise(model: LoadedModel) -> Edit:
    """Noise on two tokens, different in each base row."""
    value = torch.randn(
        N_ROWS, 2, model.dims.d_model, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    return Edit("embed", operation="add", positions=(2, 3), value=0.7 * value)


def every_kind(model: LoadedModel) -> list[Variant]:
    """Edits of all sites, single layers and windows, unequal first positions, values that differ per base
    row."""
    clean = run(
        model, tokens(1, N_POS, seed=5), capture=[n for n in model.structure.available() if n != "logits"]
    )
    variants = []
    for name in (
        "resid_pre",
        "resid_post",
        "resid_mid",
        "attn_out",
        "mlp_out",
        "mlp_in",
        "mlp_pre",
        "mlp_post",
        "z",
        "q",
        "k",
        "v",
        "rot_q",
        "rot_k",
        "result",
    ):
        if name not in model.structure.available():
            continue
        for layer in range(N_LAYERS):
            for position in (0, 2, 5, N_POS - 1):
                value = clean[name, layer][:, position : position + 1]
                variants.append(Variant((Edit(name, layer, "set", (position,), value=value),)))
    for low, high in ((0, 2), (1, 4), (3, 4)):
        for name in ("attn_out", "mlp_out"):
            window = [
                Edit(name, layer, "set", (4,), value=clean[name, layer][:, 4:5]) for layer in range(low, high)
            ]
            variants.append(Variant(tuple(window)))
    variants.append(Variant((Edit("z", 1, "zero", heads=(1, 3)),)))
    variants.append(Variant((Edit("z", 2, "set", (3,), heads=(2,), value=clean["z", 2][:, 3:4, 2:3]),)))
    variants.append(Variant((Edit("mlp_post", 2, "scale", (6, 3), units=(5, 7), value=3.0),)))
    variants.append(Variant((Edit("mlp_post", 0, "clamp", value=(-0.1, 0.1)),)))
    variants.append(Variant((Edit("pattern", 1, "set", (4, 8), value=clean["pattern", 1][:, :, [4, 8]]),)))
    variants.append(Variant((Edit("attn_scores", 2, "add", (7,), heads=(0,), keys=(6, 7), value=1.5),)))
    for layer in range(N_LAYERS):
        variants.append(Variant((Edit("pattern", layer, "mask", (8,), keys=(8, 7)),)))
        variants.append(Variant((Edit("pattern", layer, "mask", (6,), heads=(1,), keys=(5,)),)))
        variants.append(Variant((Edit("attn_scores", layer, "mask", (5,), keys=tuple(range(N_POS))),)))
    own = torch.randn(
        N_ROWS, 1, model.dims.d_model, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    variants.append(
        Variant((Edit("resid_pre", 2, "add", (1,), value=own), Edit("mlp_out", 3, "zero", (N_POS - 1,))))
    )
    variants.append(
        Variant(
            (Edit("resid_post", N_LAYERS - 1, "add", value=own), Edit("final_norm", None, "scale", value=0.5))
        )
    )
    variants.append(
        Variant(
            (
                Edit("final_norm", None, "add", (N_POS - 1,), value=own),
                Edit("logits", None, "scale", value=0.5),
            )
        )
    )
    variants.append(Variant((Edit("embed", None, "zero", (4,)),)))
    return variants


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_shared_sweep_equals_full_recompute_for_every_site(name: str) -> None:
    model = tiny(name)
    base = Base(
        tokens(1, N_POS).repeat(N_ROWS, 1), (noise(model), Edit("mlp_out", 2, "scale", (5,), value=0.5))
    )
    variants = every_kind(model)
    shared = sweep(model, base, variants, read=last_logits, method="shared")
    full = sweep(model, base, variants, read=last_logits, method="full")
    assert shared.done.all()
    np.testing.assert_allclose(shared.values["logits"], full.values["logits"], atol=EXACT, rtol=0)
    np.testing.assert_allclose(shared.base["logits"], full.base["logits"], atol=EXACT, rtol=0)
    spread = np.abs(full.values["logits"] - full.base["logits"]).max((1, 2))
    assert (spread > 1e-6).mean() > 0.6, "most variants must change something, or the comparison is empty"


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "gpt_neox"])
def test_float32_agrees_to_1e_5(name: str) -> None:
    model = tiny(name, torch.float32)
    base = Base(tokens(1, N_POS).repeat(N_ROWS, 1), (noise(model),))
    variants = every_kind(model)

    def probabilities(logits: Tensor) -> dict[str, Tensor]:
        return {"p": logits[:, :, -1].softmax(-1)}

    shared = sweep(model, base, variants, read=probabilities, method="shared").values["p"]
    full = sweep(model, base, variants, read=probabilities, method="full").values["p"]
    np.testing.assert_allclose(shared, full, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_sweep_equals_an_implementation_that_shares_no_code(name: str) -> None:
    model, oracle = tiny(name), Oracle(hf_model(name))
    ids = tokens(1, N_POS)
    oracle.shape = (1, N_POS)
    value = torch.randn(model.dims.d_model, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    neuron = torch.randn(model.dims.d_mlp, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    width = model.dims.d_head

    def put(position: int, new: Tensor, part: slice = slice(None)):
        def change(tensor: Tensor) -> Tensor:
            tensor[:, position, part] = new
            return tensor

        return change

    cases = [
        (Edit("resid_pre", 1, "set", (4,), value=value), [("block_input", 1, put(4, value))]),
        (Edit("resid_post", 2, "set", (6,), value=value), [("block_output", 2, put(6, value))]),
        (Edit("attn_out", 1, "set", (3,), value=value), [("attn_out", 1, put(3, value))]),
        (Edit("mlp_out", 0, "set", (8,), value=value), [("mlp_out", 0, put(8, value))]),
        (Edit("mlp_post", 2, "set", (5,), value=neuron), [("mlp_post", 2, put(5, neuron))]),
        (
            Edit("z", 1, "zero", (7,), heads=(2,)),
            [("z", 1, put(7, torch.zeros(()), slice(2 * width, 3 * width)))],
        ),
    ]
    result = sweep(
        model, Base(ids), [Variant((edit,)) for edit, _ in cases], read=last_logits, method="shared"
    )
    for index, (edit, hooks) in enumerate(cases):
        expected = oracle.logits(ids, hooks)[:, -1]
        np.testing.assert_allclose(
            result.values["logits"][index], expected.numpy(), atol=1e-9, rtol=0, err_msg=str(edit)
        )


@pytest.mark.parametrize("name", ["llama", "gemma2", "mistral", "gpt2", "phi"])
def test_cut_edges_equal_an_implementation_that_shares_no_code(name: str) -> None:
    model, oracle = tiny(name), Oracle(hf_model(name))
    ids = tokens(1, N_POS)
    oracle.shape = (1, N_POS)

    def forbid(query: int, keys: list[int], heads: list[int]):
        def change(scores: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
            allowed = allowed.clone()
            for head in heads:
                allowed[:, head, query, keys] = False
            return scores, allowed

        return change

    cases = [((8,), (7,), (0,)), ((6,), (6, 5), (0, 1, 2, 3)), ((5,), tuple(range(N_POS)), (3,))]
    edits = [Edit("pattern", 2, "mask", query, heads, keys=keys) for query, keys, heads in cases]
    result = sweep(model, Base(ids), [Variant((edit,)) for edit in edits], read=last_logits, method="shared")
    for index, (query, keys, heads) in enumerate(cases):
        oracle.square = {2: forbid(query[0], list(keys), list(heads))}
        np.testing.assert_allclose(
            result.values["logits"][index], oracle.logits(ids, [])[:, -1].numpy(), atol=1e-9, rtol=0
        )


def test_what_causality_fixes_equals_the_base_bit_for_bit() -> None:
    model = tiny("llama")
    base = Base(tokens(1, N_POS))
    early = [Variant((Edit("resid_post", N_LAYERS - 1, "zero", (p,)),)) for p in range(N_POS - 1)]
    early += [
        Variant((Edit("attn_out", N_LAYERS - 1, "zero", (3,)),)),
        Variant((Edit("logits", None, "scale", (2,), value=2.0),)),
    ]
    result = sweep(model, base, early, read=last_logits)
    assert plan(model, base, early).computed == 0
    assert (result.values["logits"] == result.base["logits"]).all()


def test_setting_the_stream_to_its_own_value_costs_nothing() -> None:
    model = tiny("llama")
    ids = tokens(1, N_POS)
    own = run(model, ids, capture=[("resid_pre", 0)])["resid_pre", 0]
    result = sweep(
        model, Base(ids), [Variant((Edit("resid_pre", 0, "set", (4,), value=own[:, 4:5]),))], read=last_logits
    )
    assert (result.values["logits"][0] == result.base["logits"][0]).all()


def test_several_read_positions_equal_full_recompute() -> None:
    model = tiny("gemma2")
    base = Base(tokens(1, N_POS).repeat(N_ROWS, 1), (noise(model),))
    variants = every_kind(model)
    shared, full = (
        sweep(model, base, variants, read=lambda x: {"logits": x}, method=method, read_positions=(-3, -2, -1))
        for method in ("shared", "full")
    )
    assert shared.values["logits"].shape[2] == 3
    np.testing.assert_allclose(shared.values["logits"], full.values["logits"], atol=EXACT, rtol=0)


def test_chunks_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("mi_core.engine.sweep")
    planning = importlib.import_module("mi_core.engine.plan")
    model = tiny("qwen3")
    base, variants = Base(tokens(1, N_POS)), every_kind(tiny("qwen3"))
    variants = [
        v for v in variants if all(not isinstance(e.value, Tensor) or e.value.shape[0] == 1 for e in v.edits)
    ]
    whole = sweep(model, base, variants, read=last_logits, method="shared").values["logits"]
    monkeypatch.setattr(planning, "CHUNK_BYTES", 40_000)
    monkeypatch.setattr(module, "LOGIT_BYTES", 2_000)
    seen: list[int] = []
    parts = sweep(
        model, base, variants, read=last_logits, method="shared", on_chunk=lambda done, *_: seen.append(done)
    )
    assert len(seen) > 5
    assert seen[-1] == len(variants)
    np.testing.assert_allclose(parts.values["logits"], whole, atol=EXACT, rtol=0)


def test_plan_counts_token_layers_by_hand() -> None:
    model = tiny("llama")
    base = Base(tokens(1, N_POS).repeat(3, 1))
    variants = [
        Variant((Edit("resid_pre", 1, "zero", (6,)),)),
        Variant((Edit("mlp_out", 3, "zero", (8,)),)),
        Variant((Edit("mlp_out", 3, "zero", (2,)),)),
    ]
    cost = plan(model, base, variants)
    # first: layers 1, 2 on tokens 6, 7, 8, layer 3 on the last token; second: layer 3, last token; third:
    # nothing
    assert cost.token_layers == 3 * (3 * 2 + 1 + 1)
    assert (cost.variants, cost.computed, cost.rows, cost.token_layers_full) == (
        3,
        2,
        3,
        3 * 3 * N_POS * N_LAYERS,
    )


def test_cancel_keeps_what_is_done_and_leaves_no_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    planning = importlib.import_module("mi_core.engine.plan")
    model = tiny("llama")
    monkeypatch.setattr(planning, "CHUNK_BYTES", 40_000)
    variants = every_kind(model)[:60]

    def stop(done: int, _total: int, _indices: np.ndarray, _values: dict[str, np.ndarray]) -> None:
        if done > 20:
            raise Cancelled

    base = Base(tokens(1, N_POS).repeat(N_ROWS, 1))
    result = sweep(model, base, variants, read=last_logits, on_chunk=stop)
    assert result.cancelled
    assert 20 < result.done.sum() < 60
    assert np.isfinite(result.values["logits"][result.done]).all()
    assert np.isnan(result.values["logits"][~result.done]).all()
    assert model.modules_with_hooks() == 0
    assert model.lock.acquire(blocking=False)
    model.lock.release()


def test_cancel_inside_a_layer_leaves_no_hook() -> None:
    model = tiny("llama")

    def stop(_share: float) -> None:
        raise Cancelled

    result = sweep(
        model, Base(tokens(1, N_POS)), [Variant((Edit("z", 0, "zero"),))], read=last_logits, on_tick=stop
    )
    assert result.cancelled
    assert not result.done.any()
    assert model.modules_with_hooks() == 0


def test_an_error_in_the_reader_leaves_no_hook() -> None:
    model = tiny("llama")
    calls = []

    def broken(logits: Tensor) -> dict[str, Tensor]:
        calls.append(logits.shape)
        if len(calls) > 1:
            raise ValueError("reader")
        return {"x": logits[:, 0, 0, 0]}

    with pytest.raises(ValueError, match="reader"):
        sweep(model, Base(tokens(1, N_POS)), [Variant((Edit("z", 0, "zero"),))], read=broken)
    assert model.modules_with_hooks() == 0


def test_out_of_memory_halves_the_chunk_and_goes_on() -> None:
    """A real allocation failure is raised by torch's own error class from inside a layer while the chunk is
    too large."""
    model = tiny("llama")
    base, variants = (
        Base(tokens(1, N_POS)),
        [Variant((Edit("z", layer, "zero", (p,)),)) for layer in range(3) for p in range(N_POS)],
    )
    expected = sweep(model, base, variants, read=last_logits).values["logits"]

    def starve(_module: torch.nn.Module, args: tuple[Tensor, ...]) -> None:
        if args[0].shape[1] > 60:
            raise torch.OutOfMemoryError("too large")

    handle = model.structure.points["mlp_in", 1].module.register_forward_pre_hook(starve)
    try:
        result = sweep(model, base, variants, read=last_logits)
    finally:
        handle.remove()
    np.testing.assert_allclose(result.values["logits"], expected, atol=EXACT, rtol=0)
    assert model.modules_with_hooks() == 0


def test_out_of_memory_with_one_variant_is_told_in_one_sentence() -> None:
    model = tiny("llama")

    def starve(_module: torch.nn.Module, args: tuple[Tensor, ...]) -> None:
        if args[0].shape[0] == 1 and args[0].shape[1] == 7:
            raise torch.OutOfMemoryError("too large")

    handle = model.structure.points["mlp_in", 1].module.register_forward_pre_hook(starve)
    try:
        with pytest.raises(OutOfMemory, match="Not even one variant"):
            sweep(model, Base(tokens(1, N_POS)), [Variant((Edit("z", 1, "zero", (2,)),))], read=last_logits)
    finally:
        handle.remove()
    assert model.modules_with_hooks() == 0


def test_mistakes_are_named() -> None:
    model = tiny("gpt_neox")
    base = Base(tokens(1, N_POS))
    with pytest.raises(SiteMissing, match=r"resid_mid.*parallel.*It has: .*resid_post"):
        sweep(model, base, [Variant((Edit("resid_mid", 0, "zero"),))], read=last_logits)
    with pytest.raises(EditError, match="no edits"):
        sweep(model, base, [Variant(())], read=last_logits)
    with pytest.raises(EditError, match="position 9"):
        sweep(model, base, [Variant((Edit("z", 0, "zero", (9,)),))], read=last_logits)
    with pytest.raises(EditError, match="does not broadcast"):
        sweep(model, base, [Variant((Edit("z", 0, "set", (1,), value=torch.zeros(5)),))], read=last_logits)
    with pytest.raises(SiteMissing, match="layer from 0 to 3"):
        sweep(model, base, [Variant((Edit("z", 4, "zero"),))], read=last_logits)


def test_base_tensors_and_weights_are_never_changed() -> None:
    model = tiny("gpt2")
    before = {name: p.clone() for name, p in model.hf.named_parameters()}
    ids = tokens(1, N_POS)
    clean = run(model, ids, capture=["resid_pre", "z"])
    kept = {place: value.clone() for place, value in clean.items()}
    variants = [
        Variant((Edit("z", 1, "set", (2,), value=clean["z", 1][:, 2:3]),)),
        Variant((Edit("resid_pre", 1, "zero"),)),
    ]
    first = sweep(model, Base(ids), variants, read=last_logits).values["logits"]
    second = sweep(model, Base(ids), variants, read=last_logits).values["logits"]
    assert (first == second).all()
    assert all(torch.equal(clean[place], value) for place, value in kept.items())
    assert all(torch.equal(p, before[name]) for name, p in model.hf.named_parameters())


def test_blocks_have_their_own_forward_back_after_a_sweep() -> None:
    model = tiny("llama")
    variants = [Variant((Edit("z", 1, "zero"),))]

    handle = model.structure.points["final_norm", None].module.register_forward_hook(_fail_on_one_token)
    try:
        with pytest.raises(ZeroDivisionError):
            sweep(model, Base(tokens(1, N_POS)), variants, read=last_logits)
    finally:
        handle.remove()
    assert all("forward" not in block.__dict__ for block in model.structure.blocks)
    assert model.modules_with_hooks() == 0
    sweep(model, Base(tokens(1, N_POS)), variants, read=last_logits)
    assert all("forward" not in block.__dict__ for block in model.structure.blocks)
    assert model.structure.blocks_return_tuples is False


def _fail_on_one_token(_module: object, args: tuple[Tensor, ...], _output: Tensor) -> None:
    if args[0].shape[1] == 1:  # the tail's pass, not the base run's
        raise ZeroDivisionError


def _both_sides_of_a_boundary() -> dict[str, tuple[tuple[Edit, ...], tuple[Edit, ...]]]:
    """Base edits and variant edits of one stream, at the two sites on either side of it."""
    shift, new = torch.linspace(-1, 1, 32, dtype=torch.float64), torch.linspace(1, 2, 32, dtype=torch.float64)
    add, put = (Edit("resid_pre", 2, "add", (3,), value=shift), Edit("resid_post", 1, "set", (3,), value=new))
    at_start = (Edit("resid_pre", 0, "add", (3,), value=shift), Edit("embed", None, "set", (3,), value=new))
    scale = Edit("resid_post", 1, "scale", (3,), value=2.0)
    return {
        "base later, variant earlier": ((add,), (put,)),
        "base earlier, variant later": ((put,), (add,)),
        "both in the base": ((add, scale), (Edit("mlp_out", 2, "zero", (3,)),)),
        "both in the base, entered before": ((add, scale), (Edit("mlp_out", 0, "zero", (3,)),)),
        "both in the variant, listed backwards": ((), (add, put)),
        "entered before": ((add,), (Edit("z", 0, "zero", (3,)), put)),
        "at the embedding": (at_start[:1], at_start[1:]),
        "at the embedding, the other way": (at_start[1:], at_start[:1]),
        "same site, base first": ((scale,), (put,)),
    }


@pytest.mark.parametrize("case", list(_both_sides_of_a_boundary()))
def test_edits_of_one_stream_keep_the_order_of_a_whole_pass(case: str) -> None:
    base_edits, edits = _both_sides_of_a_boundary()[case]
    model = tiny("llama")
    shared, full = (
        sweep(model, Base(tokens(1, N_POS), base_edits), [Variant(edits)], read=last_logits, method=method)
        for method in ("shared", "full")
    )
    np.testing.assert_allclose(shared.values["logits"], full.values["logits"], atol=EXACT, rtol=0)
    assert np.abs(full.values["logits"] - full.base["logits"]).max() > 1e-6


def test_setting_the_stream_to_its_value_is_not_free_when_the_base_edits_it_afterwards() -> None:
    model, ids = tiny("llama"), tokens(1, N_POS)
    steer = Edit("resid_pre", 2, "add", (3,), value=torch.linspace(-1, 1, 32, dtype=torch.float64))
    steered = run(model, ids, capture=[("resid_pre", 2)], edits=[steer])["resid_pre", 2][:, 3:4]
    variants = [Variant((Edit("resid_post", 1, "set", (3,), value=steered),))]
    shared, full = (
        sweep(model, Base(ids, (steer,)), variants, read=last_logits, method=m).values["logits"]
        for m in ("shared", "full")
    )
    np.testing.assert_allclose(shared, full, atol=EXACT, rtol=0)
