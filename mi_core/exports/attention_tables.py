"""The tables behind the figures of attention: one number per row, with its unit."""

from typing import TYPE_CHECKING

import numpy as np

from mi_core.analyses.attention_inputs import HEAD_METRICS, METRIC_NAMES
from mi_core.analyses.attention_result import AttentionResult
from mi_core.analyses.attention_view import Direction, cells_frame
from mi_core.charts import attention as charts
from mi_core.charts.attention_heads import SIDE_TITLES, View

if TYPE_CHECKING:
    import pandas as pd


def head_table(result: AttentionResult, metric: str, view: View) -> "pd.DataFrame":
    """layer, head, metric, value, unit of the heads that a figure shows."""
    import pandas as pd

    info = HEAD_METRICS[METRIC_NAMES.index(metric)]
    layers, heads = np.indices((result.n_layers, result.n_heads)).reshape(2, -1)
    return pd.DataFrame(
        {
            "prompt": SIDE_TITLES[view.side],
            "layer": layers,
            "head": heads,
            "metric": metric,
            "value": result.metric(metric, view.side, mask_first=view.mask_first).ravel(),
            "unit": info.unit,
        }
    )


def pairs_table(
    result: AttentionResult, place: tuple[int, int], view: View, *, count: int = 50
) -> "pd.DataFrame":
    """query, key, value, rank of the strongest pairs; more than are drawn."""
    import pandas as pd

    tokens = result.tokens_of(view.side)
    return pd.DataFrame(
        [
            {
                "layer": place[0],
                "head": place[1],
                "query": pair.query,
                "query_token": tokens[pair.query].visible,
                "key": pair.key,
                "key_token": tokens[pair.key].visible,
                "value": pair.value,
                "rank": pair.rank,
                "unit": result.unit,
            }
            for pair in charts.head_pairs(result, place, view, count=count)
        ],
        columns=[
            "layer", "head", "query", "query_token", "key", "key_token", "value", "rank", "unit",
        ],
    )  # fmt: skip


def line_table(
    result: AttentionResult, place: tuple[int, int], view: View, position: int, direction: Direction
) -> "pd.DataFrame":
    """The cells of one query or of one key."""
    import pandas as pd

    table = cells_frame(result, [place], [view.side], mask_first=view.mask_first)
    wanted = table["query" if direction == "from" else "key"] == position
    return pd.DataFrame(table[wanted.fillna(False)]).reset_index(drop=True)
