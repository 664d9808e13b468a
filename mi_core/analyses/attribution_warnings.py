"""What a user must know before looking at an attribution, one plain sentence each."""

from collections.abc import Iterator, Sequence

import torch

from mi_core.analyses.attribution_result import ReadToken, TopToken
from mi_core.analyses.causal_trace_warnings import percent
from mi_core.answers import AnswerChoice, answer_warnings
from mi_core.model.model import LoadedModel
from mi_core.tokens import TokenizedPrompt, prompt_warnings


def attribution_warnings(
    model: LoadedModel,
    prompts: Sequence[TokenizedPrompt],
    target: ReadToken,
    choices: tuple[AnswerChoice | None, AnswerChoice | None],
    top: Sequence[TopToken],
) -> tuple[str, ...]:
    """All warnings that apply.

    Args:
        model: the model.
        prompts: the prompt, and the control prompt if there is one.
        target: whose logit is attributed.
        choices: what was typed for target and distractor.
        top: top token of every prompt.
    """
    return tuple(
        dict.fromkeys(  # both prompts may end with a space
            [
                *_about_the_target(target, top[0]),
                *_about_the_control(prompts, target, top),
                *_about_the_typed(*choices),
                *_about_missing_levels(model),
                *_about_precision(model),
                *(one for prompt in prompts for one in prompt_warnings(prompt, model.tokenizer)),
            ]
        )
    )


def _about_the_target(target: ReadToken, top: TopToken) -> Iterator[str]:
    if target.visible != top.visible:
        yield (
            f"The model itself says {top.visible} ({percent(top.probability)}): the parts explain why "
            f"{target.visible} has the logit that it has, not why the model says {top.visible}."
        )


def _about_the_control(
    prompts: Sequence[TokenizedPrompt], target: ReadToken, top: Sequence[TopToken]
) -> Iterator[str]:
    if len(prompts) < 2:
        return
    if prompts[0].ids == prompts[1].ids:
        yield "The control prompt is the prompt itself: there is nothing to compare."
    elif top[1].visible != target.visible:
        yield (
            f"The control prompt's own top token is {top[1].visible} ({percent(top[1].probability)}); "
            f"it is attributed for {target.visible} like the prompt."
        )


def _about_the_typed(answer: AnswerChoice | None, distractor: AnswerChoice | None) -> Iterator[str]:
    if answer is not None:
        yield from answer_warnings(answer, distractor)
    elif distractor is not None and not distractor.single_token:
        yield (
            f"The distractor is {len(distractor.ids)} tokens ({' '.join(distractor.pieces)}); only "
            f"{distractor.pieces[0]} is read, which other words may share."
        )


def _about_missing_levels(model: LoadedModel) -> Iterator[str]:
    for site, what in (("z", "Heads"), ("mlp_post", "Neurons")):
        if site in model.structure.missing:
            yield f"{what} cannot be told apart on this model: {model.structure.missing[site]}."


def _about_precision(model: LoadedModel) -> Iterator[str]:
    if model.dtype in (torch.float16, torch.bfloat16):
        name = str(model.dtype).removeprefix("torch.")
        yield (
            f"The model runs in {name}: what its layers write is rounded, so the parts add up to the logit "
            "only roughly (see the checks)."
        )
