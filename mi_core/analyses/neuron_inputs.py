"""What a user chooses for the four looks at neurons: the survey, one neuron, one text, one prompt."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from mi_core.analyses.plain import check_choice, check_text, check_whole, inputs_from_dict, inputs_to_dict
from mi_core.analyses.texts import Text, categories_of, check_texts
from mi_core.errors import InputError
from mi_core.tokens import Bos

MAX_TOKENS = 4096
MAX_TOP = 200
MAX_CONTEXTS = 100
MAX_BINS = 200
MAX_TEXT = 100_000

Measure = Literal["peak", "mean_absolute", "share_active", "selectivity"]
MEASURES: tuple[Measure, ...] = get_args(Measure)


@dataclass(frozen=True, slots=True)
class NeuronSurveyInputs:
    """Which neurons of every layer are the most active over a set of texts.

    Attributes:
        texts: the set; each with its category.
        set_name: what to call the set.
        top: neurons kept per layer and measure.
        contexts: strongest tokens kept per neuron.
        max_tokens: longer texts are cut here.
        bos: whether a beginning-of-sequence token is put before every text.
    """

    texts: tuple[Text, ...]
    set_name: str = "texts"
    top: int = 20
    contexts: int = 5
    max_tokens: int = 256
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of."""
        _check_set(self)
        check_whole("number of neurons per layer", self.top, 1, MAX_TOP)
        check_whole("number of contexts", self.contexts, 1, MAX_CONTEXTS)

    @property
    def categories(self) -> tuple[str, ...]:
        """Kinds of text, in order of appearance."""
        return categories_of(self.texts)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "NeuronSurveyInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that is refused.
        """
        return inputs_from_dict(cls, values, "survey")


@dataclass(frozen=True, slots=True)
class NeuronInputs:
    """One neuron over a set of texts.

    Attributes:
        layer: its layer.
        neuron: its number in the layer.
        texts: the set; each with its category.
        set_name: what to call the set.
        bins: bars of the histogram.
        vocabulary: tokens that it promotes and suppresses most, how many of each.
        resamples: bootstrap resamples of texts behind the categories' bands.
        seed: of the bootstrap.
        max_tokens: longer texts are cut here.
        bos: whether a beginning-of-sequence token is put before every text.
    """

    layer: int
    neuron: int
    texts: tuple[Text, ...]
    set_name: str = "texts"
    bins: int = 40
    vocabulary: int = 15
    resamples: int = 1000
    seed: int = 0
    max_tokens: int = 256
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of."""
        _check_set(self)
        _check_place(self)
        check_whole("number of bars", self.bins, 2, MAX_BINS)
        check_whole("number of tokens", self.vocabulary, 1, MAX_TOP)
        check_whole("number of resamples", self.resamples, 100, 100_000)
        check_whole("seed", self.seed, 0, 2**32 - 1)

    @property
    def categories(self) -> tuple[str, ...]:
        """Kinds of text, in order of appearance."""
        return categories_of(self.texts)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "NeuronInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that is refused.
        """
        return inputs_from_dict(cls, values, "neuron")


@dataclass(frozen=True, slots=True)
class NeuronTextInputs:
    """One neuron in one text, on a scale that was fixed before.

    Attributes:
        text: the text.
        layer: the neuron's layer.
        neuron: its number in the layer.
        bound: the colours run from -bound to bound, in units of activation; take it from a `NeuronResult`
            (`bound`), so that no text changes the meaning of a colour. 0 = fit it to this text.
        bos: whether a beginning-of-sequence token is put first.
    """

    text: str
    layer: int
    neuron: int
    bound: float = 0.0
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of."""
        check_text("text", self.text, MAX_TEXT, fix="Type a text")
        _check_place(self)
        check_choice("bos", self.bos, get_args(Bos))
        if not 0 <= self.bound < 1e30:  # also refuses NaN
            raise InputError(f"The bound of the colours is {self.bound}", fix="Give a number above 0")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "NeuronTextInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that is refused.
        """
        return inputs_from_dict(cls, values, "neuron's text")


@dataclass(frozen=True, slots=True)
class NeuronPromptInputs:
    """The most active neurons at every token and layer of a prompt.

    Attributes:
        prompt: the prompt.
        top: neurons kept per token and layer.
        bos: whether a beginning-of-sequence token is put first.
    """

    prompt: str
    top: int = 10
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of."""
        check_text("prompt", self.prompt, MAX_TEXT, fix="Type a prompt")
        check_whole("number of neurons", self.top, 1, MAX_TOP)
        check_choice("bos", self.bos, get_args(Bos))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "NeuronPromptInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that is refused.
        """
        return inputs_from_dict(cls, values, "neurons' prompt")


def _check_set(inputs: NeuronSurveyInputs | NeuronInputs) -> None:
    if isinstance(inputs.texts, list):  # hashable, whoever wrote [..] in a notebook
        object.__setattr__(inputs, "texts", tuple(inputs.texts))
    if not all(isinstance(text, Text) for text in inputs.texts):
        raise InputError("The texts are not texts with a category", fix="Give a tuple of Text")
    check_texts(inputs.texts)
    if not isinstance(inputs.set_name, str):
        raise InputError(f"The name of the set is {inputs.set_name!r}", fix="Give a text")
    check_whole("limit of tokens per text", inputs.max_tokens, 2, MAX_TOKENS)
    check_choice("bos", inputs.bos, get_args(Bos))


def _check_place(inputs: NeuronInputs | NeuronTextInputs) -> None:
    check_whole("layer", inputs.layer, 0, 100_000)
    check_whole("neuron", inputs.neuron, 0, 10_000_000)
