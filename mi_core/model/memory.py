"""How much memory a model will take, told from its files alone, and how much there is.

weights = parameters x bytes per number; a run adds, per token and row, what is alive while one block runs,
plus keys and values of all layers and the logits. Estimates are upper ones for one forward pass; sweeps
choose their chunks by what is then free.
"""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mi_core.errors import ModelError
from mi_core.model.progress import format_bytes
from mi_core.model.spec import BYTES_PER_NUMBER, DType, ModelSpec

SPARE = 1.05
"""Factor on the weights for buffers, the allocator and tensors that are being converted."""

DEFAULT_POSITIONS = 128

# Config fields by the names that families give them.
_D_MODEL = ("hidden_size", "n_embd", "d_model")
_N_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_N_HEADS = ("num_attention_heads", "n_head", "n_heads")
_D_MLP = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
_POSITIONS = ("max_position_embeddings", "n_positions")
# Two matrices per MLP instead of three.
_UNGATED = frozenset(
    {"gpt2", "gpt_neox", "opt", "phi", "starcoder2", "gptj", "bloom", "falcon", "gpt_neo", "codegen"}
)
# Tie embedding and unembedding unless their config.json says otherwise.
_TIED = frozenset(
    {"gpt2", "opt", "gemma", "gemma2", "gemma3", "gemma3_text", "starcoder2", "bloom", "gpt_neo", "cohere"}
)
_POSITION_TABLE = frozenset({"gpt2", "opt", "gpt_neo"})


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of a decoder as its config.json states them.

    Attributes:
        d_mlp: width of the MLP; of one expert in a mixture.
        experts: MLPs per layer; 1 for a dense model.
        mlp_matrices: 3 with a gate, else 2.
        head: whether the unembedding is a matrix of its own.
        position_table: rows of a learned position embedding, 0 with rotary.
    """

    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int
    experts: int
    mlp_matrices: int
    head: bool
    position_table: int

    @property
    def parameters(self) -> int:
        """Number of parameters; norms and biases are left out where they are under a percent."""
        attention = 2 * self.d_model * self.d_head * (self.n_heads + self.n_kv_heads)
        mlp = self.experts * self.mlp_matrices * self.d_model * self.d_mlp
        layers = self.n_layers * (attention + mlp + 2 * self.d_model)
        return layers + self.d_model * (self.d_vocab * (2 if self.head else 1) + self.position_table)


def sizes_of(config: Mapping[str, Any]) -> Sizes:
    """Read the sizes of a decoder from the content of its config.json.

    Raises:
        ModelError: kind "unsupported", when the config does not state them.
    """
    text = config.get("text_config")
    config = {**config, **text} if isinstance(text, Mapping) else config
    kind = config.get("model_type", "")
    d_model, n_heads = _number(config, _D_MODEL), _number(config, _N_HEADS)
    experts = _number(config, _EXPERTS, 1)
    d_mlp = _number(config, _D_MLP, 4 * d_model)
    return Sizes(
        n_layers=_number(config, _N_LAYERS),
        n_heads=n_heads,
        n_kv_heads=_number(config, ("num_key_value_heads",), n_heads),
        d_model=d_model,
        d_head=_number(config, ("head_dim",), d_model // n_heads),
        d_mlp=_number(config, ("moe_intermediate_size",), d_mlp) if experts > 1 else d_mlp,
        d_vocab=_number(config, ("vocab_size",)),
        experts=experts,
        mlp_matrices=2 if kind in _UNGATED else 3,
        head=not config.get("tie_word_embeddings", kind in _TIED),
        position_table=_number(config, _POSITIONS, 0) if kind in _POSITION_TABLE else 0,
    )


def _number(config: Mapping[str, Any], names: tuple[str, ...], default: int | None = None) -> int:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    if default is None:
        raise ModelError(
            "The model's size is unknown", kind="unsupported", why=f"its config.json has no {names[0]}"
        )
    return default


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """What a model takes on its device, in bytes.

    Attributes:
        weights: parameters in the number format asked for, with some room.
        activations: one forward pass of the prompt length and rows asked for.
    """

    weights: int
    activations: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.weights + self.activations


def memory_need(
    parameters: int,
    config: Mapping[str, Any],
    dtype: DType = "float32",
    *,
    positions: int = DEFAULT_POSITIONS,
    rows: int = 1,
) -> MemoryNeed:
    """Estimate the memory of a model and of one forward pass through it.

    Args:
        parameters: how many it has (from the weights' header, or `sizes_of(config).parameters`).
        config: content of its config.json.
        dtype: number format of weights and activations.
        positions: tokens per prompt.
        rows: prompts, or variants of one, that run together.
    """
    width = BYTES_PER_NUMBER[dtype]
    return MemoryNeed(
        int(parameters * width * SPARE), activation_numbers(sizes_of(config), positions, rows) * width
    )


def activation_numbers(sizes: Sizes, positions: int, rows: int) -> int:
    """Numbers alive in one forward pass: a block's work, all keys and values, scores and logits."""
    heads = sizes.n_heads + 2 * sizes.n_kv_heads
    per_token = 6 * sizes.d_model + 3 * sizes.d_mlp + 3 * heads * sizes.d_head
    per_token += 2 * sizes.n_layers * sizes.n_kv_heads * sizes.d_head + sizes.d_vocab
    return rows * positions * (per_token + 2 * sizes.n_heads * positions)


def free_bytes(device: str) -> int:
    """Memory that a new model could take on a device now, in bytes.

    For the cpu that is what the system can give without swapping, within the limit of the container if there
    is one.
    """
    kind = device.partition(":")[0]
    if kind == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0]) + _cached_by_torch(device)
    if kind == "mps":
        import torch

        return max(0, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return min(_available_in_system(), _available_in_container())


def _cached_by_torch(device: str) -> int:
    """What torch holds without using it: counted as taken by the driver, free for a new model."""
    import torch

    return torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def _available_in_system(meminfo: Path = Path("/proc/meminfo")) -> int:
    try:
        import psutil
    except ImportError:
        lines = meminfo.read_text().splitlines() if meminfo.exists() else []
        found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        return found[0] if found else 1 << 62  # unknown: the check is left out, not guessed
    return int(psutil.virtual_memory().available)


def _available_in_container(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Limit minus use of the control group (version 2, then 1); page cache that can be dropped is not use."""
    for limit_name, use_name, cache_name in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            limit, use = (root / limit_name).read_text().strip(), int((root / use_name).read_text())
            statistics = ((root / use_name).parent / "memory.stat").read_text().splitlines()
        except (OSError, ValueError):
            continue
        if not limit.isdigit():  # "max": no limit
            return 1 << 62
        dropped = sum(int(line.split()[1]) for line in statistics if line.split()[0] == cache_name)
        return max(0, int(limit) - use + dropped)
    return 1 << 62


def check_fits(
    name: str,
    parameters: int,
    config: Mapping[str, Any],
    spec: ModelSpec,
    device: str,
    *,
    free_on: Callable[[str], int] = free_bytes,
    reclaimable: int = 0,
) -> MemoryNeed:
    """Refuse a model that would not fit, before anything is read.

    Args:
        name: what to call it.
        parameters: how many it has.
        config: content of its config.json.
        spec: how it is to be loaded.
        device: where it goes.
        free_on: tells the free bytes of a device.
        reclaimable: bytes there that are given back before it is loaded (by the model that it replaces).

    Returns:
        What it needs.

    Raises:
        ModelError: kind "too_big": what it needs, what is free, and what would fit.
    """
    need = memory_need(parameters, config, spec.dtype)
    there = reclaimable + (_free_anywhere(free_on) if spec.device_map else free_on(device))
    if need.total <= there:
        return need
    place = "on all devices and the disk" if spec.device_map else f"on {device}"
    raise ModelError(
        f"{name!r} does not fit {place}",
        kind="too_big",
        why=f"in {spec.dtype} it needs ~{format_bytes(need.total)}, {format_bytes(there)} free",
        fix=_what_fits(parameters, config, spec, device, there, free_on),
    )


def _free_anywhere(free_on: Callable[[str], int]) -> int:
    """What accelerate can spread a model over: all GPUs, memory, and the disk for the rest."""
    import torch

    gpus = sum(free_on(f"cuda:{index}") for index in range(torch.cuda.device_count()))
    return gpus + free_on("cpu") + shutil.disk_usage(tempfile.gettempdir()).free


def _what_fits(
    parameters: int,
    config: Mapping[str, Any],
    spec: ModelSpec,
    device: str,
    there: int,
    free_on: Callable[[str], int],
) -> str:
    """The first change that would help."""
    for dtype in ("float32", "bfloat16"):
        need = memory_need(parameters, config, dtype).total
        if BYTES_PER_NUMBER[dtype] < BYTES_PER_NUMBER[spec.dtype] and need <= there:
            return f"Load it in {dtype} (~{format_bytes(need)})"
    smallest = memory_need(parameters, config, "bfloat16").total
    if device != "cpu" and smallest <= free_on("cpu"):
        return f"Load it on cpu, in bfloat16 if need be (~{format_bytes(smallest)})"
    if spec.device_map is None and smallest <= _free_anywhere(free_on):
        return (
            'Spread it over devices, memory and disk with device_map="auto" (slow), or choose a smaller model'
        )
    return "Choose a smaller model"
