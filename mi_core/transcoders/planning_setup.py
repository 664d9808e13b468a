"""What the planning experiment pushes, where, and what it reads: features, draws, rotations, runs."""

from dataclasses import dataclass

import numpy as np

from mi_core.analyses.ablation_sweep_reading import Effects, Question, ask
from mi_core.engine import Variant
from mi_core.errors import InputError
from mi_core.model.model import LoadedModel
from mi_core.transcoders.feature_vectors import Push, push_of
from mi_core.transcoders.names import Feature, parse_features
from mi_core.transcoders.planning_inputs import PlanningInputs
from mi_core.transcoders.store import load_transcoder
from mi_core.transcoders.transcoder import Transcoder

MAX_RUNS = 60_000


@dataclass(frozen=True, slots=True, eq=False)
class Setup:
    """A planning experiment on a model.

    Attributes:
        model: the loaded model.
        inputs: what was asked for.
        transcoder: whose features are pushed.
        question: prompt and the tokens that are read.
        effects: reads the logits.
        positions: tokens that are tried.
        push: what is added for a strength of 1.
        parts: of the injected and of the suppressed features alone; none unless both are given.
        drawn: random features, one tuple per draw.
        pushes: those of the draws, then the push turned at random.
    """

    model: LoadedModel
    inputs: PlanningInputs
    transcoder: Transcoder
    question: Question
    effects: Effects
    positions: tuple[int, ...]
    push: Push
    parts: tuple[Push, ...]
    drawn: tuple[tuple[Feature, ...], ...]
    pushes: tuple[Push, ...]

    @property
    def output(self) -> int:
        """The position whose logits are read."""
        return len(self.question.prompt) - 1

    @property
    def listed(self) -> tuple[Feature, ...]:
        """The features that were asked for, injected ones first."""
        return (*parse_features(self.inputs.inject), *parse_features(self.inputs.suppress))

    @property
    def live(self) -> list[int]:
        """Places of the strengths that are run: all but 0, which is the baseline."""
        return [index for index, dose in enumerate(self.inputs.doses) if dose != 0]

    @property
    def draws(self) -> slice:
        """Where the draws are among the runs: after strengths and parts."""
        start = len(self.live) + len(self.parts)
        return slice(start, start + len(self.drawn))


def prepare(model: LoadedModel, inputs: PlanningInputs) -> Setup:
    """Read the rows of the features, draw the controls.

    Raises:
        InputError: a feature or a position is not there, or what the features write is zero.
        TranscoderError: there is no such transcoder, it does not fit the model, or it has no decoder here.
    """
    transcoder = load_transcoder(model, inputs.transcoder)
    question = ask(model, inputs)
    positions = inputs.positions or tuple(range(len(question.prompt)))
    if positions[-1] >= len(question.prompt):
        why = f"its tokens are 0 to {len(question.prompt) - 1}"
        raise InputError(f"The prompt has no token {positions[-1]}", why=why)
    push = push_of(transcoder, inputs.weights)
    if not np.abs(push.vectors).max() > 0:
        raise InputError("What these features write is zero", fix="Choose others")
    generator = np.random.default_rng(inputs.seed)
    drawn = _draw(transcoder, inputs, generator)
    up = dict.fromkeys(parse_features(inputs.inject), 1.0)
    down = dict.fromkeys(parse_features(inputs.suppress), -1.0)
    kept, sign = (down, 1.0) if up else ({}, -1.0)  # the injected ones are replaced, else the suppressed ones
    others = tuple(push_of(transcoder, {**kept, **dict.fromkeys(one, sign)}) for one in drawn)
    rotations = tuple(push.turned(generator) for _ in range(inputs.controls))
    parts = tuple(push_of(transcoder, part) for part in (up, down)) if up and down else ()
    effects = Effects(model, question)
    pushes = (*others, *rotations)
    return Setup(model, inputs, transcoder, question, effects, positions, push, parts, drawn, pushes)


def _draw(
    transcoder: Transcoder, inputs: PlanningInputs, generator: np.random.Generator
) -> tuple[tuple[Feature, ...], ...]:
    """Random features of the same layers as the injected ones (as the suppressed ones, if none is)."""
    named = set(inputs.weights)
    replaced = parse_features(inputs.inject) or parse_features(inputs.suppress)
    draws = []
    for _ in range(inputs.controls):
        chosen: list[Feature] = []
        for feature in replaced:
            free = transcoder.n_features[feature.layer]
            taken = sorted({f.index for f in (*named, *chosen) if f.layer == feature.layer})
            if free <= len(taken):
                return ()
            index = int(generator.integers(free - len(taken)))
            for one in taken:  # the index-th of those that are not taken
                index += one <= index
            chosen.append(Feature(feature.layer, index))
        draws.append(tuple(chosen))
    return tuple(draws)


def variants(setup: Setup) -> list[Variant]:
    """Strengths by position, then parts, draws and rotations by position.

    Raises:
        InputError: more than `MAX_RUNS`.
    """
    runs = [(setup.push, setup.inputs.doses[index]) for index in setup.live]
    runs += [(push, setup.inputs.strength) for push in (*setup.parts, *setup.pushes)]
    count = len(runs) * len(setup.positions)
    if count > MAX_RUNS:
        why = (
            f"{len(runs)} pushes at {len(setup.positions):,} tokens are {count:,} runs, at most {MAX_RUNS:,}"
        )
        fix = "Name some tokens, or fewer strengths and controls"
        raise InputError("The experiment is too large", why=why, fix=fix)
    return [Variant(edits) for push, dose in runs for edits in push.edits_at_each(setup.positions, dose)]
