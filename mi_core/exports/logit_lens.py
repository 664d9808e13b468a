"""The figures of a logit lens: drawing, table, caption, checks and recipe together, ready to leave."""

from typing import TYPE_CHECKING

from mi_core.analyses.logit_lens_inputs import Statistic
from mi_core.analyses.logit_lens_result import LogitLensResult
from mi_core.analyses.logit_lens_steps_result import LogitLensStepsResult
from mi_core.charts import logit_lens as grids
from mi_core.charts import logit_lens_lines as curves
from mi_core.charts.logit_lens_lines import Measure
from mi_core.charts.text import token_label
from mi_core.exports import captions_lens
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.figure import Figure
from mi_core.exports.references import LOGIT_LENS

if TYPE_CHECKING:
    import pandas as pd

ARRAYS = ("log_probability", "rank", "entropy", "kl", "output_log_probability", "output_entropy")
WORD_ARRAYS = ("word_log_probability", "word_rank", "output_word_log_probability")


def grid_figure(
    result: LogitLensResult, statistic: Statistic = "probability", *, chosen: tuple[int, int] | None = None
) -> Figure:
    """Layers by tokens; `chosen` is (layer, position)."""
    return analysis_figure(
        result,
        analysis="logit_lens",
        title="What each layer would say",
        spec=grids.lens_heatmap(result, statistic, chosen=chosen),
        view={"figure": "grid", "statistic": statistic, "chosen": chosen and list(chosen)},
        caption=captions_lens.grid_caption(result, statistic),
        how_to_read=captions_lens.GRID,
        description=grids.describe_lens(result, statistic),
        frame=lambda: statistic_table(result, statistic),
        references=LOGIT_LENS,
        function="logit_lens",
        arrays=ARRAYS,
    )


def words_figure(
    result: LogitLensResult, position: int, measure: Measure = "rank", *, chosen_layer: int | None = None
) -> Figure:
    """Followed tokens over layers at one position."""
    token = token_label(position, result.tokens[position].visible)
    return analysis_figure(
        result,
        analysis="logit_lens",
        title=f"Followed tokens at {token}",
        spec=curves.word_lines(result, position, measure, chosen_layer=chosen_layer),
        view={"figure": "words", "position": position, "measure": measure},
        caption=captions_lens.words_caption(result, position, measure),
        how_to_read=captions_lens.WORDS,
        description=curves.describe_words(result, position, measure),
        frame=lambda: words_table(result, position),
        references=LOGIT_LENS,
        function="logit_lens",
        arrays=WORD_ARRAYS,
    )


def cell_figure(result: LogitLensResult, layer: int, position: int) -> Figure:
    """The most probable tokens of one cell."""
    token = token_label(position, result.tokens[position].visible)
    return analysis_figure(
        result,
        analysis="logit_lens",
        title=f"Layer {layer} at {token}: top tokens",
        spec=grids.cell_bars(result, layer, position),
        view={"figure": "cell", "chosen": [layer, position]},
        caption=captions_lens.cell_caption(result, layer, position),
        how_to_read=captions_lens.CELL,
        description=grids.describe_cell(result, layer, position),
        frame=lambda: cell_table(result, layer, position),
        references=LOGIT_LENS,
        function="logit_lens",
        arrays=("top_probabilities", "output_top_probabilities"),
    )


def steps_figure(
    result: LogitLensStepsResult, *, first_layer: int = 0, chosen_layer: int | None = None
) -> Figure:
    """Changes by attention and MLP at one position, drawn from a layer on."""
    token = token_label(result.position, result.tokens[result.position].visible)
    return analysis_figure(
        result,
        analysis="logit_lens_steps",
        title=f"What attention and MLPs change at {token}",
        spec=curves.step_lines(result, first_layer=first_layer, chosen_layer=chosen_layer),
        view={"figure": "steps", "first_layer": first_layer},
        caption=captions_lens.steps_caption(result, first_layer),
        how_to_read=captions_lens.STEPS,
        description=curves.describe_steps(result),
        frame=result.to_frame,
        references=LOGIT_LENS,
        function="logit_lens_steps",
        arrays=("log_probability", "output_log_probability"),
    )


def statistic_table(result: LogitLensResult, statistic: Statistic) -> "pd.DataFrame":
    """The rows of the result's table with one statistic, and every cell's top token."""
    import pandas as pd

    frame = result.to_frame()
    shown = pd.DataFrame(frame[frame["statistic"] == statistic]).reset_index(drop=True)
    tops = [*result.top_ids[..., 0].ravel().tolist(), *result.output_top_ids[:, 0].tolist()]
    return shown.assign(top_token=[result.visible(token) for token in tops])


def words_table(result: LogitLensResult, position: int) -> "pd.DataFrame":
    """Log-probability and rank of every followed token at one position."""
    import pandas as pd

    frame = result.to_frame()
    wanted = frame["statistic"].isin(["word_log_probability", "word_rank"]) & (frame["position"] == position)
    return pd.DataFrame(frame[wanted]).reset_index(drop=True)


def cell_table(result: LogitLensResult, layer: int, position: int) -> "pd.DataFrame":
    """One row per top token: place, id, token, value, unit."""
    import pandas as pd

    row, column = result.row_of(layer), result.column_of(position)
    ids = result.top_ids[row, column].tolist()
    return pd.DataFrame(
        {
            "place": range(1, len(ids) + 1),
            "id": ids,
            "token": [result.visible(token) for token in ids],
            "value": result.top_probabilities[row, column],
            "unit": "probability",
        }
    )
