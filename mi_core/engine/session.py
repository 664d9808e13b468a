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
from mi_core.engine.layout import Group, Layout
from mi_core.engine.place import Place, Placed, apply_flat, apply_square, by_place
from mi_core.model.model import LoadedModel
from mi_core.sites import SITES

Split = tuple[Tensor, Tensor]


class KeysReady(Exception):  # a signal that stops a layer early, not an error
    """Raised inside a layer once its keys and values are known and nothing else is wanted."""


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
        prefix: per layer (keys, values) [base row, kv_head, pos, d_head] of the base run, for packed passes.
        masks: per layer the additive mask [1, 1, query, key] (or None) of the base run, for packed passes.
        n_base: base rows; row r of a packed pass continues base row r % n_base.
        keep_keys: keep each layer's keys, values and mask (`self.keys`, `self.masks_seen`).
        stop_at_keys: raise `KeysReady` as soon as a layer's keys and values are kept.
        key_rows: (keys, values) per group of rows, over all positions; when given, attention reads these.
        plain_attention: attention is not looked into (the tail's one-token pass, whose blocks are thrown
            away).
    """

    def __init__(
        self,
        model: LoadedModel,
        layout: Layout,
        placed: Iterable[Placed] = (),
        capture: Sequence[Place] = (),
        *,
        before_edits: bool = False,
        prefix: Callable[[int, int], Split] | None = None,
        masks: Sequence[Tensor | None] | None = None,
        n_base: int = 1,
        keep_keys: bool = False,
        stop_at_keys: bool = False,
        key_rows: Sequence[tuple[Group, Tensor, Tensor]] | None = None,
        plain_attention: bool = False,
    ) -> None:
        self.model, self.layout = model, layout
        self.edits = by_place(placed)
        self.capture, self.before_edits = set(capture), before_edits
        self.captured: dict[Place, Tensor] = {}
        self.acted: Counter[Place] = Counter()
        self.visited: set[Place] = set()
        self.cut_rows = 0
        self.prefix, self.masks, self.n_base = prefix, masks, n_base
        self.keep_keys, self.stop_at_keys, self.key_rows = keep_keys, stop_at_keys, key_rows
        self.keys: dict[int, Split] = {}
        self.group_keys: list[tuple[Group, Tensor, Tensor]] = []
        self.masks_seen: dict[int, Tensor | None] = {}
        self.plain_attention = plain_attention
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
            self.captured[place] = flat.clone()
        edits = self.edits.get(place)
        new = None
        if edits:
            new, acted = apply_flat(flat, edits, self.layout)
            self.acted[place] += acted
        if place in self.capture and not self.before_edits:
            self.captured[place] = (flat if new is None else new).clone()
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

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scale: float,
        softcap: float | None,
    ) -> Tensor:
        """Attention of one layer of this pass: [row, query, head, d_head] as transformers expects it back."""
        if self.plain_attention:
            return attention.plain(query, key, value, mask, scale, softcap).transpose(1, 2).contiguous()
        layer = self.model.structure.layer_of[id(module)]
        query, key = self._visit_heads(("rot_q", layer), query), self._visit_heads(("rot_k", layer), key)
        if self.keep_keys:
            self.keys[layer], self.masks_seen[layer] = (key, value), mask
        if self.layout.dense:
            group = self.layout.groups[0]
            return (
                self._kernel(layer, group, 0, query, key, value, mask, scale, softcap)
                .transpose(1, 2)
                .contiguous()
            )
        return self._attend_packed(layer, query, key, value, scale, softcap)

    def _attend_packed(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, softcap: float | None
    ) -> Tensor:
        if self.key_rows is None:
            joined = [self._with_prefix(layer, group, key, value) for group in self.layout.groups]
        else:
            joined = list(self.key_rows)
        if self.stop_at_keys:
            self.group_keys = joined
            raise KeysReady
        mask = None if self.masks is None else self.masks[layer]
        if mask is not None:
            mask = mask.to(query.device)
        parts = []
        for group, (_, keys, values) in zip(self.layout.groups, joined, strict=True):
            rows = _unpack(query, group)
            own_mask = None if mask is None else mask[:, :, group.first :]
            out = self._kernel(layer, group, group.first, rows, keys, values, own_mask, scale, softcap)
            parts.append(out.permute(0, 2, 1, 3).flatten(0, 1))
        return torch.cat(parts).unsqueeze(0)

    def _with_prefix(
        self, layer: int, group: Group, key: Tensor, value: Tensor
    ) -> tuple[Group, Tensor, Tensor]:
        """Keys and values of a group over all positions: the base run's before `first`, then its own."""
        own_key, own_value = _unpack(key, group), _unpack(value, group)
        if group.first == 0 or self.prefix is None:
            return group, own_key, own_value
        past = self.prefix(layer, group.first)
        repeats = group.n_rows // self.n_base
        past_key, past_value = (part.to(key.device).repeat(repeats, 1, 1, 1) for part in past)
        return group, torch.cat([past_key, own_key], 2), torch.cat([past_value, own_value], 2)

    def _visit_heads(self, place: Place, tensor: Tensor) -> Tensor:
        """Visit a value [row, head, pos, d_head] inside the attention function."""
        if place not in self.edits and place not in self.capture:
            return tensor
        flat = tensor.transpose(1, 2).flatten(0, 1)
        new = self.visit(place, flat)
        if new is None:
            return tensor
        return new.unflatten(0, (tensor.shape[0], tensor.shape[2])).transpose(1, 2)

    def _kernel(
        self,
        layer: int,
        group: Group,
        query_first: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scale: float,
        softcap: float | None,
    ) -> Tensor:
        places = (("attn_scores", layer), ("pattern", layer))
        if not any(place in self.edits or place in self.capture for place in places):
            return attention.plain(query, key, value, mask, scale, softcap, fused=not self.model.eager)
        key, value = (
            attention.repeat_heads(key, query.shape[1]),
            attention.repeat_heads(value, query.shape[1]),
        )
        square = attention.scores(query, key, mask, scale, softcap)
        square = self._visit_square(places[0], square, group, query_first)
        cut_any = False
        for place in places:
            cuts = [item for item in self.edits.get(place, ()) if item.edit.operation == "mask"]
            square, acted = apply_square(square, cuts, group, query_first) if cuts else (square, 0)
            self.acted[place] += acted
            cut_any = cut_any or acted > 0
        pattern = attention.cut(square, mask) if cut_any else attention.softmax(square)
        self.cut_rows += int((pattern.sum(-1) == 0).sum()) if cut_any else 0
        return self._visit_square(places[1], pattern, group, query_first) @ value

    def _visit_square(self, place: Place, square: Tensor, group: Group, query_first: int) -> Tensor:
        self.visited.add(place)
        if place in self.capture and self.before_edits:
            self.captured[place] = square.clone()
        edits = [item for item in self.edits.get(place, ()) if item.edit.operation != "mask"]
        if edits:
            square, acted = apply_square(square, edits, group, query_first)
            self.acted[place] += acted
        if place in self.capture and not self.before_edits:
            self.captured[place] = square.clone()
        return square


def _unpack(packed: Tensor, group: Group) -> Tensor:
    """[row, head, pos, d_head] of one group out of a packed [1, head, token, d_head]."""
    own = packed[0, :, group.token : group.token + group.n_tokens]
    return own.unflatten(1, (group.n_rows, group.length)).transpose(0, 1)
