"""What an inspection says besides numbers: drawing, config, sites, memory; mistakes; records."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mi_core import load_model
from mi_core.analyses import InspectInputs, InspectResult, inspect_cost, inspect_model
from mi_core.analyses.inspect_architecture import architecture_of
from mi_core.analyses.inspect_config import config_keys
from mi_core.errors import Cancelled, InputError
from mi_core.model.spec import ModelSpec
from mi_core.sites import SITES
from tests.disk import save_model
from tests.tiny import FAMILY_NAMES, tiny


@pytest.fixture(scope="module")
def result() -> InspectResult:
    return inspect_model(load_model("atlas"), InspectInputs(singular_values=True))


def test_a_config_key_that_nobody_reads_is_named(tmp_path: Path) -> None:
    folder = save_model(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    planted = {"attention_temperature": 2.5, "rope_scaling": None, "torch_dtype": "float32"}
    (folder / "config.json").write_text(json.dumps({**config, **planted}))
    result = inspect_model(load_model(ModelSpec(str(folder))))
    assert [(key.key, key.value) for key in result.unread_keys()] == [("attention_temperature", "2.5")]
    assert any("attention_temperature" in warning for warning in result.warnings)
    readers = {key.key: key.reader for key in result.config}
    assert (readers["rope_scaling"], readers["hidden_size"]) == ("transformers", "Lantern")


def test_a_key_of_another_family_is_not_taken_for_read(tmp_path: Path) -> None:
    folder = save_model(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "final_logit_softcapping": 30.0}))
    result = inspect_model(load_model(ModelSpec(str(folder))))
    assert [key.key for key in result.unread_keys()] == ["final_logit_softcapping"], "llama has no softcap"


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_families_read_their_own_keys(family: str) -> None:
    unread = {key.key for key in config_keys(tiny(family)) if key.reader == "nobody"}
    # stablelm's class has no head_dim; the test's configuration gives it one.
    assert unread <= ({"head_dim"} if family == "llama_like" else set())


def test_defaults_and_changes_are_told_apart(result: InspectResult) -> None:
    by_key = {key.key: key for key in result.config}
    assert by_key["hidden_act"].default
    assert not by_key["hidden_size"].default
    assert by_key["initializer_range"].value == "0.03"


@pytest.mark.parametrize(
    ("family", "norms", "parallel", "gated"),
    [
        ("llama", ("input_layernorm", "post_attention_layernorm", "", ""), False, True),
        ("gpt2", ("ln_1", "ln_2", "", ""), False, False),
        ("phi", ("input_layernorm", "input_layernorm", "", ""), True, False),
        ("gpt_neox", ("input_layernorm", "post_attention_layernorm", "", ""), True, False),
        ("gpt_neox_serial", ("input_layernorm", "post_attention_layernorm", "", ""), False, False),
        (
            "gemma2",
            (
                "input_layernorm",
                "pre_feedforward_layernorm",
                "post_attention_layernorm",
                "post_feedforward_layernorm",
            ),
            False,
            True,
        ),
        ("olmo2", ("", "", "post_attention_layernorm", "post_feedforward_layernorm"), False, True),
    ],
)
def test_the_plan_has_the_familys_norms(
    family: str, norms: tuple[str, ...], parallel: bool, gated: bool
) -> None:
    plan = architecture_of(tiny(family))
    found = (plan.attention_norm, plan.mlp_norm, plan.attention_post_norm, plan.mlp_post_norm)
    assert found == norms
    assert (plan.parallel, plan.gated) == (parallel, gated)


def test_the_norms_of_the_plan_are_where_the_plan_says() -> None:
    """A second way: which norm module a block really calls just before attention and just before the MLP."""
    for family in ("llama", "gpt2", "gemma2", "gpt_neox_serial", "opt"):
        model = tiny(family)
        plan, block = architecture_of(model), model.structure.blocks[0]
        calls: list[str] = []
        hooks = [
            module.register_forward_pre_hook(lambda *_, name=name, calls=calls: calls.append(name))
            for name, module in block.named_children()
        ]
        model.hf(torch.tensor([[3, 4, 5]]))
        for hook in hooks:
            hook.remove()
        attention = model.structure.family.attention
        assert calls[calls.index(attention) - 1] == plan.attention_norm
        mlp = model.structure.family.mlp.partition(".")[0]
        assert calls[calls.index(mlp) - 1] == plan.mlp_norm


def test_norms_are_left_out_where_the_sums_of_a_block_were_not_proved() -> None:
    model = tiny("gpt2")
    missing = {**model.structure.missing, "attn_out": "the probe failed"}
    doubtful = dataclasses.replace(model.structure, missing=missing)
    plan = architecture_of(dataclasses.replace(model, structure=doubtful))
    assert not plan.norms_known
    assert (plan.attention_norm, plan.mlp_norm) == ("", "")


def test_softcap_window_and_grouped_heads_are_on_the_plan() -> None:
    plan = architecture_of(tiny("gemma2"))
    assert (plan.softcap, plan.n_heads, plan.n_kv_heads) == (8.0, 4, 2)
    assert plan.layer_kinds == ("sliding", "full", "sliding", "full")


def test_every_site_has_its_shape_or_a_reason() -> None:
    result = inspect_model(tiny("phi"))
    assert [site.name for site in result.sites] == list(SITES)
    sites = {site.name: site for site in result.sites}
    assert "parallel" in sites["resid_mid"].missing
    assert sites["pattern"].sizes == (4, None, None)
    assert sites["k"].sizes == (None, 4, 8)
    assert (sites["embed"].layers, sites["mlp_post"].layers) == (1, 4)


def test_memory_is_that_of_the_weights(result: InspectResult) -> None:
    rows = {row.device: row for row in result.memory}
    parameters = 4 * result.parameters  # float32
    assert parameters <= rows["cpu"].weights < 1.01 * parameters  # and a few buffers
    assert rows["cpu"].peak is not None
    assert rows["cpu"].peak > parameters
    assert rows["cpu"].free is not None


def test_the_proofs_are_the_probes(result: InspectResult) -> None:
    assert len(result.proofs) > 20
    assert all(proof.passed for proof in result.proofs)


def test_cost_grows_with_what_is_asked() -> None:
    model = tiny("llama")
    assert 0 < inspect_cost(model, InspectInputs()) < inspect_cost(model, InspectInputs(singular_values=True))


def test_without_statistics_everything_but_the_numbers_is_there() -> None:
    model = tiny("gpt2")
    bare, full = (inspect_model(model, InspectInputs(statistics=wanted)) for wanted in (False, True))
    assert bare.weights == full.weights
    assert (bare.architecture, bare.sites, bare.config) == (full.architecture, full.sites, full.config)
    assert np.isnan(bare.frobenius).all()
    assert bare.embeddings == ()
    assert all(check.passed for check in bare.checks)
    assert bare.checks
    assert InspectResult.from_json(bare.to_json()).to_json() == bare.to_json()
    assert inspect_cost(model, InspectInputs(statistics=False)) == 0


def test_without_heads_only_whole_weights_are_listed() -> None:
    result = inspect_model(tiny("llama"), InspectInputs(per_head=False))
    assert all(weight.head is None for weight in result.weights)
    assert sum(result.parameters_by_role().values()) == result.parameters


def test_stopping_keeps_what_is_done() -> None:
    def stop(step: object) -> None:
        if getattr(step, "done", 0) == 5:
            raise Cancelled

    result = inspect_model(tiny("llama"), on_step=stop)
    assert result.cancelled
    assert np.isfinite(result.frobenius[0])
    assert np.isnan(result.frobenius[-1])
    assert not result.checks
    assert InspectResult.from_json(result.to_json()).cancelled


def test_inputs_refuse_what_they_cannot_be() -> None:
    with pytest.raises(InputError, match="singular_values"):
        InspectInputs(singular_values="yes")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="without statistics"):
        InspectInputs(statistics=False, singular_values=True)
    with pytest.raises(InputError, match="unknown fields"):
        InspectInputs.from_dict({"heads": True})
    assert InspectInputs.from_dict(InspectInputs(per_head=False).to_dict()) == InspectInputs(per_head=False)


def test_a_record_comes_back_exactly(result: InspectResult) -> None:
    text = result.to_json()
    again = InspectResult.from_json(text)
    assert again.to_json() == text
    assert again.weights == result.weights
    np.testing.assert_array_equal(again.largest_singular_value, result.largest_singular_value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("frobenius", [1.0]),
        ("weights", [{"name": "W_Q"}]),
        ("architecture", {"family": 3}),
        ("norm_edges", []),
        ("memory", [{"device": "cpu", "weights": "1", "free": None, "peak": None}]),
        ("sites", None),
    ],
)
def test_a_damaged_record_is_refused(result: InspectResult, key: str, value: object) -> None:
    record = json.loads(result.to_json())
    with pytest.raises(InputError, match=r"damaged|shape|array"):
        InspectResult.from_json(json.dumps({**record, key: value}))


def test_a_record_with_another_role_is_refused(result: InspectResult) -> None:
    record = json.loads(result.to_json())
    record["weights"][0]["role"] = "<script>"
    with pytest.raises(InputError, match="damaged"):
        InspectResult.from_json(json.dumps(record))


def test_the_table_has_one_number_per_row(result: InspectResult) -> None:
    frame = result.to_frame()
    row = result.index_of("blocks.2.attn.W_O[1]") or 0
    mine = frame[(frame["weight"] == "blocks.2.attn.W_O[1]") & (frame["statistic"] == "frobenius")]
    assert mine["value"].tolist() == [result.frobenius[row]]
    assert mine["shape"].tolist() == ["32 \N{MULTIPLICATION SIGN} 128"]
    assert np.isfinite(frame["value"].to_numpy(float)).all()
    assert len(frame.drop_duplicates(["weight", "statistic"])) == len(frame)
