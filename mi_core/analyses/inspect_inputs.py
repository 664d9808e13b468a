"""What a user chooses when a model is inspected; see `inspect_run`."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from mi_core.errors import InputError


@dataclass(frozen=True, slots=True)
class InspectInputs:
    """What to read from the weights.

    Attributes:
        per_head: whether W_Q, W_K, W_V and W_O are listed head by head too.
        statistics: whether the weights are read at all; without, only their names, shapes and all that is
            known without reading.
        singular_values: whether the largest singular value of every matrix is computed; by far the most work.
    """

    per_head: bool = True
    statistics: bool = True
    singular_values: bool = False

    def __post_init__(self) -> None:
        """Each is yes or no; singular values are statistics."""
        for name, value in asdict(self).items():
            if not isinstance(value, bool):
                raise InputError(f"{name} is {value!r:.40}", fix="Give true or false")
        if self.singular_values and not self.statistics:
            raise InputError(
                "Singular values cannot be had without statistics", fix="Ask for both or neither"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "InspectInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown field, or a value that `InspectInputs` refuses.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise InputError(f"The inspection's description has unknown fields {unknown}")
        return cls(**values)
