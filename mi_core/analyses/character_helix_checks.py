"""What must hold of a helix, and what has to be known before its figures are read."""

import numpy as np

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.character_helix_geometry import Geometry
from mi_core.analyses.character_helix_lines import Piece
from mi_core.analyses.character_helix_plan import count_histogram
from mi_core.analyses.character_helix_result import CharacterHelixResult

NOISE = 2.0
"""Below this many times the control's variance a layer's curve is called noise."""


def helix_checks(
    result: CharacterHelixResult,
    shapes: list[Geometry],
    made: list[Piece],
    done: int,
    counted: tuple[np.ndarray, np.ndarray],
) -> tuple[Check, ...]:
    """What must hold of a helix over `done` of the pieces that were made.

    Args:
        result: without checks.
        shapes: of all layers, of the counts' own means and of the shuffled ones.
        made: all pieces.
        done: how many of them were read.
        counted: tokens per count, by their own counts and by the shuffled ones.
    """
    own, control = counted
    residue = max(one.residue for one in shapes)
    largest = result.inputs.max_count
    same = bool((count_histogram(made[:done], largest) == own).all())
    dealt = bool(done < len(made) or (own == control).all())
    return (
        Check(
            "all components give the means back",
            residue < 1e-9,
            f"Inner products of the centred means agree to {residue:.1e} in all layers.",
        ),
        Check(
            "every token is counted once",
            same and result.counted == int(own.sum()),
            f"{result.counted:,} of {result.tokens:,} tokens have a count up to {largest}.",
        ),
        Check(
            "the control has as many tokens per count",
            dealt,
            "They are equal." if done == len(made) else "After a stop they differ a little.",
        ),
    )


def helix_warnings(
    result: CharacterHelixResult, made: list[Piece], done: int, left_out: int
) -> tuple[str, ...]:
    """What has to be known before the figures are read."""
    warnings, inputs = [], result.inputs
    if result.cancelled:
        warnings.append(f"Stopped after {done:,} of {len(made):,} pieces: the means are over fewer texts.")
    if left_out:
        warnings.append(
            f"The limit of {inputs.max_tokens:,} tokens left the last {left_out:,} stretches of text unread."
        )
    breaks, seen = (sum(getattr(piece, name) for piece in made[:done]) for name in ("breaks", "seen_breaks"))
    if seen < breaks:
        warnings.append(
            f"This tokenizer drops {breaks - seen:,} of {breaks:,} line breaks: the model cannot see where "
            "those lines start."
        )
    missing = inputs.max_count + 1 - len(result.counts)
    if missing:
        warnings.append(
            f"{missing} of the {inputs.max_count + 1} character counts have fewer than {inputs.n_min} tokens "
            "and are left out."
        )
    noise = np.flatnonzero(~(result.above_control >= NOISE))
    if len(noise):
        named = f"In layer{'s' if len(noise) > 1 else ''} {', '.join(map(str, noise))}"
        which = "In all layers" if len(noise) == result.n_layers else named
        warnings.append(
            f"{which} the means vary less than {NOISE:g} times as much as with shuffled counts: that may be "
            "noise, whatever shape it has."
        )
    return tuple(warnings)
