"""Replaying single layers: a base run remembered well enough to continue it from any layer and position.

Blocks are called with the arguments that the model itself passed to them in the base run (rotary tables,
position ids), gathered at the positions of the packed tokens, so no family needs its own code. Attention
masks are the base run's too, sliced per group. The tail (final norm, unembedding, softcaps) is the model's
own forward, run with the last block's output replaced.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mi_core.engine import attention
from mi_core.engine.edits import Edit
from mi_core.engine.layout import Layout, dense_layout, packed_layout
from mi_core.engine.place import Placed
from mi_core.engine.run import forward
from mi_core.engine.session import Session, first_tensor, with_first
from mi_core.model.model import LoadedModel

Tick = Callable[[], None]


@dataclass(frozen=True, eq=False, slots=True)
class Arguments:
    """Arguments of one block call, without the hidden states."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    positional: bool


@dataclass(frozen=True, eq=False, slots=True)
class BaseRun:
    """The base run: everything that a continuation needs.

    Attributes:
        tokens: [row, pos].
        edits: the base's own edits, already normalised.
        entering: per layer the block's input [row, pos, d_model] before the edits at `embed` and `resid_pre`.
        streams: per layer the same after them; last entry: the last block's output, after all edits.
        keys: per layer (keys, values) after rotary, [row, kv_head, pos, d_head].
        masks: per layer the additive attention mask [1, 1, query, key], or None.
        arguments: per layer the other arguments of the block.
        logits: [row, read, d_vocab] at the read positions.
    """

    tokens: Int[Tensor, "row pos"]
    edits: tuple[Edit, ...]
    entering: list[Float[Tensor, "row pos d_model"]]
    streams: list[Float[Tensor, "row pos d_model"]]
    keys: list[tuple[Tensor, Tensor]]
    masks: list[Tensor | None]
    arguments: list[Arguments]
    logits: Float[Tensor, "row read d_vocab"]

    @property
    def n_rows(self) -> int:
        """Base rows."""
        return self.tokens.shape[0]

    @property
    def n_pos(self) -> int:
        """Tokens per row."""
        return self.tokens.shape[1]

    def prefix(self, layer: int, first: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the positions before `first`."""
        keys, values = self.keys[layer]
        return keys[:, :, :first], values[:, :, :first]


def base_run(model: LoadedModel, tokens: Tensor, edits: Sequence[Edit], read: Sequence[int]) -> BaseRun:
    """Run the base once and remember it. Cost: one forward pass over the base rows."""
    n_rows, n_pos = tokens.shape
    n_layers, arguments, entering, streams = model.dims.n_layers, {}, {}, {}
    session = Session(
        model, dense_layout(n_rows, n_pos), [Placed(edit, 0, n_rows) for edit in edits], (), keep_keys=True
    )

    def remember_raw(layer: int) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            entering[layer] = args[0] if args else kwargs["hidden_states"]

        return hook

    def remember(layer: int) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            rest = {name: value for name, value in kwargs.items() if name != "hidden_states"}
            arguments[layer] = Arguments(args[1:], rest, bool(args))
            streams[layer] = args[0] if args else kwargs["hidden_states"]

        return hook

    def remember_last(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        streams[n_layers] = first_tensor(output)
        model.structure.blocks_return_tuples = isinstance(output, tuple)

    with torch.inference_mode(), session, ExitStack() as stack:
        # One hook before the session's own, which edit, and one after them.
        for layer, block in enumerate(model.structure.blocks):
            for hook, first in ((remember_raw(layer), True), (remember(layer), False)):
                handle = block.register_forward_pre_hook(hook, with_kwargs=True, prepend=first)
                stack.callback(handle.remove)
        stack.callback(model.structure.blocks[-1].register_forward_hook(remember_last).remove)
        kept = n_pos - min(read)
        logits = forward(session, tokens, kept)
        masks = [None if (mask := session.masks[layer]) is None else mask[:1] for layer in range(n_layers)]
    return BaseRun(
        tokens,
        tuple(edits),
        [entering[i] for i in range(n_layers)],
        [streams[i] for i in range(n_layers + 1)],
        [session.keys[i] for i in range(n_layers)],
        masks,
        [arguments[i] for i in range(n_layers)],
        logits[:, [position - n_pos for position in read]],
    )


def call_block(model: LoadedModel, base: BaseRun, layer: int, packed: Tensor, layout: Layout) -> Tensor:
    """Call one block on packed tokens [1, token, d_model] inside an open session; return the same shape."""
    positions = torch.from_numpy(layout.positions())
    given = base.arguments[layer]
    args = tuple(_gather(value, positions, base) for value in given.args)
    kwargs = {name: _gather(value, positions, base) for name, value in given.kwargs.items()}
    block = model.structure.blocks[layer]
    output = (
        block(packed, *args, **kwargs) if given.positional else block(*args, hidden_states=packed, **kwargs)
    )
    return first_tensor(output)


def _gather(value: Any, positions: Tensor, base: BaseRun) -> Any:
    """An argument at the positions of the packed tokens; what does not run over positions is passed as it is.

    Tensors [1 or row, pos, ...] (rotary tables, position ids) and [pos] (cache positions) run over positions;
    square masks are not used by our attention function and are dropped, so that no block does arithmetic on a
    mask of the wrong length.
    """
    if isinstance(value, (tuple, list)):
        return type(value)(_gather(part, positions, base) for part in value)
    if not isinstance(value, Tensor):
        return value
    if value.dim() == 4:
        return None
    if value.dim() >= 2 and value.shape[1] == base.n_pos and value.shape[0] in (1, base.n_rows):
        return value[:1, positions.to(value.device)]
    if value.dim() == 1 and value.shape[0] == base.n_pos:
        return value[positions.to(value.device)]
    return value


def tail(
    model: LoadedModel,
    hidden: Float[Tensor, "row read d_model"],
    placed: Sequence[Placed],
    *,
    last_position: int,
) -> Float[Tensor, "row read d_vocab"]:
    """Final norm, unembedding, softcaps: the model's own forward with the last block's output replaced.

    Args:
        model: the model.
        hidden: what the last block put out, at the read positions.
        placed: edits at `final_norm` and `logits`, by row.
        last_position: position of the last read token; the read positions end there.
    """
    n_rows, n_read = hidden.shape[:2]
    layout = packed_layout(last_position + 1, [(last_position + 1 - n_read, n_rows)])
    session = Session(model, layout, placed, plain_attention=True)
    with torch.inference_mode():
        return unembed_in(session, hidden.flatten(0, 1)).unflatten(0, (n_rows, n_read))


def unembed_in(session: Session, hidden: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_vocab"]:
    """The model's own forward after its last block, for vectors in place of that block's output.

    Args:
        session: not open yet; its layout has these tokens.
        hidden: one vector per token; a gradient flows through if torch is recording.
    """
    rows = hidden.unsqueeze(1)  # one token per row: some families reshape to the input's length
    token = torch.zeros(1, 1, dtype=torch.long)
    with session, _blocks_replaced(session, rows):
        return forward(session, token).squeeze(1)


@contextmanager
def _blocks_replaced(session: Session, rows: Float[Tensor, "row 1 d_model"]) -> Iterator[None]:
    """Make the last block of this pass put out `rows`, and the blocks before it cost nothing.

    Whether a family's blocks return a tensor or a tuple is known once a base run has seen one; until then the
    blocks run and only the last output is replaced.
    """
    blocks, is_tuple = session.model.structure.blocks, session.model.structure.blocks_return_tuples

    def replace(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        return with_first(output, rows.to(first_tensor(output).device))

    def instead(original: Callable[..., Any], last: bool) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if attention.current() is not session:  # another thread's call of the same model
                return original(*args, **kwargs)
            hidden = args[0] if args else kwargs["hidden_states"]
            out = rows.to(hidden.device) if last else hidden
            return (out,) if is_tuple else out

        return call

    with ExitStack() as stack:
        if is_tuple is None:
            stack.callback(blocks[-1].register_forward_hook(replace).remove)
        else:
            for block in blocks:
                stack.callback(_restore, block, block.__dict__.get("forward"))
                block.forward = instead(block.forward, block is blocks[-1])
        yield


def _restore(block: nn.Module, own_forward: Callable[..., Any] | None) -> None:
    """Give a block its forward back: the class's, or the wrapper that accelerate had put on the instance."""
    block.__dict__.pop("forward", None)
    if own_forward is not None:
        block.forward = own_forward
