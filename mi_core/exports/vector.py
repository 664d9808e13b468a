"""What is done to the converter's SVG: fonts for every script, size in inches, description and record."""

import re
import unicodedata
from html import escape, unescape

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
)
_KOREAN = ("Noto Sans CJK KR", "Noto Sans CJK JP", "Apple SD Gothic Neo", "Malgun Gothic")
_WIDE = ("DejaVu Sans", "Segoe UI Symbol", "Arial Unicode MS")  # letters of many scripts, arrows, signs
_MONOSPACED = "DejaVu Sans Mono"
_SCRIPTS = {
    **dict.fromkeys(("CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC", "FULLWIDTH"), _CJK),
    "HANGUL": _KOREAN,
    **dict.fromkeys(("HEBREW", "ARABIC", "GEORGIAN", "ARMENIAN"), _WIDE),
}
_OURS = {"LATIN", "GREEK", "CYRILLIC", "DIGIT", "SUPERSCRIPT", "SUBSCRIPT"}
# Symbols above U+2190 that Arial and Liberation Sans have.
_COVERED = frozenset(
    "\u2190\u2191\u2192\u2193\u2194\u2195\u2202\u2206\u220f\u2211\u2212\u221a\u221e\u2229\u222b\u2248\u2260"
    "\u2264\u2265\u25a0\u25a1\u25b2\u25ba\u25bc\u25c4\u25ca\u25cb\u25cf"
)


def with_fonts(svg: str) -> str:
    """Name a font for every text that has characters which Arial lacks.

    Otherwise the converter takes any font that covers the whole text, often a bold or a serif one. Fonts that
    have the Latin letters too come first, because the converter sets a whole text in one font if it can.
    """
    return _TEXT.sub(_with_font, svg)


def _with_font(found: re.Match[str]) -> str:
    opening, inner, closing = found.groups()
    text = unescape(re.sub(r"<[^>]*>", "", inner))
    families = () if text.isascii() else families_for(text)
    if families == _WIDE and _MONOSPACED in opening:
        families = ()  # it has these signs itself, as wide as a letter
    if families:
        named = ", ".join(f"'{family}'" for family in families)
        opening = opening.replace('font-family="', f'font-family="{named}, ', 1)
    return opening + inner + closing


def families_for(text: str) -> tuple[str, ...]:
    """Font families to try first, for the first character that Arial lacks; none if it has them all."""
    for character in text:
        code = ord(character)
        if code < 0x250 or character in _COVERED or 0x2000 <= code <= 0x2069:
            continue
        script = unicodedata.name(character, "").split(" ")[0].split("-")[0]
        if script in _OURS:
            continue
        if script in _SCRIPTS:
            return _SCRIPTS[script]
        is_letter = unicodedata.category(character)[0] in "LM" and code < 0x1F000
        return (f"Noto Sans {script.capitalize()}", *_WIDE) if is_letter else _WIDE
    return ()


def with_stable_names(svg: str) -> str:
    """Number the gradients and clips from 0; Vega counts them on from one figure to the next."""
    names: dict[str, str] = {}

    def renamed(found: re.Match[str]) -> str:
        kind = found[1]
        known = sum(name.startswith(kind) for name in names)
        return names.setdefault(found[0], f"{kind}{known}")

    return re.sub(r"\b(gradient_|clip)\d+\b(?=[\")])", renamed, svg)


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
