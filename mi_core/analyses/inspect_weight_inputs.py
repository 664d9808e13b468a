"""Which weight is looked at closely; see `inspect_weight_run`."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from mi_core.errors import InputError

MAX_NAME = 500


@dataclass(frozen=True, slots=True)
class InspectWeightInputs:
    """One weight.

    Attributes:
        weight: its full name as `inspect` lists it: `blocks.3.attn.W_Q`, `blocks.3.attn.W_Q[5]` for head 5,
            `embed.W_E`, or a parameter's own name.
        spectrum: whether its singular values are computed; matrices only, by far the most work.
    """

    weight: str
    spectrum: bool = True

    def __post_init__(self) -> None:
        """A name, and yes or no."""
        if not isinstance(self.weight, str) or not 0 < len(self.weight) <= MAX_NAME:
            raise InputError("The weight has no name", fix="Give one such as blocks.0.attn.W_Q")
        if not isinstance(self.spectrum, bool):
            raise InputError(f"spectrum is {self.spectrum!r:.40}", fix="Give true or false")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "InspectWeightInputs":
        """The inverse of `to_dict`.

        Raises:
            InputError: an unknown or missing field, or a value that `InspectWeightInputs` refuses.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown or "weight" not in values:
            problem = f"has unknown fields {unknown}" if unknown else "names no weight"
            raise InputError(f"The description of the weight {problem}")
        return cls(**values)
