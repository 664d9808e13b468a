"""Lantern's library: exact, hooked forward passes through language models, and analyses built on them.

    from mi_core import load_model
    model = load_model("atlas")

What is listed here is public and kept stable. Names are fetched on first use, so `import mi_core` costs
nothing: torch and transformers are read when a model is.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mi_core.version import __version__

if TYPE_CHECKING:
    from mi_core.engine.holder import load_model
    from mi_core.errors import (
        Cancelled,
        EditError,
        InputError,
        LanternError,
        ModelError,
        OutOfMemory,
        SiteMissing,
    )
    from mi_core.model.spec import ModelSpec

__all__ = [
    "Cancelled",
    "EditError",
    "InputError",
    "LanternError",
    "ModelError",
    "ModelSpec",
    "OutOfMemory",
    "SiteMissing",
    "__version__",
    "load_model",
]

_HOMES = {
    "Cancelled": "mi_core.errors",
    "EditError": "mi_core.errors",
    "InputError": "mi_core.errors",
    "LanternError": "mi_core.errors",
    "ModelError": "mi_core.errors",
    "ModelSpec": "mi_core.model.spec",
    "OutOfMemory": "mi_core.errors",
    "SiteMissing": "mi_core.errors",
    "load_model": "mi_core.engine.holder",
}


def __getattr__(name: str) -> Any:
    """Fetch a public name from its home (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
