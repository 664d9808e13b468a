"""What a survey of neurons returns: the neurons that lead a ranking, with statistics and contexts.

Of all neurons only those are kept that are among the `top` of their layer by one of the measures, so the
result stays small for any model. Everything is CPU numpy and plain Python.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.neuron_inputs import MEASURES, Measure, NeuronSurveyInputs
from mi_core.errors import InputError
from mi_core.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class MeasureInfo:
    """One number by which neurons are ranked.

    Attributes:
        label: for an axis or a column.
        unit: "activation", "share of tokens" or "standard deviations".
        meaning: one sentence.
    """

    label: str
    unit: str
    meaning: str


MEASURE_INFO: Mapping[Measure, MeasureInfo] = {
    "peak": MeasureInfo(
        "strongest activation", "activation", "The activation that is farthest from 0, with its sign."
    ),
    "mean_absolute": MeasureInfo(
        "mean |activation|", "activation", "Mean over tokens of the absolute activation."
    ),
    "share_active": MeasureInfo(
        "share above 0", "share of tokens", "Share of tokens at which the activation is above 0."
    ),
    "selectivity": MeasureInfo(
        "selectivity",
        "standard deviations",
        "Mean activation on one kind of text minus that on all other kinds, in standard deviations of the "
        "neuron's activation over all tokens; 0 = no difference.",
    ),
}


@dataclass(frozen=True, slots=True)
class SurveyCost:
    """What a survey takes, from shapes alone.

    Attributes:
        texts: texts that are read.
        tokens: tokens of all forward passes.
        passes: forward passes.
        state_bytes: memory of the running statistics; does not grow with the texts.
        activations: numbers that go by and are not kept.
        seconds: expected duration; None before the model's speed is known.
    """

    texts: int
    tokens: int
    passes: int
    state_bytes: int
    activations: int
    seconds: float | None


@dataclass(frozen=True, slots=True, eq=False)
class NeuronSurveyResult:
    """The leading neurons of every layer over a set of texts.

    `n` of every statistic is the number of tokens that count, `token_counts.sum()`. The axis `kept` is sorted
    by layer, then by neuron.

    Attributes:
        inputs: what was asked for.
        provenance: model, versions.
        n_layers: layers of the model.
        d_mlp: neurons per layer.
        categories: kinds of text.
        text_counts: texts of each kind.
        token_counts: tokens of each kind that count.
        layers: layer of each kept neuron.
        neurons: its number in the layer.
        mean: mean activation.
        deviation: standard deviation over tokens (of the population).
        mean_absolute: mean of the absolute activation.
        share_active: share of tokens with an activation above 0.
        maximum: largest activation.
        minimum: smallest.
        category_means: mean activation on each kind of text; NaN where a kind has no token.
        context_values: strongest activations by absolute value, in descending order of it, with sign.
        context_texts: place of their text in `inputs.texts`; -1 where there are fewer tokens.
        context_positions: position in that text; -1 where there are fewer tokens.
        layer_peak: per layer, the largest absolute activation of all neurons.
        layer_mean_absolute: per layer, mean over neurons and tokens of the absolute activation.
        layer_share_active: per layer, share of neurons and tokens with an activation above 0.
        never_active: per layer, neurons that were never above 0.
        tokens: visible tokens of the texts that contexts point into, by place in `inputs.texts`.
        cost: what it took.
        warnings: sentences to be read before the figure.
        checks: identities tried on this result.
        seconds: duration.
        cancelled: whether the user stopped it; then the statistics are over the texts read until then.
    """

    inputs: NeuronSurveyInputs
    provenance: Provenance | None
    n_layers: int
    d_mlp: int
    categories: tuple[str, ...]
    text_counts: Int[np.ndarray, "category"]
    token_counts: Int[np.ndarray, "category"]
    layers: Int[np.ndarray, "kept"]
    neurons: Int[np.ndarray, "kept"]
    mean: Float[np.ndarray, "kept"]
    deviation: Float[np.ndarray, "kept"]
    mean_absolute: Float[np.ndarray, "kept"]
    share_active: Float[np.ndarray, "kept"]
    maximum: Float[np.ndarray, "kept"]
    minimum: Float[np.ndarray, "kept"]
    category_means: Float[np.ndarray, "kept category"]
    context_values: Float[np.ndarray, "kept context"]
    context_texts: Int[np.ndarray, "kept context"]
    context_positions: Int[np.ndarray, "kept context"]
    layer_peak: Float[np.ndarray, "layer"]
    layer_mean_absolute: Float[np.ndarray, "layer"]
    layer_share_active: Float[np.ndarray, "layer"]
    never_active: Int[np.ndarray, "layer"]
    tokens: Mapping[int, tuple[str, ...]]
    cost: SurveyCost
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Shapes agree with each other, and contexts point at tokens that are there."""
        kept, kinds = len(self.layers), len(self.categories)
        per_neuron = ("neurons", "mean", "deviation", "mean_absolute", "share_active", "maximum", "minimum")
        expected = (
            {name: (kept,) for name in per_neuron}
            | {name: (self.n_layers,) for name in LAYER_ARRAYS}
            | {"category_means": (kept, kinds), "text_counts": (kinds,), "token_counts": (kinds,)}
            | {name: (kept, self.inputs.contexts) for name in CONTEXT_ARRAYS}
        )
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")
        for text, position in zip(self.context_texts.ravel(), self.context_positions.ravel(), strict=True):
            if text >= 0 and not 0 <= position < len(self.tokens.get(int(text), ())):
                raise ValueError(f"a context is token {position} of text {text}, which is not there")

    @property
    def n_tokens(self) -> int:
        """Tokens that count: n of every statistic."""
        return int(self.token_counts.sum())

    @property
    def peak(self) -> Float[np.ndarray, "kept"]:
        """Strongest activation by absolute value, with its sign."""
        return self.context_values[:, 0]

    def selectivity(self, category: str | None = None) -> Float[np.ndarray, "kept"]:
        """(mean on a kind of text - mean on all others) / standard deviation over all tokens.

        Args:
            category: the kind of text; None = for each neuron the kind with the largest selectivity.

        Returns:
            Standard deviations; NaN where there is no other text or the neuron never changes.

        Raises:
            InputError: there is no such kind.
        """
        every = selectivity(self.category_means, self.token_counts, self.mean, self.deviation)
        if category is None:
            found = np.isfinite(every).any(axis=1)
            return np.where(found, np.max(np.nan_to_num(every, nan=-np.inf), axis=1), np.nan)
        return every[:, self._category(category)]

    def measure(self, name: Measure, category: str | None = None) -> Float[np.ndarray, "kept"]:
        """The numbers of a measure; see `MEASURE_INFO`.

        Args:
            name: the measure.
            category: for selectivity, the kind of text; None = each neuron's own best.
        """
        if name not in MEASURES:
            raise InputError(f"The measure is {name!r}", fix=f"Choose one of {', '.join(MEASURES)}")
        return self.selectivity(category) if name == "selectivity" else getattr(self, name)

    def ranking(
        self, name: Measure, layer: int, category: str | None = None, count: int | None = None
    ) -> Int[np.ndarray, "rank"]:
        """Places on the axis `kept` of a layer's leading neurons, the first first (by |value| for peaks).

        Args:
            name: the measure.
            layer: the layer.
            category: for selectivity, the kind of text.
            count: how many at most; None = `inputs.top`, the number up to which the ranking is that of all
                neurons.
        """
        values = np.abs(self.measure(name, category))
        if name == "selectivity":
            values = self.measure(name, category)
        here = np.flatnonzero((self.layers == layer) & np.isfinite(values))
        order = here[np.argsort(-values[here], kind="stable")]
        return order[: min(count or self.inputs.top, self.inputs.top)]

    def context(self, kept: int, rank: int = 0) -> tuple[str, int] | None:
        """Visible token and text number of a kept neuron's context; None where there are fewer."""
        text, position = int(self.context_texts[kept, rank]), int(self.context_positions[kept, rank])
        return None if text < 0 else (self.tokens[text][position], text)

    def _category(self, name: str) -> int:
        if name not in self.categories:
            raise InputError(
                f"There is no kind of text called {name[:60]!r}",
                why=f"there are {', '.join(self.categories)}",
            )
        return self.categories.index(name)

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table: one row per neuron and number, with its unit and n."""
        from mi_core.analyses.neuron_survey_record import to_frame

        return to_frame(self)

    def to_json(self) -> str:
        """The whole result as JSON text."""
        from mi_core.analyses.neuron_survey_record import to_json

        return to_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> "NeuronSurveyResult":
        """The inverse of `to_json`.

        Raises:
            InputError: anything that `to_json` would not have written.
        """
        from mi_core.analyses.neuron_survey_record import from_json

        return from_json(text)


LAYER_ARRAYS = ("layer_peak", "layer_mean_absolute", "layer_share_active", "never_active")
CONTEXT_ARRAYS = ("context_values", "context_texts", "context_positions")
ARRAYS = (
    "text_counts",
    "token_counts",
    "layers",
    "neurons",
    "mean",
    "deviation",
    "mean_absolute",
    "share_active",
    "maximum",
    "minimum",
    "category_means",
    *CONTEXT_ARRAYS,
    *LAYER_ARRAYS,
)
"""Every array of the result, by its name in the record."""


def selectivity(
    category_means: Float[np.ndarray, "neuron category"],
    token_counts: Int[np.ndarray, "category"],
    mean: Float[np.ndarray, "neuron"],
    deviation: Float[np.ndarray, "neuron"],
) -> Float[np.ndarray, "neuron category"]:
    """(mean on a kind of text - mean on all others) / deviation, for every kind; NaN where undefined."""
    total, others = token_counts.sum(), token_counts.sum() - token_counts
    usable = (others > 0) & (token_counts > 0)
    own = np.where(usable, category_means, np.nan)
    rest = (total * mean[:, None] - token_counts * own) / np.where(usable, others, 1)
    spread = np.where(deviation > 1e-12 * np.maximum(1, np.abs(mean)), deviation, np.nan)
    return (own - rest) / spread[:, None]
