"""Lens, attribution and attention patterns as transformer-lens 4.3.0 computes them, on random weights.

All gains and biases are random, so that one that is left out or counted twice shows.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedConfig

from mi_core.analyses import (
    AttentionInputs,
    AttributionInputs,
    LogitLensInputs,
    attention_patterns,
    attribution,
    logit_lens,
)
from mi_core.analyses.logit_lens_inputs import LensSite
from mi_core.answers import choose_answer
from mi_core.engine.holder import load_model
from mi_core.model.model import LoadedModel
from mi_core.tokens import tokenize
from tests.conformance.oracles import ask
from tests.words import word_tokenizer

pytestmark = [
    pytest.mark.conformance,
    pytest.mark.skipif(
        importlib.util.find_spec("transformer_lens") is None,
        reason="transformer-lens is not installed: pip install -r requirements-conformance.txt",
    ),
]

PROMPT, ANSWER, DISTRACTOR = "When Mary and John went to the store John gave a drink to", " Mary", " John"
VOCABULARY = 50
TOLERANCE = 1e-5
CONFIGS: dict[str, PreTrainedConfig] = {
    "gpt2": GPT2Config(
        n_layer=3, n_embd=32, n_head=4, n_positions=32, vocab_size=VOCABULARY,
        bos_token_id=0, eos_token_id=1, initializer_range=0.3,
    ),
    "llama_gqa": LlamaConfig(
        num_hidden_layers=3, hidden_size=32, intermediate_size=48, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=VOCABULARY, max_position_embeddings=32,
        bos_token_id=0, eos_token_id=1, initializer_range=0.3,
    ),
}  # fmt: skip


def save_model(folder: Path, config: PreTrainedConfig) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.dim() == 1:  # gains around 1, biases around 0
            parameter.data += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    word_tokenizer(size=VOCABULARY).save_pretrained(folder)


def token_ids(model: LoadedModel) -> tuple[int, int]:
    """Ids of answer and distractor."""
    prompt = tokenize(model.tokenizer, PROMPT)
    answer, distractor = (choose_answer(model.tokenizer, prompt, text) for text in (ANSWER, DISTRACTOR))
    return answer.ids[0], distractor.ids[0]


def oracle(folder: Path, model: LoadedModel) -> dict[str, np.ndarray]:
    answer, distractor = token_ids(model)
    asked = {"tokens": tokenize(model.tokenizer, PROMPT).ids, "answer": answer, "distractor": distractor}
    return ask("transformer_lens_look_oracle.py", folder, asked)


@pytest.fixture(scope="module", params=list(CONFIGS))
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """Our model and the other tool's numbers, from one folder of weights."""
    folder = tmp_path_factory.mktemp(request.param)
    save_model(folder, CONFIGS[request.param])
    model = load_model(str(folder))
    return model, oracle(folder, model)


SITES: dict[LensSite, slice] = {
    "resid_pre": slice(0, -1, 2),
    "resid_mid": slice(1, None, 2),
    "resid_post": slice(2, None, 2),
}
"""Where the other tool's accumulated stream has them: before block 0, inside it, before block 1, ..."""


@pytest.mark.parametrize("site", list(SITES))
def test_every_distribution_of_the_lens(both: tuple, site: LensSite) -> None:
    """Ours keeps the most probable tokens of a cell; asked for as many as there are, it keeps all."""
    model, expected = both
    result = logit_lens(model, LogitLensInputs(PROMPT, answer=ANSWER, site=site, k=VOCABULARY))
    ours = np.empty((len(result.layers), len(result.positions), VOCABULARY))
    np.put_along_axis(ours, result.top_ids, result.top_probabilities.astype(float), -1)
    theirs = np.exp(expected["lens"][SITES[site]])
    assert np.ptp(theirs) > 0.3, "the lens is flat, so agreement would prove little"
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE)


def test_statistics_of_the_lens(both: tuple) -> None:
    model, expected = both
    result = logit_lens(model, LogitLensInputs(PROMPT, answer=ANSWER))
    log_p = expected["lens"][SITES["resid_post"]].astype(float)
    final = log_p[-1]
    target = log_p[..., result.words[0].id]
    np.testing.assert_allclose(result.word_log_probability[..., 0], target, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(result.entropy, -(np.exp(log_p) * log_p).sum(-1), rtol=0, atol=TOLERANCE)
    kl = (np.exp(final) * (final - log_p)).sum(-1)
    np.testing.assert_allclose(result.kl, kl, rtol=0, atol=TOLERANCE)
    assert (result.word_rank[..., 0] == 1 + (log_p > target[..., None]).sum(-1)).all()


def test_contributions_of_parts_and_heads(both: tuple) -> None:
    model, expected = both
    result = attribution(model, AttributionInputs(PROMPT, answer=ANSWER, distractor=DISTRACTOR))
    theirs = dict(zip(expected["labels"].tolist(), expected["parts"].tolist(), strict=True))
    embedding = [value for label, value in theirs.items() if "embed" in label]
    layers = range(model.dims.n_layers)
    scale = np.abs(expected["parts"]).max()
    assert scale > 0.1, "nothing contributes, so agreement would prove little"
    np.testing.assert_allclose(result.embedding[0], embedding, rtol=0, atol=TOLERANCE)
    for ours, name in ((result.attention, "attn_out"), (result.mlp, "mlp_out")):
        expected_parts = [theirs[f"{layer}_{name}"] for layer in layers]
        np.testing.assert_allclose(ours[0], expected_parts, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(result.heads[0], expected["heads"], rtol=0, atol=TOLERANCE)


def test_parts_and_biases_are_the_other_tools_logit_difference(both: tuple) -> None:
    model, expected = both
    result = attribution(model, AttributionInputs(PROMPT, answer=ANSWER, distractor=DISTRACTOR))
    last = expected["logits"][-1]
    total = (
        result.embedding[0].sum() + result.attention[0].sum() + result.mlp[0].sum() + float(result.bias[0])
    )
    answer, distractor = token_ids(model)
    assert total == pytest.approx(float(last[answer] - last[distractor]), abs=TOLERANCE)


def test_patterns_of_every_head(both: tuple) -> None:
    model, expected = both
    result = attention_patterns(model, AttentionInputs(PROMPT))
    assert np.ptp(expected["pattern"]) > 0.5
    np.testing.assert_allclose(result.values, expected["pattern"], rtol=0, atol=TOLERANCE)
