"""The drawings of an inspection: norms over layers, norms of token vectors, one weight closely."""

from collections.abc import Sequence
from typing import Any

from mi_core.analyses.inspect_result import STATISTICS, InspectResult
from mi_core.analyses.inspect_weight_result import InspectWeightResult
from mi_core.charts.histogram import Series, histogram
from mi_core.charts.lines import Line, lines

Spec = dict[str, Any]

GROUPS: dict[str, str] = {"attention": "attention", "mlp": "MLP", "norm": "norm gains"}
"""Role of the weights that are drawn together -> label."""


def lines_of(result: InspectResult, group: str) -> list[str]:
    """Names of the matrices of a group that exist in some layer, in the order of the table.

    Vectors other than the gains of norms (biases) are left out: their sizes are not comparable.
    """
    wanted = [result.weights[index] for index in result.rows_of(roles=(_role(group),), heads=False)]
    shown = [w for w in wanted if w.layer is not None and (len(w.shape) == 2 or w.name.endswith(".weight"))]
    return list(dict.fromkeys(weight.name for weight in shown))


def layer_lines(
    result: InspectResult, statistic: str = "frobenius", group: str = "attention", *, layer: int | None = None
) -> Spec:
    """A statistic of every weight of a group over the layers.

    Args:
        result: an inspection.
        statistic: one of `STATISTICS`.
        group: one of `GROUPS`.
        layer: chosen layer.
    """
    label, _ = STATISTICS[statistic]
    return lines(
        [_line(result, statistic, name) for name in lines_of(result, group)],
        x_title="Layer", y_title=label.capitalize(), unit="weight units", chosen_x=layer,
    )  # fmt: skip


def _role(group: str) -> Any:
    if group not in GROUPS:
        raise ValueError(f"{group!r} is none of {', '.join(GROUPS)}")
    return group


def _line(result: InspectResult, statistic: str, name: str) -> Line:
    values = getattr(result, statistic)
    found = [
        (weight.layer, float(values[index]))
        for index, weight in enumerate(result.weights)
        if weight.name == name and weight.head is None and weight.layer is not None
    ]
    return Line(name, [layer for layer, _ in found], [value for _, value in found])


def embedding_histogram(result: InspectResult) -> Spec:
    """How many tokens have vectors of which norm; one outline per matrix, one for both when tied.

    Heights follow log(1 + count), so that a single odd token can be seen.
    """
    names = [norms.name for norms in result.embeddings]
    if result.architecture.tied and "W_E" in names:
        series = [Series("W_E = W_U (tied)", result.embedding_norms.tolist())]
    else:
        counts = {"W_E": result.embedding_norms, "W_U": result.unembedding_norms}
        series = [Series(name, counts[name].tolist()) for name in names]
    return histogram(
        result.norm_edges.tolist(),
        series,
        x_title="Norm of a token's vector",
        unit="weight units",
        y_title="tokens",
        logarithmic_counts=True,
    )


def entries_histogram(result: InspectWeightResult) -> Spec:
    """How the entries of one weight are spread."""
    return histogram(
        result.edges.tolist(), [Series(result.info.full_name, result.counts.tolist())],
        x_title="Entry", unit="weight units", y_title="entries", logarithmic_counts=True,
    )  # fmt: skip


def spectrum_lines(result: InspectWeightResult) -> Spec:
    """The singular values of one weight, largest first."""
    values = result.singular_values.tolist()
    return lines(
        [Line(result.info.full_name, list(range(len(values))), values)],
        x_title="Number of the direction", y_title="Singular value", unit="weight units",
    )  # fmt: skip


def describe_lines(result: InspectResult, statistic: str, group: str) -> str:
    """A sentence or two that stand for the lines."""
    label, _ = STATISTICS[statistic]
    parts = [f"{label.capitalize()} over {result.architecture.n_layers} layers."]
    for name in lines_of(result, group):
        line = _line(result, statistic, name)
        parts.append(f"{name}: {_ends(line.y)}.")
    return " ".join(parts)


def _ends(values: Sequence[float]) -> str:
    return f"{values[0]:.3g} in the first layer, {values[-1]:.3g} in the last"
