"""Which logits an attribution graph explains: an answer, a list of tokens, a difference, or the salient ones.

Salient tokens are the smallest set, by probability, that holds 95 % of it, at most ten (circuit-tracer's
default). Several tokens count by their probability, a difference counts 1.
"""

from torch import Tensor

from mi_core.answers import AnswerChoice, answer_warnings, choose_answer
from mi_core.errors import InputError
from mi_core.model.model import LoadedModel
from mi_core.tokens import TokenizedPrompt, visible_token
from mi_core.transcoders.graph_inputs import GraphInputs
from mi_core.transcoders.graph_parts import Target, last_logits
from mi_core.transcoders.graph_result import TargetKind

SALIENT_SHARE = 0.95
SALIENT_MOST = 10


def choose_targets(
    model: LoadedModel, prompt: TokenizedPrompt, inputs: GraphInputs
) -> tuple[TargetKind, tuple[Target, ...], tuple[str, ...]]:
    """(how they were chosen, the logits, what to know about the tokens).

    Raises:
        InputError: two targets are the same token, or a difference of a token with itself.
    """
    probabilities = last_logits(model, prompt.ids).double().softmax(-1)
    answer, distractor = (
        None if text is None else choose_answer(model.tokenizer, prompt, text)
        for text in (inputs.answer, inputs.distractor)
    )
    if distractor is not None:
        first = int(probabilities.argmax()) if answer is None else answer.ids[0]
        return (
            "difference",
            (_difference(model, probabilities, first, distractor),),
            () if answer is None else answer_warnings(answer, distractor),
        )
    chosen = [answer] if answer is not None else [_answer(model, prompt, text) for text in inputs.targets]
    if chosen:
        ids = [choice.ids[0] for choice in chosen]
        if len(set(ids)) < len(ids):
            raise InputError("Two targets begin with the same token", fix="Leave one of them out")
        warnings = tuple(one for choice in chosen for one in answer_warnings(choice))
        return "tokens", tuple(_token(model, probabilities, token) for token in ids), warnings
    top = probabilities.topk(min(SALIENT_MOST, len(probabilities)))
    enough = int((top.values.cumsum(0) < SALIENT_SHARE).sum()) + 1
    tokens = top.indices[:enough].tolist()
    return "salient", tuple(_token(model, probabilities, token) for token in tokens), ()


def _answer(model: LoadedModel, prompt: TokenizedPrompt, text: str) -> AnswerChoice:
    return choose_answer(model.tokenizer, prompt, text)


def _token(model: LoadedModel, probabilities: Tensor, token: int) -> Target:
    chance = float(probabilities[token])
    return Target((token,), visible_token(model.tokenizer, token), chance, chance)


def _difference(model: LoadedModel, probabilities: Tensor, first: int, distractor: AnswerChoice) -> Target:
    second = distractor.ids[0]
    if first == second:
        raise InputError(
            f"The distractor {distractor.text!r} begins with the same token as the target",
            why="their difference would be zero",
            fix="Choose another distractor",
        )
    names = [visible_token(model.tokenizer, token) for token in (first, second)]
    return Target((first, second), " - ".join(names), 1.0, float(probabilities[first]))
