"""What a sweep costs, from shapes alone, and how it is cut into chunks.

Cost of a variant per base row: (n_pos - first) * (n_layers - entry) token-layers, the last layer on the read
positions only. One
token-layer is 2 * (matrix entries of a block) floating-point operations; one read position adds 2 * d_model
* d_vocab.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from mi_core.engine.replay import BaseRun
from mi_core.engine.variants import Base, Placing, Variant, place_variants
from mi_core.errors import InputError
from mi_core.model.measure import values_per_token
from mi_core.model.model import LoadedModel

Method = Literal["auto", "shared", "full"]

CHUNK_BYTES = 768 * 2**20  # activations of one chunk on the CPU; small enough for a laptop
CHUNK_SHARE = 0.4  # share of a GPU's free memory that the activations of one chunk may take
CHUNK_SECONDS = 2.0  # longer chunks would leave figures unfilled; Cancel acts after every layer anyway
MIN_CHUNK_TOKENS = 512  # smaller chunks waste matrix speed
MIN_WORK = 500  # token-layers below which a timing says more about overhead than about speed


@dataclass(frozen=True, slots=True)
class Plan:
    """Cost of a sweep, known before anything runs.

    Attributes:
        variants: variants asked for; `computed` of them need computation, the rest equal the base by
            causality.
        computed: see `variants`.
        rows: base rows; every variant is run on each.
        token_layers: token-layer evaluations that the shared sweep makes (a token through one block).
        token_layers_full: the same for a whole forward pass per variant.
        flops: floating-point operations of the chosen method, matrix products only.
        seconds: estimate from the model's measured speed; NaN when nothing was measured yet.
        method: "shared" or "full".
        reason: why that method.
    """

    variants: int
    computed: int
    rows: int
    token_layers: int
    token_layers_full: int
    flops: float
    seconds: float
    method: Literal["shared", "full"]
    reason: str


def plan(
    model: LoadedModel, base: Base, variants: Sequence[Variant], *, read_positions: Sequence[int] = (-1,)
) -> Plan:
    """Cost of a sweep, from shapes alone; runs nothing.

    Raises:
        SiteMissing, EditError: an edit does not fit the model or the prompt.
    """
    n_rows, n_pos = base.tokens.shape
    read = positions_of(read_positions, n_pos)
    placings, _ = place_variants(variants, model.structure, n_pos, read)
    shared = token_layers(placings, n_rows, n_pos, model.dims.n_layers, min(read))
    full = len(variants) * n_rows * n_pos * model.dims.n_layers
    method, reason = choose_method(model, "auto")
    used = shared + n_rows * n_pos * model.dims.n_layers if method == "shared" else full
    heads = len(placings) * n_rows * (len(read) if method == "shared" else n_pos)
    flops = 2.0 * (used * block_weights(model) + heads * model.dims.d_model * model.dims.d_vocab)
    speed = model.token_layers_per_second
    seconds = used / speed if speed else float("nan")
    return Plan(len(variants), len(placings), n_rows, shared, full, flops, seconds, method, reason)


def token_layers(placings: Sequence[Placing], n_rows: int, n_pos: int, n_layers: int, start: int) -> int:
    """Token-layers of some variants; in the last layer only the read positions (from `start`) count."""
    total = 0
    for placing in placings:
        length, depth = n_pos - placing.first, n_layers - placing.entry
        total += 0 if depth == 0 else length * (depth - 1) + min(length, n_pos - start)
    return total * n_rows


def block_weights(model: LoadedModel) -> int:
    """Matrix entries of one block."""
    return sum(p.numel() for p in model.structure.blocks[0].parameters() if p.dim() == 2)


def choose_method(model: LoadedModel, method: Method) -> tuple[Literal["shared", "full"], str]:
    """The method that a sweep takes, and why."""
    if method != "auto":
        return method, "as asked"
    if model.report.replay:
        return "shared", "layers of this model can be replayed"
    return "full", "layers of this model cannot be replayed: one whole forward pass per variant"


def positions_of(positions: Sequence[int], n_pos: int) -> list[int]:
    """Read positions, non-negative and ascending.

    Raises:
        InputError: none, or one outside the prompt.
    """
    if not positions or any(not -n_pos <= p < n_pos for p in positions):
        raise InputError(f"Read positions {tuple(positions)} are not in a prompt of {n_pos} tokens")
    return sorted(p % n_pos for p in positions)


def chunk_bytes(model: LoadedModel) -> int:
    """Memory that the activations of one chunk may take on the model's device."""
    if model.device.type == "cuda":
        free, _total = torch.cuda.mem_get_info(model.device)
        return max(2**26, int(free * CHUNK_SHARE))
    return CHUNK_BYTES


def chunks(model: LoadedModel, base: BaseRun, placings: Sequence[Placing]) -> list[list[Placing]]:
    """Cut the sorted variants into chunks by memory, and by time so that figures fill while they run."""
    bytes_per_token = values_per_token(model.structure) * torch.finfo(model.dtype).bits // 8
    budget = chunk_bytes(model) // bytes_per_token
    if model.token_layers_per_second:
        quick = int(CHUNK_SECONDS * model.token_layers_per_second / model.dims.n_layers * 2)
        budget = min(budget, max(MIN_CHUNK_TOKENS, quick))
    parts: list[list[Placing]] = []
    size = budget + 1
    for placing in placings:
        tokens = base.n_rows * (base.n_pos - placing.first)
        if size + tokens > budget:
            parts.append([])
            size = 0
        parts[-1].append(placing)
        size += tokens
    return parts


def remember_speed(model: LoadedModel, work: int, seconds: float) -> None:
    """Keep a running estimate of token-layers per second, for `plan` and `chunks`."""
    if work >= MIN_WORK and seconds > 0:
        speed, old = work / seconds, model.token_layers_per_second
        model.token_layers_per_second = speed if not old else 0.5 * old + 0.5 * speed
