"""A set of texts as a model reads it: tokens, which of them count, and batches of equal length.

The first position never counts, nor does a BOS token: many models put activations there that are tens to
thousands of times larger than anywhere else (massive activations, Sun et al. 2024, arXiv 2402.17762), and one
of them would set every scale and every ranking. Texts are batched by length, so nothing is padded.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mi_core.analyses.texts import Text, categories_of
from mi_core.errors import InputError
from mi_core.model.model import LoadedModel
from mi_core.model.structure import Dims
from mi_core.tokens import Bos, tokenize

MAX_SET_TOKENS = 500_000
"""Tokens of a set that are kept as text, to show contexts."""

BATCH_TOKENS = 512
FEW_TEXTS = 5
_BATCH_BYTES = 128_000_000
_BYTES_PER_UNIT = 40  # alive per token and neuron while a batch is counted: float64, int64 keys, copies


@dataclass(frozen=True, slots=True)
class ReadText:
    """One text of the set in tokens.

    Attributes:
        index: its place in the set.
        category: number of its category.
        ids: token ids, cut at the limit.
        visible: what to show for each.
        first: first position that counts.
        offset: tokens of the set that stand before it.
    """

    index: int
    category: int
    ids: tuple[int, ...]
    visible: tuple[str, ...]
    first: int
    offset: int

    @property
    def counted(self) -> int:
        """Number of positions that count."""
        return max(0, len(self.ids) - self.first)


@dataclass(frozen=True, slots=True)
class ReadSet:
    """All texts of a set in tokens.

    Attributes:
        texts: those that can be read, in the set's order.
        categories: names, by number.
        cut: texts that were cut at the limit.
        unread: texts that have no token for this tokenizer.
    """

    texts: tuple[ReadText, ...]
    categories: tuple[str, ...]
    cut: int
    unread: int

    @property
    def n_tokens(self) -> int:
        """Tokens in all, those that do not count included."""
        return sum(len(text.ids) for text in self.texts)

    @property
    def counted(self) -> int:
        """Positions that count."""
        return sum(text.counted for text in self.texts)

    def token_counts(self) -> list[int]:
        """Positions that count, per category."""
        counts = [0] * len(self.categories)
        for text in self.texts:
            counts[text.category] += text.counted
        return counts

    def text_counts(self) -> list[int]:
        """Texts with at least one position that counts, per category."""
        counts = [0] * len(self.categories)
        for text in self.texts:
            counts[text.category] += text.counted > 0
        return counts


def read_texts(
    tokenizer: Any, texts: Sequence[Text], *, max_tokens: int, bos: Bos, context: int | None
) -> ReadSet:
    """Tokenize a set.

    Args:
        tokenizer: fast Hugging Face tokenizer.
        texts: the set.
        max_tokens: longer texts are cut here.
        bos: see `mi_core.tokens.tokenize`.
        context: longest prompt that the model reads; None = unknown.

    Raises:
        InputError: no tokenizer, no text with a position that counts, or more tokens than are kept.
    """
    categories = categories_of(tuple(texts))
    limit = max_tokens if context is None else min(max_tokens, context)
    read: list[ReadText] = []
    cut = unread = offset = 0
    for index, text in enumerate(texts):
        try:
            tokens = tokenize(tokenizer, text.text, bos=bos)
        except InputError:
            if tokenizer is None or bos == "always":
                raise  # the same for every text
            unread += 1
            continue
        kept = tokens.tokens[:limit]
        cut += len(tokens) > limit
        read.append(
            ReadText(
                index,
                categories.index(text.category),
                tuple(token.id for token in kept),
                tuple(token.visible for token in kept),
                max(1, tokens.bos),
                offset,
            )
        )
        offset += len(kept)
        if offset > MAX_SET_TOKENS:
            raise InputError(
                f"The texts have more than {MAX_SET_TOKENS:,} tokens", fix="Give fewer, or cut them shorter"
            )
    found = ReadSet(tuple(read), categories, cut, unread)
    if found.counted == 0:
        raise InputError(
            "No token of these texts can be counted",
            why="the first token of a text never counts, and no text has a second one",
            fix="Give longer texts",
        )
    return found


def context_of(model: LoadedModel) -> int | None:
    """The longest prompt that a model reads, in tokens; None = unknown."""
    config = model.hf.config
    return getattr(getattr(config, "text_config", None) or config, "max_position_embeddings", None)


def batch_tokens(dims: Dims) -> int:
    """Tokens per batch, so that what is alive while one is counted stays near 128 MB."""
    return max(1, min(BATCH_TOKENS, _BATCH_BYTES // max(1, _BYTES_PER_UNIT * dims.d_mlp)))


def batches(texts: Sequence[ReadText], tokens: int) -> list[list[ReadText]]:
    """Texts of equal length together, at most `tokens` tokens (but at least one text) in each.

    Texts without a position that counts are left out. The order depends on nothing but the set.
    """
    by_shape: dict[tuple[int, int], list[ReadText]] = defaultdict(list)
    for text in texts:
        if text.counted:
            by_shape[(len(text.ids), text.first)].append(text)
    made = []
    for (length, _), group in sorted(by_shape.items()):
        rows = max(1, tokens // length)
        made += [group[start : start + rows] for start in range(0, len(group), rows)]
    return made


def set_warnings(read: ReadSet, whole: ReadSet, *, cancelled: bool) -> tuple[str, ...]:
    """What has to be known about the texts before a figure is read.

    Args:
        read: what was read.
        whole: the whole set.
        cancelled: whether the user stopped the run.
    """
    warnings = []
    if cancelled:
        warnings.append(
            f"Stopped after {len(read.texts)} of {len(whole.texts)} texts, the shortest first: "
            "kinds of text are not equally represented."
        )
    if whole.cut:
        warnings.append(f"{whole.cut} of {len(whole.texts)} texts were cut at the limit of tokens.")
    if whole.unread:
        warnings.append(f"{whole.unread} texts have no token that this tokenizer knows; they are left out.")
    few = [
        f"{name} ({count})"
        for name, count in zip(read.categories, read.text_counts(), strict=True)
        if count < FEW_TEXTS
    ]
    if few and len(read.categories) > 1:
        warnings.append(f"Few texts of a kind: {', '.join(few)}. Their means say little.")
    return tuple(warnings)


def agreement(model: LoadedModel) -> float:
    """By how much two batches may differ at one token, relative to the largest activation of the layer.

    Kernels add in another order for another batch; activations are kept in float32.
    """
    rounding = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 2e-2}
    return rounding.get(model.dtype, 1e-1)
