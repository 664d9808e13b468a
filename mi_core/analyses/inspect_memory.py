"""Memory at this moment: what the model's weights take on each device, what is free, what was the peak."""

import sys
from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor

from mi_core.analyses.inspect_parts import DeviceMemory
from mi_core.model.memory import free_bytes
from mi_core.model.model import LoadedModel

UNKNOWN = 1 << 62
"""What `free_bytes` answers where the system does not tell."""


def device_memory(model: LoadedModel) -> tuple[DeviceMemory, ...]:
    """One row per device that holds weights, one per GPU in use, and one for the CPU in any case."""
    weights = _bytes_by_device(_tensors(model))
    # Asking a GPU that nobody uses would take memory there.
    gpus = [f"cuda:{n}" for n in range(torch.cuda.device_count())] if torch.cuda.is_initialized() else []
    names = sorted({*weights, *gpus, "cpu"}, key=lambda name: (name == "cpu", name))
    return tuple(DeviceMemory(_shown(name), weights[name], _free(name), _peak(name)) for name in names)


def _tensors(model: LoadedModel) -> Iterable[Tensor]:
    """Parameters and buffers; tied ones are one object and come once."""
    yield from model.hf.parameters()
    yield from model.hf.buffers()


def _bytes_by_device(tensors: Iterable[Tensor]) -> Counter[str]:
    found: Counter[str] = Counter()
    for tensor in tensors:
        found[str(tensor.device)] += tensor.numel() * tensor.element_size()
    return found


def _shown(device: str) -> str:
    return "offloaded" if device == "meta" else device


def _free(device: str) -> int | None:
    if device == "meta":
        return None
    free = free_bytes(device)
    return None if free >= UNKNOWN else free


def _peak(device: str) -> int | None:
    """The most that this process has held; of the whole process on the CPU, of torch alone on a GPU."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    if device != "cpu" or sys.platform == "win32":
        return None
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(largest) if sys.platform == "darwin" else int(largest) * 1024  # kibibytes elsewhere
