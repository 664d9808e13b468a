"""The tokenizer of a model: read from its folder, fast, and never with code of its own."""

from pathlib import Path
from typing import Any

from mi_core.errors import ModelError
from mi_core.model.checkpoint import corrupt
from mi_core.model.discovery import FoundModel

# What a damaged tokenizer makes transformers raise; plain Exception comes from the Rust library (see below).
_READING_ERRORS = (OSError, ValueError, TypeError, LookupError, AttributeError, ImportError, RuntimeError)


def load_tokenizer(found: FoundModel) -> Any:
    """The fast tokenizer of a model.

    Raises:
        ModelError: kind "missing" (none), "unsupported" (no offsets) or "corrupt".
    """
    from transformers import AutoTokenizer

    folder = Path(found.path)
    whole, pieces = folder / "tokenizer.json", ("vocab.json", "tokenizer.model", "spiece.model")
    if not whole.is_file() and not any((folder / name).is_file() for name in pieces):
        raise ModelError(
            f"{found.name!r} has no tokenizer", kind="missing", why="its folder has no tokenizer.json",
            fix="Save the tokenizer beside the weights, with its save_pretrained",
        )  # fmt: skip
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        # The Rust tokenizer raises plain Exception for a damaged file; anything of yet another type is a bug.
        if type(error) is not Exception and not isinstance(error, _READING_ERRORS):
            raise
        if whole.is_file() or (folder / "vocab.json").is_file():
            raise corrupt(f"The tokenizer of {found.name!r} cannot be read", first_line(error)) from error
        raise _unsupported(found.name, "its folder has only a SentencePiece file") from error
    if not getattr(tokenizer, "is_fast", False):
        raise _unsupported(
            found.name, f"{type(tokenizer).__name__} does not tell which characters a token covers"
        )
    return tokenizer


def _unsupported(name: str, why: str) -> ModelError:
    return ModelError(
        f"The tokenizer of {name!r} is not supported", kind="unsupported", why=why,
        fix="Choose a model with a tokenizer.json",
    )  # fmt: skip


def first_line(error: BaseException) -> str:
    """The first line of an error of another library, cut: it goes into a sentence of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
