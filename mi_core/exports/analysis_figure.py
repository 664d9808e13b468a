"""A figure of any analysis: the drawing and its words, with what every Result knows about itself.

A Result that follows `docs/add-an-analysis.md` carries its inputs, origin, checks, warnings and JSON, and its
arrays are called in the JSON as they are on the object. So the recipe needs no code of its own per analysis.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from mi_core.exports.figure import CheckLike, Figure
from mi_core.exports.recipe import analysis_recipe
from mi_core.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd


LONGEST_INPUT = 20_000
"""Characters of JSON of one field that a picture carries; sets of texts have more, and stay in data.json."""


class InputsLike(Protocol):
    """What was asked for."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        ...


class ResultLike(Protocol):
    """What every Result has."""

    @property
    def inputs(self) -> InputsLike:
        """What was asked for."""
        ...

    @property
    def provenance(self) -> Provenance | None:
        """Where the numbers come from."""
        ...

    @property
    def checks(self) -> Sequence[CheckLike]:
        """Identities tried on the numbers."""
        ...

    @property
    def warnings(self) -> Sequence[str]:
        """Sentences to read before the figure."""
        ...

    def to_json(self) -> str:
        """The whole result as JSON text."""
        ...


def analysis_figure(
    result: ResultLike,
    *,
    analysis: str,
    title: str,
    spec: Mapping[str, Any],
    view: Mapping[str, Any],
    caption: str,
    how_to_read: str,
    description: str,
    frame: "Callable[[], pd.DataFrame]",
    references: Sequence[str] = (),
    function: str,
    arrays: Sequence[str],
) -> Figure:
    """A figure with everything that its card and its files need.

    Args:
        result: the numbers.
        analysis: short name, used in file names, such as "logit_lens".
        title: one line.
        spec: from a chart builder, without looks.
        view: how the page shows it, plain JSON values.
        caption: plain sentences: what, n, unit, what zero means.
        how_to_read: what the figure shows and how it is computed.
        description: text alternative.
        frame: makes the table of the numbers that are drawn.
        references: keys of `references.BIBTEX`.
        function: public name of the function that made the result, in `mi_core.analyses` or, with inputs from
            there, in `mi_core.transcoders`.
        arrays: names of the arrays that the recipe compares; each is an attribute of the result and a key of
            its JSON.

    Raises:
        AttributeError: an array is no attribute of the result.
    """
    return Figure(
        title=title,
        spec=spec,
        frame=frame,
        result_json=result.to_json,
        caption=caption,
        provenance=result.provenance,
        checks=result.checks,
        how_to_read=how_to_read,
        warnings=result.warnings,
        description=description,
        analysis=analysis,
        view=view,
        inputs=brief(result.inputs.to_dict()),
        references=references,
        recipe=analysis_recipe(result, function=function, arrays=arrays),
    )


def brief(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs with every long field as its length and hash: enough to see whether two figures had the same."""
    short: dict[str, Any] = {}
    for name, value in inputs.items():
        text = json.dumps(value, ensure_ascii=False, sort_keys=True)
        known = {"characters": len(text), "sha256": hashlib.sha256(text.encode(errors="replace")).hexdigest()}
        short[name] = value if len(text) <= LONGEST_INPUT else known
    return short
