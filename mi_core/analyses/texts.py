"""Sets of short texts of several kinds: what neurons are surveyed over and lenses are trained on.

The set that comes with Lantern is `mi_core.batch.texts.bundled_texts()`; files of users are read by
`mi_core.importers.text_files`.
"""

import hashlib
import json
from dataclasses import dataclass

from mi_core.errors import InputError

MAX_TEXT_CHARACTERS = 20_000
MAX_CATEGORY_CHARACTERS = 40
MAX_TEXTS = 5_000
MAX_CATEGORIES = 12  # more bars than that say nothing


@dataclass(frozen=True, slots=True)
class Text:
    """One text of a set.

    Attributes:
        category: what kind of text it is, for example "code".
        text: the text itself.
    """

    category: str
    text: str

    def __post_init__(self) -> None:
        """Both are text, neither is empty or absurdly long."""
        for field, limit in (("category", MAX_CATEGORY_CHARACTERS), ("text", MAX_TEXT_CHARACTERS)):
            value = getattr(self, field)
            if not isinstance(value, str):
                raise InputError(f"The {field} is not text", why=f"it is {str(value)[:80]!r}")
            if not value.strip():
                raise InputError(f"The {field} is empty")
            if len(value) > limit:
                raise InputError(f"The {field} has more than {limit:,} characters")


@dataclass(frozen=True, slots=True)
class TextSet:
    """Named texts.

    Attributes:
        name: what to call it in a caption.
        texts: in the order of their file.
        note: where it comes from, a clause.
    """

    name: str
    texts: tuple[Text, ...]
    note: str = ""

    def __post_init__(self) -> None:
        """A set holds something, and not too much."""
        check_texts(self.texts)

    @property
    def categories(self) -> tuple[str, ...]:
        """The kinds of text in it, in order of appearance."""
        return categories_of(self.texts)

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that two sets share only if categories and texts are the same."""
        return digest_of(self.texts)


def check_texts(texts: tuple[Text, ...]) -> None:
    """Refuse an empty set, one of too many texts, or one of too many categories.

    Raises:
        InputError: says which.
    """
    if not texts:
        raise InputError("The set of texts is empty", fix="Give at least one text")
    if len(texts) > MAX_TEXTS:
        raise InputError(f"The set has {len(texts):,} texts", fix=f"Give at most {MAX_TEXTS:,}")
    categories = categories_of(texts)
    if len(categories) > MAX_CATEGORIES:
        raise InputError(
            f"The set has {len(categories)} categories",
            why=f"for example {', '.join(categories[:5])}",
            fix=f"Give at most {MAX_CATEGORIES}",
        )


def categories_of(texts: tuple[Text, ...]) -> tuple[str, ...]:
    """The kinds of text, in order of appearance."""
    return tuple(dict.fromkeys(text.category for text in texts))


def digest_of(texts: tuple[Text, ...]) -> str:
    """See `TextSet.digest`."""
    whole = json.dumps([[text.category, text.text] for text in texts], ensure_ascii=False)
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:12]
