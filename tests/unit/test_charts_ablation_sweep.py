"""Figures of sweeps: what is drawn is the result's, and every one renders and can be repeated."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from mi_core.analyses import (
    AblationSweepInputs,
    AblationSweepResult,
    AttentionDoseInputs,
    JointAblationInputs,
    ablation_sweep,
    attention_dose,
    joint_ablation,
)
from mi_core.charts.ablation_sweep import SHOWN
from mi_core.exports.ablation_sweep import (
    attention_figure,
    dose_figure,
    joint_figure,
    ranking_figure,
    sweep_figure,
)
from mi_core.exports.export import export
from mi_core.exports.figure import Figure
from tests.attribution_cases import PROMPT, model_of

INPUTS = AblationSweepInputs(PROMPT, answer=" Paris", distractor=" Rome")


@lru_cache(maxsize=8)
def swept(what: str, heads: tuple[str, ...] = ()) -> AblationSweepResult:
    return ablation_sweep(model_of(), replace(INPUTS, what=what, heads=heads))


@lru_cache(maxsize=1)
def figures() -> dict[str, Figure]:
    listed = JointAblationInputs(PROMPT, "L1H2:zero, e4-1@L2", answer=" Paris", distractor=" Rome")
    joint = joint_ablation(model_of(), listed)
    dose = attention_dose(
        model_of(), AttentionDoseInputs(PROMPT, key=1, layer=2, answer=" Paris", wished=0.01)
    )
    return {
        "heads": sweep_figure(swept("heads"), "logit", chosen=(1, 2)),
        "modules": sweep_figure(swept("modules"), "kl"),
        "edges": sweep_figure(swept("edges"), "rank"),
        "edges of heads": sweep_figure(swept("edges", ("L3H1", "L0H2")), "probability"),
        "keys": sweep_figure(swept("keys"), "top1_flip"),
        "ranking": ranking_figure(swept("keys"), "logit_difference", chosen=(0, 1)),
        "joint": joint_figure(joint, "logit"),
        "dose": dose_figure(dose, "logit"),
        "attention": attention_figure(dose),
    }


NAMES = ("heads", "modules", "edges", "edges of heads", "keys", "ranking", "joint", "dose", "attention")


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_has_its_words_its_table_and_a_recipe(name):
    figure = figures()[name]
    assert "=" in figure.caption
    assert "edited minus baseline" in figure.caption or name == "attention"
    assert "Model tiny" in figure.caption or "weights" in figure.caption
    assert "assert_allclose" in figure.recipe
    assert len(figure.frame()) > 1
    assert all(check.passed for check in figure.checks)
    assert figure.description.startswith(("Heatmap of", "Bars of", "Line of"))


@pytest.mark.parametrize("name", ["heads", "ranking", "dose"])
def test_a_figure_can_be_exported(name):
    assert b"<svg" in export(figures()[name], "svg")


def test_cells_are_the_results_effects():
    result, spec = swept("heads"), figures()["heads"].spec
    effects = result.effect("logit")
    for cell in spec["datasets"]["cells"]:
        assert cell["value"] == pytest.approx(float(effects[cell["row"], cell["part"]]))
        assert cell["note"].startswith(f"L{cell['row']}H{cell['part']}:zero; top token ")
    assert len(spec["datasets"]["chosen"]) == 1


def test_the_ranking_is_cut_and_has_the_floor():
    result, spec = swept("keys"), figures()["ranking"].spec
    bars = spec["datasets"]["bars"]
    effects = result.effect("logit_difference")
    assert len(bars) == min(SHOWN, effects.size)
    wanted = sorted(np.abs(effects).ravel().tolist(), reverse=True)[: len(bars)]
    np.testing.assert_allclose([abs(bar["value"]) for bar in bars], wanted)
    assert spec["datasets"]["rules"][0]["value"] == pytest.approx(result.floor("logit_difference"))


def test_cells_that_were_not_run_are_hatched_and_said():
    whole = swept("heads")
    values, done, top_ids = whole.values.copy(), whole.done.copy(), whole.top_ids.copy()
    values[:, 3], done[3], top_ids[3] = np.nan, False, -1
    part = replace(whole, values=values, done=done, top_ids=top_ids, cancelled=True)
    figure = sweep_figure(part, "logit")
    assert len(figure.spec["datasets"]["missing"]) == 4
    assert "4 hatched cells were not run" in figure.caption
    assert len(ranking_figure(part, "logit").spec["datasets"]["bars"]) == 12


def test_the_caption_says_what_stands_in_the_place_of_a_part():
    inputs = replace(INPUTS, mode="mean", positions="last", interventions="L0H1:zero")
    caption = sweep_figure(ablation_sweep(model_of(), inputs), "probability").caption
    assert "reference prompts 'general'" in caption
    assert "at the last token only" in caption
    assert "The baseline already has" in caption
    assert "L0H1:zero" in caption
