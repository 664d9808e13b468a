"""Every format that can be read: how it is written, on which model, and what its encoders see there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mi_core.model.model import LoadedModel
from mi_core.transcoders import active_features, reconstruct
from mi_core.transcoders.folder import LocalFolder
from mi_core.transcoders.formats import open_folder
from mi_core.transcoders.transcoder import Transcoder
from tests.tiny import tiny, tokens
from tests.transcoder_files import (
    write_clt,
    write_gemma_scope,
    write_gemma_scope_2,
    write_gemma_scope_2_clt,
    write_list,
    write_plt,
    write_sae_lens,
)
from tests.transcoder_numbers import F, Numbers, numbers, why_never

N_POS = 7
WRONG_GAIN = {"normalised": "mlp_in", "mlp_in": "normalised"}
"""Where an encoder would read with the norm's gain too much or missing."""
WRONG_PLACE = {
    "normalised": "resid_mid",
    "mlp_in": "resid_mid",
    "resid_mid": "mlp_in",
    "resid_pre": "resid_mid",
}
"""The neighbour that an encoder would read by mistake: the other side of the norm, or of the attention."""


@dataclass(frozen=True)
class Format:
    """A way to write a transcoder, and how it is to be read.

    Attributes:
        family: tiny model.
        place: what its encoders read.
        make: options of `numbers`.
        write: (numbers, folder) -> folder.
        name: as the library calls it.
        kind: expected kind.
    """

    family: str
    place: str
    make: dict[str, Any]
    write: Callable[[Numbers, Path], Path]
    name: str
    kind: str


FORMATS: dict[str, Format] = {
    "clt": Format("llama", "resid_mid", {"clt": True}, write_clt, "CLT folder", "clt"),
    "clt jump": Format("llama", "resid_mid", {"clt": True, "jump": True}, write_clt, "CLT folder", "clt"),
    "clt skip": Format("gpt2", "resid_mid", {"clt": True, "skip": True}, write_clt, "CLT folder", "clt"),
    "clt gemma2": Format("gemma2", "resid_mid", {"clt": True}, write_clt, "CLT folder", "clt"),
    "gemma scope 2 clt": Format(
        "gemma2", "resid_mid", {"clt": True, "jump": True, "skip": True, "unused": True},
        write_gemma_scope_2_clt, "Gemma Scope 2 CLT", "clt",
    ),
    "gemma scope 2 clt short": Format(
        "gemma2", "resid_mid", {"clt": True, "jump": True}, write_gemma_scope_2_clt, "Gemma Scope 2 CLT",
        "clt",
    ),
    "plt": Format("llama", "mlp_in", {"clt": False, "skip": True}, write_plt, "PLT folder", "plt"),
    "plt legacy": Format(
        "llama", "mlp_in", {"clt": False, "skip": True, "jump": True},
        lambda n, folder: write_plt(n, folder, legacy=True), "PLT folder", "plt",
    ),
    "plt top-k": Format("llama", "mlp_in", {"clt": False, "k": 2}, write_plt, "PLT folder", "plt"),
    "plt normalised": Format(
        "gpt2", "normalised", {"clt": False},
        lambda n, folder: write_plt(n, folder, reads="ln2.hook_normalized", writes="hook_mlp_out"),
        "PLT folder", "plt",
    ),
    "list of files": Format(
        "llama", "mlp_in", {"clt": False, "skip": True}, write_list, "list of files", "plt"
    ),
    "list of npz": Format(
        "gemma2", "normalised", {"clt": False, "jump": True},
        lambda n, folder: write_list(n, folder, npz=True), "list of files", "plt",
    ),
    "gemma scope": Format(
        "gemma2", "normalised", {"clt": False, "jump": True},
        lambda n, folder: write_gemma_scope(n, folder / "gemma-scope-2b-pt-transcoders"),
        "Gemma Scope", "plt",
    ),
    "gemma scope compressed": Format(
        "gemma2", "normalised", {"clt": False, "jump": True},
        lambda n, folder: write_gemma_scope(n, folder / "transcoders", compressed=True),
        "Gemma Scope", "plt",
    ),
    "gemma scope by column": Format(
        "gemma2", "normalised", {"clt": False, "jump": True, "by_column": True},
        lambda n, folder: write_gemma_scope(n, folder / "transcoders"), "Gemma Scope", "plt",
    ),
    "gemma scope compressed by column": Format(
        "gemma2", "normalised", {"clt": False, "jump": True, "by_column": True},
        lambda n, folder: write_gemma_scope(n, folder / "transcoders", compressed=True),
        "Gemma Scope", "plt",
    ),
    "gemma scope 2": Format(
        "gemma2", "mlp_in", {"clt": False, "jump": True, "skip": True}, write_gemma_scope_2, "Gemma Scope",
        "plt",
    ),
    "sae lens": Format(
        "llama", "resid_pre", {"clt": False, "centred": True}, write_sae_lens, "SAELens", "sae"
    ),
    "sae lens jump": Format(
        "llama", "resid_pre", {"clt": False, "jump": True},
        lambda n, folder: write_sae_lens(n, folder, new=True), "SAELens", "sae",
    ),
    "sae lens skip transcoder": Format(
        "gpt2", "normalised", {"clt": False, "skip": True},
        lambda n, folder: write_sae_lens(
            n, folder, hook="ln2.hook_normalized", architecture="skip_transcoder",
            hook_name_out="hook_mlp_out",
        ),
        "SAELens", "plt",
    ),
    "sae lens top-k": Format(
        "llama", "resid_pre", {"clt": False, "k": 3}, write_sae_lens, "SAELens", "sae"
    ),
}  # fmt: skip


@lru_cache(maxsize=16)
def seen(family: str, place: str) -> np.ndarray:
    """What is at a place, [layer, pos, d], by plain PyTorch hooks on the Hugging Face model."""
    blocks = tiny(family).structure.blocks
    caught = _caught(family)
    if place == "normalised":
        values = [
            normalised(family, norms(family, block)[0], caught["norm.in", layer])
            for layer, block in enumerate(blocks)
        ]
    else:
        names = {"resid_mid": "norm.in", "mlp_in": "norm.out", "mlp_out": "mlp.out", "resid_pre": "block.in"}
        values = [caught[names[place], layer].reshape(N_POS, -1) for layer in range(len(blocks))]
    return torch.stack(values).double().numpy()


def _caught(family: str) -> dict[tuple[str, int], torch.Tensor]:
    """What goes in and comes out of every norm, MLP and block."""
    model = tiny(family)
    caught: dict[tuple[str, int], torch.Tensor] = {}

    def at(name: str, layer: int) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            caught[name + ".in", layer] = inputs[0][0].detach()
            caught[name + ".out", layer] = (output[0] if isinstance(output, tuple) else output)[0].detach()

        return hook

    handles = []
    for layer, block in enumerate(model.structure.blocks):
        norm, mlp = norms(family, block)
        for name, module in (("norm", norm), ("mlp", mlp), ("block", block)):
            handles.append(module.register_forward_hook(at(name, layer)))
    with torch.no_grad():
        model.hf(tokens(1, N_POS))
    for handle in handles:
        handle.remove()
    return caught


def norms(family: str, block: Any) -> tuple[Any, Any]:
    """The norm in front of the MLP, and the module whose output is added to the stream."""
    if family == "gpt2":
        return block.ln_2, block.mlp
    if family == "gemma2":
        return block.pre_feedforward_layernorm, block.post_feedforward_layernorm
    return block.post_attention_layernorm, block.mlp


def normalised(family: str, norm: Any, x: torch.Tensor) -> torch.Tensor:
    """By the formula of the norm, without its gain."""
    x = x.double()
    if family == "gpt2":
        x = x - x.mean(-1, keepdim=True)
        return x / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    epsilon = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon)


@lru_cache(maxsize=32)
def case(name: str) -> tuple[Numbers, np.ndarray]:
    """A format's numbers, and what its encoders read."""
    how = FORMATS[name]
    x = seen(how.family, how.place)
    return numbers(x, **how.make), x


def mistaken(name: str, mistake: str) -> np.ndarray:
    """What the encoders of a format would read with a mistake; what they do read if it is another kind."""
    how = FORMATS[name]
    places = {"gain": WRONG_GAIN, "place": WRONG_PLACE}.get(mistake, {})
    return seen(how.family, places.get(how.place, how.place))


def cannot(name: str, mistake: str) -> str:
    """Why a classic mistake cannot be made with a format; "" = it can."""
    if mistake == "gain" and FORMATS[name].place not in WRONG_GAIN:
        return "its encoders read the stream itself, which has no gain"
    return why_never(FORMATS[name].make, mistake)


def opened(name: str, folder: Path) -> tuple[LoadedModel, Transcoder]:
    """A format's files, written and opened."""
    how = FORMATS[name]
    place = how.write(case(name)[0], folder)
    model = tiny(how.family)
    return model, open_folder(LocalFolder(place), model)


def dense(model: LoadedModel, transcoder: Transcoder) -> tuple[np.ndarray, np.ndarray]:
    """Activations and reconstruction as the library gives them, in the shapes of `answer`."""
    ids = tokens(1, N_POS)[0].tolist()
    active = active_features(model, transcoder, ids)
    acts = np.zeros((len(transcoder.layers), N_POS, F))
    acts[active.layer, active.position, active.feature] = active.activation
    return acts, reconstruct(model, transcoder, active).double().numpy()
