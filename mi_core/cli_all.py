"""`--all-cached`: one analysis on every model of this machine in turn, one model in memory at a time."""

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi_core.errors import InputError, LanternError
from mi_core.model.discovery import FoundModel, discover

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel
    from mi_core.model.spec import ModelSpec


def check_folder(output: str) -> Path:
    """The folder that the results go to.

    Raises:
        InputError: not a folder, or none was given.
    """
    folder = Path(output)
    if output == "-" or not folder.is_dir():
        raise InputError(
            "--all-cached writes one file per model",
            why=f"{output!r:.200} is not a folder",
            fix="Give --output an existing folder",
        )
    return folder


def file_of(folder: Path, found: FoundModel) -> Path:
    """Where a model's result goes: its name with everything but letters, digits, dash and dot replaced."""
    return folder / (re.sub(r"[^A-Za-z0-9.-]+", "_", found.name).strip("._")[-100:] + ".json")


def each_model(spec: "ModelSpec", on_phase: Callable[[str, float, str], None]) -> Iterator[Any]:
    """Load every usable model of this machine in turn; the one before is freed first.

    Args:
        spec: number format, device and kernel for all of them.
        on_phase: progress of loading.

    Yields:
        (FoundModel, LoadedModel or the LanternError that kept it from being loaded).
    """
    from mi_core.engine.holder import ModelHolder

    holder = ModelHolder()
    try:
        for found in discover():
            yield found, _load(holder, found, spec, on_phase)
    finally:
        holder.clear()


def _load(
    holder: Any, found: FoundModel, spec: "ModelSpec", on_phase: Callable[[str, float, str], None]
) -> "LoadedModel | LanternError":
    if not found.usable:
        return InputError("It cannot be used", why=found.reason.rstrip("."))
    try:
        return holder.get(replace(spec, name=found.name), on_phase)
    except LanternError as error:
        return error


def run_all(
    spec: "ModelSpec",
    output: str,
    analyse: Callable[["LoadedModel"], Any],
    write: Callable[[Path, Any], None],
    on_phase: Callable[[str, float, str], None],
) -> int:
    """Analyse every model; what fails on one is told and the next one follows.

    Args:
        spec: see `each_model`.
        output: an existing folder.
        analyse: model -> result; may raise LanternError.
        write: (file, result) -> None.
        on_phase: progress of loading.

    Returns:
        How many models gave a result.

    Raises:
        InputError: no folder to write to, or not one model gave a result.
    """
    folder, done, total = check_folder(output), 0, 0
    for found, model in each_model(spec, on_phase):
        total += 1
        try:
            if isinstance(model, LanternError):
                raise model
            write(file_of(folder, found), analyse(model))
            done += 1
        except LanternError as error:
            print(f"{found.name}: {' '.join(str(error).split())}", file=sys.stderr)
    if not done:
        raise InputError(f"None of {total} models gave a result", why="see above")
    return done
