"""The features of a prompt, chosen and sorted: one row per feature over the tokens that were chosen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int

from mi_core.analyses.plain import check_choice
from mi_core.errors import InputError
from mi_core.transcoders.names import Feature
from mi_core.transcoders.prompt_result import FeaturesOnPromptResult

Sort = Literal["activation", "sum", "effect"]
SORTS: dict[str, str] = {
    "activation": "Largest activation",
    "sum": "Sum over the tokens",
    "effect": "Effect on the target",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """What is shown of a prompt's features.

    Attributes:
        sort: "activation": largest over the chosen tokens; "sum": over the chosen tokens; "effect": size of
            the effect on the target, summed over the chosen tokens.
        positions: chosen tokens; empty = all that count.
        layers: source layers; empty = all.
        densest: features with a larger density are hidden; None = none is. Features of unknown density stay.
    """

    sort: Sort = "activation"
    positions: tuple[int, ...] = ()
    layers: tuple[int, ...] = ()
    densest: float | None = None

    def __post_init__(self) -> None:
        """Only known ways to sort."""
        check_choice("sort", self.sort, get_args(Sort))


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """Features over the chosen tokens, the first one on top.

    Attributes:
        layer: source layer.
        feature: number in the layer.
        activation: largest over the chosen tokens.
        position: where that is; of equal ones the first.
        share: that activation as a multiple of the threshold; NaN without one.
        total: sum of the activations over the chosen tokens.
        tokens: at how many of the chosen tokens it is active.
        effect: sum of its effects over the chosen tokens [logits]; NaN where not computed.
        density: of the corpus; NaN where not known.
        dense: how many features were hidden because they are dense.
        n_chosen: how many tokens were chosen.
    """

    layer: Int[np.ndarray, " feature"]
    feature: Int[np.ndarray, " feature"]
    activation: Float[np.ndarray, " feature"]
    position: Int[np.ndarray, " feature"]
    share: Float[np.ndarray, " feature"]
    total: Float[np.ndarray, " feature"]
    tokens: Int[np.ndarray, " feature"]
    effect: Float[np.ndarray, " feature"]
    density: Float[np.ndarray, " feature"]
    dense: int
    n_chosen: int

    def __len__(self) -> int:
        return len(self.layer)

    def named(self, row: int) -> Feature:
        """The feature of a row."""
        return Feature(int(self.layer[row]), int(self.feature[row]))

    def row_of(self, wanted: Feature) -> int | None:
        """The row of a feature; None if it is not listed."""
        found = np.flatnonzero((self.layer == wanted.layer) & (self.feature == wanted.index))
        return int(found[0]) if len(found) else None

    def value(self, sort: Sort) -> Float[np.ndarray, " feature"]:
        """What the rows are sorted by."""
        return {"activation": self.activation, "sum": self.total, "effect": self.effect}[sort]


def listing(result: FeaturesOnPromptResult, choice: Choice) -> Listing:
    """Choose and sort; equal values in the order of layer and number.

    Raises:
        InputError: a token is not in the prompt, or effects were not computed.
    """
    wrong = [position for position in choice.positions if not 0 <= position < len(result.tokens)]
    if wrong:
        raise InputError(
            f"The prompt has no token {wrong[0]}", why=f"its tokens are 0 to {len(result.tokens) - 1}"
        )
    if choice.sort == "effect" and not result.has_effects:
        raise InputError("Effects were not computed", fix="Ask for them, or sort by activation")
    kept = _chosen(result, choice)
    dense = np.zeros(len(result), bool) if choice.densest is None else result.density > choice.densest
    hidden = _n_features(result, kept & dense)
    return _sorted(result, np.flatnonzero(kept & ~dense), choice, hidden)


def _chosen(result: FeaturesOnPromptResult, choice: Choice) -> Bool[np.ndarray, " n"]:
    kept = np.ones(len(result), bool)
    if choice.positions:
        kept &= np.isin(result.position, choice.positions)
    if choice.layers:
        kept &= np.isin(result.layer, choice.layers)
    return kept


def _n_features(result: FeaturesOnPromptResult, kept: Bool[np.ndarray, " n"]) -> int:
    return len(set(zip(result.layer[kept].tolist(), result.feature[kept].tolist(), strict=True)))


def _sorted(
    result: FeaturesOnPromptResult, entries: Int[np.ndarray, " kept"], choice: Choice, hidden: int
) -> Listing:
    """One row per feature from its entries at tokens."""
    # By layer and number, the strongest token first: every feature is one run, headed by its largest.
    order = entries[np.lexsort((
        result.position[entries], -result.activation[entries], result.feature[entries], result.layer[entries],
    ))]  # fmt: skip
    layer, feature = result.layer[order], result.feature[order]
    new = np.ones(len(order), bool)
    new[1:] = (layer[1:] != layer[:-1]) | (feature[1:] != feature[:-1])
    heads, group = order[new], np.cumsum(new) - 1
    n = len(heads)
    # Of nothing at all, numpy's counts are whole numbers.
    total = np.bincount(group, weights=result.activation[order], minlength=n).astype(float)
    effect = np.bincount(group, weights=result.effect[order], minlength=n).astype(float)
    by = {"activation": result.activation[heads].astype(float), "sum": total, "effect": np.abs(effect)}
    rank = np.argsort(-by[choice.sort], kind="stable")
    heads = heads[rank]
    return Listing(
        layer=result.layer[heads],
        feature=result.feature[heads],
        activation=result.activation[heads].astype(float),
        position=result.position[heads],
        share=result.share[heads].astype(float),
        total=total[rank],
        tokens=np.bincount(group, minlength=n)[rank],
        effect=effect[rank],
        density=result.density[heads].astype(float),
        dense=hidden,
        n_chosen=len(choice.positions) or len(result.counting),
    )


def by_token(
    result: FeaturesOnPromptResult, features: Sequence[Feature], positions: Sequence[int]
) -> Float[np.ndarray, "feature position"]:
    """Activations of some features at some tokens; 0 where not active, NaN at masked tokens."""
    found = np.zeros((len(features), len(positions)))
    column = {position: index for index, position in enumerate(positions)}
    for row, feature in enumerate(features):
        here = np.flatnonzero((result.layer == feature.layer) & (result.feature == feature.index))
        for entry in here.tolist():
            at = column.get(int(result.position[entry]))
            if at is not None:
                found[row, at] = result.activation[entry]
    found[:, [column[position] for position in result.masked if position in column]] = np.nan
    return found
