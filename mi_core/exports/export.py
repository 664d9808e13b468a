"""Figure -> bytes: one function for every format, the same drawing in all of them.

What is on the screen and what is on paper differ only in theme and size (`charts.theme.styled`). Every
picture goes through one SVG, so PNG and PDF cannot differ from it.
"""

import math
from collections.abc import Mapping
from typing import Any

from mi_core.charts.theme import POINTS_PER_INCH, SizeName, ThemeName, styled
from mi_core.errors import InputError
from mi_core.exports import offline_html, pdf, png, tables, vector
from mi_core.exports.converter import Converter, shared_converter
from mi_core.exports.figure import Figure, Format, check_format

SCREEN_DPI = 96
MIN_DPI, MAX_DPI, MAX_PIXELS = 36, 2400, 150_000_000


def export(
    figure: Figure,
    format: Format,
    *,
    dpi: int = 300,
    preset: SizeName | None = None,
    theme: ThemeName | None = None,
    converter: Converter | None = None,
) -> bytes:
    """Write a figure.

    Args:
        figure: what to write.
        format: "png", "svg", "pdf", "html", "csv", "json" or "zip" (the bundle of all).
        dpi: resolution of PNG; a 3.25-inch figure at 300 has 975 pixels.
        preset: size; None = "screen" for HTML, else "text" (5.5 inches).
        theme: None = "light" for HTML, else "print".
        converter: None = the one of this process.

    Returns:
        The file's bytes, with the figure's record inside (CSV: in its last columns).

    Raises:
        InputError: unknown format or a resolution that is no picture.
        ExportError: the drawing failed.
    """
    check_format(format)
    if not MIN_DPI <= dpi <= MAX_DPI:
        raise InputError(f"The resolution is {dpi} dpi", fix=f"Choose {MIN_DPI} to {MAX_DPI}; 300 is usual")
    if format == "csv":
        return tables.csv(figure)
    if format == "json":
        return tables.result_json(figure)
    draw = converter or shared_converter()
    if format == "zip":
        from mi_core.exports.bundle import bundle

        return bundle(figure, preset=preset or "text", theme=theme or "print", converter=draw)
    if format == "html":
        return _html(figure, preset or "screen", theme or "light", draw)
    return picture(
        figure, drawing(figure, preset or "text", theme or "print", draw), format, dpi, preset or "text", draw
    )


def drawing(figure: Figure, preset: SizeName, theme: ThemeName, converter: Converter) -> str:
    """The SVG from which all pictures are made, one unit per point (per pixel for "screen")."""
    spec = styled(still(figure.spec), theme=theme, size=preset, title=figure.title, opaque=True)
    return vector.with_stable_names(vector.with_fonts(converter.svg(spec)))


def still(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A specification without what only a pointer needs.

    A selection of the nearest mark covers the picture with unseen shapes, which whoever edits an SVG meets at
    every click; layers that show what is pointed at are empty on paper.
    """
    layers = []
    for layer in spec.get("layer", ()):
        filters = [step.get("filter") for step in layer.get("transform", ())]
        if any(isinstance(one, dict) and "param" in one for one in filters):
            continue
        kept = [param for param in layer.get("params", ()) if not _of_nearest(param)]
        bare = {name: part for name, part in layer.items() if name != "params"}
        layers.append({**bare, "params": kept} if kept else bare)
    return {**spec, "layer": layers} if "layer" in spec else dict(spec)


def _of_nearest(param: Mapping[str, Any]) -> bool:
    select = param.get("select")
    return isinstance(select, Mapping) and bool(select.get("nearest"))


def picture(
    figure: Figure, svg: str, format: Format, dpi: int, preset: SizeName, converter: Converter
) -> bytes:
    """PNG, SVG or PDF of a drawing."""
    units_per_inch = SCREEN_DPI if preset == "screen" else POINTS_PER_INCH
    if format == "svg":
        sized = svg if preset == "screen" else vector.in_inches(svg, units_per_inch)
        description = figure.description or figure.caption
        return vector.with_record(
            sized, title=figure.title, description=description, record_json=figure.record_json()
        ).encode()
    if format == "pdf":
        return pdf.with_record(
            converter.pdf(svg), title=figure.title, subject=figure.caption, record_json=figure.record_json()
        )
    scale = png_scale(svg, dpi / units_per_inch)
    texts = {"Title": figure.title, "Description": figure.caption, "Software": "Lantern"}
    return png.with_record(
        converter.png(svg, scale), dpi=dpi, texts={**texts, png.RECORD_KEY: figure.record_json()}
    )


def png_scale(svg: str, scale: float) -> float:
    """Pixels per unit, a trace above `scale` so that 975.0 pixels are not cut down to 974.

    Raises:
        InputError: the picture would have more pixels than any program opens.
    """
    width, height = vector.size_of(svg)
    if width * height * scale**2 > MAX_PIXELS:
        most = math.floor(POINTS_PER_INCH * math.sqrt(MAX_PIXELS / (width * height)))
        raise InputError(
            f"The picture would have {width * height * scale**2 / 1e6:.0f} million pixels",
            fix=f"Choose at most {most} dpi, or SVG or PDF, which have no pixels",
        )
    return scale * (1 + 1e-6)


def _html(figure: Figure, preset: SizeName, theme: ThemeName, converter: Converter) -> bytes:
    spec = styled(figure.spec, theme=theme, size=preset, title=figure.title, opaque=True)
    return offline_html.page(figure, spec, converter.javascript(), dark=theme == "dark").encode()
