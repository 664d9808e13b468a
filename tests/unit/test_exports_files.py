"""Exported files parse, have the size that was asked for, hold live text, and bring the same numbers back."""

import io
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mi_core.analyses import CausalTraceResult
from mi_core.charts.colours import ColourScale
from mi_core.charts.heatmap import Axis, Panel, heatmap
from mi_core.charts.theme import SIZES, SizeName, styled
from mi_core.errors import InputError
from mi_core.exports import tables, vector
from mi_core.exports.causal_trace import (
    cell_figure,
    curve_figure,
    heatmap_figure,
    samples_figure,
    severed_figure,
)
from mi_core.exports.causal_trace_average import role_lines_figure
from mi_core.exports.converter import shared_converter
from mi_core.exports.export import export
from mi_core.exports.figure import Figure, file_name
from mi_core.tokens import Token
from mi_core.visible import visible
from tests.examples import example_provenance, example_result
from tests.examples_average import example_average

SVG = "{http://www.w3.org/2000/svg}"
TOKENS = (
    "the",
    " the",
    " the",
    "</script><script>alert(1)</script>",
    "a\"b'\\c$`",
    "\n\t",
    "שלום",
    "日本",
    "😀",
    "<&>]]>",
)


@pytest.fixture(scope="module")
def figure() -> Figure:
    return heatmap_figure(example_result(), chosen=("state", 4, 3))


def hostile_result() -> CausalTraceResult:
    tokens = tuple(Token(i, 5 + i, visible(text), 0, 0) for i, text in enumerate(TOKENS))
    return replace(example_result(), tokens=tokens)


def texts_of(svg: bytes) -> list[str]:
    root = ElementTree.fromstring(svg)
    return ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]


@pytest.mark.parametrize(
    ("preset", "dpi"), [("column", 300), ("column", 600), ("text", 300), ("page", 300), ("slide", 100)]
)
def test_png_has_the_pixels_that_size_and_resolution_ask_for(figure, preset, dpi: int) -> None:
    picture = Image.open(io.BytesIO(export(figure, "png", preset=preset, dpi=dpi)))
    place = SIZES[preset]
    height = styled(figure.spec, size=preset)["height"]
    assert picture.width == round(place.width / 72 * dpi)
    assert abs(picture.height - height / 72 * dpi) < 1
    assert picture.info["dpi"] == pytest.approx((dpi, dpi), rel=1e-3)


def test_svg_is_xml_of_the_physical_width_with_live_text(figure) -> None:
    data = export(figure, "svg", preset="column")
    root = ElementTree.fromstring(data)
    assert root.get("width") == "3.25in"
    texts = texts_of(data)
    for label in ("4 ·Tower*", "0 <bos>", "Layer", "state", "P(·Paris) [probability]", "0.0834corrupted"):
        assert label in texts
    assert root.findtext(f"{SVG}title") == figure.title
    assert root.findtext(f"{SVG}desc") == figure.description


def test_every_token_has_its_own_row_of_text_whatever_is_in_it() -> None:
    result = hostile_result()
    texts = texts_of(export(heatmap_figure(result), "svg", preset="slide"))
    labels = [f"{token.position} {token.visible}" for token in result.tokens]
    for label in labels:
        shown = label.replace("שלום", "\u2068שלום\u2069")
        found = [
            t for t in texts if t.removesuffix("*") == shown or (t.endswith("…") and shown.startswith(t[:-1]))
        ]
        assert len(found) == 1, label


def test_colours_in_the_file_are_the_scales_ends_and_white_at_zero() -> None:
    scale = ColourScale("x", "", (-1.0, 1.0), diverging=True)
    axis = Axis("layer", "Layer", ("0", "1", "2"))
    rows = Axis("row", "Row", ("0",))
    spec = heatmap([Panel("a", "A", np.array([[-1.0, 0.0, 1.0]]))], rows, axis, scale)
    svg = shared_converter().svg(styled(spec, theme="print"))
    fills = re.findall(r'<path [^>]*fill="(rgb[^"]+)"', svg)
    assert fills == ["rgb(127, 59, 8)", "rgb(255, 255, 255)", "rgb(5, 48, 97)"]


def test_small_cells_still_have_a_colour_bar_and_no_gaps() -> None:
    axis = Axis("layer", "Layer", tuple(str(i) for i in range(70)))
    panel = Panel("a", "A", np.linspace(0, 1, 140).reshape(2, 70))
    spec = heatmap([panel], Axis("row", "Row", ("0", "1")), axis, ColourScale("x", "", (0.0, 1.0)))
    svg = shared_converter().svg(styled(spec, theme="print"))
    assert "<linearGradient" in svg
    edges = re.findall(
        r'<path aria-label="[^"]*" [^>]*d="M([\d.]+),([\d.]+)h([\d.]+)v([\d.]+)h[^>]*fill="rgb', svg
    )
    assert len(edges) == 140
    starts, widths = np.array([[float(e[0]), float(e[2])] for e in edges[:70]]).T
    assert ((starts[:-1] + widths[:-1]) > starts[1:]).all()  # each reaches under its neighbour


@pytest.mark.parametrize("rows", [1, 2, 10, 40])
def test_rows_are_as_high_as_a_line_of_text_on_screen_and_on_paper(rows: int) -> None:
    axis = Axis("row", "Row", tuple("x" * rows))
    spec = heatmap([Panel("a", "A", np.zeros((rows, 4)))], axis, Axis("layer", "Layer", tuple("0123")),
                   ColourScale("x", "", (0.0, 1.0), marks=((0.0, "corrupted"),)))  # fmt: skip
    lines: dict[SizeName, float] = {"screen": 12, "column": 7, "page": 8}
    for size, text in lines.items():
        svg = shared_converter().svg(styled(spec, theme="print", size=size))
        heights = {float(h) for h in re.findall(r'role-frame root".*?d="M[^"]*?v([\d.]+)', svg)}
        assert min(heights) / rows > 1.1 * text or rows > 24


def test_pdf_has_the_page_size_and_embedded_fonts_with_text(figure) -> None:
    data = export(figure, "pdf", preset="column")
    assert data.startswith(b"%PDF-1.")
    assert data.rstrip().endswith(b"%%EOF")
    height = styled(figure.spec, size="column")["height"]
    assert b"/MediaBox [0 0 234 %d]" % height in data
    assert b"/ToUnicode" in data
    assert b"/Type3" not in data


def test_pdf_update_points_to_the_objects_that_it_adds(figure) -> None:
    """Follow the trailer as a reader does: startxref -> section -> /Info -> the object with the title."""
    data = export(figure, "pdf")
    start = int(data.rsplit(b"startxref", 1)[1].split()[0])
    assert data[start:].startswith(b"xref\n")
    trailer = data[start:].split(b"trailer", 1)[1]
    previous = int(re.search(rb"/Prev (\d+)", trailer)[1])  # type: ignore[index]
    assert data[previous:].startswith(b"xref")
    number = int(re.search(rb"/Info (\d+) 0 R", trailer)[1])  # type: ignore[index]
    place = int(re.search(rb"\n%d 1\n(\d{10}) 00000 n" % number, data[start:])[1])  # type: ignore[index]
    assert data[place:].startswith(b"%d 0 obj" % number)
    title = re.search(rb"/Title <([0-9a-f]+)>", data[place:])
    assert title is not None
    assert bytes.fromhex(title[1].decode()).decode("utf-16") == figure.title


def test_csv_has_every_number_with_all_its_digits(figure) -> None:
    result = example_result()
    table = tables.frame_from_csv(export(figure, "csv"))
    assert {"kind", "position", "token", "layer", "metric", "value", "unit", "model", "fingerprint"} <= set(
        table
    )
    for kind in result.grids:
        rows = table[table["kind"] == kind]
        grid = rows.pivot(index="position", columns="layer", values="value").to_numpy()
        np.testing.assert_array_equal(grid, result.grid(kind))
    assert set(table["unit"]) == {"probability"}
    assert set(table["fingerprint"].astype(str)) == {"0123456789ab"}


def test_csv_texts_are_never_run_as_formulas_and_come_back() -> None:
    result = hostile_result()
    first = replace(result.tokens[0], visible='=HYPERLINK("http://evil")')
    figure = heatmap_figure(replace(result, tokens=(first, *result.tokens[1:])))
    data = export(figure, "csv")
    assert b"\n=" not in data
    assert b",=" not in data
    assert b',"=' not in data
    table = tables.frame_from_csv(data)
    assert '=HYPERLINK("http://evil")' in set(table["token"].dropna())


def test_json_holds_the_very_result(figure) -> None:
    stored = json.loads(export(figure, "json"))
    result = CausalTraceResult.from_json(json.dumps(stored["result"]))
    for kind, grid in example_result().grids.items():
        for metric, samples in grid.samples.items():
            np.testing.assert_array_equal(result.grids[kind].samples[metric], samples)
    assert stored["spec"]["datasets"] == figure.spec["datasets"]


def test_every_figure_can_be_exported() -> None:
    result = example_result(("state", "state_attn_severed", "state_mlp_severed", "attn", "mlp"))
    figures = [
        curve_figure(result), severed_figure(result), cell_figure(result, "mlp", 4, 3),
        samples_figure(result, "state", 4, 3), role_lines_figure(example_average()),
        heatmap_figure(result, "kl", kinds=["attn"], palette="rome"),
    ]  # fmt: skip
    for each in figures:
        assert texts_of(export(each, "svg", theme="dark"))
        assert len(export(each, "csv").splitlines()) > 1


def test_the_cells_table_is_what_the_bars_show() -> None:
    result = example_result()
    table = cell_figure(result, "mlp", 4, 3).frame()
    restored = table[table["run"] == "restored run"]
    np.testing.assert_array_equal(restored["value"], result.grids["mlp"].top_probabilities[4, 3])


def test_unusable_requests_are_refused_in_words(figure) -> None:
    with pytest.raises(InputError, match="no export format 'gif'"):
        export(figure, "gif")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="5 dpi"):
        export(figure, "png", dpi=5)
    with pytest.raises(InputError, match="million pixels"):
        export(figure, "png", dpi=2400, preset="slide")


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("atlas", "causal_trace_atlas_"),
        ("/home/me/models/llama 3", "causal_trace_llama-3_"),
        ("C:\\models\\gpt2\\", "causal_trace_gpt2_"),
        ("../../etc/passwd", "causal_trace_passwd_"),
        ("openai-community/gpt2\n.exe", "causal_trace_gpt2-.exe_"),
        ("....", "causal_trace_"),
    ],
)
def test_file_names_are_telling_and_safe(model: str, name: str) -> None:
    result = replace(example_result(), provenance=replace(example_provenance(), model=model))
    found = file_name(heatmap_figure(result), "png")
    assert re.fullmatch(re.escape(name) + r"[0-9a-f]{4}\.png", found)


def test_equal_figures_have_equal_names_and_other_views_others() -> None:
    result = example_result()
    one, same, other = (
        file_name(heatmap_figure(result, metric), "svg") for metric in ("probability", "probability", "kl")
    )
    assert one == same != other


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("7 ·Paris −0.5 →", None),
        ("7 Москва ñ Ελ", None),
        ("7 日本", "Noto Sans CJK JP"),
        ("7 한국", "Noto Sans CJK KR"),
        ("7 ↵", "DejaVu Sans"),
        ("7 \u2068שלום\u2069", "DejaVu Sans"),
        ("7 हिन्दी", "Noto Sans Devanagari"),
    ],
)
def test_a_font_is_named_for_text_that_arial_lacks(text: str, first: str | None) -> None:
    assert (vector.families_for(text) or (None,))[0] == first
