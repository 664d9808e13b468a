"""A tuned lens: one affine map per layer that turns a residual state into what the last block would put out.

    tuned lens_l(h) = unembed(h + h W_l^T + b_l)        plain lens(h) = unembed(h)

`unembed` is the model's own final norm, unembedding and softcaps. Translator l belongs to the input of block
l, that is `resid_pre` at layer l: translator 0 reads the embeddings, translator l > 0 reads `resid_post` of
layer l - 1 (in Hugging Face's words `hidden_states[l]`). What the last block puts out has no translator,
because it is the model's own state. The map is added to the state, so W = 0, b = 0 is the plain lens.

Source: Belrose et al., "Eliciting Latent Predictions from Transformers with the Tuned Lens" (arXiv
2303.08112, 2023). Cost of a translation: 2 * n * d_model^2 floating-point operations.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from mi_core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

SITES = ("resid_pre", "resid_post")
"""Sites that have translators: the stream between blocks."""


@dataclass(frozen=True, slots=True)
class LensOrigin:
    """What a lens file says about its making.

    Attributes:
        base_model: name of the model that it was trained for; "" = not said.
        revision: of that model.
        unembed_hash: the tuned-lens package's hash of that model's unembedding.
        fingerprint: of that model's weights (lenses trained here).
        training: how it was trained and how good it was, plain JSON values; empty for lenses from elsewhere.
    """

    base_model: str = ""
    revision: str | None = None
    unembed_hash: str | None = None
    fingerprint: str | None = None
    training: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class TunedLens:
    """The translators of a tuned lens, in CPU memory.

    Attributes:
        name: what to call it.
        weight: W per layer.
        bias: b per layer.
        origin: what its file says.
        warnings: sentences to be read before a figure made with it.
    """

    name: str
    weight: Float[np.ndarray, "layer d_model d_model"]
    bias: Float[np.ndarray, "layer d_model"]
    origin: LensOrigin = field(default_factory=LensOrigin)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Square matrices, one bias each, one number format, numbers only."""
        layers, rows, columns = self.weight.shape
        if rows != columns or self.bias.shape != (layers, rows) or self.weight.dtype != self.bias.dtype:
            raise ValueError(f"weights {self.weight.shape} and biases {self.bias.shape} do not fit")
        if self.weight.dtype not in (np.float32, np.float64):
            raise ValueError(f"translators are {self.weight.dtype}, expected float32 or float64")

    @classmethod
    def plain(cls, n_layers: int, d_model: int, dtype: str = "float32") -> "TunedLens":
        """The lens that changes nothing: all translators zero."""
        weight = np.zeros((n_layers, d_model, d_model), dtype)
        return cls("plain", weight, np.zeros((n_layers, d_model), dtype))

    @property
    def n_layers(self) -> int:
        """Translators: one per block of the model."""
        return len(self.weight)

    @property
    def d_model(self) -> int:
        """Width of the stream."""
        return self.weight.shape[1]

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of a hash of all translators."""
        digest = hashlib.sha256(f"{self.weight.dtype} {self.weight.shape}".encode())
        for array in (self.weight, self.bias):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]

    def renamed(self, name: str) -> "TunedLens":
        """The same lens under another name."""
        return replace(self, name=name)

    def require_site(self, site: str) -> None:
        """Refuse a site without translators.

        Raises:
            InputError: any site but `resid_pre` and `resid_post`.
        """
        if site not in SITES:
            raise InputError(
                f"A tuned lens cannot read {site!r}",
                why="its translators were trained on the stream between blocks",
                fix=f"Choose {' or '.join(SITES)}, or the plain lens",
            )

    def translate(self, site: str, layer: int, hidden: "Float[Tensor, 'n d_model']") -> "Tensor":
        """Residual states of a site in the words of the last layer; unembed them next.

        Args:
            site: `resid_pre`, or `resid_post`, whose layer l is the input of block l + 1.
            layer: the site's layer; `resid_post` of the last layer is returned as it is.
            hidden: the states.

        Returns:
            [n, d_model] on the same device, in at least float32.

        Raises:
            InputError: a site without translators, or no such layer.
        """
        self.require_site(site)
        index = layer if site == "resid_pre" else layer + 1
        if site == "resid_post" and index == self.n_layers:
            return hidden
        return self.translator(index, hidden)

    def translator(self, layer: int, hidden: "Float[Tensor, 'n d_model']") -> "Tensor":
        """What enters block `layer`, in the words of the last layer: h + h W^T + b.

        Raises:
            InputError: no such layer, or states of another width.
        """
        import torch

        if not 0 <= layer < self.n_layers or hidden.shape[-1] != self.d_model:
            raise InputError(
                f"This lens has {self.n_layers} translators of width {self.d_model}",
                why=f"layer {layer} of width {hidden.shape[-1]} was asked for",
            )
        weight, bias = (torch.from_numpy(part[layer]).to(hidden.device) for part in (self.weight, self.bias))
        return affine(hidden, weight, bias)


def affine(hidden: "Tensor", weight: "Tensor", bias: "Tensor") -> "Tensor":
    """H + (h W^T + b), in the wider of the two number formats; a gradient flows to all three.

    Args:
        hidden: [n, d_model].
        weight: [d_model out, d_model in].
        bias: [d_model].
    """
    import torch

    kind = torch.promote_types(hidden.dtype, weight.dtype)
    state = hidden.to(kind)
    return state + torch.nn.functional.linear(state, weight.to(kind), bias.to(kind))
