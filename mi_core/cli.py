"""The command line: `python -m mi_core info MODEL`, and one subcommand per analysis.

A subcommand's options are the fields of the analysis' frozen Inputs (tyro makes them), its output is the
Result's JSON. Progress and warnings go to stderr. An error is one line on stderr and exit code 2.

Nothing slow is imported before it is needed, so `--help` answers at once.
"""

import dataclasses
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mi_core.cli_options import (
    PROGRAM,
    ModelOptions,
    fetch,
    options_of,
    parse_options,
)
from mi_core.cli_table import ANALYSES, Analysis
from mi_core.errors import Cancelled, InputError, LanternError

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel

EXIT_ERROR, EXIT_STOPPED = 2, 130
FLAG = "--all-cached"


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
    options = parse_options(kind, arguments, "info")
    from mi_core.model.describe import describe_model

    progress = Progress()
    model = _load(options, progress)
    progress.done()
    print(describe_model(model))
    return 0


def _analyse(command: str, arguments: list[str]) -> int:
    analysis = ANALYSES[command]
    if FLAG in arguments and any(word.partition("=")[0] == "--model" for word in arguments):
        raise InputError(f"{FLAG} and --model exclude each other", fix="Leave one of them out")
    options = parse_options(_options_kind(analysis, FLAG in arguments), arguments, command)
    progress = Progress()
    if options.all_cached:
        return _analyse_all(analysis, options, progress)
    output = None if options.output == "-" else Path(options.output)
    _check_output(output)
    result = _result(analysis, _load(options, progress), options, progress)
    _write(output, result.to_json())
    return EXIT_STOPPED if result.cancelled else 0


def _options_kind(analysis: Analysis, all_models: bool) -> type:
    """The options of a subcommand and of its model; with `--all-cached` no model has to be named."""
    import tyro

    own = options_of(analysis)
    text = "run on every model of this machine in turn, instead of --model; --output is then a folder"
    flag = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help=text)]
    more: list[Any] = [("all_cached", flag, dataclasses.field(default=False))]
    if all_models:
        more.append(("model", Annotated[str, tyro.conf.Suppress], dataclasses.field(default="")))
    both = dataclasses.make_dataclass("Both", more, bases=(own, ModelOptions), frozen=True, kw_only=True)
    both.__doc__ = own.__doc__
    return both


def _analyse_all(analysis: Analysis, options: Any, progress: "Progress") -> int:
    from mi_core.cli_all import run_all

    spec = _spec(dataclasses.replace(options, model="any"))
    run_all(
        spec,
        options.output,
        lambda model: _result(analysis, model, options, progress),
        lambda file, result: _write(file, result.to_json()),
        progress.phase,
    )
    return 0


def _result(analysis: Analysis, model: "LoadedModel", options: Any, progress: "Progress") -> Any:
    """Run an analysis; its warnings and failed checks go to stderr."""
    result = fetch(analysis.function)(model, _inputs_of(analysis, model, options), on_step=progress.step)
    progress.done()
    for warning in result.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for check in result.checks:
        if not check.passed:
            print(f"warning: check failed: {check.name} ({check.detail})", file=sys.stderr)
    return result


def _inputs_of(analysis: Analysis, model: "LoadedModel", options: Any) -> Any:
    """The Inputs, with those fields resolved that were given as text."""
    inputs = fetch(analysis.inputs)
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(inputs)}
    extras = {extra.name: getattr(options, extra.name) for extra in analysis.extras}
    for name, (resolve, _) in analysis.text_fields.items():
        if values[name] is not None:
            values[name] = resolve(model, {**values, **extras}, values[name])
    return inputs(**values)


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
