"""A tokenizer like GPT-2's that knows names and two-digit numbers, and a tiny model that reads it."""

from functools import lru_cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from mi_core.analyses.tasks_ioi import FRAMES, NAMES, PLACES, THINGS
from mi_core.analyses.tasks_words import CENTURIES, EVENTS, LINKS, NOUNS
from mi_core.engine import build_model
from mi_core.model.model import LoadedModel

SENTENCES = [
    *(frame for _, frame in FRAMES),
    "The thing lasted from the year to the year is are was were has have",
    *(f"and {word}" for word in (*PLACES, *THINGS, *EVENTS, *LINKS)),
    *(f"The {one} the {many}" for one, many in NOUNS),
]


@lru_cache
def gpt2_like(*, names: int = 12, years: bool = True) -> Any:
    """Byte-level BPE without a BOS token.

    Args:
        names: how many names are single tokens.
        years: whether 1732 becomes " 17" "32"; else every digit is a token.
    """
    tokenizer = Tokenizer(models.BPE())
    split = r"'s| ?\d{2}" if years else r"'s| ?\d"
    from tokenizers import Regex

    pieces = pre_tokenizers.Split(Regex(split + r"| ?\p{L}+| ?[^\s\p{L}\d]+|\s+"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [pieces, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=5000,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    numbers = [f" {c}{y:02d}" for c in CENTURIES for y in range(100)] if years else []
    text = [*SENTENCES, *(f"and {name}" for name in NAMES[:names]), *numbers]
    tokenizer.train_from_iterator(text * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|end|>", eos_token="<|end|>", unk_token="<|end|>"
    )


def gpt2_like_hf() -> Any:
    """A fresh random GPT-2 of two layers for that tokenizer, float64."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "gpt2", vocab_size=len(gpt2_like()), n_embd=24, n_head=3, n_layer=2, n_positions=40,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval().double()
    for parameter in model.parameters():
        parameter.data.mul_(6) if parameter.dim() > 1 else parameter.data.add_(
            0.2 * torch.randn_like(parameter)
        )
    return model


@lru_cache
def task_model() -> LoadedModel:
    """The proved model."""
    return build_model(gpt2_like_hf(), gpt2_like())
