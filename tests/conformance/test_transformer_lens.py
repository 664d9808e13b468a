"""The same numbers as transformer-lens 4.3.0, an independent implementation with a forward pass per cell.

Its grids put an activation of the clean run into the corrupted run, for each (layer, position) or (layer,
position, head), and read the logit difference at the last position.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

from mi_core.engine import Base, Edit, Variant, build_model, run, sweep
from mi_core.model.model import LoadedModel
from tests.conformance.oracles import ask

pytestmark = [
    pytest.mark.conformance,
    pytest.mark.skipif(
        importlib.util.find_spec("transformer_lens") is None,
        reason="transformer-lens is not installed: pip install -r requirements-conformance.txt",
    ),
]

CLEAN, CORRUPTED = [0, 5, 6, 7, 8, 9, 10], [0, 5, 16, 17, 8, 19, 10]
ANSWER, DISTRACTOR = 3, 4
GRIDS = {"resid_pre": "resid_pre", "attn_out": "attn_out", "mlp_out": "mlp_out", "attn_head_out_by_pos": "z"}
VOCABULARY = 40
CONFIGS: dict[str, PreTrainedConfig] = {
    "gpt2": GPT2Config(
        n_layer=3, n_embd=32, n_head=4, n_positions=32, vocab_size=VOCABULARY,
        bos_token_id=0, eos_token_id=0, initializer_range=0.3,
    ),
    "llama_gqa": LlamaConfig(
        num_hidden_layers=3, hidden_size=32, intermediate_size=48, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=VOCABULARY, max_position_embeddings=32,
        bos_token_id=0, eos_token_id=0, initializer_range=0.3,
    ),
}  # fmt: skip


def save_model(folder: Path, config: PreTrainedConfig) -> None:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    words = {"<s>": 0, **{f"w{index}": index for index in range(1, VOCABULARY)}}
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="<s>")), bos_token="<s>", eos_token="<s>"
    ).save_pretrained(folder)


def oracle(folder: Path) -> dict[str, np.ndarray]:
    asked = {"clean": CLEAN, "corrupted": CORRUPTED, "answer": ANSWER, "distractor": DISTRACTOR}
    return ask("transformer_lens_oracle.py", folder, {**asked, "dtype": "float32", "grids": list(GRIDS)})


@pytest.fixture(scope="module", params=list(CONFIGS))
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """Our model and the other tool's grids, from one folder of weights."""
    folder = tmp_path_factory.mktemp(request.param)
    save_model(folder, CONFIGS[request.param])
    return build_model(AutoModelForCausalLM.from_pretrained(folder)), oracle(folder)


def logit_difference(logits: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"logit_difference": logits[:, 0, -1, ANSWER] - logits[:, 0, -1, DISTRACTOR]}


def cells(model: LoadedModel, site: str, by_head: bool) -> Iterator[Edit]:
    """One edit a cell, in the other tool's order: layer, position, head."""
    clean = run(model, torch.tensor([CLEAN]), capture=[(site, None)])
    for layer in range(model.dims.n_layers):
        source = clean[(site, layer)]
        for position in range(len(CLEAN)):
            if not by_head:
                yield Edit(
                    site, layer, "set", positions=(position,), value=source[:, position : position + 1]
                )
                continue
            for head in range(model.dims.n_heads):
                value = source[:, position : position + 1, head : head + 1]
                yield Edit(site, layer, "set", positions=(position,), heads=(head,), value=value)


@pytest.mark.parametrize("grid", list(GRIDS))
def test_sweep_gives_the_grids_of_transformer_lens(both: tuple, grid: str) -> None:
    model, expected = both
    variants = [
        Variant((edit,)) for edit in cells(model, GRIDS[grid], by_head=grid.endswith("head_out_by_pos"))
    ]
    out = sweep(model, Base(torch.tensor([CORRUPTED])), variants, read=logit_difference)
    ours = out.values["logit_difference"].reshape(expected[grid].shape)
    assert np.ptp(ours) > 0.1, "the grid is flat, so agreement would prove little"
    np.testing.assert_allclose(ours, expected[grid], rtol=0, atol=1e-5)


def test_both_tools_agree_on_the_two_runs_themselves(both: tuple) -> None:
    model, expected = both
    for name, tokens in (("clean", CLEAN), ("corrupted", CORRUPTED)):
        logits = run(model, torch.tensor([tokens])).logits[0, -1]
        assert float(logits[ANSWER] - logits[DISTRACTOR]) == pytest.approx(float(expected[name]), abs=1e-5)
