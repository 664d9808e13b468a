"""A tokenizer of whole words and line breaks, and texts of these words."""

from functools import cache
from typing import Any

import numpy as np
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from mi_core.analyses.texts import Text
from tests.words import WORDS


@cache
def line_tokenizer(bos: bool = True) -> Any:
    """Whole words, and a token of its own for a line break."""
    pieces = ["<s>", "</s>", "<unk>", "▁\n", *(f"▁{word}" for word in WORDS)]
    pieces += [f"▁filler{number}" for number in range(97 - len(pieces))]
    backend = Tokenizer(WordLevel({piece: index for index, piece in enumerate(pieces)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    if bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def some_texts(words: int = 420, seed: int = 0) -> tuple[Text, ...]:
    random = np.random.default_rng(seed)
    return tuple(Text("text", " ".join(random.choice(WORDS, size=words // 3))) for _ in range(3))
