"""One hooked pass over a model or one of its layers: installs hooks, edits, captures, cleans up.

A session holds the model's lock from entry to exit, so two threads never see each other's hooks; its hooks
act only while it is the current session of the thread, and all are removed on exit, whatever happened inside.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mi_core.engine import attention
from mi_core.engine.attention import Call
from mi_core.engine.continuation import Continuation, KeysReady, RowKeys, unpack
from mi_core.engine.layout import Group, Layout
from mi_core.engine.place import Place, Placed, apply_flat, apply_square, by_place
from mi_core.model.model import LoadedModel
from mi_core.sites import SITES


def first_tensor(output: Any) -> Tensor:
    """The tensor of a module's output, which some families wrap in a tuple."""
    return output[0] if isinstance(output, tuple) else output


def with_first(output: Any, tensor: Tensor) -> Any:
    """The output with its tensor replaced."""
    return (tensor, *output[1:]) if isinstance(output, tuple) else tensor


class Session:
    """Hooks, edits and captures of one pass.

    Args:
        model: the model; its lock is held while the session is open.
        layout: which tokens the pass computes.
        placed: edits and the rows they act on.
        capture: places to keep.
        before_edits: keep values as they were before the edits at their own place.
        continuation: for packed passes: the base run that the rows continue.
        keep_keys: keep each layer's keys, values and mask (`self.keys`, `self.masks`).
        plain_attention: nobody looks into attention (the tail's one-token pass).
        keep: what is kept of a captured value; it must not return a view of it.
    """

    def __init__(
        self,
        model: LoadedModel,
        layout: Layout,
        placed: Iterable[Placed] = (),
        capture: Sequence[Place] = (),
        *,
        before_edits: bool = False,
        continuation: Continuation | None = None,
        keep_keys: bool = False,
        plain_attention: bool = False,
        keep: Callable[[Place, Tensor], Any] = lambda _place, value: value.clone(),
    ) -> None:
        self.model, self.layout, self.keep = model, layout, keep
        self.edits = by_place(placed)
        self.capture, self.before_edits = set(capture), before_edits
        self.captured: dict[Place, Any] = {}
        self.acted: Counter[Place] = Counter()
        self.visited: set[Place] = set()
        self.cut_rows = 0
        self.continuation = continuation
        self.keep_keys, self.plain_attention = keep_keys, plain_attention
        self.keys: dict[int, tuple[Tensor, Tensor]] = {}
        self.masks: dict[int, Tensor | None] = {}
        self.joined: list[RowKeys] = []
        self._stream: dict[int, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        self._busy = False

    def __enter__(self) -> "Session":
        self.model.lock.acquire()
        try:
            self._outer = attention.current()
            attention.set_current(self)
            for place in self._hooked_places():
                self._install(place)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self._close()

    def _close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        attention.set_current(self._outer)
        self.model.lock.release()

    def _hooked_places(self) -> list[Place]:
        """Places with edits or captures that module hooks serve, in the order of the forward pass."""
        wanted = set(self.edits) | self.capture
        order = list(SITES)
        places = [p for p in wanted if SITES[p[0]].where != "attention" and p[0] != "logits"]
        return sorted(places, key=lambda p: (-1 if p[1] is None else p[1], order.index(p[0])))

    def _install(self, place: Place) -> None:
        name, layer = place
        point = self.model.structure.points[place]
        if name == "result":
            self._handles.append(point.module.register_forward_hook(self._result_hook(place)))
        elif name == "resid_mid" and layer is not None:
            block = self.model.structure.points[("resid_pre", layer)].module
            self._handles.append(
                block.register_forward_pre_hook(self._remember_stream(layer), with_kwargs=True)
            )
            self._handles.append(point.module.register_forward_hook(self._middle_hook(place)))
        elif point.side == "input":
            self._handles.append(
                point.module.register_forward_pre_hook(self._input_hook(place), with_kwargs=True)
            )
        else:
            self._handles.append(point.module.register_forward_hook(self._output_hook(place)))

    def _mine(self) -> bool:
        """Whether a hook that fires now belongs to this pass, and not to a call that it makes itself."""
        return attention.current() is self and not self._busy

    def visit(self, place: Place, flat: Tensor) -> Tensor | None:
        """Capture and edit a value [token, ...]; None when it stays as it is."""
        self.visited.add(place)
        if place in self.capture and self.before_edits:
            self.captured[place] = self.keep(place, flat)
        edits = self.edits.get(place)
        new = None
        if edits:
            new, acted = apply_flat(flat, edits, self.layout)
            self.acted[place] += acted
        if place in self.capture and not self.before_edits:
            self.captured[place] = self.keep(place, flat if new is None else new)
        return new

    def _input_hook(self, place: Place) -> Callable[..., Any]:
        view = self.model.structure.points[place].view

        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if not self._mine():
                return None
            tensor = args[0] if args else kwargs["hidden_states"]
            new = self.visit(place, view.read(tensor))
            if new is None:
                return None
            new = view.write(tensor, new)
            return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

        return hook

    def _output_hook(self, place: Place) -> Callable[..., Any]:
        view = self.model.structure.points[place].view

        def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
            if not self._mine():
                return None
            tensor = first_tensor(output)
            new = self.visit(place, view.read(tensor))
            return None if new is None else with_first(output, view.write(tensor, new))

        return hook

    def _remember_stream(self, layer: int) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self._mine():
                tensor = args[0] if args else kwargs["hidden_states"]
                self._stream[layer] = tensor.reshape(-1, tensor.shape[-1])

        return hook

    def _middle_hook(self, place: Place) -> Callable[..., Any]:
        """resid_mid = resid_pre + attn_out, so setting it is setting attn_out to the difference."""

        def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
            if not self._mine() or place[1] is None:
                return None
            tensor = first_tensor(output)
            stream = self._stream[place[1]]
            new = self.visit(place, tensor.reshape(stream.shape) + stream)
            return None if new is None else with_first(output, (new - stream).reshape(tensor.shape))

        return hook

    def _result_hook(self, place: Place) -> Callable[..., Any]:
        """result[head] = z[head] W_O[head]; an edit adds its change to the projection's output."""

        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            if not self._mine():
                return None
            tensor = first_tensor(output)
            by_head = self._per_head(module, args[0])
            new = self.visit(place, by_head)
            if new is None:
                return None
            return with_first(output, tensor + (new - by_head).sum(1).reshape(tensor.shape))

        return hook

    def _per_head(self, projection: nn.Module, z: Tensor) -> Tensor:
        """[token, head, d_model]: each head alone through the projection, whatever its weights look like."""
        n_heads = self.model.dims.n_heads
        flat = z.reshape(-1, n_heads, z.shape[-1] // n_heads)
        alone = torch.zeros(
            n_heads + 1, flat.shape[0], n_heads, flat.shape[2], dtype=z.dtype, device=z.device
        )
        for head in range(n_heads):
            alone[head, :, head] = flat[:, head]
        self._busy = True
        try:
            out = first_tensor(projection(alone.flatten(2)))
        finally:
            self._busy = False
        return (out[:-1] - out[-1]).transpose(0, 1)

    def attend(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, call: Call) -> Tensor:
        """Attention of one layer of this pass, as transformers expects it: [row, query, head, d_head]."""
        if self.plain_attention:
            return attention.plain(query, key, value, call).transpose(1, 2).contiguous()
        layer = self.model.structure.layer_of[id(module)]
        query, key = self._visit_heads(("rot_q", layer), query), self._visit_heads(("rot_k", layer), key)
        if self.keep_keys:
            self.keys[layer], self.masks[layer] = (key, value), call.mask
        if self.layout.dense:
            out = self._kernel(layer, self.layout.groups[0], query, key, value, call)
            return out.transpose(1, 2).contiguous()
        return self._attend_packed(layer, query, key, value, call)

    def _attend_packed(self, layer: int, query: Tensor, key: Tensor, value: Tensor, call: Call) -> Tensor:
        """Each group attends to the base run's keys before its first position and to its own after."""
        base = self.continuation
        if base is None:
            raise ValueError("a packed pass with attention needs the base run that it continues")
        self.joined = base.key_rows or [base.join(layer, group, key, value) for group in self.layout.groups]
        if base.stop_at_keys:
            raise KeysReady
        whole = Call(base.masks[layer], call.scale, call.softcap)
        parts = []
        for group, rows in zip(self.layout.groups, self.joined, strict=True):
            own = whole.queries_from(group.first, query.device)
            out = self._kernel(layer, group, unpack(query, group), rows.keys, rows.values, own)
            parts.append(out.permute(0, 2, 1, 3).flatten(0, 1))
        return torch.cat(parts).unsqueeze(0)

    def _visit_heads(self, place: Place, tensor: Tensor) -> Tensor:
        """Visit a value [row, head, pos, d_head] inside the attention function."""
        if place not in self.edits and place not in self.capture:
            return tensor
        new = self.visit(place, tensor.transpose(1, 2).flatten(0, 1))
        if new is None:
            return tensor
        return new.unflatten(0, (tensor.shape[0], tensor.shape[2])).transpose(1, 2)

    def _kernel(
        self, layer: int, group: Group, query: Tensor, key: Tensor, value: Tensor, call: Call
    ) -> Tensor:
        """Attention of one group of rows, with everything that looks into scores and pattern."""
        places = (("attn_scores", layer), ("pattern", layer))
        if not any(place in self.edits or place in self.capture for place in places):
            return attention.plain(query, key, value, call, fused=not self.model.eager)
        n_heads = query.shape[1]
        square = attention.scores(query, attention.repeat_heads(key, n_heads), call)
        square = self._visit_square(places[0], square, group)
        cut_any = False
        for place in places:
            cuts = [item for item in self.edits.get(place, ()) if item.edit.operation == "mask"]
            square, acted = apply_square(square, cuts, group) if cuts else (square, 0)
            self.acted[place] += acted
            cut_any = cut_any or acted > 0
        pattern = attention.cut(square, call.mask) if cut_any else attention.softmax(square)
        self.cut_rows += int((pattern.sum(-1) == 0).sum()) if cut_any else 0
        return self._visit_square(places[1], pattern, group) @ attention.repeat_heads(value, n_heads)

    def _visit_square(self, place: Place, square: Tensor, group: Group) -> Tensor:
        """Capture and edit an attention square of one group of rows; cuts are made elsewhere."""
        self.visited.add(place)
        if place in self.capture and self.before_edits:
            self.captured[place] = self.keep(place, square)
        edits = [item for item in self.edits.get(place, ()) if item.edit.operation != "mask"]
        if edits:
            square, acted = apply_square(square, edits, group)
            self.acted[place] += acted
        if place in self.capture and not self.before_edits:
            self.captured[place] = self.keep(place, square)
        return square
