"""Direct logit attribution: which parts of the model write the answer's logit?

The last residual is a sum, and with the final norm's scale held at what it is, the logit is linear in it:

    logit(target) - logit(distractor)
        = embedding + sum over layers (attention + MLP) + biases
    contribution of a part p = (gain * centre(p) / scale) . (W_U[target] - W_U[distractor])
    head h:    z_h W_O[h] through the same map; heads + b_O = the attention output's contribution
    neuron n:  activation_n W_out[n] through the same map; neurons + b_out = the MLP output's
    source k:  pattern[h, last, k] v_k W_O[h]; the sum over k is the head's (a value bias is inside v_k)

All of it is about the last position and the logits before the softcap. In sandwich families (Gemma 2, OLMo 2)
the post-norm of every module is frozen in the same way, and its bias counts among the module's biases.
Sources: Elhage et al. 2021 ("A Mathematical Framework for Transformer Circuits"); nostalgebraist 2020.

Cost: one forward pass per prompt (shared with the other pages), and one product of every output matrix with a
vector. Identities are in `attribution_checks`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mi_core.analyses.attribution_checks import attribution_checks
from mi_core.analyses.attribution_inputs import (
    AttributionInputs,
    head_name,
    neuron_name,
    parse_head,
    parse_neuron,
)
from mi_core.analyses.attribution_result import AttributionResult, ReadToken, TopToken
from mi_core.analyses.attribution_view import View, inside, look, make_view, target_minus_distractor
from mi_core.analyses.attribution_warnings import attribution_warnings
from mi_core.analyses.before_after_run import read_tokens
from mi_core.analyses.causal_trace_result import Step
from mi_core.answers import AnswerChoice, choose_answer
from mi_core.engine import post_norm
from mi_core.errors import InputError
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.tokens import TokenizedPrompt, tokenize, visible_token

OnStep = Callable[[Step[AttributionResult]], None]

PARTS = ("embed", "attn_out", "mlp_out", "resid_post")
"""Sites without which nothing can be attributed."""


def attribution(
    model: LoadedModel, inputs: AttributionInputs, *, on_step: OnStep | None = None
) -> AttributionResult:
    """Split the logit of a prompt's answer into what every part of the model contributes.

    Args:
        model: a loaded model.
        inputs: prompt, control prompt, tokens, heads and neurons of interest.
        on_step: told of every layer; may raise `Cancelled`, and then there is no result.

    Raises:
        InputError: the inputs do not fit the model or each other.
        SiteMissing: the model lacks what the sum is made of, with the reason.
        ModelError: its logits are no linear function of the last residual, or weights are not in memory.
        OutOfMemory: the device is too small.
    """
    started = time.perf_counter()
    # Norms are called as functions here: nobody else's hooks may be on them meanwhile.
    with model.lock, torch.inference_mode():
        asked = _ask(model, inputs)
        made = _attribute(model, asked, on_step or (lambda step: None))
        checks = attribution_checks(model.dtype, made)
    return replace(made, checks=checks, seconds=time.perf_counter() - started)


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """The inputs, resolved on the model."""

    inputs: AttributionInputs
    prompts: tuple[TokenizedPrompt, ...]
    target: ReadToken
    distractor: ReadToken | None
    choices: tuple[AnswerChoice | None, AnswerChoice | None]
    views: tuple[View, ...]

    @property
    def tokens(self) -> list[int]:
        return [self.target.id, *([] if self.distractor is None else [self.distractor.id])]


def _ask(model: LoadedModel, inputs: AttributionInputs) -> _Asked:
    """Tokenise, run, and choose the tokens that are read."""
    _check_places(model, inputs)
    texts = [inputs.prompt, *([] if inputs.control_prompt is None else [inputs.control_prompt])]
    prompts = tuple(tokenize(model.tokenizer, text, bos=inputs.bos) for text in texts)
    seen = [look(model, prompt, _sites(model, inputs)) for prompt in prompts]
    answer, other = (
        None if text is None else choose_answer(model.tokenizer, prompts[0], text)
        for text in (inputs.answer, inputs.distractor)
    )
    target, distractor = read_tokens(model, seen[0][1], answer, other)
    ids = [target.id, *([] if distractor is None else [distractor.id])]
    views = [make_view(model, prompt, *one, ids) for prompt, one in zip(prompts, seen, strict=True)]
    return _Asked(inputs, prompts, target, distractor, (answer, other), tuple(views))


def _check_places(model: LoadedModel, inputs: AttributionInputs) -> None:
    """Refuse heads and neurons that the model does not have, before anything runs."""
    dims = model.dims
    for name in PARTS:
        model.structure.require(name, None if name == "embed" else 0)
    for what, names, parse, size in (
        ("head", inputs.split_heads, parse_head, dims.n_heads),
        ("neuron", inputs.neurons, parse_neuron, dims.d_mlp),
    ):
        for layer, index in map(parse, names):
            if layer >= dims.n_layers or index >= size:
                name = head_name(layer, index) if what == "head" else neuron_name(layer, index)
                raise InputError(
                    f"There is no {what} {name}",
                    why=f"the model has layers 0 to {dims.n_layers - 1} with {what}s 0 to {size - 1}",
                )


def _sites(model: LoadedModel, inputs: AttributionInputs) -> list[str]:
    """What the pass has to keep; heads and neurons are left out where the model does not show them.

    Raises:
        SiteMissing: a head is to be split, but attention cannot be read.
    """
    inner = [site for site in ("z", "mlp_post") if site in model.structure.available()]
    split = ["pattern", "v"] if inputs.split_heads else []
    for site in [*split, *(["z"] if split else [])]:
        model.structure.require(site, 0)
    return [*PARTS, *inner, *split]


# --- the sum ---


def _attribute(model: LoadedModel, asked: _Asked, on_step: OnStep) -> AttributionResult:
    """All contributions; the checks are made of them afterwards."""
    views, n_layers = asked.views, model.dims.n_layers
    names = _embedding_names(model, views[0])
    parts = torch.stack([_parts(model, view, len(names)) for view in views])  # prompt part token
    bias = torch.stack([view.map.bias for view in views]).cpu()
    own = torch.stack([view.logits.double().cpu() for view in views])
    values, first = target_minus_distractor(parts).numpy(), len(names)
    split = _Split.empty(model, asked)
    for layer in range(n_layers):
        on_step(Step(layer, n_layers, None, None, "layers"))
        split.add(model, layer)
    top = tuple(_top_token(model, view) for view in views)
    return AttributionResult(
        inputs=asked.inputs,
        provenance=Provenance.of(model, seed=None),
        tokens=tuple(prompt.tokens for prompt in asked.prompts),
        target=asked.target,
        distractor=asked.distractor,
        top=top,
        embedding_names=names,
        embedding=values[:, :first],
        attention=values[:, first::2],
        mlp=values[:, first + 1 :: 2],
        bias=target_minus_distractor(bias).numpy(),
        heads=split.heads,
        attention_bias=split.attention_bias,
        neuron_layers=split.places[0],
        neuron_ids=split.places[1],
        neuron_values=split.values,
        neuron_activations=split.activations,
        neuron_rest=split.rest,
        mlp_bias=split.mlp_bias,
        sources=split.sources,
        sums=(parts.sum(dim=1) + bias).numpy(),
        logits=torch.stack([view.map.logits[0] for view in views]).cpu().numpy(),
        model_logits=own.numpy()[:, asked.tokens],
        probabilities=own.softmax(-1).numpy()[:, asked.tokens],
        softcap=views[0].map.softcap,
        post_norms=post_norm(model, "attn", 0) is not None or post_norm(model, "mlp", 0) is not None,
        parallel=model.structure.parallel,
        warnings=attribution_warnings(model, asked.prompts, asked.target, asked.choices, top),
    )


def _top_token(model: LoadedModel, view: View) -> TopToken:
    probability, token = view.logits.double().softmax(-1).max(-1)
    return TopToken(visible_token(model.tokenizer, int(token)), float(probability))


def _embedding_names(model: LoadedModel, view: View) -> tuple[str, ...]:
    """Token and position apart where the family adds one to the other, in one width."""
    width = model.hf.get_input_embeddings().weight.shape[-1]
    if model.structure.family.rotary or width != len(view.direction):
        return ("embedding",)
    return "token embedding", "position embedding"


def _parts(model: LoadedModel, view: View, n_embedding: int) -> Float[Tensor, "part token"]:
    """What the embedding's parts and every module's output contribute, in forward order, on the CPU."""
    embed = view.values["embed", None].to(view.direction)
    vectors = [embed]
    if n_embedding == 2:
        token = torch.tensor([view.prompt.ids[-1]], device=model.device)
        word = model.hf.get_input_embeddings()(token)[0].to(embed)
        vectors = [word, embed - word]
    for layer in range(model.dims.n_layers):
        vectors += [view.values[site, layer].to(embed) for site in ("attn_out", "mlp_out")]
    return view.map.parts(torch.stack(vectors)[:, None])[:, 0].cpu()


class _Split:
    """Fills in heads, neurons and sources, layer by layer, for all prompts."""

    def __init__(self, asked: _Asked, *, n_layers: int, n_heads: int, neurons: bool) -> None:
        self.asked, self.neurons = asked, neurons
        prompts = len(asked.views)
        self.heads = np.zeros((prompts, n_layers, n_heads))
        self.attention_bias, self.mlp_bias, self.rest = (np.zeros((prompts, n_layers)) for _ in range(3))
        longest = max(len(prompt) for prompt in asked.prompts)
        self.sources = np.full((prompts, len(asked.inputs.split_heads), longest), np.nan)
        self.listed: list[tuple[int, int, list[float], list[float]]] = []

    @classmethod
    def empty(cls, model: LoadedModel, asked: _Asked) -> "_Split":
        """Nothing done yet; no heads or neurons where the model does not show them."""
        offered = model.structure.available()
        dims = model.dims
        heads = dims.n_heads if "z" in offered else 0
        return cls(asked, n_layers=dims.n_layers, n_heads=heads, neurons="mlp_post" in offered)

    def add(self, model: LoadedModel, layer: int) -> None:
        """One layer of all prompts."""
        if self.heads.shape[-1]:
            for row, view in enumerate(self.asked.views):
                self._add_heads(model, row, view, layer)
        if self.neurons:
            self._add_neurons(model, layer)

    def _add_heads(self, model: LoadedModel, row: int, view: View, layer: int) -> None:
        way = inside(model, view, "attn", layer)
        self.heads[row, layer] = (view.values["z", layer].double() * way.reads).sum(-1).tolist()
        self.attention_bias[row, layer] = way.bias
        group = model.dims.n_heads // model.dims.n_kv_heads
        for index, name in enumerate(self.asked.inputs.split_heads):
            at, head = parse_head(name)
            if at == layer:
                value = view.values["v", layer][:, head // group].double() @ way.reads[head]
                weights = view.values["pattern", layer][head].double()
                self.sources[row, index, : len(value)] = (weights * value).tolist()

    def _add_neurons(self, model: LoadedModel, layer: int) -> None:
        """The neurons that are listed are those that matter most in either prompt, and those asked for."""
        ways = [inside(model, view, "mlp", layer) for view in self.asked.views]
        active = np.array([view.values["mlp_post", layer].tolist() for view in self.asked.views])
        values = active * np.array([way.reads.tolist() for way in ways])
        listed = self._choose(layer, np.abs(values).max(axis=0))
        for neuron in listed:
            self.listed.append((layer, neuron, values[:, neuron].tolist(), active[:, neuron].tolist()))
        others = np.ones(values.shape[1], bool)
        others[listed] = False
        self.rest[:, layer] = values[:, others].sum(axis=-1)
        self.mlp_bias[:, layer] = [way.bias for way in ways]

    def _choose(self, layer: int, size: Float[np.ndarray, "neuron"]) -> list[int]:
        top = np.argsort(-size, kind="stable")[: self.asked.inputs.top_neurons].tolist()
        named = [neuron for at, neuron in map(parse_neuron, self.asked.inputs.neurons) if at == layer]
        return sorted({*top, *named}, key=lambda neuron: (-size[neuron], neuron))

    @property
    def places(self) -> Int[np.ndarray, "two neuron"]:
        """Layer and number of every listed neuron."""
        return np.array([(layer, neuron) for layer, neuron, _, _ in self.listed], np.int64).reshape(-1, 2).T

    @property
    def values(self) -> Float[np.ndarray, "prompt neuron"]:
        """Contributions of the listed neurons."""
        return np.array([values for _, _, values, _ in self.listed]).reshape(-1, len(self.asked.views)).T

    @property
    def activations(self) -> Float[np.ndarray, "prompt neuron"]:
        """Activations of the listed neurons."""
        return np.array([active for _, _, _, active in self.listed]).reshape(-1, len(self.asked.views)).T
