"""Which model is wanted, and how it should be loaded: the key under which everything about it is kept."""

import re
import unicodedata
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

from mi_core.errors import InputError, ModelError

if TYPE_CHECKING:
    import torch

DType = Literal["float32", "bfloat16", "float16", "float64"]
Attention = Literal["fast", "eager"]

DTYPES: tuple[DType, ...] = get_args(DType)
BYTES_PER_NUMBER: dict[DType, int] = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}

MAX_NAME_CHARACTERS = 1024
MAX_REVISION_CHARACTERS = 200
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")
_REVISION = re.compile(r"[A-Za-z0-9][\w.\-/+]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model and how to load it. Hashable: it is part of every cache key.

    Attributes:
        name: bundled name ("atlas"), folder, or hub id ("openai-community/gpt2").
        revision: branch, tag or commit of a hub id; None = its main branch.
        dtype: number format of weights and activations.
        device: "auto" (cuda, then mps, then cpu), "cpu", "cuda", "cuda:1" or "mps".
        attention: "fast" takes the fused kernel where no attention site is asked for, "eager" never does.
        device_map: "auto" spreads a large model over all devices, memory and disk (needs accelerate).
    """

    name: str
    revision: str | None = None
    dtype: DType = "float32"
    device: str = "auto"
    attention: Attention = "fast"
    device_map: Literal["auto"] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot name a model on any machine.

        Raises:
            InputError: a field has a value that it cannot have.
        """
        _check_text("model name", self.name, MAX_NAME_CHARACTERS)
        if self.revision is not None:
            check_revision(self.revision)
        _check_choice("number format", self.dtype, DTYPES)
        _check_choice("attention", self.attention, get_args(Attention))
        _check_choice("device map", self.device_map, (None, "auto"))
        if not _DEVICE.fullmatch(self.device):
            raise InputError(
                f"The device {self.device[:40]!r} does not exist", fix="Choose auto, cpu, cuda, cuda:0 or mps"
            )
        if self.device_map == "auto" and self.device != "auto":
            raise InputError(
                "A device map chooses the devices itself", fix="Set device to auto, or device_map to None"
            )

    @property
    def text(self) -> str:
        """`name` or `name@revision`, for links; `from_text` reads it back."""
        if self.revision is not None:
            return f"{self.name}@{self.revision}"
        # The last @ separates the revision, so a name with an @ in it needs an empty one.
        return f"{self.name}@" if "@" in self.name else self.name

    @classmethod
    def from_text(cls, text: str) -> "ModelSpec":
        """The inverse of `text`; everything but name and revision has its default.

        Raises:
            InputError: it names no model.
        """
        name, at, revision = text.rpartition("@")
        return cls(name, revision or None) if at else cls(text)

    def describe(self) -> str:
        """One line for a header: `atlas · float32 · auto`, with what differs from the usual."""
        parts = [self.text, self.dtype, "spread over devices" if self.device_map else self.device]
        return " · ".join(parts + (["eager attention"] if self.attention == "eager" else []))

    def with_dtype(self, dtype: DType) -> "ModelSpec":
        """The same model in another number format."""
        return replace(self, dtype=dtype)


def _check_text(what: str, text: str, longest: int) -> None:
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"The {what} is empty", fix="Give a bundled name, a folder or a Hugging Face id")
    if len(text) > longest:
        raise InputError(f"The {what} has {len(text):,} characters", fix=f"Give at most {longest:,}")
    if any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in text):
        raise InputError(f"The {what} has control or invisible characters", fix="Type it again")


def _check_choice(what: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        shown = ", ".join(str(choice) for choice in choices)
        raise InputError(f"The {what} {str(value)[:40]!r} does not exist", fix=f"Choose one of {shown}")


def check_revision(revision: str) -> None:
    """Refuse a revision that could not be a branch, tag or commit (or that is a path in disguise).

    Raises:
        InputError: with the reason.
    """
    _check_text("revision", revision, MAX_REVISION_CHARACTERS)
    if not _REVISION.fullmatch(revision) or ".." in revision:
        raise InputError(f"The revision {revision[:80]!r} is not a branch, tag or commit")


def torch_dtype(dtype: DType) -> "torch.dtype":
    """The torch type of a number format."""
    import torch

    return getattr(torch, dtype)


def choose_device(spec: ModelSpec) -> str:
    """The device that a model goes to: a name that torch knows, with its index for cuda.

    "auto" takes cuda, then mps, then cpu; for float64 it skips mps, which has none.

    Raises:
        ModelError: kind "device", when the device is not there or has no such number format.
    """
    import torch

    wanted = spec.device
    if wanted == "auto":
        if torch.cuda.is_available():
            wanted = "cuda"
        else:
            wanted = "mps" if torch.backends.mps.is_available() and spec.dtype != "float64" else "cpu"
    kind, _, index = wanted.partition(":")
    if kind == "cuda":
        _check_cuda(int(index or 0), spec.dtype)
        return f"cuda:{index or 0}"
    if kind == "mps":
        _check_mps(spec.dtype)
    return kind


def _check_cuda(index: int, dtype: DType) -> None:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if index >= count:
        why = (
            f"it has {count} CUDA device{'s' if count > 1 else ''}" if count else "torch finds no CUDA device"
        )
        raise ModelError(
            f"cuda:{index} is not on this machine", kind="device", why=why, fix="Choose auto or cpu"
        )
    if dtype == "bfloat16" and not torch.cuda.is_bf16_supported():
        raise ModelError(
            f"cuda:{index} has no bfloat16",
            kind="device",
            why="the GPU is too old",
            fix="Choose float16 or float32",
        )


def _check_mps(dtype: DType) -> None:
    import torch

    if not torch.backends.mps.is_available():
        raise ModelError(
            "mps is not on this machine",
            kind="device",
            why="it needs a Mac with Apple silicon",
            fix="Choose auto or cpu",
        )
    if dtype == "float64":
        raise ModelError("mps has no float64", kind="device", fix="Choose float32, or cpu for float64")
    if dtype == "bfloat16" and not torch.backends.mps.is_macos_or_newer(14, 0):
        raise ModelError(
            "mps has no bfloat16 before macOS 14", kind="device", fix="Choose float16 or float32"
        )
