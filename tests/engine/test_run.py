"""run: the identities that need no reference, then hand-made cases, then mistakes."""

import threading

import pytest
import torch

from mi_core.engine import Edit, build_model, run
from mi_core.errors import EditError, InputError, SiteMissing
from mi_core.model.measure import embedding_sigma
from mi_core.model.model import LoadedModel
from mi_core.sites import CANDLE_MI, SITES, full_name
from tests.tiny import FAMILY_NAMES, N_LAYERS, hf_model, tiny, tokens
from tests.two_passes import agree

N_POS = 7


def everything(model: LoadedModel) -> list[str]:
    return model.structure.available()


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_no_edits_give_the_models_own_logits_and_capturing_changes_nothing(name: str) -> None:
    model, own = tiny(name), hf_model(name)
    ids = tokens(2, N_POS)
    with torch.no_grad():
        expected = own(input_ids=ids, use_cache=False).logits
    plain, captured = run(model, ids), run(model, ids, capture=everything(model))
    torch.testing.assert_close(
        plain.logits, expected, atol=1e-5, rtol=0
    )  # families take their softmax in float32
    torch.testing.assert_close(captured.logits, plain.logits, atol=1e-12, rtol=0)
    assert model.modules_with_hooks() == 0


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_every_site_has_the_shape_of_the_table(name: str) -> None:
    model = tiny(name)
    got = run(model, tokens(2, N_POS), capture=everything(model))
    expected = {(n, layer) for n in everything(model) for layer in model.structure.layers_of(n)}
    assert set(got) == expected
    for (site_name, _), value in got.items():
        assert tuple(value.shape) == (2, *model.structure.shape(site_name, N_POS))
    missing = set(SITES) - set(everything(model))
    rotary = model.structure.family.rotary
    assert missing == ({"resid_mid"} if model.structure.parallel else set()) | (
        set() if rotary else {"rot_q", "rot_k"}
    )


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_the_stream_adds_up_and_rows_of_attention_sum_to_one(name: str) -> None:
    model = tiny(name)
    got = run(model, tokens(2, N_POS), capture=everything(model))
    torch.testing.assert_close(got["embed", None], got["resid_pre", 0], atol=0, rtol=0)
    for layer in range(N_LAYERS):
        added = got["resid_pre", layer] + got["attn_out", layer] + got["mlp_out", layer]
        torch.testing.assert_close(added, got["resid_post", layer], atol=1e-10, rtol=1e-10)
        if "resid_mid" in everything(model):
            middle = got["resid_pre", layer] + got["attn_out", layer]
            torch.testing.assert_close(middle, got["resid_mid", layer], atol=1e-12, rtol=0)
        if layer:
            torch.testing.assert_close(got["resid_post", layer - 1], got["resid_pre", layer], atol=0, rtol=0)
        torch.testing.assert_close(
            got["pattern", layer].sum(-1), torch.ones(2, 4, N_POS, dtype=torch.float64)
        )
        keys = torch.repeat_interleave(got["v", layer], model.dims.n_heads // model.dims.n_kv_heads, 2)
        z = torch.einsum("bhqk,bkhd->bqhd", got["pattern", layer], keys)
        torch.testing.assert_close(z, got["z", layer], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_patching_every_position_of_one_layer_gives_the_clean_run(name: str) -> None:
    model = tiny(name)
    clean, other = tokens(1, N_POS, seed=1), tokens(1, N_POS, seed=2)
    want = run(model, clean, capture=["resid_pre", "resid_post"])
    for site_name in ("resid_pre", "resid_post"):
        for layer in range(N_LAYERS):
            got = run(model, other, edits=[Edit(site_name, layer, "set", value=want[site_name, layer])])
            torch.testing.assert_close(got.logits, want.logits, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_setting_any_site_to_its_own_value_changes_nothing(name: str) -> None:
    model = tiny(name)
    ids = tokens(2, N_POS)
    got = run(model, ids, capture=everything(model))
    for place, value in got.items():
        again = run(model, ids, edits=[Edit(*place, operation="set", value=value)])
        torch.testing.assert_close(again.logits, got.logits, atol=1e-9, rtol=0, msg=str(place))


def test_capture_is_after_edits_and_before_them_on_request() -> None:
    model, ids = tiny("llama"), tokens(1, N_POS)
    edit = Edit("z", 1, "zero", heads=(0,))
    after = run(model, ids, capture=[("z", 1)], edits=[edit])["z", 1]
    before = run(model, ids, capture=[("z", 1)], edits=[edit], before_edits=True)["z", 1]
    plain = run(model, ids, capture=[("z", 1)])["z", 1]
    assert (after[:, :, 0] == 0).all()
    torch.testing.assert_close(after[:, :, 1:], plain[:, :, 1:], atol=0, rtol=0)
    torch.testing.assert_close(before, plain, atol=0, rtol=0)


def test_edits_of_one_place_act_in_order() -> None:
    model, ids = tiny("llama"), tokens(2, N_POS)
    double_then_add = [
        Edit("mlp_out", 1, "scale", (2,), value=2.0),
        Edit("mlp_out", 1, "add", (1, 2), value=1.0),
    ]
    plain = run(model, ids, capture=[("mlp_out", 1)])["mlp_out", 1]
    got = run(model, ids, capture=[("mlp_out", 1)], edits=double_then_add)["mlp_out", 1]
    torch.testing.assert_close(got[:, 2], 2 * plain[:, 2] + 1)
    torch.testing.assert_close(got[:, 1], plain[:, 1] + 1)
    swapped = run(model, ids, capture=[("mlp_out", 1)], edits=double_then_add[::-1])["mlp_out", 1]
    torch.testing.assert_close(swapped[:, 2], 2 * (plain[:, 2] + 1))


def test_values_may_differ_by_row() -> None:
    model, ids = tiny("llama"), tokens(1, N_POS)
    values = torch.randn(3, 1, 32, dtype=torch.float64)
    together = run(model, ids.repeat(3, 1), edits=[Edit("resid_post", 1, "set", (2,), value=values)]).logits
    for row in range(3):
        alone = run(model, ids, edits=[Edit("resid_post", 1, "set", (2,), value=values[row])]).logits
        torch.testing.assert_close(together[row], alone[0], atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
def test_a_cut_edge_has_no_attention_and_the_row_still_sums_to_one(name: str) -> None:
    model = tiny(name)
    cut = Edit("pattern", 1, "mask", (5,), (2,), keys=(3,))
    got = run(model, tokens(1, N_POS), capture=[("pattern", 1)], edits=[cut])
    row = got["pattern", 1][0, 2, 5]
    assert row[3] == 0
    assert got.cut_rows == 0
    torch.testing.assert_close(row.sum(), torch.ones((), dtype=torch.float64))
    assert (row[6:] == 0).all(), "the causal mask holds"
    plain = run(model, tokens(1, N_POS), capture=[("pattern", 1)])["pattern", 1][0, 2, 5]
    expected = plain / (1 - plain[3])
    expected[3] = 0
    torch.testing.assert_close(row, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", ["llama", "gemma2", "mistral", "gpt2"])
def test_a_fully_cut_row_gives_zero_and_is_counted_never_nan(name: str) -> None:
    model = tiny(name)
    cut = Edit("pattern", 1, "mask", (5,), (2,), keys=tuple(range(N_POS)))
    got = run(model, tokens(2, N_POS), capture=[("pattern", 1), ("z", 1)], edits=[cut])
    assert (got["pattern", 1][:, 2, 5] == 0).all()
    assert (got["z", 1][:, 5, 2] == 0).all()
    assert got.cut_rows == 2
    assert torch.isfinite(got.logits).all()


def test_two_threads_with_different_edits_get_the_answers_they_get_alone() -> None:
    model, ids = tiny("llama"), tokens(1, N_POS)
    edits = [[Edit("mlp_out", 1, "zero")], [Edit("z", 2, "scale", heads=(1,), value=3.0)], []]
    alone = [run(model, ids, edits=each).logits for each in edits]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(40):
            if not agree(run(model, ids, edits=edits[index]).logits, alone[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert model.modules_with_hooks() == 0


def test_hooks_come_off_after_an_error_inside_the_model() -> None:
    model = tiny("gpt2")

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    handle = model.structure.blocks[2].register_forward_pre_hook(fail)
    try:
        with pytest.raises(ZeroDivisionError):
            run(model, tokens(1, N_POS), capture=everything(model), edits=[Edit("z", 1, "zero")])
    finally:
        handle.remove()
    assert model.modules_with_hooks() == 0
    assert model.lock.acquire(blocking=False)
    model.lock.release()


def test_a_model_called_outside_a_run_is_untouched() -> None:
    model, ids = tiny("gemma2"), tokens(1, N_POS)
    with torch.no_grad():
        torch.testing.assert_close(
            model.hf(input_ids=ids, use_cache=False).logits, run(model, ids).logits, atol=1e-12, rtol=0
        )


def test_eager_and_fused_attention_agree() -> None:
    from types import SimpleNamespace

    eager = build_model(hf_model("llama"), spec=SimpleNamespace(attention="eager"))
    assert eager.eager
    torch.testing.assert_close(
        run(eager, tokens(1, N_POS)).logits, run(tiny("llama"), tokens(1, N_POS)).logits, atol=1e-10, rtol=0
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_pass_the_probe(dtype: torch.dtype) -> None:
    model = build_model(hf_model("llama", dtype))
    assert model.report.passed, [c for c in model.report.checks if not c.passed]
    assert run(model, tokens(1, N_POS), edits=[Edit("z", 1, "zero")]).logits.dtype == dtype


def test_sigma_is_that_of_the_modules_outputs() -> None:
    for name, scale in (("llama", 1.0), ("gemma2", 32**0.5), ("gpt2", 1.0)):
        hf = hf_model(name)
        expected = scale * hf.get_input_embeddings().weight.detach().double().std()
        assert embedding_sigma(hf) == pytest.approx(float(expected), rel=1e-5)
        ids = torch.tensor([5, 6, 6])
        some = hf.get_input_embeddings()(ids).detach().double().std()
        assert embedding_sigma(hf, ids) == pytest.approx(float(some), rel=1e-5)


def test_mistakes_are_named() -> None:
    model, ids = tiny("llama"), tokens(1, N_POS)
    with pytest.raises(SiteMissing, match="no site called 'resid'"):
        run(model, ids, capture=["resid"])
    with pytest.raises(
        SiteMissing, match=r"'rot_q' is not available on this gpt2.*nothing is rotated.*It has: embed"
    ):
        run(tiny("gpt2"), ids, capture=["rot_q"])
    with pytest.raises(SiteMissing, match="layer from 0 to 3"):
        run(model, ids, capture=[("z", 9)])
    with pytest.raises(InputError, match="not in the vocabulary"):
        run(model, torch.tensor([[1, 97]]))
    with pytest.raises(InputError, match="nothing to run"):
        run(model, torch.zeros(1, 0, dtype=torch.long))
    with pytest.raises(InputError, match=r"65 tokens.*at most 64"):
        run(model, tokens(1, 65))
    with pytest.raises(EditError, match="head 4"):
        run(model, ids, edits=[Edit("z", 0, "zero", heads=(4,))])
    with pytest.raises(EditError, match="head 2"):
        run(
            model, ids, edits=[Edit("k", 0, "zero", heads=(2,))]
        )  # two key/value heads: no padding with zeros


def test_the_table_maps_candle_mis_names_to_sites_of_the_same_meaning() -> None:
    assert {name for name in CANDLE_MI.values() if name} <= set(SITES)
    assert CANDLE_MI["MlpPre"] == "mlp_in"
    assert CANDLE_MI["AttnScores"] is None


def test_full_names_belong_to_one_site_each() -> None:
    names = [full_name(name, 3) for name in SITES if name != "embed"]  # embed is block 0's resid_pre
    assert len(set(names)) == len(names)
    assert full_name("pattern", 3) == "blocks.3.attn.hook_pattern"


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_unembedding_only_the_end_gives_the_same_logits(name: str) -> None:
    model, ids = tiny(name), tokens(2, N_POS)
    whole = run(model, ids).logits
    torch.testing.assert_close(run(model, ids, last=2).logits, whole[:, -2:], atol=1e-12, rtol=0)
    doubled = run(model, ids, last=2, edits=[Edit("logits", None, "scale", value=2.0)]).logits
    torch.testing.assert_close(doubled, 2 * whole[:, -2:], atol=1e-12, rtol=0)
