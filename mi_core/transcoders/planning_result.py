"""What the planning-in-poems experiment returns. CPU numpy."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from mi_core.analyses.attribution_result import ReadToken
from mi_core.analyses.causal_trace_parts import Check
from mi_core.provenance import Provenance
from mi_core.tokens import Token
from mi_core.transcoders.planning_inputs import PlanningInputs

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("probability", "log_probability", "logit", "rank", "kl")
"""What is read at the last position, in the order of the arrays' first axis."""
PARTS = ("injected", "suppressed")
ARRAYS = (
    "baseline", "values", "parts", "direct", "frozen", "random_features", "random_rotations",
    "distractor_probability", "risen_before", "risen_after", "risen_rank", "ratio", "norms", "activations",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class PlanningResult:
    """The answer's numbers with the features pushed at each token in turn, at each strength.

    Attributes:
        inputs: what was asked for.
        provenance: model, versions; None for results that were made without our model (imported files).
        transcoder: its name.
        source: "lantern", or the tool whose file this was read from.
        tokens: tokens of the prompt.
        answer: the token that is read.
        distractor: the token whose probability is read too, or None.
        features: the listed features, injected ones first.
        positions: tokens at which the features were pushed, one at a time.
        baseline: [metric] without a push.
        values: [metric, dose, position]; NaN where not run, or not in the file.
        parts: [metric, part, position] at `inputs.strength`, the injected features alone, then the suppressed
            ones alone; no parts unless both are given.
        direct: [metric, dose] with the push at the output position reaching the final norm only: what every
            later layer adds stays as in the baseline. NaN where not known.
        frozen: [position] change of the answer's logit for a strength of 1 with attention patterns, norm
            scales and MLPs held (the graph's direct effects); NaN where model or transcoder do not allow it.
        random_features: [metric, draw, position] at `inputs.strength`, other features of the same layers in
            place of the injected ones, the suppressed ones as they are.
        drawn: texts of these features, one per draw.
        risen_ids: [draw] the token whose logit rose most when this draw was injected at the output position.
        risen: texts of these tokens.
        risen_before: [draw] their probabilities in the baseline.
        risen_after: [draw] the same with the draw injected at the output position.
        risen_rank: [draw] their ranks then; 1 = the draw put its own token on top.
        random_rotations: [metric, rotation, position] at `inputs.strength`, the edit turned at random.
        distractor_probability: [dose, position]; NaN without a distractor.
        distractor_baseline: the same without a push; NaN without a distractor.
        ratio: [position] at `inputs.strength`: the largest over layers of the length of what was added up to
            that layer over the length of the state after it.
        norms: [layer] length of what is added there for a strength of 1.
        activations: [feature, position] of the listed features in the baseline, over `positions`.
        warnings: sentences to be read before the figure.
        checks: identities tried on this result.
        seconds: duration.
        cancelled: whether the user stopped it.
    """

    inputs: PlanningInputs
    provenance: Provenance | None
    transcoder: str
    source: str
    tokens: tuple[Token, ...]
    answer: ReadToken
    distractor: ReadToken | None
    features: tuple[str, ...]
    positions: tuple[int, ...]
    baseline: Float[np.ndarray, "metric"]
    values: Float[np.ndarray, "metric dose position"]
    parts: Float[np.ndarray, "metric part position"]
    direct: Float[np.ndarray, "metric dose"]
    frozen: Float[np.ndarray, "position"]
    random_features: Float[np.ndarray, "metric draw position"]
    drawn: tuple[str, ...]
    risen_ids: Int[np.ndarray, "draw"]
    risen: tuple[str, ...]
    risen_before: Float[np.ndarray, "draw"]
    risen_after: Float[np.ndarray, "draw"]
    risen_rank: Float[np.ndarray, "draw"]
    random_rotations: Float[np.ndarray, "metric rotation position"]
    distractor_probability: Float[np.ndarray, "dose position"]
    distractor_baseline: float
    ratio: Float[np.ndarray, "position"]
    norms: Float[np.ndarray, "layer"]
    activations: Float[np.ndarray, "feature position"]
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Every array has the shape that the others promise."""
        for name, shape in _shapes(self).items():
            found = getattr(self, name).shape
            if found != shape:
                raise ValueError(f"{name} has shape {found}, expected {shape}")
        if len(self.risen) != len(self.drawn) or (self.distractor is None) != np.isnan(
            self.distractor_baseline
        ):
            raise ValueError("draws or distractor do not fit")

    @property
    def doses(self) -> tuple[float, ...]:
        """Strengths of the arrays' dose axis."""
        return self.inputs.doses

    @property
    def dose(self) -> int:
        """Place of `inputs.strength` among them."""
        return self.doses.index(float(self.inputs.strength))

    @property
    def output(self) -> int:
        """The position whose logits are read: the last token."""
        return len(self.tokens) - 1

    @property
    def column(self) -> int | None:
        """Place of the output position among those tried; None = it was not tried."""
        return self.positions.index(self.output) if self.output in self.positions else None

    def line(self, metric: str) -> Float[np.ndarray, "position"]:
        """A metric over positions at `inputs.strength`."""
        return self.values[METRICS.index(metric), self.dose]

    def total_effect(self, metric: str) -> Float[np.ndarray, "dose position"]:
        """Pushed minus baseline."""
        index = METRICS.index(metric)
        return self.values[index] - self.baseline[index]

    def direct_effect(self, metric: str) -> Float[np.ndarray, "dose position"]:
        """Direct minus baseline; 0 at every token but the output: only attention brings more there."""
        index = METRICS.index(metric)
        found = np.zeros((len(self.doses), len(self.positions)))
        if self.column is not None:
            found[:, self.column] = self.direct[index] - self.baseline[index]
        return found

    def mediated_effect(self, metric: str) -> Float[np.ndarray, "dose position"]:
        """What is left of the total: the way through later attention and MLPs."""
        return self.total_effect(metric) - self.direct_effect(metric)

    @property
    def own_spikes(self) -> int:
        """How many random draws put their own token on top when they are injected at the output position."""
        return int((self.risen_rank == 1).sum())

    @property
    def best(self) -> int:
        """Place of the position with the highest probability at `inputs.strength`; -1 = nothing was run."""
        line = self.line("probability")
        return int(np.nanargmax(line)) if np.isfinite(line).any() else -1

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table, one number per row, with its unit: series, strength, position, metric, value."""
        from mi_core.transcoders.planning_record import planning_frame

        return planning_frame(self)

    def to_json(self) -> str:
        """JSON text: schema "lantern/planning", version, every field; no NaN."""
        from mi_core.transcoders.planning_record import planning_json

        return planning_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> "PlanningResult":
        """The inverse of `to_json`; numbers come back exactly.

        Raises:
            InputError: not such a record, or damaged.
        """
        from mi_core.transcoders.planning_record import planning_from_json

        return planning_from_json(text)


def _shapes(result: PlanningResult) -> dict[str, tuple[int, ...]]:
    counts = (len(result.doses), len(result.positions), len(result.drawn), result.random_rotations.shape[1])
    return shapes(
        *counts, parts=result.parts.shape[1], n_layers=len(result.norms), n_features=len(result.features)
    )


def shapes(
    doses: int,
    positions: int,
    draws: int,
    rotations: int,
    *,
    parts: int = 0,
    n_layers: int,
    n_features: int,
) -> dict[str, tuple[int, ...]]:
    """Every array's shape."""
    metrics = len(METRICS)
    return {
        "baseline": (metrics,),
        "values": (metrics, doses, positions),
        "parts": (metrics, parts, positions),
        "direct": (metrics, doses),
        "frozen": (positions,),
        "random_features": (metrics, draws, positions),
        "random_rotations": (metrics, rotations, positions),
        "distractor_probability": (doses, positions),
        "risen_ids": (draws,),
        "risen_before": (draws,),
        "risen_after": (draws,),
        "risen_rank": (draws,),
        "ratio": (positions,),
        "norms": (n_layers,),
        "activations": (n_features, positions),
    }
