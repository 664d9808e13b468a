"""The options of the command line: a table of analyses, and tyro options made from their frozen Inputs."""

import contextlib
import dataclasses
import io
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from mi_core.errors import InputError

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel

PROGRAM = "python -m mi_core"

TextField = Callable[["LoadedModel", Mapping[str, Any], str], Any]
"""Turns the text of an option into the value of an Inputs field, given the model and the other options."""


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
    try:
        with Path(text).open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"{text!r:.200} cannot be read", why=error.strerror or "unknown cause") from error
    return read_prompt_file(data, Path(text).name).sample(options["limit"], options["seed"]).cases


def lens_texts(_model: "LoadedModel", _options: Mapping[str, Any], text: str) -> tuple[str, ...]:
    """The texts of `--texts`: "diverse" (the bundled ones), or the documents of a text file.

    Raises:
        InputError: the file cannot be read, or is no text.
    """
    from mi_core.analyses.tuned_lens_inputs import MAX_FILE_BYTES, documents_of
    from mi_core.batch.texts import bundled_texts

    if text == "diverse":
        return tuple(one.text for one in bundled_texts().texts)
    try:
        with Path(text).open("rb") as file:
            return documents_of(file.read(MAX_FILE_BYTES + 1))
    except OSError as error:
        raise InputError(f"{text!r:.200} cannot be read", why=error.strerror or "unknown cause") from error


def text_set(_model: "LoadedModel", options: Mapping[str, Any], text: str) -> tuple[Any, ...]:
    """The texts of `--texts`: "diverse" (the bundled ones), or a file; at most `--limit` of them.

    Raises:
        InputError: the file cannot be read, or a text of it does not fit.
    """
    from mi_core.batch.texts import bundled_texts
    from mi_core.importers.text_files import MAX_FILE_BYTES, read_text_file

    if text == "diverse":
        return bundled_texts().texts[: max(0, options["limit"])]
    try:
        with Path(text).open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"{text!r:.200} cannot be read", why=error.strerror or "unknown cause") from error
    return read_text_file(data, Path(text).name).texts[: max(0, options["limit"])]


@dataclasses.dataclass(frozen=True, slots=True)
class Extra:
    """An option that is no field of the Inputs but helps to resolve one.

    Attributes:
        name: of the option.
        default: its value when not given.
        help: one clause.
    """

    name: str
    default: int
    help: str


@dataclasses.dataclass(frozen=True, slots=True)
class Analysis:
    """One subcommand.

    Attributes:
        help: one line.
        inputs: "module:name" of its Inputs.
        function: "module:name" of its function `(model, inputs, on_step=...) -> Result`.
        text_fields: fields that are given as text: (function that resolves them, help).
        extras: options that these functions read besides.
    """

    help: str
    inputs: str
    function: str
    text_fields: Mapping[str, tuple[TextField, str]] = dataclasses.field(default_factory=dict)
    extras: tuple[Extra, ...] = ()


ANALYSES: dict[str, Analysis] = {
    "causal-trace": Analysis(
        help="trace where the answer to a prompt comes from, layer by layer and token by token",
        inputs="mi_core.analyses:CausalTraceInputs",
        function="mi_core.analyses:causal_trace",
        text_fields={
            "subject": (subject_span, 'what is noised: words of the prompt, or a token span like "2:5"')
        },
        extras=(Extra("occurrence", 0, "which occurrence of those words, from 0"),),
    ),
    "causal-trace-average": Analysis(
        help="average causal traces over a prompt set, by token role and layer",
        inputs="mi_core.analyses:CausalTraceAverageInputs",
        function="mi_core.analyses:causal_trace_average",
        text_fields={
            "cases": (prompt_cases, '"facts" (the bundled ones), or a prompt file (CSV or JSON)'),
        },
        extras=(Extra("limit", 60, "how many prompts at most, even over relations"),),
    ),
    "inspect": Analysis(
        help="describe a model: every weight with its numbers, sites, proofs, config, memory",
        inputs="mi_core.analyses:InspectInputs",
        function="mi_core.analyses:inspect_model",
    ),
    "inspect-weight": Analysis(
        help="look at one weight closely: histogram of its entries, singular values",
        inputs="mi_core.analyses:InspectWeightInputs",
        function="mi_core.analyses:inspect_weight",
    ),
    "next-token": Analysis(
        help="what comes after a prompt, and how much every token of it surprised the model",
        inputs="mi_core.analyses:NextTokenInputs",
        function="mi_core.analyses:next_token",
    ),
    "tuned-lens-train": Analysis(
        help="train a tuned lens on a text and save it beside the model",
        inputs="mi_core.analyses:TunedLensSaveInputs",
        function="mi_core.analyses:tuned_lens_train_and_save",
        text_fields={
            "texts": (
                lens_texts,
                '"diverse" (the bundled ones), or a text file; blank lines separate documents',
            )
        },
    ),
    "logit-lens": Analysis(
        help="read every layer of a prompt through the model's own output",
        inputs="mi_core.analyses:LogitLensInputs",
        function="mi_core.analyses:logit_lens",
    ),
    "logit-lens-steps": Analysis(
        help="how attention and MLP of each layer change what the logit lens says at one token",
        inputs="mi_core.analyses:LogitLensStepsInputs",
        function="mi_core.analyses:logit_lens_steps",
    ),
    "prediction-sweep": Analysis(
        help="find the layer at which the right answer appears and stays, over a prompt set",
        inputs="mi_core.analyses:PredictionSweepInputs",
        function="mi_core.analyses:prediction_sweep",
        text_fields={
            "cases": (prompt_cases, '"facts", "five" (bundled ones), or a prompt file (CSV or JSON)'),
        },
        extras=(
            Extra("limit", 60, "how many prompts at most, even over relations"),
            Extra("seed", 0, "of the draw"),
        ),
    ),
    "attention": Analysis(
        help="every head's attention over a prompt, what it moves, and numbers that tell heads apart",
        inputs="mi_core.analyses:AttentionInputs",
        function="mi_core.analyses:attention_patterns",
    ),
    "head-scores": Analysis(
        help="kinds of heads (induction, previous token, ...) found on repeated random tokens",
        inputs="mi_core.analyses:HeadScoresInputs",
        function="mi_core.analyses:head_scores",
    ),
    "copying-scores": Analysis(
        help="score how far every head copies what it reads, from its weights",
        inputs="mi_core.analyses:CopyingScoresInputs",
        function="mi_core.analyses:copying_scores",
    ),
    "head-views": Analysis(
        help="read the strongest directions of a head's OV or QK weights through the vocabulary",
        inputs="mi_core.analyses:HeadViewsInputs",
        function="mi_core.analyses:head_views",
    ),
    "composition": Analysis(
        help="score which head reads what which earlier head writes, from their weights",
        inputs="mi_core.analyses:CompositionInputs",
        function="mi_core.analyses:composition",
    ),
    "neurons": Analysis(
        help="find the most active MLP neurons of every layer over a set of texts",
        inputs="mi_core.analyses:NeuronSurveyInputs",
        function="mi_core.analyses:neuron_survey",
        text_fields={
            "texts": (text_set, '"diverse" (the bundled ones), or a file of texts (TXT, CSV or JSON)')
        },
        extras=(Extra("limit", 5000, "how many texts at most"),),
    ),
    "neuron": Analysis(
        help="look at one MLP neuron over a set of texts: contexts, histogram, vocabulary",
        inputs="mi_core.analyses:NeuronInputs",
        function="mi_core.analyses:neuron",
        text_fields={
            "texts": (text_set, '"diverse" (the bundled ones), or a file of texts (TXT, CSV or JSON)')
        },
        extras=(Extra("limit", 5000, "how many texts at most"),),
    ),
    "neuron-text": Analysis(
        help="one MLP neuron's activation at every token of a text",
        inputs="mi_core.analyses:NeuronTextInputs",
        function="mi_core.analyses:neuron_text",
    ),
    "neuron-prompt": Analysis(
        help="the most active MLP neurons at every token and layer of a prompt",
        inputs="mi_core.analyses:NeuronPromptInputs",
        function="mi_core.analyses:neuron_prompt",
    ),
    "attribution": Analysis(
        help="split the answer's logit into what embedding, attention, MLPs, heads and neurons contribute",
        inputs="mi_core.analyses:AttributionInputs",
        function="mi_core.analyses:attribution",
    ),
}


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """Which model, and how it is loaded.

    Attributes:
        model: bundled name, folder, or Hugging Face id in the cache; also name@revision.
        dtype: number format: float32, bfloat16, float16 or float64.
        device: auto, cpu, cuda, cuda:0 or mps.
        attention: fast, or eager (always the plain kernel).
        device_map: auto spreads a large model over all devices.
        download: allow the download of a model that is not on this machine.
    """

    model: str
    dtype: str = "float32"
    device: str = "auto"
    attention: str = "fast"
    device_map: str | None = None
    download: bool = False


def options_of(analysis: Analysis) -> type:
    """A dataclass with the options of a subcommand: model, output, and every field of the Inputs."""
    import docstring_parser
    import tyro

    inputs = fetch(analysis.inputs)
    help_of = {
        entry.arg_name: " ".join((entry.description or "").split())
        for entry in docstring_parser.parse(inputs.__doc__ or "").params
    }
    types = get_type_hints(inputs)
    required: list[Any] = []
    optional: list[Any] = []
    for field in dataclasses.fields(inputs):
        kind, text = types[field.name], help_of.get(field.name, "")
        if field.name in analysis.text_fields:
            kind, text = str | None, analysis.text_fields[field.name][1]
            kind = str if field.default is dataclasses.MISSING else kind
        annotated = Annotated[kind, tyro.conf.arg(help=text or None)]
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.append((field.name, annotated, dataclasses.field()))
        else:
            default = None if field.name in analysis.text_fields else field.default
            optional.append((field.name, annotated, dataclasses.field(default=default)))
    for extra in analysis.extras:
        shown = Annotated[int, tyro.conf.arg(help=extra.help)]
        optional.append((extra.name, shown, dataclasses.field(default=extra.default)))
    where = tyro.conf.arg(help='file for the result, as JSON; "-" = standard output')
    optional.append(("output", Annotated[str, where], dataclasses.field(default="-")))
    made = dataclasses.make_dataclass("Options", [*required, *optional], kw_only=True, frozen=True)
    made.__doc__ = analysis.help[0].upper() + analysis.help[1:] + "."
    return made


def parse_options(kind: type, arguments: list[str], command: str) -> Any:
    """Options from arguments, by tyro; its boxes of several lines become one InputError."""
    import tyro

    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown):
            return tyro.cli(
                kind, args=arguments, prog=f"{PROGRAM} {command}", config=(tyro.conf.OmitArgPrefixes,)
            )
    except SystemExit as error:
        if not error.code:
            raise
    raise InputError(_one_line(shown.getvalue()), fix=f"See {PROGRAM} {command} --help")


def _one_line(box: str) -> str:
    """What tyro says in a box of several lines, in one: without title, frame, help texts and hints."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip(" \u2500\u2502\u256d\u256e\u256f\u2570") for line in plain.splitlines()]
    lines = [line for line in lines if line and set(line) != {"-"}][1:]
    ends = [
        number for number, line in enumerate(lines) if re.match(r"For full helptext|Argument helptext", line)
    ]
    lines = lines[: ends[0]] if ends else lines
    if lines and lines[0].startswith("Missing"):
        unknown = [number for number, line in enumerate(lines) if line.startswith("Unrecognized")]
        needed = lines[1 : unknown[0]] if unknown else lines[1:]
        names = [line.split()[0] for line in needed if re.match(r"--[\w-]+|[A-Z]+$", line)]
        return (
            "Missing: "
            + ", ".join(names)
            + (f"; unknown: {' '.join(lines[unknown[0] + 1 :])}" if unknown else "")
        )
    return " ".join(lines).rstrip(". ")


def fetch(place: str) -> Any:
    """The object at "module:name"; imported only now, so that help needs no torch."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
