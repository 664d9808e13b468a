"""Where tuned lenses live: beside the model (`lenses/NAME/`), or in the user's data directory.

A lens is saved into the model's own folder if that is a local folder that can be written; otherwise (bundled
model, Hugging Face cache, read-only disk) into the user's data directory under the fingerprint of the
model's weights. Both places are always read.
"""

import math
import os
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from platformdirs import user_data_path

from mi_core.analyses.tuned_lens import TunedLens
from mi_core.analyses.tuned_lens_files import (
    CONFIG,
    CONVERT,
    OWN_KEY,
    PARAMS,
    PICKLE,
    read_config,
    read_lens,
    write_lens,
)
from mi_core.errors import InputError, ModelError
from mi_core.model.discovery import find

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel
    from mi_core.model.spec import ModelSpec

Place = Literal["beside the model", "your data folder"]

FOLDER = "lenses"
MAX_NAME = 60
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class FoundLens:
    """A lens on this machine.

    Attributes:
        name: what to call it; two of the same name are told apart by `place`, the first one is meant.
        folder: where it is.
        place: beside the model, or in the user's data directory.
        problem: why it cannot be used, as far as its config tells; "" = nothing known.
        plain_kl: mean over layers of KL(model || plain lens) on the text that its training held out, in nats
            per token; None for a lens that does not tell.
        tuned_kl: the same of this lens.
    """

    name: str
    folder: str
    place: Place
    problem: str = ""
    plain_kl: float | None = None
    tuned_kl: float | None = None


def check_name(name: str) -> None:
    """Refuse a name that could not be a folder on every system.

    Raises:
        InputError: empty, too long, or with other characters than letters, digits, dot, dash and underscore.
    """
    if len(name) > MAX_NAME or not _NAME.fullmatch(name) or name.endswith("."):
        raise InputError(
            f"A lens cannot be called {name[:MAX_NAME]!r}",
            fix=f"Use letters, digits, dots, dashes and underscores, at most {MAX_NAME}",
        )


# --- finding
# --------------------------------------------------------------------------------------------------------


class KnownModel(Protocol):
    """A loaded model, or what a page knows about one that is not in memory."""

    @property
    def spec(self) -> Any:
        """What was asked for (`ModelSpec`), or None for a model without files."""
        ...

    @property
    def fingerprint(self) -> str:
        """Of its weights."""
        ...


def lenses_of(model: KnownModel) -> tuple[FoundLens, ...]:
    """The lenses of a model: beside it, then in the user's data directory, each by name."""
    beside, own = beside_folder(model.spec), data_folder(model.fingerprint)
    found = [] if beside is None else _lenses_in(beside, "beside the model")
    return tuple(found + _lenses_in(own, "your data folder"))


def _lenses_in(folder: Path, place: Place) -> list[FoundLens]:
    try:
        inside = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    except OSError:
        return []
    return [
        _look(path, place)
        for path in inside
        if any((path / file).is_file() for file in (CONFIG, PARAMS, PICKLE))
    ]


def _look(folder: Path, place: Place) -> FoundLens:
    """What can be told without reading numbers."""
    found = FoundLens(folder.name, str(folder), place)
    try:
        config = read_config(folder)
    except InputError as error:
        return replace(found, problem=str(error))
    if not (folder / PARAMS).is_file():
        is_pickle = (folder / PICKLE).is_file()
        why = f"It is a pickle ({PICKLE}); convert it: {CONVERT}" if is_pickle else f"It has no {PARAMS}."
        return replace(found, problem=why)
    told = config.get(OWN_KEY, {}).get("validation")
    plain, tuned = (_mean(told, name) for name in ("plain_kl", "tuned_kl"))
    return replace(found, plain_kl=plain, tuned_kl=tuned)


def _mean(told: Any, name: str) -> float | None:
    """Mean of a list of numbers in a config, or None for anything else."""
    values = told.get(name) if isinstance(told, dict) else None
    if not isinstance(values, list) or not values:
        return None
    numbers = [value for value in values if isinstance(value, int | float) and math.isfinite(value)]
    return sum(numbers) / len(numbers) if len(numbers) == len(values) else None


def beside_folder(spec: "ModelSpec | None") -> Path | None:
    """`lenses/` in the model's folder, which need not exist; None when the model has no folder here."""
    path = _model_folder(spec)
    return None if path is None else path / FOLDER


def _model_folder(spec: "ModelSpec | None") -> Path | None:
    if spec is None:
        return None
    try:
        return Path(find(spec.name, spec.revision).path)
    except (ModelError, InputError):
        return None  # the model is in memory, its folder has been moved since


def data_folder(fingerprint: str) -> Path:
    """The user's own lenses for a model with these weights; need not exist."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", fingerprint)[:80] or "unknown-weights"
    return user_data_path("lantern", appauthor=False) / FOLDER / safe


# --- opening
# --------------------------------------------------------------------------------------------------------


def open_lens(model: "LoadedModel", lens: str) -> TunedLens:
    """A lens for a loaded model, by its name or its folder.

    Args:
        model: the model that it will read.
        lens: name of a lens of this model, or path of a folder.

    Returns:
        The lens; its `warnings` say if it was trained on another model.

    Raises:
        InputError: there is none, or its files cannot be used (see `tuned_lens_files`).
    """
    from mi_core.analyses.tuned_lens_origin import origin_warnings  # needs torch; listing lenses does not

    folder = _folder_of(model, lens)
    sizes = (model.dims.n_layers, model.dims.d_model)
    read = _read(folder, _state_of(folder), sizes)
    return replace(read, warnings=origin_warnings(read.origin, model))


def _folder_of(model: "LoadedModel", lens: str) -> Path:
    found = lenses_of(model)
    for one in found:
        if lens == one.name:
            return Path(one.folder)
    path = os.path.expanduser(lens)
    if not lens or not os.path.isdir(path):  # not pathlib's, which raises for names that cannot be paths
        names = ", ".join(one.name for one in found[:8])
        raise InputError(
            f"There is no tuned lens {lens[:200]!r} for this model",
            fix=(f"There is: {names}" if names else "Train one, or give the folder of a lens"),
        )
    return Path(path).absolute()


def _state_of(folder: Path) -> tuple[tuple[int, int], ...]:
    """Time and size of both files: another state means that the lens must be read again."""
    states = []
    for file in (CONFIG, PARAMS):
        try:
            known = os.stat(folder / file)
            states.append((known.st_mtime_ns, known.st_size))
        except OSError:
            states.append((0, 0))
    return tuple(states)


@lru_cache(maxsize=2)
def _read(folder: Path, _state: tuple[tuple[int, int], ...], sizes: tuple[int, int]) -> TunedLens:
    return read_lens(folder, *sizes)


# --- saving
# --------------------------------------------------------------------------------------------------------


def save_folder(model: KnownModel, name: str) -> Path:
    """Where a lens of this name would be saved.

    Raises:
        InputError: it cannot be a name.
    """
    check_name(name)
    model_folder = _model_folder(model.spec)
    if model_folder is not None and _is_own_folder(model.spec) and os.access(model_folder, os.W_OK):
        return model_folder / FOLDER / name
    return data_folder(model.fingerprint) / name


def check_free(model: KnownModel, name: str, *, replace: bool) -> Path:
    """The folder of a lens that is about to be made; told before minutes are spent on it.

    Raises:
        InputError: it cannot be a name, or it is taken and must not be replaced.
    """
    folder = save_folder(model, name)
    if folder.exists() and not replace:
        raise InputError(
            f"There is a lens {name!r} already",
            why=f"in {str(folder.parent)!r}",
            fix="Choose another name, or allow that it is replaced",
        )
    return folder


def _is_own_folder(spec: "ModelSpec | None") -> bool:
    """Whether the model was given as a folder: neither Lantern's assets nor the cache are written to."""
    return spec is not None and find(spec.name, spec.revision).source == "folder"


def save_lens(model: "LoadedModel", lens: TunedLens, *, replace: bool = False) -> Path:
    """Save a lens under its name, beside the model if that can be.

    Returns:
        Its folder.

    Raises:
        InputError: see `write_lens`; the name is taken and must not be replaced.
    """
    folder = save_folder(model, lens.name)
    write_lens(lens, folder, replace=replace)
    return folder
