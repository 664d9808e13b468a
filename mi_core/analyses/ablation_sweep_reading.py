"""What sweeps of interventions read: the answer's numbers at the last position, against one baseline run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.ablation_sweep_inputs import EFFECT_METRICS
from mi_core.analyses.attribution_result import ReadToken
from mi_core.analyses.causal_trace_reading import Reader, to_numpy
from mi_core.answers import answer_warnings, choose_answer
from mi_core.engine import Base, Edit, Variant, observe, run, sweep
from mi_core.errors import InputError
from mi_core.model.model import LoadedModel
from mi_core.tokens import Bos, TokenizedPrompt, tokenize, visible_token


@runtime_checkable
class Asked(Protocol):
    """The fields that every sweep of interventions has."""

    @property
    def prompt(self) -> str:
        """The prompt."""
        ...

    @property
    def answer(self) -> str | None:
        """The answer as it was typed, or None."""
        ...

    @property
    def distractor(self) -> str | None:
        """The distractor as it was typed, or None."""
        ...

    @property
    def bos(self) -> Bos:
        """Whether a beginning-of-sequence token is put first."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A prompt on a model, and the tokens that are read.

    Attributes:
        prompt: its tokens.
        ids: the same for the engine, one row.
        answer: the token whose numbers are read.
        distractor: the token that it is compared with, or None.
        warnings: what has to be known about these tokens.
    """

    prompt: TokenizedPrompt
    ids: Tensor
    answer: ReadToken
    distractor: ReadToken | None
    warnings: tuple[str, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is read, in the order of the arrays' first axis."""
        return tuple(m for m in EFFECT_METRICS if m != "logit_difference" or self.distractor is not None)


def ask(model: LoadedModel, inputs: Asked) -> Question:
    """Tokenise, and choose the tokens that are read; an answer that is not given is the model's top token.

    Raises:
        InputError: no tokenizer, an empty prompt, or a distractor that is the answer.
    """
    prompt = tokenize(model.tokenizer, inputs.prompt, bos=inputs.bos)
    chosen = None if inputs.answer is None else choose_answer(model.tokenizer, prompt, inputs.answer)
    other = None if inputs.distractor is None else choose_answer(model.tokenizer, prompt, inputs.distractor)
    if chosen is None:
        token = int(observe(model, prompt.ids, ["logits"])["logits", None][-1].argmax())
        shown = visible_token(model.tokenizer, token)
        answer = ReadToken(token, shown, model.tokenizer.decode([token]), "model")
    else:
        answer = ReadToken(chosen.ids[0], chosen.pieces[0], chosen.text, "user")
    distractor = None if other is None else ReadToken(other.ids[0], other.pieces[0], other.text, "user")
    if distractor is not None and distractor.id == answer.id:
        raise InputError(
            f"The distractor {distractor.text!r:.60} begins with the token of the answer {answer.text!r:.60}",
            why="their difference would be zero", fix="Choose another distractor",
        )  # fmt: skip
    warnings = () if chosen is None else answer_warnings(chosen, other)
    return Question(prompt, torch.tensor([prompt.ids]), answer, distractor, warnings)


class Effects:
    """Reads the logits of baseline and variants.

    Args:
        model: a loaded model.
        question: what is read.
        edits: edits that hold in the baseline too.

    Attributes:
        base: the run that variants start from.
        baseline: [metric] its numbers.
        top: the baseline's top token.
    """

    def __init__(self, model: LoadedModel, question: Question, edits: Sequence[Edit] = ()) -> None:
        self.question, self.base = question, Base(question.ids, tuple(edits))
        # From the sweep's own base run, so that a variant that changes nothing differs by exactly 0.
        seen = sweep(model, self.base, (), read=lambda logits: {"logits": logits[:, 0, -1]}).base["logits"]
        other = None if question.distractor is None else question.distractor.id
        logits = torch.from_numpy(seen).to(model.device)
        self.reader = Reader((question.answer.id,), other, logits)
        numbers = to_numpy(self.reader(logits[None, None]))
        self.top = int(numbers["top1"][0, 0])
        self.baseline = self.values(numbers)[:, 0]

    def swept(
        self, model: LoadedModel, runs: Sequence[Sequence[Edit]], on_tick: Callable[[float], None]
    ) -> tuple[Float[np.ndarray, "metric run"], bool]:
        """The numbers of several variants from one sweep; NaN where it was stopped before.

        Args:
            model: the loaded model.
            runs: the edits of each variant.
            on_tick: told the share that is done; may raise `Cancelled` to stop.

        Returns:
            The numbers, and whether the sweep was stopped.
        """
        variants = [Variant(tuple(edits)) for edits in runs]
        outcome = sweep(model, self.base, variants, read=self.reader, on_tick=on_tick)
        values = np.full((len(self.question.metrics), len(variants)), np.nan)
        if outcome.done.any():
            values[:, outcome.done] = self.values({k: v[outcome.done] for k, v in outcome.values.items()})
        return values, outcome.cancelled

    def whole_pass(self, model: LoadedModel, edits: Sequence[Edit]) -> Float[np.ndarray, "metric"]:
        """The numbers of one variant by an ordinary forward pass: a second way to the same."""
        return self.of(run(model, self.question.ids, edits=(*self.base.edits, *edits), last=1).logits)

    def of(self, logits: Float[Tensor, "1 1 vocab"]) -> Float[np.ndarray, "metric"]:
        """The numbers of the logits of one run, at the last position."""
        return self.values(to_numpy(self.reader(logits[None])))[:, 0]

    def values(self, numbers: dict[str, np.ndarray]) -> Float[np.ndarray, "metric variant"]:
        """What the sweep's reader gave, as float64, in the order of `Question.metrics`."""
        named = {**numbers, "top1_flip": numbers["top1"] != self.top}
        return np.stack([named[metric][:, 0].astype(np.float64) for metric in self.question.metrics])
