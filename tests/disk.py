"""Tiny models as folders, the way `save_pretrained` writes them, and tokenizers of every style."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

CORPUS = [
    "The Space Needle is in downtown Seattle. The capital of France is Paris.",
    "the cat sat on the mat, naïve café, San Francisco and San Diego",
]

SMALL: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def _wrap(tokenizer: Tokenizer, **options: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options)


@lru_cache
def byte_level(*, trim: bool = False, merges: int = 60) -> PreTrainedTokenizerFast:
    """Byte-level BPE, as GPT-2: its BOS is only put in when asked for."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim)  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=257 + merges,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    return _wrap(tokenizer, bos_token="<|end|>", eos_token="<|end|>", unk_token="<|end|>")


@lru_cache
def sentencepiece_bpe() -> PreTrainedTokenizerFast:
    """BPE with `▁` and byte fallback, as Llama 2: puts a BOS and a space before the text."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(  # type: ignore[assignment]
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(  # type: ignore[assignment]
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=specials, show_progress=False)
    # Trained with the bytes as special tokens, so that they are in the vocabulary, then made plain again.
    words = ["▁The", "▁Space", "▁Needle", "▁is", "▁in", "▁Paris", "▁San", "▁the", "Paris"]
    tokenizer.train_from_iterator(words * 5, trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = content["added_tokens"][:3]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return _wrap(tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@lru_cache
def unigram() -> PreTrainedTokenizerFast:
    """Unigram with Metaspace, as T5 or XLNet: BOS before, EOS behind, NFKC."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()  # type: ignore[assignment]
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()  # type: ignore[assignment]
    tokenizer.decoder = decoders.Metaspace()  # type: ignore[assignment]
    trainer = trainers.UnigramTrainer(
        vocab_size=100, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS * 10, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return _wrap(tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@lru_cache
def word_piece() -> PreTrainedTokenizerFast:
    """WordPiece, as BERT: lower case, `##` inside words, no BOS token of its own name."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)  # type: ignore[assignment]
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment]
    tokenizer.decoder = decoders.WordPiece()  # type: ignore[assignment]
    trainer = trainers.WordPieceTrainer(
        vocab_size=120, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS * 10, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return _wrap(tokenizer, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")


def save_model(
    folder: Path, family: str = "llama", *, shard: str = "5GB", seed: int = 0, **changes: Any
) -> Path:
    """Write a random model and a byte-level tokenizer to a folder; returns the folder."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(family, **{**SMALL, **changes})
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder, max_shard_size=shard)
    byte_level().save_pretrained(folder)
    return folder
