"""The cross-layer transcoder while it is trained: standardised activations in, standardised activations out.

A feature f of layer l reads resid_mid of layer l and writes to mlp_out of every layer m >= l:

    a_l = p_l [p_l n_l > t_l],  p_l = x_l W_enc_l + b_enc_l,  n_l,f = ||W_dec_l,f|| over all its targets
    y_m = b_dec_m + sum_(l <= m) a_l W_dec_l[:, m - l]

The threshold t_l of a layer is set so that `k` features per token pass on average over the batch (BatchTopK,
Bussmann et al. 2024, arXiv 2412.06410, with the decoder norm in the score). A JumpReLU with
theta_f = t_l / n_l,f is the same function, so the conversion at the end changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Scale:
    """Standardisation of one site: (value - mean) / size, one size per layer.

    Attributes:
        mean: [layer, 1, d_model].
        size: [layer, 1, 1] root mean square of a centred entry.
    """

    mean: Tensor
    size: Tensor

    @staticmethod
    def of(values: Tensor) -> Scale:
        """Measured on [layer, token, d_model]."""
        mean = values.mean(1, keepdim=True)
        return Scale(mean, (values - mean).square().mean((1, 2), keepdim=True).sqrt())

    def __call__(self, values: Tensor) -> Tensor:
        """The values, standardised."""
        return (values - self.mean) / self.size


class CrossLayerTranscoder(nn.Module):
    """Encoder, decoder and thresholds of all layers, on standardised activations.

    Attributes:
        enc: [layer, d_model, feature].
        bias: [layer, 1, feature].
        dec: per layer l [feature, n_layers - l, d_model].
        out: [layer, d_model] constant of each target.
        threshold: [layer] of activation times decoder norm.
    """

    threshold: Tensor

    def __init__(self, read: Tensor, written: Tensor, n_features: int, seed: int) -> None:
        """Starts every feature as a detector of one sample that writes a tenth of what the MLPs write there.

        Args:
            read: [layer, token, d_model] standardised samples.
            written: the same of the MLPs' outputs.
            n_features: per layer.
            seed: of the choice of samples.
        """
        super().__init__()
        n_layers, n_tokens, width = read.shape
        chosen = torch.randperm(n_tokens, generator=torch.Generator().manual_seed(seed))[:n_features]
        samples = read[:, chosen]
        norms = samples.norm(dim=-1, keepdim=True)
        self.enc = nn.Parameter((samples / norms).transpose(1, 2).contiguous())
        self.bias = nn.Parameter(torch.zeros(n_layers, 1, n_features))
        start = (0.1 * written[:, chosen] / norms).transpose(0, 1)
        self.dec = nn.ParameterList(
            [nn.Parameter(start[:, layer:].contiguous()) for layer in range(n_layers)]
        )
        self.out = nn.Parameter(torch.zeros(n_layers, width))
        self.register_buffer("threshold", torch.zeros(n_layers))

    @property
    def norms(self) -> Tensor:
        """[layer, 1, feature] length of each feature's whole decoder, no gradient."""
        return torch.stack([block.detach().flatten(1).norm(dim=1)[None] for block in self.dec])

    def pre(self, read: Tensor) -> Tensor:
        """[layer, token, feature] pre-activations."""
        return torch.baddbmm(self.bias, read, self.enc)

    @torch.no_grad()
    def measure_threshold(self, pre: Tensor, k: float, sample: int = 384) -> Tensor:
        """[layer] the score that k features per token pass on average, on a sample of tokens."""
        some = pre[:, torch.randperm(pre.shape[1])[:sample]].float()
        scores = (some.clamp(min=0) * self.norms).flatten(1)
        rank = scores.shape[1] - round(k * some.shape[1])
        return scores.kthvalue(rank, dim=1).values

    def active(self, pre: Tensor) -> Tensor:
        """[layer, token, feature] activations under the current thresholds."""
        passed = pre * self.norms > self.threshold[:, None, None].clamp(min=1e-6)
        return pre * passed

    def decode(self, active: Tensor) -> Tensor:
        """[layer, token, d_model] what all features together write."""
        n_layers, n_tokens, _ = active.shape
        told = [self.out[m].expand(n_tokens, -1) for m in range(n_layers)]
        for layer, block in enumerate(self.dec):
            parts = (active[layer] @ block.flatten(1)).view(n_tokens, n_layers - layer, -1)
            for m in range(layer, n_layers):
                told[m] = told[m] + parts[:, m - layer]
        return torch.stack(told)

    @torch.no_grad()
    def folded(self, read: Scale, written: Scale) -> dict[str, Tensor]:
        """The same transcoder on raw activations, under the names of the CLT folder format.

        x -> (x - mean) / size goes into encoder and its bias, y -> y size + mean into decoder and its bias.
        """
        norms, named = self.norms, {}
        for layer, block in enumerate(self.dec):
            enc = self.enc[layer] / read.size[layer]
            named[f"W_enc_{layer}"] = enc.T.contiguous()
            named[f"b_enc_{layer}"] = (self.bias[layer] - read.mean[layer] @ enc)[0]
            named[f"W_dec_{layer}"] = block * written.size[layer:, 0][None]
            named[f"b_dec_{layer}"] = self.out[layer] * written.size[layer, 0] + written.mean[layer, 0]
            named[f"threshold_{layer}"] = (self.threshold[layer].clamp(min=1e-6) / norms[layer])[0]
        return named

    @torch.no_grad()
    def unfold(self, named: dict[str, Tensor], read: Scale, written: Scale) -> Tensor:
        """Takes over a saved transcoder, the inverse of `folded`.

        Returns:
            [layer, 1, feature] its thresholds, of activations.
        """
        for layer, block in enumerate(self.dec):
            enc = named[f"W_enc_{layer}"].T
            self.enc[layer] = enc * read.size[layer]
            self.bias[layer] = named[f"b_enc_{layer}"] + read.mean[layer] @ enc
            block.copy_(named[f"W_dec_{layer}"] / written.size[layer:, 0][None])
            self.out[layer] = (named[f"b_dec_{layer}"] - written.mean[layer, 0]) / written.size[layer, 0]
        return torch.stack([named[f"threshold_{layer}"][None] for layer in range(len(self.dec))])
