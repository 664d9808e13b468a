"""The figures of the composition scores, ready to leave."""

from typing import TYPE_CHECKING, Any

from mi_core.analyses.composition_result import ARRAYS, CompositionKind, CompositionResult
from mi_core.charts import composition as charts
from mi_core.charts.composition import TITLES, Head, head_name
from mi_core.charts.text import number
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.captions import model_sentence
from mi_core.exports.figure import Figure

if TYPE_CHECKING:
    import pandas as pd

HOW_TO_READ = (
    "Does a later head read what an earlier head writes? The writing head adds x OV1 to the stream; the "
    "reading head meets it in its queries (Q), keys (K) or values (V). Score = ||OV1 QK2|| / (||OV1|| "
    "||QK2||) for Q, ||OV1 QK2^T|| / (||OV1|| ||QK2||) for K, ||OV1 OV2|| / (||OV1|| ||OV2||) for V, with "
    "Frobenius norms (Elhage et al., 2021). 0 = blind to all that the other writes. 1 is reached only by "
    "circuits of a single direction; two that use n directions equally and match exactly have 1/sqrt(n). "
    "The mark 'random' is 1/sqrt(d_model), the root mean square score when the writer's output is turned "
    "at random: only what lies clearly above it means something. Induction heads show as K-composition "
    "with a head that attends to the previous token. Norm gains are in the weights; MLPs, positions "
    "(rotary) and how often a head is used are not in the score."
)
_WHERE: dict[CompositionKind, str] = {"Q": "queries", "K": "keys", "V": "values"}


def pair_figure(
    result: CompositionResult,
    kind: CompositionKind,
    *,
    layers: tuple[int, int] | None = None,
    excess: bool = False,
    chosen: tuple[Head, Head] | None = None,
) -> Figure:
    """Heads by heads; arguments as in `charts.composition.pair_heatmap`."""
    where = "" if layers is None else f", layer {layers[0]} to layer {layers[1]}"
    view = {
        "figure": "pairs",
        "kind": kind,
        "layers": None if layers is None else list(layers),
        "excess": excess,
        "chosen": None if chosen is None else [head_name(head) for head in chosen],
    }
    return _figure(
        result, f"{TITLES[kind]} between heads{where}", view,
        charts.pair_heatmap(result, kind, layers=layers, excess=excess, chosen=chosen),
        " ".join([_pairs_caption(result, kind, layers), _scale_sentence(result, excess=excess)]),
        charts.describe_pairs(result, kind, layers=layers, excess=excess),
        lambda: _frame(result, kind, layers),
    )  # fmt: skip


def layer_figure(
    result: CompositionResult,
    *,
    excess: bool = False,
    chosen: tuple[CompositionKind, int, int] | None = None,
) -> Figure:
    """Layers by layers; arguments as in `charts.composition.layer_heatmap`."""
    return _figure(
        result, "Composition by pairs of layers",
        {"figure": "layers", "excess": excess, "chosen": None if chosen is None else list(chosen)},
        charts.layer_heatmap(result, excess=excess, chosen=chosen),
        " ".join([
            f"Largest composition score among the {result.n_heads} x {result.n_heads} pairs of heads of "
            "every two layers (rows write, columns read). Hatched: the writer is not earlier.",
            _scale_sentence(result, excess=excess),
        ]),
        charts.describe_layers(result, excess=excess),
        result.to_frame,
    )  # fmt: skip


def top_figure(
    result: CompositionResult, kind: CompositionKind, n: int = 15, *, chosen: tuple[Head, Head] | None = None
) -> Figure:
    """The strongest pairs; arguments as in `charts.composition.top_pairs`."""
    best = result.top(kind, n)
    shown = ", ".join(f"{head_name(a)} \u2192 {head_name(b)} {number(v)}" for a, b, v in best[:5])
    return _figure(
        result, f"Strongest {TITLES[kind]}",
        {"figure": "top", "kind": kind, "n": n,
         "chosen": None if chosen is None else [head_name(head) for head in chosen]},
        charts.top_pairs(result, kind, n, chosen=chosen),
        " ".join([
            f"The {len(best)} pairs (writer \u2192 reader) with the largest {TITLES[kind]} scores, of "
            f"{_count(result)}.",
            _scale_sentence(result, excess=False),
        ]),
        f"Bars of the strongest {TITLES[kind]} scores: {shown}.",
        lambda: _top_frame(result, kind, n),
    )  # fmt: skip


def _figure(
    result: CompositionResult,
    title: str,
    view: dict[str, Any],
    spec: dict[str, Any],
    caption: str,
    description: str,
    frame: Any,
) -> Figure:
    return analysis_figure(
        result,
        analysis="composition",
        title=title,
        spec=spec,
        view=view,
        caption=f"{caption} {model_sentence(result.provenance)}".strip(),
        how_to_read=HOW_TO_READ,
        description=description,
        frame=frame,
        references=("elhage2021mathematical",),
        function="composition",
        arrays=ARRAYS,
    )


def _count(result: CompositionResult) -> str:
    return f"{int(result.earlier.sum()):,}"


def _pairs_caption(result: CompositionResult, kind: CompositionKind, layers: tuple[int, int] | None) -> str:
    count = result.n_heads**2 if layers is not None else int(result.earlier.sum())
    hatched = "" if layers is not None else " Hatched: the writer is not in an earlier layer."
    return (
        f"{TITLES[kind]} score of pairs of heads (n = {count:,}): how much of what the row's head writes "
        f"reaches the {_WHERE[kind]} of the column's head; no unit.{hatched}"
    )


def _scale_sentence(result: CompositionResult, *, excess: bool) -> str:
    turned = "the root mean square score of a writer turned at random"
    random = f"{number(result.baseline)} = 1/sqrt(d_model), {turned}"
    if excess:
        return f"Shown: score minus {random}; 0 (white) = as random."
    ends = "0 = reads nothing of it"
    return f"{ends}; random: {random}. From the weights alone, norm gains folded in."


def _frame(
    result: CompositionResult, kind: CompositionKind, layers: tuple[int, int] | None
) -> "pd.DataFrame":
    frame = result.to_frame()
    shown = frame["kind"] == kind
    if layers is not None:
        shown &= (frame["from_layer"] == layers[0]) & (frame["to_layer"] == layers[1])
    return frame.loc[shown | (frame["kind"] == "baseline")]


def _top_frame(result: CompositionResult, kind: CompositionKind, n: int) -> "pd.DataFrame":
    import pandas as pd  # only tables need it

    rows = [
        {
            "kind": kind,
            "rank": rank + 1,
            "from_layer": writer[0],
            "from_head": writer[1],
            "to_layer": reader[0],
            "to_head": reader[1],
            "value": value,
            "baseline": result.baseline,
            "unit": "share of the norms' product",
        }
        for rank, (writer, reader, value) in enumerate(result.top(kind, n))
    ]
    return pd.DataFrame(rows)
