"""One HTML file that shows a figure with hover, caption, checks and origin, and never touches the network.

Vega's program is inside. A content-security policy forbids every request, so the promise does not depend on
our care.
"""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from mi_core.charts.theme import DARK_PAGE
from mi_core.errors import InputError
from mi_core.exports.figure import Figure

RECORD_ID = "lantern-figure"
MAX_RESULT_CHARACTERS = 5_000_000
# Vega compiles its expressions with Function(), hence unsafe-eval; nothing may be fetched from anywhere.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="Lantern">
<meta name="description" content="{description}">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 "Source Sans 3", "Source Sans", Arial, "Liberation Sans", sans-serif;
  color: {ink}; background: {page}; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.3rem; }} h2 {{ font-size: 1rem; margin-bottom: .2rem; }}
#figure {{ overflow-x: auto; }} .warning {{ border-left: 4px solid #e08214; padding-left: .8rem; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; font-size: .85rem; }}
dt {{ opacity: .75; }} dd {{ margin: 0; overflow-wrap: anywhere; }} summary {{ cursor: pointer; }}
#vg-tooltip-element {{ font-family: inherit; }}
</style>
</head>
<body>
<h1>{title}</h1>
{warnings}
<div id="figure" role="img" aria-label="{description}"></div>
<p>{caption}</p>
{sections}
<script type="application/json" id="lantern-figure">{record}</script>
<script type="application/json" id="lantern-result">{result}</script>
<script type="application/json" id="lantern-spec">{spec}</script>
<script>{program}</script>
<script>
const spec = JSON.parse(document.getElementById("lantern-spec").textContent);
lanternEmbed("#figure", spec, {{
  renderer: "{renderer}", tooltip: {{ theme: "{tooltip}" }},
  actions: {{ export: true, source: false, compiled: false, editor: false }}
}}).catch(error => {{
  document.getElementById("figure").textContent = "The figure cannot be drawn: " + error.message;
}});
</script>
</body>
</html>
"""


def page(figure: Figure, spec: Mapping[str, Any], program: str, *, dark: bool) -> str:
    """The file's text.

    Args:
        figure: what is shown.
        spec: the styled specification, data included.
        program: Vega, which must set `window.lanternEmbed`.
        dark: light text on a dark page.
    """
    if "</script" in program.lower():
        raise ValueError("the program would end its own script element")
    renderer = spec.get("usermeta", {}).get("embedOptions", {}).get("renderer", "svg")
    result = figure.result_json()
    return _PAGE.format(
        policy=escape(POLICY),
        title=escape(figure.title),
        description=escape(figure.description or figure.caption),
        caption=escape(figure.caption),
        warnings="".join(f'<p class="warning">{escape(text)}</p>' for text in figure.warnings),
        sections=_sections(figure),
        ink="#eceff4" if dark else "#1f2430",
        page=DARK_PAGE if dark else "#ffffff",
        tooltip="dark" if dark else "light",
        renderer="canvas" if renderer == "canvas" else "svg",
        record=in_script(figure.record_json()),
        result=in_script(result) if len(result) <= MAX_RESULT_CHARACTERS else "null",
        spec=in_script(json.dumps(spec, allow_nan=False)),
        program=program,
    )


def in_script(json_text: str) -> str:
    """JSON that can stand inside a script element: no character in it can end or comment the element."""
    return json_text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _sections(figure: Figure) -> str:
    """How to read, checks and origin, folded."""
    parts = []
    if figure.how_to_read:
        parts.append(_folded("How to read this", f"<p>{escape(figure.how_to_read)}</p>"))
    if figure.checks:
        lines = "".join(
            f"<dt>{'passed' if check.passed else 'FAILED'}</dt>"
            f"<dd>{escape(check.name)}: {escape(check.detail)}</dd>"
            for check in figure.checks
        )
        parts.append(_folded("Checks", f"<dl>{lines}</dl>"))
    if figure.provenance is not None:
        entries = figure.provenance.to_dict().items()
        lines = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in entries)
        parts.append(_folded("Where the numbers come from", f"<dl>{lines}</dl>"))
    return "\n".join(parts)


def _folded(title: str, inner: str) -> str:
    return f"<details><summary>{title}</summary>{inner}</details>"


def record_of(html: bytes) -> str:
    """JSON text of the record.

    Raises:
        InputError: the file has none.
    """
    found = _script(html, RECORD_ID)
    if found is None:
        raise InputError("This HTML file says nothing about where it comes from", why="it was not made here")
    return found


def result_of(html: bytes) -> str | None:
    """JSON text of the whole result; None if it was too large to be put in."""
    found = _script(html, "lantern-result")
    return None if found == "null" else found


def _script(html: bytes, name: str) -> str | None:
    """Text of a data element, found without parsing the page."""
    mark = f'<script type="application/json" id="{name}">'.encode()
    start = html.find(mark)
    end = html.find(b"</script>", start)
    return None if start < 0 or end < 0 else html[start + len(mark) : end].decode("utf-8", errors="replace")
