"""What a user chooses for the character-count helix."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from mi_core.analyses.logit_lens_inputs import STREAM_SITES, LensSite
from mi_core.analyses.plain import check_choice, check_whole, inputs_from_dict, inputs_to_dict
from mi_core.analyses.texts import Text, check_texts
from mi_core.errors import InputError
from mi_core.tokens import Bos

WIDTHS = tuple(range(20, 151, 10))
MAX_WIDTH, MAX_WIDTHS = 1000, 100
MAX_COMPONENTS = 20
MAX_TOKENS = 5_000_000


@dataclass(frozen=True, slots=True)
class CharacterHelixInputs:
    """How a model represents the number of characters since the line began.

    Attributes:
        texts: joined to one running text, which is wrapped anew at every width.
        set_name: what to call the texts.
        widths: most characters per line, each wrapping for itself.
        max_count: largest number of characters since the line's start that is averaged.
        n_min: character counts with fewer tokens are left out.
        components: principal components kept.
        site: the residual stream before, inside or after every block.
        max_tokens: reading stops before the stretch of text (2,000 characters, at every width) that would
            exceed this; the first stretch is always read.
        chunk_tokens: longest piece of text in one forward pass, in tokens.
        seed: of the control, whose character counts are shuffled among the tokens.
        bos: whether a beginning-of-sequence token is put before every piece.
    """

    texts: tuple[Text, ...]
    set_name: str = "texts"
    widths: tuple[int, ...] = WIDTHS
    max_count: int = 150
    n_min: int = 10
    components: int = 6
    site: LensSite = "resid_post"
    max_tokens: int = 60_000
    chunk_tokens: int = 512
    seed: int = 0
    bos: Bos = "auto"

    def __post_init__(self) -> None:
        """Refuse what no model could make sense of."""
        for name in ("texts", "widths"):  # hashable, whoever wrote [..] in a notebook
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if not isinstance(self.texts, tuple) or not all(isinstance(text, Text) for text in self.texts):
            raise InputError("The texts are not texts with a category", fix="Give a tuple of Text")
        check_texts(self.texts)
        if not isinstance(self.set_name, str):
            raise InputError(f"The name of the set is {self.set_name!r}", fix="Give a text")
        self._check_widths()
        check_whole("largest character count", self.max_count, 2, MAX_WIDTH)
        check_whole("least number of tokens per count", self.n_min, 1, 1_000_000)
        check_whole("number of components", self.components, 1, MAX_COMPONENTS)
        check_choice("site", self.site, STREAM_SITES)
        check_whole("limit of tokens", self.max_tokens, 100, MAX_TOKENS)
        check_whole("longest piece in tokens", self.chunk_tokens, 8, 100_000)
        check_whole("seed", self.seed, 0, 2**32 - 1)
        check_choice("bos", self.bos, get_args(Bos))

    def _check_widths(self) -> None:
        if not isinstance(self.widths, tuple) or not 1 <= len(self.widths) <= MAX_WIDTHS:
            raise InputError("The widths are no list of line widths", fix=f"Give 1 to {MAX_WIDTHS} widths")
        for width in self.widths:
            check_whole("line width", width, 2, MAX_WIDTH)
        if len(set(self.widths)) < len(self.widths):
            raise InputError("A line width is given twice", fix="Give every width once")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return inputs_to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CharacterHelixInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that is refused.
        """
        return inputs_from_dict(cls, values, "helix")
