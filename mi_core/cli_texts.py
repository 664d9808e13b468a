"""Options of the command line that are given as text: each is turned into the value of an Inputs field."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi_core.errors import InputError

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel


def subject_span(model: "LoadedModel", options: Mapping[str, Any], text: str) -> tuple[int, int]:
    """The token span of `--subject`: `start:end` in tokens, or words of the prompt.

    Raises:
        InputError: the words are not in the prompt, or the span is no span of it.
    """
    from mi_core.tokens import find_span, tokenize

    prompt = tokenize(model.tokenizer, options["prompt"], bos=options["bos"])
    span = re.fullmatch(r"(\d{1,6}):(\d{1,6})", text)
    if span is None:
        return find_span(prompt, text, options["occurrence"])
    start, end = int(span[1]), int(span[2])
    if not start < end <= len(prompt):
        raise InputError(
            f"The subject {text!r} is no span of the prompt", why=f"it has tokens 0 to {len(prompt) - 1}"
        )
    return start, end


def prompt_cases(_model: "LoadedModel", options: Mapping[str, Any], text: str) -> tuple[Any, ...]:
    """The cases of `--cases`: "facts", "five", or a prompt file; at most `--limit`, even over relations.

    Raises:
        InputError: the file cannot be read, or a row of it does not fit.
    """
    from mi_core.batch.prompt_sets import FIVE_QUESTIONS, bundled_facts
    from mi_core.importers.prompt_files import MAX_FILE_BYTES, read_prompt_file

    if text in ("facts", "five"):
        bundled = bundled_facts() if text == "facts" else FIVE_QUESTIONS
        return bundled.sample(options["limit"], options["seed"]).cases
    data = _read_file(text, MAX_FILE_BYTES)
    return read_prompt_file(data, Path(text).name).sample(options["limit"], options["seed"]).cases


def prompt_pairs(_model: "LoadedModel", _options: Mapping[str, Any], text: str) -> tuple[Any, ...]:
    """The pairs of `--pairs`: a file of prompt pairs; none for "".

    Raises:
        InputError: the file cannot be read, or a row of it does not fit.
    """
    from mi_core.importers.pair_files import read_pair_file
    from mi_core.importers.prompt_files import MAX_FILE_BYTES

    return read_pair_file(_read_file(text, MAX_FILE_BYTES), Path(text).name) if text else ()


def lens_texts(_model: "LoadedModel", _options: Mapping[str, Any], text: str) -> tuple[str, ...]:
    """The texts of `--texts`: "diverse" (the bundled ones), or the documents of a text file.

    Raises:
        InputError: the file cannot be read, or is no text.
    """
    from mi_core.analyses.tuned_lens_inputs import MAX_FILE_BYTES, documents_of
    from mi_core.batch.texts import bundled_texts

    if text == "diverse":
        return tuple(one.text for one in bundled_texts().texts)
    return documents_of(_read_file(text, MAX_FILE_BYTES))


def text_set(_model: "LoadedModel", options: Mapping[str, Any], text: str) -> tuple[Any, ...]:
    """The texts of `--texts`: "diverse" (the bundled ones), or a file; at most `--limit` of them.

    Raises:
        InputError: the file cannot be read, or a text of it does not fit.
    """
    from mi_core.batch.texts import bundled_texts
    from mi_core.importers.text_files import MAX_FILE_BYTES, read_text_file

    if text == "diverse":
        return bundled_texts().texts[: max(0, options["limit"])]
    data = _read_file(text, MAX_FILE_BYTES)
    return read_text_file(data, Path(text).name).texts[: max(0, options["limit"])]


def vector_file(model: "LoadedModel", options: Mapping[str, Any], text: str) -> tuple[float, ...]:
    """The numbers of `--vector`: an .npy or .safetensors file, or with `--source feature` a feature's name.

    None without a text; a feature is one of the transcoder that is bundled with the model.

    Raises:
        InputError: the file cannot be read, or does not hold one vector of the model's width; or there is no
            such feature.
        TranscoderError: the model has no transcoder of its own.
    """
    if options.get("source") == "feature" and text:
        from mi_core.transcoders import feature_vector

        return tuple(feature_vector(model, text).values.ravel().astype(float).tolist())
    from mi_core.analyses.steering_vector import load_vector

    return load_vector(text, model.dims.d_model) if text else ()


def _read_file(path: str, limit: int) -> bytes:
    """At most `limit` + 1 bytes of a file: one more than is allowed, so that its reader can tell."""
    try:
        with Path(path).open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise InputError(f"{path!r:.200} cannot be read", why=error.strerror or "unknown cause") from error
