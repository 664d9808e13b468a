"""The logit lens: identities on every family, then the same numbers by another way."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mi_core.analyses import (
    LogitLensInputs,
    LogitLensResult,
    LogitLensStepsInputs,
    logit_lens,
    logit_lens_statistics,
)
from mi_core.analyses.logit_lens_inputs import LensSite
from mi_core.analyses.logit_lens_run import Lens, read_through
from mi_core.analyses.logit_lens_steps_run import logit_lens_steps
from mi_core.analyses.tuned_lens import TunedLens
from mi_core.analyses.tuned_lens_store import save_lens
from mi_core.engine import build_model
from mi_core.errors import InputError, ModelError, SiteMissing
from mi_core.model.model import LoadedModel
from tests.tiny import FAMILY_NAMES, N_LAYERS, VOCAB, hf_model
from tests.words import word_tokenizer

PROMPT = "The Eiffel Tower is in the city of"
INPUTS = LogitLensInputs(PROMPT, tracked=("Rome", "London"), k=VOCAB)
PARALLEL = ("gpt_neox", "phi", "phi_qk_norm")


@lru_cache(maxsize=32)
def model_of(name: str, dtype: torch.dtype = torch.float64) -> LoadedModel:
    return build_model(hf_model(name, dtype), word_tokenizer(bos=True))


@lru_cache(maxsize=64)
def lens_of(name: str, site: LensSite = "resid_post") -> LogitLensResult:
    return logit_lens(model_of(name), replace(INPUTS, site=site))


def own_log_p(model: LoadedModel, ids: Any) -> torch.Tensor:
    """Log-probabilities as the Hugging Face model returns them."""
    with torch.inference_mode():
        return model.hf(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0].log_softmax(-1)


def all_log_p(result: LogitLensResult) -> np.ndarray:
    """[layer, position, vocab]: with k = vocabulary size the top tokens are the whole distribution."""
    whole = np.full(result.top_ids.shape, np.nan)
    np.put_along_axis(whole, result.top_ids, np.log(result.top_probabilities), axis=-1)
    return whole


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_the_last_row_is_the_models_own_output(name: str) -> None:
    result = lens_of(name)
    own = own_log_p(model_of(name), [token.id for token in result.tokens]).numpy()
    np.testing.assert_allclose(all_log_p(result)[-1], own, atol=1e-9)
    np.testing.assert_allclose(result.kl[-1], 0, atol=1e-12)
    np.testing.assert_allclose(result.entropy[-1], -(np.exp(own) * own).sum(-1), atol=1e-9)
    np.testing.assert_array_equal(result.rank[-1], result.output_rank)
    assert all(check.passed for check in result.checks)
    assert len(result.checks) == 3


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_the_stream_before_a_block_is_the_stream_after_the_last_one(name: str) -> None:
    before, after = lens_of(name, "resid_pre"), lens_of(name)
    np.testing.assert_array_equal(before.log_probability[1:], after.log_probability[:-1])
    np.testing.assert_array_equal(before.kl[1:], after.kl[:-1])
    assert (after.kl >= 0).all()
    assert (before.kl[0] > 0).any()


def by_hand(model: LoadedModel, hidden: torch.Tensor) -> torch.Tensor:
    """Final norm, unembedding, scale and softcap, module by module."""
    hf, config = model.hf, model.hf.config
    norm = hf.transformer.ln_f if hasattr(hf, "transformer") else hf.model.norm
    logits = hf.lm_head(norm(hidden))
    logits = logits * getattr(config, "logit_scale", 1.0) / getattr(config, "logits_scaling", 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    return (cap * torch.tanh(logits / cap) if cap else logits).log_softmax(-1)


SCALED: dict[str, dict[str, Any]] = {"cohere": {"logit_scale": 0.3}, "granite": {"logits_scaling": 3.0}}


@lru_cache(maxsize=4)
def scaled_model(name: str) -> LoadedModel:
    """A family that multiplies or divides its logits."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        name, vocab_size=VOCAB, hidden_size=32, num_hidden_layers=N_LAYERS, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=64, pad_token_id=0, **SCALED[name],
    )  # fmt: skip
    hf = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval().double()
    for parameter in hf.parameters():
        parameter.data.mul_(3)
    return build_model(hf, word_tokenizer(bos=True))


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "cohere", "granite"])
def test_every_row_equals_norm_unembedding_and_softcap_by_hand(name: str) -> None:
    model = scaled_model(name) if name in SCALED else model_of(name)
    result = logit_lens(model, INPUTS)
    ids = torch.tensor([[token.id for token in result.tokens]])
    with torch.inference_mode():
        states = model.hf(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
        wanted = torch.stack([by_hand(model, state[0]) for state in states[1:-1]]).numpy()
    np.testing.assert_allclose(all_log_p(result)[:-1], wanted, atol=1e-9)
    paris = result.answer.id
    np.testing.assert_allclose(result.log_probability[:-1], wanted[..., paris], atol=1e-9)
    for layer, position in np.ndindex(wanted.shape[:2]):  # sorted from the top, the first place of a tie
        row = -wanted[layer, position]
        assert result.rank[layer, position] == 1 + np.searchsorted(np.sort(row), row[paris], side="left")


def test_the_softcap_is_part_of_the_lens() -> None:
    """candle-mi's lens left it out: with a strong softcap the last row was not the model's output."""
    hf = hf_model("gemma2")
    hf.config.final_logit_softcapping = 0.2
    result = logit_lens(build_model(hf, word_tokenizer(bos=True)), INPUTS)
    ids = torch.tensor([[token.id for token in result.tokens]])
    with torch.inference_mode():
        out = hf(input_ids=ids, output_hidden_states=True, use_cache=False)
        bare = hf.lm_head(out.hidden_states[-1][0]).log_softmax(-1).numpy()  # that one is normed already
    np.testing.assert_allclose(all_log_p(result)[-1], out.logits[0].log_softmax(-1).numpy(), atol=1e-9)
    assert np.abs(bare - all_log_p(result)[-1]).max() > 1
    assert np.abs(all_log_p(result)).max() < np.log(VOCAB) + 2 * 0.2, "no logit of any layer is above the cap"


def test_components_are_read_alone() -> None:
    """The MLP's own module output through the norm, caught by a hook of the test."""
    model, seen = model_of("gpt2"), {}
    hooks = [
        getattr(block, part).register_forward_hook(
            lambda _m, _i, out, key=(part, layer): seen.update({key: out[0] if key[0] == "attn" else out})
        )
        for layer, block in enumerate(model.hf.transformer.h)
        for part in ("attn", "mlp")
    ]
    ids = torch.tensor([[token.id for token in lens_of("gpt2").tokens]])
    with torch.inference_mode():
        model.hf(input_ids=ids, use_cache=False)
        for hook in hooks:
            hook.remove()
        for site, part in (("attn_out", "attn"), ("mlp_out", "mlp")):
            wanted = torch.stack([by_hand(model, seen[part, layer][0]) for layer in range(N_LAYERS)])
            result = lens_of("gpt2", site)
            np.testing.assert_allclose(all_log_p(result), wanted.numpy(), atol=1e-9)
            assert "to full size" in result.warnings[0]
            assert len(result.checks) == 2


@pytest.mark.parametrize("name", PARALLEL)
def test_a_parallel_block_has_nothing_in_its_middle(name: str) -> None:
    with pytest.raises(SiteMissing, match="parallel block read the same stream"):
        logit_lens(model_of(name), replace(INPUTS, site="resid_mid"))


def test_statistics_are_those_of_the_distribution() -> None:
    result = lens_of("llama", "resid_mid")
    log_p = all_log_p(result)
    final = own_log_p(model_of("llama"), [token.id for token in result.tokens]).numpy()
    np.testing.assert_allclose(np.exp(log_p).sum(-1), 1, atol=1e-9)
    np.testing.assert_allclose(result.entropy, -(np.exp(log_p) * log_p).sum(-1), atol=1e-9)
    np.testing.assert_allclose(result.kl, (np.exp(final) * (final - log_p)).sum(-1), atol=1e-9)
    assert (np.diff(result.top_probabilities, axis=-1) <= 0).all()
    for index, word in enumerate(result.words):
        np.testing.assert_allclose(result.word_log_probability[..., index], log_p[..., word.id], atol=1e-9)
        better = 1 + (log_p > log_p[..., word.id, None]).sum(-1)
        np.testing.assert_array_equal(result.word_rank[..., index], better)
    np.testing.assert_allclose(result.statistic("probability"), np.exp(log_p[..., result.answer.id]))


def test_next_token_is_what_the_prompt_says() -> None:
    result = logit_lens(model_of("llama"), replace(INPUTS, target="next token", answer="Paris"))
    ids = [token.id for token in result.tokens]
    assert result.target_ids.tolist() == [*ids[1:], result.answer.id]
    log_p = all_log_p(result)
    for position, token in enumerate(result.target_ids.tolist()):
        np.testing.assert_allclose(result.log_probability[:, position], log_p[:, position, token], atol=1e-9)


def test_without_an_answer_the_models_top_token_is_followed() -> None:
    result = lens_of("llama")
    assert result.answer.chosen_by == "model"
    assert result.answer.id == result.output_top_ids[-1, 0]
    assert result.rank[-1, -1] == 1


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 9])
def test_a_stride_keeps_the_last_layer(stride: int) -> None:
    result = logit_lens(model_of("gpt2"), replace(INPUTS, stride=stride))
    assert result.layers[-1] == N_LAYERS - 1
    rows = [lens_of("gpt2").row_of(layer) for layer in result.layers]
    np.testing.assert_allclose(result.entropy, lens_of("gpt2").entropy[rows], atol=1e-12)


def test_some_positions_are_the_same_numbers_as_all() -> None:
    some = logit_lens(model_of("gpt2"), replace(INPUTS, positions=(2, 5)))
    whole = lens_of("gpt2")
    np.testing.assert_allclose(some.kl, whole.kl[:, [2, 5]], atol=1e-12)
    np.testing.assert_array_equal(some.output_top_ids, whole.output_top_ids[[2, 5]])


@pytest.mark.parametrize("budget", [1, 97 * 8 * 6 * 3, 97 * 8 * 6 * 11])
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    monkeypatch.setattr(logit_lens_statistics, "CHUNK_BYTES", budget)
    result, whole = logit_lens(model_of("llama"), INPUTS), lens_of("llama")
    for name in ("log_probability", "kl", "entropy", "word_log_probability", "output_entropy"):
        np.testing.assert_allclose(getattr(result, name), getattr(whole, name), atol=1e-12)
    np.testing.assert_array_equal(result.top_ids[..., 0], whole.top_ids[..., 0])


def test_a_translator_is_applied_layer_by_layer() -> None:
    seen: list[int] = []

    def turned(layer: int, vectors: torch.Tensor) -> torch.Tensor:
        seen.append(layer)
        return vectors if layer == N_LAYERS - 1 else vectors.flip(-1)

    result = read_through(model_of("gpt2"), INPUTS, Lens("turned", turned, "f1"))
    assert (result.lens, result.lens_fingerprint, seen) == ("turned", "f1", list(range(N_LAYERS)))
    np.testing.assert_allclose(result.kl[-1], 0, atol=1e-12)
    assert np.abs(result.kl[:-1] - lens_of("gpt2").kl[:-1]).max() > 1e-6
    same = read_through(model_of("gpt2"), INPUTS, Lens())
    np.testing.assert_array_equal(same.kl, lens_of("gpt2").kl)


def test_a_tuned_lens_is_opened_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    model, random = build_model(hf_model("gpt2"), word_tokenizer(bos=True), fingerprint="abc"), np.random
    weight = 0.3 * random.default_rng(0).normal(size=(N_LAYERS, 32, 32))
    bias = random.default_rng(1).normal(size=(N_LAYERS, 32))
    save_lens(model, TunedLens("mine", weight, bias))
    result = logit_lens(model, replace(INPUTS, lens="mine"))
    ids = torch.tensor([[token.id for token in result.tokens]])
    with torch.inference_mode():
        states = model.hf(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
        for layer in range(N_LAYERS - 1):  # what leaves block l enters block l + 1, whose translator reads it
            state = states[layer + 1][0]
            moved = state + state @ torch.from_numpy(weight[layer + 1]).T + torch.from_numpy(bias[layer + 1])
            wanted = by_hand(model, moved).numpy()
            np.testing.assert_allclose(all_log_p(result)[layer], wanted, atol=1e-6)
    np.testing.assert_allclose(result.kl[-1], 0, atol=1e-12)
    assert (result.lens, bool(result.lens_fingerprint)) == ("mine", True)
    assert LogitLensResult.from_json(result.to_json()).lens == "mine"
    with pytest.raises(InputError, match="attn_out"):
        logit_lens(model, replace(INPUTS, lens="mine", site="attn_out"))


def test_a_model_whose_tail_depends_on_the_position_is_refused() -> None:
    """Then the lens of a single vector is not what the model does with it."""
    model = build_model(hf_model("llama"), word_tokenizer(bos=True))
    hook = model.hf.model.norm.register_forward_hook(
        lambda _m, _i, out: out * torch.arange(1, out.shape[1] + 1)[:, None] if out.shape[1] == 8 else out
    )
    with pytest.raises(ModelError, match="differ from its output by"):
        logit_lens(model, LogitLensInputs(PROMPT, bos="never", positions=(3,)))
    hook.remove()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    result = logit_lens(model_of("llama", dtype), INPUTS)
    assert result.entropy.dtype == np.float32
    np.testing.assert_allclose(result.top_probabilities.sum(-1), 1, atol=1e-4)
    assert any("rounded" in warning for warning in result.warnings) == (dtype != torch.float32)
    assert all(check.passed for check in result.checks)


# --- attention against MLP ---


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_changes_lead_from_the_embedding_to_the_output(name: str) -> None:
    inputs = LogitLensStepsInputs(PROMPT, position=4, distractor="Rome")
    result = logit_lens_steps(model_of(name), inputs)
    own = own_log_p(model_of(name), [token.id for token in result.tokens])[4].numpy()
    ids = [word.id for word in result.words]
    total = result.log_probability[0] + result.change().sum((0, 1))
    np.testing.assert_allclose(total, own[ids], atol=1e-9)
    assert all(check.passed for check in result.checks)
    assert result.components == (("attention and MLP",) if name in PARALLEL else ("attention", "MLP"))
    assert ("cannot be told apart" in "".join(result.warnings)) == (name in PARALLEL)


def test_changes_are_differences_of_two_lenses() -> None:
    result = logit_lens_steps(model_of("llama"), LogitLensStepsInputs(PROMPT, position=5))
    pre, mid, post = (
        lens_of("llama", site).log_probability[:, 5] for site in ("resid_pre", "resid_mid", "resid_post")
    )
    np.testing.assert_allclose(result.change()[:, 0, 0], mid - pre, atol=1e-9)
    np.testing.assert_allclose(result.change()[:, 1, 0], post - mid, atol=1e-9)


def test_steps_follow_the_next_token_when_asked() -> None:
    result = logit_lens_steps(
        model_of("llama"), LogitLensStepsInputs(PROMPT, position=2, target="next token")
    )
    assert (result.words[0].id, result.words[0].chosen_by) == (result.tokens[3].id, "prompt")
    last = logit_lens_steps(model_of("llama"), LogitLensStepsInputs(PROMPT, target="next token"))
    assert (last.position, last.words[0].chosen_by) == (len(last.tokens) - 1, "model")
