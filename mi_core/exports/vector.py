"""What is done to the converter's SVG: fonts for every script, size in inches, description and record."""

import re
import unicodedata
from html import escape, unescape
from itertools import groupby

RECORD_ID = "lantern-figure"
_TEXT = re.compile(r"(<text\b[^>]*>)(.*?)(</text>)", re.DOTALL)
_ROOT = re.compile(r'<svg\b[^>]*?\bwidth="(?P<width>[\d.]+)"[^>]*?\bheight="(?P<height>[\d.]+)"[^>]*?>')

_CJK = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Hiragino Sans",
    "PingFang SC",
    "Yu Gothic",
    "Microsoft YaHei",
    "SimSun",
)
_KOREAN = ("Noto Sans CJK KR", "Apple SD Gothic Neo", "Malgun Gothic")
_SYMBOLS = (
    "DejaVu Sans", "Noto Sans Symbols 2", "Noto Sans Symbols", "Noto Sans Math", "Segoe UI Symbol",
    "Apple Symbols", "Arial Unicode MS",
)  # fmt: skip
_EMOJI = (
    "Noto Emoji",
    "Noto Sans Symbols 2",
    "Noto Color Emoji",
    "Segoe UI Emoji",
    "Apple Color Emoji",
    "DejaVu Sans",
)
_SCRIPTS = {
    "CJK": _CJK,
    "HIRAGANA": _CJK,
    "KATAKANA": _CJK,
    "IDEOGRAPHIC": _CJK,
    "FULLWIDTH": _CJK,
    "HANGUL": _KOREAN,
}
_OURS = {"LATIN", "GREEK", "CYRILLIC", "DIGIT", "SUPERSCRIPT", "SUBSCRIPT"}
# Symbols above U+2190 that Liberation Sans and Arial have.
_COVERED = set("\u2190\u2191\u2192\u2193\u2194\u2195\u2202\u2206\u220f\u2211\u2212\u221a\u221e\u2229\u222b"
               "\u2248\u2260\u2264\u2265\u25a0\u25a1\u25b2\u25ba\u25bc\u25c4\u25ca\u25cb\u25cf")  # fmt: skip


def with_fonts(svg: str) -> str:
    """Name a font for every stretch of text that Arial has no letters for.

    The converter looks for one substitute for a whole text and draws boxes if there is none; stretches of one
    script each find theirs, here and wherever the SVG is opened.
    """
    return _TEXT.sub(lambda found: found[1] + _with_spans(found[2]) + found[3], svg)


def _with_spans(inner: str) -> str:
    """The content of a text element; line spans inside it stay."""
    parts = re.split(r"(<[^>]*>)", inner)
    return "".join(part if part.startswith("<") else _spans(unescape(part)) for part in parts)


def _spans(text: str) -> str:
    if text.isascii():
        return escape(text, quote=False)
    families: list[tuple[str, ...]] = []
    for character in text:
        found = families_for(character)
        families.append(found if found is not None else (families[-1] if families else ()))
    pieces = []
    for family, group in groupby(zip(families, text, strict=True), key=lambda pair: pair[0]):
        piece = escape("".join(character for _, character in group), quote=False)
        listed = ", ".join((*family, "Arial", "Liberation Sans", "sans-serif"))
        pieces.append(f'<tspan font-family="{listed}">{piece}</tspan>' if family else piece)
    return "".join(pieces)


def families_for(character: str) -> tuple[str, ...] | None:
    """Font families for a character: () = the figure's own, None = those of the character before."""
    code = ord(character)
    if unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return None
    if code < 0x250 or character in _COVERED or 0x2010 <= code <= 0x2044:
        return ()
    script = unicodedata.name(character, "").split(" ")[0].split("-")[0]
    if script in _OURS:
        return ()
    if script in _SCRIPTS:
        return _SCRIPTS[script]
    if code >= 0x1F000:
        return _EMOJI
    if unicodedata.category(character)[0] in "LM":
        name = script.capitalize()
        return (f"Noto Sans {name}", f"Noto Naskh {name}", f"Noto Serif {name}", "DejaVu Sans", "Segoe UI")
    return _SYMBOLS


def in_inches(svg: str, units_per_inch: float) -> str:
    """State the physical size, so that a paper's figure is as wide as it was meant to be."""

    def sized(found: re.Match[str]) -> str:
        tag = found[0]
        for name in ("width", "height"):
            inches = f"{float(found[name]) / units_per_inch:.4f}".rstrip("0").rstrip(".")
            tag = tag.replace(f'{name}="{found[name]}"', f'{name}="{inches}in"', 1)
        return tag

    return _ROOT.sub(sized, svg, count=1)


def with_record(svg: str, *, title: str, description: str, record_json: str) -> str:
    """Title and description for those who cannot see it, and the record in a metadata element."""
    head = (
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>"
        f'<metadata id="{RECORD_ID}">{escape(record_json, quote=False)}</metadata>'
    )
    return re.sub(r"<svg\b[^>]*>", lambda found: found[0] + head, svg, count=1)


def size_of(svg: str) -> tuple[float, float]:
    """Width and height as written in the root element.

    Raises:
        ValueError: it has none.
    """
    found = _ROOT.search(svg)
    if found is None:
        raise ValueError("the SVG has no size")
    return float(found["width"]), float(found["height"])
