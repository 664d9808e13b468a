"""The features of one prompt, and how well they tell what the MLPs wrote.

    unexplained_m = sum_t ||y_m,t - y^_m,t||^2 / sum_t ||y_m,t - mean_t y_m||^2      (FVU of layer m)

Leading special tokens (BOS) are left out by default: the stream there is far from everything that a
transcoder was made for, and thousands of features answer. They neither count as active nor in the fit.
Cost: one forward pass (shared with all pages), then 2 tokens x features x d_model operations per layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mi_core.engine import frozen_norm, observe
from mi_core.errors import ModelError
from mi_core.model.model import LoadedModel
from mi_core.transcoders.names import FeatureAt
from mi_core.transcoders.transcoder import Transcoder

MEMO_PROMPTS = 8
TOKENS_AT_ONCE = 256


@dataclass(frozen=True, slots=True, eq=False)
class ActiveFeatures:
    """Every feature that is active somewhere in a prompt; sorted by layer, position, feature.

    Attributes:
        tokens: token ids.
        masked: positions that were left out.
        layer: [n] source layer.
        position: [n] token position.
        feature: [n] number within the layer.
        activation: [n] float32, larger than 0.
    """

    tokens: tuple[int, ...]
    masked: tuple[int, ...]
    layer: Int[Tensor, " n"]
    position: Int[Tensor, " n"]
    feature: Int[Tensor, " n"]
    activation: Float[Tensor, " n"]

    def __len__(self) -> int:
        return int(self.layer.shape[0])

    def of_layer(self, layer: int) -> slice:
        """Where the entries of a layer are."""
        low, high = torch.searchsorted(self.layer, torch.tensor([layer, layer + 1], device=self.layer.device))
        return slice(int(low), int(high))

    def value(self, at: FeatureAt) -> float:
        """Activation of a feature at a token; 0 where it is not active."""
        part = self.of_layer(at.layer)
        found = (self.position[part] == at.position) & (self.feature[part] == at.index)
        return float(self.activation[part][found].sum())


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """How much of what was written a transcoder does not explain, on one prompt.

    Attributes:
        layers: [target] target layers.
        unexplained: [target] share of variance; above 1 it does worse than the mean. NaN with fewer than two
            tokens.
        unexplained_all: the same over all target layers together.
        error: [target, pos] ||y - y^|| / ||y||; NaN at masked positions.
    """

    layers: tuple[int, ...]
    unexplained: Float[Tensor, " target"]
    unexplained_all: float
    error: Float[Tensor, "target pos"]


def masked_positions(model: LoadedModel, token_ids: Sequence[int]) -> tuple[int, ...]:
    """Leading special tokens of a prompt (BOS, and templates that begin with several)."""
    special = set(getattr(model.tokenizer, "all_special_ids", None) or ())
    first = next((i for i, token in enumerate(token_ids) if token not in special), len(token_ids))
    return tuple(range(first))


def read_values(
    model: LoadedModel, transcoder: Transcoder, token_ids: Sequence[int]
) -> Float[Tensor, "layer pos d_model"]:
    """What the encoders see, one row per source layer, float32.

    Raises:
        SiteMissing: the model does not have the site that the transcoder reads.
    """
    site = transcoder.reads.site
    wanted = (site, "mlp_in") if transcoder.reads.normalised else (site,)
    seen = observe(model, token_ids, wanted)
    found = []
    for layer in transcoder.layers:
        value = seen[site, layer]
        if transcoder.reads.normalised:
            value = without_gain(model, layer, value, seen["mlp_in", layer])
        found.append(value.to(transcoder.device, torch.float32))
    return torch.stack(found)


def written_values(
    model: LoadedModel, transcoder: Transcoder, token_ids: Sequence[int]
) -> Float[Tensor, "target pos d_model"]:
    """What the decoders should give, one row per target layer, float32."""
    site = transcoder.writes.site
    seen = observe(model, token_ids, (site,))
    values = [seen[site, layer].to(transcoder.device, torch.float32) for layer in transcoder.written_layers]
    return torch.stack(values)


def without_gain(
    model: LoadedModel, layer: int, stream: Float[Tensor, "pos d_model"], mlp_in: Float[Tensor, "pos d_model"]
) -> Float[Tensor, "pos d_model"]:
    """The stream divided by the scale of the norm in front of the MLP, centred if that norm centres.

    The norm is the child of the block that turns this stream into this MLP input.

    Raises:
        ModelError: kind "unsupported": no child of the block does.
    """
    with model.lock:
        for child in model.structure.blocks[layer].children():
            if _is_norm(child) and torch.allclose(child(stream), mlp_in, rtol=1e-2, atol=1e-3):
                frozen = frozen_norm(child, stream)
                wide = stream.to(frozen.scale)
                centred = wide - wide.mean(-1, keepdim=True) if frozen.centred else wide
                return (centred / frozen.scale[:, None]).float()
    raise ModelError(
        f"The norm in front of the MLP of layer {layer} was not found",
        kind="unsupported",
        why="no norm of the block gives the MLP's input from the stream",
    )


def _is_norm(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.dim() == 1 and not list(module.children())


def active_features(
    model: LoadedModel, transcoder: Transcoder, token_ids: Sequence[int], *, show_bos: bool = False
) -> ActiveFeatures:
    """All active features of a prompt; remembered for the last `MEMO_PROMPTS` prompts.

    Args:
        model: the loaded model.
        transcoder: of that model.
        token_ids: the prompt.
        show_bos: whether leading special tokens count too.

    Raises:
        SiteMissing, InputError, OutOfMemory: see `observe`.
    """
    key = (tuple(token_ids), show_bos, model.fingerprint)
    found = transcoder.memo.get(key)
    if found is None:
        found = transcoder.memo[key] = _encode(model, transcoder, tuple(token_ids), show_bos)
        while len(transcoder.memo) > MEMO_PROMPTS:
            transcoder.memo.popitem(last=False)
    return found


def _encode(
    model: LoadedModel, transcoder: Transcoder, tokens: tuple[int, ...], show_bos: bool
) -> ActiveFeatures:
    masked = () if show_bos else masked_positions(model, tokens)
    read = read_values(model, transcoder, tokens)
    layers, positions, features, values = [], [], [], []
    for row, layer in enumerate(transcoder.layers):
        for start in range(len(masked), len(tokens), TOKENS_AT_ONCE):
            active = encode_layer(transcoder, layer, read[row, start : start + TOKENS_AT_ONCE])
            at, feature = active.nonzero(as_tuple=True)
            layers.append(torch.full_like(at, layer))
            positions.append(at + start)
            features.append(feature)
            values.append(active[at, feature])
    if not layers:
        nothing = torch.zeros(0, dtype=torch.long, device=transcoder.device)
        return ActiveFeatures(tokens, masked, nothing, nothing, nothing, nothing.float())
    return ActiveFeatures(
        tokens, masked, torch.cat(layers), torch.cat(positions), torch.cat(features), torch.cat(values)
    )


def encode_layer(
    transcoder: Transcoder, layer: int, x: Float[Tensor, "n d_model"]
) -> Float[Tensor, "n feature"]:
    """Activations of all features of a layer, dense."""
    return transcoder.activate(layer, transcoder.pre_activations(layer, x))


def reconstruct(
    model: LoadedModel, transcoder: Transcoder, active: ActiveFeatures
) -> Float[Tensor, "target pos d_model"]:
    """What the transcoder says was written: b_dec + active features + skip, at every position.

    Raises:
        TranscoderError: kind "no_decoder", when only the encoders are here.
    """
    targets = transcoder.written_layers
    row_of = {target: row for row, target in enumerate(targets)}
    told = torch.stack([transcoder.bias(target) for target in targets])
    told = told[:, None].repeat(1, len(active.tokens), 1)
    for layer in transcoder.layers:
        part = active.of_layer(layer)
        if part.start == part.stop:
            continue
        _add_layer(told, transcoder, layer, active, part, row_of)
    _add_skips(told, model, transcoder, active, row_of)
    return told


def _add_layer(
    told: Tensor,
    transcoder: Transcoder,
    layer: int,
    active: ActiveFeatures,
    part: slice,
    row_of: dict[int, int],
) -> None:
    """Adds what the active features of a layer write; every decoder row is read once."""
    indices, inverse = active.feature[part].unique(return_inverse=True)
    rows = transcoder.rows(layer, indices)
    weights = torch.zeros(told.shape[1], len(indices), device=told.device)
    weights[active.position[part], inverse] = active.activation[part]
    for column, target in enumerate(transcoder.targets(layer)):
        told[row_of[target]] += weights @ rows[:, column]


def _add_skips(
    told: Tensor, model: LoadedModel, transcoder: Transcoder, active: ActiveFeatures, row_of: dict[int, int]
) -> None:
    if all(transcoder.source.skip(target) is None for target in transcoder.layers):
        return
    read = read_values(model, transcoder, active.tokens)
    for row, target in enumerate(transcoder.layers):
        skipped = transcoder.skip(target, read[row])
        if skipped is not None:
            told[row_of[target]] += skipped


def fit(
    model: LoadedModel, transcoder: Transcoder, token_ids: Sequence[int], *, show_bos: bool = False
) -> Fit:
    """The load self-test: what the transcoder leaves unexplained on this prompt, layer by layer.

    Raises:
        TranscoderError: kind "no_decoder", when only the encoders are here.
    """
    active = active_features(model, transcoder, token_ids, show_bos=show_bos)
    true = written_values(model, transcoder, token_ids)
    error = true - reconstruct(model, transcoder, active)
    shown = slice(len(active.masked), None)
    off = error[:, shown].square().sum((1, 2))
    spread = (true[:, shown] - true[:, shown].mean(1, keepdim=True)).square().sum((1, 2))
    relative = error.norm(dim=-1) / true.norm(dim=-1)
    relative[:, : len(active.masked)] = torch.nan
    enough = len(active.tokens) - len(active.masked) > 1
    share = off / spread if enough else torch.full_like(off, torch.nan)
    return Fit(
        transcoder.written_layers,
        share.cpu(),
        float(off.sum() / spread.sum()) if enough else float("nan"),
        relative.cpu(),
    )
