"""What is a model made of? Every weight with its size and its numbers, and all that was proved at load.

    Frobenius norm        ||W|| = sqrt(sum of squares of all entries)
    standard deviation    sqrt(mean of (w - mean)^2), over all n entries
    largest singular value   max over x of ||W x|| / ||x||

No forward pass is run. Weights are read as published: nothing is folded or centred, norms keep their gains.
Matrices of heads are listed whole ([d_model, head * d_head]) and head by head; fused ones are split. Every
parameter is counted once (see `inspect_weights`).

Cost: the weights are read twice (once for the check), in float64, in chunks: about a second per 100 million
parameters on one core. Largest singular values are exact (a singular value decomposition, no power
iteration): about 4 m n^2 operations for an m x n matrix, minutes for a model of some billion parameters; see
`inspect_cost`.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.inspect_architecture import architecture_of
from mi_core.analyses.inspect_config import config_keys
from mi_core.analyses.inspect_embeddings import embedding_norms, norm_histograms
from mi_core.analyses.inspect_inputs import InspectInputs
from mi_core.analyses.inspect_memory import device_memory
from mi_core.analyses.inspect_numbers import (
    Moments,
    decomposition_seconds,
    merged,
    moments_of,
    singular_flops,
    singular_values,
)
from mi_core.analyses.inspect_parts import Proof, SiteInfo, WeightInfo
from mi_core.analyses.inspect_result import STATISTICS, EmbeddingNorms, InspectResult
from mi_core.analyses.inspect_weights import NamedWeight, named_weights
from mi_core.errors import Cancelled
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.sites import SITES
from mi_core.visible import visible_token

OnStep = Callable[[Step[InspectResult]], None]

NUMBERS_PER_SECOND = 2e8

Row = tuple[WeightInfo, tuple[float, ...]]


def reading_seconds(parameters: int) -> float:
    """How long it takes to read so many numbers twice, roughly and from above."""
    return 2 * parameters / NUMBERS_PER_SECOND


def inspect_cost(model: LoadedModel, inputs: InspectInputs) -> float:
    """Seconds that an inspection will take, roughly and from above."""
    if not inputs.statistics:
        return 0.0
    weights = named_weights(model)
    seconds = reading_seconds(sum(weight.info.numbers for weight in weights))
    if inputs.singular_values:
        flops = sum(singular_flops(weight.info.shape) for weight in weights if not weight.info.tied_to)
        if inputs.per_head:
            heads = [weight for weight in weights if weight.by_head]
            flops += sum(len(one.tensor) * singular_flops(tuple(one.tensor.shape[1:])) for one in heads)
        seconds += decomposition_seconds(flops)
    return seconds


def inspect_model(
    model: LoadedModel, inputs: InspectInputs | None = None, *, on_step: OnStep | None = None
) -> InspectResult:
    """Describe a loaded model; the module docstring has the formulas.

    Args:
        model: a loaded model.
        inputs: what to read; default: statistics with heads, no singular values.
        on_step: told of progress, weight by weight; may raise `Cancelled` to stop.

    Returns:
        The description; after `Cancelled`, the numbers of the remaining weights are NaN.
    """
    inputs, started = inputs or InspectInputs(), time.perf_counter()
    weights = named_weights(model)
    rows, cancelled = _read(weights, inputs, on_step)
    norms = embedding_norms(weights) if inputs.statistics and not cancelled else ()
    edges, counts = norm_histograms(norms)
    infos, numbers = [row[0] for row in rows], np.array([row[1] for row in rows], dtype=np.float64)
    columns = numbers.reshape(len(rows), len(STATISTICS))
    parameters = sum(parameter.numel() for parameter in model.hf.parameters())
    config = config_keys(model)
    arrays: dict[str, Any] = {name: columns[:, i].copy() for i, name in enumerate(STATISTICS)}
    return InspectResult(
        inputs=inputs,
        provenance=Provenance.of(model),
        weights=tuple(infos),
        **arrays,
        norm_edges=edges,
        embedding_norms=counts["W_E"],
        unembedding_norms=counts["W_U"],
        embeddings=tuple(one.summary for one in norms),
        vocabulary=_vocabulary(model, [one.summary for one in norms]),
        architecture=architecture_of(model),
        sites=tuple(_sites(model)),
        proofs=tuple(Proof(c.name, c.passed, c.detail, c.switched_off) for c in model.report.checks),
        replay=model.report.replay,
        config=config,
        memory=device_memory(model),
        parameters=parameters,
        load_seconds=model.load_seconds,
        warnings=tuple(_warnings(weights, [key.key for key in config if key.reader == "nobody"])),
        checks=() if cancelled else tuple(_checks(model, infos, columns, parameters, inputs.statistics)),
        seconds=time.perf_counter() - started,
        cancelled=cancelled,
    )


def _read(
    weights: list[NamedWeight], inputs: InspectInputs, on_step: OnStep | None
) -> tuple[list[Row], bool]:
    """The rows of the table, and whether the user stopped before the last one had numbers."""
    rows: list[Row] = []
    cancelled = False
    for done, weight in enumerate(weights):
        try:
            if on_step is not None and not cancelled:
                on_step(Step(done, len(weights), None, None, weight.info.full_name))
        except Cancelled:
            cancelled = True
        known = inputs.statistics and weight.in_memory and not cancelled
        rows += _rows_of(weight, inputs) if known else _rows_without_numbers(weight, inputs)
    return rows, cancelled


def _rows_without_numbers(weight: NamedWeight, inputs: InspectInputs) -> Iterator[Row]:
    nothing = (float("nan"),) * len(STATISTICS)
    yield weight.info, nothing
    if weight.by_head and inputs.per_head:
        for head in range(len(weight.tensor)):
            yield weight.head_info(head), nothing


def _rows_of(weight: NamedWeight, inputs: InspectInputs) -> Iterator[Row]:
    """The whole weight, then its heads."""
    if not weight.by_head:
        yield weight.info, _numbers(moments_of(weight.tensor), weight.tensor, inputs)
        return
    heads = [moments_of(part) for part in weight.tensor]
    yield weight.info, _numbers(reduce(merged, heads), weight.matrix(), inputs)
    if inputs.per_head:
        for head, (moments, part) in enumerate(zip(heads, weight.tensor, strict=True)):
            yield weight.head_info(head), _numbers(moments, part, inputs)


def _numbers(moments: Moments, tensor: torch.Tensor, inputs: InspectInputs) -> tuple[float, ...]:
    """In the order of `STATISTICS`."""
    largest = float("nan")
    if inputs.singular_values and tensor.dim() == 2:
        largest = float(singular_values(tensor)[0])
    return (moments.frobenius, moments.mean, moments.std, moments.minimum, moments.maximum, largest)


def _vocabulary(model: LoadedModel, norms: Sequence[EmbeddingNorms]) -> dict[int, str]:
    """Visible text of the tokens with the smallest and largest norms."""
    if model.tokenizer is None:
        return {}
    ids = {int(i) for one in norms for i in (*one.smallest_ids, *one.largest_ids)}
    return {token_id: visible_token(model.tokenizer, token_id) for token_id in sorted(ids)}


def _sites(model: LoadedModel) -> Iterator[SiteInfo]:
    """Every site of the table, with its shape here or the reason why it cannot be read."""
    structure = model.structure
    n_pos = -1  # marks the axes whose size the prompt decides
    for name, site in SITES.items():
        sizes = tuple(None if size == n_pos else size for size in structure.shape(name, n_pos))
        layers = structure.dims.n_layers if site.per_layer else 1
        missing = structure.missing.get(name, "")
        yield SiteInfo(name, site.full_name, site.axes, sizes, layers, site.meaning, missing)


def _warnings(weights: list[NamedWeight], unread: list[str]) -> Iterator[str]:
    if unread:
        several = len(unread) > 1
        yield (
            f"config.json has {'keys' if several else 'a key'} that nothing here reads: {', '.join(unread)}. "
            f"If {'they change' if several else 'it changes'} how the model computes, what runs here is not "
            "quite the model that was published."
        )
    away = [weight.info.full_name for weight in weights if not weight.in_memory]
    if away:
        yield f"{len(away)} weights are not in memory (offloaded), so their numbers are left out."
    odd = [weight.info.stored_in for weight in weights if weight.info.role == "other" and weight.in_memory]
    if odd:
        shown = ", ".join(odd[:3]) + (" ..." if len(odd) > 3 else "")
        yield f"{len(odd)} parameters have no role that this program knows; they stand under other: {shown}."


def _checks(
    model: LoadedModel, infos: list[WeightInfo], columns: np.ndarray, parameters: int, statistics: bool
) -> Iterator[Check]:
    """Every parameter is counted once; its squares add up to those of its rows, computed another way."""
    whole = [i for i, info in enumerate(infos) if info.head is None and not info.tied_to]
    counted = sum(infos[index].numbers for index in whole)
    yield Check(
        "every parameter is in the table exactly once",
        counted == parameters,
        f"{counted:,} numbers in the table, {parameters:,} in the model",
    )
    if not statistics:
        return
    readable = [p for p in model.hf.parameters() if p.device.type != "meta" and p.numel() > 0]
    squares = sum(_squares(parameter.detach()) for parameter in readable)
    table = float(np.nansum(columns[whole, 0] ** 2))
    off = abs(table - squares) / max(squares, 1e-300)
    yield Check(
        "the squares of all rows add up to those of the model's parameters",
        off < 1e-9,
        f"relative difference {off:.1e}",
    )
    yield from _head_check(infos, columns)


def _squares(parameter: torch.Tensor) -> float:
    """Sum of squares by torch's own norm, which widens as it reads."""
    where = parameter.cpu() if parameter.device.type == "mps" else parameter
    return float(torch.linalg.vector_norm(where, dtype=torch.float64)) ** 2


def _head_check(infos: list[WeightInfo], columns: np.ndarray) -> Iterator[Check]:
    """The largest singular value of a matrix lies between that of its largest head and its Frobenius norm."""
    largest = columns[:, list(STATISTICS).index("largest_singular_value")]
    if not np.isfinite(largest).any():
        return
    known = np.isfinite(largest)
    above = largest[known] <= columns[known, 0] * (1 + 1e-9)
    whole = {(i.layer, i.name): row for row, i in enumerate(infos) if i.head is None}
    heads = [
        (row, whole[i.layer, i.name]) for row, i in enumerate(infos) if i.head is not None and known[row]
    ]
    below = [largest[part] <= largest[of] * (1 + 1e-9) for part, of in heads]
    yield Check(
        "a largest singular value is at most the Frobenius norm, and a head's at most its matrix's",
        bool(above.all()) and all(below),
        f"{int(known.sum())} matrices",
    )
