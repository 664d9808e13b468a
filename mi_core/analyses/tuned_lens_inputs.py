"""What a user chooses for training a tuned lens."""

import hashlib
import re
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from mi_core.analyses.plain import check_choice, check_whole, inputs_from_dict, inputs_to_dict
from mi_core.errors import InputError
from mi_core.tokens import Bos

Optimizer = Literal["sgd", "adam"]

RATES: dict[Optimizer, float] = {"sgd": 1.0, "adam": 1e-3}
"""The tuned-lens package's learning rates; SGD's is multiplied by 1 - momentum."""

MAX_TEXTS = 100_000
MAX_CHARACTERS = 20_000_000
MAX_FILE_BYTES = 20_000_000


@dataclass(frozen=True, slots=True)
class TunedLensTrainInputs:
    """How to train a tuned lens.

    Attributes:
        texts: what the model reads; each is a document of its own.
        text_name: what to call them.
        steps: training steps at most; 0 only measures the lens that it starts from.
        optimizer: "sgd" with Nesterov momentum 0.9, or "adam" (AMSGrad).
        learning_rate: at the first step (after Adam's warm-up), falling in a line to 0; None = the usual one,
            1 for SGD (times 1 - momentum) and 0.001 for Adam.
        weight_decay: pull of the translators towards zero, that is towards the plain lens.
        batch_tokens: tokens per step, at least one context.
        context: tokens that the model reads at a time, the BOS token included.
        held_out: share of the tokens that is not trained on; half of it decides when to stop, the other half
            is what the quality is measured on.
        start: a tuned lens to go on from, by name or folder; "" = zero, the plain lens.
        seed: of the split and of the order.
        bos: whether each context begins with a BOS token; "auto" = as the tokenizer does.
    """

    texts: tuple[str, ...]
    text_name: str = "text"
    steps: int = 250
    optimizer: Optimizer = "sgd"
    learning_rate: float | None = None
    weight_decay: float = 1e-3
    batch_tokens: int = 1024
    context: int = 128
    held_out: float = 0.2
    start: str = ""
    seed: int = 0
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what no model could be trained with."""
        if isinstance(self.texts, list):
            object.__setattr__(self, "texts", tuple(self.texts))
        _check_texts(self.texts)
        check_choice("optimizer", self.optimizer, get_args(Optimizer))
        check_choice("BOS", self.bos, get_args(Bos))
        check_whole("number of steps", self.steps, 0, 1_000_000)
        check_whole("batch", self.batch_tokens, 16, 4_000_000)
        check_whole("context", self.context, 4, 100_000)
        check_whole("seed", self.seed, 0, 2**32 - 1)
        rate = self.learning_rate
        if rate is not None and not 0 < rate <= 100:
            raise InputError(f"The learning rate is {rate}", fix="Give a number above 0, up to 100")
        if not 0 <= self.weight_decay <= 1:
            raise InputError(f"The weight decay is {self.weight_decay}", fix="Give a number from 0 to 1")
        if not 0.02 <= self.held_out <= 0.9:
            raise InputError(f"The held-out share is {self.held_out}", fix="Give a number from 0.02 to 0.9")
        if not self.steps and not self.start:
            raise InputError(
                "There is nothing to do with 0 steps",
                fix="Give more steps, or a lens whose quality is wanted",
            )

    @property
    def rate(self) -> float:
        """The learning rate in use."""
        return RATES[self.optimizer] if self.learning_rate is None else self.learning_rate

    @property
    def text_digest(self) -> str:
        """64 hexadecimal digits that two trainings share only if their texts are the same."""
        digest = hashlib.sha256()
        for text in self.texts:
            digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
        return digest.hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TunedLensTrainInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that is refused.
        """
        return inputs_from_dict(cls, values, "training")


@dataclass(frozen=True, slots=True)
class TunedLensSaveInputs(TunedLensTrainInputs):
    """The name of the lens, besides its training."""

    save_as: str = "tuned"
    replace: bool = False

    @property
    def training(self) -> TunedLensTrainInputs:
        """The training alone: saving changes no number."""
        names = [field.name for field in fields(TunedLensTrainInputs)]
        return TunedLensTrainInputs(**{name: getattr(self, name) for name in names})


# The command line takes the help of its options from here.
TunedLensSaveInputs.__doc__ = f"""{TunedLensTrainInputs.__doc__}    save_as: name of the lens.
        replace: allow that an older lens of this name is replaced.
    """


def _check_texts(texts: object) -> None:
    if not isinstance(texts, tuple) or not all(isinstance(text, str) for text in texts):
        raise InputError("The training texts are not text")
    if not any(text.strip() for text in texts):
        raise InputError("There is no text to train on", fix="Give a file with a few pages of text")
    if len(texts) > MAX_TEXTS or sum(map(len, texts)) > MAX_CHARACTERS:
        raise InputError(
            "There is too much text",
            fix=f"Give at most {MAX_TEXTS:,} texts and {MAX_CHARACTERS:,} characters",
        )


def documents_of(data: bytes) -> tuple[str, ...]:
    """The documents of a text file: blank lines separate them.

    Args:
        data: content of the file, UTF-8.

    Raises:
        InputError: too big, or no text in UTF-8.
    """
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"The text file is larger than {MAX_FILE_BYTES // 1_000_000} MB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            "The file is no text in UTF-8", why=f"byte {error.start:,} does not fit", fix="Save it as UTF-8"
        ) from error
    if "\0" in text:
        raise InputError("The file is no text", why="it holds zero bytes")
    parts = re.split(r"\n[ \t]*(?:\n[ \t]*)+", text.replace("\r\n", "\n"))
    documents = tuple(part.strip("\n") for part in parts if part.strip())
    _check_texts(documents)
    return documents
