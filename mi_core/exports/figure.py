"""A figure as it leaves the dashboard: the drawing, the numbers behind it, and where they come from."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from mi_core.errors import InputError
from mi_core.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, VERSION = "lantern/figure", 1
Format = Literal["png", "svg", "pdf", "html", "csv", "json", "zip"]
FORMATS: tuple[Format, ...] = get_args(Format)


class CheckLike(Protocol):
    """An identity that was tried on the numbers, such as `mi_core.analyses.Check`."""

    @property
    def name(self) -> str:
        """What was checked."""
        ...

    @property
    def passed(self) -> bool:
        """Whether it holds."""
        ...

    @property
    def detail(self) -> str:
        """The figures."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Figure:
    """Everything that an export needs. What takes time is a function, called when a file is written.

    Attributes:
        title: one line.
        spec: from a chart builder, without looks.
        frame: makes the tidy table of the numbers: one per row, with units.
        result_json: makes the JSON text of the result.
        caption: plain sentences.
        provenance: of the numbers; None for results made without a model.
        checks: identities tried on the numbers.
        how_to_read: what the figure shows and how it is computed, plain text.
        warnings: sentences to read before the figure.
        description: text alternative.
        analysis: short name, used in file names, such as "causal_trace".
        view: how the page showed it (metric, kinds, chosen cell), plain JSON values.
        inputs: what was asked for, plain JSON values.
        references: keys of `references.BIBTEX`.
        recipe: Python program that makes the numbers again, for the bundle.
    """

    title: str
    spec: Mapping[str, Any]
    frame: "Callable[[], pd.DataFrame]"
    result_json: Callable[[], str]
    caption: str
    provenance: Provenance | None
    checks: Sequence[CheckLike] = ()
    how_to_read: str = ""
    warnings: Sequence[str] = ()
    description: str = ""
    analysis: str = "figure"
    view: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    references: Sequence[str] = ()
    recipe: str = ""

    def record(self) -> dict[str, Any]:
        """What is written into every file, enough to open the same view again: plain JSON values."""
        return {
            "schema": SCHEMA,
            "version": VERSION,
            "analysis": self.analysis,
            "title": self.title,
            "caption": self.caption,
            "inputs": dict(self.inputs),
            "view": dict(self.view),
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
            "checks": [{"name": c.name, "passed": c.passed, "detail": c.detail} for c in self.checks],
            "warnings": list(self.warnings),
        }

    def record_json(self) -> str:
        """`record` as JSON text in ASCII.

        Raises:
            ValueError: a value is no plain JSON, or NaN.
        """
        return json.dumps(self.record(), allow_nan=False, separators=(",", ":"))

    def fingerprint(self) -> str:
        """Short hash of what is in the figure: inputs, view, origin, time."""
        return hashlib.sha256(self.record_json().encode()).hexdigest()[:4]


def file_name(figure: Figure, format: Format, *, suffix: str = "") -> str:
    """A safe, telling file name such as `causal_trace_atlas_3f9c.png`.

    Args:
        figure: what is written.
        format: one of `FORMATS`.
        suffix: put before the extension, for example "@600".
    """
    model = figure.provenance.model if figure.provenance is not None else ""
    parts = [_safe(figure.analysis), _safe(re.split(r"[/\\]", model.rstrip("/\\"))[-1]), figure.fingerprint()]
    return "_".join(part for part in parts if part) + f"{suffix}.{format}"


def _safe(text: str) -> str:
    """Letters, digits, dash, dot and underscore only, no leading dot, at most 40 characters."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:40]


def check_format(format: str) -> None:
    """Refuse a format that is none of ours.

    Raises:
        InputError: unknown format.
    """
    if format not in FORMATS:
        raise InputError(f"There is no export format {format!r}", fix=f"Choose one of {', '.join(FORMATS)}")
