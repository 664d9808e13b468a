"""What comes next, and what came as a surprise?

    P(token | before) = softmax(logits / temperature)       the table, at one position
    surprise(t)       = -log P(token t | tokens before t)    every token of the prompt, temperature 1
    rank              = number of tokens with a higher logit; 0 = the top token

Logits are the model's own, every softcap and scale included. Their softmax is taken in float64, a block of
positions at a time. The surprises of a prompt add up to its negative log-likelihood given its first token:
their mean is the loss that the model would report on it. In bits, divide by log 2.

Cost: one forward pass, shared with every other page that looks at the same prompt.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.next_token_inputs import NextTokenInputs
from mi_core.analyses.next_token_numbers import Surprises, surprises_of, table_at
from mi_core.analyses.next_token_result import NextTokenResult, RowRole
from mi_core.answers import AnswerChoice, answer_warnings, choose_answer
from mi_core.engine import observe
from mi_core.errors import InputError
from mi_core.model.model import LoadedModel
from mi_core.model.structure import text_config
from mi_core.provenance import Provenance
from mi_core.tokens import TokenizedPrompt, prompt_warnings, tokenize
from mi_core.visible import visible_token

OnStep = Callable[[Step[NextTokenResult]], None]

BLOCK = 64  # positions


def next_token(
    model: LoadedModel, inputs: NextTokenInputs, *, on_step: OnStep | None = None
) -> NextTokenResult:
    """Read a prompt's next token and surprises; the module docstring has the formulas.

    Args:
        model: a loaded model.
        inputs: prompt, position, size of the table, temperature.
        on_step: told once, before the pass; may raise `Cancelled`, which passes through.

    Raises:
        InputError: the prompt has no such position, or cannot be tokenised.
    """
    started = time.perf_counter()
    limit = getattr(text_config(model.hf.config), "max_position_embeddings", None)
    prompt = tokenize(model.tokenizer, inputs.prompt, bos=inputs.bos, limit=limit)
    position = _position(inputs, prompt)
    choices = _choices(model, inputs, prompt, position)
    if on_step is not None:
        on_step(Step(0, 1, None, None, "one forward pass"))
    with torch.inference_mode():
        logits = observe(model, prompt.ids, ["logits"])["logits", None]
        named: dict[RowRole, int] = {role: choice.ids[0] for role, choice in choices.items()}
        table = table_at(logits[position], inputs.k, inputs.temperature, named)
        surprises = surprises_of(logits, prompt.ids)
        checks = tuple(_checks(logits, prompt.ids, surprises))
    names = {int(i) for i in (*table.ids, *surprises.alternative_ids.ravel()) if i >= 0}
    result = NextTokenResult(
        inputs=inputs,
        provenance=Provenance.of(model),
        tokens=prompt.tokens,
        position=position,
        ids=table.ids,
        roles=table.roles,
        logits=table.logits,
        log_probabilities=table.log_probabilities,
        ranks=table.ranks,
        entropy=table.entropy,
        token_log_probabilities=surprises.log_probabilities,
        token_ranks=surprises.ranks,
        entropies=surprises.entropies,
        alternative_ids=surprises.alternative_ids,
        alternative_log_probabilities=surprises.alternative_log_probabilities,
        vocabulary={token_id: visible_token(model.tokenizer, token_id) for token_id in sorted(names)},
        warnings=_warnings(model, prompt, choices),
        checks=checks,
    )
    return replace(result, seconds=time.perf_counter() - started)


def _position(inputs: NextTokenInputs, prompt: TokenizedPrompt) -> int:
    if inputs.position is None:
        return len(prompt) - 1
    if inputs.position >= len(prompt):
        raise InputError(
            f"The prompt has no token {inputs.position}", why=f"its tokens are 0 to {len(prompt) - 1}"
        )
    return inputs.position


def _choices(
    model: LoadedModel, inputs: NextTokenInputs, prompt: TokenizedPrompt, position: int
) -> dict[RowRole, AnswerChoice]:
    """Target and distractor as they would follow the chosen token."""
    end = max(token.end for token in prompt.tokens[: position + 1])
    behind = replace(prompt, text=prompt.text[:end], tokens=prompt.tokens[: position + 1])
    if not behind.text:  # behind the BOS token alone, words are written as behind any prompt
        behind = prompt
    asked: tuple[tuple[RowRole, str | None], ...] = (
        ("target", inputs.answer),
        ("distractor", inputs.distractor),
    )
    return {role: choose_answer(model.tokenizer, behind, text) for role, text in asked if text is not None}


def _warnings(
    model: LoadedModel, prompt: TokenizedPrompt, choices: Mapping[RowRole, AnswerChoice]
) -> tuple[str, ...]:
    found = prompt_warnings(prompt, model.tokenizer)
    target, distractor = choices.get("target"), choices.get("distractor")
    if target is not None:
        found += answer_warnings(target, distractor)
    if len(prompt) == 1:
        found += ("The prompt is a single token: nothing predicts it, so there is no surprise to show.",)
    return found


def _checks(
    logits: Float[Tensor, "pos d_vocab"], ids: Sequence[int], surprises: Surprises
) -> Iterator[Check]:
    """Probabilities sum to one; the surprises are the loss that a trainer of the model would report."""
    yield Check(
        "probabilities over the whole vocabulary sum to 1 at every position",
        surprises.worst_sum < 1e-9,
        f"largest deviation {surprises.worst_sum:.1e}",
    )
    if len(ids) < 2:
        return
    wanted = torch.tensor(ids[1:], device=logits.device)
    total = sum(  # in the model's own steps: what its loss is made of
        float(torch.nn.functional.cross_entropy(part.float(), own, reduction="sum"))
        for part, own in zip(logits[:-1].split(BLOCK), wanted.split(BLOCK), strict=True)
    )
    loss = total / len(wanted)
    mean = -float(surprises.log_probabilities[1:].mean())
    yield Check(
        "the mean surprise is the cross-entropy loss of the prompt",
        abs(loss - mean) <= 1e-4 * max(1.0, abs(mean)),
        f"{mean:.6f} here, {loss:.6f} by torch's cross-entropy",
    )
