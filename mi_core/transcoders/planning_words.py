"""What a reader of the planning experiment has to know: its warnings, and the identities that were tried."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from mi_core.analyses.causal_trace_parts import Check
from mi_core.transcoders.planning_inputs import PlanningInputs
from mi_core.transcoders.transcoder import Transcoder

FAR = 1.0
"""Ratio of push to state from which the model is told to be far from anything that it was made for."""


def planning_warnings(
    about_words: Sequence[str],
    transcoder: Transcoder,
    inputs: PlanningInputs,
    ratio: Float[np.ndarray, "position"],
) -> tuple[str, ...]:
    """Sentences to be read before the figure.

    Args:
        about_words: those about the tokens that are read.
        transcoder: which one.
        inputs: what was asked for.
        ratio: length of the push over length of the state, per token.
    """
    said = [*about_words, *transcoder.warnings]
    far = int((ratio > FAR).sum())
    if far:
        said.append(
            f"At strength {inputs.strength:g} the push is longer than the state itself at {far} of "
            f"{len(ratio)} tokens (up to {float(ratio.max()):.2g} times): what the model does there says "
            "little about what it does on text."
        )
    return tuple(said)


def planning_checks(
    *, whole: float | None, nothing: float, direct: float, turned: float | None, near: float
) -> tuple[Check, ...]:
    """The identities that were tried.

    Args:
        whole: relative difference of one run of the sweep from an ordinary pass; None = stopped before.
        nothing: difference of two whole passes, one with a strength of 0.
        direct: relative difference of the direct way at strength 0 from the baseline's logit.
        turned: largest relative difference in lengths and angles of the turned edits; None = there are none.
        near: what rounding explains.
    """
    checks = [
        Check("a strength of 0 is the baseline, bit for bit", nothing == 0.0, f"difference {nothing:.1e}"),
        Check("the direct way of no push gives the baseline's logit", direct <= near,
              f"relative difference {direct:.1e}"),
    ]  # fmt: skip
    if whole is not None:
        name = "the push at the last token tried equals a whole forward pass"
        checks.append(Check(name, whole <= near, f"largest relative difference {whole:.1e}"))
    if turned is not None:
        name = "turned edits keep all lengths and angles between layers"
        checks.append(Check(name, turned < 1e-9, f"largest relative difference {turned:.1e}"))
    return tuple(checks)
