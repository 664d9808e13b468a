"""Do heads look more at a token into which features are injected?

    before[l, h] = A[l, h][query, p]           p: the token that is pushed, as in the planning experiment
    after[l, h]  = the same with the push      change = after - before      total = sum over heads of |change|

for the chosen strength, for every strength of the sweep, and for rotations of the edit (controls). A head of
layer l reads the stream before that layer's MLP, so with a transcoder that writes MLP outputs only layers
after the first written one can change.

Cost: one pass with a row per strength and per control (16 rows at a time).
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.analyses.causal_trace_checks import TOLERANCE
from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.engine import Edit, observe, run
from mi_core.errors import InputError
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.tokens import prompt_warnings, tokenize
from mi_core.transcoders.feature_vectors import Push, push_of
from mi_core.transcoders.planning_inputs import FeatureRoutingInputs
from mi_core.transcoders.routing_result import FeatureRoutingResult
from mi_core.transcoders.store import load_transcoder

OnStep = Callable[[Step[FeatureRoutingResult]], None]
ROWS = 16
_BEFORE_ATTENTION = ("resid_pre",)


def feature_routing(
    model: LoadedModel, inputs: FeatureRoutingInputs, *, on_step: OnStep | None = None
) -> FeatureRoutingResult:
    """Attention to a token under an injection there; the module docstring has the formulas.

    Args:
        model: a loaded model.
        inputs: features, tokens, strengths.
        on_step: told before every batch; may raise `Cancelled`, which passes through.

    Raises:
        InputError: a token or feature is not there, or the query comes before the pushed token.
        TranscoderError: there is no such transcoder, it does not fit the model, or it has no decoder here.
        SiteMissing: the model's attention cannot be seen.
    """
    started = time.perf_counter()
    transcoder = load_transcoder(model, inputs.transcoder)
    prompt = tokenize(model.tokenizer, inputs.prompt, bos=inputs.bos)
    position, query = _places(inputs, len(prompt))
    push = push_of(transcoder, inputs.weights)
    generator = np.random.default_rng(inputs.seed)
    turned = [push.turned(generator) for _ in range(inputs.controls)]
    strengths = (0.0, inputs.strength, *inputs.strengths)
    rows = [strength * push.vectors for strength in strengths]
    rows += [inputs.strength * one.vectors for one in turned]

    def tick(done: int) -> None:
        if on_step is not None:
            on_step(Step(done, len(rows), None, None, "passes"))

    every = _attention_of_all(model, prompt.ids, push, rows, (position, query), tick)
    before, after = every[0], every[1]
    sweep = every[2 : len(strengths)] - before
    controls = every[len(strengths) :] - before
    return FeatureRoutingResult(
        inputs=inputs,
        provenance=Provenance.of(model, seed=inputs.seed),
        transcoder=transcoder.name,
        source="lantern",
        tokens=prompt.tokens,
        position=position,
        query=query,
        before=before,
        after=after,
        sweep=sweep,
        totals=np.abs(sweep).sum((1, 2)),
        controls=controls,
        first_layer=_first_layer(push),
        warnings=(*prompt_warnings(prompt, model.tokenizer), *transcoder.warnings),
        checks=_checks(model, prompt.ids, push, before, after, position, query),
        seconds=time.perf_counter() - started,
    )


def _places(inputs: FeatureRoutingInputs, n_pos: int) -> tuple[int, int]:
    """The pushed token and the one that looks."""
    position = inputs.position + n_pos if inputs.position < 0 else inputs.position
    query = n_pos - 1 if inputs.query is None else inputs.query
    for place, asked in ((position, inputs.position), (query, inputs.query)):
        if not 0 <= place < n_pos:
            raise InputError(f"The prompt has no token {asked}", why=f"its tokens are 0 to {n_pos - 1}")
    if query < position:
        raise InputError(
            f"Token {query} cannot look at token {position}", why="tokens see only what comes before them",
            fix="Choose an earlier token to push",
        )  # fmt: skip
    if n_pos == 1:
        raise InputError("A prompt of one token has one edge per head, and its weight is always 1")
    return position, query


def _first_layer(push: Push) -> int:
    """The first layer whose attention can change."""
    return push.layers[0] if push.site in _BEFORE_ATTENTION else push.layers[0] + 1


def _attention_of_all(
    model: LoadedModel,
    ids: Sequence[int],
    push: Push,
    rows: Sequence[Float[np.ndarray, "written d_model"]],
    places: tuple[int, int],
    tick: Callable[[int], None],
) -> Float[np.ndarray, "row layer head"]:
    """Attention of every push, `ROWS` of them in one pass; `places`: the pushed token and the query."""
    found: list[Float[np.ndarray, "row layer head"]] = []
    for start in range(0, len(rows), ROWS):
        tick(start)
        found.append(_attention(model, ids, push, np.stack(rows[start : start + ROWS]), *places))
    return np.concatenate(found)


def _attention(
    model: LoadedModel,
    ids: Sequence[int],
    push: Push,
    rows: Float[np.ndarray, "row written d_model"],
    position: int,
    query: int,
) -> Float[np.ndarray, "row layer head"]:
    """Attention from query to position, a row per push."""
    edits = [
        Edit(push.site, layer, "add", (position,), value=torch.from_numpy(rows[:, index, None].copy()))
        for index, layer in enumerate(push.layers)
    ]

    def reduce(_place: object, value: Tensor) -> np.ndarray:
        return value[:, :, query, position].double().cpu().numpy()

    tokens = torch.tensor([list(ids)]).expand(len(rows), -1)
    seen = run(model, tokens, capture=["pattern"], edits=edits, last=1, reduce=reduce)
    return np.stack([seen["pattern", layer] for layer in range(model.dims.n_layers)], axis=1)


def _checks(
    model: LoadedModel,
    ids: Sequence[int],
    push: Push,
    before: Float[np.ndarray, "layer head"],
    after: Float[np.ndarray, "layer head"],
    position: int,
    query: int,
) -> tuple[Check, ...]:
    """Early layers stay, and a strength of 0 is the pass that all pages share."""
    near, first = TOLERANCE[model.dtype], _first_layer(push)
    early = float(np.abs((after - before)[:first]).max(initial=0.0))
    seen = observe(model, ids, ["pattern"])
    plain = np.stack(
        [seen["pattern", layer][:, query, position].double().cpu().numpy() for layer in range(len(before))]
    )
    apart = float(np.abs(plain - before).max())
    return (
        Check(f"heads before layer {first} do not change", early <= near, f"largest change {early:.1e}"),
        Check("a strength of 0 gives the attention of the plain pass", apart <= near,
              f"largest difference {apart:.1e}"),
    )  # fmt: skip
