"""The tools that make the bundled transcoder agree with the library that uses it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from mi_core import load_model
from mi_core.engine import run
from mi_core.transcoders import load_transcoder
from mi_core.transcoders.quality import replacement_edits

ROOT = Path(__file__).resolve().parents[2]
ATLAS = ROOT / "assets" / "atlas"
FOLDER = ATLAS / "transcoders" / "atlas-clt"
PROMPT = "The capital of France is Paris. Albert Einstein worked in the field of"


@pytest.fixture(scope="module")
def tuner() -> Iterator[Any]:
    """A tuner of the bundled transcoder, before its first step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        clt_stream, tune_clt = (import_module(name) for name in ("clt_stream", "tune_clt"))
        hf = LlamaForCausalLM.from_pretrained(ATLAS, attn_implementation="eager").eval().requires_grad_(False)
        stream = clt_stream.open_stream(hf, load_model("atlas").tokenizer, 0)
        args = Namespace(rate=0.0, steps=1, minutes=1.0)
        yield tune_clt.Tuner(stream, tune_clt.load(FOLDER), args)


def test_taken_apart_and_folded_again_it_is_the_same_transcoder(tuner: Any) -> None:
    named = tuner.named()
    for key, value in import_module("clt_merge").load(FOLDER).items():
        torch.testing.assert_close(named[key], value, rtol=1e-4, atol=1e-5)


def test_the_replacement_that_learns_is_the_one_that_is_measured(tuner: Any) -> None:
    """Differentiable, through transformers' own modules, against edits of the engine."""
    model = load_model("atlas")
    ids = torch.tensor([model.tokenizer(PROMPT)["input_ids"]])
    length = ids.shape[1]
    never = torch.full((length, length), torch.finfo(torch.float32).min).triu(1)[None, None]
    with torch.no_grad():
        states = tuner.replacement.states(
            import_module("clt_stream").Text(ids, never, torch.arange(1, length))
        )
        ours = tuner.stream.model.lm_head(states)
    edits = replacement_edits(model, load_transcoder(model), ids, 1)
    measured = run(model, ids, edits=edits).logits[0, 1:]
    assert (ours - run(model, ids).logits[0, 1:]).abs().max() > 0.1, "replacing changes something"
    torch.testing.assert_close(ours, measured, rtol=1e-3, atol=1e-3)


def test_thresholds_follow_the_count_of_active_features(tuner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    active = torch.zeros(8, 10, 4)
    active[:, :, 0] = 1  # one active feature per token
    before = tuner.replacement.threshold
    for wanted, moved in ((2.0, -1), (0.5, 1), (1.0, 0)):
        monkeypatch.setattr(tuner.replacement, "threshold", before.clone())
        monkeypatch.setattr(tuner, "l0", torch.full((8,), wanted))
        tuner.hold(active)
        assert torch.equal((tuner.replacement.threshold - before).sign(), torch.full_like(before, moved))
