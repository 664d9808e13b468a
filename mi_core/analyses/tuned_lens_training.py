"""Train a tuned lens for the loaded model on a given text, or measure one that is there.

    minimise over W_l, b_l:   KL_l = mean over tokens of KL(model || unembed(h_l + h_l W_l^T + b_l))

for all layers at once (they are independent problems that share their batches), starting from zero, which is
the plain lens. Gradients flow through the model's own final norm, unembedding and softcaps, whose weights
stay as they are. SGD with Nesterov momentum or Adam, a rate that falls in a line to zero, gradients of each
layer clipped to norm 1 (Belrose et al., arXiv 2303.08112, section 3; their program clips all layers
together). Every tenth of the steps a held-out text is read and each layer keeps its best translator so far,
zero included; training ends early when no layer has gained a thousandth three times in a row.

Quality: KL of the plain and the tuned lens on text that was neither learnt from nor used to stop, with 95 %
bootstrap bands over contexts. A layer that is worse than the plain lens there is named in a warning.

Cost: one forward pass per batch, and per layer about 6 * tokens * d_model * d_vocab floating-point operations
(`tuned_lens_cost`).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.tuned_lens import TunedLens, affine
from mi_core.analyses.tuned_lens_inputs import TunedLensTrainInputs
from mi_core.analyses.tuned_lens_measure import kl_of, measure, pieces, states_of, target
from mi_core.analyses.tuned_lens_quality import finished_result, quality_of
from mi_core.analyses.tuned_lens_result import TunedLensTrainResult
from mi_core.analyses.tuned_lens_store import open_lens
from mi_core.analyses.tuned_lens_text import Batches, Split, count_tokens, split_text
from mi_core.errors import Cancelled
from mi_core.model.model import LoadedModel

OnTrainStep = Callable[[Step[TunedLensTrainResult]], None]

MOMENTUM = 0.9
CLIP = 1.0
CHECKS = 10
PATIENCE = 3
PROGRESS = 1e-3  # a smaller gain than this share keeps the translator but not the training
WARM_UP_SHARE, MAX_WARM_UP = 5, 1000
SECONDS_BETWEEN_STEPS = 0.1


def tuned_lens_train(
    model: LoadedModel, inputs: TunedLensTrainInputs, *, on_step: OnTrainStep | None = None
) -> TunedLensTrainResult:
    """Train a tuned lens; the module docstring has the formula.

    Args:
        model: a loaded model.
        inputs: text and settings.
        on_step: told of progress; may raise `Cancelled` to stop.

    Returns:
        The lens and its quality; after `Cancelled` the best until then (`result.cancelled`).

    Raises:
        InputError: too little text, or a lens to start from that does not fit.
        SiteMissing: the model's tail cannot be used.
        Cancelled: stopped before the plain lens was measured, so that there is nothing to keep.
        OutOfMemory: the device is too small for one context.
    """
    training = _Training.begin(model, inputs, on_step)
    cancelled = training.run()
    return training.result(cancelled=cancelled)


@dataclass(slots=True)
class _Training:
    """A training under way."""

    model: LoadedModel
    inputs: TunedLensTrainInputs
    on_step: OnTrainStep | None
    split: Split
    start: TunedLens
    weight: Tensor
    bias: Tensor
    batches: Batches
    started: float = field(default_factory=time.perf_counter)
    told: float = 0.0
    done: int = 0
    seen: int = 0
    loss: list[np.ndarray] = field(default_factory=list)
    checked: list[int] = field(default_factory=list)
    stopping: list[np.ndarray] = field(default_factory=list)
    best_weight: np.ndarray | None = None
    best_bias: np.ndarray | None = None
    best_step: np.ndarray | None = None
    plain_sums: np.ndarray | None = None
    early: bool = False
    stopped: bool = False

    @classmethod
    def begin(
        cls, model: LoadedModel, inputs: TunedLensTrainInputs, on_step: OnTrainStep | None
    ) -> "_Training":
        dims = model.dims
        kind = "float64" if model.dtype == torch.float64 else "float32"
        start = (
            open_lens(model, inputs.start)
            if inputs.start
            else TunedLens.plain(dims.n_layers, dims.d_model, kind)
        )
        split = split_text(model, inputs)
        batches = Batches(split.training, inputs.batch_tokens, np.random.default_rng([inputs.seed, 1]))
        weight, bias = (
            torch.from_numpy(part.astype(kind)).to(model.device).requires_grad_()
            for part in (start.weight, start.bias)
        )
        return cls(model, inputs, on_step, split, start, weight, bias, batches)

    def run(self) -> bool:
        """Measure the plain lens, then train until the end; True when the user stopped it."""
        with torch.inference_mode(False), torch.enable_grad():
            self._tell("reading the held-out text")
            # `Cancelled` passes on from here: there is nothing to keep yet.
            self.plain_sums = measure(self.model, None, None, self.split.validation, *self._reading())
            self._check()
            try:
                self._steps()
            except Cancelled:
                self.stopped = True  # from here on nobody is asked any more
                if self.done > self.checked[-1]:
                    self._check()
        return self.stopped

    def _steps(self) -> None:
        optimizer, schedule = _optimizer(self.inputs, self.weight, self.bias)
        every = max(1, -(-self.inputs.steps // CHECKS))
        idle = 0
        while self.done < self.inputs.steps and not self.early:
            self._gradient(optimizer)
            optimizer.step()
            schedule.step()
            self.done += 1
            self._tell("training", force=False)
            if self.done % every == 0 or self.done == self.inputs.steps:
                idle = 0 if self._check() else idle + 1
                self.early = idle >= PATIENCE

    def _gradient(self, optimizer: torch.optim.Optimizer) -> None:
        """Gradients of the mean KL over one batch, layer by layer, piece by piece."""
        optimizer.zero_grad(set_to_none=True)
        states = states_of(self.model, self.batches.next())
        loss = np.zeros(self.model.dims.n_layers)
        for piece in pieces(self.model, states.n_tokens):
            expected = target(self.model, states, piece)
            for layer, entering in enumerate(states.entering):
                hidden = affine(entering[piece], self.weight[layer], self.bias[layer])
                total = kl_of(self.model, hidden, expected).sum() / states.n_tokens
                total.backward()
                loss[layer] += total.item()
                self._tick()
        _clip(self.weight, self.bias)
        self.loss.append(loss)
        self.seen += states.n_tokens

    def _check(self) -> bool:
        """Read the stopping text and keep each layer's best translator; True while any makes progress."""
        sums = measure(
            self.model, self.weight.detach(), self.bias.detach(), self.split.stopping, *self._reading()
        )
        kl = sums.sum(0) / count_tokens(self.split.stopping)
        best = np.min(self.stopping, axis=0) if self.stopping else np.full(len(kl), np.inf)
        better = kl < best
        weight, bias = (part.detach().cpu().numpy() for part in (self.weight, self.bias))
        if self.best_weight is None or self.best_bias is None or self.best_step is None:
            self.best_weight, self.best_bias = weight.copy(), bias.copy()
            self.best_step = np.zeros(len(kl), np.int64)
        else:
            self.best_weight[better], self.best_bias[better] = weight[better], bias[better]
            self.best_step[better] = self.done
        self.checked.append(self.done)
        self.stopping.append(kl)
        return bool((kl < (1 - PROGRESS) * best).any())

    def _reading(self) -> tuple[int, Callable[[], None]]:
        return self.inputs.batch_tokens, self._tick

    def _tick(self) -> None:
        self._tell("training" if self.done or self.stopping else "reading the held-out text", force=False)

    def _tell(self, text: str, *, force: bool = True) -> None:
        """Tell the caller, not more often than eyes can follow; may raise Cancelled."""
        now = time.perf_counter()
        if self.on_step is None or self.stopped or (not force and now - self.told < SECONDS_BETWEEN_STEPS):
            return
        self.told, total = now, max(1, self.inputs.steps)
        left = (now - self.started) / self.done * (total - self.done) if self.done else None
        self.on_step(Step(self.done, total, left, None, f"{text}{self._how_far()}"))

    def _how_far(self) -> str:
        if not self.stopping or not self.loss:
            return ""
        first, now = self.stopping[0].mean(), self.stopping[-1].mean()
        return f", KL {first:.3g} -> {now:.3g} nats, mean over layers"

    def result(self, *, cancelled: bool) -> TunedLensTrainResult:
        """What was kept, measured on the validation text."""
        best_weight, best_bias, best_step = self.best_weight, self.best_bias, self.best_step
        if best_weight is None or best_bias is None or best_step is None or self.plain_sums is None:
            raise Cancelled
        lens = TunedLens("tuned", best_weight, best_bias)
        weight, bias = (torch.from_numpy(part).to(self.model.device) for part in (best_weight, best_bias))
        # Without a tick: a stopped training still says how good what it kept is.
        tuned = measure(
            self.model, weight, bias, self.split.validation, self.inputs.batch_tokens, lambda: None
        )
        quality = quality_of(self.split.validation, self.plain_sums, tuned, self.inputs.seed)
        return finished_result(
            self.model,
            self.inputs,
            lens=lens,
            quality=quality,
            split=self.split,
            course=(np.array(self.loss).reshape(-1, lens.n_layers), self.checked, np.array(self.stopping)),
            best_step=best_step,
            seen_tokens=self.seen,
            start=self.start,
            early=self.early,
            cancelled=cancelled,
            seconds=time.perf_counter() - self.started,
        )


def _optimizer(
    inputs: TunedLensTrainInputs, weight: Tensor, bias: Tensor
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """The optimizer and its falling rate."""
    warm_up = 0
    if inputs.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            [weight, bias], lr=inputs.rate * (1 - MOMENTUM), momentum=MOMENTUM, nesterov=True,
            weight_decay=inputs.weight_decay,
        )  # fmt: skip
    else:
        warm_up = min(MAX_WARM_UP, inputs.steps // WARM_UP_SHARE)
        optimizer = torch.optim.Adam(
            [weight, bias], lr=inputs.rate, betas=(MOMENTUM, 0.999), amsgrad=True,
            weight_decay=inputs.weight_decay,
        )  # fmt: skip

    def share(step: int) -> float:
        if step < warm_up:
            return (step + 1) / (warm_up + 1)
        return max(0.0, (inputs.steps - step) / max(1, inputs.steps - warm_up))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def _clip(weight: Tensor, bias: Tensor) -> None:
    """Scale each layer's gradient down to norm `CLIP`; layers are problems of their own."""
    if weight.grad is None or bias.grad is None:
        return
    norm = (weight.grad.square().sum((1, 2)) + bias.grad.square().sum(1)).sqrt()
    scale = (CLIP / norm.clamp(min=1e-12)).clamp(max=1.0)
    weight.grad.mul_(scale[:, None, None])
    bias.grad.mul_(scale[:, None])
