"""Steering by features: what features that are set, scaled or ablated were before, token by token."""

from typing import Any

import numpy as np

from mi_core.charts.lines import Line, lines
from mi_core.charts.text import number, token_label
from mi_core.transcoders.feature_edits import parse_feature_edits
from mi_core.transcoders.feature_generation_result import FeatureGenerationResult

Spec = dict[str, Any]

FOUND = "activation before the edit"


def held_name(text: str) -> str:
    """An edit that depends on the activation, in words: "L5F102 set to 3"."""
    edit = parse_feature_edits(text)[0]
    if edit.mode == "ablate":
        return f"{edit.feature.text} ablated"
    return f"{edit.feature.text} {'set to' if edit.mode == 'set' else 'times'} {edit.value or 0:g}"


def found_lines(result: FeatureGenerationResult, row: int) -> Spec:
    """A line per held edit over the tokens of prompt and steered text; a gap where it does not act.

    Args:
        result: the numbers.
        row: which seed.

    Returns:
        Specification without looks; clicks select `cell` with the fields series and x.
    """
    labels = _labels(result, row)
    drawn = [
        Line(held_name(text), [float(x) for x in range(len(labels))], values[: len(labels)].tolist())
        for text, values in zip(result.held, result.found[row], strict=True)
    ]
    return lines(drawn, x_title="token, the prompt first", y_title=FOUND, unit="activation", x_labels=labels)


def describe_found(result: FeatureGenerationResult, row: int) -> str:
    """The text alternative of `found_lines`."""
    said = []
    for text, values in zip(result.held, result.found[row], strict=True):
        there = values[~np.isnan(values)]
        most = f", at most {number(float(there.max()))}" if len(there) else ""
        said.append(f"{held_name(text)}: active before at {int((there > 0).sum())} of {len(there)}{most}")
    return f"Lines of activations before the edit, over the tokens: {'; '.join(said)}."


def _labels(result: FeatureGenerationResult, row: int) -> list[str]:
    """Texts of the tokens that were read: the last one chosen was not."""
    texts = result.texts
    written = [texts.visible(token) for token in texts.edited_ids[row].tolist() if token >= 0][:-1]
    shown = [*(token.visible for token in texts.tokens), *written]
    return [token_label(place, text) for place, text in enumerate(shown)]
