"""Writes docs/sites.md from the table in mi_core/sites.py: `python -m docs.write_sites`.

A test says when the page is stale.
"""

from pathlib import Path

from mi_core.sites import SITES, Site

PAGE = Path(__file__).with_name("sites.md")

HEAD = """\
# Sites

<!-- Written by `python -m docs.write_sites` from mi_core/sites.py: change the table there. -->

Places in a decoder where an activation can be read (`capture`) and changed (`Edit`). Names, shapes and
meanings are those of TransformerLens; weights are as published (no folded norms, no centring), so values can
differ from a library that folds them. Shapes leave out the batch axis; with grouped-query attention `kv_head`
is shorter than `head`. Layers and heads count from 0. A site that a model does not have is refused, with the
reason, never faked.

| site | shape | what it is | full name | families |
|---|---|---|---|---|
"""


def row(site: Site) -> str:
    """One line of the table."""
    cells = (f"`{site.name}`", " x ".join(site.axes), site.meaning, f"`{site.full_name}`", site.availability)
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def page() -> str:
    """The whole page."""
    return HEAD + "\n".join(row(site) for site in SITES.values()) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
