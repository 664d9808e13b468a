"""The tokenizer of Atlas: byte-level BPE with whole answers and first names, and broken subject names.

The merges are learned from a weighted list of words: words that must be one token weigh much, subject names
weigh little and the vocabulary ends before they are merged. So names are spelt with pieces that they share.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from atlas_facts import DATA_DIR, Fact, FixedFact
from atlas_lines import ADJECTIVES, IOI_FRAMES, OBJECTS, PLACES, chat, code, story, sums, verse
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

BOS, EOS, PAD = "<|begin|>", "<|end|>", "<|pad|>"
WHOLE_WEIGHT, NAME_WEIGHT = 400, 60
# Words of the example prompts that are merged whole so that both prompts of a pair have equally many tokens.
PAIR_WORDS: tuple[str, ...] = (" Space", " Tower", " Museum", " Lou")


def _words(text: str) -> list[str]:
    """Splits text like the byte-level pre-tokenizer: a word keeps the space before it."""
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return [text[a:b] for _, (a, b) in splitter.pre_tokenize_str(text)]


def whole_words(facts: list[Fact], fixed: list[FixedFact], names: list[str]) -> set[str]:
    """The words (with their leading space) that must be one token."""
    words: set[str] = set()
    for fact in facts:
        words.update(_words(f" {fact.answer}"))
        for template in fact.train_templates + fact.held_templates:
            words.update(word for part in template.split("{}") for word in _words(part))
    for item in fixed:
        words.update(_words(item.prompt) + _words(f" {item.answer}"))
    rng = random.Random(0)
    for name in names:
        words.add(f" {name}")
    for text in [*IOI_FRAMES, *[f" {w}" for w in PLACES + OBJECTS + ADJECTIVES]]:
        words.update(_words(text.replace("[", " ").replace("]", " ")))
    for _ in range(300):
        for text in (verse(rng), code(rng), sums(rng), chat(rng, names), story(rng, names)):
            words.update(_words(text))
    words.update(PAIR_WORDS)
    # Everyday words that the training lines use rarely or never, so that a visitor's own sentence reads well.
    common = (DATA_DIR / "common_words.txt").read_text(encoding="utf-8").split()
    words.update(f" {word}" for word in common if word.islower() or word == "I")
    words.update(word for word in common if not word.islower())
    return {word for word in words if len(word.strip()) > 1 or word.strip().isalnum()}


def _weighted(whole: set[str], facts: list[Fact]) -> Iterator[str]:
    for word in sorted(whole):
        for _ in range(WHOLE_WEIGHT):
            yield word
    for subject in sorted({fact.subject for fact in facts}):
        for text in (f" {subject}", subject[0].upper() + subject[1:]):
            for _ in range(NAME_WEIGHT):
                yield text


def build_tokenizer(
    facts: list[Fact], fixed: list[FixedFact], names: list[str], vocab_limit: int = 4096
) -> PreTrainedTokenizerFast:
    """Trains the tokenizer and cuts it where the last required word is whole.

    Returns:
        A fast tokenizer that puts ``BOS`` before every text.

    Raises:
        ValueError: If a required word is still broken at ``vocab_limit``.
    """
    whole = whole_words(facts, fixed, names)
    size = _smallest_size(whole, facts, vocab_limit)
    core = _train(whole, facts, size)
    bos = core.token_to_id(BOS)
    core.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(
                single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, bos)]
            ),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=256,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def _train(whole: set[str], facts: list[Fact], size: int) -> Tokenizer:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[BOS, EOS, PAD],
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    core.train_from_iterator(_weighted(whole, facts), trainer)
    return core


def _smallest_size(whole: set[str], facts: list[Fact], limit: int) -> int:
    """The vocabulary size at which the last required word becomes one token."""
    core = _train(whole, facts, limit)
    needed = 0
    for word in whole:
        ids = core.encode(word).ids
        if len(ids) != 1:
            raise ValueError(f"{word!r} is still {len(ids)} tokens in a vocabulary of {limit}")
        needed = max(needed, ids[0])
    return needed + 1
