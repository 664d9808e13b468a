"""Charts as Altair objects, for notebooks and for whoever wants to go on composing them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mi_core.charts.theme import SizeName, ThemeName, styled

if TYPE_CHECKING:
    import altair


def altair_chart(
    spec: Mapping[str, Any], *, theme: ThemeName = "light", size: SizeName = "screen", title: str = ""
) -> "altair.TopLevelMixin":
    """A chart builder's specification as an Altair chart, which notebooks draw by themselves.

    The data are inline values: the chart never touches Altair's global data transformer, so it stays the same
    figure wherever it is drawn.

    Args:
        spec: from a chart builder.
        theme: see `theme.styled`.
        size: see `theme.styled`.
        title: see `theme.styled`.

    Raises:
        SchemaValidationError: Altair's schema does not know something in `spec`.
    """
    import altair

    return altair.Chart.from_dict(styled(spec, theme=theme, size=size, title=title, opaque=True))
