"""A fast tokenizer of whole words, made in memory: for tests that need text but no download."""

from functools import cache
from typing import Any

from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

WORDS = [
    "The",
    "Eiffel",
    "Tower",
    "Space",
    "Needle",
    "Big",
    "Ben",
    "is",
    "in",
    "the",
    "city",
    "of",
    "downtown",
    "located",
    "Paris",
    "Seattle",
    "Rome",
    "London",
    "Berlin",
    "San",
    "Francisco",
    "Madrid",
    "Oslo",
    "capital",
    "France",
    "Poland",
    "Italy",
    "Spain",
    "Warsaw",
    "and",
    "Mary",
    "John",
    "gave",
    "a",
    "drink",
    "to",
    "store",
    "went",
    "When",
    "he",
    "she",
    "it",
    "was",
    "born",
]


@cache
def word_tokenizer(bos: bool = False, size: int = 97) -> Any:
    """A tokenizer with one token per word: `Paris` (first in the text) and ` Paris` are different tokens.

    Args:
        bos: whether encoding puts `<s>` first.
        size: tokens in all; the rest are fillers.
    """
    pieces = ["<s>", "</s>", "<unk>", *(f"▁{word}" for word in WORDS)]
    pieces += [f"▁filler{number}" for number in range(size - len(pieces))]
    backend = Tokenizer(WordLevel({piece: index for index, piece in enumerate(pieces)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    if bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
