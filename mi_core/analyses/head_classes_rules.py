"""Classes of heads as conjunctions of measured numbers, each with its 95 % band; never a sign alone.

A condition holds if the whole band lies beyond its bound, fails if the whole band lies short of it, and is
open in between (the number cannot tell). A class is given if all its conditions hold.

    name mover              direct > e    attention to IO > a    IO above S > 0    copying > c
    negative name mover     direct < -e   attention to IO > a    IO above S > 0    negative copying > c
    S-inhibition            into the name movers' queries < -e   attention to S2 > a    S2 above IO > 0
    backup                  ablated > -e  ablated without name movers < -e   the second below the first by > e
    previous token, duplicate token, induction: the habit on repeated random tokens > h
                            (duplicate token also: attention from S2 to S1 > a, where the task has them)

    e = `least_share` x mean logit difference, a = `least_attention`, c = `least_copying`, h = `least_habit`

The first four say what a head does here and exclude each other; the last three are habits. "unclear": several
of a kind hold; or the first condition of a class holds and another is open; or ablating the head changes the
logit difference by more than e, and nothing explains it. "none": nothing was found. Definitions: Wang et al.
2022 (arXiv 2211.00593, section 3); habits: Olsson et al. 2022 (arXiv 2209.11895).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mi_core.analyses.head_classes_inputs import HeadClassesInputs

Label = Literal[
    "name mover",
    "negative name mover",
    "S-inhibition",
    "backup",
    "duplicate token",
    "induction",
    "previous token",
    "unclear",
    "none",
]
ROLES: tuple[Label, ...] = ("name mover", "negative name mover", "S-inhibition", "backup")
HABITS: tuple[Label, ...] = ("duplicate token", "induction", "previous token")

QUANTITIES: dict[str, tuple[str, str]] = {
    "direct": ("direct effect", "logits"),
    "attention_io": ("attention end to IO", "share"),
    "attention_s1": ("attention end to S1", "share"),
    "attention_s2": ("attention end to S2", "share"),
    "io_above_s": ("attention to IO above S1 and S2", "share"),
    "s2_above_io": ("attention to S2 above IO", "share"),
    "s2_to_s1": ("attention S2 to S1", "share"),
    "copying": ("copying score", "share"),
    "copying_negative": ("negative copying score", "share"),
    "duplicate_token": ("duplicate-token habit", "share"),
    "induction": ("induction habit", "share"),
    "previous_token": ("previous-token habit", "share"),
    "ablated": ("effect of ablation", "logits"),
    "ablated_later": ("effect of ablation without name movers", "logits"),
    "later_change": ("change of that effect", "logits"),
    "into_queries": ("path into name movers' queries", "logits"),
}
"""Name in the arrays -> (label, unit), in the arrays' order."""


@dataclass(frozen=True, slots=True)
class Band:
    """A mean with its 95 % band; all NaN where nothing was measured."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Condition:
    """One number that a class asks for: beyond `bound`, above it or below it."""

    quantity: str
    bound: float
    above: bool = True

    def state(self, band: Band) -> Literal["holds", "fails", "open"]:
        """What the band says; what was not measured (NaN) fails."""
        low, high = (band.low, band.high) if self.above else (-band.high, -band.low)
        bound = self.bound if self.above else -self.bound
        if low > bound:
            return "holds"
        return "open" if high > bound else "fails"

    def text(self, band: Band) -> str:
        """The number it rests on, in words."""
        name, unit = QUANTITIES[self.quantity]
        sign = ">" if self.above else "<"
        shown = (
            "not measured" if band.mean != band.mean else f"{band.mean:.3g} [{band.low:.3g}, {band.high:.3g}]"
        )
        unit = "" if unit == "share" else f" {unit}"
        return f"{name} {shown}{unit} ({sign} {self.bound:.3g}: {self.state(band)})"

    def short(self, band: Band) -> str:
        """The number alone; empty where nothing was measured."""
        name, _ = QUANTITIES[self.quantity]
        return "" if band.mean != band.mean else f"{name} {band.mean:.3g} [{band.low:.3g}, {band.high:.3g}]"


Rules = dict[Label, tuple[Condition, ...]]
_LOOKS = ("direct", "attention_io", "attention_s1", "attention_s2")


@dataclass(frozen=True, slots=True)
class Verdict:
    """A head's label and what it rests on.

    Attributes:
        label: the class.
        habits: habits of a head that has a role as well.
        reasons: one sentence per number.
    """

    label: Label
    habits: tuple[Label, ...]
    reasons: tuple[str, ...]


def rules(inputs: HeadClassesInputs, baseline: float, *, has_names: bool) -> Rules:
    """The conditions of every class.

    Args:
        inputs: the thresholds.
        baseline: mean logit difference of the clean prompts.
        has_names: whether the task has roles S1 and S2.
    """
    effect, attention = inputs.least_share * abs(baseline), inputs.least_attention
    looks = (Condition("attention_io", attention), Condition("io_above_s", 0.0))
    seen = (Condition("s2_to_s1", attention),) if has_names else ()
    return {
        "name mover": (
            Condition("direct", effect),
            *looks,
            Condition("copying", inputs.least_copying),
        ),
        "negative name mover": (
            Condition("direct", -effect, above=False),
            *looks,
            Condition("copying_negative", inputs.least_copying),
        ),
        "S-inhibition": (
            Condition("into_queries", -effect, above=False),
            Condition("attention_s2", attention),
            Condition("s2_above_io", 0.0),
        ),
        "backup": (
            Condition("ablated_later", -effect, above=False),
            Condition("ablated", -effect),
            Condition("later_change", -effect, above=False),
        ),
        "duplicate token": (Condition("duplicate_token", inputs.least_habit), *seen),
        "induction": (Condition("induction", inputs.least_habit),),
        "previous token": (Condition("previous_token", inputs.least_habit),),
    }


def classify(numbers: Mapping[str, Band], asked: Rules, effect: float) -> Verdict:
    """Give a head its label.

    Args:
        numbers: by quantity.
        asked: from `rules`.
        effect: smallest change of the logit difference that counts, logits.
    """
    states: dict[Label, list[str]] = {
        label: [condition.state(numbers[condition.quantity]) for condition in conditions]
        for label, conditions in asked.items()
    }
    given: list[Label] = [
        label for label, found in states.items() if all(state == "holds" for state in found)
    ]
    roles: list[Label] = [label for label in given if label in ROLES]
    habits: list[Label] = [label for label in given if label in HABITS]
    if len(roles) == 1:
        return Verdict(roles[0], tuple(habits), _told(asked, numbers, roles + habits))
    if len(roles) > 1 or len(habits) > 1:
        why = f"the numbers fit {' and '.join(roles or habits)}"
        return Verdict("unclear", (), (why, *_told(asked, numbers, roles or habits)))
    perhaps: list[Label] = [
        label
        for label, found in states.items()
        if label in ROLES and found[0] == "holds" and "open" in found and "fails" not in found
    ]
    if perhaps:
        why = f"perhaps {' or '.join(perhaps)}: a band reaches over its bound"
        return Verdict("unclear", (), (why, *_told(asked, numbers, perhaps)))
    if habits:
        return Verdict(habits[0], (), _told(asked, numbers, habits))
    ablated = numbers["ablated"]
    if ablated.low > effect or ablated.high < -effect:
        told = Condition("ablated", effect if ablated.mean > 0 else -effect, above=ablated.mean > 0)
        looks = [Condition(name, 0.0).short(numbers[name]) for name in _LOOKS]
        seen = tuple(text for text in looks if text)
        return Verdict("unclear", (), ("it matters, and no class explains it", told.text(ablated), *seen))
    return Verdict("none", (), ())


def _told(asked: Rules, numbers: Mapping[str, Band], labels: Sequence[Label]) -> tuple[str, ...]:
    """Every number that these classes ask for, once."""
    lines = [condition.text(numbers[condition.quantity]) for label in labels for condition in asked[label]]
    return tuple(dict.fromkeys(lines))
