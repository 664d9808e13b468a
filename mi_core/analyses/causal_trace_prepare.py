"""The two whole runs of a causal trace: tokens, answer, readings, and the values that cells patch in.

Cost: one forward pass of the clean prompt and one of all corrupted samples.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from mi_core.analyses.causal_trace_corruption import (
    PromptPair,
    noise_edit,
    sigma_of,
    token_rows,
    tokenize_pair,
)
from mi_core.analyses.causal_trace_inputs import CausalTraceInputs
from mi_core.analyses.causal_trace_parts import AnswerTokens, Reading
from mi_core.analyses.causal_trace_reading import Reader, make_reading, to_numpy
from mi_core.analyses.causal_trace_variants import SEVERED_SITE, SITE_OF, Shape
from mi_core.answers import choose_answer
from mi_core.engine import Base, Run, run
from mi_core.errors import InputError
from mi_core.model.model import LoadedModel
from mi_core.tokens import visible_token


@dataclass(frozen=True, slots=True)
class Noise:
    """How strong the noise is, in embedding units.

    Attributes:
        sigma: standard deviation of the embedding outputs.
        scale: standard deviation (gaussian) or half width (uniform) of the noise.
    """

    sigma: float
    scale: float


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """Everything that is known before the first cell.

    Attributes:
        model: the model.
        inputs: what was asked for.
        pair: the prompts.
        answer: what is read.
        distractor: what it is compared with, or None.
        noise: its strength, or None.
        shape: sizes.
        base: the run that is patched into, for the engine.
        source_run: captures of the run that values come from.
        base_run: captures of the run that is patched into.
        reader: from logits to numbers.
        clean: reading of the clean run.
        corrupted: reading of the corrupted run.
        base_top1: [sample] top token of the base run.
    """

    model: LoadedModel
    inputs: CausalTraceInputs
    pair: PromptPair
    answer: AnswerTokens
    distractor: AnswerTokens | None
    noise: Noise | None
    shape: Shape
    base: Base
    source_run: Run
    base_run: Run
    reader: Reader
    clean: Reading
    corrupted: Reading
    base_top1: np.ndarray

    @property
    def base_reading(self) -> Reading:
        """The run that is patched into."""
        return self.corrupted if self.inputs.direction == "denoising" else self.clean

    @property
    def source_reading(self) -> Reading:
        """The run that values come from."""
        return self.clean if self.inputs.direction == "denoising" else self.corrupted

    @property
    def read_positions(self) -> tuple[int, ...]:
        """Positions that predict the answer's tokens, from the end."""
        return self.reader.positions


def prepare(model: LoadedModel, inputs: CausalTraceInputs) -> Prepared:
    """Run the clean and the corrupted prompt and read them.

    Raises:
        InputError: see `CausalTraceInputs` and `tokenize_pair`; a distractor that is the answer.
        SiteMissing: the model lacks a site that a kind needs.
    """
    pair = tokenize_pair(model, inputs)
    asked = None if inputs.answer is None else answer_tokens(model, pair, inputs.answer)
    given = () if asked is None else asked.ids[:-1]
    n_samples = inputs.samples if inputs.corruption == "noise" else 1
    noise = _noise(model, inputs)
    corruption = () if noise is None else (noise_edit(model, inputs, pair.subject, noise.scale),)
    clean_rows, corrupted_rows = (
        token_rows(pair.clean, given, 1),
        token_rows(pair.corrupted, given, n_samples),
    )
    denoising = inputs.direction == "denoising"
    sites = _captures(model, inputs)
    own = sites["source"], sites["base"]
    clean_sites, corrupted_sites = own if denoising else own[::-1]
    n_read = len(given) + 1
    clean = run(model, clean_rows, capture=clean_sites, last=n_read)
    corrupted = run(model, corrupted_rows, capture=corrupted_sites, edits=corruption, last=n_read)
    answer = asked or _top_token(model, clean.logits[0, -1], "clean run")
    distractor = _distractor(model, pair, inputs, answer, corrupted.logits)
    read = list(range(-len(answer.ids), 0))
    reader = Reader(answer.ids, None if distractor is None else distractor.ids[0], clean.logits[0, read])
    numbers = {
        name: to_numpy(reader(one.logits[None][:, :, read]))
        for name, one in (("clean", clean), ("corrupted", corrupted))
    }
    base_top1 = numbers["corrupted" if denoising else "clean"]["top1"][0]
    base = Base(corrupted_rows, corruption) if denoising else Base(clean_rows.repeat(n_samples, 1))
    return Prepared(
        model=model,
        inputs=inputs,
        pair=pair,
        answer=answer,
        distractor=distractor,
        noise=noise,
        shape=shape_of(model, pair, len(given)),
        base=base,
        source_run=clean if denoising else corrupted,
        base_run=corrupted if denoising else clean,
        reader=reader,
        clean=make_reading(numbers["clean"], base_top1),
        corrupted=make_reading(numbers["corrupted"], base_top1),
        base_top1=base_top1,
    )


def shape_of(model: LoadedModel, pair: PromptPair, n_given: int) -> Shape:
    """Sizes of the trace; `n_given` answer tokens are given to the model after the prompt."""
    dims, n_prompt = model.dims, len(pair.clean)
    return Shape(dims.n_layers, dims.n_heads, n_prompt, n_prompt + n_given, pair.first_difference)


def answer_tokens(model: LoadedModel, pair: PromptPair, text: str) -> AnswerTokens:
    """Token ids of a text that the user gave, as they would follow the prompt."""
    choice = choose_answer(model.tokenizer, pair.clean, text)
    return AnswerTokens(choice.text, choice.ids, choice.pieces, "user", choice.joint)


def _top_token(model: LoadedModel, logits: Tensor, run_name: str) -> AnswerTokens:
    token = int(logits.argmax())
    text = model.tokenizer.decode([token])
    return AnswerTokens(text, (token,), (visible_token(model.tokenizer, token),), run_name)  # type: ignore[arg-type]


def _distractor(
    model: LoadedModel, pair: PromptPair, inputs: CausalTraceInputs, answer: AnswerTokens, corrupted: Tensor
) -> AnswerTokens | None:
    """The distractor asked for, or with a second prompt that prompt's own answer."""
    if inputs.distractor is not None:
        found = answer_tokens(model, pair, inputs.distractor)
        if found.ids[0] == answer.ids[0]:
            raise InputError(
                f"The distractor {found.text!r} begins with the same token as the answer {answer.text!r}",
                why="their difference would be zero",
                fix="Choose another distractor",
            )
        return found
    if inputs.corruption == "noise":
        return None
    own = _top_token(model, corrupted[0, -len(answer.ids)], "corrupted run")
    return None if own.ids[0] == answer.ids[0] else own


def _noise(model: LoadedModel, inputs: CausalTraceInputs) -> Noise | None:
    if inputs.corruption == "tokens":
        return None
    sigma = sigma_of(model, inputs.sigma_subjects)
    return Noise(sigma, inputs.noise_level * (sigma if inputs.noise_unit == "sigma" else 1.0))


def _captures(
    model: LoadedModel, inputs: CausalTraceInputs
) -> Mapping[str, list[str | tuple[str, int | None]]]:
    """What each run has to keep. The last block's output of both serves the check that causality holds."""
    last = ("resid_post", model.dims.n_layers - 1)
    source = sorted({SITE_OF[kind] for kind in inputs.kinds})
    base = sorted({SEVERED_SITE[kind] for kind in inputs.kinds if kind in SEVERED_SITE})
    return {"source": [*source, last], "base": [*base, last]}
