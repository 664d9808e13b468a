"""What the server does before anybody comes: import heavy libraries and load the bundled model."""

from __future__ import annotations

import gc
import importlib
import logging
import sys
import threading

from pages.shared.jobs import SERVER

logger = logging.getLogger(__name__)

_HEAVY = ("pandas", "pyarrow")
_OURS = ("mi_core.charts.causal_trace", "mi_core.exports", "mi_core.analyses.causal_trace_run")


def start_preload() -> None:
    """Start the daemon thread that prepares the server; returns at once."""
    threading.Thread(target=_preload, name="preload", daemon=True).start()


def stop() -> None:
    """Let go of the worker thread; called when the server ends."""
    from pages.shared.session import hub

    hub().close()
    converter = sys.modules.get("mi_core.exports.converter")
    if converter is not None:
        converter.shared_converter().close()


def preload_state() -> str:
    """Where the bundled model stands: absent, queued, loading, ready, away or failed."""
    from pages.shared.session import default_spec, hub

    return hub().state(default_spec()).phase


def _preload() -> None:
    from pages.shared.session import default_spec, hub

    job = hub().load(default_spec(), SERVER)  # first, so that a page that comes now sees it under way
    for name in _HEAVY:
        importlib.import_module(name)
    job.wait(600)
    for name in _OURS:  # not while the worker reads mi_core.engine: see `app.lifespan`
        importlib.import_module(name)
    if job.error is not None:
        logger.warning("The bundled model could not be loaded: %s", job.error)
    gc.collect()
    gc.freeze()  # what is imported never becomes garbage; otherwise every full collection walks all of it
