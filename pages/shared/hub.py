"""The models of this process: one in memory at a time, owned by one worker thread, known to all browser tabs.

Pages ask the hub for three things: what is known about a model (its tokenizer and sizes outlive the
weights), to load it, and to run something on it. A run that finds another model in memory brings its own
back first, so tabs with different models never mix; they only take turns.
"""

from __future__ import annotations

import gc
import logging
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mi_core.errors import LanternError
from pages.shared.cache import ResultCache
from pages.shared.job import Job
from pages.shared.jobs import Worker

if TYPE_CHECKING:
    from mi_core.engine.holder import ModelHolder
    from mi_core.model.model import LoadedModel
    from mi_core.model.spec import ModelSpec

logger = logging.getLogger(__name__)

_REMEMBERED = 8

_LOAD_SHARE = {"find": (0.0, 0.05), "read": (0.05, 0.75), "place": (0.75, 0.9), "check": (0.9, 1.0)}
PHASES = {"find": "finding", "read": "reading", "place": "placing on the device", "check": "checking"}


@dataclass(frozen=True)
class About:
    """What stays known about a model when its weights have left the memory.

    Attributes:
        spec: what was asked for.
        dims: its sizes.
        report: result of the load-time probe.
        fingerprint: identifies the weights.
        tokenizer: for token strips, without waiting for the worker.
        context: the longest prompt that it was made for, in tokens; None = unknown.
        device: where it ran.
        dtype: of its activations.
        parameters: number of parameters.
        bytes: size of the parameters in memory.
        load_seconds: how long loading took.
    """

    spec: ModelSpec
    dims: Any
    report: Any
    fingerprint: str
    tokenizer: Any
    context: int | None
    device: str
    dtype: str
    parameters: int
    bytes: int
    load_seconds: float


@dataclass(frozen=True)
class ModelState:
    """Where a model stands, for the sidebar.

    Attributes:
        phase: "absent", "queued", "loading", "ready" (in memory), "away" (known, another one is in memory)
            or "failed".
        fraction: of loading, 0 to 1.
        text: what is being done.
        ahead: runs before it, when queued.
        error: why it failed.
        about: what is known about it.
    """

    phase: str
    fraction: float = 0.0
    text: str = ""
    ahead: int = 0
    error: BaseException | None = None
    about: About | None = None


class ModelHub:
    """Loads models, runs jobs on them and remembers results."""

    def __init__(self, *, alive: Callable[[str], bool] = lambda waiter: True) -> None:
        """Start the worker thread.

        Args:
            alive: whether a waiter (a browser session) can still be reached.
        """
        self.worker = Worker("model-worker", alive=alive, on_memory_error=free_memory)
        self.results = ResultCache()
        self._lock = threading.Lock()
        self._holder: ModelHolder | None = None
        self._about: OrderedDict[ModelSpec, About] = OrderedDict()
        self._loads: dict[ModelSpec, Job] = {}

    # --- questions, from any thread ---

    def about(self, spec: ModelSpec) -> About | None:
        """What is known about a model that has been loaded at least once."""
        return self._about.get(spec)

    def resident(self, spec: ModelSpec) -> LoadedModel | None:
        """The model, if it is the one in memory."""
        model = None if self._holder is None else self._holder.model
        return model if model is not None and model.spec == spec else None

    def state(self, spec: ModelSpec) -> ModelState:
        """Where the model stands."""
        about, job = self.about(spec), self._loads.get(spec)
        if job is not None and not job.done:
            phase = "loading" if job.state == "running" else "queued"
            return ModelState(
                phase, job.progress.fraction, job.progress.text, self.worker.runs_ahead(job), about=about
            )
        if self.resident(spec) is not None:
            return ModelState("ready", 1.0, about=about)
        if job is not None and job.error is not None:
            return ModelState("failed", error=job.error, about=about)
        return ModelState("away" if about is not None else "absent", about=about)

    # --- work ---

    def load(self, spec: ModelSpec, waiter: str, *, allow_download: bool = False) -> Job:
        """Bring a model into memory (the one that is there leaves first)."""
        key = ("load", spec, allow_download)
        job = self.worker.submit(
            key,
            waiter,
            lambda job: self._ensure(spec, job, allow_download=allow_download),
            f"Load {spec.name}",
        )
        with self._lock:
            self._loads[spec] = job
            while len(self._loads) > 4 * _REMEMBERED:
                self._loads.pop(next(iter(self._loads)))
        return job

    def loads_alone(self, spec: ModelSpec, waiter: str) -> bool:
        """Whether only this session waits for the model, so that cancelling would stop its loading."""
        job = self._loads.get(spec)
        return job is not None and set(job.waiters) == {waiter}

    def cancel_load(self, spec: ModelSpec, waiter: str) -> None:
        """Stop loading, unless somebody else waits for the model too."""
        job = self._loads.get(spec)
        if job is not None:
            self.worker.leave(job, waiter)

    def run(
        self,
        spec: ModelSpec,
        key: Hashable,
        waiter: str,
        function: Callable[[LoadedModel, Job], Any],
        label: str,
    ) -> Job:
        """Run something on a model and keep the result.

        Args:
            spec: the model.
            key: everything else that determines the result.
            waiter: the session that asks.
            function: called on the worker thread with the model and the job (for progress).
            label: what is shown meanwhile.
        """

        def work(job: Job) -> Any:
            model = self._ensure(spec, job)
            result = function(model, job)
            if not getattr(result, "cancelled", False):
                self.results.put((spec, key), result)
            return result

        return self.worker.submit((spec, key), waiter, work, label)

    def result(self, spec: ModelSpec, key: Hashable) -> Any | None:
        """A finished result that is still in memory."""
        return self.results.get((spec, key))

    def close(self) -> None:
        """Stop the worker; the process is about to end."""
        self.worker.close()

    # --- on the worker thread ---

    def _ensure(self, spec: ModelSpec, job: Job, *, allow_download: bool = False) -> LoadedModel:
        model = self.resident(spec)
        if model is not None:
            return model
        job.report(0.0, f"loading {spec.name}")
        model = self._held().get(spec, _reporter(job), allow_download=allow_download)
        job.report(1.0, "measuring its speed")
        warm_up(model)
        self._remember(spec, model)
        return model

    def _held(self) -> ModelHolder:
        """The holder; made on the worker thread, because its module imports torch."""
        from mi_core.engine.holder import ModelHolder

        if self._holder is None:
            self._holder = ModelHolder()
        return self._holder

    def _remember(self, spec: ModelSpec, model: LoadedModel) -> None:
        parameters = list(model.hf.parameters())
        about = About(
            spec=spec,
            dims=model.dims,
            report=model.report,
            fingerprint=model.fingerprint,
            tokenizer=model.tokenizer,
            context=getattr(model.hf.config, "max_position_embeddings", None),
            device=str(model.device),
            dtype=str(model.dtype).removeprefix("torch."),
            parameters=sum(p.numel() for p in parameters),
            bytes=sum(p.numel() * p.element_size() for p in parameters),
            load_seconds=model.load_seconds,
        )
        with self._lock:
            self._about[spec] = about
            self._about.move_to_end(spec)
            while len(self._about) > _REMEMBERED:
                self._about.popitem(last=False)


def _reporter(job: Job) -> Callable[[str, float, str], None]:
    def on_phase(phase: str, fraction: float, text: str) -> None:
        start, end = _LOAD_SHARE.get(phase, (0.0, 1.0))
        shown = PHASES.get(phase, phase) + (f": {text}" if text else "")
        job.report(start + (end - start) * fraction, shown)

    return on_phase


def warm_up(model: LoadedModel) -> None:
    """A short sweep: the first real one is then as fast as the others, and its cost can be told."""
    import torch

    from mi_core.engine import Base, Edit, Variant, sweep

    positions = 6
    base = Base(torch.zeros((4, positions), dtype=torch.long))
    variants = [
        Variant((Edit("resid_post", layer=layer, operation="scale", positions=(position,), value=1.0),))
        for layer in range(model.dims.n_layers)
        for position in range(1, positions)
    ]
    for _ in range(2):  # the first time pays for memory and threads
        sweep(model, base, variants, read=lambda logits: {"logit": logits[..., 0]})


def free_memory() -> None:
    """Collect garbage and give cached accelerator memory back (without importing torch for it)."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def explain(error: BaseException) -> str:
    """One sentence for an error of a job: our own errors speak for themselves, others are named."""
    if isinstance(error, LanternError):
        return str(error)
    return f"This run failed with {type(error).__name__}. The log of the server says more."
