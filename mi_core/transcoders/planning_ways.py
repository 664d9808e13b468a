"""The ways that a push takes to the logit, how large it is, and what the features are without it."""

import numpy as np
import torch
from jaxtyping import Float

from mi_core.analyses.causal_trace_reading import to_numpy
from mi_core.engine import observe, unembed
from mi_core.errors import ModelError, SiteMissing, TranscoderError
from mi_core.transcoders.encode import TOKENS_AT_ONCE, encode_layer, read_values
from mi_core.transcoders.linear import frozen_pass
from mi_core.transcoders.planning_result import METRICS
from mi_core.transcoders.planning_setup import Setup

ROWS = 16  # tokens whose pushes are held in memory at once


def direct_way(setup: Setup) -> tuple[Float[np.ndarray, "metric dose"], float]:
    """The push at the output position read by the final norm alone; and how far 0 is from the baseline."""
    model = setup.model
    last = model.dims.n_layers - 1
    state = observe(model, setup.question.prompt.ids, ["resid_post"])["resid_post", last][-1]
    wide = state.to(torch.promote_types(state.dtype, torch.float32))
    total = torch.from_numpy(setup.push.total).to(wide)
    doses = torch.tensor([0.0, *setup.inputs.doses]).to(wide)
    logits = unembed(model, wide + doses[:, None] * total)
    numbers = to_numpy(setup.effects.reader(logits[:, None, None].to(setup.effects.reader.clean_log_p)))
    found = np.stack([numbers[metric][:, 0].astype(np.float64) for metric in METRICS])
    index = METRICS.index("logit")
    start = setup.effects.baseline[setup.question.metrics.index("logit")]
    error = abs(float(found[index, 0]) - float(start)) / max(1.0, abs(float(start)))
    return found[:, 1:], error


def frozen_way(setup: Setup) -> tuple[Float[np.ndarray, "position"], tuple[str, ...]]:
    """Change of the answer's logit with everything held, for a strength of 1; or NaN and why not."""
    nothing = np.full(len(setup.positions), np.nan)
    if setup.push.site not in ("mlp_out", "resid_post"):
        return nothing, (f"No effects with everything held: the push is at {setup.push.site}.",)
    ids = setup.question.prompt.ids
    try:
        held = frozen_pass(setup.model, ids)
    except (ModelError, SiteMissing, TranscoderError) as error:
        return nothing, (f"No effects with everything held: {error.what}.",)
    found = []
    for start in range(0, len(setup.positions), ROWS):
        rows = setup.positions[start : start + ROWS]
        deltas = {
            layer: torch.zeros(len(rows), len(ids), vector.shape[0], dtype=torch.float64)
            for layer, vector in zip(setup.push.layers, setup.push.vectors, strict=True)
        }
        for layer, vector in zip(setup.push.layers, setup.push.vectors, strict=True):
            deltas[layer][range(len(rows)), rows] = torch.from_numpy(vector)
        cast = {layer: delta.to(held.embed) for layer, delta in deltas.items()}
        logits = held.logits(held.push(cast).final, [setup.question.answer.id])
        found.append(logits[:, -1, 0].double().cpu().numpy())
    return np.concatenate(found), ()


def push_ratio(setup: Setup) -> Float[np.ndarray, "position"]:
    """Largest over layers of what was added so far over the state there, both lengths."""
    model = setup.model
    seen = observe(model, setup.question.prompt.ids, ["resid_post"])
    sums = setup.push.sums(model.dims.n_layers) * abs(setup.inputs.strength)
    states = torch.stack(
        [seen["resid_post", layer].double().norm(dim=-1).cpu() for layer in range(model.dims.n_layers)]
    ).numpy()
    return (sums[:, None] / np.maximum(states, 1e-30)).max(0)[list(setup.positions)]


def activations(setup: Setup) -> Float[np.ndarray, "feature position"]:
    """Of every listed feature at every tried token, in the baseline."""
    transcoder, columns = setup.transcoder, {}
    read = read_values(setup.model, transcoder, setup.question.prompt.ids)[:, list(setup.positions)]
    for layer in {feature.layer for feature in setup.listed}:
        wanted = [feature for feature in setup.listed if feature.layer == layer]
        parts = []
        for x in read[transcoder.layers.index(layer)].split(TOKENS_AT_ONCE):
            dense = encode_layer(transcoder, layer, x)
            parts.append(dense[:, [feature.index for feature in wanted]].double().cpu())
        columns |= dict(zip(wanted, torch.cat(parts).T.numpy(), strict=True))
    return np.stack([columns[feature] for feature in setup.listed])
