"""What speaks for and against every class of head, measured on a task; per prompt, for all heads.

    direct              (z W_O) . (d logit(answer) - d logit(wrong)) at the last token, norm frozen  [logits]
    attention to IO ..  pattern[last token, role]; S2 to S1: pattern[S2, S1]                   [share, 0 to 1]
    copying             share of the task's names x for which x is among the five highest logits of
                        unembed(resid_post[0] at x, times OV of the head); `copying_negative`: of minus that
    ablated             logit difference with the head ablated - without                             [logits]
    ablated_later       the same with the name movers ablated in both runs
    into_queries        path-patching effect through the queries of all name movers together         [logits]

Sources: Wang et al. 2022 (arXiv 2211.00593): direct effects and attention of name movers section 3.1, copy
score section 3.1 and appendix, S-inhibition section 3.2, backup name movers section 3.4. The paper knocks out
by means over the ABC prompts (section 2.1): "mean" here, per position of prompts of one form.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mi_core.analyses.circuit_gains import wide
from mi_core.analyses.circuit_weights import layer_circuits, probe_run
from mi_core.analyses.head_classes_inputs import Ablation
from mi_core.analyses.path_patching_names import Head
from mi_core.analyses.path_patching_rows import ROWS_AT_ONCE, Group
from mi_core.engine import Base, Edit, Variant, frozen_norm, post_norm, readout, run, sweep, unembed
from mi_core.engine.place import Place
from mi_core.errors import Cancelled, SiteMissing
from mi_core.model.model import LoadedModel
from mi_core.model.weights import weight

Tick = Callable[[float], None]

MAX_NAMES = 48
"""Most names that the copy score is taken over."""
TOP = 5


def every_head(model: LoadedModel) -> list[Head]:
    """(layer, head) of all heads, in order."""
    return [(layer, head) for layer in range(model.dims.n_layers) for head in range(model.dims.n_heads)]


# --- direct effect ---


def direct_effects(model: LoadedModel, group: Group) -> Float[np.ndarray, "layer head row"]:
    """What every head adds to the logit difference directly (before a softcap)."""
    parts = [
        _direct(model, group, slice(start, start + ROWS_AT_ONCE))
        for start in range(0, len(group), ROWS_AT_ONCE)
    ]
    return np.concatenate(parts, -1)


def _direct(model: LoadedModel, group: Group, rows: slice) -> np.ndarray:
    last = model.dims.n_layers - 1

    def keep(_place: Place, value: Tensor) -> Tensor:
        return value[:, -1].clone()

    seen = run(model, group.tokens[rows], capture=["z", ("resid_post", last)], last=1, reduce=keep)
    answers, wrong = group.answers[rows].tolist(), group.wrong[rows].tolist()
    wanted = sorted({*answers, *wrong})
    directions = readout(model, seen["resid_post", last], wanted).directions
    index = torch.arange(len(answers), device=directions.device)
    towards, away = ([wanted.index(token) for token in tokens] for tokens in (answers, wrong))
    along = directions[index, :, towards] - directions[index, :, away]
    effects = [_through(model, layer, seen["z", layer], along) for layer in range(model.dims.n_layers)]
    return torch.stack(effects).transpose(1, 2).cpu().numpy()


def _through(
    model: LoadedModel, layer: int, z: Float[Tensor, "row head d_head"], along: Float[Tensor, "row d_model"]
) -> Float[Tensor, "row head"]:
    """Contributions of a layer's heads along a direction per row, through a sandwich norm if there is one."""
    output = wide(weight(model.structure, "W_O", layer)).to(along)
    written = z.to(along)
    module = post_norm(model, "attn", layer)
    if module is not None:
        total = torch.einsum("rhn,hnd->rd", written, output) + _output_bias(model, layer).to(along)
        along = frozen_norm(module, total.to(z.device, z.dtype)).before(along.to(z.device)).to(along)
    return torch.einsum("rhn,hnd,rd->rh", written, output, along)


def _output_bias(model: LoadedModel, layer: int) -> Tensor:
    try:
        return wide(weight(model.structure, "b_O", layer))
    except SiteMissing:  # a family without this bias
        return torch.zeros(model.dims.d_model, dtype=torch.float64)


# --- attention ---


def attention_to_roles(
    model: LoadedModel, group: Group, pairs: Sequence[tuple[str, str]]
) -> Float[np.ndarray, "pair layer head row"]:
    """Attention of every head from one role's token to another's; NaN where the group lacks a role.

    Args:
        model: the loaded model.
        group: prompts.
        pairs: (query's role, key's role).
    """
    places = [(group.roles.get(query), group.roles.get(key)) for query, key in pairs]

    def keep(_place: Place, pattern: Tensor) -> Tensor:
        nothing = torch.full(pattern.shape[:2], torch.nan, dtype=torch.float64)
        return torch.stack(
            [
                nothing if query is None or key is None else pattern[:, :, query, key].double().cpu()
                for query, key in places
            ]
        )

    parts = [
        run(model, tokens, capture=["pattern"], last=1, reduce=keep)
        for tokens in group.tokens.split(ROWS_AT_ONCE)
    ]
    layers = [
        torch.cat([part["pattern", layer] for part in parts], 1) for layer in range(model.dims.n_layers)
    ]
    return torch.stack(layers, 1).transpose(2, 3).numpy()


# --- copying ---


def copying(
    model: LoadedModel, groups: Sequence[Group], tick: Tick
) -> Float[np.ndarray, "sign layer head name"]:
    """Whether every head writes the names that it reads (first: as they are, second: turned round), 0 or 1.

    Layer 0 reads what stands before the first block, so it has no such score: NaN.
    """
    tokens, vectors = _names(model, groups)
    dims = model.dims
    found = np.full((2, dims.n_layers, dims.n_heads, len(tokens)), np.nan)
    if not len(tokens):
        return found
    seen = probe_run(model)
    for layer in range(1, dims.n_layers):
        circuits = layer_circuits(model, layer, seen)
        read = vectors.to(circuits.value)
        for head in range(dims.n_heads):
            written = read @ circuits.value[head] @ circuits.output[head]
            size = written.norm(dim=-1, keepdim=True)
            scaled = written / size.clamp_min(1e-300) * read.norm(dim=-1, keepdim=True)
            for sign, factor in enumerate((1.0, -1.0)):
                top = _among_top(unembed(model, (factor * scaled).to(vectors.device)), tokens)
                found[sign, layer, head] = (top & (size[:, 0].to(top.device) > 0)).cpu().numpy()
        tick(layer / dims.n_layers)
    return found


def _among_top(logits: Float[Tensor, "name d_vocab"], tokens: Tensor) -> Bool[Tensor, " name"]:
    """Ties count against a token: a head that writes nothing copies nothing."""
    tokens = tokens.to(logits.device)
    own = logits.gather(1, tokens[:, None])
    return (logits >= own).sum(1) <= TOP


def _names(model: LoadedModel, groups: Sequence[Group]) -> tuple[Tensor, Tensor]:
    """Token ids of the task's names, each once, and their residual streams after the first block."""
    tokens: dict[int, Tensor] = {}
    for group in groups:
        places = [group.roles[role] for role in ("IO", "S1") if role in group.roles]
        rows = group.tokens[:ROWS_AT_ONCE]
        stream = run(model, rows, capture=[("resid_post", 0)], last=1)["resid_post", 0]
        for place in places:
            for row, token in enumerate(rows[:, place].tolist()):
                if len(tokens) < MAX_NAMES:
                    tokens.setdefault(token, stream[row, place].clone())
    if not tokens:
        return torch.zeros(0, dtype=torch.long), torch.zeros(0, model.dims.d_model)
    return torch.tensor(list(tokens)), torch.stack(list(tokens.values()))


# --- ablation ---


def ablated_value(values: Tensor, ablation: Ablation) -> Tensor:
    """What a head's `z` becomes: made of the counterfactual prompts' [row, pos, head, d_head]."""
    if ablation == "zero":
        return torch.zeros_like(values[:1])
    return values.mean(0, keepdim=True) if ablation == "mean" else values


def ablate(layer: int, heads: Sequence[int], value: Float[Tensor, "row pos head d_head"]) -> Edit:
    """Heads of a layer held at `ablated_value`."""
    chosen = tuple(sorted(heads))
    return Edit("z", layer, "set", None, chosen, value=value[:, :, list(chosen)])


def ablation_effects(
    model: LoadedModel,
    group: Group,
    values: Sequence[Tensor],
    tick: Tick,
    *,
    without: Sequence[Head] = (),
) -> Float[np.ndarray, "layer head row"]:
    """Logit difference with each head ablated minus without, `without` being ablated in both.

    Args:
        model: the loaded model.
        group: prompts.
        values: `ablated_value` of every layer.
        tick: told the share that is done; may raise Cancelled.
        without: heads that are gone in both runs; for these themselves the effect is 0.
    """
    gone = tuple(ablate(layer, [head], values[layer]) for layer, head in without)
    heads = every_head(model)
    variants = [Variant((ablate(layer, [head], values[layer]),)) for layer, head in heads]
    found = sweep(model, Base(group.tokens, gone), variants, read=group.read, on_tick=tick)
    if found.cancelled:
        raise Cancelled
    effects = found.values["difference"] - found.base["difference"]
    return effects.reshape(model.dims.n_layers, model.dims.n_heads, len(group))
