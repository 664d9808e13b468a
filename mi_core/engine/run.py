"""One hooked forward pass: `run(model, tokens, capture=..., edits=...)`.

Cost: one forward pass of the model over all rows. Identity: with no edits the logits are what the model
itself returns, bit for bit; capturing changes nothing.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mi_core.engine.edits import Edit, normalise
from mi_core.engine.layout import dense_layout
from mi_core.engine.place import Place, Placed
from mi_core.engine.session import Session
from mi_core.errors import EditError, InputError, OutOfMemory
from mi_core.model.model import LoadedModel
from mi_core.sites import site

Capture = str | tuple[str, int | None]
Reduce = Callable[[Place, Tensor], Any]
"""What is kept of a captured value [row, pos, ...] or [row, head, query, key]; not a view of it."""


@dataclass(frozen=True, eq=False, slots=True)
class Run(Mapping[Place, Any]):
    """What one pass gave; a mapping from (site, layer) to captured tensors [row, ...] on the model's device.

    Attributes:
        logits: [row, pos, d_vocab], as the model returns them after all edits; with `last`, of the last
            positions only.
        captured: the captured values, or what `reduce` made of them.
        cut_rows: attention rows (row, head, query) that lost all their keys and therefore give zero.
    """

    logits: Float[Tensor, "row pos d_vocab"]
    captured: dict[Place, Any]
    cut_rows: int = 0

    def __getitem__(self, place: Place) -> Any:
        return self.captured[place]

    def __iter__(self) -> Iterator[Place]:
        return iter(self.captured)

    def __len__(self) -> int:
        return len(self.captured)


def run(
    model: LoadedModel,
    tokens: Int[Tensor, "row pos"],
    *,
    capture: Sequence[Capture] = (),
    edits: Sequence[Edit] = (),
    before_edits: bool = False,
    last: int | None = None,
    reduce: Reduce | None = None,
) -> Run:
    """Run the model once, with edits, and keep what is asked for.

    Args:
        model: the loaded model.
        tokens: token ids, all rows of equal length, no padding.
        capture: site names (all layers) or (site, layer) pairs.
        edits: applied in this order at each place, to every row (a value's row axis may differ per row).
        before_edits: keep values as they were before the edits at their own place.
        last: unembed only this many positions at the end; all of them when None. With a large vocabulary the
            logits of all positions are the largest tensor of the pass.
        reduce: called inside the pass with every captured place and value; only what it returns is kept. For
            long prompts and text collections, whose activations would not fit into memory.

    Raises:
        SiteMissing: the model lacks a site.
        EditError: an edit is out of range or never took effect.
        OutOfMemory: the device is too small for this batch.
    """
    places = expand(model, capture)
    n_rows, n_pos = check_tokens(model, tokens)
    fixed = [normalise(edit, model.structure, n_pos) for edit in edits]
    placed = [Placed(edit, 0, n_rows) for edit in fixed]

    def keep(place: Place, value: Tensor) -> Any:
        shaped = value.reshape(n_rows, *model.structure.shape(place[0], n_pos))
        return shaped.clone() if reduce is None else reduce(place, shaped)

    session = Session(
        model, dense_layout(n_rows, n_pos), placed, places, before_edits=before_edits, keep=keep
    )
    with torch.inference_mode(), memory_errors(model), session:
        logits = forward(session, tokens, last)
    check_fired(session, fixed)
    return Run(logits, session.captured, session.cut_rows)


def forward(session: Session, tokens: Tensor, last: int | None = None) -> Tensor:
    """The model's own forward inside an open session; edits and captures of `logits` included.

    Args:
        session: open.
        tokens: [row, pos].
        last: how many positions at the end to unembed; None for all. Ignored inside the model where somebody
            looks at every position's logits, or where the model cannot; the result is the same.
    """
    model, place = session.model, ("logits", None)
    watched = place in session.edits or place in session.capture
    keep = {"logits_to_keep": last} if last is not None and not watched and can_keep(model.hf) else {}
    logits = model.hf(input_ids=tokens.to(model.device), use_cache=False, **keep).logits
    if watched:
        new = session.visit(place, logits.reshape(-1, logits.shape[-1]))
        logits = logits if new is None else new.reshape(logits.shape)
    return logits if last is None else logits[:, -last:]


def can_keep(hf: Any) -> bool:
    """Whether the model's forward unembeds only what is asked for."""
    return "logits_to_keep" in inspect.signature(type(hf).forward).parameters


def expand(model: LoadedModel, capture: Sequence[Capture]) -> list[Place]:
    """Resolve site names to (site, layer) places, each once.

    Raises:
        SiteMissing: the model lacks one of them.
    """
    places: list[Place] = []
    for wanted in capture:
        name, layer = (wanted, None) if isinstance(wanted, str) else wanted
        found = site(name)
        layers = model.structure.layers_of(name) if found.per_layer and layer is None else [layer]
        for each in layers:
            model.structure.require(name, each)
        places += [(name, each) for each in layers if (name, each) not in places]
    return places


def check_tokens(model: LoadedModel, tokens: Tensor) -> tuple[int, int]:
    """Check token ids before the model sees them; return (rows, positions).

    Raises:
        InputError: no tokens, too many, or ids outside the vocabulary.
    """
    if tokens.dim() != 2 or tokens.numel() == 0:
        raise InputError(
            "There is nothing to run", why=f"token ids have shape {tuple(tokens.shape)}", fix="Type a prompt"
        )
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= model.dims.d_vocab:
        raise InputError(
            f"Token id {low if low < 0 else high} is not in the vocabulary of {model.dims.d_vocab}"
        )
    limit = context_limit(model)
    if limit and tokens.shape[1] > limit:
        raise InputError(
            f"The prompt has {tokens.shape[1]} tokens",
            why=f"the model takes at most {limit}",
            fix="Shorten the prompt",
        )
    return tokens.shape[0], tokens.shape[1]


def context_limit(model: LoadedModel) -> int | None:
    """How many tokens the model reads at most, if its configuration says so."""
    config = model.hf.config
    limit = getattr(getattr(config, "text_config", None) or config, "max_position_embeddings", None)
    return int(limit) if limit else None


def check_fired(session: Session, edits: Sequence[Edit]) -> None:
    """Every edit must have acted: an intervention that never fires gives a plausible figure of nothing.

    Raises:
        EditError: naming the first edit that did not act.
    """
    for edit in edits:
        if not session.acted[(edit.site, edit.layer)]:
            raise EditError(
                f"The edit at {edit.site!r}, layer {edit.layer}, never took effect",
                why="its hook did not fire",
            )


@contextmanager
def memory_errors(model: LoadedModel) -> Iterator[None]:
    """Tell an allocation failure in one sentence; other errors pass."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        release_cache(model)
        raise OutOfMemory(
            "The device ran out of memory",
            why=str(error).splitlines()[0][:200],
            fix="Use fewer rows, a shorter prompt or a smaller dtype",
        ) from error


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch could not allocate (CUDA, MPS or the CPU allocator)."""
    text = str(error)
    return (
        isinstance(error, torch.OutOfMemoryError)
        or "not enough memory" in text
        or "can't allocate memory" in text
    )


def release_cache(model: LoadedModel) -> None:
    """Give cached blocks back to the device."""
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
