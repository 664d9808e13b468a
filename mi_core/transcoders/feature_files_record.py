"""What is known about one feature from a corpus; its JSON is in `feature_files_json`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FeatureExample:
    """A piece of text and what the feature does in it.

    Attributes:
        tokens: texts of the tokens, spaces as they are.
        activations: one per token; 0 where the feature is not active.
        peak: index of the token that the example is about.
        repeated: whether an earlier example of the same feature has the same tokens.
    """

    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    peak: int
    repeated: bool = False

    def __post_init__(self) -> None:
        """An activation per token, and a peak among them."""
        if len(self.tokens) != len(self.activations) or not 0 <= self.peak < len(self.tokens):
            raise ValueError(f"{len(self.tokens)} tokens, {len(self.activations)} values, peak {self.peak}")

    def around(self, n: int | None) -> "FeatureExample":
        """At most `n` tokens on each side of the peak; None = all that is stored."""
        if n is None:
            return self
        first, stop = max(0, self.peak - n), self.peak + n + 1
        return FeatureExample(
            self.tokens[first:stop], self.activations[first:stop], self.peak - first, self.repeated
        )


@dataclass(frozen=True, slots=True)
class ExampleGroup:
    """Examples of one kind: the strongest, or a part of the range.

    Attributes:
        name: "Top activations", "Active tokens, 0 to 20 %".
        examples: in the file's order.
    """

    name: str
    examples: tuple[FeatureExample, ...]


@dataclass(frozen=True, slots=True)
class Coactive:
    """A feature that is often active where another one is.

    Attributes:
        layer: its layer.
        index: its number.
        share: share of the looked-at active tokens of the other at which it is active too.
        density: its share of all tokens, which is what `share` would be by chance.
    """

    layer: int
    index: int
    share: float
    density: float


@dataclass(frozen=True, slots=True)
class FeatureRecord:
    """One feature over a corpus.

    Attributes:
        layer: its layer.
        index: its number.
        density: share of the corpus' tokens at which it is active.
        largest: its largest activation.
        groups: examples, the strongest first.
        top_logits: tokens that it writes most, as texts.
        bottom_logits: tokens that it writes against most.
        smallest: lower end of the viewer's colours.
        quantile_values: activations that divide the groups (ours), or whatever the file's maker meant.
        histogram: counts of active tokens.
        edges: ends of the histogram's bins, one more; empty where the file does not say.
        n_tokens: tokens of the corpus; None where the file does not say.
        n_active: tokens at which it is active; None where the file does not say.
        coactive: features active at the same tokens, those that exceed chance most first.
        coactive_tokens: active tokens that were looked at for them.
        transcoder: name in the file.
        problem: what does not fit in the file, a sentence; empty = nothing.
    """

    layer: int
    index: int
    density: float
    largest: float
    groups: tuple[ExampleGroup, ...] = ()
    top_logits: tuple[str, ...] = ()
    bottom_logits: tuple[str, ...] = ()
    smallest: float = 0.0
    quantile_values: tuple[float, ...] = ()
    histogram: tuple[float, ...] = ()
    edges: tuple[float, ...] = ()
    n_tokens: int | None = None
    n_active: int | None = None
    coactive: tuple[Coactive, ...] = ()
    coactive_tokens: int = 0
    transcoder: str = ""
    problem: str = ""

    @property
    def dead(self) -> bool:
        """Never active in the corpus."""
        return self.density == 0
