"""What a reader of the planning experiment has to know before its figures."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from mi_core.transcoders.planning_setup import Setup

FAR = 1.0
"""Ratio of push to state from which the model is told to be far from anything that it was made for."""


def planning_warnings(
    before: Sequence[str], setup: Setup, ratio: Float[np.ndarray, "position"]
) -> tuple[str, ...]:
    """Sentences to be read before the figure.

    Args:
        before: those about tokens, and about what could not be computed.
        setup: the experiment.
        ratio: length of the push over length of the state, per token.
    """
    said = [*before, *setup.transcoder.warnings]
    if setup.inputs.controls and not setup.drawn:
        said.append("There are no random features: a layer has no others than those that were listed.")
    far = int((ratio > FAR).sum())
    if far:
        said.append(
            f"At strength {setup.inputs.strength:g} the push is longer than the state itself at {far} of "
            f"{len(ratio)} tokens (up to {float(ratio.max()):.2g} times): what the model does there says "
            "little about what it does on text."
        )
    return tuple(said)
