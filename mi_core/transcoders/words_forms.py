"""Which tokens stand for a word: with a space in front, and without."""

from mi_core.answers import answer_choices
from mi_core.errors import InputError
from mi_core.model.model import LoadedModel
from mi_core.tokens import tokenize, visible_token

_ANCHOR = "a"  # what the forms are tokenised behind; words come after words
_SPACE, _BREAK = "·", "↵"


def word_forms(model: LoadedModel, word: str) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Token ids to search, and sentences about what a reader must know of them.

    A word that is one token with a space in front and one without has both; where no form is one token, the
    first token of the usual form stands for it, and that is said. A visible space or line break, as figures
    show them, is read as what it shows.

    Raises:
        InputError: the model has no tokenizer, or there is nothing to search.
    """
    if model.tokenizer is None:
        raise InputError("This model has no tokenizer", fix="Load it with one to search for words")
    text = word.replace(_SPACE, " ").replace(_BREAK, "\n") or word
    if not text.strip(" "):
        raise InputError("The word is empty", fix="Type a word")
    choices = answer_choices(model.tokenizer, tokenize(model.tokenizer, _ANCHOR, bos="never"), text)
    whole = [choice for choice in choices if choice.single_token]
    unknown = getattr(model.tokenizer, "unk_token_id", None)
    known = [choice for choice in whole if choice.ids[0] != unknown]
    if known:
        return tuple(dict.fromkeys(choice.ids[0] for choice in known)), ()
    if whole:
        raise InputError(f"{word!r:.60} is no word of this tokenizer", fix="Type another word")
    first = choices[0]
    return (first.ids[0],), (
        f"{first.text!r:.80} is {len(first.ids)} tokens ({' '.join(first.pieces)}); only the first, "
        f"{first.pieces[0]}, was searched, and other words may begin with it.",
    )


def shown(model: LoadedModel, token_ids: tuple[int, ...]) -> tuple[str, ...]:
    """Visible texts of token ids."""
    return tuple(visible_token(model.tokenizer, token) for token in token_ids)
