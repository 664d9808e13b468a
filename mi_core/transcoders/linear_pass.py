"""A prompt's forward pass as a linear map: attention patterns and all norm scales held, MLP outputs given.

With patterns and scales at their clean values, every residual stream is a linear function of the embedding
and of the outputs of the MLPs before it:

    resid_mid[l]  = resid_pre[l] + attention_l(resid_pre[l])          attention_l affine, see `linear_parts`
    resid_post[l] = resid_mid[l] + mlp_out[l] (+ skip_l(read_l) of a transcoder with a skip)

`push` sends changes of MLP outputs (or the embedding) forward, `backward` sends gradients back; one is the
transpose of the other. Direct effects of features are changes of MLP outputs pushed with everything held; a
row of an attribution graph is one gradient, read at every MLP output on its way back.

Cost: 4 * d_model^2 multiplications and additions per row, position and layer (with d_head * heads = d_model).
Sources: Ameisen et al. 2025 ("Circuit Tracing: Revealing Computational Graphs in Language Models").
The other implementation, by automatic differentiation through the model's own modules, is `linear_autograd`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from mi_core.model.model import LoadedModel
from mi_core.model.weights import unembedding
from mi_core.transcoders.linear_parts import Affine, FrozenAttention


@dataclass(frozen=True, eq=False, slots=True)
class Pushed:
    """Changes of the residual stream, per layer [row, pos, d_model].

    Attributes:
        resid_pre: before each block.
        resid_mid: between attention and MLP; None in parallel blocks, which have no such place.
        resid_post: after each block.
    """

    resid_pre: list[Float[Tensor, "row pos d_model"]]
    resid_mid: list[Float[Tensor, "row pos d_model"]] | None
    resid_post: list[Float[Tensor, "row pos d_model"]]

    @property
    def final(self) -> Float[Tensor, "row pos d_model"]:
        """After the last block."""
        return self.resid_post[-1]


@dataclass(eq=False)
class FrozenPass:
    """The linear map of one prompt.

    Attributes:
        model: whose pass it is.
        tokens: the prompt.
        attention: one per layer.
        parallel: whether attention and MLP of a block read the same stream.
        embed: [pos, d_model] what enters block 0.
        mlp_out: per layer [pos, d_model], of the clean run.
        final: the norm in front of the unembedding.
        logit_factor: what the family multiplies its logits with.
        reads: source layer -> map from the stream at `read_site` to what the encoders see.
        read_site: "resid_mid" or "resid_pre".
        skips: layer -> [d_model, d_model] M of a skip read @ M that stays linear.
        dtype: of all computations; at least float32.
    """

    model: LoadedModel
    tokens: tuple[int, ...]
    attention: tuple[FrozenAttention, ...]
    parallel: bool
    embed: Float[Tensor, "pos d_model"]
    mlp_out: tuple[Float[Tensor, "pos d_model"], ...]
    final: Affine
    logit_factor: float
    reads: Mapping[int, Affine]
    read_site: str
    skips: Mapping[int, Float[Tensor, "d_model d_model"]]
    dtype: torch.dtype

    @property
    def n_layers(self) -> int:
        """Blocks."""
        return len(self.attention)

    @property
    def n_pos(self) -> int:
        """Tokens."""
        return len(self.tokens)

    @property
    def error(self) -> float:
        """Largest relative difference of an attention output to the model's own."""
        return max(one.error for one in self.attention)

    # --- forward ---

    def push(
        self,
        deltas: Mapping[int, Float[Tensor, "row pos d_model"]],
        embed: Float[Tensor, "row pos d_model"] | None = None,
    ) -> Pushed:
        """What changes of MLP outputs change in the stream, with patterns, scales and all MLPs held.

        Args:
            deltas: layer -> change of `mlp_out`.
            embed: change of the embedding, if any.

        Returns:
            Changes of the stream; zero where nothing arrives.
        """
        with torch.inference_mode():
            rows = max([len(delta) for delta in deltas.values()] + ([] if embed is None else [len(embed)]))
            stream = self.embed.new_zeros(rows, self.n_pos, self.embed.shape[1])
            if embed is not None:
                stream = stream + embed.to(stream)
            before, middle, after = [], [], []
            # Nothing flows before the first change.
            first = -1 if embed is not None else min(deltas)
            for layer in range(self.n_layers):
                before.append(stream)
                moved = self.attention[layer].forward(stream) if layer > first else torch.zeros_like(stream)
                mid = stream + moved
                middle.append(mid)
                stream = mid + deltas[layer].to(mid) if layer in deltas else mid
                if layer in self.skips:
                    source = mid if self.read_site == "resid_mid" else before[layer]
                    stream = stream + self.reads[layer].linear(source) @ self.skips[layer]
                after.append(stream)
            return Pushed(before, None if self.parallel else middle, after)

    def read(self, pushed: Pushed, layer: int) -> Float[Tensor, "row pos d_model"]:
        """What the transcoder's encoders of a layer see of a change.

        Raises:
            KeyError: the pass was made without a transcoder, or it has no encoder there.
        """
        middle = None if self.read_site == "resid_pre" else pushed.resid_mid
        with torch.inference_mode():
            return self.reads[layer].linear((pushed.resid_pre if middle is None else middle)[layer])

    def logits(
        self, final: Float[Tensor, "row pos d_model"], token_ids: Sequence[int] | None = None
    ) -> Float[Tensor, "row pos token"]:
        """Change of the logits (before a softcap) with the final norm's scale held.

        Args:
            final: change after the last block.
            token_ids: which logits; None = the whole vocabulary (rows * pos * d_vocab numbers).
        """
        with torch.inference_mode():
            return self.final.linear(final.to(self.embed)) @ self._columns(token_ids)

    # --- backward ---

    def backward(
        self, gradient: Float[Tensor, "row pos d_model"], active: Sequence[int] | None = None
    ) -> Iterator[tuple[str, int, Float[Tensor, "row pos d_model"]]]:
        """Send gradients from the stream after the last block to the embedding, stopping at every place.

        Yields (place, layer, gradient): "mlp_out" (the gradient for what the MLP adds), "resid_mid" (not in
        parallel blocks), "attn_out" (the gradient for what attention adds), "resid_pre". At `read_site` the
        caller may add gradients that enter there, in place. Call it inside `torch.inference_mode()`.

        Args:
            gradient: changed in place; what is left at the end is the gradient for the embedding.
            active: per layer, how many rows at the front may be other than zero at its "mlp_out"; the rest
                are not computed there. None = all.
        """
        rows = [len(gradient)] * self.n_layers if active is None else list(active)
        for layer in reversed(range(self.n_layers)):
            live = gradient[: rows[layer]]
            yield "mlp_out", layer, live
            skipped = None
            if layer in self.skips:
                skipped = self.reads[layer].back(live @ self.skips[layer].T)
            if not self.parallel:
                if skipped is not None and self.read_site == "resid_mid":
                    live += skipped
                yield "resid_mid", layer, gradient
            if self.read_site == "resid_mid":
                live = gradient[: rows[layer - 1] if layer else len(gradient)]
            yield "attn_out", layer, live
            live += self.attention[layer].back(live)
            if skipped is not None and self.read_site == "resid_pre":
                live += skipped
            yield "resid_pre", layer, gradient

    # --- the way to the logits ---

    def logit_gradient(
        self, token_ids: Sequence[int] | None, position: int
    ) -> Float[Tensor, "token d_model"]:
        """Gradients of logits (before a softcap) for the stream after the last block at a position."""
        return self.final.at(position).back(self._columns(token_ids).T[:, None])[:, 0]

    def mean_logit_gradient(self, position: int) -> Float[Tensor, " d_model"]:
        """The same for the mean over the vocabulary."""
        return self.final.at(position).back(self._mean_column[None, None])[0, 0]

    def logit_bias(self, token_ids: Sequence[int]) -> Float[Tensor, " token"]:
        """What the final norm's bias and the unembedding's bias add to logits."""
        bias = self._head_bias
        own = bias.new_zeros(len(token_ids)) if bias.numel() == 1 else bias[self._index(token_ids)]
        through = 0.0 if self.final.bias is None else self.final.bias @ self._columns(token_ids)
        return through + self.logit_factor * own

    @property
    def mean_logit_bias(self) -> Float[Tensor, ""]:
        """The same for the mean over the vocabulary."""
        through = 0.0 if self.final.bias is None else self.final.bias @ self._mean_column
        return through + self.logit_factor * self._head_bias.mean()

    def _index(self, token_ids: Sequence[int]) -> Tensor:
        return torch.tensor(list(token_ids), dtype=torch.long, device=self.embed.device)

    def _columns(self, token_ids: Sequence[int] | None) -> Float[Tensor, "d_model token"]:
        whole = unembedding(self.model.hf)
        part = whole if token_ids is None else whole[:, self._index(token_ids).to(whole.device)]
        return self.logit_factor * part.to(self.embed)

    @cached_property
    def _mean_column(self) -> Float[Tensor, " d_model"]:
        whole = unembedding(self.model.hf)
        device = torch.device("cpu") if whole.device.type == "mps" else whole.device
        mean = whole.to(device).mean(1, dtype=torch.float64)
        return self.logit_factor * mean.to(self.embed)

    @property
    def _head_bias(self) -> Tensor:
        bias = getattr(self.model.hf.get_output_embeddings(), "bias", None)
        return self.embed.new_zeros(1) if bias is None else bias.detach().to(self.embed)
