"""What a direct logit attribution returns: every part's contribution to one logit, or logit difference.

Everything is CPU numpy and plain Python. The first axis of every array is the prompt: 0 is the prompt itself,
1 the control prompt, if there is one. Contributions are in logits, before the softcap.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float, Int

from mi_core.analyses.attribution_inputs import AttributionInputs, head_name, neuron_name, parse_head
from mi_core.analyses.causal_trace_parts import Check
from mi_core.errors import InputError
from mi_core.provenance import Provenance
from mi_core.tokens import Token

if TYPE_CHECKING:
    import pandas as pd

PartKind = Literal["embedding", "attention", "mlp", "bias"]
PROMPT_NAMES = ("prompt", "control")
TOKEN_NAMES = ("target", "distractor")


@dataclass(frozen=True, slots=True)
class ReadToken:
    """A token whose logit is read.

    Attributes:
        id: token id.
        visible: what to show, for example `·Paris`.
        text: what the user typed, or the token's own text.
        chosen_by: "user", or "model": the top token of the prompt.
    """

    id: int
    visible: str
    text: str
    chosen_by: Literal["user", "model"]

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "ReadToken":
        """The inverse of `dataclasses.asdict`.

        Raises:
            ValueError: chosen by nobody known.
        """
        if fields["chosen_by"] not in ("user", "model"):
            raise ValueError(f"a token chosen by {fields['chosen_by']!r}")
        return cls(int(fields["id"]), str(fields["visible"]), str(fields["text"]), fields["chosen_by"])


@dataclass(frozen=True, slots=True)
class TopToken:
    """What a prompt's run itself says next.

    Attributes:
        visible: its most probable token.
        probability: of that token.
    """

    visible: str
    probability: float


@dataclass(frozen=True, slots=True)
class Part:
    """One term of the sum, in forward order.

    Attributes:
        name: for an axis: "embedding", "L3 attention", "L3 MLP", "biases".
        kind: what it is.
        layer: its layer; None for the embedding and the final biases.
    """

    name: str
    kind: PartKind
    layer: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class AttributionResult:
    """Contributions to logit(target) - logit(distractor), or to logit(target), at the last position.

    Attributes:
        inputs: what was asked for.
        provenance: model and versions; None only for results made without a model.
        tokens: tokens of every prompt.
        target: whose logit is attributed.
        distractor: whose logit is subtracted, or None.
        top: the top token of every prompt.
        embedding_names: names of the embedding's parts.
        embedding: what the embedding (token, and position where one is added) contributes.
        attention: what each layer's attention output contributes, its biases included.
        mlp: what each layer's MLP output contributes, its biases included.
        bias: what the final norm's and the unembedding's biases contribute.
        heads: what each head contributes; no columns where heads cannot be told apart.
        attention_bias: what the output bias (and a post-norm's bias) of each attention contributes.
        neuron_layers: layer of every listed neuron, ascending.
        neuron_ids: its number within the layer.
        neuron_values: what it contributes.
        neuron_activations: its activation (`mlp_post`).
        neuron_rest: what all other neurons of each layer contribute together.
        mlp_bias: what the output bias (and a post-norm's bias) of each MLP contributes.
        sources: what the heads of `inputs.split_heads` contribute by source token; NaN after a prompt's end.
        sums: all parts and biases added up, of target and distractor.
        logits: of target and distractor before the softcap, from the whole last residual.
        model_logits: the same as the model itself returns them, softcap included.
        probabilities: of target and distractor.
        softcap: c of c * tanh(logit / c), or None.
        post_norms: whether what a module writes goes through a norm of its own, frozen too.
        parallel: whether attention and MLP of a block read the same stream.
        warnings: sentences to be read before the figure.
        checks: identities tried on this result.
        seconds: duration.
        cancelled: always False: an attribution is whole or not at all.
    """

    inputs: AttributionInputs
    provenance: Provenance | None
    tokens: tuple[tuple[Token, ...], ...]
    target: ReadToken
    distractor: ReadToken | None
    top: tuple[TopToken, ...]
    embedding_names: tuple[str, ...]
    embedding: Float[np.ndarray, "prompt part"]
    attention: Float[np.ndarray, "prompt layer"]
    mlp: Float[np.ndarray, "prompt layer"]
    bias: Float[np.ndarray, "prompt"]
    heads: Float[np.ndarray, "prompt layer head"]
    attention_bias: Float[np.ndarray, "prompt layer"]
    neuron_layers: Int[np.ndarray, "neuron"]
    neuron_ids: Int[np.ndarray, "neuron"]
    neuron_values: Float[np.ndarray, "prompt neuron"]
    neuron_activations: Float[np.ndarray, "prompt neuron"]
    neuron_rest: Float[np.ndarray, "prompt layer"]
    mlp_bias: Float[np.ndarray, "prompt layer"]
    sources: Float[np.ndarray, "prompt split position"]
    sums: Float[np.ndarray, "prompt token"]
    logits: Float[np.ndarray, "prompt token"]
    model_logits: Float[np.ndarray, "prompt token"]
    probabilities: Float[np.ndarray, "prompt token"]
    softcap: float | None = None
    post_norms: bool = False
    parallel: bool = False
    warnings: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    def __post_init__(self) -> None:
        """Arrays fit each other, the prompts and the inputs."""
        shapes = self._shapes()
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")
        if len(self.top) != self.n_prompts:
            raise ValueError(f"{len(self.top)} top tokens for {self.n_prompts} prompts")
        if self.heads.shape[:2] != self.attention.shape or self.heads.ndim != 3:
            raise ValueError(f"heads has shape {self.heads.shape}, attention {self.attention.shape}")

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        prompts, layers, listed = self.n_prompts, self.n_layers, len(self.neuron_ids)
        tokens = 1 if self.distractor is None else 2
        longest = max(len(tokens) for tokens in self.tokens)
        by_layer = ("attention", "mlp", "attention_bias", "neuron_rest", "mlp_bias")
        return {
            "embedding": (prompts, len(self.embedding_names)),
            **dict.fromkeys(by_layer, (prompts, layers)),
            "bias": (prompts,),
            "neuron_layers": (listed,),
            "neuron_values": (prompts, listed),
            "neuron_activations": (prompts, listed),
            "sources": (prompts, len(self.inputs.split_heads), longest),
            **dict.fromkeys(("sums", "logits", "model_logits", "probabilities"), (prompts, tokens)),
        }

    # --- what is there ---

    @property
    def n_prompts(self) -> int:
        """1, or 2 with a control prompt."""
        return len(self.tokens)

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return self.attention.shape[-1]

    @property
    def n_heads(self) -> int:
        """Heads per layer; 0 where heads cannot be told apart."""
        return self.heads.shape[-1]

    @property
    def has_neurons(self) -> bool:
        """Whether the MLPs' contributions are split over neurons."""
        return bool(len(self.neuron_ids))

    @property
    def parts(self) -> tuple[Part, ...]:
        """The terms of the sum in forward order: embedding, attention and MLP of every layer, biases."""
        layers = [
            part
            for layer in range(self.n_layers)
            for part in (
                Part(f"L{layer} attention", "attention", layer), Part(f"L{layer} MLP", "mlp", layer)
            )
        ]  # fmt: skip
        embedding = [Part(name, "embedding") for name in self.embedding_names]
        return (*embedding, *layers, Part("biases", "bias"))

    # --- numbers ---

    @property
    def values(self) -> Float[np.ndarray, "prompt part"]:
        """What every one of `parts` contributes."""
        layers = np.stack([self.attention, self.mlp], axis=-1).reshape(self.n_prompts, -1)
        return np.concatenate([self.embedding, layers, self.bias[:, None]], axis=-1)

    @property
    def cumulative(self) -> Float[np.ndarray, "prompt part"]:
        """The sum of the parts up to and including each one; the last is the logit (difference)."""
        return self.values.cumsum(axis=-1)

    @property
    def total(self) -> Float[np.ndarray, "prompt"]:
        """logit(target) - logit(distractor) before the softcap, from the whole residual."""
        return self.logits[:, 0] - (self.logits[:, 1] if self.distractor is not None else 0)

    def contrast(self, values: np.ndarray) -> np.ndarray:
        """Prompt minus control, for any array whose first axis is the prompt.

        Raises:
            InputError: there is no control prompt.
        """
        if self.n_prompts < 2:
            raise InputError("There is no control prompt to compare with", fix="Type a second prompt")
        return values[0] - values[1]

    def sources_of(self, layer: int, head: int, prompt: int = 0) -> Float[np.ndarray, "position"]:
        """What a head contributes by source token.

        Raises:
            InputError: it was not split.
        """
        places = [parse_head(name) for name in self.inputs.split_heads]
        if (layer, head) not in places:
            raise InputError(f"{head_name(layer, head)} was not split over source tokens")
        return self.sources[prompt, places.index((layer, head)), : len(self.tokens[prompt])]

    def top_neurons(self, count: int) -> tuple[int, ...]:
        """Indices of the listed neurons with the largest contributions in either prompt, largest first."""
        size = np.abs(self.neuron_values).max(axis=0, initial=0)
        return tuple(int(index) for index in np.argsort(-size, kind="stable")[:count])

    def neuron_name(self, index: int) -> str:
        """Name of a listed neuron, such as "L3N102"."""
        return neuron_name(int(self.neuron_layers[index]), int(self.neuron_ids[index]))

    def to_frame(self) -> "pd.DataFrame":
        """Tidy table, one row per number.

        Columns: prompt ("prompt", "control"), level ("part", "head", "neuron", "source", "logit"), name,
        layer, head, neuron, position, token, value, unit.
        """
        from mi_core.analyses.attribution_record import to_frame  # that module imports this one

        return to_frame(self)

    def to_json(self) -> str:
        """JSON text: schema "lantern/attribution", version, every field; no NaN."""
        from mi_core.analyses.attribution_record import to_json

        return to_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> "AttributionResult":
        """The inverse of `to_json`; numbers come back exactly.

        Raises:
            InputError: not such a record, or damaged.
        """
        from mi_core.analyses.attribution_record import from_json

        return from_json(text)
