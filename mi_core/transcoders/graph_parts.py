"""The parts of a prompt's attribution graph: its nodes, what they write, and what they read.

Every MLP output is the sum of what nodes write and a constant:

    mlp_out[m, t] = sum over active features s at t of a_s W_dec[s, m] + error[m, t] + (skip) + constant[m, t]

constant is b_dec, and at masked positions (leading special tokens) all that the MLP wrote there. What a
feature reads is a gradient for the stream at the transcoder's read site, W_enc through the frozen norm; what
a logit reads is one for the stream after the last block, W_U minus its mean over the vocabulary (or minus the
distractor's column) through the frozen final norm. Sources: Ameisen et al. 2025; circuit-tracer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mi_core.engine import observe
from mi_core.metrics import exact_logits
from mi_core.model.model import LoadedModel
from mi_core.transcoders.encode import ActiveFeatures, active_features, reconstruct
from mi_core.transcoders.linear_pass import FrozenPass
from mi_core.transcoders.transcoder import Transcoder


@dataclass(frozen=True, eq=False, slots=True)
class Target:
    """A logit, or the difference of two.

    Attributes:
        ids: token id, or two: the second is subtracted.
        name: what to show.
        weight: how much it counts in influences.
        probability: of the (first) token.
    """

    ids: tuple[int, ...]
    name: str
    weight: float
    probability: float


@dataclass(frozen=True, eq=False, slots=True)
class Writes:
    """What nodes add to one layer's MLP output, position by position.

    Attributes:
        vectors: per position [write, d_model]; features, the error if it is a node, and last the constant.
        columns: per position [write] node index; the number of nodes without logits stands for the remainder.
    """

    vectors: list[Float[Tensor, "_ d_model"]]
    columns: list[Int[Tensor, " _"]]


@dataclass(eq=False)
class GraphParts:
    """Everything that rows of edges are made of.

    Attributes:
        frozen: the linear pass.
        active: the feature nodes, in their order.
        unmasked: positions at which errors are nodes.
        targets: the logits.
        writes: per layer.
        read: [feature, d_model] the gradient that each feature puts at its position.
        read_constant: [feature] what its bias (and the norm's) adds to its pre-activation.
        logit_read: [target, d_model]; logit_constant: [target]; logit_value: [target] the model's own.
        dtype: of all computations.
    """

    frozen: FrozenPass
    active: ActiveFeatures
    unmasked: tuple[int, ...]
    targets: tuple[Target, ...]
    writes: list[Writes]
    read: Float[Tensor, "feature d_model"]
    read_constant: Float[Tensor, " feature"]
    logit_read: Float[Tensor, "target d_model"]
    logit_constant: Float[Tensor, " target"]
    logit_value: Float[Tensor, " target"]

    @property
    def n_features(self) -> int:
        """Active features at tokens."""
        return len(self.active)

    @property
    def first_token(self) -> int:
        """Index of the first token node."""
        return self.n_features + self.frozen.n_layers * len(self.unmasked)

    @property
    def first_logit(self) -> int:
        """Index of the first logit."""
        return self.first_token + self.frozen.n_pos

    @property
    def n_nodes(self) -> int:
        """All nodes."""
        return self.first_logit + len(self.targets)


def graph_parts(
    model: LoadedModel,
    transcoder: Transcoder,
    frozen: FrozenPass,
    targets: Sequence[Target],
    *,
    show_bos: bool = False,
) -> GraphParts:
    """Collect nodes, writes and reads of a prompt.

    Args:
        model: the loaded model.
        transcoder: of that model, with decoders.
        frozen: `frozen_pass(model, ids, transcoder)`.
        targets: the logits.
        show_bos: whether features and errors at leading special tokens are nodes.

    Raises:
        TranscoderError: kind "no_decoder", or files that cannot be read.
    """
    with torch.inference_mode():
        active = active_features(model, transcoder, frozen.tokens, show_bos=show_bos)
        unmasked = tuple(position for position in range(frozen.n_pos) if position not in active.masked)
        read, constant = _feature_reads(transcoder, frozen, active)
        logit_read, logit_constant = _logit_reads(frozen, targets)
        return GraphParts(
            frozen=frozen,
            active=active,
            unmasked=unmasked,
            targets=tuple(targets),
            writes=_writes(model, transcoder, frozen, active, unmasked),
            read=read,
            read_constant=constant,
            logit_read=logit_read,
            logit_constant=logit_constant,
            logit_value=_logit_values(model, frozen, targets),
        )


def last_logits(model: LoadedModel, token_ids: Sequence[int]) -> Float[Tensor, " d_vocab"]:
    """The model's own logits at the last position, at least float32."""
    return exact_logits(observe(model, token_ids, ("logits",))["logits", None][-1])


def uncapped(model: LoadedModel, logits: Float[Tensor, " d_vocab"]) -> Float[Tensor, " d_vocab"]:
    """Logits before the model's softcap, float64."""
    config = model.hf.config
    cap = getattr(getattr(config, "text_config", None) or config, "final_logit_softcapping", None)
    wide = logits.cpu().double()
    return wide if not cap else cap * torch.atanh(wide / cap)


# --- what is read ---


def _feature_reads(
    transcoder: Transcoder, frozen: FrozenPass, active: ActiveFeatures
) -> tuple[Tensor, Tensor]:
    """Per feature node, its gradient at the read site and the constant part of its pre-activation."""
    read = frozen.embed.new_zeros(len(active), frozen.embed.shape[1])
    constant = frozen.embed.new_zeros(len(active))
    for layer in transcoder.layers:
        part = active.of_layer(layer)
        if part.start == part.stop:
            continue
        encoder, feature = transcoder.encoder(layer), active.feature[part]
        rows = encoder.some(feature).to(frozen.embed)
        norm = frozen.reads[layer]
        read[part] = norm.back_at(rows, active.position[part])
        constant[part] = encoder.b_enc[feature].to(constant)
        if norm.bias is not None:
            constant[part] += rows @ norm.bias
        if encoder.centre is not None:
            constant[part] -= rows @ encoder.centre.to(rows)
    return read, constant


def _logit_reads(frozen: FrozenPass, targets: Sequence[Target]) -> tuple[Tensor, Tensor]:
    """Per target, its gradient after the last block at the last position, and its constant part."""
    last, reads, constants = frozen.n_pos - 1, [], []
    for target in targets:
        gradient, bias = frozen.logit_gradient(target.ids, last), frozen.logit_bias(target.ids)
        if len(target.ids) == 2:
            reads.append(gradient[0] - gradient[1])
            constants.append(bias[0] - bias[1])
        else:
            reads.append(gradient[0] - frozen.mean_logit_gradient(last))
            constants.append(bias[0] - frozen.mean_logit_bias)
    return torch.stack(reads), torch.stack(constants)


def _logit_values(model: LoadedModel, frozen: FrozenPass, targets: Sequence[Target]) -> Tensor:
    """The model's own logits of the targets before the softcap, minus the mean or the distractor's."""
    logits = uncapped(model, last_logits(model, frozen.tokens))
    other = [logits[target.ids[1]] if len(target.ids) == 2 else logits.mean() for target in targets]
    return torch.stack([logits[target.ids[0]] for target in targets]) - torch.stack(other)


# --- what is written ---


def _writes(
    model: LoadedModel,
    transcoder: Transcoder,
    frozen: FrozenPass,
    active: ActiveFeatures,
    unmasked: tuple[int, ...],
) -> list[Writes]:
    """What features, errors and constants add to every MLP output."""
    found: list[list[list[tuple[Tensor, Tensor]]]] = [
        [[] for _ in range(frozen.n_pos)] for _ in range(frozen.n_layers)
    ]
    for layer in transcoder.layers:
        _add_features(found, transcoder, frozen, active, layer)
    told = {}
    if transcoder.written_layers:
        told = dict(zip(transcoder.written_layers, reconstruct(model, transcoder, active), strict=True))
    made = []
    for layer in range(frozen.n_layers):
        constant, error = _rest(transcoder, frozen, layer, told.get(layer), unmasked)
        first = len(active) + layer * len(unmasked)
        _add_rest(found[layer], constant, error, unmasked, first, _remainder(active, frozen, unmasked))
        made.append(
            Writes(
                [torch.cat([vectors for vectors, _ in at]) for at in found[layer]],
                [torch.cat([columns for _, columns in at]) for at in found[layer]],
            )
        )
    return made


def _remainder(active: ActiveFeatures, frozen: FrozenPass, unmasked: tuple[int, ...]) -> int:
    """The column behind all nodes but the logits, which nothing reads."""
    return len(active) + frozen.n_layers * len(unmasked) + frozen.n_pos


def _add_features(
    found: list[list[list[tuple[Tensor, Tensor]]]],
    transcoder: Transcoder,
    frozen: FrozenPass,
    active: ActiveFeatures,
    layer: int,
) -> None:
    """Adds a layer's features to all layers that they write to; every decoder row is read once."""
    part = active.of_layer(layer)
    if part.start == part.stop:
        return
    indices, inverse = active.feature[part].unique(return_inverse=True)
    rows = transcoder.rows(layer, indices).to(frozen.embed)
    positions = active.position[part]
    nodes = torch.arange(part.start, part.stop, device=positions.device)
    for position in positions.unique().tolist():
        here = positions == position
        written = rows[inverse[here]] * active.activation[part][here].to(rows)[:, None, None]
        for column, target in enumerate(transcoder.targets(layer)):
            found[target][position].append((written[:, column], nodes[here]))


def _rest(
    transcoder: Transcoder,
    frozen: FrozenPass,
    layer: int,
    told: Tensor | None,
    unmasked: tuple[int, ...],
) -> tuple[Float[Tensor, "pos d_model"], Float[Tensor, "pos d_model"]]:
    """A layer's constant and error at every position."""
    own = frozen.mlp_out[layer]
    if told is None:  # the transcoder does not write here: nothing is explained
        constant, error = torch.zeros_like(own), own.clone()
    else:
        constant = transcoder.bias(layer).to(own).expand_as(own).clone()
        error = own - told.to(own)
        bias = frozen.reads[layer].bias if layer in frozen.skips else None
        if bias is not None:
            constant += bias @ frozen.skips[layer]
    for position in set(range(frozen.n_pos)) - set(unmasked):
        # No feature was counted here, so the error is what constant and skip leave of the MLP's output.
        constant[position] += error[position]
        error[position] = 0
    return constant, error


def _add_rest(
    at: list[list[tuple[Tensor, Tensor]]],
    constant: Tensor,
    error: Tensor,
    unmasked: tuple[int, ...],
    first: int,
    remainder: int,
) -> None:
    device = constant.device
    for index, position in enumerate(unmasked):
        at[position].append((error[[position]], torch.tensor([first + index], device=device)))
    for position, writes in enumerate(at):
        writes.append((constant[[position]], torch.tensor([remainder], device=device)))
