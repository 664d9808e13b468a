"""Whatever looks at a prompt shares one forward pass over it; timings on Atlas are what "instant" means."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mi_core.analyses import (
    AttentionInputs,
    AttributionInputs,
    LogitLensInputs,
    LogitLensStepsInputs,
    NeuronPromptInputs,
    NextTokenInputs,
    attention_patterns,
    attribution,
    logit_lens,
    logit_lens_steps,
    neuron_prompt,
    next_token,
)
from mi_core.engine.holder import load_model
from mi_core.model.model import LoadedModel

PROMPT = "The Louvre Museum is located in the city of"
LOOKS: dict[str, tuple[Callable[..., Any], Any]] = {
    "next token": (next_token, NextTokenInputs(PROMPT)),
    "attention": (attention_patterns, AttentionInputs(PROMPT)),
    "value-weighted": (attention_patterns, AttentionInputs(PROMPT, show="value_weighted")),
    "contribution": (attention_patterns, AttentionInputs(PROMPT, show="contribution")),
    "logit lens": (logit_lens, LogitLensInputs(PROMPT)),
    "lens of attention": (logit_lens, LogitLensInputs(PROMPT, site="attn_out")),
    "steps": (logit_lens_steps, LogitLensStepsInputs(PROMPT)),
    "neurons": (neuron_prompt, NeuronPromptInputs(PROMPT)),
    "attribution": (attribution, AttributionInputs(PROMPT, split_heads=("L4H0",))),
}


@pytest.fixture(scope="module")
def atlas() -> LoadedModel:
    return load_model("atlas")


@pytest.fixture
def passes(atlas: LoadedModel) -> Iterator[list[int]]:
    """Grows by one with every forward pass that computes attention."""
    seen: list[int] = []
    handle = atlas.structure.attention[0].register_forward_hook(lambda *_: seen.append(1))
    atlas.observations.clear()
    yield seen
    handle.remove()


def test_all_pages_together_run_the_model_once(atlas: LoadedModel, passes: list[int]) -> None:
    for look, inputs in LOOKS.values():
        assert all(check.passed for check in look(atlas, inputs).checks)
    assert len(passes) == 1


@pytest.mark.parametrize("first", LOOKS)
def test_whoever_comes_first_pays_for_one_pass(atlas: LoadedModel, passes: list[int], first: str) -> None:
    look, inputs = LOOKS[first]
    look(atlas, inputs)
    assert len(passes) == 1


def test_looking_at_atlas_is_instant(atlas: LoadedModel) -> None:
    for look, inputs in LOOKS.values():
        look(atlas, inputs)
    for name, (look, inputs) in LOOKS.items():
        atlas.observations.clear()
        started = time.thread_time()  # what others do on this machine is not its fault
        look(atlas, inputs)
        assert time.thread_time() - started < 1.0, name  # 10 to 40 ms on an idle core; a page waits 1.2 s
