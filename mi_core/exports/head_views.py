"""The figures of one head's OV or QK circuit, ready to leave."""

from typing import TYPE_CHECKING

from mi_core.analyses.head_views_result import ARRAYS, HeadViewsResult
from mi_core.charts import head_views as charts
from mi_core.charts.text import number
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.captions import model_sentence
from mi_core.exports.figure import Figure

if TYPE_CHECKING:
    import pandas as pd

_SIGNS = (
    "Signs are a convention (the largest absolute reading on the right is positive); left and right flip "
    "together: blue on the left goes with blue on the right, orange with orange, and a blue token on the "
    "left lowers the orange tokens on the right."
)
_LEFT_OUT = (
    "Norm gains are folded into the weights; the norms' scales, biases, position embeddings and "
    "everything that layers before have written to the stream are left out. A direction is a mixture: its "
    "first tokens are a hint, not its meaning."
)
HOW_TO_READ = {
    "OV": (
        "W_V W_O turns what stands where the head looks into what it writes. Its singular value "
        "decomposition splits that into directions, strongest first: the left side of a direction is what "
        "the head reads (tokens by W_E), the right side what it then writes (tokens by final norm and "
        f"W_U, relative to the mean token, which softmax cannot see). {_SIGNS} {_LEFT_OUT}"
    ),
    "QK": (
        "W_Q W_K^T says how much a query looks at a key. Its singular value decomposition splits that "
        "into directions, strongest first: a query token on the left looks at key tokens of the same sign "
        "on the right (both by W_E; keys relative to their mean, which softmax cannot see) and away from "
        "those of the other sign. With rotary position embeddings this is the part by content, exact at "
        "distance 0; what the head does by position is not in it. The factor 1/sqrt(d_head) of the scores "
        f"is left out. {_SIGNS} {_LEFT_OUT}"
    ),
}
_SPECTRUM = (
    "How many directions matter: a circuit of one strong direction does one thing, a flat line means that "
    "the head moves a whole subspace and single directions say little. Squared singular values add up to "
    "the squared Frobenius norm of the circuit."
)


def direction_figure(result: HeadViewsResult) -> Figure:
    """Tokens at both ends of the strongest directions."""
    circuit = result.inputs.circuit
    return analysis_figure(
        result,
        analysis="head_views",
        title=f"{result.name}: strongest directions of the {circuit} circuit",
        spec=charts.direction_tokens(result),
        view={"figure": "directions"},
        caption=direction_caption(result),
        how_to_read=HOW_TO_READ[circuit],
        description=charts.describe_directions(result),
        frame=lambda: _readings(result),
        references=("elhage2021mathematical",),
        function="head_views",
        arrays=ARRAYS,
    )


def spectrum_figure(result: HeadViewsResult) -> Figure:
    """All singular values."""
    circuit = result.inputs.circuit
    return analysis_figure(
        result,
        analysis="head_views",
        title=f"{result.name}: singular values of the {circuit} circuit",
        spec=charts.spectrum(result),
        view={"figure": "spectrum"},
        caption=" ".join([
            f"Singular values of the {circuit} circuit of {result.name}, all {len(result.singular_values)} "
            f"that its rank allows; Frobenius norm {number(result.frobenius)}. 0 = that direction does "
            "nothing.",
            model_sentence(result.provenance),
        ]).strip(),
        how_to_read=_SPECTRUM,
        description=charts.describe_spectrum(result),
        frame=result.to_frame,
        references=("elhage2021mathematical",),
        function="head_views",
        arrays=ARRAYS,
    )  # fmt: skip


def _readings(result: HeadViewsResult) -> "pd.DataFrame":
    frame = result.to_frame()
    return frame.loc[frame["quantity"] == "reading"].drop(columns="quantity")


def direction_caption(result: HeadViewsResult) -> str:
    """Caption of the table of tokens."""
    shares = ", ".join(f"{share:.0%}" for share in result.shares[: result.n_directions].tolist())
    left, right = result.sides
    k = result.left_top_ids.shape[2]
    shared = (
        f" Its values and keys are those of key/value head {result.kv_head}."
        if result.kv_head != result.inputs.head
        else ""
    )
    return " ".join([
        f"The {result.n_directions} strongest of {len(result.singular_values)} directions of the "
        f"{result.inputs.circuit} circuit of {result.name}: the {k} tokens at either end of the left side "
        f"({left}s) and of the right side ({right}s). Colour: reading as a share of the largest in its "
        "column; 0 = the direction does not touch the token.",
        f"Directions hold {shares} of the squared norm.{shared}",
        "From the weights alone, norm gains folded in; no biases, no positions.",
        model_sentence(result.provenance),
    ]).strip()  # fmt: skip
