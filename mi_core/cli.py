"""The command line: `python -m mi_core info MODEL`, and one subcommand per analysis.

A subcommand's options are the fields of the analysis' frozen Inputs (tyro makes them), its output is the
Result's JSON. Progress and warnings go to stderr. An error is one line on stderr and exit code 2.

Nothing slow is imported before it is needed, so `--help` answers at once.
"""

import contextlib
import dataclasses
import io
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from mi_core.errors import Cancelled, InputError, LanternError

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel

PROGRAM = "python -m mi_core"
EXIT_ERROR, EXIT_STOPPED = 2, 130

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


@dataclasses.dataclass(frozen=True, slots=True)
class Analysis:
    """One subcommand.

    Attributes:
        help: one line.
        inputs: "module:name" of its Inputs.
        function: "module:name" of its function `(model, inputs, on_step=...) -> Result`.
        text_fields: fields that are given as text: (function that resolves them, help).
    """

    help: str
    inputs: str
    function: str
    text_fields: Mapping[str, tuple[TextField, str]] = dataclasses.field(default_factory=dict)


ANALYSES: dict[str, Analysis] = {
    "causal-trace": Analysis(
        help="trace where the answer to a prompt comes from, layer by layer and token by token",
        inputs="mi_core.analyses:CausalTraceInputs",
        function="mi_core.analyses:causal_trace",
        text_fields={
            "subject": (subject_span, 'what is noised: words of the prompt, or a token span like "2:5"')
        },
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: what follows the program's name; None = those of this process.

    Returns:
        Exit code: 0, 2 after an error, 130 when stopped.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    command, rest = (given[0], given[1:]) if given else ("--help", [])
    try:
        if command in ("-h", "--help"):
            print(_overview())
            return 0
        if command == "--version":
            print(import_module("mi_core.version").__version__)
            return 0
        if command == "info":
            return _info(rest)
        if command in ANALYSES:
            return _analyse(command, rest)
        raise InputError(f"There is no command {command!r}", fix=f"Choose one of info, {', '.join(ANALYSES)}")
    except LanternError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_ERROR
    except (KeyboardInterrupt, Cancelled):
        print("stopped", file=sys.stderr)
        return EXIT_STOPPED
    except BrokenPipeError:  # the reader of our output has enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _overview() -> str:
    rows = {"info": "what a model has: sites, sizes, proofs, memory, files"} | {
        name: analysis.help for name, analysis in ANALYSES.items()
    }
    lines = [f"  {name:<14} {text}" for name, text in rows.items()]
    return "\n".join(
        [f"usage: {PROGRAM} COMMAND ...", "", "Look inside language models.", "", *lines, "",
         f"{PROGRAM} COMMAND --help tells the options of a command."]
    )  # fmt: skip


def _parse(kind: type, arguments: list[str], command: str) -> Any:
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


def _spec(options: ModelOptions) -> Any:
    from mi_core.model.spec import ModelSpec

    named = ModelSpec.from_text(options.model)
    return dataclasses.replace(
        named,
        dtype=options.dtype,
        device=options.device,
        attention=options.attention,
        device_map=options.device_map,
    )


def _load(options: ModelOptions, progress: "Progress") -> "LoadedModel":
    spec = _spec(options)
    if not options.download:
        from mi_core.model.discovery import find

        find(spec.name, spec.revision)  # a typing error is told before torch is imported
    from mi_core.engine.holder import load_model

    return load_model(spec, on_phase=progress.phase, allow_download=options.download)


def _info(arguments: list[str]) -> int:
    import tyro

    kind = dataclasses.make_dataclass(
        "Info",
        [
            (
                "model",
                Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")],
                dataclasses.field(),
            )
        ],
        bases=(ModelOptions,),
        frozen=True,
    )
    kind.__doc__ = (ModelOptions.__doc__ or "").replace("Which model", "What a model has. Which model", 1)
    options = _parse(kind, arguments, "info")
    from mi_core.model.describe import describe_model

    progress = Progress()
    model = _load(options, progress)
    progress.done()
    print(describe_model(model))
    return 0


def options_of(analysis: Analysis) -> type:
    """A dataclass with the options of a subcommand: model, output, and every field of the Inputs."""
    import docstring_parser
    import tyro

    inputs = _fetch(analysis.inputs)
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
        annotated = Annotated[kind, tyro.conf.arg(help=text or None)]
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.append((field.name, annotated, dataclasses.field()))
        else:
            default = None if field.name in analysis.text_fields else field.default
            optional.append((field.name, annotated, dataclasses.field(default=default)))
    if analysis.text_fields:
        chosen = tyro.conf.arg(help="which occurrence of those words, from 0")
        optional.append(("occurrence", Annotated[int, chosen], dataclasses.field(default=0)))
    where = tyro.conf.arg(help='file for the result, as JSON; "-" = standard output')
    optional.append(("output", Annotated[str, where], dataclasses.field(default="-")))
    made = dataclasses.make_dataclass("Options", [*required, *optional], kw_only=True, frozen=True)
    made.__doc__ = analysis.help[0].upper() + analysis.help[1:] + "."
    return made


def _analyse(command: str, arguments: list[str]) -> int:
    analysis = ANALYSES[command]
    own = options_of(analysis)
    both = dataclasses.make_dataclass("Both", [], bases=(own, ModelOptions), frozen=True, kw_only=True)
    both.__doc__ = own.__doc__
    options = _parse(both, arguments, command)
    output = None if options.output == "-" else Path(options.output)
    _check_output(output)
    progress = Progress()
    model = _load(options, progress)
    result = _fetch(analysis.function)(model, _inputs_of(analysis, model, options), on_step=progress.step)
    progress.done()
    for warning in result.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for check in result.checks:
        if not check.passed:
            print(f"warning: check failed: {check.name} ({check.detail})", file=sys.stderr)
    _write(output, result.to_json())
    return EXIT_STOPPED if result.cancelled else 0


def _inputs_of(analysis: Analysis, model: "LoadedModel", options: Any) -> Any:
    """The Inputs, with those fields resolved that were given as text."""
    inputs = _fetch(analysis.inputs)
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(inputs)}
    for name, (resolve, _) in analysis.text_fields.items():
        if values[name] is not None:
            values[name] = resolve(model, {**values, "occurrence": options.occurrence}, values[name])
    return inputs(**values)


def _fetch(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def _check_output(output: Path | None) -> None:
    """Refuse a file that cannot be written before minutes are spent on its content."""
    if output is not None and (output.is_dir() or not output.absolute().parent.is_dir()):
        raise InputError(
            f"{str(output)!r} cannot be written", why="it is a folder, or its folder does not exist"
        )


def _write(output: Path | None, text: str) -> None:
    if output is None:
        print(text)
        return
    part = output.with_name(output.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, output)  # never half a file under the name that was asked for
    except OSError as error:
        raise InputError(
            f"{str(output)!r} cannot be written", why=error.strerror or "unknown cause"
        ) from error


class Progress:
    """Progress on stderr: one line that changes on a terminal, one line per phase elsewhere."""

    def __init__(self) -> None:
        self._terminal, self._last = sys.stderr.isatty(), ""

    def phase(self, phase: str, fraction: float, text: str) -> None:
        """Progress of loading (`mi_core.model.progress.OnPhase`)."""
        self._show(phase, f"{phase} {fraction:4.0%} {text}")

    def step(self, step: Any) -> None:
        """Progress of an analysis (its `Step`)."""
        left = "" if step.seconds_left is None else f", {step.seconds_left:.0f} s left"
        self._show("run", f"run {step.done}/{step.total}{left} {step.text}")

    def done(self) -> None:
        """End the changing line."""
        if self._terminal and self._last:
            print(file=sys.stderr)

    def _show(self, phase: str, line: str) -> None:
        if self._terminal:
            print(f"\r\x1b[K{line[:100]}", end="", file=sys.stderr, flush=True)
        elif phase != self._last:
            print(line, file=sys.stderr, flush=True)
        self._last = phase
