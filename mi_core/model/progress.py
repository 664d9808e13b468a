"""Progress of loading a model: four phases, told through one callback that may stop the work."""

from collections.abc import Callable
from typing import Literal, get_args

Phase = Literal["find", "read", "place", "check"]

PHASES: tuple[Phase, ...] = get_args(Phase)
"""In order: config and files are looked up; weights are read; they go to the device; the probe runs."""

OnPhase = Callable[[str, float, str], None]
"""Called as `on_phase(phase, fraction, text)`.

`fraction` (0 to 1) is the share of that phase that is done, `text` a short clause for a person. It is called
in the thread that asked for the model, and may raise `mi_core.errors.Cancelled`.
"""


def silent(phase: str, fraction: float, text: str) -> None:
    """Progress for nobody."""


def format_bytes(count: float) -> str:
    """Bytes for a person, in the decimal units of disks and model cards: `9.1 GB`, `820 MB`, `3 kB`."""
    if count >= 999.5e6:
        return f"{count / 1e9:.1f} GB"
    if count >= 999.5e3:
        return f"{count / 1e6:.0f} MB"
    return f"{count / 1e3:.0f} kB" if count >= 999.5 else f"{count:.0f} B"


def format_count(count: float) -> str:
    """A number of parameters for a person: `6.9 B`, `124 M`, `52 k`."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * size:
            return f"{count / size:.1f} {unit}" if count < 10 * size else f"{count / size:.0f} {unit}"
    return f"{count:.0f}"
