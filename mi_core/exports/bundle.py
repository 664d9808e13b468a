"""A figure with all that belongs to it in one zip: pictures, numbers, caption, references, recipe."""

import io
import zipfile

from mi_core.charts.theme import SizeName, ThemeName
from mi_core.exports import tables
from mi_core.exports.converter import Converter
from mi_core.exports.export import drawing, export, picture
from mi_core.exports.figure import Figure, file_name
from mi_core.exports.references import bibliography

DPIS = (300, 600)
_EPOCH = (1980, 1, 1, 0, 0, 0)  # equal figures give equal files


def bundle(figure: Figure, *, preset: SizeName, theme: ThemeName, converter: Converter) -> bytes:
    """The zip's bytes: one folder named after the figure.

    Args:
        figure: what to write.
        preset: size of the pictures.
        theme: of the pictures.
        converter: draws them.

    Raises:
        ExportError: the drawing failed.
    """
    svg = drawing(figure, preset, theme, converter)
    files = {
        "figure.svg": picture(figure, svg, "svg", DPIS[0], preset, converter),
        "figure.pdf": picture(figure, svg, "pdf", DPIS[0], preset, converter),
        **{f"figure@{dpi}.png": picture(figure, svg, "png", dpi, preset, converter) for dpi in DPIS},
        "figure.html": export(figure, "html", converter=converter),
        "data.csv": tables.csv(figure),
        "data.json": tables.result_json(figure),
        "caption.md": caption_file(figure).encode(),
        "refs.bib": bibliography(figure.references).encode(),
    }
    if figure.recipe:
        files["recipe.py"] = figure.recipe.encode()
    folder = file_name(figure, "zip").removesuffix(".zip")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(f"{folder}/{name}", _EPOCH), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def caption_file(figure: Figure) -> str:
    """Title, caption, warnings, checks and how to read it, as Markdown."""
    parts = [f"# {_plain(figure.title)}", _plain(figure.caption)]
    parts += [f"Note: {_plain(warning)}" for warning in figure.warnings]
    if figure.how_to_read:
        parts += ["## How to read this", _plain(figure.how_to_read)]
    if figure.checks:
        lines = [
            f"- {'passed' if c.passed else 'FAILED'}: {_plain(c.name)}: {_plain(c.detail)}"
            for c in figure.checks
        ]
        parts += ["## Checks", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return "".join(f"\\{character}" if character in "\\`*_[]<>#|$" else character for character in text)
