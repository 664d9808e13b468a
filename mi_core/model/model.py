"""The loaded model that every analysis receives."""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from mi_core.model.structure import Dims, Structure


@dataclass(frozen=True, slots=True)
class ProbeCheck:
    """One proof that was tried on the loaded model.

    Attributes:
        name: what was proved, a short clause.
        passed: whether it held.
        detail: the figure it rests on, or what failed.
        switched_off: sites (or "replay") that are not offered because it failed.
    """

    name: str
    passed: bool
    detail: str
    switched_off: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What the load-time probe found; a page shows it as it is.

    Attributes:
        checks: in the order in which they ran.
        replay: whether sweeps may replay single layers (else whole forwards are used).
        seconds: how long the probe took.
    """

    checks: tuple[ProbeCheck, ...] = ()
    replay: bool = True
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(check.passed for check in self.checks)


@dataclass(eq=False)
class LoadedModel:
    """A Hugging Face causal language model, proved and ready to be hooked.

    Attributes:
        hf: the model, in evaluation mode, parameters frozen.
        tokenizer: its tokenizer (fast), or None for a model that is only run on token ids.
        spec: what was asked for (`mi_core.model.spec.ModelSpec`), or None.
        structure: modules and views of all sites.
        fingerprint: identifies the weights.
        report: result of the probe.
        load_seconds: time from the request to readiness.
        lock: held during every forward pass, so threads never see each other's hooks.
        token_layers_per_second: measured speed of sweeps, for estimates; 0 until the first.
        observations: prompts seen lately (`mi_core.engine.observe`), by token ids.
        transcoders: those opened for this model (`mi_core.transcoders.store`), by name.
    """

    hf: Any
    tokenizer: Any
    spec: Any
    structure: Structure
    fingerprint: str = ""
    report: ProbeReport = field(default_factory=ProbeReport)
    load_seconds: float = 0.0
    lock: threading.RLock = field(default_factory=threading.RLock)
    token_layers_per_second: float = 0.0
    observations: OrderedDict[tuple[int, ...], Any] = field(default_factory=OrderedDict)
    transcoders: OrderedDict[str, Any] = field(default_factory=OrderedDict)

    @property
    def dims(self) -> Dims:
        """Sizes of the model."""
        return self.structure.dims

    @property
    def dtype(self) -> torch.dtype:
        """Type of the activations."""
        return next(self.hf.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where token ids go (the embedding's device; cpu when that is offloaded)."""
        device = self.hf.get_input_embeddings().weight.device
        if device.type != "meta":
            return device
        hook = getattr(self.hf.get_input_embeddings(), "_hf_hook", None)
        return torch.device(getattr(hook, "execution_device", None) or "cpu")

    @property
    def eager(self) -> bool:
        """Whether attention always takes the plain kernel (spec.attention == "eager")."""
        return getattr(self.spec, "attention", "fast") == "eager"

    def modules_with_hooks(self) -> int:
        """Number of hooks on all modules; a test asserts that it never grows."""
        names = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
        return sum(len(getattr(module, name)) for module in self.hf.modules() for name in names)


def evaluation_mode(hf: nn.Module) -> None:
    """Switch dropout off and freeze the parameters: every number is a function of the input alone."""
    hf.eval()
    hf.requires_grad_(False)
