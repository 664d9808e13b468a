"""Loading a model to the end, and holding one at a time for a process that many people share."""

import threading
import time
from collections.abc import Callable
from typing import Any

from mi_core.engine.build import build_model
from mi_core.errors import ModelError
from mi_core.model.loading import let_go, read_model, release_memory
from mi_core.model.model import LoadedModel
from mi_core.model.progress import OnPhase, silent
from mi_core.model.spec import ModelSpec

_POLL_SECONDS = 0.05


def load_model(
    spec: ModelSpec | str, *, on_phase: OnPhase | None = None, allow_download: bool = False
) -> LoadedModel:
    """Load a model and prove it.

    Args:
        spec: what is wanted; a text is a name, or `name@revision`, with the defaults of `ModelSpec`.
        on_phase: called in this thread as `on_phase(phase, fraction, text)` with the phases "find", "read",
            "place" and "check"; may raise Cancelled at any time, and then nothing of the model is left.
        allow_download: whether a hub id that is not on this machine may be fetched.

    Returns:
        The model: evaluation mode, parameters frozen, sites proved by the probe.

    Raises:
        InputError: the name or revision cannot be one.
        ModelError: it cannot be found, read or used; `kind` says how, the sentence what to do.
        OutOfMemory: memory ran out in spite of the estimate.
    """
    wanted = ModelSpec.from_text(spec) if isinstance(spec, str) else spec
    return _load(wanted, on_phase or silent, allow_download)


def _load(
    spec: ModelSpec,
    report: OnPhase,
    allow_download: bool,
    reclaimable: int = 0,
    before_read: Callable[[], None] | None = None,
) -> LoadedModel:
    started = time.perf_counter()
    read = read_model(
        spec, report, allow_download=allow_download, reclaimable=reclaimable, before_read=before_read
    )
    try:
        model = build_model(read.hf, read.tokenizer, spec, fingerprint=read.fingerprint, on_phase=report)
    except BaseException as error:
        del read
        let_go(error)
        raise
    model.load_seconds = time.perf_counter() - started
    return model


class ModelHolder:
    """Holds at most one model in memory, for all threads of a process.

    A model that is asked for while another is held replaces it. The old one is freed when everything but the
    new weights is known to be good, and before they take any memory: a typing error costs nothing, and memory
    never holds two models. Whoever still uses the old one then gets a `ModelError`, never wrong numbers.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._model: LoadedModel | None = None

    @property
    def model(self) -> LoadedModel | None:
        """The model that is held now."""
        return self._model

    def get(
        self, spec: ModelSpec, on_phase: OnPhase | None = None, *, allow_download: bool = False
    ) -> LoadedModel:
        """The model for a spec, loaded if it is not the one that is held.

        Args:
            spec: what is wanted.
            on_phase: see `load_model`; also called while another thread loads.
            allow_download: see `load_model`.

        Raises:
            LanternError: see `load_model`. If it comes from reading the weights, no model is held afterwards.
        """
        report = on_phase or silent
        while not self._lock.acquire(timeout=_POLL_SECONDS):
            report("find", 0.0, "waiting for another model that is being loaded")
        try:
            if self._model is None or self._model.spec != spec:
                self._model = _load(spec, report, allow_download, self._reclaimable(), self.clear)
            return self._model
        finally:
            self._lock.release()

    def _reclaimable(self) -> int:
        return 0 if self._model is None else _bytes_of(self._model.hf)

    def clear(self) -> None:
        """Free the model that is held, after the forward pass that it is in."""
        with self._lock:
            model, self._model = self._model, None
            if model is not None:
                free(model)


def _bytes_of(hf: Any) -> int:
    """Memory of a model's weights, wherever they are."""
    return sum(tensor.numel() * tensor.element_size() for tensor in hf.parameters())


class _Freed:
    """Stands where a model's weights were."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        raise ModelError(
            f"{self._name} is no longer loaded",
            kind="missing",
            why="another model took its place",
            fix="Load it again",
        )


def free(model: LoadedModel) -> None:
    """Give a model's memory back, whoever still holds the object; using it afterwards raises `ModelError`.

    Waits for the forward pass that the model is in.
    """
    with model.lock:
        hf = model.hf
        if isinstance(hf, _Freed):
            return
        model.observations.clear()
        for module in hf.modules():
            module.__dict__.pop("_hf_hook", None)  # accelerate's hooks hold offloaded weights
        for tensor in [*hf.parameters(), *hf.buffers()]:
            if tensor.device.type != "meta":  # on the disk: nothing of it is in memory
                tensor.data = tensor.data.new_empty(0)
        model.hf = _Freed(getattr(model.spec, "text", None) or type(hf).__name__)
        del hf
    release_memory()
