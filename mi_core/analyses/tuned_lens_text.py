"""Text for a tuned lens: cut into contexts, and split into what is trained on and what is held out.

A document is cut into contexts of equal length, each with the BOS token in front if there is one. Contexts
that occur twice are kept once, so nothing that is held out is ever trained on. With ten documents or more
whole documents are held out, otherwise single contexts.

The first token of each context (the BOS token, if there is one) is read but neither trained on nor measured:
models rest attention there, and its state is often a hundred times longer than all others.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from mi_core.analyses.tuned_lens_inputs import TunedLensTrainInputs
from mi_core.errors import InputError
from mi_core.model.model import LoadedModel
from mi_core.tokens import tokenize

MIN_DOCUMENTS = 10  # below this, single contexts are held out instead of whole documents
MAX_STOPPING_TOKENS, MAX_VALIDATION_TOKENS = 4096, 8192


@dataclass(frozen=True, slots=True)
class Context:
    """Tokens that the model reads together.

    Attributes:
        ids: token ids.
        skipped: tokens at its start that are read only.
    """

    ids: tuple[int, ...]
    skipped: int

    @property
    def n_counted(self) -> int:
        """Tokens at which lenses are compared."""
        return len(self.ids) - self.skipped


@dataclass(frozen=True, slots=True)
class Split:
    """The text of one training.

    Attributes:
        training: what the translators learn from.
        stopping: decides which step is kept.
        validation: neither learnt from nor used to decide; the quality is measured here.
        whole_documents: whether whole documents were held out.
    """

    training: tuple[Context, ...]
    stopping: tuple[Context, ...]
    validation: tuple[Context, ...]
    whole_documents: bool


def count_tokens(contexts: Sequence[Context]) -> int:
    """Tokens at which lenses are compared."""
    return sum(context.n_counted for context in contexts)


def split_text(model: LoadedModel, inputs: TunedLensTrainInputs) -> Split:
    """Cut the texts and hold some out.

    Raises:
        InputError: too little text, or a context that the model cannot read.
    """
    documents = list(_documents(model, inputs))
    whole = len(documents) >= MIN_DOCUMENTS
    units = documents if whole else [[context] for document in documents for context in document]
    if len(units) < 3:
        raise InputError(
            "There is too little text to train on",
            why=f"it gives {len(units)} contexts of {inputs.context} tokens, and at least 3 are needed",
            fix="Give more text, or a shorter context",
        )
    order = np.random.default_rng(inputs.seed).permutation(len(units))
    queue = [units[index] for index in order]
    half = inputs.held_out * sum(count_tokens(unit) for unit in units) / 2
    # Two units stay behind, so that each part has at least one.
    validation = _take(queue, min(half, MAX_VALIDATION_TOKENS), leave=2)
    stopping = _take(queue, min(half, MAX_STOPPING_TOKENS), leave=1)
    training = tuple(context for unit in queue for context in unit)
    return Split(training, stopping, validation, whole)


def _take(queue: list[list[Context]], wanted: float, *, leave: int) -> tuple[Context, ...]:
    """Units from the front until there are enough tokens, at least one."""
    taken: list[Context] = []
    while len(queue) > leave and (not taken or count_tokens(taken) < wanted):
        taken += queue.pop(0)
    return tuple(taken)


def _documents(model: LoadedModel, inputs: TunedLensTrainInputs) -> Iterator[list[Context]]:
    """The contexts of each text, without those that were there before."""
    lead = _leading(model, inputs)
    longest = getattr(model.hf.config, "max_position_embeddings", None)
    if longest is not None and inputs.context > longest:
        raise InputError(
            f"A context of {inputs.context:,} tokens is too long", why=f"this model reads at most {longest:,}"
        )
    room, skipped = inputs.context - len(lead), max(1, len(lead))
    seen: set[tuple[int, ...]] = set()
    for text in inputs.texts:
        ids = model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        contexts = []
        for start in range(0, len(ids), room):
            part = (*lead, *ids[start : start + room])
            if len(part) > skipped and part not in seen:
                seen.add(part)
                contexts.append(Context(part, skipped))
        if contexts:
            yield contexts


def _leading(model: LoadedModel, inputs: TunedLensTrainInputs) -> tuple[int, ...]:
    """The tokens that stand before every context."""
    sample = next(text for text in inputs.texts if text.strip())
    prompt = tokenize(model.tokenizer, sample.strip()[:200], bos=inputs.bos)
    return prompt.ids[: prompt.bos]


@dataclass(slots=True)
class Batches:
    """Endless batches of contexts, every context once per round, in a new order each round."""

    contexts: tuple[Context, ...]
    batch_tokens: int
    random: np.random.Generator
    queue: list[int] = field(default_factory=list)

    def next(self) -> list[Context]:
        """The next contexts: as many as have `batch_tokens` tokens, at least one."""
        batch: list[Context] = []
        while not batch or count_tokens(batch) < self.batch_tokens:
            if not self.queue:
                self.queue = self.random.permutation(len(self.contexts)).tolist()
            batch.append(self.contexts[self.queue.pop()])
            if count_tokens(batch) >= self.batch_tokens or len(batch) == len(self.contexts):
                break
        return batch


def in_order(contexts: Sequence[Context], batch_tokens: int) -> Iterator[list[Context]]:
    """All contexts once, in batches of about `batch_tokens` tokens."""
    batch: list[Context] = []
    for context in contexts:
        batch.append(context)
        if count_tokens(batch) >= batch_tokens:
            yield batch
            batch = []
    if batch:
        yield batch
