"""The identities that are tried on a planning experiment."""

import numpy as np
from jaxtyping import Float

from mi_core.analyses.causal_trace_checks import TOLERANCE
from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_reading import to_numpy
from mi_core.engine import run
from mi_core.transcoders.planning_result import METRICS
from mi_core.transcoders.planning_setup import Setup


def planning_checks(
    setup: Setup, values: Float[np.ndarray, "metric dose position"] | None, direct: float
) -> tuple[Check, ...]:
    """Try them.

    Args:
        setup: the experiment.
        values: what the sweep gave; None = it was stopped.
        direct: relative difference of the direct way at strength 0 from the baseline's logit.
    """
    near, nothing, turned = TOLERANCE[setup.model.dtype], _nothing(setup), _turned(setup)
    checks = [
        Check("a strength of 0 is the baseline, bit for bit", nothing == 0.0, f"difference {nothing:.1e}"),
        Check("the direct way of no push gives the baseline's logit", direct <= near,
              f"relative difference {direct:.1e}"),
    ]  # fmt: skip
    if values is not None:
        whole = _whole_pass(setup, values)
        name = "the push at the last token tried equals a whole forward pass"
        checks.append(Check(name, whole <= near, f"largest relative difference {whole:.1e}"))
    if turned is not None:
        name = "turned edits keep all lengths and angles between layers"
        checks.append(Check(name, turned < 1e-9, f"largest relative difference {turned:.1e}"))
    return tuple(checks)


def _nothing(setup: Setup) -> float:
    """Largest difference between two whole passes: without edits, and with a strength of 0."""
    ids = setup.question.ids
    plain = run(setup.model, ids, last=1).logits
    none = run(setup.model, ids, edits=setup.push.edits((setup.positions[-1],), 0.0), last=1).logits
    return float((none - plain).abs().max())


def _whole_pass(setup: Setup, values: Float[np.ndarray, "metric dose position"]) -> float:
    """Relative difference of the sweep's last token, chosen strength, from an ordinary forward pass."""
    at = setup.positions[-1]
    logits = run(
        setup.model, setup.question.ids, edits=setup.push.edits((at,), setup.inputs.strength), last=1
    ).logits
    numbers = to_numpy(setup.effects.reader(logits[None]))
    kept = [METRICS.index(metric) for metric in ("probability", "log_probability", "logit", "kl")]
    again = np.array([float(numbers[METRICS[i]][0, 0]) for i in kept])
    swept = values[kept, setup.inputs.doses.index(float(setup.inputs.strength)), -1]
    return float((np.abs(swept - again) / np.maximum(1.0, np.abs(again))).max())


def _turned(setup: Setup) -> float | None:
    """How far the turned edits are from the edit in lengths and inner products; None = there are none."""
    turned = setup.pushes[len(setup.drawn) :]
    if not turned:
        return None
    own = setup.push.vectors @ setup.push.vectors.T
    return max(float(np.abs(one.vectors @ one.vectors.T - own).max() / np.abs(own).max()) for one in turned)
