"""Rows of an attribution graph by automatic differentiation through the model's own modules.

The second implementation, made to share as little as possible with the first (`linear_pass`, `graph_rows`):
the model itself runs, its MLP outputs replaced by constants that are differentiated, and while it runs

    softmax(x)     -> its value, without a gradient         (attention patterns held)
    rsqrt(x)       -> its value, without a gradient         (scales of RMS norms held)
    layer_norm(x)  -> the same with the deviation's gradient cut (scales of LayerNorms held)

so no weight, norm or grouping of heads is read by name. Used by the tests, and by every graph as a check on a
few of its rows. Cost: one forward pass, and one backward pass per row.
Source: Ameisen et al. 2025; circuit-tracer detaches the same quantities by hooks.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from mi_core.engine.layout import dense_layout
from mi_core.engine.run import forward
from mi_core.engine.session import Session, first_tensor, with_first
from mi_core.model.model import LoadedModel
from mi_core.transcoders.encode import ActiveFeatures, read_values
from mi_core.transcoders.graph_parts import GraphParts, Target
from mi_core.transcoders.graph_rows import Rows
from mi_core.transcoders.transcoder import Transcoder

_HELD = (torch.softmax, torch.Tensor.softmax, functional.softmax, torch.rsqrt, torch.Tensor.rsqrt)


class _Held(TorchFunctionMode):
    """While active, patterns and norm scales are numbers that do not depend on anything."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.layer_norm:
            return _held_layer_norm(*args, **kwargs)
        if func is functional.rms_norm:
            return _held_rms_norm(*args, **kwargs)
        made = func(*args, **kwargs)
        return made.detach() if func in _HELD else made


def _held_layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    axes = tuple(range(-len(normalized_shape), 0))
    centred = x - x.mean(axes, keepdim=True)
    made = centred / (centred.square().mean(axes, keepdim=True) + eps).sqrt().detach()
    made = made if weight is None else made * weight
    return made if bias is None else made + bias


def _held_rms_norm(
    x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    axes = tuple(range(-len(normalized_shape), 0))
    floor = torch.finfo(x.dtype).eps if eps is None else eps
    made = x / (x.square().mean(axes, keepdim=True) + floor).sqrt().detach()
    return made if weight is None else made * weight


class _Recorded:
    """One pass with held patterns and scales: what was read, and the constants that it depends on."""

    def __init__(self, model: LoadedModel, transcoder: Transcoder, tokens: Sequence[int]) -> None:
        n_layers = model.dims.n_layers
        self.model, self.transcoder = model, transcoder
        self.leaves: dict[int, Tensor] = {}
        self.embed = torch.empty(0)  # put in its place by the pass
        self.clean = read_values(model, transcoder, tokens) if transcoder.reads.normalised else None
        site = transcoder.reads.site
        places = [(site, layer) for layer in range(n_layers)] + [("final_norm", None)]
        places += [("pattern", layer) for layer in range(n_layers)]  # makes attention take its softmax apart
        batch = torch.tensor([list(tokens)])
        session = Session(model, dense_layout(1, len(tokens)), (), places, keep=lambda _place, value: value)
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(model.lock)
            stack.enter_context(self._constants(session))
            stack.enter_context(session)
            stack.enter_context(_Held())
            forward(session, batch)
            self.captured = session.captured

    @contextmanager
    def _constants(self, session: Session) -> Iterator[None]:
        """Put leaves in the place of the embedding and of all MLP outputs, skips of the transcoder kept."""
        structure, handles = self.model.structure, []

        def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            tensor = args[0] if args else kwargs["hidden_states"]
            self.embed = tensor.detach().clone().requires_grad_(True)
            if args:
                return (self.embed, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": self.embed}

        def written(layer: int) -> Callable[..., Any]:
            def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
                leaf = first_tensor(output).detach().clone().requires_grad_(True)
                self.leaves[layer] = leaf
                skip = self._skip(session, layer)
                if skip is None:
                    return with_first(output, leaf)
                return with_first(output, leaf + (skip - skip.detach()).view_as(leaf))

            return hook

        first = structure.points["embed", None].module
        handles.append(first.register_forward_pre_hook(enter, with_kwargs=True))
        for layer in range(self.model.dims.n_layers):
            module = structure.points["mlp_out", layer].module
            handles.append(module.register_forward_hook(written(layer)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _skip(self, session: Session, layer: int) -> Tensor | None:
        matrix = self.transcoder.source.skip(layer) if layer in self.transcoder.layers else None
        if matrix is None:
            return None
        return self._seen(session.captured, layer) @ matrix.to(self.embed)

    def _seen(self, captured: dict[Any, Tensor], layer: int) -> Float[Tensor, "pos d_model"]:
        """What the encoders of a layer see, as a function of the leaves."""
        value = captured[self.transcoder.reads.site, layer].reshape(-1, self.model.dims.d_model)
        if self.clean is None:
            return value
        # The scale is held, so what the encoders saw in the clean run tells it.
        clean = self.clean[self.transcoder.layers.index(layer)].to(value)
        without_mean = bool(clean.mean(-1).abs().max() < 1e-3 * clean.std())
        centred = value - value.mean(-1, keepdim=True) if without_mean else value
        fixed = centred.detach()
        return centred * (clean * fixed).sum(-1, keepdim=True) / fixed.square().sum(-1, keepdim=True)

    def seen(self, layer: int) -> Float[Tensor, "pos d_model"]:
        """What the encoders of a layer see, after the pass."""
        return self._seen(self.captured, layer)

    @property
    def final(self) -> Float[Tensor, " d_model"]:
        """The final norm's output at the last position."""
        return self.captured["final_norm", None].reshape(-1, self.model.dims.d_model)[-1]


def autograd_rows(
    model: LoadedModel, transcoder: Transcoder, parts: GraphParts, nodes: Int[Tensor, " row"]
) -> Rows:
    """Rows of feature nodes, then of all logits, like `feature_rows` and `logit_rows`.

    Args:
        model: the loaded model.
        transcoder: of that model.
        parts: names the nodes; nothing that it has computed but activations is used.
        nodes: indices of features.
    """
    active, frozen = parts.active, parts.frozen
    with torch.inference_mode(False), torch.enable_grad(), model.lock:
        recorded = _Recorded(model, transcoder, frozen.tokens)
        values = [_pre_activation(recorded, transcoder, active, node) for node in nodes.tolist()]
        values += [_logit(recorded, target, frozen.logit_factor) for target in parts.targets]
        leaves = [recorded.embed, *(recorded.leaves[layer] for layer in range(frozen.n_layers))]
        slopes = _slopes(values, leaves, frozen.n_pos)
        whole = torch.stack([value.detach().cpu() for value in values])
    rest = _unexplained(recorded, transcoder, frozen.n_pos)
    features = _feature_edges(transcoder, active, slopes[1:], rest)
    errors = [
        torch.einsum("vtd,td->vt", slope, left)[:, list(parts.unmasked)]
        for slope, left in zip(slopes[1:], rest, strict=True)
    ]
    embed = recorded.embed.detach().cpu().reshape(frozen.n_pos, -1)
    edges = torch.cat([features, *errors, torch.einsum("vtd,td->vt", slopes[0], embed)], 1)
    return Rows(edges, whole - edges.sum(1))


def _pre_activation(recorded: _Recorded, transcoder: Transcoder, active: ActiveFeatures, node: int) -> Tensor:
    layer, feature = int(active.layer[node]), int(active.feature[node])
    encoder = transcoder.source.encoder(layer)
    seen = recorded.seen(layer)[int(active.position[node])]
    if encoder.centre is not None:
        seen = seen - encoder.centre.to(seen)
    return seen @ encoder.stored[feature].to(seen) + encoder.b_enc[feature].to(seen)


def _logit(recorded: _Recorded, target: Target, factor: float) -> Tensor:
    head, final = recorded.model.hf.get_output_embeddings(), recorded.final
    logits = functional.linear(final, head.weight.to(final), getattr(head, "bias", None)) * factor
    other = logits[target.ids[1]] if len(target.ids) == 2 else logits.mean()
    return logits[target.ids[0]] - other


def _slopes(
    values: Sequence[Tensor], leaves: Sequence[Tensor], n_pos: int
) -> list[Float[Tensor, "value pos d_model"]]:
    """Per leaf, the derivative of every value by it; on the CPU."""
    found: list[list[Tensor]] = [[] for _ in leaves]
    for value in values:
        gradients = torch.autograd.grad(value, list(leaves), retain_graph=True, allow_unused=True)
        for kept, gradient, leaf in zip(found, gradients, leaves, strict=True):
            slope = torch.zeros_like(leaf) if gradient is None else gradient
            kept.append(slope.detach().cpu().reshape(n_pos, -1))
    return [torch.stack(kept) for kept in found]


def _unexplained(
    recorded: _Recorded, transcoder: Transcoder, n_pos: int
) -> list[Float[Tensor, "pos d_model"]]:
    """Per layer, the MLP output without b_dec and skip; features are still in it."""
    found = []
    for layer in sorted(recorded.leaves):
        rest = recorded.leaves[layer].detach().reshape(n_pos, -1).cpu().clone()
        if layer in transcoder.written_layers:
            rest -= transcoder.source.bias(layer).to(rest)
        matrix = transcoder.source.skip(layer) if layer in transcoder.layers else None
        if matrix is not None:
            rest -= recorded.seen(layer).detach().cpu() @ matrix.to(rest)
        found.append(rest)
    return found


def _feature_edges(
    transcoder: Transcoder,
    active: ActiveFeatures,
    slopes: Sequence[Float[Tensor, "value pos d_model"]],
    rest: Sequence[Float[Tensor, "pos d_model"]],
) -> Float[Tensor, "value feature"]:
    """Edges from all features; what these write is taken off `rest`, in place."""
    found = torch.zeros(len(slopes[0]), len(active), dtype=slopes[0].dtype)
    for layer in transcoder.layers:
        part = active.of_layer(layer)
        if part.start == part.stop:
            continue
        positions, activation = active.position[part].cpu(), active.activation[part].cpu()
        indices, inverse = active.feature[part].cpu().unique(return_inverse=True)
        rows = transcoder.source.rows(layer, indices).to(found)
        for column, target in enumerate(transcoder.targets(layer)):
            vectors = activation.to(found)[:, None] * rows[inverse, column]
            found[:, part] += torch.einsum("vnd,nd->vn", slopes[target][:, positions], vectors)
            rest[target].index_add_(0, positions, -vectors)
    return found
