"""The figures of an inspection: drawing, table, caption and recipe together, ready to leave."""

from typing import TYPE_CHECKING, Any

from mi_core.analyses.inspect_record import shape_text
from mi_core.analyses.inspect_result import STATISTICS, InspectResult
from mi_core.analyses.inspect_weight_result import InspectWeightResult
from mi_core.charts import architecture as plans
from mi_core.charts import inspect as drawings
from mi_core.charts.text import legible, number
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.captions import model_sentence
from mi_core.exports.figure import Figure

if TYPE_CHECKING:
    import pandas as pd

ARCHITECTURE_READING = (
    "Above, the whole model: every layer is a column with attention over the MLP. Below, one block large. "
    "The horizontal line is the residual stream: a module reads it through a norm and adds what it computes "
    "(+). Where attention and MLP stand one after the other, the MLP reads what attention has just written; "
    "where they stand on both sides of the line, both read the same stream. Click a box for its weights."
)
LINES_READING = (
    "One point per layer. The Frobenius norm is the square root of the sum of squares of all entries, the "
    "size of the matrix as a whole; the largest singular value is the most by which it can lengthen a "
    "vector. Weights are as published: the gains of norms are not folded into them, so a small matrix behind "
    "a large gain can still act strongly."
)
EMBEDDING_READING = (
    "Every token has a vector in the embedding W_E and one in the unembedding W_U. Tokens with unusually "
    "short vectors were hardly seen in training; a long vector in W_U makes a token likely almost anywhere."
)
ENTRIES_READING = (
    "Entries of the weight in bins of equal width. Heights follow log(1 + count), so that a few outlying "
    "entries can be seen."
)
SPECTRUM_READING = (
    "Singular values tell along how many directions a matrix acts: W = U diag(s) V^T. A steep fall means "
    "that few directions do most of the work. Stable rank = squared Frobenius norm over squared largest "
    "singular value."
)

_ARRAYS = ("frobenius", "mean", "std", "minimum", "maximum", "norm_edges")


def architecture_figure(
    result: InspectResult, *, layer: int | None = None, part: str | None = None
) -> Figure:
    """The plan of the model; arguments as in `charts.architecture.architecture_chart`."""
    plan = result.architecture
    entry = "" if plan.known else " (no entry of its own: its structure was probed)"
    roles = ", ".join(f"{role} {count:,}" for role, count in result.parameters_by_role().items() if count)
    caption = (
        f"{plans.describe_architecture(plan)} {result.parameters:,} parameters: {roles}. Drawn from the data "
        f"of the family {legible(plan.family)}{entry}. {model_sentence(result.provenance)}"
    )
    return _figure(
        result,
        "Architecture",
        plans.architecture_chart(plan, layer=layer, part=part),
        {"figure": "architecture", "layer": layer, "part": part},
        caption,
        ARCHITECTURE_READING,
        plans.describe_architecture(plan),
        lambda: weights_table(result, layer=layer),
    )


def layers_figure(
    result: InspectResult, statistic: str = "frobenius", group: str = "attention", *, layer: int | None = None
) -> Figure:
    """A statistic over the layers; arguments as in `charts.inspect.layer_lines`."""
    label, meaning = STATISTICS[statistic]
    names = drawings.lines_of(result, group)
    caption = (
        f"{label.capitalize()} ({meaning}) of {', '.join(names)} in each of {result.architecture.n_layers} "
        f"layers, in units of the weights. Matrices of heads are taken whole. "
        f"{model_sentence(result.provenance)}"
    )
    return _figure(
        result,
        f"{label.capitalize()} over the layers",
        drawings.layer_lines(result, statistic, group, layer=layer),
        {"figure": "layers", "statistic": statistic, "group": group},
        caption,
        LINES_READING,
        drawings.describe_lines(result, statistic, group),
        lambda: statistic_table(result, statistic, names),
    )


def embedding_figure(result: InspectResult) -> Figure:
    """Norms of the vectors of all tokens."""
    parts = [
        f"{norms.name}: mean norm {number(norms.mean)}, standard deviation {number(norms.std)}, from "
        f"{number(norms.smallest)} to {number(norms.largest)}."
        for norms in result.embeddings
        if norms.name == "W_E" or not result.architecture.tied
    ]
    tied = "Embedding and unembedding are one matrix. " if result.architecture.tied else ""
    tokens = int(result.embedding_norms.sum() or result.unembedding_norms.sum())
    caption = (
        f"Norms of the vectors of n = {tokens:,} tokens, in units of the weights; heights follow log(1 + "
        f"count). {tied}{' '.join(parts)} {model_sentence(result.provenance)}"
    )
    return _figure(
        result, "Norms of token vectors", drawings.embedding_histogram(result),
        {"figure": "embedding"}, caption, EMBEDDING_READING, caption, lambda: embedding_table(result),
    )  # fmt: skip


def entries_figure(result: InspectWeightResult) -> Figure:
    """How the entries of one weight are spread."""
    caption = (
        f"{_name(result)}: {int(result.counts.sum()):,} entries; mean {number(result.mean)}, standard "
        f"deviation {number(result.std)}. {model_sentence(result.provenance)}"
    )
    return _weight_figure(
        result, f"Entries of {_name(result)}", drawings.entries_histogram(result), "entries", caption,
        ENTRIES_READING, ("counts",),
    )  # fmt: skip


def spectrum_figure(result: InspectWeightResult) -> Figure:
    """The singular values of one weight."""
    caption = (
        f"All {len(result.singular_values)} singular values of {_name(result)} "
        f"[{shape_text(result.info.shape)}], in units of the weights; largest "
        f"{number(float(result.singular_values[0]))}, stable rank {number(result.stable_rank)}, Frobenius "
        f"norm {number(result.frobenius)}. {model_sentence(result.provenance)}"
    )
    return _weight_figure(
        result, f"Singular values of {_name(result)}", drawings.spectrum_lines(result), "spectrum", caption,
        SPECTRUM_READING, ("singular_values",),
    )  # fmt: skip


def _name(result: InspectWeightResult) -> str:
    return legible(result.info.full_name)


def weights_table(
    result: InspectResult, *, layer: int | None = None, rows: list[int] | None = None
) -> "pd.DataFrame":
    """One row per weight, all statistics side by side.

    Args:
        result: an inspection.
        layer: only this layer; None = all.
        rows: only these rows of the result, in this order; None = those of `layer`, heads included.
    """
    import pandas as pd

    shown = result.rows_of(layer=layer) if rows is None else rows
    weights = [result.weights[index] for index in shown]
    table: dict[str, Any] = {
        "weight": [weight.full_name for weight in weights],
        "role": [weight.role for weight in weights],
        "layer": pd.array([weight.layer for weight in weights], dtype="Int64"),
        "head": pd.array([weight.head for weight in weights], dtype="Int64"),
        "shape": [shape_text(weight.shape) for weight in weights],
        "numbers": [weight.numbers for weight in weights],
        "dtype": [weight.dtype for weight in weights],
        **{name: getattr(result, name)[shown] for name in STATISTICS},
        "unit": "weight",
        "tied_to": [weight.tied_to for weight in weights],
        "parameter": [weight.stored_in for weight in weights],
    }
    return pd.DataFrame(table)


def statistic_table(result: InspectResult, statistic: str, names: list[str]) -> "pd.DataFrame":
    """One row per line and layer: weight, layer, statistic, value, unit."""
    import pandas as pd

    frame = result.to_frame()
    suffix = frame["weight"].map(lambda full: any(full.endswith(f".{name}") for name in names))
    kept = suffix & (frame["statistic"] == statistic) & frame["layer"].notna() & frame["head"].isna()
    return pd.DataFrame(frame[kept]).reset_index(drop=True)


def embedding_table(result: InspectResult) -> "pd.DataFrame":
    """One row per matrix and bin: matrix, low, high, value, unit."""
    import pandas as pd

    counts = {"W_E": result.embedding_norms, "W_U": result.unembedding_norms}
    records = [
        {"matrix": norms.name, "low": low, "high": high, "value": count, "unit": "tokens"}
        for norms in result.embeddings
        for low, high, count in zip(
            result.norm_edges[:-1].tolist(),
            result.norm_edges[1:].tolist(),
            counts[norms.name].tolist(),
            strict=True,
        )
    ]
    return pd.DataFrame(records, columns=pd.Index(["matrix", "low", "high", "value", "unit"]))


def extreme_tokens(result: InspectResult) -> "pd.DataFrame":
    """Tokens with the shortest and the longest vectors: matrix, which, id, token, norm."""
    import pandas as pd

    records = [
        {"matrix": norms.name, "which": which, "id": token_id, "token": name, "norm": norm}
        for norms in result.embeddings
        for which, ids, values in (
            ("shortest", norms.smallest_ids, norms.smallest_norms),
            ("longest", norms.largest_ids, norms.largest_norms),
        )
        for token_id, norm in zip(ids.tolist(), values.tolist(), strict=True)
        for name in [result.vocabulary.get(token_id, f"#{token_id}")]
    ]
    return pd.DataFrame(records, columns=pd.Index(["matrix", "which", "id", "token", "norm"]))


def _figure(
    result: InspectResult,
    title: str,
    spec: dict[str, Any],
    view: dict[str, Any],
    caption: str,
    reading: str,
    description: str,
    frame: Any,
) -> Figure:
    return analysis_figure(
        result, analysis="inspect", title=title, spec=spec, view=view, caption=caption, how_to_read=reading,
        description=description, frame=frame, function="inspect_model", arrays=_ARRAYS,
    )  # fmt: skip


def _weight_figure(
    result: InspectWeightResult,
    title: str,
    spec: dict[str, Any],
    kind: str,
    caption: str,
    reading: str,
    arrays: tuple[str, ...],
) -> Figure:
    return analysis_figure(
        result, analysis="inspect_weight", title=title, spec=spec, view={"figure": kind}, caption=caption,
        how_to_read=reading, description=caption, frame=lambda: part_table(result, kind),
        function="inspect_weight", arrays=arrays,
    )  # fmt: skip


def part_table(result: InspectWeightResult, kind: str) -> "pd.DataFrame":
    """The rows of the result's table that a figure shows: "entries" or "spectrum"."""
    import pandas as pd

    frame = result.to_frame()
    metric = "entries" if kind == "entries" else "singular value"
    return pd.DataFrame(frame[frame["metric"] == metric]).reset_index(drop=True)
