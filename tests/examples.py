"""Results made without a model, for tests of charts, pages and exports: plausible numbers, not true ones."""

import numpy as np

from mi_core.analyses.causal_trace_inputs import CausalTraceInputs, Kind
from mi_core.analyses.causal_trace_parts import AnswerTokens, Check, PlanFigures, Reading, TraceGrid
from mi_core.analyses.causal_trace_result import CausalTraceResult
from mi_core.provenance import Provenance
from mi_core.tokens import Token

N_LAYERS, N_HEADS = 8, 4
PIECES = ("<bos>", "The", " Eif", "fel", " Tower", " is", " located", " in", " the", " city of")
SUBJECT = (2, 5)
ANSWER, DISTRACTOR = 20, 21
VOCABULARY = {
    20: "·Paris",
    21: "·Rome",
    22: "·London",
    23: "·the",
    24: "·Berlin",
    25: "·Seattle",
    26: "·a",
    27: "·Madrid",
    28: "·Vienna",
    29: "↵",
    30: "·<b>Oslo</b>",
}  # one text that would be HTML if somebody forgot to escape it


def example_tokens() -> tuple[Token, ...]:
    """Ten tokens; positions count from 0 and the subject is 2 to 4."""
    tokens, place = [], 0
    for position, piece in enumerate(PIECES):
        length = 0 if position == 0 else len(piece)
        visible = piece.replace(" ", "·", 1) if piece.startswith(" ") else piece
        tokens.append(Token(position, 5 + position, visible, place, place + length, special=position == 0))
        place += length
    return tuple(tokens)


def example_provenance() -> Provenance:
    """Provenance of no model in particular."""
    return Provenance(
        model="atlas", revision=None, fingerprint="0123456789ab", dtype="float32", device="cpu",
        attention="fast",
        tokenizer="TokenizersBackend, 4,096 tokens, 0f3a9c21b7d4", lantern_version="0.1.0", torch="2.13.0",
        transformers="5.23.0", seed=0, created="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


def _shape_of(kind: Kind) -> np.ndarray:
    """Share of the total effect that is recovered at [position, layer]: early site, late site."""
    layers = np.arange(N_LAYERS)
    share = np.zeros((len(PIECES), N_LAYERS))
    strength = {
        "state": 1.0,
        "mlp": 0.5,
        "attn": 0.25,
        "state_attn_severed": 0.8,
        "state_mlp_severed": 0.2,
        "head": 0.1,
    }[kind]
    early = np.exp(-((layers - 3) ** 2) / 6)
    late = 1 / (1 + np.exp(-(layers - 5.5) * 1.6))
    for position, weight in ((SUBJECT[0], 0.10), (SUBJECT[0] + 1, 0.15), (SUBJECT[1] - 1, 0.62)):
        share[position] = weight * early * strength
    share[-1] = late * (1.0 if kind != "mlp" else 0.35)
    share[5:-1] = 0.04 * np.exp(-((layers - 4) ** 2) / 4)
    if kind.startswith("state"):
        share[-1, -1] = 1.0
        share[:-1, -1] = 0.0
    return share


def _samples(probability: np.ndarray, distractor: bool) -> dict[str, np.ndarray]:
    """Every stored metric, made consistent with the probability of the answer."""
    p = np.clip(probability, 1e-4, 0.999)
    logit = np.log(p / (1 - p)) + 2.0
    stored = {
        "probability": p,
        "log_probability": np.log(p),
        "logit": logit,
        "kl": np.maximum(0.0, 0.9 * np.log(0.93 / p)),
        "rank": 1 + np.floor(8 * (1 - p) ** 3),
        "top1_flip": (p > 0.3).astype(float),
    }
    if distractor:
        stored["logit_difference"] = logit - 2.5
    return stored


def _tops(probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ten tokens per cell, the answer where its probability puts it."""
    others = np.array([0.30, 0.18, 0.12, 0.09, 0.07, 0.05, 0.04, 0.03, 0.02])
    ids = np.empty((*probability.shape, 10), np.int64)
    values = np.empty((*probability.shape, 10))
    for index, p in np.ndenumerate(probability):
        numbers = np.concatenate([[p], others * (1 - p)])
        order = np.argsort(-numbers, kind="stable")
        ids[index], values[index] = np.arange(ANSWER, ANSWER + 10)[order], numbers[order]
    return ids, values


def _reading(probability: np.ndarray, distractor: bool) -> Reading:
    ids, values = _tops(probability.mean(keepdims=True))
    samples = _samples(probability, distractor)
    samples["top1_flip"] = (probability > 0.5).astype(float)
    return Reading(samples=samples, top_ids=ids[0], top_probabilities=values[0])


def example_result(
    kinds: tuple[Kind, ...] = ("state", "attn", "mlp"),
    *,
    samples: int = 10,
    distractor: bool = True,
    corrupted_prompt: str | None = None,
    done_share: float = 1.0,
    seed: int = 0,
) -> CausalTraceResult:
    """A causal trace of an 8-layer model on a ten-token prompt with an early and a late site.

    Args:
        kinds: grids to make.
        samples: noise samples; 1 together with `corrupted_prompt`.
        distractor: whether the two logit-difference metrics exist.
        corrupted_prompt: makes it a token-replacement trace.
        done_share: below 1 the later cells are not done, as in a cancelled trace.
        seed: of the made-up spread between samples.
    """
    random = np.random.default_rng(seed)
    samples = 1 if corrupted_prompt is not None else samples
    low = np.clip(0.08 + 0.04 * random.standard_normal(samples), 0.005, 0.3)
    corrupted, clean = _reading(low, distractor), _reading(np.array([0.93]), distractor)
    grids: dict[Kind, TraceGrid] = {kind: _grid(kind, low, distractor, done_share, random) for kind in kinds}
    inputs = CausalTraceInputs(
        prompt="The Eiffel Tower is located in the city of",
        corrupted_prompt=corrupted_prompt, subject=SUBJECT,
        samples=samples, kinds=kinds, answer=" Paris", distractor=" Rome" if distractor else None,
        head_position=4 if "head" in kinds else None,
    )  # fmt: skip
    tokens = example_tokens()
    noise = corrupted_prompt is None
    return CausalTraceResult(
        inputs=inputs,
        provenance=example_provenance(),
        tokens=tokens,
        corrupted_tokens=tokens,
        subject=SUBJECT,
        first_difference=SUBJECT[0],
        n_layers=N_LAYERS,
        answer=AnswerTokens(" Paris", (ANSWER,), ("·Paris",), "user"),
        distractor=AnswerTokens(" Rome", (DISTRACTOR,), ("·Rome",), "user") if distractor else None,
        clean=clean,
        corrupted=corrupted,
        grids=grids,
        plan=PlanFigures(
            240, 240 * samples, 33_600, 192_000, 4.1e9, 0.4, "shared", "4.1 times less work than full passes"
        ),
        seconds=0.37,
        noise_scale=0.41 if noise else None,
        sigma=0.1367 if noise else None,
        vocabulary=VOCABULARY,
        warnings=("The corruption is weak: the answer keeps 90 % of its probability.",) if seed == 1 else (),
        checks=(
            Check(
                "rows before the first difference equal the corrupted run",
                True,
                "2 rows, largest difference 0",
            ),
            Check("last layer: 100 % at the last token, 0 elsewhere", True, "largest difference 0"),
        ),
        cancelled=done_share < 1,
    )


def _grid(
    kind: Kind, low: np.ndarray, distractor: bool, done_share: float, random: np.random.Generator
) -> TraceGrid:
    share = _shape_of(kind)
    rows = tuple(range(len(PIECES)))
    if kind == "head":
        rows = tuple(range(N_HEADS))
        share = share[SUBJECT[1] - 1] * np.linspace(0.1, 1, N_HEADS)[:, None]
    probability = low + share[..., None] * (0.93 - low)
    spread = 0.02 * random.standard_normal(probability.shape) * (share[..., None] > 0)
    probability = np.clip(probability + spread * (share[..., None] < 1), 1e-4, 0.999)
    ids, values = _tops(probability.mean(-1))
    done = np.ones(share.shape, bool)
    done.ravel()[int(done_share * done.size) :] = False
    return TraceGrid(
        kind=kind,
        row_axis="head" if kind == "head" else "position",
        rows=rows,
        done=done,
        samples={
            n: np.where(done[..., None], v, np.nan) for n, v in _samples(probability, distractor).items()
        },
        top_ids=np.where(done[..., None], ids, -1),
        top_probabilities=np.where(done[..., None], values, np.nan),
    )
