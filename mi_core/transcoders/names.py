"""How features are named: ``L5F102`` is feature 102 of layer 5, ``L5F102@7`` the same at token position 7.

Layers, features and positions count from 0. ``5:102`` (candle-mi) and ``5/102`` (Neuronpedia) are read too.
"""

import re
from dataclasses import dataclass

from mi_core.errors import InputError

MAX_LISTED = 500
_FEATURE = re.compile(r"\s*L?(\d{1,5})\s*[F:/]\s*(\d{1,9})\s*", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Feature:
    """One feature.

    Attributes:
        layer: source layer, from 0.
        index: number within the layer, from 0.
    """

    layer: int
    index: int

    @property
    def text(self) -> str:
        """Its name, `L5F102`."""
        return f"L{self.layer}F{self.index}"

    def at(self, position: int) -> "FeatureAt":
        """The feature at a token position."""
        return FeatureAt(self.layer, self.index, position)


@dataclass(frozen=True, slots=True, order=True)
class FeatureAt:
    """One feature at one token.

    Attributes:
        layer: source layer, from 0.
        index: number within the layer, from 0.
        position: token position, from 0.
    """

    layer: int
    index: int
    position: int

    @property
    def feature(self) -> Feature:
        """The feature without its position."""
        return Feature(self.layer, self.index)

    @property
    def text(self) -> str:
        """Its name, `L5F102@7`."""
        return f"L{self.layer}F{self.index}@{self.position}"


def parse_feature(text: str) -> Feature:
    """A feature from its name.

    Raises:
        InputError: the text names no feature.
    """
    found = _FEATURE.fullmatch(text)
    if found is None:
        raise InputError(
            f"{text.strip()[:40]!r} names no feature", fix="Write layer and number, as in L5F102"
        )
    return Feature(int(found[1]), int(found[2]))


def parse_features(text: str) -> tuple[Feature, ...]:
    """Features from a comma-separated list, each once, in the order given; an empty text gives none.

    Raises:
        InputError: one of them names no feature, or there are more than `MAX_LISTED`.
    """
    pieces = [piece for piece in text.split(",", MAX_LISTED) if piece.strip()]
    if len(pieces) > MAX_LISTED:
        raise InputError(f"The list has more than {MAX_LISTED} features")
    return tuple(dict.fromkeys(parse_feature(piece) for piece in pieces))


def format_features(features: tuple[Feature, ...]) -> str:
    """The inverse of `parse_features`."""
    return ",".join(feature.text for feature in features)
