"""Edits of features as text: the list that links, the page and the command line share.

Pieces are separated by commas; a piece is a feature, its tokens and what is done there:

    L5F102@7:set=3        the activation becomes 3 at token 7
    L5F102@3+4:add=2      it becomes 2 more than it is
    L5F102@-1:scale=-1    it is multiplied; -1 at the last token
    L5F102@all:ablate     it becomes 0 wherever it is active
    L5F102@7:suppress=2   2 decoder rows are taken away, also where the feature is not active

"@all", or no tokens, is every token of the prompt but the leading special ones, and every new token while
the text is continued. Set, scale and ablate depend on what the activation is; add and suppress do not.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from mi_core.analyses.piece_lists import parse_pieces
from mi_core.errors import InputError
from mi_core.transcoders.names import Feature, parse_feature

EditMode = Literal["set", "add", "scale", "ablate", "suppress"]
MODES: tuple[EditMode, ...] = get_args(EditMode)
NEEDS_PRESENT: tuple[EditMode, ...] = ("set", "scale", "ablate")
"""What these write depends on the activation that they find."""
MAX_EDITS = 200
MAX_PIECE_CHARACTERS = 400
MAX_VALUE = 1e6

_FORMS = "Write for example L5F102@7:set=3, L5F102@3+4:add=2, L5F102@-1:scale=-1 or L5F102@all:ablate"
_PIECE = re.compile(
    r"(?P<feature>[^@]+?)(?:@(?P<where>[^:]*))?:(?P<mode>[a-z]+)(?:=(?P<value>\S+))?", re.ASCII
)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_POSITION = re.compile(r"-?\d{1,6}", re.ASCII)


@dataclass(frozen=True, slots=True)
class FeatureEdit:
    """One feature, held or pushed at some tokens.

    Attributes:
        feature: which one.
        mode: what is done.
        value: the new activation ("set"), what is added to it ("add"), its factor ("scale"), how many decoder
            rows are taken away ("suppress"); None for "ablate".
        positions: token positions, negative from the end of the prompt; None = all (see the module).

    Raises:
        InputError: the parts do not fit together.
    """

    feature: Feature
    mode: EditMode
    value: float | None = None
    positions: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        problem = _problem(self)
        if problem:
            raise InputError("This is no edit of a feature", why=problem, fix=_FORMS)

    @property
    def text(self) -> str:
        """The text form, the inverse of `parse_feature_edits`."""
        where = "all" if self.positions is None else "+".join(map(str, self.positions))
        number = "" if self.value is None else f"={_number_text(self.value)}"
        return f"{self.feature.text}@{where}:{self.mode}{number}"

    @property
    def needs_present(self) -> bool:
        """Whether what it writes depends on the activation that it finds."""
        return self.mode in NEEDS_PRESENT

    def new_activation(self, present: float) -> float:
        """The activation that it gives a feature; below 0 it is one that no encoder gives."""
        value = self.value or 0.0
        if self.mode in ("set", "ablate"):
            return value
        if self.mode == "scale":
            return present * value
        return present + value if self.mode == "add" else present - value


def _number_text(value: float) -> str:
    text = repr(float(value))
    return text.removesuffix(".0")


def _problem(edit: FeatureEdit) -> str:
    """What is wrong with the parts of an edit; empty when nothing is."""
    if edit.mode not in MODES:
        return f"{edit.mode!r:.40} is none of {', '.join(MODES)}"
    if (edit.value is None) != (edit.mode == "ablate"):
        return "ablate takes no number" if edit.mode == "ablate" else f"{edit.mode} needs a number"
    if edit.value is not None and not (math.isfinite(edit.value) and abs(edit.value) <= MAX_VALUE):
        return f"its number is beyond {MAX_VALUE:,.0f}"
    if edit.mode == "suppress" and edit.value is not None and edit.value < 0:
        return "suppress takes a number that is not negative; use add to push the other way"
    if edit.positions is not None and (not edit.positions or len(set(edit.positions)) < len(edit.positions)):
        return "no token position, or one twice"
    return ""


def parse_feature_edits(text: str) -> tuple[FeatureEdit, ...]:
    """Read a list of edits; spaces beside signs are ignored, lines end a piece, an empty text is no edit.

    Raises:
        InputError: naming the first piece that cannot be read, or that is there twice.
    """
    return parse_pieces(re.sub(r"[\r\n]+", ",", text), _parse, MAX_EDITS, "edits")


def format_feature_edits(edits: Sequence[FeatureEdit]) -> str:
    """The inverse of `parse_feature_edits`."""
    return ",".join(edit.text for edit in edits)


def _parse(piece: str) -> FeatureEdit:
    # 5:102@7:set=3 has two colons; the feature's own one is before the "@" or directly before its number.
    # Spaces beside a sign mean nothing; elsewhere they stay, so that "set=1 2" is refused and not read as 12.
    bare = re.sub(r"\s*([@:=+])\s*", r"\1", piece[:MAX_PIECE_CHARACTERS]).lower()
    named = re.sub(r"^(\d+):(\d+)", r"L\1F\2", bare, flags=re.ASCII)
    found = _PIECE.fullmatch(named) if len(piece) <= MAX_PIECE_CHARACTERS else None
    if found is None:
        raise InputError(f"{piece[:80]!r} is no edit of a feature", fix=_FORMS)
    try:
        return FeatureEdit(
            parse_feature(found["feature"]),
            found["mode"],  # type: ignore[arg-type]  # FeatureEdit refuses what is no mode
            _value(found["value"]),
            _positions(found["where"]),
        )
    except InputError as error:
        raise InputError(
            f"{piece[:80]!r} is no edit of a feature", why=error.why or error.what, fix=_FORMS
        ) from error


def _value(text: str | None) -> float | None:
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise InputError("no number", why=f"{text[:40]!r} is no number")
    return float(text)


def _positions(text: str | None) -> tuple[int, ...] | None:
    if text is None or text == "all":
        return None
    pieces = text.split("+")
    bad = next((piece for piece in pieces if not _POSITION.fullmatch(piece)), None)
    if bad is not None:
        raise InputError("no position", why=f"{bad[:40]!r} is no token position")
    return tuple(int(piece) for piece in pieces)
