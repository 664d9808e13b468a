"""What a cross-layer transcoder of Atlas learns from: (resid_mid, mlp_out) of every layer, token by token.

The text is the endless, seeded text that Atlas was trained on (`atlas_corpus.Corpus`), but with ordinary
causal attention inside every document, as at inference: no name expires. `<|begin|>` is left out: nothing is
read there, and heads that have nothing to read rest there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from atlas_corpus import Corpus, Recipe
from atlas_facts import load_facts, load_fixed, load_names
from torch import Tensor
from train_atlas import attention_mask
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

TEXT = Recipe(facts=0.55, ioi=0.13, repeats=0.06, masked=0.0, row=96, rows=32)
"""Mostly facts, as on Atlas' pages; random repeats only so that every token is seen."""


@dataclass(frozen=True)
class Text:
    """Some rows of text.

    Attributes:
        ids: [row, pos] token ids.
        mask: attention mask: causal, within documents.
        kept: [token] flat indices of all tokens but `<|begin|>`.
    """

    ids: Tensor
    mask: Tensor
    kept: Tensor


@dataclass
class Stream:
    """Batches of activations of a frozen Atlas.

    Attributes:
        model: Atlas, float32.
        corpus: its text.
    """

    model: LlamaForCausalLM
    corpus: Corpus
    _seen: dict[tuple[str, int], Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        layers: Any = self.model.model.layers
        for index, layer in enumerate(layers):
            layer.post_attention_layernorm.register_forward_pre_hook(self._keep("resid_mid", index))
            layer.mlp.register_forward_hook(self._keep_output("mlp_out", index))

    def _keep(self, name: str, index: int) -> Any:
        def hook(_: Any, arguments: tuple[Tensor, ...]) -> None:
            self._seen[name, index] = arguments[0]

        return hook

    def _keep_output(self, name: str, index: int) -> Any:
        def hook(_: Any, __: Any, output: Tensor) -> None:
            self._seen[name, index] = output

        return hook

    def batch(self) -> tuple[Tensor, Tensor]:
        """(resid_mid, mlp_out) [layer, token, d_model] of the next rows, without `<|begin|>`."""
        text = self.text()
        with torch.no_grad():
            self.states(text)
        return self.latest(text)

    def text(self) -> Text:
        """The next rows."""
        data = {name: torch.from_numpy(array) for name, array in self.corpus.batch().items()}
        never = torch.full_like(data["expire"], 1 << 30)
        kept = (data["ids"] != self.corpus.begin).flatten().nonzero()[:, 0]
        return Text(data["ids"], attention_mask(data["start"], never), kept)

    def states(self, text: Text) -> Tensor:
        """[token, d_model] what the last norm reads out, at the kept positions."""
        output = self.model.model(text.ids, attention_mask=text.mask, use_cache=False)
        return output.last_hidden_state.flatten(0, 1)[text.kept]

    def latest(self, text: Text) -> tuple[Tensor, Tensor]:
        """(resid_mid, mlp_out) [layer, token, d_model] of the latest pass, at the kept positions."""
        layers = range(len(self.model.model.layers))
        read, written = (
            torch.stack([self.seen_at(name, layer)[text.kept] for layer in layers])
            for name in ("resid_mid", "mlp_out")
        )
        return read, written

    def seen_at(self, name: str, layer: int) -> Tensor:
        """[row * pos, d_model] what `name` of a layer was in the latest pass."""
        return self._seen[name, layer].flatten(0, 1)


def open_stream(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int) -> Stream:
    """A stream over Atlas' own text; different seeds give different text."""
    return Stream(model, Corpus(tokenizer, load_facts(), load_fixed(), load_names(), TEXT, seed))
