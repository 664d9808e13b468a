"""The options of the command line: made by tyro from the frozen Inputs of an analysis."""

import contextlib
import dataclasses
import io
import re
from importlib import import_module
from typing import Annotated, Any, get_type_hints

from mi_core.cli_table import Analysis
from mi_core.errors import InputError

PROGRAM = "python -m mi_core"


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
        default = field.default
        if field.name in analysis.text_fields:
            kind, text = str | None, analysis.text_fields[field.name][1]
            kind = str if default is dataclasses.MISSING else kind
            default = analysis.defaults.get(field.name, default if default is dataclasses.MISSING else None)
        annotated = Annotated[kind, tyro.conf.arg(help=text or None)]
        if default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.append((field.name, annotated, dataclasses.field()))
        else:
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
